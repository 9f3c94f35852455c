"""A head probe over training: when did it become what it is?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.interp.axes import head_label, parse_heads
from byrote.probes.figures.axis import StepAxis, value_axis
from byrote.probes.figures.canvas import FULL, Figure, Look, note
from byrote.probes.figures.lines import Line, Trace, chance_trace, lines_figure
from byrote.probes.figures.select import (
    as_list,
    counted,
    head_observations,
    one_head,
    subject,
    typical_chance,
    unit,
    value_range,
)
from byrote.probes.figures.theme import SYMBOLS, Style, paint, run_styles, series_style, tint
from byrote.probes.wording import (
    chance_number,
    clean,
    estimate,
    markup,
    probe_name,
    sentence_case,
    short,
    step_number,
)

AGGREGATES = ("max head", "min head")
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
        strip.lines, x_axis=axis, y_axis=y_axis, height_px=400, by=("step", "line" if heads else "run"), names=strip.names,
        under=[*spans, *strip.under(axis)], over=rule(axis, step, y_axis["range"]), notes=notes, visuals=visuals,
        title=strip.title, subtitle=strip.subtitle, alt=strip.alt, look=look,
    )  # fmt: skip


@dataclass(frozen=True)
class Strip:
    """One metric over the steps, before it stands on an axis.

    Attributes:
        axis: the steps of these runs alone.
        lines: on that axis.
        names: what a table calls each line.
        y_axis: layout of the value axis.
        chance: (step, chance level or None).
        context: one list of (step, value or None) per head behind the lines.
        title, subtitle, alt: words of the figure.
    """

    axis: StepAxis
    lines: list[Line]
    names: list[str]
    y_axis: dict[str, Any]
    chance: list[tuple[int, float | None]]
    context: list[list[tuple[int, float | None]]]
    context_name: str
    title: str
    subtitle: str
    alt: str

    def under(self, axis: StepAxis, **axes: str) -> list[Trace]:
        """Traces behind the lines: faint heads and the chance level."""
        traces: list[Trace] = []
        if self.context:
            x = [axis.place(s) if s is not None else None for s in _broken(self.context, 0)]
            line = {"width": 1, "color": paint("context")}
            traces.append(
                {
                    "type": "scatter", "name": self.context_name, "x": x, "y": _broken(self.context, 1),
                    "mode": "lines", "line": line, "hoverinfo": "skip", "connectgaps": False, **axes,
                }
            )  # fmt: skip
        chance = chance_trace([axis.place(s) for s, _ in self.chance], [c for _, c in self.chance], **axes)
        return [*traces, *chance]


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
    steps = [step for rows in tables for step in rows["step"]] + [s for r in runs for s in _gaps(r)]
    axis = axis or StepAxis.over(steps)
    ends = [rows.loc[rows["valid"], ["lo", "hi"]].agg(["min", "max"]) for rows in tables]
    limits = value_range(probe, metric, [v for part in ends for v in part.to_numpy().ravel()])
    wanted = None if heads is None else parse_heads(heads)
    drawn = [
        line
        for results, rows in zip(runs, tables, strict=True)
        for line in _lines(results, rows, axis=axis, heads=wanted, aggregate=aggregate, runs=runs, base=base)
    ]
    per_head = _per_head(tables)
    if context is None:
        context = wanted is None and len(runs) == 1
    name = probe_name(probe)
    return Strip(
        axis=axis,
        lines=[line for line, _ in drawn],
        names=[label for _, label in drawn],
        y_axis=value_axis(*limits, title=unit(probe, metric) or probe_name(metric)),
        chance=_chance(tables),
        context=_context(runs[-1], probe, metric, without=wanted or ()) if context and per_head else [],
        context_name="other heads" if wanted else "every head",
        title=_title(probe, metric, "" if wanted or not per_head else aggregate),
        subtitle=_reading(tables, context=context and per_head, wanted=wanted is not None),
        alt=_finding(runs, tables, f"{name} {'' if metric == 'score' else probe_name(metric)}".strip()),
    )


def rule(axis: StepAxis, step: int | None, y_range: Sequence[float], **options: str) -> list[Trace]:
    """A vertical line at the step looked at, where it is on the axis."""
    if step is None or step not in axis.steps:
        return []
    return [
        {
            "type": "scatter", "name": f"step {step_number(step)}", "x": [axis.place(step)] * 2, "y": list(y_range),
            "mode": "lines", "line": {"color": paint("muted"), "width": 1.5}, "hoverinfo": "name", **options,
        }
    ]  # fmt: skip


def _requested(
    results_list: Any, probe: str | None, metric: str, base: Any
) -> tuple[list[Any], str, str, str | None]:
    """The runs, what is drawn of them, and the baseline's name."""
    runs = as_list(results_list)
    if base is not None and not isinstance(base, str):
        runs = [base, *runs]
    found = [subject(one, probe, metric) for one in runs]
    if len({what[1:] for what in found}) > 1:
        raise ByroteError(
            "one figure draws one metric of one probe, and several were given", help="draw them apart"
        )
    name = base if base is None or isinstance(base, str) else found[0][0].run
    return [results for results, _, _ in found], *found[0][1:], name


