"""Run against run: paired differences with their intervals as a forest plot and as a grid, and heads as points."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.comparable import BEST_HEAD, metric_words
from byrote.probes.figures.axis import value_axis
from byrote.probes.figures.canvas import (
    FULL,
    Canvas,
    Figure,
    Look,
    empty,
    finish,
    note,
    scatter,
)
from byrote.probes.figures.cells import cell_writer, cells_of, grid_figure, names
from byrote.probes.figures.forest import ForestRow, Mark, Panel, forest
from byrote.probes.figures.select import main_metric, unit, value_range
from byrote.probes.figures.theme import paint
from byrote.probes.registry import REGISTRY
from byrote.probes.results.rows import row_label
from byrote.probes.rules import NOT_TESTED, UNCLEAR, change
from byrote.probes.wording import (
    clean,
    interval,
    markup,
    number,
    probe_name,
    sentence_case,
    short,
    step_number,
)

N_HEADS_PER_PANEL = 6
N_LABELLED = 5


def matched_final(comparison: Any) -> pd.DataFrame:
    """The rows of a comparison at its last matched step, without curves, verdicts and pairs of heads."""
    rows = comparison.rows
    keys = ["probe", "metric", "step_a", "layer", "head", "position"]
    several = rows.duplicated(keys, keep=False)  # pairs: several sources for one head
    rows = rows[rows["position"].isna() & (rows["probe"] != "induction") & ~several]
    if rows.empty:
        return rows
    return rows[rows["step_a"] == rows["step_a"].max()]


UNTESTED = "imported, no samples: no intervals, not tested"


def differences(comparison: Any, *, n_heads: int = N_HEADS_PER_PANEL, look: Look = FULL) -> Figure:
    """Forest plot of paired differences B - A at the matched final step.

    Args:
        comparison: what `byrote.probes.degradation.compare` returned.
        n_heads: how many heads per unit, those with the largest absolute difference.
        look: theme and width.

    Returns:
        One panel per unit, a zero line in each. A difference whose interval holds 0 is hollow and grey and is called
        "no clear change".
    """
    a, b = comparison.a, comparison.b
    title = f"{markup(short(b))} minus {markup(short(a))}{'' if comparison.untested else ', paired on the same sequences'}"
    panels = _panels(matched_final(comparison), n_heads)
    if not panels:
        return empty(title=title, reason="no metric was measured in both runs at a matched step", look=look)
    rows = pd.concat([mine for _, mine in panels])
    return forest(
        [_panel(unit, mine) for unit, mine in panels], title=title,
        subtitle=f"{_at(rows)} · "
        + (UNTESTED if comparison.untested else "bar: 95% interval of the paired difference · grey and hollow: no clear change"),
        alt=_finding(rows, clean(a), clean(b)), look=look, table=lambda: table_of(rows),
    )  # fmt: skip


def difference_grid(comparison: Any, *, probe: str, metric: str = "score", look: Look = FULL) -> Figure:
    """B - A of every head at the matched final step, centred on zero.

    Args:
        comparison: what `byrote.probes.degradation.compare` returned.
        probe: a head probe's name.
        metric: one of its metrics.
        look: theme and width.

    Returns:
        A heatmap symmetric about 0 whose range is the width of the probe's own. Differences with no clear change are
        in parentheses.

    Raises:
        ByroteError: the comparison holds no such probe or metric.
    """
    final = matched_final(comparison)
    mine = final[final["probe"] == probe]
    if mine.empty:
        raise ByroteError(
            f"the comparison holds no {probe!r}", help=did_you_mean(probe, final["probe"].unique())
        )
    rows = mine[(mine["metric"] == metric) & mine["layer"].notna()]
    if rows.empty:
        raise ByroteError(
            f"{probe} has no {metric!r} per head", help=did_you_mean(metric, mine["metric"].unique())
        )
    a, b = comparison.a, comparison.b
    lo, hi = value_range(probe, metric, rows[["a", "b"]].to_numpy().ravel())
    limits = (-(hi - max(lo, 0.0)), hi - max(lo, 0.0)) if lo >= 0 else (lo, hi)
    rows = rows.assign(value=rows["difference"], valid=rows["difference"].notna(), reason="")
    grid = (int(rows["layer"].max()) + 1, int(rows["head"].max()) + 1)
    return grid_figure(
        cells_of(rows, grid, limits=limits, describe=_describe, write=_writer(grid)), limits,
        title=f"{sentence_case(probe_name(probe))}, {markup(short(b))} minus {markup(short(a))}",
        subtitle=f"{unit(probe, metric)} · {_at(rows)} · "
        + (UNTESTED if comparison.untested else "95% interval of the paired difference · in parentheses: no clear change"),
        alt=_grid_finding(rows, f"{probe_name(probe)}, {clean(b)} minus {clean(a)}"), look=look,
        table=lambda: table_of(rows),
    )  # fmt: skip


def head_scatter(
    comparison: Any, *, probe: str, metric: str = "score", head: str = "", look: Look = FULL
) -> Figure:
    """Every head in A against itself in B, with the diagonal; those farthest from it are named.

    Args:
        comparison: what `byrote.compare` returned.
        probe: a head probe's name.
        metric: one of its metrics.
        head: label of a head to name in any case.
        look: theme and width.

    Returns:
        Filled points are clear changes, hollow ones are not.
    """
    rows = comparison.rows
    mine = (rows["probe"] == probe) & (rows["metric"] == metric)
    rows = rows[mine & rows["layer"].notna() & rows["position"].isna()]
    x, y, labels = rows["a"].to_numpy(dtype=float), rows["b"].to_numpy(dtype=float), rows["head_a"].tolist()
    lo, hi = float(min([*x, *y], default=0.0)), float(max([*x, *y], default=1.0))
    info = REGISTRY[probe]
    lo, hi = info.range if info.range and info.unit_of(metric) == info.unit else (lo, max(hi, lo + 1e-6))
    a, b = markup(short(comparison.a)), markup(short(comparison.b))
    clear = np.array([change(row) != UNCLEAR for row in rows.itertuples(index=False)], dtype=bool)
    hover = [f"{label}: {a} {number(u)}, {b} {number(v)}" for label, u, v in zip(labels, x, y, strict=True)]
    traces = [scatter("equal", [lo, hi], [lo, hi], line={"color": paint("muted"), "width": 1, "dash": "dot"})]
    for name, keep, symbol, tone in (
        ("clear change", clear, "circle", "series0"),
        (UNCLEAR, ~clear, "circle-open", "muted"),
    ):
        marker = {"size": 9, "color": paint(tone), "symbol": symbol}
        shown = [hover[i] for i in np.flatnonzero(keep)]
        traces.append(scatter(name, x[keep].tolist(), y[keep].tolist(), marker=marker, hover=shown))
    place = {"xref": "x", "yref": "y", "xanchor": "left", "xshift": 7, "yshift": 8}
    notes = [
        note(labels[i], x=float(x[i]), y=float(y[i]), tone="ink", **place)
        for i in _named(x, y, least=0.05 * (hi - lo), first=labels.index(head) if head in labels else -1)
    ]
    axes = [value_axis(lo, hi, title=f"{name}: {probe_name(probe)}") for name in (a, b)]
    text = "nothing in common"
    if len(rows):
        i = int(np.abs(y - x).argmax())
        text = f"{labels[i]} differs most: {number(x[i])} in {comparison.a}, {number(y[i])} in {comparison.b}"
    return finish(
        Figure({"data": traces, "layout": {"xaxis": axes[0], "yaxis": axes[1], "annotations": notes}}),
        Canvas(height_px=430, left_px=68), title=f"{sentence_case(probe_name(probe))}, head by head",
        subtitle=f"{_at(rows)} · dotted: equal · filled: clear change · hollow: no clear change",
        alt=f"{len(rows)} heads of {clean(comparison.a)} against {clean(comparison.b)} on {probe_name(probe)}; {clean(text)}.",
        look=look, table=lambda: table_of(rows),
    )  # fmt: skip


def _at(rows: pd.DataFrame) -> str:
    """The steps of B and of A that were compared; of several pairs, the last."""
    if rows.empty:
        return "no step in common"
    last = rows[["step_a", "step_b"]].iloc[-1]
    return f"steps {step_number(last.step_b)} and {step_number(last.step_a)}"


def _named(
    x: Float[np.ndarray, " heads"], y: Float[np.ndarray, " heads"], *, least: float, first: int
) -> list[int]:
    """The heads farthest from the diagonal whose names would not lie on each other; the first always."""
    chosen = np.argsort(-np.abs(y - x), kind="stable")[:N_LABELLED].tolist()
    spaced: list[int] = []
    for i in dict.fromkeys([first, *chosen] if first >= 0 else chosen):
        if all(max(abs(x[i] - x[k]) / 2.5, abs(y[i] - y[k])) >= least for k in spaced):
            spaced.append(i)
    return spaced


def table_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a comparison as the table of a figure: both values, their difference with its interval, and its verdict.

    Args:
        rows: of a `Comparison`.

    Returns:
        Columns probe, metric, head_a, head_b, a, b, difference, lo, hi, n (0 where nothing was sampled), q and
        in_words.
    """
    words = [change(row) for row in rows.itertuples(index=False)]
    table = rows[["probe", "metric", "head_a", "head_b", "a", "b", "difference", "lo", "hi", "n", "q"]]
    return table.assign(in_words=words).reset_index(drop=True)


