"""Calibration of the arithmetic of degradation: verdicts on claims, sizes, doses, peaks, on simulated runs of known truth. No torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.probes.calibration import Calibration
from byrote.probes.checks import covers, holds, low_share, seldom
from byrote.probes.degrade.capacity import capacity, extraction_threshold
from byrote.probes.degrade.descent_over_seeds import double_descent
from byrote.probes.degrade.displacement import ABSENT, CLASSES, DISPLACED, TOTAL, reading, shares_table
from byrote.probes.degrade.dose_response import band, boundary_fit, dose_response, log_doses, umbrella_p
from byrote.probes.degrade.effective_data import effective_data, fit_r_star
from byrote.probes.degrade.effective_size import EffectiveSize, effective_size
from byrote.probes.degrade.noise_floor import churn, noise_floor
from byrote.probes.degrade.preferential_damage import preferential_damage
from byrote.probes.degrade.simulated_runs import simulated_rows
from byrote.probes.degrade.verdicts import Rule, judge, relabelled_rate
from byrote.probes.member_calibration import member_calibrations
from byrote.probes.rules import MIN_SEEDS, REPRODUCED
from byrote.probes.seed_calibration import each

Rng = np.random.Generator
SMALLEST_SIMULATED = 0.05
HALF = 0.5  # tries


def degrade_calibrations() -> list[Calibration]:
    """Everything of `byrote.probes.degrade` that reaches a verdict."""
    return [
        *verdict_calibrations(),
        *size_calibrations(),
        *dose_calibrations(),
        *curve_calibrations(),
        *member_calibrations(),
    ]


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
            f"claim, {name}, {k} {'pairs' if paired else 'per arm'}, nothing differs: reproduced, or in direction", seldom,
            each(partial(_false_claim, draw=draw, kind=kind, k=k, paired=paired), 110, i, k, int(paired), times=HALF),
        )
        for i, (name, draw, kind) in enumerate(_NULLS)
        for k in (MIN_SEEDS, 8)
        for paired in (True, False)
    ]  # fmt: skip
    found += [
        Calibration(
            f"claim of no change, {k} {'pairs' if paired else 'per arm'} that differ by the smallest effect: reproduced", seldom,
            each(partial(_false_equivalence, k=k, paired=paired), 111, k, int(paired), times=HALF),
        )
        for k in (MIN_SEEDS, 8)
        for paired in (True, False)
    ]  # fmt: skip
    found += [
        Calibration(f"claim by ranks, {k} {'pairs' if paired else 'per arm'}: interval covers the shift", holds,
                    each(partial(_rank_covered, k=k, paired=paired), 112, k, int(paired), times=HALF))
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


# Sizes.

SIZES = np.geomspace(3e3, 7e4, 6)
DAMAGED = SIZES[2:5]
MULTIPLIER = 0.5
FEWER = 0.15  # tries, since these cost more
DRAWS = 200  # resamples; intervals are Student's, so that more change little


def size_calibrations() -> list[Calibration]:
    """Coverage of multipliers of known truth, and preferential damage where there is none."""
    found = [
        Calibration(f"effective size by {how}, {k} seeds a size: interval covers the multiplier", holds,
                    each(partial(_multiplier_covered, how=how, k=k), 120, i, k, times=HALF if how == "power" and k == 3 else FEWER))
        for i, how in enumerate(("power", "interpolate", "linear"))
        for k in (3, MIN_SEEDS)
    ]  # fmt: skip
    return [
        *found,
        Calibration("effective size over three sizes, 5 seeds: interval covers the harmonic mean", holds,
                    each(partial(_multiplier_covered, how="power", k=MIN_SEEDS, over=True), 121, times=FEWER)),
        Calibration("preferential damage, both metrics halved, 5 seeds: one significantly hit harder", seldom,
                    each(_preferred_alarm, 122, times=FEWER)),
        Calibration("preferential damage, one halved and one quartered, 5 seeds: Fieller's interval covers the ratio", holds,
                    each(partial(_ratio_covered, clipped=False), 123, times=FEWER)),
        Calibration("preferential damage, a quartered one below the ladder, 5 seeds: open interval covers the ratio", holds,
                    each(partial(_ratio_covered, clipped=True), 126, times=FEWER)),
        Calibration("effective size within 10% of the ladder's end, 5 seeds: interval covers the multiplier", holds,
                    each(_end_covered, 127, times=FEWER)),
        Calibration("seed noise floor of 5 seeds: interval covers the standard deviation", covers,
                    each(_floor_covered, 124)),
        Calibration("churn of 6 seeds, 64 members: interval covers the true value", holds, each(_churn_covered, 125, times=FEWER)),
    ]  # fmt: skip


def _law(size: np.ndarray) -> np.ndarray:
    """Test loss above a floor of 1 nat."""
    return 1.0 + 3.0 * size**-0.1


def _sized(rng: Rng, how: str, k: int, *, multiplier: float = MULTIPLIER) -> EffectiveSize:
    """A ladder and damaged runs of `multiplier` times their size, seeds of a size 0.5% apart, a run's noise shared by nothing."""
    better = "higher" if how == "linear" else "lower"
    law = (lambda n: 0.1 * np.log(n) - 0.5) if how == "linear" else _law

    def values(sizes: np.ndarray) -> np.ndarray:
        return law(sizes)[:, None] * (1 + 0.005 * rng.normal(size=(len(sizes), k)))

    for _ in range(20):  # a ladder that noise has made uneven is refused; one draws another
        healthy = values(SIZES)
        if (np.diff(healthy.mean(1)) * (1 if better == "higher" else -1) > 0).all():
            break
    ladder = simulated_rows(healthy, parameters=SIZES, arm="control", better=better)
    damaged = simulated_rows(values(multiplier * DAMAGED), parameters=DAMAGED, arm="damaged", better=better)
    floor = 1.0 if how == "power" else 0.0
    return effective_size(ladder, damaged, how=how, floor=floor, n_draws=DRAWS)


