"""Run against run: paired differences with their intervals, as a forest plot and as a head grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.interp.axes import head_label
from byrote.probes.comparable import BEST_HEAD
from byrote.probes.figures.axis import value_axis
from byrote.probes.figures.canvas import FULL, Canvas, Figure, Look, empty, finish, note
from byrote.probes.figures.cells import add_cells, cell_writer, cells_of, color_axis, grid_axes, names
from byrote.probes.figures.select import main_metric, unit, value_range
from byrote.probes.figures.theme import SMALL_FONT_SIZE_PX, paint
from byrote.probes.rules import UNCLEAR, change
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
ROW_PX = 26
PANEL_EXTRA_PX = 66


def matched_final(comparison: Any) -> pd.DataFrame:
    """The rows of a comparison at its last matched step, without curves, verdicts and pairs of heads."""
    rows = comparison.rows
    keys = ["probe", "metric", "step_a", "layer", "head", "position"]
    several = rows.duplicated(keys, keep=False)  # pairs: several sources for one head
    rows = rows[rows["position"].isna() & (rows["probe"] != "induction") & ~several]
    if rows.empty:
        return rows
    return rows[rows["step_a"] == rows["step_a"].max()]


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
    title = f"{markup(short(b))} minus {markup(short(a))}, paired on the same sequences"
    panels = _panels(matched_final(comparison), n_heads)
    if not panels:
        reason = "no metric was measured in both runs at a matched step"
        return empty(Canvas(height_px=160), title=title, reason=reason, look=look)
    canvas = Canvas(
        height_px=76 + sum(p.height_px for p in panels),
        bottom_px=8,
        left_px=24 + 7 * max(len(label) for p in panels for label in p.labels),
        right_px=26 + 7 * max(len(_in_words(r)) for p in panels for r in p.rows.itertuples(index=False)),
    )
    fig = Figure()
    top = 0
    for index, panel in enumerate(panels):
        _draw(fig, panel, canvas, index=index, top_px=top)
        top += panel.height_px
    steps = panels[0].rows[["step_a", "step_b"]].iloc[0]
    return finish(
        fig, canvas, title=title,
        subtitle=f"steps {step_number(steps.step_b)} and {step_number(steps.step_a)} · bar: 95% interval of the paired "
        "difference · grey and hollow: no clear change",
        alt=_finding(panels, clean(a), clean(b)), look=look,
        table=lambda: table_of(pd.concat([panel.rows for panel in panels])),
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
    rows = _as_cells(rows)
    grid = (int(rows["layer"].max()) + 1, int(rows["head"].max()) + 1)
    cells = cells_of(rows, grid, limits=limits, describe=_describe, write=_writer(grid))
    fig = Figure()
    add_cells(fig, cells)
    x, y = grid_axes(grid)
    fig.update_layout(xaxis=x, yaxis=y, plot_bgcolor=paint("void"), coloraxis=color_axis(limits))
    return finish(
        fig, Canvas(height_px=120 + grid[0] * max(14, min(58, 420 // grid[0])), bottom_px=48, left_px=58, right_px=116),
        title=f"{sentence_case(probe_name(probe))}, {markup(short(b))} minus {markup(short(a))}",
        subtitle=f"{unit(probe, metric)} · 95% interval of the paired difference · in parentheses: no clear change",
        alt=_grid_finding(rows, f"{probe_name(probe)}, {clean(b)} minus {clean(a)}"), look=look,
        table=lambda: table_of(rows),
    )  # fmt: skip


def table_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a comparison as the table of a figure: both values, their difference with its interval, and its verdict.

    Args:
        rows: of a `Comparison`.

    Returns:
        Columns probe, metric, head_a, head_b, a, b, difference, lo, hi, n (0 where nothing was sampled), q and
        in_words.
    """
    words = [change(row) for row in rows.itertuples(index=False)]
    kept = rows[["probe", "metric", "head_a", "head_b", "a", "b", "difference", "lo", "hi", "n", "q"]]
    return kept.assign(in_words=words).reset_index(drop=True)


@dataclass(frozen=True)
class _Panel:
    """Differences that share a unit."""

    unit: str
    rows: pd.DataFrame
    labels: tuple[str, ...]

    @property
    def height_px(self) -> int:
        return PANEL_EXTRA_PX + ROW_PX * len(self.rows)


def _panels(rows: pd.DataFrame, n_heads: int) -> list[_Panel]:
    """One panel per unit: what the whole model does first, then its heads, largest differences on top."""
    rows = rows[rows["difference"].notna()]
    rows = rows.assign(_whole=rows["layer"].isna(), _size=rows["difference"].abs())
    rows = rows[rows["_whole"] | (rows["metric"] == rows["probe"].map(main_metric))]
    rows = rows.sort_values(["_whole", "_size"], ascending=False, kind="stable")
    names = [unit(p, m) or probe_name(m) for p, m in zip(rows["probe"], rows["metric"], strict=True)]
    units = pd.Series(names, index=rows.index, dtype=object)
    panels = []
    for name in dict.fromkeys(names):
        mine = rows[units == name]
        mine = pd.concat([mine[mine["_whole"]], mine[~mine["_whole"]].head(n_heads)]).drop(
            columns=["_whole", "_size"]
        )
        panels.append(_Panel(name, mine, tuple(_row_label(r) for r in mine.itertuples(index=False))))
    return panels


def _row_label(row: Any) -> str:
    name = probe_name(row.probe)
    if not pd.isna(row.layer):
        return f"{name} {head_label(int(row.layer), int(row.head))}"
    if row.metric == BEST_HEAD:
        return f"{name}, strongest head"
    return f"{name}, {probe_name(row.metric)}"


