"""The loss that training itself logged, at the measured steps: how far had it fallen, and did it diverge?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from byrote.checkpoints.errors import ByroteError
from byrote.probes.figures.axis import StepAxis, value_axis
from byrote.probes.figures.canvas import FULL, Figure, Look
from byrote.probes.figures.lines import Line, lines_figure
from byrote.probes.figures.select import as_list
from byrote.probes.figures.theme import run_styles
from byrote.probes.wording import clean, labels_of_runs, number, short, step_number

ROOM_FRAC = 0.04  # of the range, above and below the curves


def training_loss(results_list: Any, *, base: str | None = None, look: Look = FULL) -> Figure:
    """The training loss of every run that has one, over training.

    Args:
        results_list: one `Results` or several.
        base: name of the baseline run.
        look: theme and width.

    Returns:
        A line per run, in nats, as training logged it: last at or before each step, of a batch or of the mean over several,
        without an interval.

    Raises:
        ByroteError: none of the runs has a training loss.
    """
    runs = [run for run in as_list(results_list) if run.loss]
    if not runs:
        raise ByroteError(
            "these results have no training loss",
            help="name its log and run the sweep again: byrote run PATH --losses FILE",
        )
    styles = run_styles([run.run for run in runs], base=base)
    axis = StepAxis.over(step for run in runs for step in run.loss)
    labels = labels_of_runs(run.run for run in runs)
    lines = [_line(run, axis, styles[run.run], labels[run.run]) for run in runs]
    values = [loss for run in runs for loss in run.loss.values()]
    room = ROOM_FRAC * (max(values) - min(values)) or ROOM_FRAC
    ends = [
        f"{clean(run.run)}: {number(_last(run)[1])} nats at step {step_number(_last(run)[0])}" for run in runs
    ]
    return lines_figure(
        lines, x_axis=axis, y_axis=value_axis(min(values) - room, max(values) + room, title="loss, nats"), height_px=380,
        by=("step", "run"), title="Training loss", subtitle="as training logged it: last at or before each step",
        alt=f"Training loss, last: {'. '.join(ends)}.", look=look,
    )  # fmt: skip


def _last(run: Any) -> tuple[int, float]:
    """The last step with a training loss, and the loss."""
    step = max(run.loss)
    return step, run.loss[step]


def _line(run: Any, axis: StepAxis, style: Any, label: str) -> Line:
    points = sorted(run.loss.items())
    hover_texts = tuple(
        f"{clean(short(run.run))}, step {step_number(s)}<br>{number(v)} nats" for s, v in points
    )
    return replace(Line.bare(points, axis, label=label, hover=hover_texts, style=style), name=short(run.run))
