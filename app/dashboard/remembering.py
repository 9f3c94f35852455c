"""Memory beside circuits: the plane, what became of the members, and a passage told apart token by token. No Streamlit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard.run_cache import run_cache
from byrote.dashboard.saved import SavedRun
from byrote.interp.axes import head_label
from byrote.probes.attention import StoredText, stored_texts
from byrote.probes.figures.axis import StepAxis, value_axis
from byrote.probes.figures.canvas import Canvas, finish
from byrote.probes.figures.curve import Curve, add_curve, label_ends, label_margin_px
from byrote.probes.figures.theme import Style, paint, run_styles, series_style
from byrote.probes.memory.member_flow import member_flow
from byrote.probes.registry import REGISTRY
from byrote.probes.trajectory import total_mass
from byrote.probes.wording import clean, interval, markup, number, short, step_number

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
HEADROOM = 0.08  # of the axis, for the name above the last point
TAGS = ("recall", "copying", "both", "neither")
TAG_WORDS = {
    "recall": "from the weights", "copying": "from the context", "both": "from either", "neither": "from neither",
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One number of one run at one step."""

    step: int
    value: float
    lo: float
    hi: float
    where: str = ""


@run_cache(96)
def points(run: SavedRun, probe: str, metric: str) -> tuple[Point, ...]:
    """A model metric over the series, the strongest head of a head metric, or the sum over heads; steps without a number
    are left out."""
    if metric == MASS:
        return _mass(run, probe)
    kind = run.kinds.get((probe, metric))
    if kind == "head":
        cube, found = run.cube(probe, metric), []
        for i, step in enumerate(cube.steps):
            best = cube.strongest(step)
            if best is not None:
                at = (i, *best)
                found.append(
                    Point(step, *(float(g[at]) for g in (cube.value, cube.lo, cube.hi)), head_label(*best))
                )
        return tuple(found)
    if kind != "model":
        return ()
    rows = run.rows(probe, metric)
    rows = rows[rows["valid"] & ~rows["step"].isin(list(run.left_out))].sort_values("step")
    return tuple(
        Point(int(r.step), float(r.value), float(r.lo), float(r.hi)) for r in rows.itertuples(index=False)
    )


def _mass(run: SavedRun, probe: str) -> tuple[Point, ...]:
    if run.kinds.get((probe, "score")) != "head":
        return ()
    try:
        table = total_mass(run.part((probe, "score")), probe=probe)
    except ByroteError:  # nothing valid
        return ()
    return tuple(Point(r.step, r.value, r.lo, r.hi, f"over {r.heads} heads") for r in table.itertuples())


def available(axes: dict[str, tuple[str, str, str]], runs: Sequence[SavedRun]) -> list[str]:
    """The axes with at least one number in some run."""
    return [
        name for name, (probe, metric, _) in axes.items() if any(points(run, probe, metric) for run in runs)
    ]


def finding(run: SavedRun, *, step: int) -> str:
    """Does the run remember, does it copy: in one sentence."""
    name = clean(run.name, limit=60)
    gap = {p.step: p for p in points(run, "mem_gap", "gap")}
    rule = {p.step: p for p in points(run, "prefix_matching", "score")}
    copies = (
        ""
        if step not in rule
        else f"its strongest prefix matching is {interval(rule[step].value, rule[step].lo, rule[step].hi)} ({rule[step].where})"
    )
    if step not in gap:
        why = (
            "no training sequences were given to test it on"
            if not gap
            else f"memory was not measured at step {step_number(step)}"
        )
        return f"{name}: {why}" + (f"; {copies}" if copies else "")
    found = gap[step]
    says = "remembers its training sequences" if found.lo > 0 else "shows no sign of memory"
    text = f"{name} {says}: they cost {interval(found.value, found.lo, found.hi)} nats less than fresh ones at step {step_number(step)}"
    return text + (f"; {copies}" if copies else "")