def _draw(fig: Figure, panel: _Panel, canvas: Canvas, *, index: int, top_px: int) -> None:
    """One panel: zero line, intervals, points, and the numbers in words at the right."""
    name = "" if index == 0 else str(index + 1)
    axes = {"xaxis": f"x{name}", "yaxis": f"y{name}"}
    n = len(panel.rows)
    top = 1 - top_px / canvas.plot_px
    bottom = top - ROW_PX * n / canvas.plot_px
    ends = [*panel.rows["lo"].dropna(), *panel.rows["hi"].dropna(), *panel.rows["difference"]]
    lo, hi = min(0.0, *ends), max(0.0, *ends)
    x_axis = value_axis(lo, hi if hi > lo else lo + 1.0, title=f"difference, {panel.unit}", room_frac=0.05)
    fig.add_scatter(
        x=[0, 0], y=[-0.5, n - 0.5], mode="lines", line={"color": paint("muted"), "width": 1}, name="zero",
        hoverinfo="skip", **axes,
    )  # fmt: skip
    for clear in (True, False):
        _draw_points(fig, panel, clear=clear, axes=axes)
    for k, row in enumerate(panel.rows.itertuples(index=False)):
        word = change(row)
        tone = "ink" if word != UNCLEAR else "muted"
        fig.add_annotation(
            note(_in_words(row), x=1, y=k, yref=f"y{name}", xanchor="left", yanchor="middle", xshift=10)
            | {"font": {"size": SMALL_FONT_SIZE_PX, "color": paint(tone)}}
        )
    y_axis = {
        "range": [n - 0.5, -0.5], "domain": [max(0.0, bottom), top], "anchor": f"x{name}", "showgrid": False, "ticks": "",
        "tickmode": "array", "tickvals": list(range(n)), "ticktext": [markup(label) for label in panel.labels],
    }  # fmt: skip
    fig.update_layout(
        {f"xaxis{name}": x_axis | {"anchor": f"y{name}", "showgrid": True}, f"yaxis{name}": y_axis}
    )


def _in_words(row: Any) -> str:
    return f"{interval(row.difference, row.lo, row.hi, sign=True)}  {change(row)}"


def _draw_points(fig: Figure, panel: _Panel, *, clear: bool, axes: dict[str, str]) -> None:
    kept = [
        (k, r) for k, r in enumerate(panel.rows.itertuples(index=False)) if (change(r) != UNCLEAR) == clear
    ]
    if not kept:
        return
    color = paint("ink" if clear else "muted")
    fig.add_scatter(
        x=[r.difference for _, r in kept], y=[k for k, _ in kept], mode="markers",
        name="clear change" if clear else UNCLEAR,
        marker={"size": 8, "color": color if clear else paint("paper"), "line": {"width": 1.5, "color": color}},
        error_x={
            "type": "data", "symmetric": False, "color": color, "thickness": 1.5, "width": 0,
            "array": [r.hi - r.difference for _, r in kept], "arrayminus": [r.difference - r.lo for _, r in kept],
        },
        hovertext=[markup(f"{panel.labels[k]}: {_describe(r)}", limit=400) for k, r in kept], hoverinfo="text", **axes,
    )  # fmt: skip


def _describe(row: Any, label: str = "") -> str:
    """Both sides and their difference in one line."""
    if not getattr(row, "valid", True):
        return f"{label} not measured: no difference in this comparison".strip()
    whose = [f"{h} " if h else "" for h in (row.head_b, row.head_a)] if row.metric == BEST_HEAD else ["", ""]
    text = f"{whose[0]}{number(row.b)} minus {whose[1]}{number(row.a)}"
    text += f" = {interval(row.difference, row.lo, row.hi, sign=True)}"
    n = f", n={int(row.n)}" if row.n else ", exact: from weights alone"
    return f"{label} {text}{n}, {change(row)}".strip()


def _as_cells(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(value=rows["difference"], valid=rows["difference"].notna(), reason="")


def _writer(grid: tuple[int, int]) -> Any:
    write = cell_writer(grid)
    if write is None:
        return None

    def signed(row: Any) -> str:
        text = interval(row.value, row.lo, row.hi, sign=True)
        text = text.replace(" [", "<br>[") if "<br>" in write(row) else text.partition(" [")[0]
        return text if change(row) != UNCLEAR else f"({text})"

    return signed


def _finding(panels: list[_Panel], a: str, b: str) -> str:
    rows = pd.concat([p.rows for p in panels])
    words = [change(r) for r in rows.itertuples(index=False)]
    counts = {word: words.count(word) for word in dict.fromkeys(words)}
    largest = panels[0].rows.iloc[0]
    said = f"{panels[0].labels[0]} {interval(largest.difference, largest.lo, largest.hi, sign=True)}"
    tally = ", ".join(f"{count} {word}" for word, count in counts.items())
    return f"{b} minus {a}: largest difference {said} ({change(largest)}); of {len(rows)} shown, {tally}."


def _grid_finding(rows: pd.DataFrame, where: str) -> str:
    measured = rows[rows["valid"]]
    clear = [r for r in measured.itertuples(index=False) if change(r) != UNCLEAR]
    if not clear:
        return f"{where}: no clear change in any of {len(measured)} heads."
    heads = sorted(
        ((abs(r.difference), int(r.layer), int(r.head)) for r in clear), key=lambda t: (-t[0], t[1:])
    )
    listed = names([(layer, head) for _, layer, head in heads])
    return f"{where}: clear change in {len(clear)} of {len(measured)} heads, largest first {listed}."
