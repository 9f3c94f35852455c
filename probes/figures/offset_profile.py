"""How far back the strongest heads look: mean attention at every offset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from byrote.interp.axes import head_label, parse_head
from byrote.probes.figures.axis import round_ticks
from byrote.probes.figures.canvas import FULL, Figure, Look
from byrote.probes.figures.lines import Line, chance_trace, lines_figure, loss_axis
from byrote.probes.figures.select import at_step, observations, one_head
from byrote.probes.figures.theme import series_style
from byrote.probes.wording import clean, interval, markup, short, step_number

N_HEADS_SHOWN = 3


def offset_profile(
    results: Any,
    *,
    heads: Iterable[str | tuple[int, int]] | None = None,
    step: int | None = None,
    look: Look = FULL,
) -> Figure:
    """Mean attention by offset q-k for a few heads of one run.

    Args:
        results: a `Results`.
        heads: heads to draw; None takes the three strongest on prefix_matching, or on peak_mass without it.
        step: training step; None is the last.
        look: theme and width.

    Returns:
        Offset in tokens on x, attention fraction on y, 95% bands, uniform attention dotted.

    Raises:
        ByroteError: the results hold no `offset_profile`, or not that step or head.
    """
    rows, step = at_step(observations(results, probe="offset_profile", metric="profile"), step)
    possible = rows.loc[rows["valid"], "position"].unique()  # the last offset has no key but position 0
    rows = rows[rows["position"].isin(possible)].sort_values("position")
    chosen = [parse_head(h) for h in heads] if heads is not None else _strongest(results, step)
    lines = []
    for index, head in enumerate(chosen):
        mine = one_head(rows, head)
        at = [tokens_back(int(p)) for p in mine["position"]]
        lines.append(
            Line.of(
                mine,
                mine["position"].astype(float),
                label=head_label(*head),
                at=at,
                style=series_style(index),
            )
        )
    chance = rows[rows["valid"]].groupby("position")["chance"].median()
    levels = [None if pd.isna(c) else float(c) for c in chance]
    last = max((x for line in lines for x in line.x), default=1.0)
    ticks = round_ticks(0.0, last, about=8)
    x_axis: dict[str, Any] = {"range": [-0.01 * last, 1.01 * last], "tickmode": "array", "tickvals": ticks}
    x_axis |= {"ticktext": [f"{t:g}" for t in ticks], "title": {"text": "offset: tokens back from the query"}}
    known = [c for c in levels if c is not None]
    return lines_figure(
        lines, x_axis=x_axis, y_axis=loss_axis(lines, known, title="mean attention fraction", room=1.05), height_px=340,
        by=("tokens back", "head"), under=chance_trace([float(p) for p in chance.index], levels),
        title=f"Attention by offset, {markup(short(results.run))}, step {step_number(step)}",
        subtitle="band: 95% interval over sequences · dotted: uniform attention",
        alt=_finding(lines, f"{clean(results.run)} at step {step_number(step)}"), look=look,
    )  # fmt: skip


def tokens_back(offset: int) -> str:
    """`1 token back`, `17 tokens back`."""
    return f"{offset} token{'' if offset == 1 else 's'} back"


def _strongest(results: Any, step: int) -> list[tuple[int, int]]:
    matching = results.has("prefix_matching", "score", valid=True)
    probe, metric = ("prefix_matching", "score") if matching else ("offset_profile", "peak_mass")
    best = results.ranked(probe, metric, step=step).head(N_HEADS_SHOWN)
    return [(int(layer), int(head)) for layer, head in zip(best["layer"], best["head"], strict=True)]


def _finding(lines: Sequence[Line], where: str) -> str:
    parts = []
    for line in lines:
        measured = line.rows[line.rows["valid"]]
        if not measured.empty:
            peak = measured.loc[measured["value"].idxmax()]
            score = interval(peak.value, peak.lo, peak.hi)
            parts.append(f"{line.label} peaks {tokens_back(int(peak.position))} at {score}")
    return f"Attention by offset of {where}: {'; '.join(parts) or 'no head was measured'}."
