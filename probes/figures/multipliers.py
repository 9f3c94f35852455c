"""Preferential damage: is copying hit harder than test loss, in sizes?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.probes.figures.canvas import FULL, Figure, Look
from byrote.probes.figures.forest import ForestRow, Mark, Panel, forest
from byrote.probes.figures.theme import paint
from byrote.probes.wording import clean, interval, markup, number, short

_APART = 0.17  # rows between the two dots of one row


def preferential_damage(
    found: pd.DataFrame, *, metric: str = "copying", reference: str = "test loss", look: Look = FULL
) -> Figure:
    """The multipliers of two metrics, and below them the difference of their logarithms with its interval.

    Args:
        found: see `byrote.degrade.preferential_damage`.
        metric, reference: what the two are called.
        look: theme and width.

    Returns:
        Arms in rows, over their sizes. Above, the logarithm of both multipliers, 0 where an arm is as good as its own size; below,
        their difference, left of 0 where the metric is hit harder; at the right the ratio with Fieller's interval. Intervals are 95%,
        over seeds and sequences; a bar to the edge is a bound. The table is the one given.

    Raises:
        ByroteError: no arm.
    """
    over = found[found["size"].isna()]
    if over.empty:
        raise ByroteError(
            "no table of preferential damage was given",
            help="br.degrade.preferential_damage(copying, test_loss) makes the table",
        )
    both, apart = [], []
    for row in over.to_dict("records"):
        label = clean(short(row["arm"]))
        marks = (_mark(metric, row, "multiplier", -_APART), _mark(reference, row, "reference", _APART))
        both.append(
            ForestRow(label, marks, f"{number(row['multiplier'])} and {number(row['reference'])} times")
        )
        apart.append(_difference(label, row))
    panels = [
        Panel(tuple(both), "ln of the multiplier, 0: as good as its own size", names=(metric, reference)),
        Panel(tuple(apart), f"ln m of {metric} minus ln m of {reference}, e-folds of size"),
    ]
    text = "; ".join(
        f"{clean(row['arm'])} {_in_words(row)} ({_harder(row, metric)})" for row in over.to_dict("records")
    )
    return forest(
        panels, title=f"Is {markup(metric)} hit harder than {markup(reference)}?",
        subtitle=f"filled: {markup(metric)} · hollow: {markup(reference)} · bars: 95% intervals · below: the difference, and the ratio "
        "with Fieller's interval", look=look,
        alt=f"Difference of ln multipliers, {clean(metric)} minus {clean(reference)}: {text}.", table=found.copy,
    )  # fmt: skip


def _mark(name: str, row: dict[str, Any], column: str, shift: float) -> Mark:
    ends = (row[column], row[f"{column}_lo"], row[f"{column}_hi"])
    first = column == "multiplier"
    hover = f"{markup(row['arm'])}, {markup(name)}: {interval(*ends)} times its size"
    value, lo, hi = (_log(end) for end in ends)
    return Mark(
        name, value, lo, hi, paint("series0" if first else "series1"), hover, filled=first, shift=shift
    )


def _difference(label: str, row: dict[str, Any]) -> ForestRow:
    tone = "ink" if _sure(row) else "muted"
    mark = Mark(
        "sure" if _sure(row) else "not sure", row["difference"], row["lo"], row["hi"], paint(tone),
        markup(f"{label}: {_in_words(row)}", limit=400), filled=_sure(row),
    )  # fmt: skip
    return ForestRow(label, (mark,), _in_words(row), tone)


def _sure(row: dict[str, Any]) -> bool:
    return bool(row["lo"] > 0 or row["hi"] < 0)


def _harder(row: dict[str, Any], metric: str) -> str:
    if not _sure(row):
        return "not sure which is hit harder"
    return f"{clean(metric)} is hit harder" if row["hi"] < 0 else f"{clean(metric)} is hit less"


def _in_words(row: dict[str, Any]) -> str:
    text = interval(row["difference"], row["lo"], row["hi"], sign=True)
    if not all(map(math.isfinite, (row["ratio_lo"], row["ratio_hi"]))):
        return f"{text}, ratio {number(row['ratio'])}, not bounded"
    return f"{text}, ratio {interval(row['ratio'], row['ratio_lo'], row['ratio_hi'])}"


def _log(value: float) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log(value))
