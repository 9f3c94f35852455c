"""The report on corpora: numbers, and the tidy frame made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from byrote.probes.statistics import Triple

COLUMNS = (
    "corpus", "measure", "metric", "n_gram", "value", "lo", "hi", "chance", "n", "unit", "resampled", "reason",
)  # fmt: skip
_NAN = float("nan")


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
        notes: remarks for the reader: what was skipped or replaced, and how large each corpus is.
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
