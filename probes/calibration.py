"""Do the intervals cover what they say, and do the verdicts raise false alarms? Measured on data whose truth is known.

Intervals: of 95% ones, 93 to 97% must hold the truth. Verdicts: where nothing is there, at most 5% may say that
something is. A simulation of n tries is itself uncertain: a check fails when the 99% interval of what it measured lies
outside (Clopper and Pearson 1934). No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import stats

from probes.checks import Check
from probes.degradation import difference_table, told_change
from probes.effects import SMALLEST
from probes.heads.induction import induction
from probes.memory.mem_gap import NEAR_ZERO_FRAC, MemGap, mem_gap
from probes.simulated import (
    SHAPES,
    flat,
    log_grid,
    rise_and_fall,
    sigmoid,
    simulated_curve,
    true_crossing,
)
from probes.statistics import bootstrap_mean
from probes.trajectory import CANNOT_TELL, crossings, decay, lead_lag, log_step, peak, phase_window, rise

N_SEQUENCES = 32
COVERAGE = (0.93, 0.97)
ALARM = 0.05
GRID = log_grid(12)


def calibration_checks(*, tries: int = 200, seed: int = 0) -> list[Check]:
    """Every check: intervals, verdicts, comparison, and events over training at 12 checkpoints.

    Args:
        tries: simulated data sets per check; ten times as many where one is cheap.
        seed: of the simulations.
    """
    return [
        *_intervals(10 * tries, seed),
        *_verdicts(tries, seed),
        *_comparison(tries, seed),
        *_events(tries, seed),
    ]


def _intervals(tries: int, seed: int) -> Iterator[Check]:
    for i, (name, (draw, mean)) in enumerate(SHAPES.items()):
        found = bootstrap_mean(draw(np.random.default_rng([seed, i]), (N_SEQUENCES, tries)))
        held = (found.lo <= mean) & (mean <= found.hi)
        yield covers(f"95% intervals, {name}, n = {N_SEQUENCES}", int(held.sum()), tries)
    gaps = [_mem_gap_of(np.random.default_rng([seed, 50, i]), 0.5) for i in range(tries // 10)]
    share = sum(g.loss_share.lo <= 0.5 <= g.loss_share.hi for g in gaps)
    yield covers("95% intervals, ratio of losses, 32 members and 64 twins", share, len(gaps))
    truth = 0.5 * SHAPES["loss in nats"][1]
    gap = sum(g.gap.lo <= truth <= g.gap.hi for g in gaps)
    yield covers("95% intervals, difference of losses, 32 members and 64 twins", gap, len(gaps))


def _mem_gap_of(rng: np.random.Generator, share: float) -> MemGap:
    """Members whose true mean loss is a share of the twins'."""
    draw = SHAPES["loss in nats"][0]
    return mem_gap(share * draw(rng, (N_SEQUENCES,)), draw(rng, (64,)), np.ones(N_SEQUENCES))


def _verdicts(tries: int, seed: int) -> Iterator[Check]:
    for name, matches, copies in (
        ("nothing matches and nothing copies", False, False),
        ("all match prefixes and nothing copies", True, False),
        ("all copy and nothing matches", False, True),
    ):
        called = [
            _calls(np.random.default_rng([seed, 60, i]), matches=matches, copies=copies) for i in range(tries)
        ]
        yield seldom(f"induction verdict on 16 heads, {name}: any called", called)
    flagged = [
        _mem_gap_of(np.random.default_rng([seed, 61, i]), NEAR_ZERO_FRAC).near_zero == 1 for i in range(tries)
    ]
    yield seldom(f"mem_gap near_zero where members have {NEAR_ZERO_FRAC:.0%} of the twins' loss", flagged)


def _calls(rng: np.random.Generator, *, matches: bool, copies: bool) -> bool:
    """Whether any of 16 heads is called an induction head; a null head's scores are those of its null."""
    shape = (N_SEQUENCES, 16)
    null = rng.beta(2, 62, shape)
    prefix = rng.beta(20, 20, shape) if matches else rng.beta(2, 62, shape)
    jittered = rng.beta(20, 20, shape) if matches else rng.beta(2, 62, shape)
    copying = 2 * rng.beta(20, 20, shape) - 1 if copies else 2 * rng.beta(6, 54, shape) - 1
    tests = induction(prefix, null, jittered, np.full(16, 1 / 32), copying, np.full(16, -0.8))
    return bool((tests.verdict == 1).any())


def _comparison(tries: int, seed: int) -> Iterator[Check]:
    equal = _trials(lambda rng: _changed(rng, 0.0, spread=1.0), tries, [seed, 70])
    yield seldom("compare, 16 heads of equal truth: any better or worse", equal)
    tiny = _trials(lambda rng: _changed(rng, 0.2 * SMALLEST, spread=0.05), tries, [seed, 71])
    yield seldom(
        "compare, 16 heads that surely differ by a fifth of the smallest effect: any better or worse", tiny
    )


def _changed(rng: np.random.Generator, shift: float, *, spread: float) -> bool:
    """Whether any head is told to have changed when run B's scores lie this much above run A's.

    The smallest effect is left out where nothing differs, for there the tests alone must keep the level.
    """
    a, other = rng.beta(3, 27, (2, N_SEQUENCES, 16))
    table = difference_table(a, a + shift + spread * (other - a))
    rows = table.assign(smallest=SMALLEST if shift else 0.0).to_dict("records")
    return any(told_change(row, "higher") in ("better", "worse") for row in rows)


