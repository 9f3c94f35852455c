"""Settings of corpus measurements, each written once with the help that the command line shows.

It imports nothing heavy: the command line imports it before it parses its arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.setting import MAX_SEED, shown

UNITS = ("words", "bytes", "tokens")
WINDOWS = ("documents", "full", "packed")
MEASURES = (
    "inducible",
    "induction_signal",
    "repeats",
    "rep",
    "concentration",
    "near_duplicates",
    "tail_mass",
    "perplexity",
    "synthetic_share",
    "density",
)
ON_REQUEST = ("density",)  # a few seconds and 80 MB for every corpus
MAX_CONTEXT = 131_072
PIECE_TOKENS = 16_384  # a longer document is measured in pieces, so that memory does not grow with it


@dataclass(frozen=True)
class TextSettings:
    """What to measure and how; every field says what it means, and is an option of `byrote text`.

    Words are runs of letters and digits, or of punctuation, in ASCII lower case; files of token ids are always read as
    they are. `measures` None means all that can be measured with what was given. In a separator `*` stands for up to 200
    characters of one line.

    Raises:
        ByroteError: a value that makes no sense, with the valid ones.
    """

    units: str = field(
        default="words",
        metadata=shown("What is counted; tokens need --tokenizer, which alone means tokens.", choices=UNITS),
    )
    tokenizer: Path | None = field(default=None, metadata=shown("A tokenizer.json.", path={}))
    context: int = field(default=512, metadata=shown("Tokens (or words) per window.", metavar="N"))
    windows: str = field(
        default="documents",
        metadata=shown(
            "documents cuts each into windows, the last one shorter; full drops the shorter ones; packed joins documents "
            "first, as training does.",
            choices=WINDOWS,
        ),
    )
    separators: tuple[str, ...] = field(
        default=("<|endoftext|>",),
        metadata=shown(
            r"Between documents of a .txt file; * is anything within a line, \n a new line. Repeat for more.",
            called="separator",
            metavar="TEXT",
            multiple=True,
        ),
    )
    text_field: str = field(
        default="text",
        metadata=shown("Field of .jsonl, or column of .parquet, with the text.", metavar="NAME"),
    )
    measures: tuple[str, ...] | None = field(
        default=None,
        metadata=shown(
            "Only this measure; repeat for more.", called="measure", metavar="NAME", multiple=True
        ),
    )
    sample: int = field(
        default=512, metadata=shown("Stretches of each corpus the model reads.", metavar="N", least=8)
    )
    seed: int = field(
        default=0, metadata=shown("Of samples, shuffles and bootstraps.", metavar="N", least=0, most=MAX_SEED)
    )

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
            raise ByroteError("a separator needs text", help="* alone would split at every character")

    def includes(self, measure: str) -> bool:
        """Whether a measure was requested, or all were and it is not one that only its name requests."""
        return measure not in ON_REQUEST if self.measures is None else measure in self.measures

    @property
    def piece(self) -> int:
        """Tokens per piece of a document: whole windows, at least `PIECE_TOKENS`."""
        return self.context * -(-PIECE_TOKENS // self.context)


def _one_of(what: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise ByroteError(f"there is no {what} {value!r}", help=did_you_mean(value, valid))