def plane(runs: Sequence[SavedRun], *, x: str, y: str, base: str | None, step: int, shown: str) -> go.Figure:
    """Rule against memory: one path per run, one point per checkpoint, the step looked at ringed."""
    x_probe, x_metric, x_title = RULE_AXES[x]
    y_probe, y_metric, y_title = MEMORY_AXES[y]
    styles = run_styles([r.name for r in runs], base=base)
    fig = go.Figure()
    told, drawn, untested = [], [], []
    for run in runs:
        xs = {p.step: p for p in points(run, x_probe, x_metric)}
        ys = {p.step: p for p in points(run, y_probe, y_metric)}
        steps = [s for s in run.steps if s in xs and s in ys]
        if not steps:
            untested += [(run, xs)] if xs else []
            continue
        drawn.append((run, steps, xs, ys))
        _path(fig, run, (steps, xs, ys), style=styles[run.name])
        if run.name == shown and step in steps:
            fig.add_scatter(
                x=[xs[step].value], y=[ys[step].value], mode="markers", name=f"step {step_number(step)}", hoverinfo="name",
                marker={"symbol": "circle-open", "size": 18, "color": paint("ink"), "line": {"width": 2}},
            )  # fmt: skip
        last = steps[-1]
        told.append(f"{clean(run.name)} ends at {x} {number(xs[last].value)}, {y} {number(ys[last].value)}")
    spans = [[(p.lo, p.hi) for held in drawn for p in held[k].values()] for k in (2, 3)]
    spans[0] += [(p.lo, p.hi) for _, xs in untested for p in xs.values()]
    axes = (_axis(spans[0], x_probe, x_metric, x_title), _axis(spans[1], y_probe, y_metric, y_title))
    for rank, (run, xs) in enumerate(untested):
        _untested(fig, run, xs, styles[run.name], (axes[1]["range"], rank))
    fig.update_layout(xaxis=axes[0], yaxis=axes[1])
    return finish(
        fig, Canvas(height_px=480, left_px=72, right_px=40),
        title="The rule against rote, by checkpoint",
        subtitle="right: copies by rule · up: remembers · triangle: first checkpoint, square: last · ring: the step looked at",
        alt=f"{'; '.join(told) or 'No run holds both'}.",
    )  # fmt: skip


def flow_figure(frame: pd.DataFrame, run: SavedRun) -> go.Figure:
    """Members memorised, newly memorised and forgotten at every step, and the twins that meet the same definition."""
    steps = [int(s) for s in frame["step_to"]]
    axis = StepAxis.over(steps)
    n = int(frame["n"].max())
    styles = {
        "memorised": series_style(0),
        "new": series_style(2),
        "forgotten": series_style(1),
        "twins": Style("muted", "dot", "diamond"),
    }
    curves = []
    for name, style in styles.items():
        values = [None if pd.isna(v) else float(v) for v in frame[name]]
        if all(v is None for v in values):
            continue
        words = {"new": "newly memorised", "twins": "twins: chance"}.get(name, name)
        hover = tuple(
            f"step {step_number(s)}: {number(v)} {words}" for s, v in zip(steps, values, strict=True)
        )
        nothing = (None,) * len(values)
        curves.append(
            Curve(
                words,
                tuple(float(axis.place(s)) for s in steps),
                tuple(values),
                nothing,
                nothing,
                hover,
                style,
            )
        )
    y_axis = value_axis(0.0, float(n), title="members")
    canvas = Canvas(height_px=360, right_px=label_margin_px(c.label for c in curves))
    fig = go.Figure()
    for curve in curves:
        add_curve(fig, curve, floor=y_axis["range"][0])
    label_ends(fig, curves, canvas=canvas, y_range=tuple(y_axis["range"]), log_x=True)
    fig.update_layout(xaxis=axis.layout(), yaxis=y_axis)
    last = frame.iloc[-1]
    return finish(
        fig, canvas, title=f"What became of the members of {markup(short(run.name))}",
        subtitle=f"{n} training sequences; memorised: written out word for word",
        alt=f"At step {step_number(steps[-1])}, {int(last['memorised'])} of {n} members of {clean(run.name)} are memorised; "
        f"{int(frame['forgotten'].sum())} were forgotten at some step.",
    )  # fmt: skip


@run_cache(8)
def flow(run: SavedRun) -> pd.DataFrame:
    """`member_flow` of a run.

    Raises:
        ByroteError: fewer than two steps hold every member's value.
    """
    return member_flow(run.results)


@dataclass(frozen=True)
class Passage:
    """One member told apart token by token.

    Attributes:
        index: among the members.
        words: its tokens; None where no token was kept, and only places can be shown.
        tags: place -> recall, copying, both or neither.
    """

    index: int
    words: tuple[str, ...] | None
    tags: dict[int, str]


@run_cache(64)
def passages(run: SavedRun, step: int) -> tuple[Passage, ...]:
    """The members' passages at a step, with the tag of every token; () where they were not measured."""
    if not run.has("recall_vs_copy", "recall_at"):
        return ()
    rows = run.results.samples(step)
    rows = rows[(rows["probe"] == "recall_vs_copy") & rows["valid"]]
    tags: dict[int, dict[int, str]] = {}
    for tag in TAGS:
        for row in rows[rows["metric"] == f"{tag}_at"].itertuples(index=False):
            for i in np.flatnonzero(np.asarray(row.samples, dtype=float) == 1):
                tags.setdefault(int(i), {})[int(row.position)] = tag
    kept = {text.index: text for text in stored_texts(run.path, step) if text.stimulus == "members"}
    return tuple(Passage(i, _words(kept.get(i)), dict(sorted(tags[i].items()))) for i in sorted(tags))


