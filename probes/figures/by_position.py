"""Numbers by place at one step: loss by copy and along the context, recall along a passage, attention by offset."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from byrote.interp.axes import head_label, parse_head
from byrote.probes.figures.axis import axis_layout, round_ticks, value_axis
from byrote.probes.figures.canvas import FULL, Figure, Look
from byrote.probes.figures.lines import Line, chance_trace, lines_figure, loss_axis
from byrote.probes.figures.select import (
    as_list,
    at_step,
    by_position,
    highest,
    observations,
    one_head,
    typical_chance,
)
from byrote.probes.figures.theme import Style, run_styles, series_style
from byrote.probes.rules import FAITHFUL_FRAC
from byrote.probes.wording import chance_number, clean, interval, markup, short, step_number

N_HEADS_SHOWN = 3
MAX_POINTS = 48
TAG_WORDS = {
    "recall": "from the weights", "copying": "from the context", "both": "from either", "neither": "from neither",
}  # fmt: skip
_TAG_STYLES = (series_style(1), series_style(0), series_style(2), Style("muted", "dot", "diamond"))


@dataclass(frozen=True)
class _Places:
    """Places that a loss is drawn by.

    Attributes:
        name: of one place, `copy`.
        last: how the finding calls the last one, with its number.
        title, y_title: of the figure.
        axis: layout of the place axis, from the last place.
        most: how many places at most, see `spread_places`; None draws all.
    """

    name: str
    last: str
    title: str
    y_title: str
    axis: Callable[[float], dict[str, Any]]
    most: int | None


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
    return _loss_over_places(results_list, "copy_curve", step=step, base=base, look=look)


def loss_by_position(
    results_list: Any, *, step: int | None = None, base: str | None = None, look: Look = FULL
) -> Figure:
    """Mean loss of the t-th token of real text after BOS: does more context continue to help? One line per run.

    Args:
        results_list: one `Results` or several.
        step: training step; None is each run's last.
        base: name of the baseline run.
        look: theme and width.

    Returns:
        Place in the context on a log x axis, nats on y, 95% bands, chance dotted. Of a long context, places spread
        evenly over the log axis, as many as can be distinguished.

    Raises:
        ByroteError: the results hold no `loss_by_position`, or not that step.
    """
    return _loss_over_places(results_list, "loss_by_position", step=step, base=base, look=look)


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
        rows, step = by_position(results, "recall_vs_copy", f"{tag}_at", step)
        at = [f"token {int(p)}" for p in rows["position"]]
        lines.append(_line(rows, TAG_WORDS[tag], style, at))
    last = max((x for line in lines for x in line.x), default=2.0)
    ends = {line.label: line.end[1] for line in lines if line.end is not None}
    best = max(ends, key=lambda label: ends[label]) if ends else "nothing"
    return lines_figure(
        lines, x_axis=value_axis(1.0, last, title="place in the passage"), y_axis=value_axis(0.0, 1.0, title="share of members"),
        height_px=340, by=("token", "how it is known"), title="How each token is known", subtitle="band: 95% interval over members",
        alt=f"At the end of the passage most tokens of {clean(results.run)} are known {best} at step {step_number(step or 0)}.",
        look=look,
    )  # fmt: skip


def faithfulness(
    results_list: Any, *, step: int | None = None, base: str | None = None, look: Look = FULL
) -> Figure:
    """Share of copying that the 1, 2, 4, ... strongest edges of a model achieve alone. One line per run.

    Args:
        results_list: one `Results` or several, with `edge_attribution`.
        step: training step; None is each run's last.
        base: name of the baseline run.
        look: theme and width.

    Returns:
        Edges on a log2 x axis, fraction of the gain on y, 95% bands; dotted, as many random edges in the first run.

    Raises:
        ByroteError: the results hold no `edge_attribution`, or not that step.
    """
    runs, lines, found, at = as_list(results_list), list[Line](), list[str](), 0
    styles, chance = run_styles([r.run for r in runs], base=base), pd.Series(dtype=float)
    for results in runs:
        rows, at = by_position(results, "edge_attribution", "faithfulness", step)
        names = [f"step {step_number(at)}, {2 ** int(p):,} edges" for p in rows["position"]]
        lines.append(_line(rows, short(results.run), styles[results.run], names))
        chance = chance if len(chance) else rows.set_index("position")["chance"].dropna()
        enough = rows[rows["valid"] & (rows["value"] >= FAITHFUL_FRAC)]
        edges = f"{2 ** int(enough['position'].iloc[0]):,} edges do" if len(enough) else "no circuit does"
        found.append(f"{clean(results.run)}: {edges} {FAITHFUL_FRAC:.0%} of it at step {step_number(at)}")
    last = int(max((x for line in lines for x in line.x), default=1.0))
    ticks = range(0, last + 1, max(1, round(last / 8)))
    span = max(1.0, last)
    x_axis = axis_layout(
        (-0.03 * span, 1.02 * span), ticks, [f"{2**t:,}" for t in ticks], title="strongest edges, log scale"
    )
    return lines_figure(
        lines, x_axis=x_axis, y_axis=value_axis(0.0, 1.1, title="share of copying left"), height_px=340, by=("edges", "run"),
        under=chance_trace([float(p) for p in chance.index], chance.tolist()), title="How few edges do it all",
        subtitle="band: 95% interval over sequences · dotted: as many random edges",
        alt=f"Copying by circuits of few edges. {'; '.join(found)}.", look=look,
    )  # fmt: skip


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
    every = observations(results, probe="offset_profile", metric="profile")
    most = float(
        every.loc[every["valid"], ["value", "hi"]].max(axis=None)
    )  # one axis for all heads and steps of the run
    rows, step = at_step(every, step)
    possible = rows.loc[
        rows["valid"] | rows["left_out"], "position"
    ].unique()  # the last offset has no key but position 0
    rows = rows[rows["position"].isin(possible)].sort_values("position")
    chosen = [parse_head(h) for h in heads] if heads is not None else _strongest(results, step)
    lines = []
    for index, head in enumerate(chosen):
        mine = one_head(rows, head)
        lines.append(
            _line(
                mine, head_label(*head), series_style(index), [tokens_back(int(p)) for p in mine["position"]]
            )
        )
    chance = rows[rows["valid"]].groupby("position")["chance"].median()
    levels = [None if pd.isna(c) else float(c) for c in chance]
    last = max((x for line in lines for x in line.x), default=1.0)
    ticks = round_ticks(0.0, last, about=8)
    x_axis = axis_layout(
        (-0.01 * last, 1.01 * last),
        ticks,
        [f"{t:g}" for t in ticks],
        title="offset: tokens back from the query",
    )
    peaks = [(line.label, highest(line.rows)) for line in lines if line.rows["valid"].any()]
    sentences = [
        f"{label} peaks {tokens_back(int(p.position))} at {interval(p.value, p.lo, p.hi)}"
        for label, p in peaks
    ]
    found = "; ".join(sentences) or "no head was measured"
    return lines_figure(
        lines, x_axis=x_axis, y_axis=loss_axis(lines, [*levels, most if most > 0 else None], title="mean attention fraction", room=1.05), height_px=340,
        by=("tokens back", "head"), under=chance_trace([float(p) for p in chance.index], levels),
        title=f"Attention by offset, {markup(short(results.run))}, step {step_number(step)}",
        subtitle="band: 95% interval over sequences · dotted: uniform attention",
        alt=f"Attention by offset of {clean(results.run)} at step {step_number(step)}: {found}.", look=look,
    )  # fmt: skip


def tokens_back(offset: int) -> str:
    """`1 token back`, `17 tokens back`."""
    return f"{offset} token{'' if offset == 1 else 's'} back"


def _strongest(results: Any, step: int) -> list[tuple[int, int]]:
    matching = results.has("prefix_matching", "score", valid=True)
    probe, metric = ("prefix_matching", "score") if matching else ("offset_profile", "peak_mass")
    best = results.ranked(probe, metric, step=step).head(N_HEADS_SHOWN)
    return [(int(layer), int(head)) for layer, head in zip(best["layer"], best["head"], strict=True)]


def spread_places(rows: pd.DataFrame, most: int = MAX_POINTS) -> pd.DataFrame:
    """Rows in order of their place: all, or `most` of them spread evenly over a log axis, first and last among them."""
    rows = rows.sort_values("position")
    if len(rows) <= most:
        return rows
    chosen = np.unique(np.round(np.geomspace(1, len(rows), most)).astype(int))
    return rows.iloc[chosen - 1]


def _line(rows: pd.DataFrame, label: str, style: Style, at: Sequence[str]) -> Line:
    return Line.of(rows, rows["position"].astype(float), label=label, at=at, style=style)


def _loss_over_places(
    results_list: Any,
    probe: str,
    *,
    step: int | None,
    base: str | None,
    look: Look,
) -> Figure:
    """The metric `loss` of a probe by place, a line per run."""
    runs, places = as_list(results_list), _PLACES[probe]
    styles = run_styles([r.run for r in runs], base=base)
    lines, chances, steps, found = list[Line](), list[float | None](), list[int](), list[str]()
    for results in runs:
        rows, at = by_position(results, probe, "loss", step)
        rows = spread_places(rows, places.most or len(rows))
        names = [f"step {step_number(at)}, {places.name} {int(p):,}" for p in rows["position"]]
        lines.append(_line(rows, short(results.run), styles[results.run], names))
        chances.append(typical_chance(rows))
        steps.append(at)
        found.append(f"{clean(results.run)}: {_ends(rows[rows['valid']], places)}")
    end = max((x for line in lines for x in line.x), default=1.0)
    chance = next((c for c in chances if c is not None), None)
    level = "" if chance is None else f" · dotted: chance {chance_number(chance)}"
    when = f"step {step_number(steps[0])}" if len(set(steps)) == 1 else "each run's last step"
    return lines_figure(
        lines, x_axis=places.axis(end), y_axis=loss_axis(lines, chances, title=places.y_title), height_px=360,
        by=(places.name, "run"), under=chance_trace([1.0, end], [chance] * 2), title=f"{places.title}, {when}",
        subtitle=f"band: 95% interval over sequences{level}", alt=f"{places.title}. {'; '.join(found)}.", look=look,
    )  # fmt: skip


def _ends(measured: pd.DataFrame, places: _Places) -> str:
    if measured.empty:
        return "not measured"
    first, final = (interval(r.value, r.lo, r.hi) for r in (measured.iloc[0], measured.iloc[-1]))
    last = places.last.format(int(measured["position"].iloc[-1]))
    return f"{first} nats on the first {places.name}, {final} on {last}"


def _copies_axis(last: float) -> dict[str, Any]:
    ticks, span = range(1, int(last) + 1, max(1, round(last / 12))), max(1.0, last - 1)
    title = "copy of the paragraph in one context"
    return axis_layout((1 - 0.03 * span, last + 0.02 * span), ticks, [str(t) for t in ticks], title=title)


def _places_axis(last: float) -> dict[str, Any]:
    end = math.log10(max(last, 2.0))
    ticks = [2**k for k in range(int(math.log2(max(last, 1.0))) + 1)]
    labels = [f"{t:,}" for t in ticks]
    return axis_layout((-0.03 * end, 1.03 * end), ticks, labels, title="token after BOS, log scale", log=True)


_PLACES = {
    "copy_curve": _Places(
        "copy", "the last", "Loss from copy to copy", "loss on this copy, nats", _copies_axis, most=None
    ),
    "loss_by_position": _Places(
        "token",
        "token {:,}",
        "Loss of real text by place in the context",
        "loss, nats",
        _places_axis,
        most=MAX_POINTS,
    ),
}