def _events(tries: int, seed: int) -> Iterator[Check]:
    where = f"{len(GRID)} checkpoints"
    yield seldom(f"onset on a flat noisy series, {where}", _trials(_flat_has_onset, tries, [seed, 80]))
    yield seldom(f"decay after a rise that stays, {where}", _trials(_plateau_decays, tries, [seed, 81]))
    for frac in (0.1, 0.5, 0.9):
        held = _trials(lambda rng, frac=frac: _onset_held(rng, frac), tries, [seed, 82])
        yield holds(f"onset of {frac:.0%}: interval holds the truth, {where}", held)
    yield holds(f"phase window holds the steepest step, {where}", _trials(_phase_held, tries, [seed, 83]))
    yield holds(f"peak: interval holds the best step, {where}", _trials(_peak_held, tries, [seed, 84]))
    wrong = _trials(lambda rng: _order(rng, 0.0) != CANNOT_TELL, tries, [seed, 85])
    yield seldom(f"lead or lag told of curves that move together, {where}", wrong)
    turned = _trials(lambda rng: _order(rng, 0.3).startswith("second"), tries, [seed, 86])
    yield seldom(f"curves that move a factor 1.35 apart, told the wrong way round, {where}", turned)


def _trials(trial: Callable[[np.random.Generator], bool | None], tries: int, seed: list[int]) -> list[bool]:
    """Outcomes of the tries that have one."""
    found = (trial(np.random.default_rng([*seed, i])) for i in range(tries))
    return [outcome for outcome in found if outcome is not None]


def _noise(rng: np.random.Generator) -> float:
    return float(rng.choice([5.0, 50.0]))


def _flat_has_onset(rng: np.random.Generator) -> bool:
    level = float(rng.choice([0.03, 0.3, 0.9]))
    return rise(simulated_curve(flat(level), GRID, rng, concentration=float(rng.choice([2.0, 20.0])))).found


def _plateau_decays(rng: np.random.Generator) -> bool:
    return decay(simulated_curve(_change(rng), GRID, rng, concentration=_noise(rng))) is not None


def _change(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    return sigmoid(rng.uniform(4.5, 6.5), float(rng.choice([0.05, 0.2, 0.6])))


def _onset_held(rng: np.random.Generator, frac: float) -> bool | None:
    path = _change(rng)
    found = crossings(simulated_curve(path, GRID, rng, concentration=_noise(rng)), fracs=(frac,))
    truth = np.expm1(true_crossing(path, frac, float(log_step(GRID[-1]))))
    return _within(truth, found[0].lo, found[0].hi) if found else None


def _phase_held(rng: np.random.Generator) -> bool | None:
    middle = rng.uniform(4.5, 6.5)
    path = sigmoid(middle, float(rng.choice([0.05, 0.2, 0.6])))
    found = phase_window(simulated_curve(path, GRID, rng, concentration=_noise(rng)))
    return None if found is None else _within(np.expm1(middle), found.lo, found.hi)


def _peak_held(rng: np.random.Generator) -> bool | None:
    path = rise_and_fall(rng.uniform(3.5, 5.0), lost=float(rng.choice([0.2, 0.5])))
    fine = np.linspace(0, float(log_step(GRID[-1])), 2000)
    truth = np.expm1(fine[path(fine).argmax()])
    found = peak(simulated_curve(path, GRID, rng, concentration=_noise(rng)))
    return None if found is None else _within(truth, *found.steps)


def _order(rng: np.random.Generator, lag: float) -> str:
    """Which of two curves is told to move first; the first one does, by this lag."""
    middle, sequences = rng.uniform(4.0, 6.0), rng.standard_normal((N_SEQUENCES, 1))
    pair = [
        simulated_curve(
            sigmoid(middle + late, 0.2), GRID, rng, concentration=_noise(rng), sequences=sequences, name=name
        )
        for name, late in (("first", 0.0), ("second", lag))
    ]
    return lead_lag(*pair).first


def _within(truth: float, lo: float | int | None, hi: float | int | None) -> bool:
    return bool((lo is None or lo <= truth) and (hi is None or truth <= hi))


def covers(name: str, held: int, tries: int) -> Check:
    """A coverage that must lie within 93 to 97%."""
    lo, hi = _exact(held, tries)
    passed = lo <= COVERAGE[1] and hi >= COVERAGE[0]
    return Check(name, f"{COVERAGE[0]:.0%} to {COVERAGE[1]:.0%}", f"{held / tries:.1%}", passed, tries)


def holds(name: str, held: list[bool]) -> Check:
    """A coverage that must be at least 93%: an interval that the spacing of checkpoints widens may hold more."""
    hi = _exact(sum(held), len(held))[1]
    found = f"{np.mean(held):.1%}" if held else "nothing found"
    return Check(name, f"at least {COVERAGE[0]:.0%}", found, bool(held) and hi >= COVERAGE[0], len(held))


def seldom(name: str, alarms: list[bool]) -> Check:
    """A rate of false alarms that must be at most 5%."""
    lo = _exact(sum(alarms), len(alarms))[0]
    return Check(name, f"at most {ALARM:.0%}", f"{np.mean(alarms):.1%}", lo <= ALARM, len(alarms))


def _exact(count: int, tries: int) -> tuple[float, float]:
    """99% interval of a rate (Clopper and Pearson)."""
    lo = stats.beta.ppf(0.005, count, tries - count + 1) if count else 0.0
    hi = stats.beta.ppf(0.995, count + 1, tries - count) if count < tries else 1.0
    return float(lo), float(hi)