def shares_figure(run: SavedRun, step: int) -> go.Figure:
    """Share of members whose token is recalled, copied, either or neither, by place in the passage."""
    styles = dict(
        zip(
            TAGS,
            (series_style(1), series_style(0), series_style(2), Style("muted", "dot", "diamond")),
            strict=True,
        )
    )
    curves = []
    for tag in TAGS:
        rows = run.rows("recall_vs_copy", f"{tag}_at")
        rows = rows[rows["step"] == step].sort_values("position")
        at = [f"token {int(p)}" for p in rows["position"]]
        curves.append(
            Curve.of(
                rows, [float(p) for p in rows["position"]], label=TAG_WORDS[tag], at=at, style=styles[tag]
            )
        )
    y_axis = value_axis(0.0, 1.0, title="share of members")
    canvas = Canvas(height_px=340, right_px=label_margin_px(c.label for c in curves))
    fig = go.Figure()
    for curve in curves:
        add_curve(fig, curve, floor=y_axis["range"][0])
    label_ends(fig, curves, canvas=canvas, y_range=tuple(y_axis["range"]))
    last = max((x for c in curves for x in c.x), default=2.0)
    fig.update_layout(xaxis=value_axis(1.0, last, title="place in the passage"), yaxis=y_axis)
    ends = {TAG_WORDS[t]: c.end for t, c in zip(TAGS, curves, strict=True) if c.end is not None}
    best = max(ends, key=lambda t: ends[t][1]) if ends else "nothing"
    return finish(
        fig, canvas, title="How each token is known", subtitle="band: 95% interval over members",
        alt=f"At the end of the passage most tokens of {clean(run.name)} are known {best} at step {step_number(step)}.",
    )  # fmt: skip


def _words(text: StoredText | None) -> tuple[str, ...] | None:
    """Tokens of a member's passage, the first after BOS at place 1."""
    if text is None:
        return None
    return tuple(text.words or map(str, text.tokens))


def _path(fig: go.Figure, run: SavedRun, path: tuple, *, style: Style) -> None:
    steps, xs, ys = path
    x, y = [xs[s].value for s in steps], [ys[s].value for s in steps]
    hover = [
        f"{markup(run.name)}, step {step_number(s)}<br>{interval(xs[s].value, xs[s].lo, xs[s].hi)} {xs[s].where}<br>{interval(ys[s].value, ys[s].lo, ys[s].hi)}"
        for s in steps
    ]
    symbols = ["triangle-up", *["circle"] * (len(steps) - 2), "square"][: len(steps)]
    fig.add_scatter(
        x=x, y=y, mode="lines+markers", name=markup(run.name), line={"color": style.color, "width": 1.5, "dash": style.dash},
        marker={"size": 7, "color": style.color, "symbol": "circle"}, hovertext=hover, hoverinfo="text",
    )  # fmt: skip
    for i, symbol in ((0, symbols[0]), (len(steps) - 1, symbols[-1])):
        fig.add_scatter(
            x=[x[i]],
            y=[y[i]],
            mode="markers",
            hoverinfo="skip",
            name=markup(run.name),
            marker={"size": 12, "color": style.color, "symbol": symbol},
        )
    fig.add_annotation(
        x=x[-1],
        y=y[-1],
        text=markup(short(run.name)),
        showarrow=False,
        yshift=14,
        font={"size": 12, "color": paint("ink")},
    )


def _untested(
    fig: go.Figure, run: SavedRun, xs: dict[int, Point], style: Style, place: tuple[Sequence[float], int]
) -> None:
    """A run with no training sequences to test: where its rule ends, as a line across the whole height."""
    (lo, hi), rank = place
    last = xs[max(xs)]
    fig.add_scatter(
        x=[last.value] * 2, y=[lo, hi], mode="lines", name=markup(run.name), hoverinfo="name",
        line={"color": style.color, "width": 1.5, "dash": "dash" if style.token == "base" else "dot"},
    )  # fmt: skip
    fig.add_annotation(
        x=last.value, y=lo + (hi - lo) * (0.62 - 0.09 * rank), text=f"{markup(short(run.name))}: memory not tested",
        showarrow=False, xanchor="right", xshift=-6, font={"size": 12, "color": paint("ink")},
    )  # fmt: skip


def _axis(spans: list[tuple[float, float]], probe: str, metric: str, title: str) -> dict:
    info = REGISTRY[probe]
    ends = [v for span in spans for v in span if np.isfinite(v)] or [0.0, 1.0]
    lo, hi = min(0.0, *ends), max(0.0, *ends)
    if metric != MASS and info.range is not None and info.unit_of(metric) == info.unit:
        lo, hi = info.range
    else:
        hi += HEADROOM * (hi - lo)
    return value_axis(float(lo), float(hi if hi > lo else lo + 1.0), title=title)
