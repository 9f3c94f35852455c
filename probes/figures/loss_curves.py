"""Loss on a block of random tokens and on its repeats, over training: what copying in context is worth."""

from __future__ import annotations

from typing import Any

import pandas as pd

from byrote.probes.figures.axis import StepAxis
from byrote.probes.figures.by_position import loss_axis
from byrote.probes.figures.canvas import FULL, Figure, Look
from byrote.probes.figures.lines import Line, chance_trace, lines_figure
from byrote.probes.figures.select import as_list, observations, typical_chance
from byrote.probes.figures.theme import Style, run_styles
from byrote.probes.wording import chance_number, clean, estimate, short, step_number

_BLOCKS = {"first_block": ("first", "triangle-up"), "later_blocks": ("repeats", "circle")}


def loss_curves(results_list: Any, *, base: str | None = None, look: Look = FULL) -> Figure:
    """`repeat_loss` on the first block and on later blocks, per run, over training steps.

    Args:
        results_list: one `Results` or several.
        base: name of the baseline run.
        look: theme and width.

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
    lines = []
    for (run, metric), rows in tables.items():
        word, symbol = _BLOCKS[metric]
        at = [f"step {step_number(s)}" for s in rows["step"]]
        style = Style(styles[run].token, styles[run].dash, symbol)
        places = [axis.place(s) for s in rows["step"]]
        lines.append(Line.of(rows, places, label=f"{short(run)}: {word}", at=at, style=style))
    chances = [c for rows in tables.values() if (c := typical_chance(rows)) is not None]
    ends = [10**end for end in axis.limits()]
    level = f" · dotted: chance {chance_number(chances[0])}" if chances else ""
    return lines_figure(
        lines, x_axis=axis, y_axis=loss_axis(lines, chances, title="loss, nats"), height_px=380, by=("step", "run"),
        under=chance_trace(ends, [chances[0]] * 2) if chances else (), title="Loss on random tokens and on their repeats",
        subtitle=f"band: 95% interval over sequences{level}", alt=_finding(runs, tables), look=look,
    )  # fmt: skip


def _finding(runs: list[Any], tables: dict[tuple[str, str], pd.DataFrame]) -> str:
    parts = []
    for results in runs:
        ends = []
        for metric, (word, _) in _BLOCKS.items():
            rows = tables[results.run, metric]
            valid = rows[rows["valid"]]
            ends.append(f"{word} not measured" if valid.empty else estimate(valid.iloc[-1], word))
        parts.append(f"{clean(results.run)}: {'; '.join(ends)}")
    return f"Final loss in nats on the first block and on repeats. {'. '.join(parts)}."
