"""How often a comparison of two runs, or of two steps' top heads, tells a change where there is none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from byrote.probes.checks import Check, low_share, seldom, trials
from byrote.probes.degradation import difference_table, strongest_difference, told_change
from byrote.probes.effects import SMALLEST
from byrote.probes.simulated import flat, log_grid, simulated_curve
from byrote.probes.trajectory.turnover import Grid

N, HEADS = 32, 16


def comparison_checks(tries: int, seed: int) -> Iterator[Check]:
    """False alarms of `better` and `worse` and of sure turnover, and false discoveries over heads."""
    equal = trials(lambda rng: _changed(rng, 0.0, spread=1.0), tries, [seed, 70])
    yield seldom(f"compare, {HEADS} heads of equal truth: any better or worse", equal)
    tiny = trials(lambda rng: _changed(rng, 0.2 * SMALLEST, spread=0.05), tries, [seed, 71])
    yield seldom(
        f"compare, {HEADS} heads that surely differ by a fifth of the smallest effect: any better or worse",
        tiny,
    )
    mixed = trials(_false_discoveries, tries, [seed, 72])
    yield low_share("compare, 16 changed heads among 64: share of those told that are false", mixed)
    for i, (name, rivals) in enumerate((("as many", 1), ("8 of them in one run, 1 in the other", 8))):
        found = trials(lambda rng, rivals=rivals: _best_differs(rng, rivals), tries, [seed, 73, i])
        yield seldom(f"compare, strongest heads of equal truth, {name}: better or worse", found)
    swaps = trials(_turned_over, max(1, tries // 2), [seed, 75])
    yield seldom(f"turnover among {HEADS} heads that stay as they are, 12 checkpoints: any sure swap", swaps)


def _changed(rng: np.random.Generator, shift: float, *, spread: float) -> bool:
    """Whether any head is told to have changed when run B's scores lie this much above run A's.

    The smallest effect is left out where nothing differs, for there the tests alone must keep the level.
    """
    a, other = rng.beta(3, 27, (2, N, HEADS))
    told = _told(a, a + shift + spread * (other - a), smallest=SMALLEST if shift else 0.0)
    return bool(told.any())


def _told(a: np.ndarray, b: np.ndarray, *, smallest: float) -> np.ndarray:
    return _changes(difference_table(a, b), smallest)


def _changes(table: pd.DataFrame, smallest: float) -> np.ndarray:
    rows = table.assign(smallest=smallest).to_dict("records")
    return np.array([told_change(row, "higher") in ("better", "worse") for row in rows])


def _false_discoveries(rng: np.random.Generator) -> float:
    a, b = rng.beta(3, 27, (2, N, 64))
    b[:, :16] += 0.08
    told = _told(a, b, smallest=0.0)
    return float(told[16:].sum() / max(1, told.sum()))


def _best_differs(rng: np.random.Generator, rivals: int) -> bool:
    """Strongest against strongest, all of the same true score; noise so large that the smallest effect keeps nothing out."""
    runs = []
    for strong in (1, rivals):
        scores = rng.beta(2, 62, (N, HEADS))
        scores[:, :strong] = rng.beta(0.5, 0.5, (N, strong))
        runs.append(scores)
    return bool(_changes(strongest_difference(*runs)[0], 0.0).any())


def _turned_over(rng: np.random.Generator) -> bool:
    """Eight heads equally strong, eight at chance: who is among the top four changes by noise alone."""
    grid = log_grid(12)
    heads = {
        (0, h): simulated_curve(flat(0.4 if h < 8 else 0.03), grid, rng, concentration=5.0)
        for h in range(HEADS)
    }
    table = Grid(heads, 4, seed=0)
    return any(table.row(i)["sure"] for i in range(len(grid) - 1))
