"""Memory beside circuits: the plane of rule and memory, and what became of the members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.interp.axes import head_label
from byrote.probes.figures.axis import StepAxis, value_axis
from byrote.probes.figures.canvas import FULL, Canvas, Figure, Look, Trace, finish, note, scatter
from byrote.probes.figures.lines import Line, lines_figure
from byrote.probes.figures.seed_curves import medians_of
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
    over_seeds,
    probe_name,
    sentence_case,
    short,
    step_number,
    steps_in_words,
)

# name -> (probe, metric, what the axis says); a score per head stands for the strongest head
MASS = "mass"  # no metric of its own: the sum of one over heads
MEMORY_AXES = {
    "memory gap": ("mem_gap", "gap", "loss on fresh twins minus loss on members, nats"),
    "extracted": ("extraction", "score", "share of members written out verbatim"),
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
    """One number of one run at one step, with its interval and the head or heads it is about; or of an arm, the median of
    its seeds between the lowest and the highest of them."""

    step: int
    value: float
    lo: float
    hi: float
    where: str = ""
    seeds: int = 0

    @property
    def words(self) -> str:
        """`0.81 [0.78, 0.84] L1H0`, or `0.81 (0.60 to 0.84 over 5 seeds)`."""
        if self.seeds:
            return over_seeds(self.value, self.lo, self.hi, self.seeds)
        return f"{interval(self.value, self.lo, self.hi)} {self.where}"


@dataclass(frozen=True)
class Course:
    """What is drawn as one path: a run, or an arm by the medians of its seeds.

    Attributes:
        name: of the run or arm.
        x, y: numbers by step; no `y` where memory was not tested.
        ends: of an arm of several seeds, where each of them ends.
    """

    name: str
    x: dict[int, Point]
    y: dict[int, Point]
    ends: tuple[tuple[float, float], ...] = ()

    @property
    def path(self) -> list[tuple[int, Point, Point]]:
        """Steps in order with a number on both axes, and the numbers."""
        return [(step, self.x[step], self.y[step]) for step in sorted(self.x.keys() & self.y.keys())]


def points(results: Any, probe: str, metric: str, *, sequences: bool = True) -> tuple[Point, ...]:
    """A model metric over the series, the strongest head of a head metric, or with `MASS` the sum over heads; steps
    without a number are left out, and without `sequences` the per-sequence values are not read, see `total_mass`."""
    kind = results.kinds.get((probe, "score" if metric == MASS else metric))
    if metric == MASS and kind == "head":
        try:
            table = total_mass(results, probe=probe, sequences=sequences)
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
        name
        for name, (probe, metric, _) in axes.items()
        if any(points(run, probe, metric, sequences=False) for run in runs)
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
    """Rule against memory: one path per run, or per arm of several seeds; one point per checkpoint.

    Args:
        results_list: one `Results` or several; or a `Group` or several, see `byrote.groups_of`.
        rule: name of the axis to the right, see `RULE_AXES`; None is the first that some run holds.
        memory: name of the axis upwards, see `MEMORY_AXES`; None is the first that some run holds.
        base: name of the baseline run or arm.
        step: a step to ring in the run `shown`.
        shown: name of the run looked at; None rings the step in every run.
        look: theme and width.

    Returns:
        Paths from a triangle to a square. A run's ends in a cross, its 95% intervals; an arm's is the median of its seeds,
        with a dot where each seed ends. A run or arm whose memory was not tested is a line at where its rule ends.

    Raises:
        ByroteError: an unknown axis.
    """
    drawn = as_list(results_list)
    arms = [one for one in drawn if hasattr(one, "runs")]
    runs = [run for one in drawn for run in getattr(one, "runs", (one,))]
    x, of_x, x_title = _axis_of(RULE_AXES, rule, runs)
    y, of_y, y_title = _axis_of(MEMORY_AXES, memory, runs)
    courses = [_course(one, of_x, of_y) for one in drawn]
    names = [one.name for one in courses]
    styles, labels = run_styles(names, base=base), labels_of_runs(names)
    traces: list[Trace] = []
    notes: list[dict[str, Any]] = []
    ends, table = list[str](), list[dict[str, Any]]()
    for one in courses:
        if not (path := one.path):
            continue
        traces += _path(one, styles[one.name])
        _, right, up = path[-1]
        notes.append(note(markup(labels[one.name]), x=right.value, y=up.value, yshift=14, **_ON_PLOT))
        if shown in (None, one.name) and step is not None and step in one.x.keys() & one.y.keys():
            ring = {"symbol": "circle-open", "size": 18, "color": paint("ink"), "line": {"width": 2}}
            place = ([one.x[step].value], [one.y[step].value])
            traces.append(scatter(f"step {step_number(step)}", *place, marker=ring, hoverinfo="name"))
        ends.append(f"{clean(one.name)} ends at {x} {right.words.strip()}, {y} {up.words.strip()}")
        table += [{"run": one.name, "step": s, x: a.words.strip(), y: b.words.strip()} for s, a, b in path]
    tested, untested = ([one for one in courses if bool(one.path) is there] for there in (True, False))
    untested = [one for one in untested if one.x]
    axes = (
        _axis([p for one in courses for p in one.x.values()], *of_x, x_title),
        _axis([p for one in tested for p in one.y.values()], *of_y, y_title),
    )
    _inside(notes, *axes[0]["range"])
    for rank, one in enumerate(untested):
        more, name = _untested(one, labels[one.name], styles[one.name], axes, rank=rank, look=look)
        traces, notes = [*traces, *more], [*notes, name]
        table += [{"run": one.name, "step": s, x: p.words.strip(), y: "not tested"} for s, p in one.x.items()]
    frame = pd.DataFrame(table, columns=["run", "step", x, y])
    return finish(
        Figure({"data": traces, "layout": {"xaxis": axes[0], "yaxis": axes[1], "annotations": notes}}),
        Canvas(height_px=480, left_px=72, right_px=40),
        title="The rule against rote, by checkpoint",
        subtitle=_how_drawn(tested, untested) + (" · ring: the step looked at" if step is not None else ""),
        alt=f"{'; '.join(ends) or 'No run holds both'}.",
        look=look, table=lambda: frame.rename(columns={"run": "arm"}) if arms else frame,
        counts=lambda: _counts(runs, arms, set(frame["step"]), {x: of_x, y: of_y}),
    )  # fmt: skip


def _course(one: Any, of_x: tuple[str, str], of_y: tuple[str, str], *, alone: bool = True) -> Course:
    """A run, or an arm by the medians of its seeds, of those that were tested on memory if any was."""
    if not hasattr(one, "runs"):
        x, y = ({p.step: p for p in points(one, *axis, sequences=alone)} for axis in (of_x, of_y))
        return Course(one.run, x, y)
    if len(one.runs) == 1:
        return replace(_course(one.runs[0], of_x, of_y), name=one.name)
    seeds = [_course(run, of_x, of_y, alone=False) for run in one.runs]  # whose intervals are not drawn
    seeds = [seed for seed in seeds if seed.path] or [seed for seed in seeds if seed.x]
    ends = tuple((path[-1][1].value, path[-1][2].value) for seed in seeds if (path := seed.path))
    return Course(one.name, _medians([seed.x for seed in seeds]), _medians([seed.y for seed in seeds]), ends)


def _medians(seeds: Sequence[dict[int, Point]]) -> dict[int, Point]:
    """The median, lowest and highest of the seeds at every step that all of them have."""
    found = {}
    for step in sorted(set.intersection(*map(set, seeds))) if seeds else ():
        values = [seed[step].value for seed in seeds]
        found[step] = Point(step, float(np.median(values)), min(values), max(values), seeds=len(values))
    return found


def _how_drawn(tested: Sequence[Course], untested: Sequence[Course]) -> str:
    """What the marks are, of those that are in the picture."""
    several = any(len(one.path) > 1 for one in tested)
    of_arms, of_runs = (any(bool(one.ends) is arm for one in tested) for arm in (True, False))
    bands = any(one.x[max(one.x)].seeds for one in untested)
    marks = (
        ("right: copies by rule", True),
        ("up: remembers", True),
        ("line: median of an arm's seeds", of_arms),
        ("triangle: first checkpoint, square: last", several),
        ("dots: where each seed ends", of_arms),
        ("cross: 95% intervals at the last", of_runs),
        ("band: lowest to highest seed", bands),
    )
    return " · ".join(words for words, there in marks if there)


def _untested(
    one: Course, label: str, style: Style, axes: Sequence[dict[str, Any]], *, rank: int, look: Look
) -> tuple[list[Trace], dict[str, Any]]:
    """Where the rule of a run or arm ends whose memory was not tested: a line across the whole height, an arm's seeds as a band."""
    end, (lo, hi) = one.x[max(one.x)], axes[1]["range"]
    line = {"color": style.color, "width": 1.5, "dash": "dash" if style.token == "base" else "dot"}
    traces = [scatter(markup(one.name), [end.value] * 2, [lo, hi], line=line, hoverinfo="name")]
    if end.seeds:
        corners = [end.lo, end.hi, end.hi, end.lo], [lo, lo, hi, hi]
        ground: dict[str, Any] = {"fill": "toself", "fillcolor": style.band, "line": {"width": 0}}
        traces.insert(0, scatter(f"{markup(one.name)}, its seeds", *corners, hoverinfo="skip", **ground))
    words = markup(label) + (": memory not tested" if look.width == "full" else "")  # pages list them
    inwards = end.value > sum(axes[0]["range"]) / 2
    side: dict[str, Any] = {"xanchor": "right" if inwards else "left", "xshift": -6 if inwards else 6}
    return traces, note(words, x=end.value, y=lo + (hi - lo) * (0.62 - 0.09 * rank), **side, **_ON_PLOT)


