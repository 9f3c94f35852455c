"""Loss on the first, second, ... copy of one paragraph: does another copy still help?"""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from byrote.probes.figures.places import Places, loss_over_places


def copy_curve(results_list: Any, *, step: int | None = None, base: str | None = None) -> go.Figure:
    """Mean loss on the X-th copy, one line per run.

    Args:
        results_list: one `Results` or several.
        step: training step; None is each run's last.
        base: name of the baseline run.

    Returns:
        Copy index on x, nats on y, 95% bands, chance dotted.

    Raises:
        ByroteError: the results hold no `copy_curve`, or not that step.
    """
    what = Places(
        probe="copy_curve", title="Loss from copy to copy", y_title="loss on this copy, nats", place="copy",
        last=lambda _: "the last", x_axis=_copies_axis, chosen=lambda rows: rows.sort_values("position"),
    )  # fmt: skip
    return loss_over_places(results_list, what, step=step, base=base)


def _copies_axis(last: float) -> dict[str, Any]:
    ticks = list(range(1, int(last) + 1, max(1, round(last / 12))))
    return {
        "range": [1 - 0.03 * max(1.0, last - 1), last + 0.02 * max(1.0, last - 1)],
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [str(t) for t in ticks],
        "title": {"text": "copy of the paragraph in one context"},
    }
