"""Layer x head grids: one step large, or many steps small on one scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from plotly.subplots import make_subplots

from byrote.interp.axes import head_label, parse_heads
from byrote.probes.figures.canvas import FULL, Canvas, Figure, Look, empty, finish
from byrote.probes.figures.cells import (
    Cells,
    add_cells,
    add_frame,
    cell_writer,
    cells_of,
    color_axis,
    grid_axes,
    grid_table,
    names,
)
from byrote.probes.figures.select import (
    at_step,
    counted,
    head_observations,
    subject,
    typical_chance,
    unit,
    value_range,
)
from byrote.probes.figures.theme import SMALL_FONT_SIZE_PX, paint
from byrote.probes.wording import (
    chance_number,
    clean,
    estimate,
    markup,
    probe_name,
    sentence_case,
    short,
    step_number,
)

MAX_PANELS = 12
COLUMNS = 6
N_JUMPS_KEPT = 2


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
        ByroteError: the results hold no such probe, metric or step.
    """
    results, probe, metric = subject(results, probe, metric)
    everything = head_observations(results, probe=probe, metric=metric)
    rows, step = at_step(everything, step)
    grid = results.shape
    limits = value_range(probe, metric, everything.loc[everything["valid"], "value"])
    cells = cells_of(rows, grid, limits=limits, write=cell_writer(grid))
    chance = typical_chance(rows)
    fig = Figure()
    add_cells(fig, cells)
    for head in parse_heads(highlight):
        add_frame(fig, head)
    x, y = grid_axes(grid)
    fig.update_layout(
        xaxis=x, yaxis=y, plot_bgcolor=paint("void"),
        coloraxis=color_axis(limits, chance=chance),
    )  # fmt: skip
    return finish(
        fig,
        Canvas(height_px=120 + grid[0] * _cell_px(grid[0]), bottom_px=48, left_px=58, right_px=116),
        title=f"{_titled(probe, metric)}, {markup(short(results.run))}, step {_step_words(rows, step)}",
        subtitle=_reading(rows, chance, unit(probe, metric)),
        alt=_grid_finding(
            rows, cells, f"{probe_name(probe)} of {clean(results.run)} at step {step_number(step)}"
        ),
        look=look,
        table=lambda: grid_table({f"step {step_number(step)}": rows}, grid),
        by=("head", "step"),
    )


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
    title = f"{_titled(probe, metric)} over training, {markup(short(results.run))}"
    if not wanted:
        return empty(Canvas(height_px=160), title=title, reason="no step was measured", look=look)
    grid = results.shape
    limits = value_range(probe, metric, everything.loc[everything["valid"], "value"])
    panels = [at_step(everything, step)[0] for step in wanted]
    n_columns = min(COLUMNS, -(-len(wanted) // (2 if len(wanted) > 4 else 1)))
    n_rows = -(-len(wanted) // n_columns)
    canvas = _panel_canvas(grid, n_rows)
    fig = make_subplots(
        figure=Figure(), rows=n_rows, cols=n_columns, horizontal_spacing=0.022, vertical_spacing=34 / canvas.plot_px if n_rows > 1 else 0,
        subplot_titles=[f"step {_step_words(rows, s)}" for s, rows in zip(wanted, panels, strict=True)],
    )  # fmt: skip
    fig.update_annotations(font={"size": SMALL_FONT_SIZE_PX, "color": paint("ink")})
    for index, rows in enumerate(panels):
        _add_panel(
            fig, cells_of(rows, grid, limits=limits), index=index, n_columns=n_columns, last_row=n_rows - 1
        )
    for index in range(len(wanted), n_rows * n_columns):
        name = str(index + 1)
        fig.update_layout({f"xaxis{name}": {"visible": False}, f"yaxis{name}": {"visible": False}})
    chance = typical_chance(everything)
    fig.update_layout(plot_bgcolor=paint("void"), coloraxis=color_axis(limits, chance=chance))
    return finish(
        fig, canvas, title=title, subtitle=_reading(everything, chance, unit(probe, metric)),
        alt=_rise_finding(panels, wanted, f"{probe_name(probe)} of {clean(results.run)}"), look=look, by=("head", "step"),
        table=lambda: grid_table({f"step {step_number(s)}": rows for s, rows in zip(wanted, panels, strict=True)}, grid),
    )  # fmt: skip


def panel_steps(rows: pd.DataFrame, *, keep: Sequence[int] = ()) -> list[int]:
    """The steps worth a panel: those to keep, both sides of the steepest changes, and the rest log-spaced.

    Args:
        rows: of one metric, all steps.
        keep: steps that must be among them, such as both sides of an onset.
    """
    strongest = rows[rows["valid"]].groupby("step")["value"].max()
    steps = list(strongest.index)
    rises = strongest.diff().abs().nlargest(N_JUMPS_KEPT)
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


def _cell_px(n_layers: int) -> int:
    return max(14, min(58, 420 // max(1, n_layers)))


def _panel_canvas(grid: tuple[int, int], n_rows: int) -> Canvas:
    panel_px = grid[0] * max(8, min(30, 200 // max(1, grid[0])))
    top, bottom = 86, 34
    return Canvas(
        height_px=top + bottom + n_rows * panel_px + (n_rows - 1) * 34,
        top_px=top, bottom_px=bottom, left_px=40, right_px=116,
    )  # fmt: skip


def _add_panel(fig: Figure, cells: Cells, *, index: int, n_columns: int, last_row: int) -> None:
    name = "" if index == 0 else str(index + 1)
    add_cells(fig, cells, axes={"xaxis": f"x{name}", "yaxis": f"y{name}"})
    x, y = grid_axes(cells.shape, titled=False)
    fig.update_layout(
        {f"xaxis{name}": {**x, "anchor": f"y{name}"}, f"yaxis{name}": {**y, "anchor": f"x{name}"}}
    )
    row, column = divmod(index, n_columns)
    if row < last_row:
        fig.layout[f"xaxis{name}"].showticklabels = False
    if column > 0:
        fig.layout[f"yaxis{name}"].showticklabels = False


def _step_words(rows: pd.DataFrame, step: int) -> str:
    return f"{step_number(step)}{' (left out by lint)' if rows['left_out'].any() else ''}"


def _titled(probe: str, metric: str) -> str:
    name = sentence_case(probe_name(probe))
    return name if metric == "score" else f"{name} ({probe_name(metric)})"


def _reading(rows: pd.DataFrame, chance: float | None, unit_words: str) -> str:
    """Unit, chance, interval and n as one line."""
    valid = rows[rows["valid"]]
    if valid.empty:
        return "nothing was measured here"
    parts = [unit_words] if unit_words else []
    parts.append("no chance level" if chance is None else f"chance {chance_number(chance)}")
    exact = bool((valid["lo"] == valid["hi"]).all())
    return " · ".join(
        [*parts, "exact: from weights alone" if exact else f"95% interval over {counted(valid)}"]
    )


def _grid_finding(rows: pd.DataFrame, cells: Cells, where: str) -> str:
    valid = rows[rows["valid"]]
    total = cells.shape[0] * cells.shape[1]
    if valid.empty:
        return f"No head was measured for {where}."
    best = valid.loc[valid["value"].idxmax()]
    text = f"Highest {where}: {estimate(best, head_label(int(best.layer), int(best['head'])))}. "
    if not cells.missing:
        return f"{text}All {total} heads were measured."
    return f"{text}{len(cells.missing)} of {total} heads were not measured ({names(cells.missing)})."


def _rise_finding(panels: list[pd.DataFrame], steps: list[int], where: str) -> str:
    tops = [(s, rows[rows["valid"]]) for s, rows in zip(steps, panels, strict=True)]
    tops = [(s, rows.loc[rows["value"].idxmax()]) for s, rows in tops if not rows.empty]
    if not tops:
        return f"No step was measured for {where}."
    parts = [
        f"{estimate(row, head_label(int(row.layer), int(row['head'])))} at step {step_number(s)}"
        for s, row in (tops[0], tops[-1])
    ]
    return f"Highest {where}: {parts[0]}; {parts[1]}."
