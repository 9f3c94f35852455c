"""Figures of docs/case-studies/training.md."""

from __future__ import annotations

import numpy as np
import pandas as pd
from training_table import ARMS, MEMORY, Runs, Shown

from byrote.probes.figures.axis import StepAxis, value_axis
from byrote.probes.figures.canvas import FULL, Figure, scatter
from byrote.probes.figures.forest import ForestRow, Mark, Panel, forest
from byrote.probes.figures.lines import Line, lines_figure
from byrote.probes.figures.theme import paint, run_styles
from byrote.probes.wording import interval


def over_steps(runs: Runs, one: Shown) -> Figure:
    """The change of one number since the start, a line per arm."""
    axis = StepAxis.over(runs.steps, log=False)
    lines, styles = [], run_styles(list(ARMS), base="unique")
    for arm in ARMS:
        found = [runs.difference(one, (arm, step), (arm, 0)) for step in runs.steps]
        rows = pd.DataFrame(found, columns=["value", "lo", "hi"]).assign(
            step=runs.steps, chance=np.nan, valid=True, reason="", layer=pd.NA, head=pd.NA,
            n=[runs.n_of(arm, step, one) for step in runs.steps],
        )  # fmt: skip
        at = [f"step {step}" for step in runs.steps]
        lines.append(Line.of(rows, runs.steps, label=arm, at=at, style=styles[arm]))
    ends = [float(end) for line in lines for name in ("lo", "hi") for end in line.rows[name]]
    y_axis = value_axis(min(ends), max(ends), title=f"change since the start, {one.unit}")
    rule = {"color": paint("muted"), "width": 1, "dash": "dot"}
    turn = scatter("fresh text returns", [runs.turn] * 2, list(y_axis["range"]), line=rule)
    told = "; ".join(
        f"{arm} {interval(*runs.difference(one, (arm, runs.steps[-1]), (arm, 0)), sign=True)}" for arm in ARMS
    )
    title = f"{one.name[0].upper()}{one.name[1:]}, change since the start"
    return lines_figure(
        lines, x_axis=axis, y_axis=y_axis, height_px=360, by=("step", "run"), under=[turn], title=title,
        subtitle=f"{runs.spread} · dotted: step {runs.turn}, fresh text returns", look=FULL,
        alt=f"{title}, by arm; dotted where fresh text returns, after step {runs.turn}; at step {runs.steps[-1]}: {told} {one.unit}.",
    )  # fmt: skip


def changes(runs: Runs) -> Figure:
    """What each arm changed by the time fresh data returns, against the start."""
    panels, table = [], []
    shown = [one for one in runs.compared if one not in MEMORY]
    for one in shown:
        rows = []
        for arm in ARMS:
            found = runs.difference(one, (arm, runs.turn), (arm, 0))
            sure, words = found[1] * found[2] > 0, interval(*found, sign=True)
            color = paint("series0" if sure else "muted")
            mark = Mark("clear" if sure else "no clear change", *found, color, f"{arm}: {words}", filled=sure)
            rows.append(ForestRow(arm, (mark,), words, "ink" if sure else "muted"))
            table.append({"number": one.name, "arm": arm, "value": found[0], "lo": found[1], "hi": found[2]})
        panels.append(Panel(tuple(rows), one.unit, head=one.name))
    return forest(
        panels, title=f"What {runs.turn} steps changed", look=FULL, table=lambda: pd.DataFrame(table),
        subtitle=f"step {runs.turn} minus step 0, {runs.spread} · grey and hollow: it holds 0",
        alt=f"Changes of {len(shown)} numbers from step 0 to step {runs.turn} in each arm, with their intervals.",
    )  # fmt: skip
