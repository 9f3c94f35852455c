"""Layer x head grids: one step large, many steps small on one scale, one step against an earlier one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from plotly.subplots import make_subplots

from byrote.interp.axes import parse_heads
from byrote.probes.figures.canvas import FULL, Canvas, Figure, Look, empty, finish
from byrote.probes.figures.cells import (
    MAX_HEADS_WITH_VALUES,
    MAX_LAYERS_WITH_TEXT,
    Cells,
    cell_writer,
    cells_of,
    color_axis,
    grid_axes,
    grid_figure,
    grid_table,
    names,
)
from byrote.probes.figures.select import (
    at_step,
    head_observations,
    highest,
    interval_words,
    metric_name,
    subject,
    typical_chance,
    unit,
    value_range,
)
from byrote.probes.figures.theme import SMALL_FONT_SIZE_PX, paint
from byrote.probes.results.rows import one_head, row_label
from byrote.probes.wording import (
    chance_number,
    clean,
    estimate,
    markup,
    number,
    probe_name,
    sentence_case,
    short,
    step_number,
)

MAX_PANELS = 12
COLUMNS, ROW_GAP_PX = 6, 34
N_JUMPS = 2


def head_grid(
    results: Any,
    *,
    probe: str | None = None,
    metric: str = "score",
    step: int | None = None,
    highlight: Any = (),
    look: Look = FULL,
) -> Figure:
    """One metric of every head at one step.

    Args:
        results: a `Results`, or a `Scores` (`results["prefix_matching"]`), which says probe and metric.
        probe: a head probe's name.
        metric: one of its metrics.
        step: training step; None is the last.
        highlight: heads to frame, `"L5H1"`, `(5, 1)` or a list of either.
        look: theme and width.

    Returns:
        A heatmap on the range the probe declares. Small grids write value and 95% interval in the cells; hover
        always gives interval, chance and n. Cells that were not measured carry a cross and their reason.

    Raises:
        ByroteError: the results hold no such probe, metric or step, or no head that is to be framed.
    """
    results, probe, metric = subject(results, probe, metric)
    everything = head_observations(results, probe=probe, metric=metric)
    for head in (framed := parse_heads(highlight)):
        one_head(everything, head)
    rows, step = at_step(everything, step)
    limits = value_range(probe, metric, everything.loc[everything["valid"], "value"])
    cells = cells_of(rows, results.shape, limits=limits, write=cell_writer(results.shape))
    chance = typical_chance(rows)
    name = sentence_case(metric_name(probe, metric))
    return grid_figure(
        cells, limits, chance=chance, highlight=framed,
        title=f"{name}, {markup(short(results.run))}, step {_step_words(rows, step)}",
        subtitle=_reading(rows, chance, unit(probe, metric)),
        alt=_grid_finding(rows, cells, f"{probe_name(probe)} of {clean(results.run)} at step {step_number(step)}"),
        look=look, by=("head", "step"),
        table=lambda: grid_table({f"step {step_number(step)}": rows}, results.shape),
    )  # fmt: skip


def grid_steps(
    results: Any,
    *,
    probe: str | None = None,
    metric: str = "score",
    steps: Iterable[int] | None = None,
    look: Look = FULL,
) -> Figure:
    """The same grid at several steps, on one scale with one colour bar.

    Args:
        results: a `Results`, or a `Scores`, which says probe and metric.
        probe: a head probe's name.
        metric: one of its metrics.
        steps: steps to show, thinned to twelve if there are more; None picks twelve: first, last, both sides of
            the steepest changes, and the rest even on a log scale.
        look: theme and width.

    Returns:
        Small multiples in reading order.

    Raises:
        ByroteError: the results hold no such probe, metric or step.
    """
    results, probe, metric = subject(results, probe, metric)
    everything = head_observations(results, probe=probe, metric=metric)
    wanted = panel_steps(everything) if steps is None else spaced_steps(steps)
    title = f"{sentence_case(metric_name(probe, metric))} over training, {markup(short(results.run))}"
    if not wanted:
        return empty(title=title, reason="no step was measured", look=look)
    grid = results.shape
    limits = value_range(probe, metric, everything.loc[everything["valid"], "value"])
    panels = {step: at_step(everything, step)[0] for step in wanted}
    n_columns = min(COLUMNS, -(-len(wanted) // (2 if len(wanted) > 4 else 1)))
    n_rows = -(-len(wanted) // n_columns)
    panel_px = grid[0] * max(8, min(30, 200 // max(1, grid[0])))
    plot_px = n_rows * panel_px + (n_rows - 1) * ROW_GAP_PX
    canvas = Canvas(height_px=plot_px + 120, top_px=86, bottom_px=34, left_px=40, right_px=116)
    layout = make_subplots(
        rows=n_rows, cols=n_columns, horizontal_spacing=0.022,
        vertical_spacing=ROW_GAP_PX / plot_px if n_rows > 1 else 0,
        subplot_titles=[f"step {_step_words(rows, step)}" for step, rows in panels.items()],
    ).to_plotly_json()["layout"]  # fmt: skip
    del layout["template"]
    for title_of_one in layout["annotations"]:
        title_of_one["font"] = {"size": SMALL_FONT_SIZE_PX, "color": paint("ink")}
    traces: list[Any] = []
    for index in range(n_rows * n_columns):
        name, (row, column) = str(index + 1) if index else "", divmod(index, n_columns)
        x, y = (
            grid_axes(grid, titled=False) if index < len(wanted) else ({"visible": False}, {"visible": False})
        )
        x |= {"anchor": f"y{name}", "showticklabels": row == n_rows - 1}
        y |= {"anchor": f"x{name}", "showticklabels": column == 0}
        for axis, own in ((f"xaxis{name}", x), (f"yaxis{name}", y)):
            layout[axis] |= own
        if index < len(wanted):
            cells = cells_of(panels[wanted[index]], grid, limits=limits)
            traces += cells.traces(xaxis=f"x{name}", yaxis=f"y{name}")
    chance = typical_chance(everything)
    layout |= {"plot_bgcolor": paint("void"), "coloraxis": color_axis(limits, chance=chance)}
    return finish(
        Figure({"data": traces, "layout": layout}), canvas, title=title, subtitle=_reading(everything, chance, unit(probe, metric)),
        alt=_rise_finding(panels, f"{probe_name(probe)} of {clean(results.run)}"), look=look, by=("head", "step"),
        table=lambda: grid_table({f"step {step_number(s)}": rows for s, rows in panels.items()}, grid),
    )  # fmt: skip


def change_grid(
    results: Any,
    *,
    probe: str,
    metric: str = "score",
    first: int | None = None,
    step: int | None = None,
    look: Look = FULL,
) -> Figure:
    """Every head at a step minus itself at an earlier one, zero-centred on the width of the probe's range.

    Args:
        results: a `Results`.
        probe: a head probe's name.
        metric: one of its metrics.
        first: the earlier step; None is the first that was measured.
        step: the later step; None is the last that was measured.
        look: theme and width.

    Raises:
        ByroteError: the results hold no such probe or metric.
    """
    results.require(probe, metric)
    cube = results.cube(probe, metric)
    usable = [s for i, s in enumerate(cube.steps) if cube.valid[i].any()]
    steps = usable[0] if first is None else first, usable[-1] if step is None else step
    a, b = (np.where(cube.valid[i], cube.value[i], np.nan).ravel() for i in map(cube.index, steps))
    layer, head = (axis.ravel() for axis in np.indices(cube.value.shape[1:]))
    rows = pd.DataFrame({"layer": layer, "head": head, "a": a, "b": b, "value": b - a})
    labels = [row_label(row) for row in rows.itertuples(index=False)]
    rows = rows.assign(valid=rows["value"].notna(), label=labels)
    width = cube.limits[1] - cube.limits[0]
    n_layers, n_heads = cube.value.shape[1:]
    room = n_heads <= MAX_HEADS_WITH_VALUES and n_layers <= MAX_LAYERS_WITH_TEXT
    cells = cells_of(
        rows, (n_layers, n_heads), limits=(-width, width),
        describe=lambda row, label: f"{label}: {number(row.a)} to {number(row.b)}",
        write=(lambda row: number(row.value, places=2, sign=True)) if room else None,
    )  # fmt: skip
    what = metric_name(probe, metric)
    before, after = (f"step {step_number(s)}" for s in steps)
    most = rows.loc[rows["value"].abs().idxmax()]
    columns = {"label": "head", "a": before, "b": after, "value": "difference"}
    return grid_figure(
        cells, (-width, width), title=f"{sentence_case(what)}, {after} minus {before}",
        subtitle="one run against itself: no interval", look=look,
        alt=f"{most.label} of {clean(results.run)} changes most on {what} from {before} "
        f"to {step_number(steps[1])}: {number(most.value, sign=True)}.",
        table=lambda: pd.DataFrame({name: rows[column].to_numpy() for column, name in columns.items()}),
    )  # fmt: skip


def panel_steps(rows: pd.DataFrame, *, keep: Sequence[int] = ()) -> list[int]:
    """The steps worth a panel: those to keep, both sides of the steepest changes, and the rest log-spaced.

    Args:
        rows: of one metric, all steps.
        keep: steps that must be among them, such as both sides of an onset.
    """
    strongest = rows[rows["valid"]].groupby("step")["value"].max()
    steps = list(strongest.index)
    rises = strongest.diff().abs().nlargest(N_JUMPS)
    jumps = [int(s) for step in rises.index for s in (steps[steps.index(step) - 1], step)]
    return spaced_steps(rows["step"], keep=[*keep, *jumps])


def spaced_steps(steps: Iterable[int], *, most: int = MAX_PANELS, keep: Sequence[int] = ()) -> list[int]:
    """At most `most` of the steps: first, last, those to keep, and the rest even on a log scale.

    Args:
        steps: the steps there are.
        most: how many to return at most.
        keep: steps that must be among them, such as both sides of an onset; ignored where not in `steps`.
    """
    ordered = sorted({int(s) for s in steps})
    if len(ordered) <= most:
        return ordered
    chosen = {ordered[0], ordered[-1]}
    chosen |= set([s for s in keep if s in ordered and s not in chosen][: most - len(chosen)])
    while len(chosen) < most:
        chosen.add(max((s for s in ordered if s not in chosen), key=lambda s: _log_gap(s, chosen)))
    return sorted(chosen)


def _log_gap(step: int, chosen: set[int]) -> float:
    return min(abs(math.log((step + 1) / (other + 1))) for other in chosen)


def _step_words(rows: pd.DataFrame, step: int) -> str:
    return f"{step_number(step)}{' (left out by lint)' if rows['left_out'].any() else ''}"


def _reading(rows: pd.DataFrame, chance: float | None, unit_words: str) -> str:
    """Unit, chance, interval and n as one line."""
    valid = rows[rows["valid"]]
    if valid.empty:
        return "nothing was measured here"
    parts = [unit_words] if unit_words else []
    parts.append("no chance level" if chance is None else f"chance {chance_number(chance)}")
    exact = bool((valid["lo"] == valid["hi"]).all())
    return " · ".join([*parts, "exact: from weights alone" if exact else interval_words(valid)])


def _grid_finding(rows: pd.DataFrame, cells: Cells, where: str) -> str:
    valid = rows[rows["valid"]]
    total = cells.shape[0] * cells.shape[1]
    if valid.empty:
        return f"No head was measured for {where}."
    best = highest(rows)
    text = f"Highest {where}: {estimate(best, row_label(best))}. "
    if not cells.missing:
        return f"{text}All {total} heads were measured."
    return f"{text}{len(cells.missing)} of {total} heads were not measured ({names(cells.missing)})."


def _rise_finding(panels: Mapping[int, pd.DataFrame], where: str) -> str:
    measured = {step: rows[rows["valid"]] for step, rows in panels.items()}
    tops = [(step, highest(rows)) for step, rows in measured.items() if not rows.empty]
    if not tops:
        return f"No step was measured for {where}."
    parts = [
        f"{estimate(row, row_label(row))} at step {step_number(step)}" for step, row in (tops[0], tops[-1])
    ]
    return f"Highest {where}: {parts[0]}; {parts[1]}."