def _lines(
    results: Any,
    rows: pd.DataFrame,
    *,
    axis: StepAxis,
    heads: list[tuple[int, int]] | None,
    aggregate: str,
    runs: Sequence[Any],
    base: str | None,
) -> list[tuple[Line, str]]:
    """The lines of one run, and what a table calls them."""
    style = run_styles([r.run for r in runs], base=base)[results.run]
    name = short(results.run)
    if heads is None:
        chosen = _aggregate(rows, aggregate) if _per_head([rows]) else rows
        last = chosen[chosen["valid"]].tail(1)
        which = "" if last.empty or pd.isna(last["layer"].iloc[0]) else f" {_label(last.iloc[0])}"
        return [(_line(results, chosen, axis=axis, label=name + which, style=style), name)]
    lines = []
    for index, head in enumerate(heads):
        label = head_label(*head) if len(runs) == 1 else f"{name} {head_label(*head)}"
        own = series_style(index) if len(runs) == 1 and base != results.run else style
        marked = Style(own.token, own.dash, SYMBOLS[index % len(SYMBOLS)])
        lines.append((_line(results, one_head(rows, head), axis=axis, label=label, style=marked), label))
    return lines


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


def _line(results: Any, rows: pd.DataFrame, *, axis: StepAxis, label: str, style: Style) -> Line:
    """A line over steps; steps of the series that could not be read are holes in it."""
    gaps = _gaps(results)
    missing = [step for step in gaps if step not in set(rows["step"])]
    if missing:
        holes = pd.DataFrame(
            {"step": missing, "valid": False, "left_out": False, "reason": [gaps[s] for s in missing]}
        )
        flags = {"valid": object, "left_out": object}
        rows = pd.concat([rows.astype(flags), holes.astype(flags)]).sort_values("step")
        rows = rows.astype(dict.fromkeys(flags, bool))
    at = [f"step {step_number(s)}{'' if pd.isna(layer) else ', ' + head_label(int(layer), int(head))}"
          for s, layer, head in rows[["step", "layer", "head"]].itertuples(index=False)]  # fmt: skip
    return Line.of(rows, [axis.place(s) for s in rows["step"]], label=label, at=at, style=style)


def _context(
    results: Any, probe: str, metric: str, *, without: Sequence[tuple[int, int]]
) -> list[list[tuple[int, float | None]]]:
    """The heads that reach highest, but for those drawn as lines: (step, value) each."""
    cube = results.cube(probe, metric)
    peaks = np.where(cube.valid, cube.value, -np.inf).max(axis=0)
    order = [divmod(i, peaks.shape[1]) for i in np.argsort(-peaks, axis=None, kind="stable").tolist()]
    most = MAX_OTHER_HEADS if without else MAX_CONTEXT_HEADS
    chosen = [head for head in order if head not in set(without) and np.isfinite(peaks[head])][:most]
    at = np.flatnonzero(cube.measured.any(axis=(1, 2)))
    steps = [cube.steps[i] for i in at]
    return [
        [
            (step, value if ok else None)
            for step, value, ok in zip(
                steps, cube.value[at, *head].tolist(), cube.valid[at, *head], strict=True
            )
        ]
        for head in chosen
    ]


