"""A metric over training: when did a head become what it is, and what is copying worth?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.interp.axes import head_label, parse_heads
from byrote.probes.figures.axis import StepAxis, value_axis
from byrote.probes.figures.canvas import FULL, Figure, Look, Trace, note, scatter
from byrote.probes.figures.lines import Line, chance_trace, lines_figure, loss_axis
from byrote.probes.figures.select import (
    as_list,
    gap_reasons,
    head_observations,
    highest,
    interval_words,
    metric_name,
    observations,
    one_head,
    subject,
    typical_chance,
    unit,
    value_range,
)
from byrote.probes.figures.theme import SYMBOLS, Style, paint, run_styles, series_style, tint
from byrote.probes.results.rows import row_label
from byrote.probes.wording import (
    chance_number,
    clean,
    estimate,
    labels_of_runs,
    markup,
    probe_name,
    sentence_case,
    short,
    step_number,
)

AGGREGATES = {"max head": ", strongest head at each step", "min head": ", weakest head at each step"}
BLOCKS = {"first_block": ("first", "triangle-up"), "later_blocks": ("repeats", "circle")}
MAX_CONTEXT_HEADS, MAX_OTHER_HEADS = 256, 64  # behind the strongest head, and behind chosen heads


def trajectory(
    results_list: Any,
    *,
    probe: str | None = None,
    metric: str = "score",
    heads: Any = None,
    aggregate: str = "max head",
    base: Any = None,
    onsets: Mapping[str, Any] | None = None,
    context: bool | None = None,
    step: int | None = None,
    visuals: Mapping[str, bool] | None = None,
    look: Look = FULL,
) -> Figure:
    """One metric over training steps, one line per run or per head, each with its 95% band.

    Args:
        results_list: one `Results` or several; or one `Scores` (`results["prefix_matching"]`) or several.
        probe: a head probe, or a model probe with a scalar metric; a `Scores` says it itself.
        metric: one of its metrics.
        heads: heads to draw, `"L1H0"`, `(1, 0)` or a list of either; None draws one line per run, the head chosen by `aggregate`
            at every step.
        aggregate: "max head" or "min head". The band is that head's own interval: it does not cover the choice.
        base: the baseline, drawn dashed black (white in dark): a run's name, or its `Results` or `Scores`, which is
            then drawn too.
        onsets: run name to `(lo_step or None, hi_step)`, or an object with such a `.bracket`; shaded.
        context: the other heads of the last run faintly behind its lines; None draws them for a single run without
            `heads`.
        step: a step to draw a rule through.
        visuals: parts to leave out, such as `{"band": False}`; see `canvas.VISUALS`.
        look: theme and width.

    Returns:
        float steps on a log axis; step 0 stands apart. Chance is dotted; steps that were not measured carry a cross.

    Raises:
        ByroteError: unknown probe, metric, head, aggregate or visual.
    """
    runs, probe, metric, base = _requested(results_list, probe, metric, base)
    strip = strip_of(runs, probe, metric, heads=heads, aggregate=aggregate, base=base, context=context)
    axis, y_axis = strip.axis, strip.y_axis
    spans, notes = _spans(onsets or {}, runs, axis=axis, y_range=y_axis["range"], base=base)
    return lines_figure(
        strip.lines, x_axis=axis, y_axis=y_axis, height_px=400, by=("step", "line" if heads else "run"),
        under=[*spans, *strip.under], over=rule(axis, step, y_axis["range"], hoverinfo="name"), notes=notes, visuals=visuals,
        title=strip.title, subtitle=strip.subtitle, alt=strip.alt, look=look,
    )  # fmt: skip


def loss_curves(results_list: Any, *, base: str | None = None, look: Look = FULL) -> Figure:
    """`repeat_loss` on the first block and on later blocks, per run, over training: what copying in context is worth.

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
        for metric in BLOCKS
    }
    axis = StepAxis.over(s for rows in tables.values() for s in rows["step"])
    lines, ends = [], {run.run: list[str]() for run in runs}
    labels = labels_of_runs(run.run for run in runs)
    for (run, metric), rows in tables.items():
        word, symbol = BLOCKS[metric]
        style = replace(styles[run], symbol=symbol)
        line = step_line(rows, axis, label=f"{labels[run]}: {word}", style=style)
        lines.append(replace(line, name=f"{short(run)}: {word}"))
        valid = rows[rows["valid"]]
        ends[run].append(f"{word} not measured" if valid.empty else estimate(valid.iloc[-1], word))
    found = ". ".join(f"{clean(run)}: {'; '.join(words)}" for run, words in ends.items())
    chance = next((c for rows in tables.values() if (c := typical_chance(rows)) is not None), None)
    level = "" if chance is None else f" · dotted: chance {chance_number(chance)}"
    return lines_figure(
        lines, x_axis=axis, y_axis=loss_axis(lines, [chance], title="loss, nats"), height_px=380, by=("step", "run"),
        under=chance_trace([10**end for end in axis.limits()], [chance] * 2), title="Loss on random tokens and on their repeats",
        subtitle=f"band: 95% interval over sequences{level}", look=look,
        alt=f"Final loss in nats on the first block and on repeats. {found}.",
    )  # fmt: skip


