"""Loss on a block of random tokens and on its repeats, over training: what copying in context is worth."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from byrote.probes.figures.axis import StepAxis, value_axis
from byrote.probes.figures.canvas import Canvas, finish
from byrote.probes.figures.curve import Curve, add_chance, add_curve, label_ends, label_margin_px
from byrote.probes.figures.rows import as_list, observations, typical_chance
from byrote.probes.figures.theme import Style, run_styles
from byrote.probes.wording import chance_number, clean, estimate, short, step_number

_BLOCKS = {"first_block": ("first", "triangle-up"), "later_blocks": ("repeats", "circle")}


def loss_curves(results_list: Any, *, base: str | None = None) -> go.Figure:
    """`repeat_loss` on the first block and on later blocks, per run, over training steps.

    Args:
        results_list: one `Results` or several.
        base: name of the baseline run.

    Returns:
        Two lines per run, in nats; the distance between them is what copying is worth. Chance, ln of the usable
        tokens, is dotted.

    Raises:
        ByroteError: the results hold no `repeat_loss`.
    """
    runs = as_list(results_list)
    styles = run_styles([r.run for r in runs], base=base)
    tables = {
        (r.run, metric): observations(r, probe="repeat_loss", metric=metric)
        for r in runs
        for metric in _BLOCKS
    }
    axis = StepAxis.over(s for rows in tables.values() for s in rows["step"])
    curves = []
    for (run, metric), rows in tables.items():
        word, symbol = _BLOCKS[metric]
        places = [axis.place(s) for s in rows["step"]]
        at = [f"step {step_number(s)}" for s in rows["step"]]
        style = Style(styles[run].token, styles[run].dash, symbol)
        curves.append(Curve.of(rows, places, label=f"{short(run)}: {word}", at=at, style=style))
    chances = [c for rows in tables.values() if (c := typical_chance(rows)) is not None]
    highest = max([*chances, *(v for c in curves for v in c.hi if v is not None)], default=1.0)
    y_axis = value_axis(0.0, 1.04 * highest, title="loss, nats")
    canvas = Canvas(height_px=380, right_px=label_margin_px(c.label for c in curves))
    fig = go.Figure()
    if chances:
        ends = [10**end for end in axis.limits()]
        add_chance(fig, ends, [chances[0], chances[0]])
    for curve in curves:
        add_curve(fig, curve, floor=y_axis["range"][0])
    label_ends(fig, curves, canvas=canvas, y_range=tuple(y_axis["range"]), log_x=True)
    mark = axis.break_mark()
    fig.update_layout(
        xaxis=axis.layout(), yaxis=y_axis, annotations=[*fig.layout.annotations, *([mark] if mark else [])]
    )
    level = f" · dotted: chance {chance_number(chances[0])}" if chances else ""
    return finish(
        fig, canvas, title="Loss on random tokens and on their repeats",
        subtitle=f"band: 95% interval over sequences{level}", alt=_finding(runs, tables),
    )  # fmt: skip


def _finding(runs: list[Any], tables: dict[tuple[str, str], Any]) -> str:
    parts = []
    for results in runs:
        ends = []
        for metric, (word, _) in _BLOCKS.items():
            valid = tables[results.run, metric].query("valid")
            ends.append(f"{word} not measured" if valid.empty else estimate(valid.iloc[-1], word))
        parts.append(f"{clean(results.run)}: {'; '.join(ends)}")
    return f"Final loss in nats on the first block and on repeats. {'. '.join(parts)}."
