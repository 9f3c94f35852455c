"""Checkpoint x probe: what was measured, in part, not at all, or never requested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from byrote.probes.figures.axis import axis_layout
from byrote.probes.figures.canvas import FULL, Canvas, Figure, Look, finish, heatmap, scatter
from byrote.probes.figures.cells import thinned
from byrote.probes.figures.select import gap_reasons
from byrote.probes.figures.theme import paint
from byrote.probes.registry import REGISTRY
from byrote.probes.wording import clean, markup, probe_name, short, step_number

Covered = Callable[[str, int], tuple[int, str]]
COVERED = ("not run", "failed", "partial", "done")
_SCALE = [
    [0.0, paint("void")], [0.25, paint("void")], [0.25, paint("rule")], [0.5, paint("rule")],
    [0.5, paint("part")], [0.75, paint("part")], [0.75, paint("series0")], [1.0, paint("series0")],
]  # fmt: skip


def coverage(results: Any, *, look: Look = FULL) -> Figure:
    """Checkpoint x probe: what was measured, in part, not at all, or never requested.

    Args:
        results: a `Results`.
        look: theme and width.

    Returns:
        A grid with a cross where a probe failed; hover gives counts and reasons. The table has a row per probe and
        a column per step.
    """
    covered = _covered(results)
    probes, steps, grid = coverage_grid(results, covered)
    words = _hover(covered, probes, steps)
    failed = [(x, y) for y, row in enumerate(grid) for x, value in enumerate(row) if value == 1]
    places = {"x": list(range(len(steps))), "y": list(range(len(probes))), "xgap": 1, "ygap": 2}
    traces = [heatmap(grid.tolist(), hover=words, **places)]
    if failed:
        cross = {"symbol": "x-thin", "size": 7, "line": {"width": 1.5, "color": paint("ink")}}
        hover = [words[y][x] for x, y in failed]
        traces.append(
            scatter("not measured", [x for x, _ in failed], [y for _, y in failed], marker=cross, hover=hover)
        )
    ticks, rows = range(0, len(steps), thinned(len(steps), most=9)), range(len(probes))
    labels, names = [step_number(steps[i]) for i in ticks], [markup(probe_name(p)) for p in probes]
    x = axis_layout((-0.5, len(steps) - 0.5), ticks, labels, title="checkpoint (training step)")
    y = axis_layout((len(probes) - 0.5, -0.5), rows, names)
    layout = {
        "xaxis": x | {"showline": False},
        "yaxis": y | {"showgrid": False, "ticks": "", "ticklabelstandoff": 5},
        "coloraxis": {"cmin": -0.5, "cmax": 3.5, "showscale": False, "colorscale": _SCALE},
        "plot_bgcolor": paint("void"),
    }
    done, partial, not_at_all = (int((grid == value).sum()) for value in (3, 2, 1))

    def table() -> pd.DataFrame:
        answers = np.array(COVERED, dtype=object)[grid]
        return pd.DataFrame(answers, pd.Index(probes, name="probe"), map(step_number, steps)).reset_index()

    return finish(
        Figure({"data": traces, "layout": layout}), Canvas(height_px=118 + 20 * len(probes), left_px=150, bottom_px=50),
        title=f"What was measured, {markup(short(results.run))}",
        subtitle="strong: measured · pale: in part · cross: not measured",
        alt=f"{done} of {grid.size} pairs of checkpoint and probe of {clean(results.run)} were measured in full, "
        f"{partial} in part, {not_at_all} not at all.",
        look=look, table=table,
    )  # fmt: skip


def coverage_grid(
    results: Any, covered: Covered | None = None
) -> tuple[list[str], list[int], Int[np.ndarray, "probe step"]]:
    """(probes, steps, [probe][step] index into COVERED)."""
    probes = list(dict.fromkeys(probe for probe, _ in results.kinds if probe in REGISTRY))
    steps, covered = list(results.all_steps), covered or _covered(results)
    grid = np.array([[covered(probe, step)[0] for step in steps] for probe in probes], dtype=int)
    return probes, steps, grid.reshape(len(probes), len(steps))


def _covered(results: Any) -> Covered:
    """(probe, step) -> index into COVERED, and in words how many values there are and why not all of them."""
    found, gaps = _counts(results), gap_reasons(results)

    def covered(probe: str, step: int) -> tuple[int, str]:
        if (probe, step) not in found:
            return (1 if step in gaps else 0), gaps.get(step) or "not run"
        good, total, reason = found[probe, step]
        why = "" if good == total else f": {reason}"
        return (3 if good == total else 2 if good else 1), f"{good:,} of {total:,} values{why}"

    return covered


def _hover(covered: Covered, probes: list[str], steps: list[int]) -> list[list[str]]:
    """[probe][step] what was measured there."""

    def words(probe: str, step: int) -> str:
        name = f"{probe_name(probe)}, step {step_number(step)}"
        return markup(f"{name}: {covered(probe, step)[1]}", limit=300)

    return [[words(probe, step) for step in steps] for probe in probes]


def _counts(results: Any) -> dict[tuple[str, int], tuple[int, int, str]]:
    """(probe, step) -> (valid values, all values, a reason for those that are not)."""
    at, rows = ["probe", "step"], results.outcomes
    good = rows["count"].where(rows["valid"], 0)
    counts = rows.assign(good=good).groupby(at)[["good", "count"]].sum()
    missing = rows[rows["reason"].fillna("") != ""]  # few rows: the largest of texts is slow to find
    reasons = missing.groupby(at)["reason"].max().to_dict()
    return {
        (p, int(s)): (int(n_good), int(n), reasons.get((p, s), ""))
        for (p, s), n_good, n in counts.itertuples(name=None)
    }
