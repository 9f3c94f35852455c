"""Calibration of what is said of arms: false alarms and coverage over simulated training seeds. No torch.

Seeds of one arm differ by their own noise, up to ten times as much as the choice of sequences moves a number; arms do not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
from jaxtyping import Float

from byrote.probes.calibration import Calibration
from byrote.probes.checks import holds, seldom, trials
from byrote.probes.group_comparison import SeedMetric, judged_rows, metric_row
from byrote.probes.registry import lookup
from byrote.probes.rules import ALPHA, MIN_SEEDS, PRIMARY, SECONDARY, UNCLEAR
from byrote.probes.seed_statistics import fisher_exact, later, rank_test
from byrote.probes.statistics import holm

Rng = np.random.Generator
N_SEQUENCES, N_FURTHER = 32, 15
STEPS = np.array([0, 100, 200, 300, 400, 500, 600, 700])


def seed_calibrations() -> list[Calibration]:
    """Intervals over seeds, and how often arms that do not differ are said to."""
    found = [
        Calibration(
            f"95% intervals over {k} seeds, {how}, seeds spread {times:g} times as far as sequences", holds,
            each(partial(_covered, k=k, paired=how == "paired", times=times), 90, k, int(10 * times), times=4.0),
        )
        for k in (3, MIN_SEEDS, 10)
        for how in ("paired", "Welch")
        for times in (0.5, 10.0)
    ]  # fmt: skip
    families = (
        ("primary", "the primary metric"),
        ("secondary", "any of the eight secondary metrics"),
        ("further", f"any of {N_FURTHER} further metrics"),
    )
    found += [
        Calibration(
            f"arms of {MIN_SEEDS} seeds that differ in nothing, {how}: {name} better or worse", seldom,
            partial(_alarms_of, family=family, paired=how == "paired"),
        )
        for how in ("paired", "Welch")
        for family, name in families
    ]  # fmt: skip
    found += [
        Calibration(
            f"seeds that settle high or low at a phase change, {k} per arm, Welch: the primary metric better or worse", seldom,
            each(partial(_bimodal_alarm, k=k), 92, k),
        )
        for k in (MIN_SEEDS, 10)
    ]  # fmt: skip
    return [
        *found,
        Calibration(f"onsets of {MIN_SEEDS} seeds per group of one arm, a third of them never: order or counts differ", seldom,
                    each(_onsets_alarm, 93)),
    ]  # fmt: skip


def each(trial: Callable[[Rng], Any], *salt: int, times: float = 1.0) -> Callable[[int, int], list[Any]]:
    """Outcomes of a trial, `times` as often as requested; `salt` separates its draws from those of others."""
    return lambda tries, seed: trials(trial, max(1, int(times * tries)), [seed, *salt])


def _values(
    rng: Rng, *, k: int, times: float, paired: bool, shift: float = 0.0
) -> Float[np.ndarray, "n runs"]:
    """Values by sequence of k runs of either arm, B above A by a shift: seeds' noise, each seed's way with a sequence, and what
    a sequence does to an arm."""
    se = 0.5 / np.sqrt(N_SEQUENCES)
    own = rng.normal(0, times * se, 2 * k)
    if paired:
        own += np.tile(rng.normal(0, 5 * se, k), 2)  # what pairs share
    sequences = rng.normal(0, 0.35, (N_SEQUENCES, 2)).repeat(k, axis=1)
    each_way = rng.normal(0, 0.35, (N_SEQUENCES, 2 * k))
    return np.r_[np.zeros(k), np.full(k, shift)] + own + sequences + each_way


def _metric(samples: Float[np.ndarray, "n runs"], probe: str, metric: str) -> SeedMetric:
    errors = samples.std(0, ddof=1) / np.sqrt(len(samples))
    return SeedMetric(lookup(probe), metric, samples.mean(0), samples, errors)


def _covered(rng: Rng, *, k: int, paired: bool, times: float) -> bool:
    samples = _values(rng, k=k, times=times, paired=paired, shift=0.3)
    row = metric_row(_metric(samples, *PRIMARY[-1]), k, paired=paired)
    return bool(row["lo"] <= 0.3 <= row["hi"])


def _alarms_of(tries: int, seed: int, *, family: str, paired: bool) -> list[bool]:
    return [family in found for found in _alarms(tries // 2, seed, paired=paired)]


@lru_cache(maxsize=2)
def _alarms(tries: int, seed: int, *, paired: bool) -> list[set[str]]:
    return trials(partial(_families_alarmed, paired=paired), tries, [seed, 91, int(paired)])


def _families_alarmed(rng: Rng, *, paired: bool) -> set[str]:
    """Families of which any metric is called better or worse; the smallest effect is left out."""
    names = [PRIMARY[-1], *((probe, metric) for probe, metric in SECONDARY if probe != "held_out_loss")]
    names += [("repeat_loss", f"further{i}") for i in range(len(SECONDARY) + 1 + N_FURTHER - len(names))]
    parts = []
    for i, name in enumerate(names):
        samples = _values(rng, k=MIN_SEEDS, times=float(rng.choice([1.0, 10.0])), paired=paired)
        row = metric_row(_metric(samples, *name), MIN_SEEDS, paired=paired)
        probe, metric = SECONDARY[i - 1] if 0 < i <= len(SECONDARY) else name
        parts.append(row | {"probe": probe, "metric": metric, "step": 0, "smallest": 0.0})
    rows = judged_rows(parts, MIN_SEEDS)
    return set(rows.loc[rows["change"] != UNCLEAR, "family"])


def _bimodal_alarm(rng: Rng, *, k: int) -> bool:
    """Some seeds have made the phase change at this step and others have not, alike in both arms."""
    high = rng.random(2 * k) < 0.5
    samples = np.where(high, 3.0, 0.1) + rng.normal(0, 0.2, (N_SEQUENCES, 2 * k))
    row = metric_row(_metric(samples, *PRIMARY[-1]), k, paired=False) | {"step": 0}
    return bool((judged_rows([row], k)["change"] != UNCLEAR).any())


def _onsets_alarm(rng: Rng) -> bool:
    at = rng.uniform(50, 1000, 2 * MIN_SEEDS)
    where = np.searchsorted(STEPS, at)
    brackets = [
        (float(STEPS[i - 1]), float(STEPS[i])) if i < len(STEPS) else (float(STEPS[-1]), np.inf)
        for i in where
    ]
    formed = where < len(STEPS)
    in_b = np.repeat([0, 1], MIN_SEEDS)
    counts = [int(formed[in_b == side].sum()) for side in (0, 1)]
    p = [fisher_exact(counts[0], MIN_SEEDS, counts[1], MIN_SEEDS), rank_test(later(brackets), in_b)]
    return bool((holm(np.array(p)) < ALPHA).any())
