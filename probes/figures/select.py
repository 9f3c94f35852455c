"""The observations that a figure draws, and the scale it draws them on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from byrote.checkpoints.errors import ByroteError
from byrote.probes.registry import REGISTRY
from byrote.probes.results import Scores
from byrote.probes.results.rows import at_step as at_step
from byrote.probes.results.rows import limits_of, strongest_first
from byrote.probes.results.rows import one_head as one_head
from byrote.probes.wording import chance_number, clean, probe_name, sentence_case, step_number


def as_list(results: Any) -> list[Any]:
    """One results object or several, as a list."""
    return list(results) if isinstance(results, Sequence) else [results]


def subject(results: Any, probe: str | None, metric: str) -> tuple[Any, str, str]:
    """What a figure is about: results with a probe and a metric, or a `Scores`, which says all three.

    Raises:
        ByroteError: results without a probe.
    """
    if isinstance(results, Scores):
        return results.results, results.probe, results.metric
    if probe is None:
        raise ByroteError(
            "no probe was named", help='give probe="prefix_matching", or results["prefix_matching"]'
        )
    return results, probe, metric


def observations(results: Any, probe: str, metric: str = "score") -> pd.DataFrame:
    """All rows of one metric in step order, those of left-out steps marked.

    Raises:
        ByroteError: the results hold no such probe or metric.
    """
    results.require(probe, metric)
    return results.rows(probe, metric)


def by_position(results: Any, probe: str, metric: str, step: int | None) -> tuple[pd.DataFrame, int]:
    """`observations` of one step in the order of their positions, and that step; None is the last.

    Raises:
        ByroteError: as `observations`; another step; or nothing was measured at that one, with the reason.
    """
    rows, at = at_step(observations(results, probe, metric), step)
    placed = rows[rows["position"].notna()].sort_values("position")
    if placed.empty:
        why = clean(rows["reason"].iloc[0]) or "no reason was recorded"
        raise ByroteError(
            f"{probe} was not measured in {clean(results.run)} at step {step_number(at)}: {why}",
            help="draw a run or a step at which it was measured",
        )
    return placed, at


def head_observations(results: Any, probe: str, metric: str) -> pd.DataFrame:
    """`observations` of a metric that has one value per head, or one for the whole model.

    Raises:
        ByroteError: as `observations`, and for a metric of pairs of heads, which has no one value per head.
    """
    rows = observations(results, probe, metric)
    if rows["src_layer"].notna().any():
        message = f"{probe} {metric} is about pairs of heads, and this figure draws single heads"
        raise ByroteError(message, help="choose a metric with one value per head")
    return rows


def highest(rows: pd.DataFrame) -> Any:
    """The measured row with the highest value, as a named tuple; the first of several. There must be one."""
    first = strongest_first(rows["value"].to_numpy(np.float64), rows["valid"].to_numpy(bool))[:1]
    return next(rows.iloc[first].itertuples(index=False))


def value_range(probe: str, metric: str, values: ArrayLike) -> tuple[float, float]:
    """The fixed range to draw a metric on, see `rows.limits_of`.

    Args:
        probe, metric: what is drawn.
        values: everything that will be drawn.
    """
    return limits_of(REGISTRY.get(probe), metric, np.asarray(values, dtype=np.float64))


def unit(probe: str, metric: str) -> str:
    """The unit of a metric; empty for a probe the catalogue does not hold."""
    info = REGISTRY.get(probe)
    return info.unit_of(metric) if info is not None else ""


def main_metric(probe: str) -> str:
    """The metric of a probe that is shown first."""
    info = REGISTRY.get(probe)
    return info.main_metric if info is not None else "score"


def metric_name(probe: str, metric: str, *, main: str = "score") -> str:
    """`prefix matching`, or `prefix matching (sink free)` where the metric is not the main one; `held-out loss` of its loss."""
    plain_name = metric == main or probe_name(probe).endswith(f" {metric}")
    return probe_name(probe) + ("" if plain_name else f" ({probe_name(metric)})")


def gap_reasons(results: Any) -> dict[int, str]:
    """Steps that could not be read, and why."""
    return {int(g["step"]): str(g.get("reason", "")) for g in results.gaps if g.get("step") is not None}


def interval_words(rows: pd.DataFrame, what: str = "95% interval") -> str:
    """`95% interval over n = 32 sequences` for measured rows; for imported ones that there is none."""
    if "lo" in rows and not rows["n"].any() and rows["lo"].isna().all():
        return "imported, no samples: no intervals"
    return f"{what} over {counted(rows)}"


def counted(rows: pd.DataFrame) -> str:
    """`n = 32 sequences` for measured rows, a range where n differs."""
    lowest, highest = int(rows["n"].min()), int(rows["n"].max())
    n = f"{lowest:,}" if lowest == highest else f"{lowest:,} to {highest:,}"
    return f"n = {n} sequence{'' if highest == 1 else 's'}"


def typical_chance(rows: pd.DataFrame) -> float | None:
    """The median chance level of measured rows, or None where the probe states none."""
    chance = rows.loc[rows["valid"], "chance"].dropna()
    return None if chance.empty else float(chance.median())


def counts_in_words(table: pd.DataFrame) -> str:
    """Intervals, n and chance of a figure's numbers, one sentence for a caption.

    Args:
        table: of a figure, with value, lo, hi, chance and n.
    """
    valid = table[table["value"].notna()].assign(valid=True)
    if valid.empty:
        return "Nothing was measured."
    chance = typical_chance(valid)
    level = ", no chance level"
    if chance is not None:
        level = f", chance {chance_number(chance)}" if valid["chance"].nunique() == 1 else ""
    return f"{sentence_case(interval_words(valid, '95% intervals'))}{level}."