@dataclass(frozen=True)
class Strip:
    """One metric over the steps: all of a figure but the panel it stands in.

    Attributes:
        axis: the steps.
        lines: what is drawn.
        y_axis: layout of the value axis.
        under: traces behind the lines: faint heads and the chance level.
        title, subtitle, alt: words of the figure.
    """

    axis: StepAxis
    lines: list[Line]
    y_axis: dict[str, Any]
    under: list[Trace]
    title: str
    subtitle: str
    alt: str


def strip_of(
    runs: Sequence[Any],
    probe: str,
    metric: str,
    *,
    heads: Any = None,
    aggregate: str = "max head",
    base: str | None = None,
    context: bool | None = None,
    axis: StepAxis | None = None,
) -> Strip:
    """The lines of one metric, see `trajectory`.

    Args:
        runs: results that hold the metric.
        axis: where the lines stand; None makes one of their own steps.

    Raises:
        ByroteError: as `trajectory`.
    """
    tables = [head_observations(results, probe=probe, metric=metric) for results in runs]
    axis = axis or StepAxis.over(
        s for r, rows in zip(runs, tables, strict=True) for s in (*rows["step"].unique(), *gap_reasons(r))
    )
    ends = [rows.loc[rows["valid"], ["value", "lo", "hi"]].agg(["min", "max"]) for rows in tables]
    limits = value_range(probe, metric, [v for part in ends for v in part.to_numpy().ravel()])
    wanted = None if heads is None else parse_heads(heads)
    per_head = any(rows["layer"].notna().any() for rows in tables)
    context = per_head and ((wanted is None and len(runs) == 1) if context is None else context)
    valid = pd.concat([rows.loc[rows["valid"], ["step", "lo", "chance", "n", "valid"]] for rows in tables])
    levels = _chance_levels(valid)
    chance = chance_trace(
        [axis.place(s) for s in levels.index], [None if math.isnan(c) else float(c) for c in levels]
    )
    grey = "other heads" if wanted else "every head"
    faint = _context(runs[-1], probe, metric, axis=axis, without=wanted or (), name=grey) if context else []
    which = AGGREGATES.get(aggregate, "") if per_head and not wanted else ""
    return Strip(
        axis=axis,
        lines=_lines(runs, tables, axis=axis, heads=wanted, aggregate=aggregate, base=base),
        y_axis=value_axis(*limits, title=unit(probe, metric) or probe_name(metric)),
        under=[*faint, *chance],
        title=sentence_case(metric_name(probe, metric)) + which,
        subtitle=_reading(valid, grey=f" · grey: {grey}" if context else ""),
        alt=_finding(
            runs, tables, f"{probe_name(probe)} {'' if metric == 'score' else probe_name(metric)}".strip()
        ),
    )


def _chance_levels(measured: pd.DataFrame) -> pd.Series:
    """The median chance level by step; it is the same for every run on the same tokens."""
    chance = measured["chance"].to_numpy()
    if len(chance) and (chance == chance[0]).all():  # mostly so, and medians of large runs take a while
        return pd.Series(chance[0], index=np.unique(measured["step"]))
    return measured.groupby("step")["chance"].median()