def _counts(
    runs: Sequence[Any], arms: Sequence[Any], steps: set[int], axes: dict[str, tuple[str, str]]
) -> str:
    """Which steps are drawn; of how many seeds and sequences the numbers of each axis are, and their chance level."""
    sentences = [f"{sentence_case(steps_in_words(sorted(steps)))}."] if len(steps) == 1 else []
    sentences += [f"Steps {step_number(min(steps))} to {step_number(max(steps))}."] if len(steps) > 1 else []
    sentences += [medians_of(arms)] if arms else []
    for name, (probe, metric) in axes.items():
        own = "score" if metric == MASS else metric
        rows = [run.rows(probe, own, valid=True) for run in runs if run.has(probe, own)]
        if rows:  # a sum over heads is of their scores
            named = f"{probe_name(probe) if own == 'score' else name}{' of each run' if arms else ''}"
            sentences.append(f"{sentence_case(named)}: {counts_in_words(pd.concat(rows))}")
    return " ".join(sentences)


def _inside(names: list[dict[str, Any]], left: float, right: float) -> None:
    """Names of runs stand beside the bars of their last points, near an edge on the inner side."""
    for name in names:
        where = (name["x"] - left) / (right - left)
        name.update(xanchor="right", xshift=-6) if where > 0.8 else name.update(xanchor="left", xshift=6)
        if where < 0.2:  # beside the mark: the path comes from the other side
            name.update(yshift=0, xshift=10)


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
        subtitle=f"{n} members; memorised: written out verbatim",
        alt=f"At step {step_number(steps[-1])}, {int(last['memorised'])} of {n} members of {clean(results.run)} are memorised; "
        f"{int(frame['forgotten'].sum())} were forgotten at some step.",
        look=look,
    )  # fmt: skip


