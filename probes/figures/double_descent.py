"""Double descent over seeds: each arm's smoothed mean loss over training, with where it dips and where it tops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade.descent_over_seeds import ArmCurve, ArmDescent, arm_curve
from byrote.probes.figures.axis import StepAxis, value_axis
from byrote.probes.figures.canvas import FULL, Figure, Look, Trace, scatter
from byrote.probes.figures.lines import Line, lines_figure
from byrote.probes.figures.select import metric_name, unit
from byrote.probes.figures.theme import Style, paint, run_styles
from byrote.probes.wording import (
    clean,
    counted,
    interval,
    markup,
    number,
    probe_name,
    sentence_case,
    short,
    step_number,
)


def double_descent(
    arms: Any, *, probe: str = "held_out_loss", metric: str = "loss", look: Look = FULL
) -> Figure:
    """Mean loss of every arm over training, smoothed, with the interval over seeds and the extrema with theirs.

    Args:
        arms: a `Group` or several, the baseline first, see `byrote.groups_of`; or name -> its `ArmCurve`.
        probe, metric: a loss with one number per step.
        look: theme and width.

    Returns:
        Training steps on a log axis; the band is the 95% interval over seeds of the smoothed curve, the bars those of the places of
        dip and top. Filled: first fall, rise and second fall significantly exceed the smallest effect. The table has the curves.

    Raises:
        ByroteError: no arm has two seeds with five common steps.
    """
    if not isinstance(arms, Mapping):
        arms = {
            one.name: arm_curve(one, probe, metric) for one in ([arms] if hasattr(arms, "runs") else arms)
        }
    drawn: dict[str, ArmCurve] = {name: one for name, one in arms.items() if not one.reason}
    if not drawn:
        raise ByroteError(
            f"no arm has two seeds with {probe}/{metric} at the same five or more steps",
            help="measure more checkpoints of more seeds",
        )
    axis = StepAxis.over(int(s) for one in drawn.values() for s in one.rows["step"])
    styles = run_styles(list(drawn), base=next(iter(drawn)) if len(drawn) > 1 else None)
    lines = [_line(name, one.rows, axis, styles[name]) for name, one in drawn.items()]
    marks = [trace for name, one in drawn.items() for trace in _extrema(name, one, axis, styles[name])]
    ends = [
        v for line in lines for column in ("lo", "hi", "value") for v in line.column(column) if v is not None
    ]
    room = 0.05 * ((max(ends) - min(ends)) or 1.0)
    what = sentence_case(metric_name(probe, metric, main="loss"))
    text = " ".join(f"{clean(name)}: {descent_words(one.found)}." for name, one in drawn.items())
    return lines_figure(
        lines, x_axis=axis, y_axis=value_axis(min(ends) - room, max(ends) + room, title=f"{probe_name(metric)}, {unit(probe, metric)}"),
        height_px=400, by=(), over=marks, title=f"{markup(what)}: does it fall, rise and fall again?",
        subtitle="smoothed mean over seeds, band: its 95% interval · diamond: dip, triangle: top, bars: 95% intervals of their steps · "
        "filled: sure", alt=text, look=look,
        table=lambda: pd.concat([one.rows.assign(arm=name)[["arm", "step", "value", "lo", "hi", "seeds"]] for name, one in drawn.items()],
                                ignore_index=True),
    )  # fmt: skip


def descent_words(found: ArmDescent | None) -> str:
    """What was found of one arm, in a phrase."""
    if found is None:
        return "no dip and no top"
    rise = interval(found.rise.value, found.rise.lo, found.rise.hi, sign=True)
    places = (
        f"dip at step {step_number(round(found.dip.step))}, top at step {step_number(round(found.top.step))}"
    )
    sure = "double descent" if found.found else "no sure double descent"
    return f"{sure}, {places}, a rise of {rise} nats over {counted(found.seeds, 'seed')}"


def _line(name: str, rows: pd.DataFrame, axis: StepAxis, style: Style) -> Line:
    described = rows.assign(
        valid=True, left_out=False, reason="", chance=np.nan, n=rows["seeds"], layer=pd.NA, head=pd.NA
    )
    at = [f"step {step_number(step)}" for step in rows["step"]]
    line = Line.of(
        described, [axis.place(step) for step in rows["step"]], label=clean(short(name)), at=at, style=style
    )
    return replace(line, points=False)


def _extrema(name: str, curve: ArmCurve, axis: StepAxis, style: Style) -> list[Trace]:
    """Dip and top on the curve, with bars along the steps."""
    found, traces = curve.found, list[Trace]()
    if found is None:
        return traces
    for what, place, symbol in (("dip", found.dip, "diamond"), ("top", found.top, "triangle-up")):
        y = float(curve.rows["value"].iloc[int((curve.rows["step"] - place.step).abs().argmin())])
        x, lo, hi = (axis.place(step) for step in (place.step, place.lo, place.hi))
        bars = {
            "type": "data",
            "symmetric": False,
            "array": [hi - x],
            "arrayminus": [x - lo],
            "color": style.color,
            "thickness": 1.5,
            "width": 3,
        }
        fill = style.color if found.found else paint("paper")
        marker = {"size": 10, "symbol": symbol, "color": fill, "line": {"width": 1.5, "color": style.color}}
        hover = f"{markup(name)}, {what} at step {step_number(round(place.step))} ({number(place.lo)} to {number(place.hi)})"
        traces.append(
            scatter(f"{what} of {markup(name)}", [x], [y], marker=marker, error_x=bars, hover=[hover])
        )
    return traces