def rule(axis: StepAxis, step: int | None, y_range: Sequence[float], **options: Any) -> list[Trace]:
    """A vertical line at the step looked at, where it is on the axis."""
    if step is None or step not in axis.steps:
        return []
    line = {"color": paint("muted"), "width": 1.5}
    return [scatter(f"step {step_number(step)}", [axis.place(step)] * 2, y_range, line=line, **options)]


def _requested(
    results_list: Any, probe: str | None, metric: str, base: Any
) -> tuple[list[Any], str, str, str | None]:
    """The runs, what is drawn of them, and the baseline's name."""
    runs = as_list(results_list)
    if base is not None and not isinstance(base, str):
        runs = [base, *runs]
    if not runs:
        raise ByroteError("no run was given", help='give results["prefix_matching"], or a list of such')
    found = [subject(one, probe, metric) for one in runs]
    if len({what[1:] for what in found}) > 1:
        raise ByroteError(
            "one figure draws one metric of one probe, and several were given", help="draw them separately"
        )
    name = base if base is None or isinstance(base, str) else found[0][0].run
    return [results for results, _, _ in found], *found[0][1:], name


def _lines(
    runs: Sequence[Any],
    tables: Sequence[pd.DataFrame],
    *,
    axis: StepAxis,
    heads: list[tuple[int, int]] | None,
    aggregate: str,
    base: str | None,
) -> list[Line]:
    """One line per run, or one per run and head."""
    styles, found = run_styles([r.run for r in runs], base=base), list[Line]()
    labels = labels_of_runs(r.run for r in runs)
    for results, rows in zip(runs, tables, strict=True):
        name, style, gaps = short(results.run), styles[results.run], gap_reasons(results)
        if heads is None:
            chosen = _aggregate(rows, aggregate) if rows["layer"].notna().any() else rows
            last = next(chosen[chosen["valid"]].tail(1).itertuples(index=False), None)
            label = f"{labels[results.run]} {row_label(last)}" if last is not None else labels[results.run]
            line = step_line(chosen, axis, label=label.strip(), style=style, gaps=gaps)
            found.append(replace(line, name=name))
            continue
        for index, head in enumerate(heads):
            of_run = "" if len(runs) == 1 else f"{labels[results.run]} "
            own = series_style(index) if len(runs) == 1 and base != results.run else style
            own = replace(own, symbol=SYMBOLS[index % len(SYMBOLS)])
            label = f"{of_run}{head_label(*head)}"
            line = step_line(one_head(rows, head), axis, label=label, style=own, gaps=gaps)
            found.append(replace(line, name=f"{name} {head_label(*head)}" if of_run else label))
    return found


def _aggregate(rows: pd.DataFrame, aggregate: str) -> pd.DataFrame:
    """One row per step: the strongest (or weakest) measured head, or any row where none was measured."""
    if aggregate not in AGGREGATES:
        raise ByroteError(f"cannot draw the {aggregate!r}", help=did_you_mean(aggregate, AGGREGATES))
    score = rows["value"].where(rows["valid"] | rows["left_out"])
    ranked = rows.assign(_score=score if aggregate == "max head" else -score)
    ranked = ranked.sort_values(
        ["step", "_score"], ascending=[True, False], kind="stable", na_position="last"
    )
    return ranked.drop_duplicates("step").drop(columns="_score")


def step_line(
    rows: pd.DataFrame, axis: StepAxis, *, label: str, style: Style, gaps: Mapping[int, str] | None = None
) -> Line:
    """A line over steps; steps of the series that could not be read are holes in it.

    Args:
        rows: observations in step order.
        axis: where they stand.
        label: the line's name.
        style: colour and dash.
        gaps: steps that could not be read, and why.
    """
    missing = {step: why for step, why in (gaps or {}).items() if step not in set(rows["step"])}
    if missing:
        holes = {"step": list(missing), "valid": False, "left_out": False, "reason": list(missing.values())}
        flags = {"valid": object, "left_out": object}
        rows = pd.concat([rows.astype(flags), pd.DataFrame(holes).astype(flags)]).sort_values("step")
        rows = rows.astype(dict.fromkeys(flags, bool))
    heads = (row_label(row) for row in rows[["layer", "head"]].itertuples(index=False))
    at = [
        f"step {step_number(s)}{f', {head}' if head else ''}"
        for s, head in zip(rows["step"], heads, strict=True)
    ]
    return Line.of(rows, [axis.place(s) for s in rows["step"]], label=label, at=at, style=style)


