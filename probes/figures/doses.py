"""Degradation: damage over the dose with its band, and the size of a healthy model that is as good."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade.dose_response import DoseResponse, log_doses
from byrote.probes.degrade.effective_size import EffectiveSize
from byrote.probes.figures.axis import log_axis, value_axis
from byrote.probes.figures.canvas import FULL, Figure, Look, Trace, scatter
from byrote.probes.figures.forest import ForestRow, Mark, Panel, forest
from byrote.probes.figures.lines import Line, lines_figure
from byrote.probes.figures.theme import Style, paint, run_styles, series_style
from byrote.probes.findings_degrade import (
    DOSE_WORDS,
    SIZE_WORDS,
    arms_sentence,
    dose_sentence,
    ladder_words,
    measured_words,
)
from byrote.probes.wording import clean, interval, markup, number, sentence_case


def dose_response(doses: Any, *, metric: str = "", look: Look = FULL) -> Figure:
    """Damage against the dose, a line per size, every seed a point.

    Args:
        doses: a `DoseResponse`, or several by size; see `byrote.degrade.dose_response`.
        metric: name of what is damaged, for the title.
        look: theme and width.

    Returns:
        The dose on a log axis, damage against the baseline in the metric's unit on y, 95% intervals over seeds as bands; half of the
        largest damage is dotted. The table is the doses' own, with size.

    Raises:
        ByroteError: no dose-response.
    """
    by_size: Mapping[float, DoseResponse] = (
        {math.nan: doses} if isinstance(doses, DoseResponse) else dict(doses)
    )
    if not by_size:
        raise ByroteError("no dose-response was given", help="br.degrade.dose_response(rows, over) makes one")
    first = next(iter(by_size.values()))
    all_doses = sorted({float(d) for one in by_size.values() for d in one.rows["dose"]})
    places = dict(zip(all_doses, np.exp(log_doses(all_doses)).tolist(), strict=True))
    lines, seeds = list[Line](), list[Trace]()
    for i, (size, one) in enumerate(by_size.items()):
        style = series_style(i)
        rows = one.rows.assign(
            valid=True, reason="", chance=np.nan, n=one.rows["seeds"], layer=pd.NA, head=pd.NA
        )
        rows = rows.assign(value=rows["damage"], position=range(len(rows)))
        label = "damage" if math.isnan(size) else f"N = {size:,.0f}"
        x = [places[float(d)] for d in rows["dose"]]
        at = [f"{DOSE_WORDS[one.over]} {d:g}" for d in rows["dose"]]
        lines.append(Line.of(rows, x, label=label, at=at, style=style))
        points = [(place, v - m + d) for place, vs, m, d in zip(x, one.rows["values"], one.rows["value"], rows["damage"], strict=True)
                  for v in vs]  # fmt: skip
        marker = {"size": 4, "color": style.color, "symbol": style.symbol, "opacity": 0.5}
        seeds.append(
            scatter(f"seeds of {label}", [p[0] for p in points], [p[1] for p in points], marker=marker)
        )
    half = [
        {"x": [places[all_doses[0]], places[all_doses[-1]]], "y": [one.rows["damage"].max() / 2] * 2}
        for one in by_size.values()
    ]
    dotted = {"color": paint("muted"), "width": 1, "dash": "dot"}
    under = [scatter("half of the largest", part["x"], part["y"], line=dotted) for part in half]
    ends = [v for line in lines for name in ("lo", "hi", "value") for v in line.column(name) if v is not None]
    ends += [y for trace in seeds for y in trace["y"]]
    room = 0.05 * ((max(ends) - min(ends)) or 1.0)
    what = clean(measured_words(metric)) or "damage"
    text = " ".join(
        dose_sentence(one, size, several=len(by_size) > 1, metric=what) for size, one in by_size.items()
    )
    return lines_figure(
        lines, x_axis=log_axis([places[d] for d in all_doses], [f"{d:g}" for d in all_doses], title=DOSE_WORDS[first.over]),
        y_axis=value_axis(min(0.0, min(ends) - room), max(ends) + room, title=f"damage, {first.unit}"), height_px=400,
        by=(), under=[*under, *seeds], title=f"{markup(sentence_case(what))} against {markup(DOSE_WORDS[first.over])}",
        subtitle="mean over seeds less the baseline · band: 95% interval over seeds · dotted: half of the largest", look=look,
        alt=text, table=lambda: dose_table(by_size),
    )  # fmt: skip


def damage_of_arms(
    damage: pd.DataFrame | Mapping[float, pd.DataFrame],
    *,
    baseline: str,
    metric: str = "held_out_loss/loss",
    unit: str = "nats",
    look: Look = FULL,
) -> Figure:
    """Damage of arms that are no doses of one another, an arm a row.

    Args:
        damage: rows of `br.degrade.damage_by_arm`; of models of several sizes, size -> rows.
        baseline: name of the undamaged arm.
        metric: PROBE/METRIC that is damaged.
        unit: of the damage.
        look: theme and width.

    Returns:
        A panel per size, right of 0 where an arm is worse than the baseline; the table has all rows.
    """
    by_size = {math.nan: damage} if isinstance(damage, pd.DataFrame) else damage
    panels = []
    for size, rows in by_size.items():
        head = "" if math.isnan(size) or len(by_size) == 1 else f"N = {size:,.0f}"
        forest_rows = tuple(_arm_row(row, unit) for row in rows.to_dict("records"))
        panels.append(Panel(forest_rows, f"damage, {unit}", head=head))
    what = markup(sentence_case(measured_words(metric)))
    text = " ".join(
        arms_sentence(rows, metric=metric, baseline=baseline, unit=unit) for rows in by_size.values()
    )
    parts = [rows.drop(columns="values").assign(size=size) for size, rows in by_size.items()]
    return forest(
        panels, title=f"{what}, arm by arm",
        subtitle=f"mean over seeds less that of {markup(baseline)}, right: worse · bars: 95% intervals over seeds",
        alt=clean(text, limit=2000), look=look, table=lambda: pd.concat(parts, ignore_index=True),
    )  # fmt: skip


def _arm_row(row: dict[str, Any], unit: str) -> ForestRow:
    sure = row["lo"] > 0 or row["hi"] < 0
    words = interval(row["damage"], row["lo"], row["hi"], sign=True)
    hover = f"{markup(row['arm'])}: {words} {unit}, {row['seeds']} seeds"
    name, tone = ("sure", "ink") if sure else ("not sure", "muted")
    mark = Mark(name, row["damage"], row["lo"], row["hi"], paint(tone), hover, filled=sure)
    return ForestRow(clean(row["arm"], limit=40), (mark,), words, tone)


def dose_table(doses: Mapping[float, DoseResponse]) -> pd.DataFrame:
    """The numbers of a dose-response figure: size, dose, seeds, value, damage with its interval, p.

    Args:
        doses: by size.
    """
    parts = [one.rows.drop(columns="values").assign(size=size) for size, one in doses.items()]
    columns = ["size", "dose", "seeds", "value", "damage", "lo", "hi", "p"]
    table = pd.concat(parts, ignore_index=True)[columns]
    return table.drop(columns="size") if table["size"].isna().all() else table


def effective_sizes(found: EffectiveSize, *, metric: str = "", look: Look = FULL) -> Figure:
    """The baseline's ladder, and every arm at its own size: how far left of it on the ladder has an arm's value?

    Args:
        found: see `byrote.degrade.effective_size`.
        metric: name of what was measured, for the axis.
        look: theme and width.

    Returns:
        Size on a log axis, the metric on y; the ladder dashed. The table has the multipliers with their intervals.
    """
    ladder, sized = found.ladder, found.rows[found.rows["size"].notna()]
    arms = list(dict.fromkeys(sized["arm"]))
    styles = run_styles(["baseline", *arms], base="baseline")
    lines = [size_line("baseline", ladder.sizes.tolist(), ladder.values.tolist(), styles["baseline"])]
    for arm in arms:
        mine = sized[sized["arm"] == arm]
        lines.append(size_line(arm, mine["size"].tolist(), mine["value"].tolist(), styles[arm]))
    values = [v for line in lines for v in line.column("value") if v is not None]
    room = 0.08 * ((max(values) - min(values)) or 1.0)
    over = found.rows[found.rows["size"].isna()]
    text = "; ".join(
        f"{clean(row.arm)} is as good as {interval(row.multiplier, row.lo, row.hi)} times its size"
        for row in over.itertuples()
    )
    sizes = sorted({*ladder.sizes.tolist(), *sized["size"].tolist()})
    return lines_figure(
        lines, x_axis=log_axis(sizes, [number(s) for s in sizes], title=SIZE_WORDS[ladder.counted_by]),
        y_axis=value_axis(min(values) - room, max(values) + room, title=clean(measured_words(metric)) or "measured value"), height_px=400, by=(),
        title="Effective size", subtitle=markup(ladder_words(ladder)), look=look, alt=f"{text}.",
        table=lambda: found.rows.copy(),
    )  # fmt: skip


def size_line(
    name: str, sizes: Sequence[float], values: Sequence[float], style: Style, **more: Sequence[float]
) -> Line:
    """A line over sizes of models.

    Args:
        name: its label.
        sizes: parameters, ascending.
        values: at each.
        style: colour and dash.
        **more: lo, hi and n of each, where they are known.
    """
    rows = pd.DataFrame({"value": values, "position": range(len(values))}).assign(
        **{"lo": np.nan, "hi": np.nan, "n": 1, **more},
        chance=np.nan,
        valid=True,
        reason="",
        layer=pd.NA,
        head=pd.NA,
    )
    return Line.of(rows, sizes, label=clean(name), at=[f"N = {s:,.0f}" for s in sizes], style=style)
