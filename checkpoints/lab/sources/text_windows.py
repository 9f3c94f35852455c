"""Real text, drawn: read and encoded once, then windows of it.

Nothing says which mechanism predicts a token of real text; a token is called a copy where it and the two before it stood
together earlier in the window.
"""

from __future__ import annotations

import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from jaxtyping import Int, UInt64

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.sequences import Sequences, without_blocks
from byrote.checkpoints.lab.sources.contract import CODES
from byrote.checkpoints.lab.sources.text import N_BYTES, STDLIB, Text
from byrote.checkpoints.safe_read import FileRefused, read_bytes
from byrote.checkpoints.tokenizing import EMPTY_BPE, TokenizerProcess, open_tokenizer

MAX_TEXT_BYTES = 64 << 20
MAX_STDLIB_BYTES = 4 << 20  # of the standard library's files, in the order of their names
MIN_WINDOWS = 16  # that each part of a text has room for
_PARTS = 16  # of the text: the last is held out, the one before it is the twins'


class Encoded(NamedTuple):
    """A text as ids.

    Attributes:
        ids: of the whole text.
        n_ids: that there are, without BOS.
    """

    ids: Int[np.ndarray, " n"]
    n_ids: int


def windows(source: Text, words: UInt64[np.ndarray, "n 1"], stream: str) -> Sequences:
    """A window for each random word, from the part of the text that a stream has.

    Raises:
        ByroteError: a text that cannot be read, or is too short.
    """
    ids = encoded(source).ids
    lo, hi = _part(len(ids), stream)
    room = hi - lo - source.n_ctx
    if room < MIN_WINDOWS * source.n_ctx:
        raise ByroteError(
            f"{source.path} has {len(ids):,} tokens, too few for windows of {source.n_ctx} of its {stream} part",
            help=f"give a text of at least {_PARTS * (MIN_WINDOWS + 1) * source.n_ctx:,} tokens, or a shorter n_ctx",
        )
    first = lo + (((words[:, 0] >> np.uint64(32)) * np.uint64(room)) >> np.uint64(32)).astype(np.int64)
    wide = np.full((len(words), source.n_ctx + 1), source.bos_token_id, dtype=np.int64)
    wide[:, 1:] = ids[first[:, None] + np.arange(source.n_ctx)]
    return without_blocks(wide, _mechanism(wide))


def _part(n: int, stream: str) -> tuple[int, int]:
    last, before = n - n // _PARTS, n - 2 * (n // _PARTS)
    return {"held_out": (last, n), "twins": (before, last)}.get(stream, (0, before))


def _mechanism(wide: Int[np.ndarray, "n width"]) -> np.ndarray:
    """A copy where a token and the two before it stood together earlier in the window."""
    found = np.full(wide.shape, CODES["unlabelled"], dtype=np.int8)
    found[:, 0] = CODES["bos"]
    for t in range(4, wide.shape[1]):
        earlier = np.ones((len(wide), t - 3), dtype=bool)
        for back in range(3):
            earlier &= wide[:, 3 - back : t - back] == wide[:, t - back, None]
        found[earlier.any(1), t] = CODES["copy"]
    return found


@lru_cache(maxsize=4)
def encoded(source: Text) -> Encoded:
    """The whole text as ids.

    Raises:
        ByroteError: files that cannot be read, or ids of another text than the digest says.
    """
    texts = _texts(source.path)
    if source.bpe:
        with TokenizerProcess(Path(source.path), EMPTY_BPE) as process:
            process.train_bpe(texts, source.bpe)
            found = Encoded(_joined(process, texts), source.bpe)
    elif source.tokenizer:
        with open_tokenizer(Path(source.tokenizer)) as process:
            found = Encoded(_joined(process, texts), process.size)
    else:
        found = Encoded(np.frombuffer(b"".join(texts), np.uint8).astype(np.int64), N_BYTES)
    if source.digest and source.digest != digest_of(found.ids):
        raise ByroteError(
            f"{source.path} has other content, or another encoding, than when its digest was recorded",
            help="restore the file, or train into another folder",
        )
    return found


def digest_of(ids: Int[np.ndarray, " n"]) -> str:
    """XXH3-128 of ids."""
    return xxhash.xxh3_128(ids.astype("<i8").tobytes()).hexdigest()


def _joined(process: TokenizerProcess, texts: list[bytes]) -> Int[np.ndarray, " n"]:
    return np.concatenate(process.encode(texts)).astype(np.int64)


def _texts(path: str) -> list[bytes]:
    """The text in pieces: one file's, or those of the standard library."""
    if path != STDLIB:
        try:
            return [read_bytes(Path(path), max_bytes=MAX_TEXT_BYTES, follow_links=True)]
        except FileRefused as refused:
            raise ByroteError(refused.message, help=refused.help or "give a text file") from None
        except OSError as error:
            raise ByroteError(f"{path} cannot be read ({error.strerror})", help="give a text file") from None
    found: list[bytes] = []
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = file.read_bytes()
        if sum(map(len, found)) + len(text) > MAX_STDLIB_BYTES:
            break
        found.append(text)
    if not found:
        raise ByroteError(
            "this Python does not include the source of its standard library", help="give a file: path=FILE"
        )
    return found