def _multiplier_covered(rng: Rng, *, how: str, k: int, over: bool = False) -> bool:
    found = _sized(rng, how, k)
    row = found.multiplier("damaged") if over else found.rows.iloc[1]
    truth = MULTIPLIER
    if how == "interpolate" and not over:  # between sizes the truth is the chord's
        law = _law(SIZES)
        truth = float(np.exp(np.interp(-_law(MULTIPLIER * DAMAGED)[1], -law, np.log(SIZES)))) / DAMAGED[1]
    return bool(row["lo"] <= truth <= row["hi"])


def _preferred_alarm(rng: Rng) -> bool:
    found = preferential_damage(_sized(rng, "power", MIN_SEEDS), _sized(rng, "power", MIN_SEEDS))
    last = found.iloc[-1]
    return bool(last["lo"] > 0 or last["hi"] < 0)


def _ratio_covered(rng: Rng, *, clipped: bool) -> bool:
    """Of the largest damaged size, whose quarter lies on the ladder; or over all, of which the smallest lies below it."""
    quartered = _sized(rng, "power", MIN_SEEDS, multiplier=0.25)
    row = preferential_damage(quartered, _sized(rng, "power", MIN_SEEDS)).iloc[-1 if clipped else -2]
    return bool(row["ratio_lo"] <= 2.0 <= row["ratio_hi"])


def _end_covered(rng: Rng) -> bool:
    """The smallest damaged size, at 0.31 of itself: a tenth above the ladder's lower end."""
    row = _sized(rng, "power", MIN_SEEDS, multiplier=0.31).rows.iloc[0]
    return bool(row["lo"] <= 0.31 <= row["hi"])


def _floor_covered(rng: Rng) -> bool:
    row = noise_floor(simulated_rows(rng.normal(2.0, 0.3, (1, MIN_SEEDS)))).iloc[0]
    return bool(row["lo"] <= 0.3 <= row["hi"])


def _churn_covered(rng: Rng) -> bool:
    """Members are easy or hard, seeds are good or bad: the truth is the mean over both."""
    case, own = rng.normal(0, 1, 64), rng.normal(0, 0.5, 6)
    p = 1 / (1 + np.exp(-case[None] - own[:, None]))
    found = churn((rng.random((6, 64)) < p).astype(np.float64))
    many = 1 / (1 + np.exp(-case[None] - rng.normal(0, 0.5, (200, 1))))
    mean = many.mean(0)
    truth = float((2 * (mean - mean**2)).mean())
    return bool(found.churn.lo <= truth <= found.churn.hi)


# Doses.

EPOCHS = np.geomspace(1, 1e5, 11)


