"""What training on each of several experiments does to each: a square of pairs."""

from __future__ import annotations

from typing import Any

import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade.dependence_matrix import DependenceMatrix, Effect
from byrote.probes.figures.axis import axis_layout
from byrote.probes.figures.canvas import FULL, Canvas, Figure, Look, finish
from byrote.probes.figures.cells import (
    MAX_HEADS_WITH_INTERVALS,
    MAX_HEADS_WITH_VALUES,
    Cells,
    color_axis,
    thinned,
)
from byrote.probes.figures.theme import paint
from byrote.probes.findings_degrade import matrix_sentence
from byrote.probes.wording import interval, markup, point

_UNITS = {"accuracy": "accuracy", "loss": "nats"}


def dependence_matrix(found: Any, *, metric: str = "accuracy", look: Look = FULL) -> Figure:
    """What training on each experiment does to each other one, experiments trained on to the right, experiments measured downwards.

    Args:
        found: a `DependenceMatrix`, see `byrote.degrade.dependence_matrix`.
        metric: what was measured of members, "accuracy" or "loss".
        look: theme and width.

    Returns:
        A square on a scale about 0: the diagonal is what experiments do to themselves; value and 95% interval in the cells where there
        is room, and on hover with the word on the pair. The table has a row per pair.

    Raises:
        ByroteError: no such matrix, or another metric.
    """
    if not isinstance(found, DependenceMatrix) or metric not in _UNITS:
        raise ByroteError(
            "no dependence matrix was given",
            help="br.degrade.dependence_matrix(br.degrade.member_rows(groups), smallest=0.05) makes one, of accuracy or loss",
        )
    n = found.n
    rows = [found.effects[k * n : (k + 1) * n] for k in range(n)]
    cells = Cells(
        [[one.found.value for one in row] for row in rows],
        [[markup(_hover_text(one, metric)) for one in row] for row in rows],
        [[_written(one, n) for one in row] for row in rows],
    )
    far = max(abs(one.found.value) for one in found.effects) or 1.0
    ticks, labels = range(0, n, thinned(n)), [str(k + 1) for k in range(0, n, thinned(n))]
    bare = {"showgrid": False, "showline": False, "ticks": ""}
    layout = {
        "xaxis": axis_layout((-0.5, n - 0.5), ticks, labels, title="experiment trained on") | bare,
        "yaxis": axis_layout((n - 0.5, -0.5), ticks, labels, title="experiment measured") | bare,
        "plot_bgcolor": paint("void"),
        "coloraxis": color_axis((-far, far)),
    }
    what = "Accuracy" if metric == "accuracy" else "Loss saved"
    return finish(
        Figure({"data": cells.traces(), "layout": layout}),
        Canvas(height_px=130 + n * max(14, min(58, 420 // n)), bottom_px=48, left_px=58, right_px=116),
        title=f"{what} by what else a run was trained on",
        subtitle=f"{_UNITS[metric]} with the experiment less without · brackets: 95% interval over {'seeds' if found.by_seed else 'runs'} · "
        f"diagonal: memory · beside it: {found.word}",
        alt=matrix_sentence(found, metric),
        look=look,
        table=lambda: _table(found),
    )  # fmt: skip


def _hover_text(one: Effect, metric: str) -> str:
    what = f"experiment {one.measured + 1} by training on {one.trained + 1}"
    value = interval(one.found.value, one.found.lo, one.found.hi, sign=True)
    return f"{metric} of {what}: {value}, {one.word or 'memory'}"


def _written(one: Effect, n: int) -> str:
    if n > MAX_HEADS_WITH_VALUES:
        return ""
    value, lo, hi = one.found.value, one.found.lo, one.found.hi
    return (
        interval(value, lo, hi).replace(" [", "<br>[")
        if n <= MAX_HEADS_WITH_INTERVALS
        else point(value, lo, hi)
    )


def _table(found: DependenceMatrix) -> pd.DataFrame:
    """A row per pair."""
    return pd.DataFrame(
        {
            "measured": [one.measured + 1 for one in found.effects],
            "trained": [one.trained + 1 for one in found.effects],
            "value": [one.found.value for one in found.effects],
            "lo": [one.found.lo for one in found.effects],
            "hi": [one.found.hi for one in found.effects],
            "q_beyond": [one.q_beyond for one in found.effects],
            "word": [one.word for one in found.effects],
        }
    )
