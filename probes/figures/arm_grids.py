"""Every head of every seed, arm beside arm: what became of the same heads under other data?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from plotly.subplots import make_subplots

from byrote.checkpoints.errors import ByroteError
from byrote.interp.axes import head_label
from byrote.probes.figures.axis import axis_layout
from byrote.probes.figures.canvas import FULL, NUMBERS, Canvas, Figure, Look, finish, note, scatter
from byrote.probes.figures.cells import cells_of, color_axis
from byrote.probes.figures.lines import numbers_of
from byrote.probes.figures.seed_curves import seed_counts
from byrote.probes.figures.select import (
    as_list,
    at_step,
    head_observations,
    metric_name,
    typical_chance,
    unit,
    value_range,
)
from byrote.probes.figures.theme import SMALL_FONT_SIZE_PX, paint
from byrote.probes.wording import (
    clean,
    estimate,
    listed,
    markup,
    number,
    over_seeds,
    sentence_case,
    short,
    step_number,
)

PER_ROW, CELL_PX, ROW_GAP_PX, LINE_PX = 4, 24, 62, 16
LOSS = ("held_out_loss", "loss")  # written above each arm where all of its runs have it


def arm_grids(
    groups: Any,
    *,
    probe: str = "prefix_matching",
    metric: str = "score",
    step: int | None = None,
    look: Look = FULL,
) -> Figure:
    """One metric of every head of every run at one step: a panel per arm, a row per seed, a column per head.

    Runs of one seed begin with the same weights, so that a head stands in the same place in every panel.

    Args:
        groups: a `Group` or several, the baseline first; see `byrote.groups_of`.
        probe: a probe with one value per head.
        metric: one of its metrics.
        step: training step; None is the last that all runs have.
        look: theme and width.

    Returns:
        Heatmaps on one scale, from the lower end of the probe's range to the tenth of it that holds the largest value; the mean
        held-out loss of each arm above its panel where it was measured. The table has every head of every seed.

    Raises:
        ByroteError: no group, models of different shapes, no step in common, or an unknown probe or metric.
    """
    groups = as_list(groups)
    runs = [run for one in groups for run in one.runs]
    shape, rows, step = _same_heads(runs, probe, metric, step)
    everything = pd.concat(list(rows.values()), ignore_index=True)
    limits = _limits(probe, metric, everything.loc[everything["valid"], "value"])
    n_columns, most = min(PER_ROW, len(groups)), max(map(len, groups))
    n_rows = -(-len(groups) // n_columns)
    plot_px = n_rows * most * CELL_PX + (n_rows - 1) * ROW_GAP_PX
    fig = make_subplots(
        figure=Figure(), rows=n_rows, cols=n_columns, horizontal_spacing=0.03,
        vertical_spacing=ROW_GAP_PX / plot_px if n_rows > 1 else 0,
        subplot_titles=[markup(short(one.name)) for one in groups],
    )  # fmt: skip
    fig.update_annotations(font={"size": SMALL_FONT_SIZE_PX, "color": paint("ink")})
    losses = {i: words for i, one in enumerate(groups) if (words := _loss_words(one, step))}
    places = [(title.x, title.y) for title in fig.layout.annotations]
    for i, words in losses.items():  # below the name, which moves up a line
        fig.layout.annotations[i].update(yshift=LINE_PX)
        fig.add_annotation(note(words, x=places[i][0], y=places[i][1], xanchor="center", yanchor="bottom"))
    for index in range(n_rows * n_columns):
        name = str(index + 1) if index else ""
        if index >= len(groups):
            fig.update_layout({f"xaxis{name}": {"visible": False}, f"yaxis{name}": {"visible": False}})
            continue
        one = groups[index]
        x, y = _axes(shape, one, most)
        y["showticklabels"] = index % n_columns == 0
        fig.update_layout(
            {f"xaxis{name}": x | {"anchor": f"y{name}"}, f"yaxis{name}": y | {"anchor": f"x{name}"}}
        )
        drawn = [_in_line(rows[run.run], i, shape[1]) for i, run in enumerate(one.runs)]
        labels = [clean(run.run, limit=40) for run in one.runs]
        cells = cells_of(
            pd.concat(drawn, ignore_index=True), (len(one), shape[0] * shape[1]), limits=limits,
            describe=partial(_described, labels),
        )  # fmt: skip
        fig.add_traces(cells.traces(xaxis=f"x{name}", yaxis=f"y{name}"))
        fig.add_traces(_between_layers(shape, len(one), xaxis=f"x{name}", yaxis=f"y{name}"))
    chance = typical_chance(everything)
    fig.update_layout(plot_bgcolor=paint("void"), coloraxis=color_axis(limits, chance=chance))
    what = sentence_case(metric_name(probe, metric))
    return finish(
        fig, Canvas(height_px=plot_px + 134, top_px=96, bottom_px=38, left_px=66, right_px=116),
        title=f"{markup(what)} of every head, seed by seed, step {step_number(step)}",
        subtitle=f"a row is a seed, a column a head, the same weights at step 0 in every panel · {markup(unit(probe, metric))}",
        alt=_finding(groups, rows, f"{what} at step {step_number(step)}"), look=look, by=("seed and head", "arm"),
        table=lambda: _table(groups, rows), counts=lambda: seed_counts(groups, [(probe, metric)]),
    )  # fmt: skip


def _described(labels: Sequence[str], row: Any, _: str) -> str:
    return f"{labels[row.layer]}, {estimate(row, row.label)}"


def _same_heads(
    runs: Sequence[Any], probe: str, metric: str, step: int | None
) -> tuple[tuple[int, int], dict[str, pd.DataFrame], int]:
    """Shape of all models, rows of each run at one step, and that step."""
    if not runs:
        raise ByroteError("no group was given", help="br.groups_of([...]) makes groups of results")
    shapes = {run.shape for run in runs}
    if len(shapes) > 1:
        shapes_in_words = [f"{layers} layers of {heads} heads" for layers, heads in sorted(shapes)]
        raise ByroteError(
            f"the runs have models of {len(shapes)} shapes ({listed(shapes_in_words)}), and heads must have the same place in every panel",
            help="draw runs of one size at a time",
        )
    observed = {run.run: head_observations(run, probe, metric) for run in runs}
    common = set.intersection(
        *({int(s) for s in rows.loc[rows["valid"], "step"]} for rows in observed.values())
    )
    if not common and step is None:
        raise ByroteError(
            f"the {len(runs)} runs have no step in common at which {probe} was measured",
            help="measure the same steps of all runs",
        )
    step = max(common) if step is None else step
    return shapes.pop(), {name: at_step(rows, step)[0] for name, rows in observed.items()}, step


def _limits(probe: str, metric: str, values: pd.Series) -> tuple[float, float]:
    """One scale for all panels: what is compared is arm with arm, and small values have to differ too."""
    lo, hi = value_range(probe, metric, values)
    if lo < 0 or values.empty:
        return lo, hi
    tenths = np.ceil(10 * (float(values.max()) - lo) / (hi - lo))
    return lo, lo + (hi - lo) * float(np.clip(tenths, 1, 10)) / 10


def _loss_words(one: Any, step: int) -> str:
    """The mean of an arm's held-out loss; "" where not all of its runs have one at this step."""
    losses = [run.rows(*LOSS, step=step, valid=True)["value"] for run in one.runs]
    if any(len(values) != 1 for values in losses):
        return ""
    return f"held-out loss {number(float(np.mean([v.iloc[0] for v in losses])), places=2)} nats"


