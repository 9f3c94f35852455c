"""Figures only the dashboard has, made with the parts of `byrote.probes.figures`. No Streamlit."""

from __future__ import annotations

import html
from collections.abc import Sequence
from numbers import Real

import numpy as np
import plotly.graph_objects as go

from byrote.dashboard.query_params import State
from byrote.dashboard.saved import Cube, SavedRun
from byrote.interp.axes import head_label, parse_head
from byrote.probes.figures import trajectory
from byrote.probes.figures.axis import StepAxis
from byrote.probes.figures.canvas import Canvas, finish
from byrote.probes.figures.cells import MAX_HEADS_WITH_VALUES, MAX_LAYERS_WITH_TEXT, color_axis, grid_axes
from byrote.probes.figures.theme import paint
from byrote.probes.registry import REGISTRY
from byrote.probes.wording import clean, markup, number, probe_name, short, step_number

MAX_FAINT_HEADS = 64
TITLE_CHARS, SUBTITLE_CHARS, LINE_PX = 45, 52, 15  # a page 420 pixels wide, in the fonts of the figures
MAX_HOVERED_TOKENS = 128
COVERED = ("not run", "failed", "partial", "done")


def head_curves(run: SavedRun, state: State, *, base: SavedRun | None) -> go.Figure:
    """The selected and the pinned heads over training, the others faint behind them, a rule at the step.

    Args:
        run: whose heads.
        state: probe, metric, step, head, pins.
        base: the baseline; its selected head is drawn dashed.
    """
    pair = (state.probe, state.metric)
    heads = [h for h in dict.fromkeys([state.head, *state.pin]) if h]
    drawn = [run]
    if base is not None and base.has(*pair) and _has_heads(base, heads):
        drawn.insert(0, base)
    parts = [one.part(pair) for one in drawn]
    fig = trajectory(
        parts,
        probe=state.probe,
        metric=state.metric,
        heads=heads,
        base=base.name if len(parts) > 1 and base else None,
    )
    axis = _axis(drawn, pair)
    faint = _faint(run.cube(*pair), axis, without=set(heads))
    fig.add_trace(faint)
    fig.data = (fig.data[-1], *fig.data[:-1])
    add_now(fig, axis, state.step)
    return fig


def add_now(fig: go.Figure, axis: StepAxis, step: int) -> None:
    """A vertical rule at the step looked at."""
    at = float(axis.place(step))
    y = fig.layout.yaxis.range
    if y is None or step not in axis.steps:
        return
    fig.add_scatter(
        x=[at, at], y=list(y), mode="lines", name=f"step {step_number(step)}", hoverinfo="name",
        line={"color": paint("muted"), "width": 1.5},
    )  # fmt: skip


def fitted(fig: go.Figure) -> go.Figure:
    """Its title and subtitle broken into lines that fit the narrowest page; plotly cuts off what does not."""
    title = fig.layout.title
    lines = _lines(title.text or "", TITLE_CHARS, at=" ")
    below = _lines(title.subtitle.text or "", SUBTITLE_CHARS, at=" · ")
    extra = LINE_PX * (len(lines) + len(below) - 2)
    if extra <= 0:
        return fig
    height = fig.layout.height + extra
    return fig.update_layout(
        height=height,
        margin={"t": fig.layout.margin.t + extra},
        title={"text": "<br>".join(lines), "y": 1 - 14 / height, "subtitle": {"text": "<br>".join(below)}},
    )


def _lines(text: str, most: int, *, at: str) -> list[str]:
    """Text filled into lines, broken at a separator, which stays at the line's end."""
    lines = [""]
    for part in text.split(at):
        longer = lines[-1] + (at if lines[-1] else "") + part
        if lines[-1] and len(html.unescape(longer)) > most:
            lines[-1] += at.rstrip()
            lines.append(part)
        else:
            lines[-1] = longer
    return lines