def _panel(unit: str, rows: pd.DataFrame) -> Panel:
    """Differences that share a unit; `rows` have a `label`."""
    shown = []
    for row in rows.itertuples(index=False):
        clear = change(row) != UNCLEAR
        tone = "ink" if clear else "muted"
        hover = markup(f"{row.label}: {_describe(row)}", limit=400)
        name = "clear change" if clear else UNCLEAR
        mark = Mark(name, row.difference, row.lo, row.hi, paint(tone), hover, filled=clear)
        shown.append(ForestRow(str(row.label), (mark,), _in_words(row), tone))
    return Panel(tuple(shown), f"difference, {unit}", names=("clear change", UNCLEAR))


def _panels(rows: pd.DataFrame, n_heads: int) -> list[tuple[str, pd.DataFrame]]:
    """(unit, rows) of one panel per unit: what the whole model does first, then its heads, largest differences on top."""
    rows = rows[rows["difference"].notna()]
    whole = rows["layer"].isna()
    rows = rows.assign(_whole=whole, _size=rows["difference"].abs())
    rows = rows[whole | (rows["metric"] == rows["probe"].map(main_metric))]
    rows = rows.sort_values(["_whole", "_size"], ascending=False, kind="stable")
    units = [unit(p, m) or probe_name(m) for p, m in zip(rows["probe"], rows["metric"], strict=True)]
    rows = rows.assign(_unit=units, label=[_row_label(row) for row in rows.itertuples(index=False)])
    panels = []
    for name, mine in rows.groupby("_unit", sort=False):
        shown = pd.concat([mine[mine["_whole"]], mine[~mine["_whole"]].head(n_heads)])
        panels.append((str(name), shown.drop(columns=["_whole", "_size", "_unit"])))
    return panels


