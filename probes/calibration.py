"""Calibration: coverage of intervals and false alarms of verdicts, measured on data whose truth is known.

Intervals: of 95% ones, 93 to 97% must hold the truth. Verdicts: where nothing is there, at most 5% may say that
something is; of the heads that are called, at most 5% may be false. docs/calibration.md has what was measured. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd

from byrote.probes.checks import Check, covers, holds, low_share, seldom, trials
from byrote.probes.degradation import difference_table, strongest_difference
from byrote.probes.few import mean_interval
from byrote.probes.heads.induction import InductionTests, induction
from byrote.probes.memory.mem_gap import MemGap, mem_gap
from byrote.probes.results.curve import Curve, log_step
from byrote.probes.rules import (
    ALPHA,
    NEAR_ZERO_FRAC,
    SMALLEST,
    UNCLEAR,
    against_chance,
    is_called,
    judge_change,
)
from byrote.probes.simulated import (
    SHAPES,
    SHARES,
    Path,
    flat,
    log_grid,
    paired_scores,
    rise_and_fall,
    sigmoid,
    simulated_curve,
    true_crossing,
)
from byrote.probes.statistics import bootstrap_mean, quotient_interval, ratio_intervals, sample_interval
from byrote.probes.trajectory.crossing import crossings, rise, threshold_crossing
from byrote.probes.trajectory.shape import CANNOT_TELL, LeadLag, decay, lead_lag, peak, phase_window
from byrote.probes.trajectory.turnover import Grid

Rng = np.random.Generator
Outcome = bool | float | None
N, HEADS = 32, 16
N_SEQUENCES = (12, 32, 256)
FEW = (12, 16, 24, 31)
N_MEMBERS, N_TWINS, N_BLOCKS = 32, 64, 40
N_STEPS = 12


@dataclass(frozen=True)
class Calibration:
    """One check on simulated data.

    Attributes:
        name: what is checked.
        judge: makes a check of a name and outcomes.
        outcomes: (tries, seed) -> one outcome per simulated data set that has one; more than `tries` where one is cheap.
    """

    name: str
    judge: Callable[[str, Sequence[Any]], Check]
    outcomes: Callable[[int, int], list[Any]]

    def check(self, tries: int, seed: int) -> Check:
        """Simulate and judge."""
        return self.judge(self.name, self.outcomes(tries, seed))


def calibrations() -> list[Calibration]:
    """Every one: intervals, verdicts, comparisons, and events over training at 12 checkpoints."""
    return [
        *interval_calibrations(),
        *verdict_calibrations(),
        *comparison_calibrations(),
        *event_calibrations(),
    ]


def _each(trial: Callable[[Rng], Outcome], *salt: int, times: float = 1.0) -> Callable[[int, int], list[Any]]:
    """Outcomes of a trial, `times` as often as requested; `salt` separates its draws from those of others."""
    return lambda tries, seed: trials(trial, max(1, int(times * tries)), [seed, *salt])


# Intervals: means, paired differences, differences and ratios of unpaired samples.


def interval_calibrations() -> list[Calibration]:
    """Coverage on samples of the shapes byrote meets."""
    of_means = [
        Calibration(f"95% intervals, {name}, n = {n}", covers, partial(_means_covered, name, i, n))
        for n in N_SEQUENCES
        for i, name in enumerate(SHAPES)
    ]
    of_means += [
        Calibration(f"95% intervals of few, {name}, n = {n}", holds, partial(_shares_covered, name, i, n))
        for n in FEW
        for i, name in enumerate(SHARES)
    ]
    of_means += [
        Calibration(f"95% intervals, yes in {rate:.0%} of {n}", holds, partial(_rates_covered, rate, n))
        for rate in (0.05, 0.5)
        for n in (*FEW, *N_SEQUENCES[1:])
    ]
    where, blocks = f"{N_MEMBERS} members and {N_TWINS} twins", f"{N_BLOCKS} blocks"
    others: tuple[tuple[str, Callable[[int, int], list[Any]]], ...] = (
        ("difference of two runs on the same 32 sequences", _differences_covered),
        (f"ratio of losses, {where}", _loss_ratios_covered),
        (f"difference of losses, {where}", _loss_gaps_covered),
        (f"share of a corpus, {blocks}", _each(_corpus_share_covered, 51, times=2.0)),
        (f"share over share of two corpora, {blocks} each", _each(_corpus_quotient_covered, 52, times=2.0)),
        ("median of 200 documents", _each(_median_covered, 53, times=2.0)),
    )
    return [*of_means, *(Calibration(f"95% intervals, {name}", covers, found) for name, found in others)]


def _means_covered(name: str, i: int, n: int, tries: int, seed: int) -> list[bool]:
    draw, mean = SHAPES[name]
    found = bootstrap_mean(draw(np.random.default_rng([seed, i, n]), (n, 10 * tries)))
    return _covered(found.lo, mean, found.hi)


def _shares_covered(name: str, i: int, n: int, tries: int, seed: int) -> list[bool]:
    draw, mean = SHARES[name]
    found = mean_interval(draw(np.random.default_rng([seed, 21, i, n]), (n, 10 * tries)), "share")
    return _covered(found.lo, mean, found.hi)


def _rates_covered(rate: float, n: int, tries: int, seed: int) -> list[bool]:
    outcomes = np.random.default_rng([seed, 22, round(100 * rate), n]).random((n, 10 * tries)) < rate
    found = mean_interval(outcomes.astype(np.float64), "binary")
    return _covered(found.lo, rate, found.hi)


def _differences_covered(tries: int, seed: int) -> list[bool]:
    found = difference_table(*paired_scores(np.random.default_rng([seed, 20]), columns=10 * tries))
    return _covered(found["lo"].to_numpy(), 0.1, found["hi"].to_numpy())


def _covered(lo: np.ndarray, truth: float, hi: np.ndarray) -> list[bool]:
    return ((lo <= truth) & (truth <= hi)).tolist()


@lru_cache(maxsize=1)
def _mem_gaps(tries: int, seed: int) -> list[MemGap]:
    return trials(lambda rng: _mem_gap(rng, 0.5), tries, [seed, 50])


def _loss_ratios_covered(tries: int, seed: int) -> list[bool]:
    return [gap.loss_share.lo <= 0.5 <= gap.loss_share.hi for gap in _mem_gaps(tries, seed)]


def _loss_gaps_covered(tries: int, seed: int) -> list[bool]:
    truth = 0.5 * SHAPES["loss in nats"][1]
    return [gap.gap.lo <= truth <= gap.gap.hi for gap in _mem_gaps(tries, seed)]


def _mem_gap(rng: Rng, share: float) -> Any:
    """Members whose true mean loss is a share of the twins'."""
    draw = SHAPES["loss in nats"][0]
    return mem_gap(share * draw(rng, (N_MEMBERS,)), draw(rng, (N_TWINS,)), np.ones(N_MEMBERS))