def dose_calibrations() -> list[Calibration]:
    """False peaks where the truth is a plateau, coverage of the band and of its fit over sizes."""
    shapes = (
        ("a plateau from the fifth dose on", np.where(np.arange(11) < 4, 0.0, 1.0)),
        ("a rise to the last dose", np.linspace(0, 1, 11)),
        ("no dose that does anything", np.zeros(11)),
    )
    found = [
        Calibration(f"dose-response of 11 doses, 5 seeds, {name}: an interior peak", seldom,
                    each(partial(_false_peak, truth=truth), 130, i, times=FEWER))
        for i, (name, truth) in enumerate(shapes)
    ]  # fmt: skip
    return [
        *found,
        Calibration("umbrella test of 6 doses, 5 seeds, no dose that does anything: p below 5%", seldom,
                    each(_umbrella_alarm, 131, times=FEWER)),
        Calibration("damaging band of 11 doses, 5 seeds: interval holds its left end", holds,
                    each(partial(_band_covered, side=0), 132, times=FEWER)),
        Calibration("damaging band of 11 doses, 5 seeds: interval holds its right end", holds,
                    each(partial(_band_covered, side=1), 133, times=FEWER)),
        Calibration("boundary E = k N^a over four sizes, 5 seeds: interval holds a", holds, each(_boundary_covered, 134, times=FEWER)),
    ]  # fmt: skip


