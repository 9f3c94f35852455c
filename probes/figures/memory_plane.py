"""Memory beside circuits: the plane of rule and memory, and what became of the members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.interp.axes import head_label
from byrote.probes.figures.axis import StepAxis, value_axis
from byrote.probes.figures.canvas import FULL, Canvas, Figure, Look, Trace, finish, note, scatter
from byrote.probes.figures.lines import Line, lines_figure
from byrote.probes.figures.select import as_list, counts_in_words
from byrote.probes.figures.theme import Style, paint, run_styles, series_style
from byrote.probes.memory.member_flow import member_flow as flow_of
from byrote.probes.registry import REGISTRY
from byrote.probes.trajectory import total_mass
from byrote.probes.wording import (
    clean,
    interval,
    labels_of_runs,
    markup,
    number,
    probe_name,
    sentence_case,
    short,
    step_number,
)

# name -> (probe, metric, what the axis says); a score per head stands for the strongest head
MASS = "mass"  # no metric of its own: the sum of one over heads
MEMORY_AXES = {
    "memory gap": ("mem_gap", "gap", "loss on fresh twins minus loss on members, nats"),
    "extracted": ("extraction", "score", "share of members written out word for word"),
    "completed": ("exact_match", "completed", "share of members completed without an error"),
    "bits": ("unintended_bits", "bits", "bits known beyond the source, per member"),
}
RULE_AXES = {
    "induction mass": ("prefix_matching", MASS, "prefix matching above chance, summed over all heads"),
    "prefix matching": ("prefix_matching", "score", "prefix matching of the strongest head"),
    "repeats predicted": ("repeat_loss", "top1_later", "share of repeated random tokens predicted first"),
    "ICL score": (
        "icl_score",
        "score",
        "late minus early loss on text, nats (lower: more is learned in context)",
    ),
}
_ON_PLOT: dict[str, Any] = {"xref": "x", "yref": "y", "tone": "ink"}
HEADROOM = 0.08  # of the axis, for the name above the last point
_FLOWS = {
    "memorised": ("memorised", series_style(0)), "new": ("newly memorised", series_style(2)),
    "forgotten": ("forgotten", series_style(1)), "twins": ("twins: chance", Style("muted", "dot", "diamond")),
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One number of one run at one step, with its interval and the head or heads it is about."""

    step: int
    value: float
    lo: float
    hi: float
    where: str = ""

    @property
    def words(self) -> str:
        """`0.81 [0.78, 0.84] L1H0`."""
        return f"{interval(self.value, self.lo, self.hi)} {self.where}"


def points(results: Any, probe: str, metric: str) -> tuple[Point, ...]:
    """A model metric over the series, the strongest head of a head metric, or with `MASS` the sum over heads; steps
    without a number are left out."""
    kind = results.kinds.get((probe, "score" if metric == MASS else metric))
    if metric == MASS and kind == "head":
        try:
            table = total_mass(results, probe=probe)
        except ByroteError:  # nothing valid
            return ()
        return tuple(Point(r.step, r.value, r.lo, r.hi, f"over {r.heads} heads") for r in table.itertuples())
    if kind == "head":
        cube = results.cube(probe, metric)
        best = {step: head for step in cube.steps if (head := cube.strongest(step)) is not None}
        ends = {step: cube.interval(step, head) for step, head in best.items()}
        return tuple(
            Point(step, value, lo, hi, head_label(*best[step])) for step, (value, lo, hi) in ends.items()
        )
    if kind != "model":
        return ()
    rows = results.rows(probe, metric, valid=True).sort_values("step")
    return tuple(
        Point(int(r.step), float(r.value), float(r.lo), float(r.hi)) for r in rows.itertuples(index=False)
    )


def available(axes: dict[str, tuple[str, str, str]], runs: Sequence[Any]) -> list[str]:
    """The axes with at least one number in some run."""
    return [
        name for name, (probe, metric, _) in axes.items() if any(points(run, probe, metric) for run in runs)
    ]


