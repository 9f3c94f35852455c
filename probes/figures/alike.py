"""How alike the documents of corpora are: their density, and that among the documents of a reference."""

from __future__ import annotations

from typing import Any

import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.probes.figures.canvas import FULL, Figure, Look
from byrote.probes.figures.forest import ForestRow, Mark, Panel, forest
from byrote.probes.figures.theme import paint
from byrote.probes.wording import clean, interval, markup, number, short

_QUANTILES = ("p05", "p50", "p95")
_OWN, _THERE, _CHANCE = "mean among its own", "among the reference's", "the reference among its own"


def density(report: Any, *, look: Look = FULL) -> Figure:
    """How alike the documents of each corpus are to one another, and to those of a reference: is synthetic text denser?

    Args:
        report: what `byrote.text` measured, with "density" among its measures; or its frame.
        look: theme and width.

    Returns:
        A row per corpus: mean similarity with its interval, the 5th, 50th and 95th percentile of documents below it as small marks, and
        where there is a reference, similarity to its documents. The table has the numbers as they were measured.

    Raises:
        ByroteError: density was not measured.
    """
    frame = report if isinstance(report, pd.DataFrame) else getattr(report, "frame", pd.DataFrame())
    rows = frame[frame["measure"] == "density"] if "measure" in frame else frame
    known = rows[rows["value"].notna()] if len(rows) else rows
    if not len(known):
        raise ByroteError(
            "density was not measured for any corpus", help="request it: byrote text FILE --measure density"
        )
    corpora = {name: mine.set_index("metric") for name, mine in known.groupby("corpus", sort=False)}
    panel = Panel(tuple(_row(str(name), mine) for name, mine in corpora.items()), "mean Jaccard similarity")
    return forest(
        [panel], title="How alike documents are", look=look, table=lambda: rows.reset_index(drop=True),
        subtitle="dot: mean over documents, bar: 95% interval · small: percentiles 5, 50 and 95 of documents · diamond: to the "
        "reference's documents · hollow: the reference's own",
        alt=f"Mean similarity of documents to others. {'; '.join(_sentence(str(name), mine) for name, mine in corpora.items())}.",
    )  # fmt: skip


def _row(corpus: str, found: pd.DataFrame) -> ForestRow:
    mean = found.loc["mean"] if "mean" in found.index else None
    marks = [
        Mark("percentiles 5, 50, 95", float(found.loc[name, "value"]), float("nan"), float("nan"), paint("muted"),
             f"{markup(corpus)}, {name}: {number(found.loc[name, 'value'])}", symbol="triangle-up", shift=0.25)
        for name in _QUANTILES if name in found.index
    ]  # fmt: skip
    words = ""
    if mean is not None:
        words = interval(mean["value"], mean["lo"], mean["hi"])
        marks.append(_mark(_OWN, mean, "series0", corpus))
    if "to_reference" in found.index:
        there = found.loc["to_reference"]
        marks.append(_mark(_THERE, there, "series1", corpus, symbol="diamond", shift=-0.2))
        if pd.notna(there["chance"]):
            level = float(there["chance"])
            chance_words = f"{_CHANCE}: {number(level)}"
            nan = float("nan")
            marks.append(
                Mark(_CHANCE, level, nan, nan, paint("series1"), chance_words, filled=False, shift=-0.2)
            )
    return ForestRow(clean(short(corpus)), tuple(marks), words)


def _mark(
    name: str, row: pd.Series, token: str, corpus: str, *, symbol: str = "circle", shift: float = 0.0
) -> Mark:
    value, lo, hi = (float(row[end]) for end in ("value", "lo", "hi"))
    return Mark(
        name,
        value,
        lo,
        hi,
        paint(token),
        f"{markup(corpus)}, {name}: {interval(value, lo, hi)}",
        symbol=symbol,
        shift=shift,
    )


def _sentence(corpus: str, found: pd.DataFrame) -> str:
    parts = []
    for name, what in (("mean", "one another"), ("to_reference", "the reference's")):
        if name in found.index:
            row = found.loc[name]
            parts.append(f"to {what} {interval(row['value'], row['lo'], row['hi'])}")
    return f"{clean(corpus)}: {', '.join(parts)}"
