"""A head probe over training: when did it become what it is?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.interp.axes import head_label, parse_heads
from byrote.probes.figures.axis import StepAxis, value_axis
from byrote.probes.figures.canvas import Canvas, finish, note, switch_off
from byrote.probes.figures.curve import Curve, add_chance, add_curve, label_ends, label_margin_px
from byrote.probes.figures.rows import (
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
MAX_CONTEXT_HEADS = 256


def trajectory(
    results_list: Any,
    *,
    probe: str | None = None,
    metric: str = "score",
    heads: Any = None,
    aggregate: str = "max head",
    base: Any = None,
    onsets: Mapping[str, Any] | None = None,
    visuals: Mapping[str, bool] | None = None,
) -> go.Figure:
    """One metric over training steps, one line per run or per head, each with its 95% band.

    Args:
        results_list: one `Results` or several; or one `Scores` (`results["prefix_matching"]`) or several.
        probe: a head probe, or a model probe with a scalar metric; a `Scores` says it itself.
        metric: one of its metrics.
        heads: heads to draw, `"L1H0"`, `(1, 0)` or a list of either; None draws one line per run, the head chosen by `aggregate`
            at every step, and for a single run the other heads faintly behind it.
        aggregate: "max head" or "min head". The band is that head's own interval: it does not cover the choice.
        base: the baseline, drawn dashed black (white in dark): a run's name, or its `Results` or `Scores`, which is
            then drawn too.
        onsets: run name to `(lo_step or None, hi_step)`, or an object with such a `.bracket`; shaded.
        visuals: parts to leave out, such as `{"band": False}`; see `canvas.VISUALS`.

    Returns:
        Real steps on a log axis; step 0 stands apart. Chance is dotted; steps that were not measured carry a cross.

    Raises:
        ByroteError: unknown probe, metric, head, aggregate or visual.
    """
    runs, probe, metric, base = _given(results_list, probe, metric, base)
    tables = [head_observations(r, probe=probe, metric=metric) for r in runs]
    axis = StepAxis.over(
        s for r, rows in zip(runs, tables, strict=True) for s in (*rows["step"].unique(), *_gap_steps(r))
    )
    ends = [rows.loc[rows["valid"], ["lo", "hi"]].agg(["min", "max"]) for rows in tables]
    limits = value_range(probe, metric, [v for part in ends for v in part.to_numpy().ravel()])
    y_axis = value_axis(*limits, title=unit(probe, metric) or probe_name(metric))
    wanted = None if heads is None else parse_heads(heads)
    curves = [
        curve
        for r, rows in zip(runs, tables, strict=True)
        for curve in _curves(r, rows, axis=axis, heads=wanted, aggregate=aggregate, runs=runs, base=base)
    ]
    canvas = Canvas(height_px=400, right_px=label_margin_px(c.label for c in curves))
    fig = go.Figure()
    brackets = _brackets(onsets or {}, runs)
    _add_spans(
        fig, brackets, axis=axis, y_range=tuple(y_axis["range"]), styles=run_styles(_names(runs), base=base)
    )
    context = wanted is None and len(runs) == 1 and _per_head(tables)
    if context:
        _add_context(fig, tables[0], axis)
    _add_chance_of(fig, tables, axis)
    for curve in curves:
        add_curve(fig, curve, floor=y_axis["range"][0])
    label_ends(fig, curves, canvas=canvas, y_range=tuple(y_axis["range"]), log_x=True)
    mark = axis.break_mark()
    fig.update_layout(
        xaxis=axis.layout(), yaxis=y_axis, annotations=[*fig.layout.annotations, *([mark] if mark else [])]
    )
    return finish(
        switch_off(fig, visuals),
        canvas,
        title=_title(probe, metric, None if wanted else aggregate if _per_head(tables) else ""),
        subtitle=_reading(tables, context=context),
        alt=_finding(
            runs,
            tables,
            f"{probe_name(probe)} {'' if metric == 'score' else probe_name(metric)}".strip(),
        ),
    )


def _given(
    results_list: Any, probe: str | None, metric: str, base: Any
) -> tuple[list[Any], str, str, str | None]:
    """The runs, what is drawn of them, and the baseline's name."""
    given = as_list(results_list)
    if base is not None and not isinstance(base, str):
        given = [base, *given]
    found = [subject(one, probe, metric) for one in given]
    if len({what[1:] for what in found}) > 1:
        raise ByroteError(
            "one figure draws one metric of one probe, and several were given", help="draw them apart"
        )
    name = base if base is None or isinstance(base, str) else found[0][0].run
    return [results for results, _, _ in found], *found[0][1:], name


