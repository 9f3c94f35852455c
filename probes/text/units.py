"""From chunks of text to codes: bytes, words, or the ids of a tokenizer. Equal codes mean equal units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt64

from byrote.checkpoints.vocabulary import load_tokenizer
from byrote.probes.text.chunk import PART_BYTES, Chunk
from byrote.probes.text.ngrams import mix

Codes = tuple[UInt64[np.ndarray, " n"], Int[np.ndarray, " n"]]
_SPACE, _WORD, _PUNCTUATION = 0, 1, 2
_GROUP_BYTES = (
    1 << 17
)  # parts hashed at once: the temporaries are 8 bytes per byte of text, and stay in the cache
_BASE = np.uint64(0xD1342543DE82EF95)  # odd, so that it has an inverse modulo 2^64
_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))


def encoder(units: str, tokenizer: Path | None) -> Callable[[Chunk], Codes]:
    """A function from a chunk to (codes, document of each code).

    Raises:
        ByroteError: the tokenizer cannot be read.
    """
    if units == "bytes":
        return _bytes
    if units == "words":
        return _words
    return _tokens(tokenizer)


def _bytes(chunk: Chunk) -> Codes:
    codes = np.frombuffer(b"".join(chunk.parts), dtype=np.uint8).astype(np.uint64)
    return codes, np.repeat(np.asarray(chunk.documents), [len(part) for part in chunk.parts])


def _words(chunk: Chunk) -> Codes:
    """Runs of one class of byte, hashed; a run ends with its part."""
    codes, documents = zip(*(_hashed_runs(group) for group in _groups(chunk)), strict=True)
    return np.concatenate(codes), np.concatenate(documents)


def _groups(chunk: Chunk) -> Iterator[Chunk]:
    """A few parts at a time."""
    group, size = Chunk(), 0
    for part, document in zip(chunk.parts, chunk.documents, strict=True):
        group.parts.append(part)
        group.documents.append(document)
        size += len(part)
        if size >= _GROUP_BYTES:
            yield group
            group, size = Chunk(), 0
    if size:
        yield group


def _hashed_runs(group: Chunk) -> Codes:
    """The hash of a run is the sum of table[byte] * base^i over it, then mixed.

    One running sum over the group gives every run's hash as a difference, divided by base^(start of the run).
    """
    text = np.frombuffer(b"".join(group.parts), dtype=np.uint8)
    lengths = np.asarray([len(part) for part in group.parts])
    kind, table = _tables()
    kinds = kind[text]
    change = np.ones(len(text), dtype=bool)
    change[1:] = kinds[1:] != kinds[:-1]
    begins = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    change[begins] = True
    start = np.flatnonzero(change)
    end = np.append(start[1:], len(text))
    kept = kinds[start] != _SPACE
    start, end = start[kept], end[kept]
    power, inverse = _powers()
    running = np.zeros(len(text) + 1, dtype=np.uint64)
    np.cumsum(table[text] * power[: len(text)], out=running[1:])
    codes = mix((running[end] - running[start]) * inverse[start])
    part = np.searchsorted(begins, start, side="right") - 1
    return codes, np.asarray(group.documents)[part]


@lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Class and random code of each byte; ASCII letters have one code for both cases."""
    kind = np.full(256, _PUNCTUATION, dtype=np.uint8)
    kind[:33] = kind[127] = _SPACE
    kind[128:] = _WORD
    words = b"0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    kind[np.frombuffer(words, dtype=np.uint8)] = _WORD
    table = mix(np.arange(1, 257, dtype=np.uint64))
    table[ord("A") : ord("Z") + 1] = table[ord("a") : ord("z") + 1]
    return kind, table


@lru_cache(maxsize=1)
def _powers() -> tuple[np.ndarray, np.ndarray]:
    """Powers of the base and of its inverse, modulo 2^64, for the longest group."""
    n = _GROUP_BYTES + PART_BYTES
    base, inverse = np.full(n, _BASE), np.full(n, _INVERSE)
    base[0] = inverse[0] = 1
    return np.multiply.accumulate(base), np.multiply.accumulate(inverse)


def _tokens(path: Path | None) -> Callable[[Chunk], Codes]:
    tokenizer = load_tokenizer(path)

    def encode(chunk: Chunk) -> Codes:
        texts = [part.decode("utf-8", "replace") for part in chunk.parts]
        found = [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        codes = np.concatenate([np.asarray(ids, dtype=np.uint64) for ids in found])
        return codes, np.repeat(np.asarray(chunk.documents), [len(ids) for ids in found])

    return encode