def _row_label(row: Any) -> str:
    name = probe_name(row.probe)
    if not pd.isna(row.layer):
        return f"{name} {row_label(row)}"
    return f"{name}, {metric_words(row.metric) or probe_name(row.metric)}"


def _in_words(row: Any) -> str:
    return f"{interval(row.difference, row.lo, row.hi, sign=True)}  {change(row)}"


def _describe(row: Any, label: str = "") -> str:
    """Both sides and their difference in one line."""
    if not getattr(row, "valid", True):
        return f"{label} not measured: no difference in this comparison".strip()
    whose = [f"{h} " if h else "" for h in (row.head_b, row.head_a)] if row.metric == BEST_HEAD else ["", ""]
    text = f"{whose[0]}{number(row.b)} minus {whose[1]}{number(row.a)}"
    text += f" = {interval(row.difference, row.lo, row.hi, sign=True)}"
    exact = ", exact: from weights alone" if row.change != NOT_TESTED else ""
    n = f", n={int(row.n)}" if row.n else exact
    return f"{label} {text}{n}, {change(row)}".strip()


def _writer(grid: tuple[int, int]) -> Any:
    write = cell_writer(grid)
    if write is None:
        return None

    def signed(row: Any) -> str:
        text = interval(row.value, row.lo, row.hi, sign=True)
        text = text.replace(" [", "<br>[") if "<br>" in write(row) else text.partition(" [")[0]
        return text if change(row) != UNCLEAR else f"({text})"

    return signed


def _finding(rows: pd.DataFrame, a: str, b: str) -> str:
    words = [change(row) for row in rows.itertuples(index=False)]
    largest = rows.iloc[0]
    text = f"{largest.label} {interval(largest.difference, largest.lo, largest.hi, sign=True)}"
    tally = ", ".join(f"{count} {word}" for word, count in Counter(words).items())
    return f"{b} minus {a}: largest difference {text} ({words[0]}); of {len(rows)} shown, {tally}."


def _grid_finding(rows: pd.DataFrame, where: str) -> str:
    measured = rows[rows["valid"]]
    clear = measured[[change(row) != UNCLEAR for row in measured.itertuples(index=False)]]
    if clear.empty:
        return f"{where}: no clear change in any of {len(measured)} heads."
    order = clear.assign(size=clear["difference"].abs()).sort_values(
        ["size", "layer", "head"], ascending=[False, True, True]
    )
    largest = names(
        [(int(layer), int(head)) for layer, head in zip(order["layer"], order["head"], strict=True)]
    )
    return f"{where}: clear change in {len(clear)} of {len(measured)} heads, largest first {largest}."
