"""A metric over training, every seed of every arm: how far do seeds of one arm lie apart, and arms from each other?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.probes.figures.axis import StepAxis
from byrote.probes.figures.canvas import FULL, Figure, Look, Trace, scatter
from byrote.probes.figures.lines import Line, lines_figure, table_of
from byrote.probes.figures.select import counts_in_words
from byrote.probes.figures.theme import Style, run_styles, tint
from byrote.probes.figures.trajectory import Strip, step_line, strip_of
from byrote.probes.groups import seeds_an_arm
from byrote.probes.wording import (
    clean,
    counted,
    markup,
    number,
    over_seeds,
    probe_name,
    sentence_case,
    short,
    step_number,
)


def seed_curves(
    groups: Any, *, probe: str = "repeat_loss", metric: str = "difference", look: Look = FULL
) -> Figure:
    """One metric over training steps: a thin line per seed, the median of each arm, and a band over its seeds.

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
        raise ByroteError("no group was given", help="br.groups_of([...]) makes groups of results")
    strip = arm_strip(groups, probe, metric, base=groups[0].name if len(groups) > 1 else None)

    def table() -> pd.DataFrame:
        seeds = strip_of([run for one in groups for run in one.runs], probe, metric, context=False).lines
        return table_of([*seeds, *strip.lines], ("step", "run"))

    return lines_figure(
        strip.lines, x_axis=strip.axis, y_axis=strip.y_axis, height_px=400, by=("step", "run"), under=strip.under,
        title=f"{strip.title}, by seed", subtitle=strip.subtitle, look=look,
        alt=strip.alt,
        table=table, counts=lambda: seed_counts(groups, [(probe, metric)]),
    )  # fmt: skip


def seed_counts(groups: Sequence[Any], pairs: Sequence[tuple[str, str]]) -> str:
    """Over how many seeds the lines of arms are, and of how many sequences and against which chance level each seed's numbers."""
    sentences = [medians_of(groups)]
    for pair in pairs:
        rows = pd.concat([run.rows(*pair, valid=True) for one in groups for run in one.runs])
        sentences.append(f"{sentence_case(probe_name(pair[0]))} of each: {counts_in_words(rows)}")
    return " ".join(sentences)


def medians_of(groups: Sequence[Any]) -> str:
    """Over how many seeds the numbers of arms are."""
    return f"Medians and ranges over {seeds_an_arm(groups)}."


def arm_strip(
    groups: Sequence[Any], probe: str, metric: str, *, base: str | None, axis: StepAxis | None = None
) -> Strip:
    """One metric over the steps, a line per arm: the median of its seeds, the seeds thin behind it, and a band over all of them.

    Args:
        groups: at least one; each run holds the metric.
        probe, metric: as for `seed_curves`.
        base: name of the arm drawn dashed.
        axis: where the lines stand; None makes one of their own steps.
    """
    strip = strip_of([run for one in groups for run in one.runs], probe, metric, context=False, axis=axis)
    styles = run_styles([one.name for one in groups], base=base)
    medians, thin, start = list[Line](), list[Trace](), 0
    for one in groups:
        lines = strip.lines[start : start + len(one)]
        start += len(one)
        thin += [_thin(line, styles[one.name]) for line in lines]
        medians.append(_median(lines, strip, one.name, styles[one.name]))
    level = strip.subtitle.rpartition(" · ")[2] if "dotted: chance" in strip.subtitle else ""
    sentences = [
        "thin: one seed each",
        "thick: median of the arm's seeds",
        "band: lowest to highest seed",
        level,
    ]
    ends = "; ".join(f"{clean(g.name)} {_ends(m, g)}" for g, m in zip(groups, medians, strict=True))
    return replace(
        strip,
        lines=medians,
        under=[*thin, *strip.under],
        subtitle=" · ".join(filter(None, sentences)),
        alt=f"{strip.title} by seed, at the last step all have: {ends}.",
    )


def _thin(line: Line, style: Style) -> Trace:
    look = {"color": tint(style.token, 0.55), "width": 1, "dash": style.dash}
    return scatter(f"seed {line.name}", line.x, line.column("value"), line=look, hover=list(line.hover))


def _median(lines: Sequence[Line], strip: Strip, arm: str, style: Style) -> Line:
    """The median over the runs, at steps where all have a number, between the lowest and the highest of them."""
    known = [
        {s: v for s, v in zip(line.rows["step"].tolist(), line.column("value"), strict=True) if v is not None}
        for line in lines
    ]
    steps = sorted(set.intersection(*(set(one) for one in known)))
    values = np.array([[one[step] for one in known] for step in steps]).reshape(len(steps), len(lines))
    several, bare = len(lines) > 1, np.full(len(steps), np.nan)
    rows = pd.DataFrame({"step": steps, "value": np.median(values, axis=1) if steps else []}).assign(
        lo=values.min(axis=1) if several and steps else bare,
        hi=values.max(axis=1) if several and steps else bare,
        chance=np.nan,
        n=len(lines),
        valid=True,
        left_out=False,
        reason="",
        layer=pd.NA,
        head=pd.NA,
    )
    name = f"{short(arm)}, median of {len(lines)}" if several else short(arm)
    line = step_line(rows, strip.axis, label=name, style=style)
    hover = [
        f"{markup(name)}, step {step_number(row.step)}<br>{number(row.value)}"
        + (f"; seeds {number(row.lo)} to {number(row.hi)}" if several else "")
        for row in rows.itertuples(index=False)
    ]
    return replace(line, hover=tuple(hover), band="lowest to highest seed")


def _ends(median: Line, group: Any) -> str:
    if median.rows.empty:
        return f"has no step that all of its {counted(len(group), 'seed')} have"
    middle, lo, hi = median.rows[["value", "lo", "hi"]].iloc[-1]
    return over_seeds(middle, lo, hi, len(group))
