"""Windows of real text: a file of yours or the standard library's source, as bytes or in the ids of a tokenizer."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from byrote.checkpoints.lab.sources.contract import Source

STDLIB = "stdlib"  # as `path`: the source of Python's standard library
N_BYTES = 256


@dataclass(frozen=True)
class Text(Source):
    """Windows that begin anywhere in a text, BOS in front of each.

    The last 16th of the text is the held-out split, the 16th before it the twins'; training data and pool are of the rest.
    BOS is the highest id. Without a tokenizer ids are bytes; with `bpe` byte-level BPE is trained on the text, with
    `tokenizer` that of a file is used, both in a process of their own.

    Attributes:
        path: of a text file, or "stdlib" for the source of Python's standard library.
        bpe: ids of the BPE that is trained on the text; 0 for none.
        tokenizer: path of a tokenizer.json; empty for none.
        n_ctx: tokens per sequence, BOS included.
        digest: of the ids of the whole text; empty for whatever they are now.

    Raises:
        ByroteError: a file that cannot be read, is too short, or is not what the digest says.
    """

    name: ClassVar[str] = "text"
    about: ClassVar[str] = "windows of a text file or of the standard library's source, as bytes or tokens"
    drawn_by: ClassVar[str] = "byrote.checkpoints.lab.sources.text_windows"
    purpose: ClassVar[str] = "text/{stream}"
    no_floor: ClassVar[str] = "the distribution that real text is drawn from is unknown"
    redrawn: ClassVar[bool] = False

    path: str = STDLIB
    bpe: int = 0
    tokenizer: str = ""
    n_ctx: int = 64
    digest: str = ""

    def __post_init__(self) -> None:
        self.require(4 <= self.n_ctx <= 1 << 16, "n_ctx", f"4 to {1 << 16} tokens")
        self.require(
            self.bpe == 0 or N_BYTES <= self.bpe <= 1 << 18, "bpe", f"0, or {N_BYTES} to {1 << 18} ids"
        )
        self.require(not (self.bpe and self.tokenizer), "tokenizer", "either bpe or a tokenizer.json")

    def draw(self, *, seed: int, stream: str, index: int, n: int) -> Any:
        """As every source's; each stream has its part of the text.

        Raises:
            ByroteError: an unknown stream, or a text that cannot be read or is too short.
        """
        from byrote.checkpoints.lab.sequences import random_words, require_stream

        require_stream(stream)
        words = random_words(self.purpose.format(stream=stream), seed=seed, index=index, shape=(n, 1))
        return importlib.import_module(self.drawn_by).windows(self, words, stream)

    def resolved(self) -> Text:
        """With the digest of the ids there are now, and the file's name in place of its path: what a manifest says."""
        half = importlib.import_module(self.drawn_by)
        digest: str = half.digest_of(half.encoded(self).ids)
        return replace(self, path=Path(self.path).name, tokenizer=Path(self.tokenizer).name, digest=digest)

    @property
    def d_vocab(self) -> int:  # type: ignore[override]
        """Ids of the text, and BOS."""
        if not self.tokenizer:
            return (self.bpe or N_BYTES) + 1
        return int(importlib.import_module(self.drawn_by).encoded(self).n_ids) + 1

    @property
    def bos_token_id(self) -> int:  # type: ignore[override]
        """The highest id."""
        return self.d_vocab - 1
