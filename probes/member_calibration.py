"""Calibration of what is said member by member: counterfactual memorisation, and whether members that share runs interfere. No torch."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from byrote.checkpoints.lab.arms.members import Subsets
from byrote.checkpoints.lab.planted_members import included_experiments
from byrote.probes.calibration import Calibration
from byrote.probes.checks import holds, seldom
from byrote.probes.degrade.counterfactual import counterfactual
from byrote.probes.degrade.dependence import DEPENDENT, INDEPENDENT, dependence, dependence_word
from byrote.probes.degrade.dependence_matrix import dependence_matrix
from byrote.probes.rules import MIN_SEEDS
from byrote.probes.seed_calibration import each

Rng = np.random.Generator
N_MEMBERS, SMALLEST_SIMULATED = 32, 0.05
FEWER = 0.15  # tries


def member_calibrations() -> list[Calibration]:
    """Coverage and false alarms over runs that share their luck among all members."""
    found = [
        Calibration(f"counterfactual memorisation, {runs} runs, half of the members each: interval covers the mean", holds,
                    each(partial(_mean_covered, runs=runs), 150, runs, times=FEWER))
        for runs in (6, 12)
    ]  # fmt: skip
    found += [
        Calibration("counterfactual memorisation where nothing is remembered, 8 runs: any member significantly memorised", seldom,
                    each(_false_memory, 151, times=FEWER)),
        Calibration(f"dependence check, {MIN_SEEDS} seeds, members that do not interfere: dependent", seldom,
                    each(partial(_has_word, shift=0.0, word=DEPENDENT), 152, times=FEWER)),
        Calibration(f"dependence check, {MIN_SEEDS} seeds, members that interfere by just the smallest effect: independent", seldom,
                    each(partial(_has_word, shift=SMALLEST_SIMULATED, word=INDEPENDENT), 153, times=FEWER)),
    ]  # fmt: skip
    found += [
        Calibration("matrix of dependence, 4 experiments, 12 runs: intervals hold the effect", holds,
                    each(_matrix_covered, 154, times=FEWER)),
        Calibration("matrix of dependence, 12 runs, effects on others of just the smallest size: any pair dependent", seldom,
                    each(partial(_matrix_has_word, others=SMALLEST_SIMULATED, word=DEPENDENT), 155, times=FEWER)),
        Calibration("matrix of dependence, 12 runs, one effect of just the smallest size: all independent", seldom,
                    each(partial(_matrix_has_word, others=0.0, one=SMALLEST_SIMULATED, word=INDEPENDENT), 156, times=FEWER)),
    ]  # fmt: skip
    return found


def simulated_subsets(rng: Rng, *, runs: int, memory: np.ndarray, luck: float = 0.1) -> pd.DataFrame:
    """Runs that are trained on a random half of some members each.

    Args:
        rng: draws.
        runs: how many.
        memory: what training on each member adds to its value.
        luck: spread of runs, the same for all members of a run, and as much again of how well it remembers.
    """
    n = len(memory)
    included = np.argsort(rng.random((runs, n)), axis=1) < n // 2
    easy = rng.normal(0.4, 0.2, n)
    own = rng.normal(0, luck, (runs, 1))
    keeps = 1 + rng.normal(0, luck, (runs, 1))
    value = easy + own + included * memory * keeps + rng.normal(0, 0.05, (runs, n))
    run, member = np.divmod(np.arange(runs * n), n)
    return pd.DataFrame(
        {"run": run, "member": member, "repeats": included.ravel() * 8, "value": value.ravel()}
    )


def simulated_experiments(
    rng: Rng, *, runs: int, effects: np.ndarray, members: int = 4, luck: float = 0.02
) -> pd.DataFrame:
    """Runs of the lab's seeds 0, 1, ... that are trained on some of several experiments each, by the design of `subsets`.

    Args:
        rng: draws.
        runs: how many.
        effects: [measured, trained], what training on each experiment adds to each.
        members: of each experiment.
        luck: spread of runs, the same for all members of a run, and as much again of how well it remembers.
    """
    n = len(effects)
    part = Subsets(members * n, experiments=n, table=int(rng.integers(1000)))
    has = np.stack([included_experiments(part, seed) for seed in range(runs)])
    keeps = 1 + rng.normal(0, luck, (runs, 1, 1))
    outcome = (
        rng.normal(0.4, 0.2, n) + rng.normal(0, luck, (runs, 1)) + (has[:, None] * effects * keeps).sum(2)
    )
    value = np.repeat(outcome, members, axis=1) + rng.normal(0, 0.05, (runs, n * members))
    run, member = np.divmod(np.arange(value.size), n * members)
    seeds = run.astype(np.float64)
    return pd.DataFrame({"run": run, "init_seed": seeds, "data_seed": seeds, "member": member,
                         "repeats": 8 * np.repeat(has, members, axis=1).ravel(), "value": value.ravel()})  # fmt: skip


def simulated_halves(rng: Rng, *, seeds: int, shift: float) -> pd.DataFrame:
    """A whole and its even and odd halves, of members planted 0, 1, 2 and 4 times.

    Args:
        rng: draws.
        seeds: of each.
        shift: by which the value of a member is higher where it is planted with all others.
    """
    count = np.repeat([0, 1, 2, 4], 8)
    number = np.arange(len(count))
    rows = []
    for seed in range(seeds):
        value = 0.2 * count + rng.normal(0, 0.1, len(count)) + rng.normal(0, 0.1)
        for arm, chosen in (("all", number >= 0), ("even", number % 2 == 0), ("odd", number % 2 == 1)):
            own = rng.normal(0, 0.01) + rng.normal(0, 0.05, len(count))
            mine = np.where(chosen, value, value - 0.2 * count) + own + shift * (arm == "all")
            rows.append(pd.DataFrame({
                "run": f"{arm}-{seed}", "arm": arm, "set": str(seed), "init_seed": float(seed), "data_seed": float(seed),
                "member": number, "repeats": np.where(chosen, count, 0), "value": mine,
            }))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def _mean_covered(rng: Rng, *, runs: int) -> bool:
    memory = rng.gamma(1.0, 0.2, N_MEMBERS)
    found = counterfactual(simulated_subsets(rng, runs=runs, memory=memory))
    truth = memory[found.rows["member"]].mean()  # of the members that can be judged
    return bool(found.mean.lo <= truth <= found.mean.hi)


def _false_memory(rng: Rng) -> bool:
    found = counterfactual(simulated_subsets(rng, runs=8, memory=np.zeros(N_MEMBERS)))
    return found.memorised_frac > 0


def _effects(rng: Rng, others: float = 0.0, one: float = 0.0) -> np.ndarray:
    """Of four experiments: memory on the diagonal, beside it effects of one size and any sign, and one of another size."""
    effects = others * rng.choice([-1.0, 1.0], (4, 4))
    effects[1, 2] += one
    np.fill_diagonal(effects, rng.uniform(0.1, 0.5, 4))
    return effects


def _matrix_covered(rng: Rng) -> bool:
    effects = _effects(rng) + rng.normal(0, 0.05, (4, 4))
    found = dependence_matrix(
        simulated_experiments(rng, runs=12, effects=effects), smallest=SMALLEST_SIMULATED
    )
    one = found.effects[int(rng.integers(16))]
    return bool(one.found.lo <= effects[one.measured, one.trained] <= one.found.hi)


def _matrix_has_word(rng: Rng, *, others: float, word: str, one: float = 0.0) -> bool:
    table = simulated_experiments(rng, runs=12, effects=_effects(rng, others, one))
    return dependence_matrix(table, smallest=SMALLEST_SIMULATED).word == word


def _has_word(rng: Rng, *, shift: float, word: str) -> bool:
    found = dependence(simulated_halves(rng, seeds=MIN_SEEDS, shift=shift), smallest=SMALLEST_SIMULATED)
    return dependence_word(found.planted) == word
