"""A metric over training, every seed of every arm: how far do seeds of one arm lie apart, and arms from each other?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.probes.figures.canvas import FULL, Figure, Look, Trace, scatter
from byrote.probes.figures.lines import Line, lines_figure, table_of
from byrote.probes.figures.theme import Style, run_styles, tint
from byrote.probes.figures.trajectory import Strip, step_line, strip_of
from byrote.probes.wording import clean, counted, number, short


def seed_curves(
    groups: Any, *, probe: str = "repeat_loss", metric: str = "difference", look: Look = FULL
) -> Figure:
    """One metric over training steps: a thin line per seed, a thick one for the median of each arm.

    Args:
        groups: a `Group` or several, the baseline first; see `byrote.groups_of`.
        probe: a probe with one number per step, or per head and step: then the strongest head at each step is drawn.
        metric: one of its metrics.
        look: theme and width.

    Returns:
        float steps on a log axis; the baseline is dashed. The table has every seed and the medians.

    Raises:
        ByroteError: no group, or an unknown probe or metric.
    """
    groups = [groups] if hasattr(groups, "runs") else list(groups)
    if not groups:
        raise ByroteError("there is no group to draw", help="br.groups_of([...]) makes groups of results")
    strip = strip_of([run for one in groups for run in one.runs], probe, metric, context=False)
    styles = run_styles([one.name for one in groups], base=groups[0].name if len(groups) > 1 else None)
    medians, thin, start = list[Line](), list[Trace](), 0
    for one in groups:
        lines = strip.lines[start : start + len(one)]
        start += len(one)
        thin += [_thin(line, styles[one.name]) for line in lines]
        medians.append(_median(lines, strip, f"{short(one.name)}, median of {len(one)}", styles[one.name]))
    ends = "; ".join(f"{clean(g.name)} {_ends(m, g)}" for g, m in zip(groups, medians, strict=True))
    return lines_figure(
        medians, x_axis=strip.axis, y_axis=strip.y_axis, height_px=400, by=("step", "run"), under=[*thin, *strip.under],
        title=f"{strip.title}, by seed", subtitle="thin: one seed each · thick: median of the arm's seeds", look=look,
        alt=f"{strip.title} by seed, at the last step all have: {ends}.",
        table=lambda: table_of([*strip.lines, *medians], ("step", "run")),
    )  # fmt: skip


def _thin(line: Line, style: Style) -> Trace:
    look = {"color": tint(style.token, 0.55), "width": 1, "dash": style.dash}
    return scatter(f"seed {line.name}", line.x, line.column("value"), line=look, hover=list(line.hover))


def _median(lines: Sequence[Line], strip: Strip, label: str, style: Style) -> Line:
    """The median over the runs, at steps where all have a number."""
    known = [
        {s: v for s, v in zip(line.rows["step"].tolist(), line.column("value"), strict=True) if v is not None}
        for line in lines
    ]
    steps = sorted(set.intersection(*(set(one) for one in known)))
    values = [float(np.median([one[step] for one in known])) for step in steps]
    rows = pd.DataFrame({"step": steps, "value": values}).assign(
        lo=np.nan,
        hi=np.nan,
        chance=np.nan,
        n=len(lines),
        valid=True,
        left_out=False,
        reason="",
        layer=pd.NA,
        head=pd.NA,
    )
    return step_line(rows, strip.axis, label=label, style=style)


def _ends(median: Line, group: Any) -> str:
    if median.rows.empty:
        return f"has no step that all of its {counted(len(group), 'seed')} have"
    return f"{number(float(median.rows['value'].iloc[-1]))} (median of {len(group)})"