def _curves(
    results: Any,
    rows: pd.DataFrame,
    *,
    axis: StepAxis,
    heads: list[tuple[int, int]] | None,
    aggregate: str,
    runs: Sequence[Any],
    base: str | None,
) -> list[Curve]:
    """The lines of one run."""
    style = run_styles(_names(runs), base=base)[results.run]
    name = short(results.run)
    if heads is None:
        chosen = _aggregate(rows, aggregate) if _per_head([rows]) else rows
        last = chosen[chosen["valid"]].tail(1)
        head = "" if last.empty or pd.isna(last["layer"].iloc[0]) else f" {_label(last.iloc[0])}"
        return [_line(results, chosen, axis=axis, label=name + head, style=style)]
    lines = []
    for index, head in enumerate(heads):
        label = head_label(*head) if len(runs) == 1 else f"{name} {head_label(*head)}"
        own = series_style(index) if len(runs) == 1 and base != results.run else style
        marked = Style(own.token, own.dash, SYMBOLS[index % len(SYMBOLS)])
        lines.append(_line(results, one_head(rows, head), axis=axis, label=label, style=marked))
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


def _line(results: Any, rows: pd.DataFrame, *, axis: StepAxis, label: str, style: Style) -> Curve:
    """A curve over steps; steps of the series that could not be read are holes in it."""
    gaps = {int(g["step"]): str(g.get("reason", "")) for g in results.gaps if g.get("step") is not None}
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
    return Curve.of(rows, [axis.place(s) for s in rows["step"]], label=label, at=at, style=style)


def _add_context(fig: go.Figure, rows: pd.DataFrame, axis: StepAxis) -> None:
    """Every head as one faint line each."""
    x: list[Real | None] = []
    y: list[Real | None] = []
    groups = rows.groupby(["layer", "head"], sort=True)
    for _, mine in list(groups)[:MAX_CONTEXT_HEADS]:
        x += [axis.place(s) for s in mine["step"]] + [None]
        y += [None if not ok else float(v) for v, ok in zip(mine["value"], mine["valid"], strict=True)] + [
            None
        ]
    fig.add_scatter(
        x=x[:-1], y=y[:-1], mode="lines", name="every head", line={"width": 1, "color": paint("context")},
        hoverinfo="skip", connectgaps=False,
    )  # fmt: skip


def _add_chance_of(fig: go.Figure, tables: list[pd.DataFrame], axis: StepAxis) -> None:
    """One dotted line: chance is a property of the stimulus, the same for every run on the same tokens."""
    valid = pd.concat([rows[rows["valid"]] for rows in tables])
    chance = valid.groupby("step")["chance"].median()
    add_chance(
        fig, [axis.place(s) for s in chance.index], [None if math.isnan(c) else float(c) for c in chance]
    )


def _brackets(onsets: Mapping[str, Any], runs: Sequence[Any]) -> dict[str, tuple[int | None, int]]:
    found = {}
    for run in _names(runs):
        onset = onsets.get(run)
        bracket = getattr(onset, "bracket", onset)
        if bracket is not None:
            found[run] = tuple(bracket)
    return found


def _add_spans(
    fig: go.Figure,
    brackets: dict[str, tuple[int | None, int]],
    *,
    axis: StepAxis,
    y_range: tuple[Real, Real],
    styles: Mapping[str, Style],
) -> None:
    """Shade each onset between the two measured steps it fell between, and say so."""
    for index, (run, (lo, hi)) in enumerate(brackets.items()):
        left = 10 ** axis.limits()[0] if lo is None else axis.place(lo)
        right = axis.place(hi)
        words = f"by step {step_number(hi)}" if lo is None else f"steps {step_number(lo)}–{step_number(hi)}"
        fig.add_scatter(
            x=[left, left, right, right], y=[y_range[0], y_range[1], y_range[1], y_range[0]], fill="toself",
            fillcolor=tint(styles[run].token, 0.13), mode="lines", line={"width": 0}, name=f"onset of {markup(run)}",
            hoverinfo="text", hovertext=f"onset of {markup(run)}: {words}",
        )  # fmt: skip
        text = f"onset: {words}" if len(brackets) == 1 else f"onset of {markup(short(run))}: {words}"
        fig.add_annotation(
            note(
                text,
                x=math.log10(left),
                y=1,
                xref="x",
                xanchor="right",
                yanchor="top",
                xshift=-6,
                yshift=-18 * index,
            )
        )


def _title(probe: str, metric: str, what: str | None) -> str:
    name = sentence_case(probe_name(probe))
    name = name if metric == "score" else f"{name} ({probe_name(metric)})"
    words = {"max head": ", strongest head at each step", "min head": ", weakest head at each step"}
    return f"{name}{words.get(what or '', '')}"


def _reading(tables: list[pd.DataFrame], *, context: bool) -> str:
    valid = pd.concat([rows[rows["valid"]] for rows in tables])
    if valid.empty:
        return "nothing was measured"
    chance = typical_chance(valid)
    level = "no chance level" if chance is None else f"dotted: chance {chance_number(chance)}"
    grey = " · grey: every head" if context else ""
    return f"band: 95% interval over {counted(valid)} · {level}{grey}"


def _finding(runs: Sequence[Any], tables: list[pd.DataFrame], what: str) -> str:
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


def _per_head(tables: list[pd.DataFrame]) -> bool:
    return any(rows["layer"].notna().any() for rows in tables)


def _label(row: Any) -> str:
    return head_label(int(row["layer"]), int(row["head"]))


def _names(runs: Sequence[Any]) -> list[str]:
    return [r.run for r in runs]


def _gap_steps(results: Any) -> list[int]:
    return [int(g["step"]) for g in results.gaps if g.get("step") is not None]