def _axes(shape: tuple[int, int], one: Any, most: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Heads to the right, layer by layer; seeds downwards."""
    n_layers, n_heads = shape
    middle = [layer * n_heads + (n_heads - 1) / 2 for layer in range(n_layers)]
    seeds = [
        f"seed {run.facts.init_seed}" if run.facts.init_seed is not None else str(i)
        for i, run in enumerate(one.runs)
    ]
    bare = {"showgrid": False, "showline": False, "ticks": ""}
    x = axis_layout((-0.5, n_layers * n_heads - 0.5), middle, [f"L{i}" for i in range(n_layers)], title="")
    y = axis_layout((most - 0.5, -0.5), range(len(one)), seeds, title="")
    return x | bare, y | bare


def _in_line(rows: pd.DataFrame, row: int, n_heads: int) -> pd.DataFrame:
    """Heads of one run as cells of one row."""
    heads = list(zip(rows["layer"].astype(int), rows["head"].astype(int), strict=True))
    places = [layer * n_heads + head for layer, head in heads]
    return rows.assign(label=[head_label(*head) for head in heads], layer=row, head=places)


def _between_layers(shape: tuple[int, int], n_seeds: int, **axes: Any) -> list[dict[str, Any]]:
    n_layers, n_heads = shape
    line = {"width": 3, "color": paint("paper")}
    return [
        scatter("between layers", [layer * n_heads - 0.5] * 2, [-0.5, n_seeds - 0.5], line=line, **axes)
        for layer in range(1, n_layers)
    ]


def _finding(groups: Sequence[Any], rows: dict[str, pd.DataFrame], what: str) -> str:
    parts = []
    for one in groups:
        best = [float(mine.loc[mine["valid"], "value"].max()) for mine in (rows[run.run] for run in one.runs)]
        parts.append(
            f"{clean(one.name)} {over_seeds(float(np.median(best)), min(best), max(best), len(best))}"
        )
    return f"{what}, strongest head, median of the seeds: {listed(parts, most=len(parts), between='; ')}."


def _table(groups: Sequence[Any], rows: dict[str, pd.DataFrame]) -> pd.DataFrame:
    parts = []
    for one in groups:
        for i, run in enumerate(one.runs):
            found = numbers_of(rows[run.run])
            seed = i if run.facts.init_seed is None else run.facts.init_seed
            names = [f"seed {seed}, {head}" for head in found["where"]]
            parts.append(found.assign(**{"seed and head": names, "arm": one.name}))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(where="")[["seed and head", "arm", "where", *NUMBERS]]
