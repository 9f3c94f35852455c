"""Effective data: loss against passes over the same tokens, with the law that R* was fitted by."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade.effective_data import RStar
from byrote.probes.figures.axis import log_axis, value_axis
from byrote.probes.figures.canvas import FULL, Figure, Look, scatter
from byrote.probes.figures.lines import Line, lines_figure
from byrote.probes.figures.theme import Style, series_style
from byrote.probes.findings_degrade import r_star_words
from byrote.probes.wording import interval, number

_BEYOND = 1.5  # a law is drawn so far beyond the epochs that were measured, as a factor: what it extrapolates dwarfs all else


def effective_data(found: RStar, *, look: Look = FULL) -> Figure:
    """Loss against epochs for every amount of unique tokens: measured means, and the fitted law with its band.

    Args:
        found: see `byrote.degrade.fit_r_star`.
        look: theme and width.

    Returns:
        Epochs on a log axis, loss in nats on y; dots with bars are means over seeds with their 95% intervals, lines the law
        L = E + B / D'^beta near what was measured, with the interval that resampled seeds give it. The table has what was measured, with D' in tokens.

    Raises:
        ByroteError: a fit without its points.
    """
    if found.measured.empty:
        raise ByroteError(
            "this fit contains no points to draw", help="br.degrade.fit_r_star(rows) makes one that does"
        )
    lines, laws, dots = list[Line](), list[pd.DataFrame](), []
    for i, (unique, mine) in enumerate(found.measured.groupby("unique_tokens")):
        style = series_style(i)
        law = found.curve[found.curve["unique_tokens"] == unique]
        law = law[law["epochs"].between(mine["epochs"].min() / _BEYOND, mine["epochs"].max() * _BEYOND)]
        laws.append(law)
        lines.append(_law_line(law, f"U = {number(float(unique))}", style))
        for row in mine.itertuples(index=False):
            dots.append(
                scatter(
                    "measured, 95% interval",
                    [row.epochs] * 2,
                    [row.lo, row.hi],
                    line={"color": style.color, "width": 1.5},
                )
            )
        hover = [f"U = {number(float(unique))}, {row.epochs:g} epochs<br>{interval(row.loss, row.lo, row.hi)} nats<br>D' = "
                 f"{number(row.effective_tokens)} tokens" for row in mine.itertuples(index=False)]  # fmt: skip
        marker = {"size": 8, "color": style.color, "symbol": style.symbol}
        dots.append(
            scatter("measured", mine["epochs"].tolist(), mine["loss"].tolist(), marker=marker, hover=hover)
        )
    ends = [
        *found.measured[["loss", "lo", "hi"]].to_numpy().ravel(),
        *pd.concat(laws)[["lo", "hi"]].to_numpy().ravel(),
    ]
    ends = [float(end) for end in ends if math.isfinite(end)]
    room = 0.05 * ((max(ends) - min(ends)) or 1.0)
    epochs = sorted(set(found.measured["epochs"].tolist()))
    return lines_figure(
        lines, x_axis=log_axis(epochs, [f"{e:g}" for e in epochs], title="epochs over the same tokens, log scale"),
        y_axis=value_axis(min(ends) - room, max(ends) + room, title="loss, nats"), height_px=400, by=(), over=dots,
        title="What repeated epochs are worth", look=look,
        subtitle="dots: mean over seeds, bars: 95% interval · line: the fitted law, band: its 95% interval over seeds",
        alt=r_star_words(found), table=found.measured.copy,
    )  # fmt: skip


def _law_line(law: pd.DataFrame, label: str, style: Style) -> Line:
    rows = law.assign(value=law["loss"], valid=True, reason="", chance=np.nan, n=0, layer=pd.NA, head=pd.NA)
    at = [f"{e:.3g} epochs" for e in law["epochs"]]
    line = Line.of(rows.assign(position=range(len(rows))), law["epochs"], label=label, at=at, style=style)
    return replace(line, points=False)