def _broken(parts: Sequence[Sequence[tuple[Any, Any]]], which: int) -> list[Any]:
    """One coordinate of several lines as a single list, None between the lines."""
    joined = [value for part in parts for value in (*(point[which] for point in part), None)]
    return joined[:-1]


def _chance(tables: Sequence[pd.DataFrame]) -> list[tuple[int, float | None]]:
    """One level per step: chance is a property of the stimulus, the same for every run on the same tokens."""
    valid = pd.concat([rows[rows["valid"]] for rows in tables])
    levels = valid.groupby("step")["chance"].median()
    return [(int(step), None if math.isnan(level) else float(level)) for step, level in levels.items()]


def _spans(
    onsets: Mapping[str, Any],
    runs: Sequence[Any],
    *,
    axis: StepAxis,
    y_range: Sequence[float],
    base: str | None,
) -> tuple[list[Trace], list[dict[str, object]]]:
    """Each onset shaded between the two measured steps it fell between, and its words."""
    names = [r.run for r in runs]
    styles = run_styles(names, base=base)
    brackets = {run: getattr(onsets.get(run), "bracket", onsets.get(run)) for run in names}
    found = {run: tuple(bracket) for run, bracket in brackets.items() if bracket is not None}
    traces: list[Trace] = []
    notes: list[dict[str, object]] = []
    for index, (run, (lo, hi)) in enumerate(found.items()):
        left = 10 ** axis.limits()[0] if lo is None else axis.place(lo)
        right = axis.place(hi)
        words = f"by step {step_number(hi)}" if lo is None else f"steps {step_number(lo)}–{step_number(hi)}"
        traces.append(
            {
                "type": "scatter", "name": f"onset of {markup(run)}", "mode": "lines", "line": {"width": 0},
                "x": [left, left, right, right], "y": [y_range[0], y_range[1], y_range[1], y_range[0]],
                "fill": "toself", "fillcolor": tint(styles[run].token, 0.13),
                "hoverinfo": "text", "hovertext": f"onset of {markup(run)}: {words}",
            }
        )  # fmt: skip
        text = f"onset: {words}" if len(found) == 1 else f"onset of {markup(short(run))}: {words}"
        place = {"xref": "x", "xanchor": "right", "yanchor": "top", "xshift": -6, "yshift": -18 * index}
        notes.append(note(text, x=math.log10(left), y=1, **place))
    return traces, notes


def _title(probe: str, metric: str, what: str) -> str:
    name = sentence_case(probe_name(probe))
    name = name if metric == "score" else f"{name} ({probe_name(metric)})"
    words = {"max head": ", strongest head at each step", "min head": ", weakest head at each step"}
    return f"{name}{words.get(what, '')}"


def _reading(tables: Sequence[pd.DataFrame], *, context: bool, wanted: bool) -> str:
    valid = pd.concat([rows[rows["valid"]] for rows in tables])
    if valid.empty:
        return "nothing was measured"
    chance = typical_chance(valid)
    level = "no chance level" if chance is None else f"dotted: chance {chance_number(chance)}"
    grey = f" · grey: {'other heads' if wanted else 'every head'}" if context else ""
    return f"band: 95% interval over {counted(valid)} · {level}{grey}"


def _finding(runs: Sequence[Any], tables: Sequence[pd.DataFrame], what: str) -> str:
    """Where each run ends, in words."""
    parts = []
    for results, rows in zip(runs, tables, strict=True):
        valid = rows[rows["valid"]]
        if valid.empty:
            parts.append(f"{clean(results.run)}: not measured at any step")
            continue
        last = valid[valid["step"] == valid["step"].max()]
        best = last.loc[last["value"].idxmax()]
        label = "" if pd.isna(best.layer) else _label(best)
        parts.append(f"{clean(results.run)}: {estimate(best, label)} at step {step_number(best.step)}")
    return f"Highest {what} at the end of training. {'; '.join(parts)}."


def _per_head(tables: Sequence[pd.DataFrame]) -> bool:
    return any(rows["layer"].notna().any() for rows in tables)


def _label(row: Any) -> str:
    return head_label(int(row["layer"]), int(row["head"]))


def _gaps(results: Any) -> dict[int, str]:
    """Steps that could not be read, and why."""
    return {int(g["step"]): str(g.get("reason", "")) for g in results.gaps if g.get("step") is not None}