def memory_plane(
    results_list: Any,
    *,
    rule: str | None = None,
    memory: str | None = None,
    base: str | None = None,
    step: int | None = None,
    shown: str | None = None,
    look: Look = FULL,
) -> Figure:
    """Rule against memory: one path per run, one point per checkpoint.

    Args:
        results_list: one `Results` or several.
        rule: name of the axis to the right, see `RULE_AXES`; None is the first that some run holds.
        memory: name of the axis upwards, see `MEMORY_AXES`; None is the first that some run holds.
        base: name of the baseline run.
        step: a step to ring in the run `shown`.
        shown: name of the run looked at; None rings the step in every run.
        look: theme and width.

    Returns:
        Paths from a triangle to a square. A run whose memory was not tested is a line at where its rule ends.

    Raises:
        ByroteError: an unknown axis.
    """
    runs = as_list(results_list)
    x, x_probe, x_metric, x_title = _axis_of(RULE_AXES, rule, runs)
    y, y_probe, y_metric, y_title = _axis_of(MEMORY_AXES, memory, runs)
    styles, labels = run_styles([r.run for r in runs], base=base), labels_of_runs(r.run for r in runs)
    traces: list[Trace] = []
    notes: list[dict[str, Any]] = []
    ends, table, untested = list[str](), list[dict[str, Any]](), list[tuple[Any, dict[int, Point]]]()
    spans: tuple[list[Point], list[Point]] = ([], [])
    for run in runs:
        xs = {p.step: p for p in points(run, x_probe, x_metric)}
        ys = {p.step: p for p in points(run, y_probe, y_metric)}
        steps = [s for s in run.all_steps if s in xs and s in ys]
        spans[0].extend(xs.values())
        if not steps:
            untested += [(run, xs)] if xs else []
            continue
        spans[1].extend(ys.values())
        path = [(s, xs[s], ys[s]) for s in steps]
        traces += _path(run.run, path, styles[run.run])
        _, right, up = path[-1]
        notes.append(note(markup(labels[run.run]), x=right.value, y=up.value, yshift=14, **_ON_PLOT))
        if shown in (None, run.run) and step is not None and step in steps:
            ring = {"symbol": "circle-open", "size": 18, "color": paint("ink"), "line": {"width": 2}}
            place = ([xs[step].value], [ys[step].value])
            traces.append(scatter(f"step {step_number(step)}", *place, marker=ring, hoverinfo="name"))
        ends.append(f"{clean(run.run)} ends at {x} {right.words.strip()}, {y} {up.words.strip()}")
        table += [{"run": run.run, "step": s, x: a.words.strip(), y: b.words.strip()} for s, a, b in path]
    axes = (_axis(spans[0], x_probe, x_metric, x_title), _axis(spans[1], y_probe, y_metric, y_title))
    _inside(notes, *axes[0]["range"])
    for rank, (run, xs) in enumerate(untested):  # where its rule ends, as a line across the whole height
        at, (lo, hi), style = xs[max(xs)].value, axes[1]["range"], styles[run.run]
        line = {"color": style.color, "width": 1.5, "dash": "dash" if style.token == "base" else "dot"}
        traces.append(scatter(markup(run.run), [at, at], [lo, hi], line=line, hoverinfo="name"))
        words = markup(labels[run.run])
        words += ": memory not tested" if look.width == "full" else ""  # pages list them
        height = lo + (hi - lo) * (0.62 - 0.09 * rank)
        side: dict[str, Any] = (
            {"xanchor": "right", "xshift": -6}
            if at > sum(axes[0]["range"]) / 2
            else {"xanchor": "left", "xshift": 6}
        )
        notes.append(note(words, x=at, y=height, **side, **_ON_PLOT))
        table += [{"run": run.run, "step": s, x: p.words.strip(), y: "not tested"} for s, p in xs.items()]
    return finish(
        Figure({"data": traces, "layout": {"xaxis": axes[0], "yaxis": axes[1], "annotations": notes}}),
        Canvas(height_px=480, left_px=72, right_px=40),
        title="The rule against rote, by checkpoint",
        subtitle="right: copies by rule · up: remembers · triangle: first checkpoint, square: last"
        + (" · ring: the step looked at" if step is not None else ""),
        alt=f"{'; '.join(ends) or 'No run holds both'}.",
        look=look, table=lambda: pd.DataFrame(table, columns=["run", "step", x, y]),
        counts=lambda: _counts(runs, {row["step"] for row in table}, {x: (x_probe, x_metric), y: (y_probe, y_metric)}),
    )  # fmt: skip


