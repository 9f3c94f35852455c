"""How corpora are read and measured; the same for every corpus of a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from byrote.checkpoints.errors import ByroteError, did_you_mean

UNITS = ("words", "bytes", "tokens")
WINDOWS = ("documents", "full", "packed")
MEASURES = (
    "inducible",
    "repeats",
    "rep",
    "concentration",
    "near_duplicates",
    "tail_mass",
    "perplexity",
)
MAX_CONTEXT = 131_072
PIECE_TOKENS = 16_384  # a longer document is measured in pieces, so that memory does not grow with it
SEPARATOR = "<|endoftext|>"


@dataclass(frozen=True)
class TextSettings:
    """What to measure and how.

    Attributes:
        units: "words" (runs of letters and digits, runs of punctuation, ASCII lower case), "bytes", or "tokens" of
            `tokenizer`. Files of token ids are always read as they are.
        tokenizer: a tokenizer.json; with one, units are tokens.
        context: tokens per window.
        windows: "documents" cuts every document into windows, its last one shorter; "full" drops the shorter ones;
            "packed" joins all documents first, as a training run does.
        separators: texts, any of which stands between documents of a .txt file; `*` stands for up to 200 characters
            of one line.
        text_field: field of a .jsonl line that holds the text.
        measures: which of `MEASURES`; None means all that can be measured with what was given.
        sample: documents or windows drawn for measures that cannot look at all of them.
        seed: of samples, shuffles and bootstraps.

    Raises:
        ByroteError: a value that makes no sense, with the valid ones.
    """

    units: str = "words"
    tokenizer: Path | None = None
    context: int = 512
    windows: str = "documents"
    separators: tuple[str, ...] = (SEPARATOR,)
    text_field: str = "text"
    measures: tuple[str, ...] | None = None
    sample: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("units", self.units, UNITS)
        _one_of("windows", self.windows, WINDOWS)
        for name in self.measures or ():
            _one_of("measure", name, MEASURES)
        if not 8 <= self.context <= MAX_CONTEXT:
            raise ByroteError(
                f"a context of {self.context} tokens cannot be measured", help=f"give 8 to {MAX_CONTEXT:,}"
            )
        if self.units == "tokens" and self.tokenizer is None:
            raise ByroteError("units are tokens and there is no tokenizer", help="give a tokenizer.json")
        if self.tokenizer is not None and self.units != "tokens":
            object.__setattr__(self, "units", "tokens")
        if self.sample < 8:
            raise ByroteError(f"a sample of {self.sample} is too small", help="give at least 8")
        if not self.separators or not all(text.strip("*") for text in self.separators):
            raise ByroteError("a separator needs text", help="* alone would part every letter")

    def wants(self, measure: str) -> bool:
        """Whether a measure was asked for, or all were."""
        return self.measures is None or measure in self.measures

    @property
    def piece(self) -> int:
        """Tokens per piece of a document: whole windows, at least `PIECE_TOKENS`."""
        return self.context * -(-PIECE_TOKENS // self.context)


def _one_of(what: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise ByroteError(f"there is no {what} {value!r}", help=did_you_mean(value, valid))