def _dosed(rng: Rng, truth: np.ndarray, noise: float = 0.1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs by epochs and their baseline; half of the variance is common to a seed at all doses."""
    seeds = noise * rng.normal(size=(1, MIN_SEEDS)) / np.sqrt(2)
    own = noise * rng.normal(size=(len(truth) + 1, MIN_SEEDS)) / np.sqrt(2)
    values = 2.0 + np.concatenate([[0.0], truth])[:, None] + seeds + own
    return simulated_rows(values[1:], epochs=EPOCHS[: len(truth)], smallest=0.0), simulated_rows(
        values[:1], arm="control"
    )


def _false_peak(rng: Rng, *, truth: np.ndarray) -> bool:
    runs, baseline = _dosed(rng, truth)
    found = dose_response(runs, "epochs", baseline=baseline, n_draws=20, permutations=0).peak
    return found is not None and found.interior


def _umbrella_alarm(rng: Rng) -> bool:
    return (
        umbrella_p(
            list(rng.normal(size=(6, MIN_SEEDS))),
            paired=True,
            seed=int(rng.integers(1 << 30)),
            permutations=400,
        )
        < 0.05
    )


def _hump(middle: float) -> np.ndarray:
    return 2 * np.exp(-0.5 * ((np.log(EPOCHS) - np.log(middle)) / 1.5) ** 2)


def _band_covered(rng: Rng, *, side: int) -> bool:
    runs, baseline = _dosed(rng, _hump(300.0))
    found = dose_response(runs, "epochs", baseline=baseline, n_draws=DRAWS, permutations=0)
    edge = (found.left, found.right)[side]
    truth = float(np.exp(band(log_doses(EPOCHS.tolist()), _hump(300.0)[None])[0, side]))
    return edge.lo <= truth <= edge.hi


def _boundary_covered(rng: Rng) -> bool:
    """The hump moves by N^-0.5; the truth is the fit of the true band's ends, between doses as the band is read."""
    sizes, x = np.array([1e3, 4e3, 1.6e4, 6.4e4]), log_doses(EPOCHS.tolist())
    humps = [_hump(3e4 * n**-0.5) for n in sizes]
    bands = {}
    for n, hump in zip(sizes, humps, strict=True):
        runs, baseline = _dosed(rng, hump)
        bands[float(n)] = dose_response(
            runs, "epochs", baseline=baseline, n_draws=DRAWS, seed=int(rng.integers(1 << 30)), permutations=0
        )
    truth = float(np.polyfit(np.log(sizes), band(x, np.array(humps))[:, 1], 1)[0])
    found = boundary_fit(bands)[1]
    return found.lo <= truth <= found.hi


# Curves, constants, counts, heads.


def curve_calibrations() -> list[Calibration]:
    """Double descent over seeds, R*, capacity, the extraction threshold, displacement."""
    return [
        Calibration("double descent of 5 seeds that fall to a noisy floor: found", seldom, each(_false_descent, 140, times=FEWER)),
        Calibration("double descent of 5 seeds: interval covers the step of the top", holds, each(_top_covered, 141, times=FEWER)),
        Calibration("R* of effective data, 5 seeds: interval covers the true value", holds, each(_r_star_covered, 142, times=0.1)),
        Calibration("capacity on a plateau, 5 seeds: said to be still rising", seldom, each(_false_rise, 143, times=FEWER)),
        Calibration("capacity, 5 seeds: interval covers the plateau", holds, each(_plateau_covered, 144, times=FEWER)),
        Calibration("extraction by duplicates, 5 seeds: interval covers the threshold", holds, each(_threshold_covered, 145, times=FEWER)),
        Calibration("displacement where nothing differs, 5 seeds: absent or displaced", seldom, each(_false_displacement, 146, times=FEWER)),
    ]  # fmt: skip


_TIMES = np.unique(np.geomspace(1, 1500, 30).astype(int))


def _curves(rng: Rng, hump: float, noise: float = 0.1) -> Float[np.ndarray, "seeds steps"]:
    """Losses that fall to a floor, with a hump at step 250 of each seed's own size and noise."""
    x = np.log(_TIMES)
    fall = 3.0 + 2.0 * np.exp(-_TIMES / 8.0)
    bump = np.exp(-0.5 * ((x - np.log(250)) / 0.5) ** 2)
    sizes = hump * rng.lognormal(0, 0.2, (MIN_SEEDS, 1))
    return fall + sizes * bump + noise * rng.normal(size=(MIN_SEEDS, len(_TIMES)))


def _false_descent(rng: Rng) -> bool:
    found = double_descent(_TIMES, _curves(rng, 0.0), smallest=0.0, n_draws=20)
    return found is not None and found.found


def _top_covered(rng: Rng) -> bool | None:
    found = double_descent(_TIMES, _curves(rng, 1.0), n_draws=100)
    return None if found is None else bool(found.top.lo <= 250 <= found.top.hi)


def _r_star_covered(rng: Rng) -> bool:
    unique, epochs = (x.ravel() for x in np.meshgrid([1e5, 4e5, 1.6e6], [1.0, 2.0, 4.0, 16.0, 64.0]))
    loss = 1.5 + 40.0 * effective_data(unique, epochs, 8.0) ** -0.3
    rows = simulated_rows(loss[:, None] + 0.005 * rng.normal(size=(len(loss), MIN_SEEDS)), epochs=epochs)
    found = fit_r_star(rows.assign(unique_tokens=np.repeat(unique, MIN_SEEDS)), n_draws=30)
    return found.lo <= 8.0 <= found.hi


def _capacities(rng: Rng) -> pd.DataFrame:
    pools = np.array([64.0, 256.0, 1024.0, 4096.0])
    truth = np.array([0.4, 1.3, 2.0, 2.0])
    return simulated_rows(truth[:, None] + 0.1 * rng.normal(size=(4, MIN_SEEDS)), pool=pools)


def _false_rise(rng: Rng) -> bool:
    return capacity(_capacities(rng)).rising


def _plateau_covered(rng: Rng) -> bool:
    found = capacity(_capacities(rng))
    return found.lo <= 2.0 <= found.hi


def _threshold_covered(rng: Rng) -> bool:
    duplicates, rows = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256]), []
    for run in range(MIN_SEEDS):
        middle = np.log(20) + 0.2 * rng.normal()
        p = 1 / (1 + np.exp(-2.0 * (np.log(duplicates) - middle)))
        rows += [(str(run), int(d), int(rng.binomial(16, q)), 16) for d, q in zip(duplicates, p, strict=True)]
    found = extraction_threshold(pd.DataFrame(rows, columns=["run", "duplicates", "extracted", "members"]))
    return found.lo <= 20 <= found.hi


def _false_displacement(rng: Rng) -> bool:
    """Shares of three classes and a raise, seeds of both arms alike."""

    def side() -> list[dict[str, float]]:
        shares = rng.dirichlet([8.0, 2.0, 4.0], MIN_SEEDS)
        return [dict(zip((*CLASSES, TOTAL), (*one, rng.normal(5, 0.5)), strict=True)) for one in shares]

    return reading(shares_table(side(), side(), paired=True)) in (ABSENT, DISPLACED)
