"""Calibration of the arithmetic of degradation: verdicts on claims, sizes, doses, peaks, on simulated runs of known truth. No torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Float

from byrote.probes.calibration import Calibration
from byrote.probes.checks import holds, low_share, seldom
from byrote.probes.degrade.verdicts import Rule, judge, relabelled_rate
from byrote.probes.rules import MIN_SEEDS, REPRODUCED
from byrote.probes.seed_calibration import each

Rng = np.random.Generator
SMALLEST_SIMULATED = 0.05


def degrade_calibrations() -> list[Calibration]:
    """Everything of `byrote.probes.degrade` that says something surely."""
    return verdict_calibrations()


# Verdicts on claims.

Draw = Callable[[Rng, int], Float[np.ndarray, " k"]]


def _normal(rng: Rng, k: int) -> Float[np.ndarray, " k"]:
    return rng.normal(0.0, 0.2, k)


def _settled(rng: Rng, k: int) -> Float[np.ndarray, " k"]:
    """Seeds that have made a phase change, or have not."""
    return np.where(rng.random(k) < 0.5, 3.0, 0.1) + rng.normal(0, 0.1, k)


def _skewed(rng: Rng, k: int) -> Float[np.ndarray, " k"]:
    return rng.lognormal(0.0, 1.0, k)


def _onsets(rng: Rng, k: int) -> Float[np.ndarray, " k"]:
    """Logarithms of steps on a grid; a third of the seeds never get there."""
    at = np.log(np.ceil(rng.uniform(50, 600, k) / 50) * 50)
    return np.where(rng.random(k) < 1 / 3, np.inf, at)


_NULLS: tuple[tuple[str, Draw, str], ...] = (
    ("normal seeds", _normal, "mean"),
    ("seeds that settle high or low", _settled, "mean"),
    ("skewed seeds", _skewed, "mean"),
    ("onsets, a third of them never", _onsets, "ranks"),
)


def verdict_calibrations() -> list[Calibration]:
    """How often claims are called reproduced that are false, with the smallest effect left out."""
    found = [
        Calibration(
            f"claim, {name}, {k} {'pairs' if paired else 'a side'}, nothing differs: reproduced, or in direction", seldom,
            each(partial(_false_claim, draw=draw, kind=kind, k=k, paired=paired), 110, i, k, int(paired)),
        )
        for i, (name, draw, kind) in enumerate(_NULLS)
        for k in (MIN_SEEDS, 8)
        for paired in (True, False)
    ]  # fmt: skip
    found += [
        Calibration(
            f"claim of no change, {k} {'pairs' if paired else 'a side'} that differ by the smallest effect: reproduced", seldom,
            each(partial(_false_equivalence, k=k, paired=paired), 111, k, int(paired)),
        )
        for k in (MIN_SEEDS, 8)
        for paired in (True, False)
    ]  # fmt: skip
    found += [
        Calibration(f"claim by ranks, {k} {'pairs' if paired else 'a side'}: interval holds the shift", holds,
                    each(partial(_rank_covered, k=k, paired=paired), 112, k, int(paired), times=2.0))
        for k in (6, 8)
        for paired in (True, False)
    ]  # fmt: skip
    return [
        *found,
        Calibration(f"claim that is true, {MIN_SEEDS} pairs, labels exchanged: share of 200 relabellings reproduced", low_share,
                    each(_relabelled, 113, times=0.2)),
    ]  # fmt: skip


def _false_claim(rng: Rng, *, draw: Draw, kind: str, k: int, paired: bool) -> bool:
    rule = Rule("rises", 0.0, kind="ranks" if kind == "ranks" else "mean", paired=paired)
    return judge(draw(rng, k), draw(rng, k), rule).word.startswith(REPRODUCED)


def _false_equivalence(rng: Rng, *, k: int, paired: bool) -> bool:
    spread = 0.3 * SMALLEST_SIMULATED
    a, b = rng.normal(0, spread, (2, k))
    return (
        judge(a, b + SMALLEST_SIMULATED, Rule("stays", SMALLEST_SIMULATED, paired=paired)).word == REPRODUCED
    )


def _rank_covered(rng: Rng, *, k: int, paired: bool) -> bool:
    a, b = rng.normal(0, 0.2, (2, k))
    found = judge(a, b + 0.3, Rule("rises", 0.0, kind="ranks", paired=paired))
    return bool(found.lo <= 0.3 <= found.hi)


def _relabelled(rng: Rng) -> float:
    """A large effect on every seed: what is left when labels are exchanged is the labelling as it was."""
    a = rng.normal(0, 0.2, MIN_SEEDS)
    return relabelled_rate(a, a + rng.normal(1.0, 0.2, MIN_SEEDS), Rule("rises", SMALLEST_SIMULATED))
