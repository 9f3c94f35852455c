"""What was measured on some corpora: numbers, and the tidy frame made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

COLUMNS = (
    "corpus",
    "measure",
    "metric",
    "n_gram",
    "value",
    "lo",
    "hi",
    "chance",
    "n",
    "unit",
    "resampled",
    "reason",
)


@dataclass(frozen=True)
class Number:
    """One number about one corpus.

    Attributes:
        measure: name in `MEASURES`.
        metric: which number of it.
        value, lo, hi: with the 95% interval; NaN where it was not measured, or has no interval.
        n: units that were resampled.
        unit: "fraction", "nats", "ratio" or "perplexity".
        resampled: what n counts: "documents", "windows" or "pieces".
        n_gram: length of the n-gram it is about, if it is about one.
        chance: what the null, or the reference against itself, gives; NaN where there is no such level.
        reason: why it was not measured, or has no interval; "" otherwise.
    """

    measure: str
    metric: str
    value: float
    lo: float
    hi: float
    n: int
    unit: str
    resampled: str
    n_gram: int | None = None
    chance: float = float("nan")
    reason: str = ""

    @property
    def missing(self) -> bool:
        """Whether it was asked for and could not be measured; a share of nothing is undefined, not missing."""
        return self.n == 0 and bool(self.reason)

    def row(self, corpus: str) -> dict[str, Any]:
        """As a row of the frame; a missing value always has a reason."""
        reason = self.reason
        if not reason and not np.isfinite(self.value):
            reason = "undefined: nothing of the kind in this corpus"
        elif not reason and not np.isfinite(self.lo):
            reason = (
                f"no interval from {self.n:,} {self.resampled.rstrip('s') if self.n == 1 else self.resampled}"
            )
        return {"corpus": corpus, **{name: getattr(self, name) for name in COLUMNS[1:-1]}, "reason": reason}


def not_measured(measure: str, metric: str, reason: str) -> Number:
    """A row that says why a measure is missing."""
    nan = float("nan")
    return Number(measure, metric, nan, nan, nan, 0, "", "", reason=reason)


@dataclass(frozen=True)
class TextReport:
    """Numbers about corpora.

    Attributes:
        frame: one row per number: corpus, measure, metric, n_gram, value, lo, hi, chance, n, unit, resampled, reason.
        notes: what a reader should know: what was skipped or replaced, and how large each corpus is.
        incomplete: something asked for could not be measured, or part of a corpus could not be read.
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