def _corpus_share_covered(rng: Rng) -> bool:
    ((_, lo, hi),) = ratio_intervals(*_blocks(rng, 0.3), seed=0)
    return bool(lo <= 0.3 <= hi)


def _corpus_quotient_covered(rng: Rng) -> bool:
    (top, below), (other_top, other_below) = (_blocks(rng, share) for share in (0.3, 0.2))
    _, lo, hi = quotient_interval((top[:, 0], below[:, 0]), (other_top[:, 0], other_below[:, 0]), seed=0)
    return bool(lo <= 1.5 <= hi)


def _median_covered(rng: Rng) -> bool:
    values = rng.lognormal(3, 0.6, 200)
    _, lo, hi = sample_interval(values, lambda x: np.quantile(x, 0.5, axis=-1), seed=0)
    return bool(lo <= np.exp(3) <= hi)


def _blocks(rng: Rng, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Counted and all tokens of blocks of unequal length, whose own shares scatter around the true one."""
    total = rng.integers(500, 4000, (N_BLOCKS, 1))
    return rng.binomial(total, rng.beta(20 * share, 20 * (1 - share), total.shape)), total


# Verdicts about one run at one step.


def verdict_calibrations() -> list[Calibration]:
    """False alarms of the induction verdict, of near-zero loss on members, and of `above chance`."""
    on_heads = f"induction verdict on {HEADS} heads"
    kinds = (
        ("nothing matches and nothing copies", 0, 0),
        ("all match prefixes and nothing copies", HEADS, 0),
        ("all copy and nothing matches", 0, HEADS),
    )
    found = [
        Calibration(f"{on_heads}, {name}: any called", seldom,
                    _each(partial(_any_called, matching=matching, copying=copying), 60, i))
        for i, (name, matching, copying) in enumerate(kinds)
    ]  # fmt: skip
    found += [
        Calibration(f"{on_heads}, nothing there but noise: any called", seldom,
                    _each(partial(_any_called, matching=0, copying=0, noisy=True), 61)),
        Calibration("induction verdict, 16 true heads among 64: share of those called that are false", low_share,
                    _each(_false_calls, 62)),
    ]  # fmt: skip
    found += [
        Calibration(f"induction {name}, 8 true heads among 64: share of those below 5% that are false", low_share,
                    _each(partial(_false_q, name=name), 67))
        for name in ("q_prefix", "q_copying")
    ]  # fmt: skip
    others: tuple[tuple[str, Callable[[Rng], bool], int], ...] = (
        (f"mem_gap near_zero where members have {NEAR_ZERO_FRAC:.0%} of the twins' loss",
         lambda rng: _mem_gap(rng, NEAR_ZERO_FRAC).near_zero == 1, 63),
        (f"mem_gap near_zero where one member in {round(1 / NEAR_ZERO_FRAC)} is not memorised, the others wholly",
         _few_not_memorised, 64),
        (f"strongest of {HEADS} heads, all at chance: reported as above chance", _strongest_above_chance, 65),
        ("recall_vs_copy, members like twins: a share reported as above chance", _recall_above_chance, 66),
    )  # fmt: skip
    return [*found, *(Calibration(name, seldom, _each(trial, salt)) for name, trial, salt in others)]


def _judged(
    rng: Rng, matching: int, copying: int, *, heads: int = HEADS, noisy: bool = False
) -> InductionTests:
    """Tests of heads of which the first so many match prefixes, or copy; a null head's scores are those of its null.

    The noise is such that the smallest effect alone excludes nothing.
    """
    level, copies_by = ((0.3, 0.7), (0.1, 0.9)) if noisy else ((2.0, 62.0), (6.0, 54.0))
    prefix, jittered, null = rng.beta(*level, (3, N, heads))
    copies = 2 * rng.beta(*copies_by, (N, heads)) - 1
    prefix[:, :matching], jittered[:, :matching] = rng.beta(40, 10, (2, N, matching))
    copies[:, :copying] = 2 * rng.beta(20, 20, (N, copying)) - 1
    chance = np.full(heads, level[0] / sum(level)), np.full(heads, -0.8)
    return induction(prefix, null, jittered, chance[0], copies, chance[1])


def _any_called(rng: Rng, *, matching: int, copying: int, noisy: bool = False) -> bool:
    return bool(is_called(_judged(rng, matching, copying, noisy=noisy).verdict).any())


def _false_calls(rng: Rng) -> float:
    """Of 64 heads 16 match and copy, and 24 only match: the share of calls that are false."""
    called = is_called(_judged(rng, 40, 16, heads=64, noisy=True).verdict)
    return float(called[16:].sum() / max(1, called.sum()))


def _false_q(rng: Rng, *, name: str) -> float:
    """The same for one of the two tests alone, where most heads are null."""
    below = _judged(rng, 8, 8, heads=64, noisy=True).q[name] < ALPHA
    return float(below[8:].sum() / max(1, below.sum()))


def _few_not_memorised(rng: Rng) -> bool:
    loss = rng.lognormal(0.5, 0.4, 64)
    known = rng.random(64) >= NEAR_ZERO_FRAC
    return mem_gap(np.where(known, 0.0, loss), rng.lognormal(0.5, 0.4, 64), np.ones(64)).near_zero == 1


def _strongest_above_chance(rng: Rng) -> bool:
    """Scores so noisy that the smallest effect alone excludes nothing."""
    found = bootstrap_mean(rng.beta(0.3, 0.7, (N, HEADS)))
    best = int(found.value.argmax())
    ends = (float(found.value[best]), float(found.lo[best]), float(found.hi[best]))
    return against_chance(*ends, chance=0.3, smallest=SMALLEST, among=HEADS) != "at"


def _recall_above_chance(rng: Rng) -> bool:
    """Shares of 12 tokens recalled of 32 members and of 32 twins, whose mean stands for chance."""
    members, twins = rng.binomial(12, rng.beta(1, 4, (2, N))) / 12
    found = bootstrap_mean(members[:, None])
    ends = (float(found.value[0]), float(found.lo[0]), float(found.hi[0]))
    return against_chance(*ends, chance=float(twins.mean()), smallest=SMALLEST, sampled=True) != "at"


# Comparisons of two runs, and of the top heads of two steps.


def comparison_calibrations() -> list[Calibration]:
    """False alarms of clear changes and of sure turnover, and false discoveries over heads."""
    pairs = (("as many", 1), ("8 of them in one run, 1 in the other", 8))
    strongest = [
        Calibration(f"compare, strongest heads of equal truth, {name}: a clear change", seldom,
                    _each(partial(_best_differs, rivals=rivals), 73, i))
        for i, (name, rivals) in enumerate(pairs)
    ]  # fmt: skip
    return [
        Calibration(f"compare, {HEADS} heads of equal truth: any clear change", seldom,
                    _each(partial(_any_changed, shift=0.0, spread=1.0), 70)),
        Calibration(f"compare, {HEADS} heads that significantly differ by a fifth of the smallest effect: any clear change",
                    seldom, _each(partial(_any_changed, shift=0.2 * SMALLEST, spread=0.05), 71)),
        Calibration("compare, 16 changed heads among 64: share of those reported that are false", low_share,
                    _each(_false_changes, 72)),
        *strongest,
        Calibration(f"turnover among {HEADS} heads that stay as they are, {N_STEPS} checkpoints: any sure swap", seldom,
                    _each(_turned_over, 75, times=0.5)),
    ]  # fmt: skip


def _any_changed(rng: Rng, *, shift: float, spread: float) -> bool:
    """Whether any head is reported to have changed when run B's scores lie this much above run A's.

    The smallest effect is left out where nothing differs, for there the tests alone must keep the level.
    """
    a, other = rng.beta(3, 27, (2, N, HEADS))
    table = difference_table(a, a + shift + spread * (other - a))
    return bool(_changed(table, smallest=SMALLEST if shift else 0.0).any())


def _changed(table: pd.DataFrame, *, smallest: float) -> np.ndarray:
    rows = table.assign(smallest=smallest).to_dict("records")
    return np.array([judge_change(row, None) != UNCLEAR for row in rows])


def _false_changes(rng: Rng) -> float:
    a, b = rng.beta(3, 27, (2, N, 64))
    b[:, :16] += 0.08
    reported = _changed(difference_table(a, b), smallest=0.0)
    return float(reported[16:].sum() / max(1, reported.sum()))


def _best_differs(rng: Rng, *, rivals: int) -> bool:
    """Strongest against strongest, all of the same true score; noise so large that the smallest effect excludes nothing."""
    runs = []
    for strong in (1, rivals):
        scores = rng.beta(2, 62, (N, HEADS))
        scores[:, :strong] = rng.beta(0.5, 0.5, (N, strong))
        runs.append(scores)
    return bool(_changed(strongest_difference(*runs)[0], smallest=0.0).any())


def _turned_over(rng: Rng) -> bool:
    """Eight heads equally strong, eight at chance: who is among the top four changes by noise alone."""
    grid = log_grid(N_STEPS)
    heads = {
        (0, h): simulated_curve(flat(0.4 if h < 8 else 0.03), grid, rng, concentration=5.0)
        for h in range(HEADS)
    }
    table = Grid(heads, 4, seed=0)
    return any(table.row(i)["sure"] for i in range(len(grid) - 1))


# Events over training.


def event_calibrations(n_steps: int = N_STEPS) -> list[Calibration]:
    """Coverage and false alarms of every event over training, at so many checkpoints on a log scale."""
    bench = Training(n_steps)
    alarms: tuple[tuple[str, Callable[[Rng], Outcome]], ...] = (
        ("onset on a flat noisy series", bench.flat_has_onset),
        (f"onset of any of the 4 strongest of {HEADS} flat heads", bench.strongest_has_onset),
        ("onset on a flat series with one spike", bench.spike_has_onset),
        (f"onset by threshold, any of {HEADS} flat heads just below it", bench.threshold_reached),
        ("decay after a rise that stays", bench.plateau_decays),
        ("decay of what stands above chance throughout", bench.flat_decays),
        ("phase window on a series that only falls", bench.falling_has_window),
        ("lead or lag reported of curves that move together", lambda r: bench.order(r, 0.0).first != CANNOT_TELL),
        ("curves that move a factor 1.35 apart, reported the wrong way round",
         lambda r: bench.order(r, 0.3).first.startswith("second")),
    )  # fmt: skip
    covered: tuple[tuple[str, Callable[[Rng], Outcome]], ...] = (
        *((f"onset of {f:.0%}: interval covers the true value", partial(bench.onset_covered, frac=f)) for f in (0.1, 0.5, 0.9)),
        ("onset by threshold: interval covers the true value", bench.threshold_covered),
        ("phase window holds the steepest step", bench.phase_covered),
        ("peak: interval covers the best step", bench.peak_covered),
        ("decay: interval covers the share lost", bench.decay_covered),
        ("lag: interval covers the true value", bench.lag_covered),
    )  # fmt: skip
    return [
        Calibration(f"{name}, {n_steps} checkpoints", judge, _each(trial, salt, i))
        for salt, judge, table in ((80, seldom, alarms), (81, holds, covered))
        for i, (name, trial) in enumerate(table)
    ]


class Training:
    """Trials on one grid of steps."""

    def __init__(self, n_steps: int) -> None:
        self.steps = log_grid(n_steps)
        self.last = float(log_step(self.steps[-1]))

    def curve(self, path: Path, rng: Rng, *, noise: float | None = None, **facts: Any) -> Curve:
        """A path with little or much noise."""
        noise = float(rng.choice([5.0, 50.0])) if noise is None else noise
        return simulated_curve(path, self.steps, rng, concentration=noise, **facts)

    def flat_has_onset(self, rng: Rng) -> bool:
        """Flat at chance, in the middle, near the top; or above a chance level that is known."""
        level, noise = float(rng.choice([0.03, 0.3, 0.9])), float(rng.choice([2.0, 20.0]))
        chance = float(rng.choice([np.nan, level, level - 0.1])) if level > 0.1 else np.nan
        return rise(self.curve(flat(level), rng, noise=noise, chance=chance)).within

    def strongest_has_onset(self, rng: Rng) -> bool:
        """The four highest of many flat heads."""
        heads = [self.curve(flat(0.3), rng, noise=2.0) for _ in range(HEADS)]
        best = sorted(heads, key=lambda c: -float(c.value.max()))[:4]
        return any(rise(replace(c, among=HEADS)).within for c in best)

    def spike_has_onset(self, rng: Rng) -> bool:
        """Flat, but for one step in the middle that truly stands out."""
        at = float(rng.choice(log_step(self.steps[3:-3])))
        return rise(self.curve(lambda x: np.where(np.isclose(x, at), 0.8, 0.2), rng)).within

    def plateau_decays(self, rng: Rng) -> bool:
        """A rise that stays."""
        return decay(self.curve(_phase_change(rng), rng)) is not None

    def flat_decays(self, rng: Rng) -> bool:
        """Above chance from the first step to the last."""
        return decay(self.curve(flat(0.6), rng, chance=0.1)) is not None

    def falling_has_window(self, rng: Rng) -> bool:
        """Above chance at first, then lost: nothing rises."""
        path = sigmoid(rng.uniform(4.5, 6.5), 0.3, low=0.8, high=0.1)
        return phase_window(self.curve(path, rng, chance=0.05)) is not None

    def onset_covered(self, rng: Rng, *, frac: float) -> Outcome:
        """Whether the interval of a crossing holds the true one."""
        path = _phase_change(rng)
        found = crossings(self.curve(path, rng), fracs=(frac,))
        truth = np.expm1(true_crossing(path, frac, self.last))
        return _within(truth, found[0].lo, found[0].hi) if found else None

    def threshold_covered(self, rng: Rng) -> Outcome:
        """The same for a fixed level."""
        path, level = _phase_change(rng), 0.4
        found = threshold_crossing(self.curve(path, rng), level).crossing
        if found is None:
            return None
        fine = np.linspace(0, self.last, 4000)
        return _within(np.expm1(fine[int((path(fine) >= level).argmax())]), found.lo, found.hi)

    def threshold_reached(self, rng: Rng) -> bool:
        """A curve that stays just below the level."""
        curves = [replace(self.curve(flat(0.39), rng, noise=2.0), among=HEADS) for _ in range(HEADS)]
        return any(threshold_crossing(c, 0.4).crossing is not None for c in curves)

    def phase_covered(self, rng: Rng) -> Outcome:
        """Whether the interval of the steepest stretch holds the steepest step."""
        middle = rng.uniform(4.5, 6.5)
        found = phase_window(self.curve(sigmoid(middle, _width(rng)), rng))
        return None if found is None else _within(np.expm1(middle), found.lo, found.hi)

    def peak_covered(self, rng: Rng) -> Outcome:
        """Whether the interval of the peak holds the best step."""
        path = rise_and_fall(rng.uniform(3.5, 5.0), lost=float(rng.choice([0.2, 0.5])))
        fine = np.linspace(0, self.last, 2000)
        found = peak(self.curve(path, rng))
        return None if found is None else _within(np.expm1(fine[path(fine).argmax()]), *found.steps)

    def decay_covered(self, rng: Rng) -> Outcome:
        """Whether the interval of the share lost holds the true one, of the best measured step."""
        path = rise_and_fall(rng.uniform(3.5, 5.0), lost=0.5)
        found, true = decay(self.curve(path, rng)), path(log_step(self.steps))
        if found is None:
            return None
        return _within((true.max() - true[-1]) / (true.max() - true[0]), found.lo, found.hi)

    def order(self, rng: Rng, lag: float) -> LeadLag:
        """Two curves of the same sequences, the second this much later on ln(1 + step)."""
        middle, sequences = rng.uniform(4.0, 6.0), rng.standard_normal((32, 1))
        pair = [
            self.curve(sigmoid(middle + late, 0.2), rng, sequences=sequences, name=name)
            for name, late in (("first", 0.0), ("second", lag))
        ]
        return lead_lag(*pair)

    def lag_covered(self, rng: Rng) -> Outcome:
        """Whether the interval of a lag holds it."""
        found = self.order(rng, 0.5)
        return None if np.isnan(found.lag) else bool(found.lo <= 0.5 <= found.hi)


def _phase_change(rng: Rng) -> Path:
    """A rise somewhere in the middle of the grid, sharp or slow."""
    return sigmoid(rng.uniform(4.5, 6.5), _width(rng))


def _width(rng: Rng) -> float:
    """Of a rise, in e-folds of steps."""
    return float(rng.choice([0.05, 0.2, 0.6]))


def _within(truth: float, lo: float | int | None, hi: float | int | None) -> bool:
    """Whether an interval covers the true value; None is an open end."""
    return bool((lo is None or lo <= truth) and (hi is None or truth <= hi))
