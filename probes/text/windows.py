"""Tokenise chunks of text, and batch the stream into whole windows and whole pieces of documents.

Codes are bytes, hashed words, or the ids of a tokenizer. Equal codes mean equal units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt64

from byrote.checkpoints.ngrams import Repeats, mix, positions, repeats, sequence_of
from byrote.checkpoints.texts import PART_BYTES, Chunk, Codes, token_encoder

BATCH_TOKENS = 1 << 18
WINDOW_ORDERS = (1, 2, 3, 4, 5, 6, 7)
PIECE_ORDERS = (1, 2, 3, 4, 8, 16, 32)
# The null needs no interval: on a long corpus, a quarter of the batches will do.
_NULLS_AT_FIRST, _NULL_EVERY = 16, 4
_SPACE, _WORD, _PUNCTUATION = 0, 1, 2
_GROUP_BYTES = (
    1 << 17
)  # parts hashed at once: the temporaries are 8 bytes per byte of text, and stay in the cache
_BASE = np.uint64(0xD1342543DE82EF95)  # odd, so that it has an inverse modulo 2^64
_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))


@dataclass
class Batch:
    """Codes of some windows; every window, and every piece of a document, is whole.

    Attributes:
        index: which batch of the corpus this is.
        tokens: codes, one document after another.
        windows: where each window starts.
        pieces: where each piece of a document starts; windows nest in pieces.
        window_units, piece_units: what is resampled in a bootstrap, counted over the corpus: the document of each
            window and piece, or the window and piece themselves.
        seed: of the shuffles.
    """

    index: int
    tokens: UInt64[np.ndarray, " n"]
    windows: Int[np.ndarray, " w"]
    pieces: Int[np.ndarray, " p"]
    window_units: Int[np.ndarray, " w"]
    piece_units: Int[np.ndarray, " p"]
    seed: int = 0

    @cached_property
    def window_repeats(self) -> list[Repeats]:
        """Repeats inside windows, n = 1 to 7."""
        return list(repeats(self.tokens, self.windows, WINDOW_ORDERS))

    @cached_property
    def piece_repeats(self) -> list[Repeats]:
        """Repeats inside pieces of documents, n = 1, 2, 3, 4, 8, 16, 32."""
        return list(repeats(self.tokens, self.pieces, PIECE_ORDERS))

    @property
    def has_null(self) -> bool:
        """Whether the null is measured on this batch."""
        return self.index < _NULLS_AT_FIRST or self.index % _NULL_EVERY == 0

    @cached_property
    def shuffled_windows(self) -> Batch:
        """The null: the same tokens in every window, in random order."""
        return self._shuffled(self.windows, 1)

    @cached_property
    def shuffled_pieces(self) -> Batch:
        """The null: the same tokens in every piece, in random order."""
        return self._shuffled(self.pieces, 2)

    def _shuffled(self, starts: np.ndarray, salt: int) -> Batch:
        rng = np.random.default_rng([self.seed, self.index, salt])
        random = rng.integers(1 << 40, size=len(self.tokens), dtype=np.uint64)
        order = np.argsort(
            (sequence_of(starts, len(self.tokens)).astype(np.uint64) << np.uint64(40)) | random
        )
        return replace(self, tokens=self.tokens[order])


class Windower:
    """Cuts a stream of codes into windows.

    Args:
        context: tokens per window.
        piece: tokens per piece, whole windows.
        mode: "documents", "full" or "packed", as for `TextSettings.windows`.
        by_document: whether documents are the units of the bootstrap; else windows and pieces are.
        seed: of the batches' shuffles.

    Afterwards `tokens`, `windows` and `pieces` say how many there were, `documents` how many of them had any, and
    `joined` how many documents were packed into one.
    """

    def __init__(
        self, context: int, piece: int, *, mode: str = "documents", by_document: bool = True, seed: int = 0
    ) -> None:
        self.context, self.piece, self.mode = context, piece, mode
        self.by_document, self.seed = by_document, seed
        self.tokens = self.documents = self.windows = self.pieces = self.batches = 0
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._size = self.joined = 0
        self._last = self._joining = -1

    def feed(self, tokens: UInt64[np.ndarray, " n"], documents: Int[np.ndarray, " n"]) -> Iterator[Batch]:
        """Add codes with the document of each, never falling."""
        if self.mode == "packed" and len(documents):
            self.joined += int(np.count_nonzero(np.diff(documents, prepend=self._joining)))
            self._joining = int(documents[-1])
            documents = np.zeros_like(documents)
        self._waiting.append((tokens, documents))
        self._size += len(tokens)
        if self._size > BATCH_TOKENS:
            yield from self._cut(last=False)

    def flush(self) -> Iterator[Batch]:
        """What is left at the end of the corpus."""
        if self._size:
            yield from self._cut(last=True)

    def _cut(self, *, last: bool) -> Iterator[Batch]:
        """Batches of as many whole pieces as `BATCH_TOKENS` hold, the same however the tokens arrive; the rest waits."""
        tokens, documents = (np.concatenate(part) for part in zip(*self._waiting, strict=True))
        starts = _starts(documents)
        pieces = _cuts(starts, len(tokens), self.piece)
        bounds = [0]
        while len(tokens) - bounds[-1] > BATCH_TOKENS:
            full = np.searchsorted(pieces, bounds[-1] + BATCH_TOKENS, side="right") - 1
            bounds.append(int(pieces[full]))
        rest = len(tokens) if last else bounds[-1]
        if last:
            bounds.append(rest)
        self._waiting, self._size = [(tokens[rest:], documents[rest:])], len(tokens) - rest
        for start, end in pairwise(bounds):
            batch = self._batch(tokens[start:end], documents[start:end])
            if batch is not None:
                yield batch

    def _batch(self, tokens: np.ndarray, documents: np.ndarray) -> Batch | None:
        if self.mode == "full":
            kept = _in_full_windows(documents, self.context)
            tokens, documents = tokens[kept], documents[kept]
            if not len(tokens):
                return None
        starts = _starts(documents)
        goes_on = int(documents[0] == self._last)
        self._last = int(documents[-1])
        windows, pieces = (_cuts(starts, len(tokens), width) for width in (self.context, self.piece))
        in_order = self.documents - goes_on + np.arange(len(starts))
        units = []
        for cuts, counted in ((windows, self.windows), (pieces, self.pieces)):
            of_document = in_order[np.searchsorted(starts, cuts, side="right") - 1]
            units.append(of_document if self.by_document else counted + np.arange(len(cuts)))
        batch = Batch(self.batches, tokens, windows, pieces, units[0], units[1], self.seed)
        self.tokens += len(tokens)
        self.documents += len(starts) - goes_on
        self.windows += len(windows)
        self.pieces += len(pieces)
        self.batches += 1
        return batch


def _cuts(starts: np.ndarray, n: int, width: int) -> np.ndarray:
    """Where stretches of `width` tokens start when every document is cut from its own start."""
    return np.flatnonzero(positions(starts, n) % width == 0)


def _in_full_windows(documents: np.ndarray, context: int) -> np.ndarray:
    starts = _starts(documents)
    lengths = np.diff(starts, append=len(documents))
    return positions(starts, len(documents)) < np.repeat(lengths // context * context, lengths)


def _starts(documents: np.ndarray) -> np.ndarray:
    """Where each document of some codes starts."""
    return np.flatnonzero(np.diff(documents, prepend=documents[0] - 1))


def encoder(units: str, tokenizer: Path | None) -> AbstractContextManager[Callable[[Chunk], Codes]]:
    """A function from a chunk to (codes, document of each code), for a block.

    Raises:
        TokenizerError: when the block begins: the tokenizer cannot be read; later: it fails on a chunk.
    """
    if units == "bytes":
        return nullcontext(_bytes)
    if units == "words":
        return nullcontext(_words)
    return token_encoder(tokenizer)


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