def roomy(fig: go.Figure) -> go.Figure:
    """A figure for the whole page: where it is narrow, tick labels turn upright and the title gives way."""
    return fig.update_xaxes(automargin=True, title_standoff=10)


def narrow(fig: go.Figure) -> go.Figure:
    """A figure for half a page: level tick labels, as many as fit."""
    ticks = fig.layout.xaxis.tickvals
    if ticks is not None and len(ticks) > 6:
        every = -(-len(ticks) // 5)
        kept = sorted({*range(0, len(ticks) - 1, every), len(ticks) - 1})
        if len(kept) > 2 and kept[-1] - kept[-2] < every:
            kept.pop(-2)
        words = fig.layout.xaxis.ticktext
        fig.update_xaxes(tickvals=[ticks[i] for i in kept], ticktext=[words[i] for i in kept])
    return fig.update_xaxes(tickangle=0)


def coverage(run: SavedRun) -> go.Figure:
    """Checkpoint x probe: what was measured, in part, not at all, or never asked for."""
    probes, steps, grid, words = coverage_grid(run)
    fig = go.Figure()
    fig.add_heatmap(
        z=grid.tolist(), x=list(range(len(steps))), y=list(range(len(probes))), coloraxis="coloraxis",
        text=[[""] * len(steps) for _ in probes], texttemplate="%{text}", hovertext=words, hoverinfo="text",
        xgap=1, ygap=2,
    )  # fmt: skip
    failed = [(x, y) for y, row in enumerate(grid) for x, value in enumerate(row) if value == 1]
    if failed:
        fig.add_scatter(
            x=[x for x, _ in failed], y=[y for _, y in failed], mode="markers", name="not measured",
            marker={"symbol": "x-thin", "size": 7, "line": {"width": 1.5, "color": paint("ink")}},
            hovertext=[words[y][x] for x, y in failed], hoverinfo="text",
        )  # fmt: skip
    every = max(1, -(-len(steps) // 9))
    ticks = list(range(0, len(steps), every))
    fig.update_layout(
        xaxis={"range": [-0.5, len(steps) - 0.5], "tickmode": "array", "tickvals": ticks,
               "ticktext": [step_number(steps[i]) for i in ticks], "title": {"text": "checkpoint (training step)"}, "showline": False},
        yaxis={"range": [len(probes) - 0.5, -0.5], "tickmode": "array", "tickvals": list(range(len(probes))),
               "ticktext": [markup(probe_name(p)) for p in probes], "showgrid": False, "ticks": "", "ticklabelstandoff": 5},
        coloraxis={"cmin": -0.5, "cmax": 3.5, "showscale": False, "colorscale": _COVERAGE_SCALE},
        plot_bgcolor=paint("void"),
    )  # fmt: skip
    done = int((grid == 3).sum())
    return finish(
        fig,
        Canvas(height_px=118 + 20 * len(probes), left_px=150, bottom_px=50),
        title=f"What was measured, {markup(short(run.name))}",
        subtitle="dark: measured · light: in part · cross: not measured",
        alt=f"{done} of {grid.size} pairs of checkpoint and probe of {clean(run.name)} were measured in full, "
        f"{int((grid == 2).sum())} in part, {int((grid == 1).sum())} not at all.",
    )


def coverage_grid(run: SavedRun) -> tuple[list[str], list[int], np.ndarray, list[list[str]]]:
    """(probes, steps, [probe][step] index into COVERED, hover words)."""
    probes = list(dict.fromkeys(probe for probe, _ in run.kinds if probe in REGISTRY))
    steps = list(run.steps)
    bare = run.table.select(["probe", "step", "valid"]).append_column(
        "reason", run.table["reason"].cast("string")
    )
    counts = bare.group_by(["probe", "step"]).aggregate(
        [("valid", "sum"), ("valid", "count"), ("reason", "max")]
    )
    found = {(r["probe"], r["step"]): r for r in counts.to_pylist()}
    gaps = {int(g["step"]): str(g.get("reason", "")) for g in run.gaps if g.get("step") is not None}
    grid = np.zeros((len(probes), len(steps)), dtype=int)
    words = [[""] * len(steps) for _ in probes]
    for y, probe in enumerate(probes):
        for x, step in enumerate(steps):
            row = found.get((probe, step))
            name = f"{probe_name(probe)}, step {step_number(step)}"
            if row is None:
                grid[y, x] = 1 if step in gaps else 0
                words[y][x] = markup(f"{name}: {gaps.get(step) or 'not run'}", limit=300)
                continue
            good, total = int(row["valid_sum"] or 0), int(row["valid_count"])
            grid[y, x] = 3 if good == total else 2 if good else 1
            reason = "" if good == total else f": {row['reason_max']}"
            words[y][x] = markup(f"{name}: {good:,} of {total:,} values{reason}", limit=300)
    return probes, steps, grid, words


def _axis(runs: Sequence[SavedRun], pair: tuple[str, str]) -> StepAxis:
    steps = {int(s) for run in runs for s in run.rows(*pair)["step"].unique()}
    return StepAxis.over(
        steps | {int(g["step"]) for run in runs for g in run.gaps if g.get("step") is not None}
    )


def _has_heads(run: SavedRun, heads: Sequence[str]) -> bool:
    n_layers, n_heads = run.shape
    return all(layer < n_layers and head < n_heads for layer, head in map(parse_head, heads))


def _faint(cube: Cube, axis: StepAxis, *, without: set[str]) -> go.Scatter:
    """The heads that reach highest, as one broken line."""
    peak = np.nanmax(np.where(cube.valid, cube.value, -np.inf), axis=0)
    order = np.argsort(-peak, axis=None)
    n_heads = cube.value.shape[2]
    x: list[Real | None] = []
    y: list[Real | None] = []
    places = [float(axis.place(s)) for s in cube.steps]
    drawn = 0
    for flat in order:
        layer, head = divmod(int(flat), n_heads)
        if head_label(layer, head) in without or not np.isfinite(peak[layer, head]):
            continue
        values, good = cube.value[:, layer, head], cube.valid[:, layer, head]
        x += [*places, None]
        y += [*(round(float(v), 4) if ok else None for v, ok in zip(values, good, strict=True)), None]
        drawn += 1
        if drawn >= MAX_FAINT_HEADS:
            break
    return go.Scatter(
        x=x[:-1], y=y[:-1], mode="lines", name="other heads", hoverinfo="skip", connectgaps=False,
        line={"width": 1, "color": paint("context")},
    )  # fmt: skip


_COVERAGE_SCALE = [
    [0.0, paint("void")], [0.25, paint("void")], [0.25, paint("rule")], [0.5, paint("rule")],
    [0.5, "#9ec9e2"], [0.75, "#9ec9e2"], [0.75, paint("series0")], [1.0, paint("series0")],
]  # fmt: skip


def attention_matrix(
    pattern: np.ndarray, tokens: Sequence[str], *, head: str, held: int | None, what: str
) -> go.Figure:
    """One head's attention on one text: row = query, column = key, on the fixed range 0-1."""
    n = len(tokens)
    words = [markup(f"{i} {token}", limit=40) for i, token in enumerate(tokens)]
    hover = [
        [f"{words[q]} → {words[k]}: {pattern[q, k]:.1%}" if k <= q else "" for k in range(n)] for q in range(n)
    ] if n <= MAX_HOVERED_TOKENS else None  # fmt: skip
    fig = go.Figure()
    fig.add_heatmap(
        z=[[round(float(v), 3) if k <= q else None for k, v in enumerate(row)] for q, row in enumerate(pattern)],
        x=list(range(n)), y=list(range(n)), coloraxis="coloraxis", hoverongaps=False, hoverinfo="text" if hover else "x+y+z",
        hovertext=hover, text=[[""] * n for _ in range(n)] if n <= MAX_HOVERED_TOKENS else None, texttemplate="%{text}", xgap=0, ygap=0,
    )  # fmt: skip
    if held is not None and held < n:
        fig.add_scatter(
            x=[-0.5, n - 0.5, n - 0.5, -0.5, -0.5], y=[held - 0.5, held - 0.5, held + 0.5, held + 0.5, held - 0.5],
            mode="lines", line={"color": paint("series1"), "width": 1.5}, name="held", hoverinfo="skip",
        )  # fmt: skip
    every = max(1, -(-n // 8))
    ticks = {
        "tickmode": "array",
        "tickvals": list(range(0, n, every)),
        "ticktext": [str(i) for i in range(0, n, every)],
    }
    axis = {**ticks, "showgrid": False, "zeroline": False}
    fig.update_layout(
        xaxis={**axis, "range": [-0.5, n - 0.5], "title": {"text": "key position"}},
        yaxis={**axis, "range": [n - 0.5, -0.5], "title": {"text": "query position"}},
        coloraxis=color_axis((0.0, 1.0)), plot_bgcolor=paint("void"),
    )  # fmt: skip
    below = np.tril(pattern, -1)
    best = np.unravel_index(int(below.argmax()), below.shape) if n > 1 else (0, 0)
    return finish(
        fig,
        Canvas(height_px=440, left_px=58, right_px=100, top_px=74, bottom_px=46),
        title=f"Attention of {head}",
        subtitle=markup(f"{what} · row: the token that looks"),
        alt=f"Attention of {head} on {clean(what)}, {n} tokens. Most attention from one token to an earlier one: "
        f"position {int(best[0])} to {int(best[1])}, {float(pattern[best]):.0%}.",
    )


def first_to_now(run: SavedRun, cube: Cube, *, probe: str, metric: str, first: int, step: int) -> go.Figure:
    """Every head at a step minus itself at the first, zero-centred on the width of the probe's range."""
    a, b = (np.where(cube.valid[cube.index(s)], cube.value[cube.index(s)], np.nan) for s in (first, step))
    change = b - a
    width = cube.limits[1] - cube.limits[0]
    n_layers, n_heads = change.shape
    fig = go.Figure()
    names = [
        [f"{head_label(l, h)}: {number(a[l, h])} to {number(b[l, h])}" for h in range(n_heads)]
        for l in range(n_layers)
    ]
    written = n_heads <= MAX_HEADS_WITH_VALUES and n_layers <= MAX_LAYERS_WITH_TEXT
    fig.add_heatmap(
        z=[[None if np.isnan(v) else float(v) for v in row] for row in change], x=list(range(n_heads)), y=list(range(n_layers)),
        coloraxis="coloraxis", hovertext=names, hoverinfo="text", hoverongaps=False, xgap=2, ygap=2,
        text=[[number(v, places=2, sign=True) if written and np.isfinite(v) else "" for v in row] for row in change],
        texttemplate="%{text}",
    )  # fmt: skip
    x, y = grid_axes((n_layers, n_heads))
    fig.update_layout(xaxis=x, yaxis=y, plot_bgcolor=paint("void"), coloraxis=color_axis((-width, width)))
    best = np.unravel_index(int(np.nanargmax(np.abs(change))), change.shape)
    what = probe_name(probe) + ("" if metric in ("score", "") else f" ({probe_name(metric)})")
    return finish(
        fig, Canvas(height_px=130 + n_layers * max(14, min(46, 420 // n_layers)), left_px=58, right_px=116, bottom_px=48),
        title=f"{what[:1].upper()}{what[1:]}, step {step_number(step)} minus step {step_number(first)}",
        subtitle="one run against itself: no interval",
        alt=f"{head_label(int(best[0]), int(best[1]))} of {clean(run.name)} changes most on {what} from step {step_number(first)} "
        f"to {step_number(step)}: {number(float(change[best]), sign=True)}.",
    )  # fmt: skip
