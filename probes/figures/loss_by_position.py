"""Loss of real text by place in the context: does more context go on helping?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from byrote.probes.figures.places import Places, loss_over_places

MAX_POINTS = 48


def loss_by_position(results_list: Any, *, step: int | None = None, base: str | None = None) -> go.Figure:
    """Mean loss of the t-th token after BOS, one line per run.

    Args:
        results_list: one `Results` or several.
        step: training step; None is each run's last.
        base: name of the baseline run.

    Returns:
        Place in the context on a log x axis, nats on y, 95% bands, chance dotted. Of a long context, places spread
        evenly over the log axis, as many as can be told apart.

    Raises:
        ByroteError: the results hold no `loss_by_position`, or not that step.
    """
    what = Places(
        probe="loss_by_position", title="Loss of real text by place in the context", y_title="loss, nats", place="token",
        last=lambda place: f"token {int(place):,}", x_axis=_places_axis, chosen=spread_places, log_x=True,
    )  # fmt: skip
    return loss_over_places(results_list, what, step=step, base=base)


def spread_places(rows: pd.DataFrame, most: int = MAX_POINTS) -> pd.DataFrame:
    """Rows in order of their place: all, or `most` of them spread evenly over a log axis, first and last among them."""
    rows = rows.sort_values("position")
    if len(rows) <= most:
        return rows
    chosen = np.unique(np.round(np.geomspace(1, len(rows), most)).astype(int))
    return rows.iloc[chosen - 1]


def _places_axis(last: float) -> dict[str, Any]:
    room = 0.03 * math.log10(max(last, 2.0))
    ticks = [2**k for k in range(int(math.log2(max(last, 1.0))) + 1)]
    return {
        "type": "log",
        "range": [-room, math.log10(max(last, 2.0)) + room],
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [f"{t:,}" for t in ticks],
        "title": {"text": "token after BOS, log scale"},
        "minorloglabels": "none",
    }