def _context(
    results: Any, probe: str, metric: str, *, axis: StepAxis, without: Sequence[tuple[int, int]], name: str
) -> list[Trace]:
    """The heads that reach highest, but for those drawn as lines, as one faint trace."""
    cube = results.cube(probe, metric)
    peaks = np.where(cube.valid, cube.value, -np.inf).max(axis=0)
    order = [divmod(i, peaks.shape[1]) for i in np.argsort(-peaks, axis=None, kind="stable").tolist()]
    most = MAX_OTHER_HEADS if without else MAX_CONTEXT_HEADS
    at = np.flatnonzero(cube.measured.any(axis=(1, 2)))
    places = [axis.place(cube.steps[i]) for i in at]
    x: list[float | None] = []
    y: list[float | None] = []
    for head in [head for head in order if head not in set(without) and np.isfinite(peaks[head])][:most]:
        values = zip(cube.value[at, *head].tolist(), cube.valid[at, *head], strict=True)
        x += [*places, None]
        y += [*(value if valid else None for value, valid in values), None]
    line = {"width": 1, "color": paint("context")}
    return [scatter(name, x[:-1], y[:-1], line=line, connectgaps=False)] if x else []


def _spans(
    onsets: Mapping[str, Any],
    runs: Sequence[Any],
    *,
    axis: StepAxis,
    y_range: Sequence[float],
    base: str | None,
) -> tuple[list[Trace], list[dict[str, object]]]:
    """Each onset shaded between the two measured steps it fell between, and its words."""
    styles = run_styles([r.run for r in runs], base=base)
    brackets = {
        run: getattr(onsets.get(run), "bracket", onsets.get(run))
        for run in (r.run for r in runs)
        if run in onsets
    }
    found = {run: tuple(bracket) for run, bracket in brackets.items() if bracket is not None}
    traces: list[Trace] = []
    notes: list[dict[str, Any]] = []
    for index, (run, (lo, hi)) in enumerate(found.items()):
        left, right = 10 ** axis.limits()[0] if lo is None else axis.place(lo), axis.place(hi)
        words = f"by step {step_number(hi)}" if lo is None else f"steps {step_number(lo)}–{step_number(hi)}"
        name, (bottom, top) = f"onset of {markup(run)}", y_range
        fill: dict[str, Any] = {"fill": "toself", "fillcolor": tint(styles[run].token, 0.13)}
        x, y = [left, left, right, right], [bottom, top, top, bottom]
        traces.append(scatter(name, x, y, line={"width": 0}, hover=f"{name}: {words}", **fill))
        text = f"onset: {words}" if len(found) == 1 else f"onset of {markup(short(run))}: {words}"
        shift: dict[str, Any] = {"xshift": -6, "yshift": -18 * index}
        notes.append(note(text, x=math.log10(left), y=1, xref="x", xanchor="right", yanchor="top", **shift))
    return traces, notes


def _reading(valid: pd.DataFrame, *, grey: str) -> str:
    """Interval, n and chance of the measured rows as one line."""
    if valid.empty:
        return "nothing was measured"
    chance = typical_chance(valid)
    level = "no chance level" if chance is None else f"dotted: chance {chance_number(chance)}"
    return f"{interval_words(valid, 'band: 95% interval')} · {level}{grey}"


def _finding(runs: Sequence[Any], tables: Sequence[pd.DataFrame], what: str) -> str:
    """Where each run ends, in words."""
    parts = []
    for results, rows in zip(runs, tables, strict=True):
        steps = rows.loc[rows["valid"], "step"]
        if steps.empty:
            parts.append(f"{clean(results.run)}: not measured at any step")
            continue
        best = highest(rows[rows["step"] == steps.max()])
        parts.append(
            f"{clean(results.run)}: {estimate(best, row_label(best))} at step {step_number(best.step)}"
        )
    return f"Highest {what} at the end of training. {'; '.join(parts)}."