def _axis_of(
    axes: dict[str, tuple[str, str, str]], name: str | None, runs: Sequence[Any]
) -> tuple[str, tuple[str, str], str]:
    """(name, (probe, metric), title) of an axis; the first that some run holds where none is named."""
    if name is None:
        name = next(iter(available(axes, runs)), next(iter(axes)))
    if name not in axes:
        raise ByroteError(f"the plane has no axis {name!r}", help=did_you_mean(name, axes))
    probe, metric, title = axes[name]
    return name, (probe, metric), title


def _path(one: Course, style: Style) -> list[Trace]:
    """From the first checkpoint, a triangle, to the last, a square; there a run's intervals, or the seeds of an arm."""
    path, named = one.path, markup(one.name)
    x, y = [p.value for _, p, _ in path], [p.value for _, _, p in path]
    hover = [f"{named}, step {step_number(s)}<br>{a.words}<br>{b.words.strip()}" for s, a, b in path]
    line = {"color": style.color, "width": 1.5, "dash": style.dash}
    marker = {"size": 7, "color": style.color, "symbol": "circle"}
    traces = [scatter(named, x, y, line=line, marker=marker, hover=hover)]
    if one.ends:
        dots = {"size": 6, "color": style.color, "symbol": "circle-open", "line": {"width": 1.2}}
        traces.append(scatter(f"{named}, each seed", *map(list, zip(*one.ends, strict=True)), marker=dots))
    else:
        _, right, up = path[-1]
        cross = [right.lo, right.hi, None, x[-1], x[-1]], [y[-1], y[-1], None, up.lo, up.hi]
        traces.append(scatter(named, *cross, line={"color": style.color, "width": 1}, hoverinfo="skip"))
    for i, symbol in {0: "triangle-up", len(path) - 1: "square"}.items():
        end = {"size": 9 if one.ends else 12, "color": style.color, "symbol": symbol}
        traces.append(scatter(named, [x[i]], [y[i]], marker=end))
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
