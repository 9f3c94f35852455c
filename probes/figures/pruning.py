"""What is left when the smallest weights are pruned: prefix matching of heads, and training sequences that are still known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from byrote.interp.axes import head_label
from byrote.probes.figures.axis import axis_layout, value_axis
from byrote.probes.figures.canvas import FULL, Figure, Look
from byrote.probes.figures.lines import Line, chance_trace, lines_figure
from byrote.probes.figures.select import at_step, by_position, observations, typical_chance
from byrote.probes.figures.theme import Style, series_style
from byrote.probes.wording import clean, interval, listed, markup, short, step_number

N_HEADS_SHOWN = 4


def pruned_heads(results: Any, *, step: int | None = None, look: Look = FULL) -> Figure:
    """Prefix matching of the strongest heads against the share of weights that is pruned: how few weights does it depend on?

    Args:
        results: a `Results` with `pruned_heads`.
        step: training step; None is the last.
        look: theme and width.

    Returns:
        Share pruned on x, attention fraction on y, 95% bands, chance dotted; the four heads that match most with nothing pruned.

    Raises:
        ByroteError: the results hold no `pruned_heads`, or not that step.
    """
    pruned, at = by_position(results, "pruned_heads", "prefix", step)
    whole, _ = at_step(observations(results, "pruned_heads", "unpruned"), at)
    rows = pd.concat([whole.assign(position=0), pruned], ignore_index=True)
    best = whole[whole["valid"]].sort_values("value", ascending=False, kind="stable").head(N_HEADS_SHOWN)
    heads = [(int(row.layer), int(row.head)) for row in best.itertuples()]
    lines = [
        _line(
            rows[(rows["layer"] == layer) & (rows["head"] == head)], head_label(layer, head), series_style(i)
        )
        for i, (layer, head) in enumerate(heads)
    ]
    survives = results.rows("pruned_heads", "survives")
    survives = survives[(survives["step"] == at) & survives["valid"]]
    lasting = {(int(row.layer), int(row.head)): row for row in survives.itertuples()}
    sentences = [
        f"{head_label(*head)} keeps half of its excess up to {interval(lasting[head].value, lasting[head].lo, lasting[head].hi)}"
        for head in heads
        if head in lasting
    ]
    return _figure(
        lines, typical_chance(rows), y_title="prefix matching, attention fraction", by=("pruned", "head"), look=look,
        title=f"Heads as weights are pruned, {markup(short(results.run))}, step {step_number(at)}",
        alt=f"Prefix matching of {clean(results.run)} at step {step_number(at)} as the smallest weights are pruned: "
        f"{listed(sentences) or 'no head has anything to lose'}.",
    )  # fmt: skip


def pruned_memory(results: Any, *, step: int | None = None, look: Look = FULL) -> Figure:
    """Training sequences still completed, and their tokens still predicted, against the share of weights that is pruned.

    Args:
        results: a `Results` with `pruned_memory`.
        step: training step; None is the last.
        look: theme and width.

    Returns:
        Share pruned on x, shares of members and of their tokens on y, 95% bands; nothing pruned where `exact_match` was measured.

    Raises:
        ByroteError: the results hold no `pruned_memory`, or not that step.
    """
    lines, found = list[Line](), list[str]()
    for i, (metric, words) in enumerate(
        {"completed": "members completed", "accuracy": "tokens of members"}.items()
    ):
        rows, at = by_position(results, "pruned_memory", metric, step)
        rows = pd.concat([_unpruned(results, metric, at), rows], ignore_index=True)
        lines.append(_line(rows, words, series_style(i)))
        known = rows[rows["valid"]]
        ends = [
            f"{interval(row.value, row.lo, row.hi)} {f'at {10 * int(row.position)}%' if row.position else 'unpruned'}"
            for row in known.itertuples()
        ]
        found.append(f"{words} {ends[0]}, {ends[-1]}" if ends else f"{words} not measured")
    return _figure(
        lines, None, y_title="share still right", by=("pruned", "what"), look=look,
        title=f"Memory as weights are pruned, {markup(short(results.run))}, step {step_number(at)}",
        alt=f"Memory of {clean(results.run)} at step {step_number(at)} as the smallest weights are pruned: {'; '.join(found)}.",
    )  # fmt: skip


def _unpruned(results: Any, metric: str, step: int) -> pd.DataFrame:
    """What `exact_match` measured of the same members with nothing pruned; no row where it was not run."""
    if not results.has("exact_match", metric):
        return pd.DataFrame()
    return results.rows("exact_match", metric, step=step, valid=True).assign(position=0)


def _line(rows: pd.DataFrame, label: str, style: Style) -> Line:
    rows = rows.sort_values("position")
    tenths = rows["position"].astype(int)
    return Line.of(
        rows, tenths / 10, label=label, at=[f"{10 * tenth}% pruned" for tenth in tenths], style=style
    )


def _figure(
    lines: Sequence[Line], chance: float | None, *, y_title: str, by: tuple[str, str], title: str, alt: str, look: Look
) -> Figure:  # fmt: skip
    ticks = range(10)
    x_axis = axis_layout(
        (-0.03, 0.93), [t / 10 for t in ticks], [f"{10 * t}%" for t in ticks], title="smallest weights pruned"
    )
    dotted = "" if chance is None else " · dotted: chance"
    return lines_figure(
        lines, x_axis=x_axis, y_axis=value_axis(0.0, 1.0, title=y_title), height_px=360, by=by, title=title, alt=alt, look=look,
        under=chance_trace([0.0, 0.9], [chance] * 2), subtitle=f"band: 95% interval over sequences{dotted}",
    )  # fmt: skip
