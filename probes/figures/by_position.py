"""Numbers by place in a text at one step: loss from copy to copy, loss along the context, recall along a passage."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from byrote.probes.figures.axis import value_axis
from byrote.probes.figures.canvas import FULL, Figure, Look
from byrote.probes.figures.lines import Line, chance_trace, lines_figure, loss_axis
from byrote.probes.figures.select import as_list, at_step, observations, typical_chance
from byrote.probes.figures.theme import Style, run_styles, series_style
from byrote.probes.wording import chance_number, clean, interval, short, step_number

MAX_POINTS = 48
TAG_WORDS = {
    "recall": "from the weights", "copying": "from the context", "both": "from either", "neither": "from neither",
}  # fmt: skip
_TAG_STYLES = (series_style(1), series_style(0), series_style(2), Style("muted", "dot", "diamond"))


def copy_curve(
    results_list: Any, *, step: int | None = None, base: str | None = None, look: Look = FULL
) -> Figure:
    """Loss on the first, second, ... copy of one paragraph: does another copy still help? One line per run.

    Args:
        results_list: one `Results` or several.
        step: training step; None is each run's last.
        base: name of the baseline run.
        look: theme and width.

    Returns:
        Copy index on x, nats on y, 95% bands, chance dotted.

    Raises:
        ByroteError: the results hold no `copy_curve`, or not that step.
    """
    what = _Places(
        probe="copy_curve", title="Loss from copy to copy", y_title="loss on this copy, nats", place="copy",
        last=lambda _: "the last", x_axis=_copies_axis, chosen=lambda rows: rows.sort_values("position"),
    )  # fmt: skip
    return _loss_over_places(results_list, what, step=step, base=base, look=look)


def loss_by_position(
    results_list: Any, *, step: int | None = None, base: str | None = None, look: Look = FULL
) -> Figure:
    """Mean loss of the t-th token of real text after BOS: does more context go on helping? One line per run.

    Args:
        results_list: one `Results` or several.
        step: training step; None is each run's last.
        base: name of the baseline run.
        look: theme and width.

    Returns:
        Place in the context on a log x axis, nats on y, 95% bands, chance dotted. Of a long context, places spread
        evenly over the log axis, as many as can be told apart.

    Raises:
        ByroteError: the results hold no `loss_by_position`, or not that step.
    """
    what = _Places(
        probe="loss_by_position", title="Loss of real text by place in the context", y_title="loss, nats", place="token",
        last=lambda place: f"token {int(place):,}", x_axis=_places_axis, chosen=spread_places,
    )  # fmt: skip
    return _loss_over_places(results_list, what, step=step, base=base, look=look)


def recall_shares(results: Any, *, step: int | None = None, look: Look = FULL) -> Figure:
    """Share of members whose token is recalled, copied, either or neither, by place in the passage.

    Args:
        results: a `Results` with `recall_vs_copy`.
        step: training step; None is the last.
        look: theme and width.

    Raises:
        ByroteError: the results hold no `recall_vs_copy`, or not that step.
    """
    lines = []
    for tag, style in zip(TAG_WORDS, _TAG_STYLES, strict=True):
        rows, step = at_step(observations(results, probe="recall_vs_copy", metric=f"{tag}_at"), step)
        rows = rows.sort_values("position")
        at = [f"token {int(p)}" for p in rows["position"]]
        lines.append(Line.of(rows, rows["position"].astype(float), label=TAG_WORDS[tag], at=at, style=style))
    last = max((x for line in lines for x in line.x), default=2.0)
    ends = {line.label: line.end[1] for line in lines if line.end is not None}
    best = max(ends, key=lambda label: ends[label]) if ends else "nothing"
    return lines_figure(
        lines, x_axis=value_axis(1.0, last, title="place in the passage"), y_axis=value_axis(0.0, 1.0, title="share of members"),
        height_px=340, by=("token", "how it is known"), title="How each token is known", subtitle="band: 95% interval over members",
        alt=f"At the end of the passage most tokens of {clean(results.run)} are known {best} at step {step_number(step or 0)}.",
        look=look,
    )  # fmt: skip


def spread_places(rows: pd.DataFrame, most: int = MAX_POINTS) -> pd.DataFrame:
    """Rows in order of their place: all, or `most` of them spread evenly over a log axis, first and last among them."""
    rows = rows.sort_values("position")
    if len(rows) <= most:
        return rows
    chosen = np.unique(np.round(np.geomspace(1, len(rows), most)).astype(int))
    return rows.iloc[chosen - 1]


@dataclass(frozen=True)
class _Places:
    """What tells one figure of loss by place from another.

    Attributes:
        probe: whose metric `loss` is drawn.
        title: of the figure, before its step.
        y_title: of the value axis.
        place: name of a place, `copy`.
        last: a place, as the finding calls the last one.
        x_axis: layout of the place axis, from the last place.
        chosen: rows that are drawn, in order of their place.
    """

    probe: str
    title: str
    y_title: str
    place: str
    last: Callable[[float], str]
    x_axis: Callable[[float], dict[str, Any]]
    chosen: Callable[[pd.DataFrame], pd.DataFrame]


def _loss_over_places(
    results_list: Any, what: _Places, *, step: int | None, base: str | None, look: Look
) -> Figure:
    runs = as_list(results_list)
    styles = run_styles([r.run for r in runs], base=base)
    lines, chances, steps = [], [], []
    for results in runs:
        rows, at = at_step(observations(results, probe=what.probe, metric="loss"), step)
        rows = what.chosen(rows)
        names = [f"step {step_number(at)}, {what.place} {int(p):,}" for p in rows["position"]]
        lines.append(Line.of(rows, rows["position"].astype(float), label=short(results.run), at=names, style=styles[results.run]))  # fmt: skip
        chances += [c for c in [typical_chance(rows)] if c is not None]
        steps.append(at)
    last = max((x for line in lines for x in line.x), default=1.0)
    level = f" · dotted: chance {chance_number(chances[0])}" if chances else ""
    when = f"step {step_number(steps[0])}" if len(set(steps)) == 1 else "each run's last step"
    return lines_figure(
        lines, x_axis=what.x_axis(last), y_axis=loss_axis(lines, chances, title=what.y_title), height_px=360,
        by=(what.place, "run"), under=chance_trace([1.0, last], [chances[0]] * 2) if chances else (),
        title=f"{what.title}, {when}", subtitle=f"band: 95% interval over sequences{level}",
        alt=_finding(runs, lines, what), look=look,
    )  # fmt: skip


def _copies_axis(last: float) -> dict[str, Any]:
    ticks = list(range(1, int(last) + 1, max(1, round(last / 12))))
    return {
        "range": [1 - 0.03 * max(1.0, last - 1), last + 0.02 * max(1.0, last - 1)],
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [str(t) for t in ticks],
        "title": {"text": "copy of the paragraph in one context"},
    }


def _places_axis(last: float) -> dict[str, Any]:
    room = 0.03 * math.log10(max(last, 2.0))
    ticks = [2**k for k in range(int(math.log2(max(last, 1.0))) + 1)]
    return {
        "type": "log",
        "range": [-room, math.log10(max(last, 2.0)) + room],
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [f"{t:,}" for t in ticks],
        "title": {"text": "token after BOS, log scale"},
        "minorloglabels": "none",
    }


def _finding(runs: Sequence[Any], lines: Sequence[Line], what: _Places) -> str:
    parts = []
    for results, line in zip(runs, lines, strict=True):
        measured = line.rows[line.rows["valid"]]
        if measured.empty:
            parts.append(f"{clean(results.run)}: not measured")
            continue
        first, last = (interval(r.value, r.lo, r.hi) for r in (measured.iloc[0], measured.iloc[-1]))
        at = what.last(measured["position"].iloc[-1])
        parts.append(f"{clean(results.run)}: {first} nats on the first {what.place}, {last} on {at}")
    return f"{what.title}. {'; '.join(parts)}."