def _counts(runs: Sequence[Any], steps: set[int], axes: dict[str, tuple[str, str]]) -> str:
    """Which steps are drawn; of how many sequences the numbers of each axis are, and their chance level."""
    sentences = [f"Steps {step_number(min(steps))} to {step_number(max(steps))}."] if steps else []
    for name, (probe, metric) in axes.items():
        own = "score" if metric == MASS else metric
        rows = [run.rows(probe, own, valid=True) for run in runs if run.has(probe, own)]
        if rows:  # a sum over heads is of their scores
            named = probe_name(probe) if own == "score" else name
            sentences.append(f"{sentence_case(named)}: {counts_in_words(pd.concat(rows))}")
    return " ".join(sentences)


def _inside(names: list[dict[str, Any]], left: float, right: float) -> None:
    """Names of runs near an edge stand on the inner side of their last points."""
    for name in names:
        where = (name["x"] - left) / (right - left)
        name["xanchor"] = "left" if where < 0.2 else "right" if where > 0.8 else "center"


def member_flow(results: Any, *, look: Look = FULL) -> Figure:
    """Members memorised, newly memorised and forgotten at every step, and the twins that meet the same definition.

    Args:
        results: a `Results` whose members were measured with `exact_match`.
        look: theme and width.

    Returns:
        Counts of members over steps; the table is that of `byrote.probes.memory.member_flow`.

    Raises:
        ByroteError: fewer than two steps hold every member's value.
    """
    frame = flow_of(results)
    steps = [int(s) for s in frame["step_to"]]
    axis, n = StepAxis.over(steps), int(frame["n"].max())
    lines = []
    for name, (words, style) in _FLOWS.items():
        values = frame[name].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
        if np.isnan(values).all():
            continue
        rows = pd.DataFrame({"step": steps, "value": values, "lo": np.nan, "hi": np.nan})
        hover = tuple(f"step {step_number(s)}: {number(v)} {words}" for s, v in zip(steps, values, strict=True))  # fmt: skip
        places = tuple(axis.place(s) for s in steps)
        lines.append(Line(words, rows.assign(valid=rows["value"].notna()), places, hover, style))
    last = frame.iloc[-1]
    return lines_figure(
        lines, x_axis=axis, y_axis=value_axis(0.0, float(n), title="members"), height_px=360, by=(), table=lambda: frame,
        title=f"What became of the members of {markup(short(results.run))}",
        subtitle=f"{n} members; memorised: written out word for word",
        alt=f"At step {step_number(steps[-1])}, {int(last['memorised'])} of {n} members of {clean(results.run)} are memorised; "
        f"{int(frame['forgotten'].sum())} were forgotten at some step.",
        look=look,
    )  # fmt: skip


def _axis_of(axes: dict[str, tuple[str, str, str]], name: str | None, runs: Sequence[Any]) -> tuple[str, str, str, str]:  # fmt: skip
    """(name, probe, metric, title) of an axis; the first that some run holds where none is named."""
    if name is None:
        name = next(iter(available(axes, runs)), next(iter(axes)))
    if name not in axes:
        raise ByroteError(f"the plane has no axis {name!r}", help=did_you_mean(name, axes))
    return name, *axes[name]


def _path(run: str, path: Sequence[tuple[int, Point, Point]], style: Style) -> list[Trace]:
    """One run from its first checkpoint, a triangle, to its last, a square."""
    x, y = [p.value for _, p, _ in path], [p.value for _, _, p in path]
    hover = [f"{markup(run)}, step {step_number(s)}<br>{a.words}<br>{b.words.strip()}" for s, a, b in path]
    line = {"color": style.color, "width": 1.5, "dash": style.dash}
    marker = {"size": 7, "color": style.color, "symbol": "circle"}
    traces = [scatter(markup(run), x, y, line=line, marker=marker, hover=hover)]
    for i, symbol in ((0, "triangle-up"), (len(path) - 1, "square" if len(path) > 1 else "triangle-up")):
        end = {"size": 12, "color": style.color, "symbol": symbol}
        traces.append(scatter(markup(run), [x[i]], [y[i]], marker=end))
    return traces


def _axis(span: Sequence[Point], probe: str, metric: str, title: str) -> dict[str, Any]:
    info = REGISTRY[probe]
    ends = [v for p in span for v in (p.lo, p.hi) if np.isfinite(v)] or [0.0, 1.0]
    lo, hi = min(0.0, *ends), max(0.0, *ends)
    if metric != MASS and info.range is not None and info.unit_of(metric) == info.unit:
        lo, hi = info.range
    else:
        hi += HEADROOM * (hi - lo)
    return value_axis(float(lo), float(hi if hi > lo else lo + 1.0), title=title)
