"""What is to be measured of corpora, and what was: settings, numbers, and the tidy frame made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.texts import FIELD, SEPARATOR
from byrote.probes.statistics import Triple

UNITS = ("words", "bytes", "tokens")
WINDOWS = ("documents", "full", "packed")
MEASURES = ("inducible", "repeats", "rep", "concentration", "near_duplicates", "tail_mass", "perplexity")
MAX_CONTEXT = 131_072
PIECE_TOKENS = 16_384  # a longer document is measured in pieces, so that memory does not grow with it
COLUMNS = (
    "corpus", "measure", "metric", "n_gram", "value", "lo", "hi", "chance", "n", "unit", "resampled", "reason",
)  # fmt: skip
_NAN = float("nan")


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
        text_field: field of a .jsonl line, or column of a .parquet, that holds the text.
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
    text_field: str = FIELD
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


@dataclass(frozen=True)
class Number:
    """One number about one corpus.

    Attributes:
        measure: name in `MEASURES`.
        metric: which number of it.
        interval: (value, lo, hi) of the 95% interval; NaN where it was not measured, or has no interval.
        unit: "fraction", "nats", "ratio" or "perplexity".
        chance: what the null, or the reference against itself, gives; NaN where there is no such level.
        n_gram: length of the n-gram it is about, if it is about one.
        n: units that were resampled.
        resampled: what n counts: "documents", "windows", "pieces" or "stretches".
        reason: why it was not measured; "" otherwise.
    """

    measure: str
    metric: str
    interval: Triple = (_NAN, _NAN, _NAN)
    unit: str = ""
    chance: float = _NAN
    n_gram: int | None = None
    _: KW_ONLY
    n: int = 0
    resampled: str = ""
    reason: str = ""

    @property
    def value(self) -> float:
        """The number itself."""
        return self.interval[0]

    @property
    def missing(self) -> bool:
        """Whether it was requested and could not be measured; a share of nothing is undefined, not missing."""
        return self.n == 0 and bool(self.reason)

    def row(self, corpus: str) -> dict[str, Any]:
        """As a row of the frame; a missing value always has a reason."""
        value, lo, hi = self.interval
        reason = self.reason
        if not reason and not np.isfinite(value):
            reason = "undefined: nothing of the kind in this corpus"
        elif not reason and not np.isfinite(lo):
            units = self.resampled.rstrip("s") if self.n == 1 else self.resampled
            reason = f"no interval from {self.n:,} {units}"
        row = (
            corpus, self.measure, self.metric, self.n_gram, value, lo, hi, self.chance, self.n, self.unit,
            self.resampled, reason,
        )  # fmt: skip
        return dict(zip(COLUMNS, row, strict=True))


@dataclass(frozen=True)
class TextReport:
    """Numbers about corpora.

    Attributes:
        frame: one row per number: corpus, measure, metric, n_gram, value, lo, hi, chance, n, unit, resampled, reason.
        notes: what a reader should know: what was skipped or replaced, and how large each corpus is.
        incomplete: something requested could not be measured, or part of a corpus could not be read.
        meta: settings, and tokens, documents and windows of each corpus.
    """

    frame: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    incomplete: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)


def frame_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The tidy frame, columns in their order, `n_gram` nullable."""
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["n_gram"] = frame["n_gram"].astype("Int64")
    frame["n"] = frame["n"].astype("int64")
    return frame.astype(dict.fromkeys(("value", "lo", "hi", "chance"), "float64"))
