"""Onsets and peaks of one metric as a notebook holds them: a table with intervals, and the finding in words. No torch."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from byrote.probes.results.curve import Curve, Head
from byrote.probes.trajectory.crossing import Crossing, crossings, rise
from byrote.probes.trajectory.shape import decay, peak
from byrote.probes.trajectory.threshold import threshold_crossing

_SHOWN = 8  # heads without the event, each with its reason
ONSET_COLUMNS = [
    "head", "between_step_lo", "between_step_hi", "step", "lo", "hi", "value", "n", "method",
]  # fmt: skip
PEAK_COLUMNS = [
    "head", "step", "step_lo", "step_hi", "value", "lo", "hi", "lost", "lost_lo", "lost_hi", "n", "method",
]  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class EventTable:
    """Events of one metric, one row per head, the earliest first.

    Attributes:
        title: what was asked.
        table: one row per head that has the event.
        text: the findings in words, and why others have none.
    """

    title: str
    table: pd.DataFrame
    text: str

    @property
    def found(self) -> bool:
        """Whether any head has it."""
        return not self.table.empty

    def __repr__(self) -> str:
        return f"{self.title}\n{self.text}"

    def _repr_html_(self) -> str:
        """For notebooks; offline, everything escaped."""
        table = self.table.to_html(index=False, float_format="%.3g", na_rep="", escape=True, border=0)
        said = html.escape(self.text).replace("\n", "<br>")
        return f"<p><b>{html.escape(self.title)}</b></p>{table if self.found else ''}<p>{said}</p>"


def onsets(
    curves: Mapping[Head, Curve], threshold: float | None, *, frac: float = 0.5, seed: int = 0
) -> EventTable:
    """When each curve reached a fixed level, or had made a share of its own rise.

    Args:
        curves: of one metric; tests are corrected for how many there are.
        threshold: the level, in the metric's unit; None asks for `frac`.
        frac: share of the rise.
        seed: of the resampling.
    """

    def one(curve: Curve) -> tuple[Crossing | None, str]:
        if threshold is not None:
            reached = threshold_crossing(curve, threshold, seed=seed)
            return reached.crossing, reached.why_not
        found = rise(curve)
        (crossed,) = crossings(curve, fracs=(frac,), seed=seed, found=found) if found.within else (None,)
        return crossed, found.why_not

    level = f"at {threshold:g}" if threshold is not None else f"at {frac:.0%} of its rise"
    return _event_table(curves, f"onset {level}", one, _onset_cells, ONSET_COLUMNS)


def peaks(curves: Mapping[Head, Curve], *, seed: int = 0) -> EventTable:
    """The best step of every curve that rises, and the share lost since where any surely is.

    Args:
        curves: of one metric; tests are corrected for how many there are.
        seed: of the resampling.
    """

    def one(curve: Curve) -> tuple[dict[str, Any] | None, str]:
        found = rise(curve)
        best = peak(curve, found=found)
        if best is None:
            return None, found.why_not
        lost = decay(curve, seed=seed, found=found)
        cells = {"step": best.step, "step_lo": best.steps[0], "step_hi": best.steps[1], "value": best.value}
        cells |= {"lo": best.lo, "hi": best.hi}
        return cells | (
            {} if lost is None else {"lost": lost.share, "lost_lo": lost.lo, "lost_hi": lost.hi}
        ), ""

    return _event_table(curves, "peak", one, dict, PEAK_COLUMNS)


def _event_table(
    curves: Mapping[Head, Curve],
    what: str,
    one: Callable[[Curve], tuple[Any, str]],
    cells_of: Callable[[Any], dict[str, Any]],
    columns: list[str],
) -> EventTable:
    rows, said, without = [], [], []
    for curve in curves.values():
        curve = replace(curve, among=len(curves))
        found, why_not = one(curve)
        name = curve.label.split()[-1] if curve.layer is not None else "whole model"
        if found is None:
            without.append(f"{name}: none: {why_not}")
            continue
        row = {"head": name} | cells_of(found) | {"n": curve.n, "method": curve.method}
        rows.append(row)
        said.append((_when(row), f"{name}: {_words(row)}"))
    table = pd.DataFrame(rows, columns=columns)
    steps = [name for name in columns if name.startswith(("between_step", "step_"))]
    table = table.astype(dict.fromkeys(steps, "Int64"))
    order = np.argsort([_when(row) for row in rows], kind="stable")
    first = next(iter(curves.values()))
    name = first.probe if first.metric == "score" else f"{first.probe} {first.metric}"
    lines = [words for _, words in sorted(said, key=lambda pair: pair[0])] + without[:_SHOWN]
    if len(without) > _SHOWN:
        lines.append(f"and {len(without) - _SHOWN} more without one")
    text = "\n".join(lines)
    return EventTable(f"{what}: {name} of {first.run}", table.iloc[order].reset_index(drop=True), text)


def _onset_cells(found: Crossing) -> dict[str, Any]:
    ends = {"lo": found.lo, "hi": found.hi, "step": found.step}
    cells = {name: np.nan if end is None else end for name, end in ends.items()}
    return cells | {
        "between_step_lo": found.bracket[0], "between_step_hi": found.bracket[1], "value": found.value
    }  # fmt: skip


def _when(row: Mapping[str, Any]) -> float:
    step = row.get("step", np.nan)
    return float(row.get("between_step_hi", 0)) if pd.isna(step) else float(step)


def _words(row: Mapping[str, Any]) -> str:
    if "between_step_hi" not in row:
        hi = "the end" if row["step_hi"] is None else f"{row['step_hi']:,}"
        best = f"best at step {row['step']:,} (somewhere in {row['step_lo']:,} to {hi}): {row['value']:.3g}"
        if "lost" not in row:
            return f"{best}; no sure loss since"
        return f"{best}; {row['lost']:.0%} [{row['lost_lo']:.0%}, {row['lost_hi']:.0%}] of its rise lost by the last step"
    if row["between_step_lo"] is None:
        return f"there by the first measured step ({row['between_step_hi']:,})"
    lo, hi = ("the start" if pd.isna(row["lo"]) else f"{row['lo']:,.0f}"), "the end"
    hi = hi if pd.isna(row["hi"]) else f"{row['hi']:,.0f}"
    return (
        f"step {row['step']:,.0f} [{lo} to {hi}], between the measured steps {row['between_step_lo']:,} and "
        f"{row['between_step_hi']:,}"
    )
