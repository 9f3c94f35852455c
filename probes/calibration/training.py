"""Onsets, peaks, decays, windows and order on curves over training whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from byrote.probes.checks import Check, holds, seldom, trials
from byrote.probes.results.curve import Curve, log_step
from byrote.probes.simulated import flat, log_grid, rise_and_fall, sigmoid, simulated_curve, true_crossing
from byrote.probes.trajectory.crossing import crossings, rise
from byrote.probes.trajectory.order import CANNOT_TELL, LeadLag, lead_lag
from byrote.probes.trajectory.shape import decay, peak, phase_window
from byrote.probes.trajectory.threshold import threshold_crossing

Outcome = bool | None
HEADS = 16


class Bench:
    """Trials on one grid of steps."""

    def __init__(self, n_steps: int = 12) -> None:
        self.steps = log_grid(n_steps)
        self.last = float(log_step(self.steps[-1]))

    def curve(
        self,
        path: Callable[[np.ndarray], np.ndarray],
        rng: np.random.Generator,
        *,
        noise: float | None = None,
        **facts,
    ) -> Curve:
        """A path with little or much noise."""
        noise = float(rng.choice([5.0, 50.0])) if noise is None else noise
        return simulated_curve(path, self.steps, rng, concentration=noise, **facts)

    def flat_has_onset(self, rng: np.random.Generator) -> bool:
        """Flat at chance, in the middle, near the top; or above a chance level that is known."""
        level, noise = float(rng.choice([0.03, 0.3, 0.9])), float(rng.choice([2.0, 20.0]))
        chance = float(rng.choice([np.nan, level, level - 0.1])) if level > 0.1 else np.nan
        return rise(self.curve(flat(level), rng, noise=noise, chance=chance)).within

    def strongest_has_onset(self, rng: np.random.Generator) -> bool:
        """The four highest of many flat heads."""
        heads = [self.curve(flat(0.3), rng, noise=2.0) for _ in range(HEADS)]
        best = sorted(heads, key=lambda c: -float(c.value.max()))[:4]
        return any(rise(replace(c, among=HEADS)).within for c in best)

    def spike_has_onset(self, rng: np.random.Generator) -> bool:
        """Flat, but for one step in the middle that truly stands out."""
        at = float(rng.choice(log_step(self.steps[3:-3])))
        return rise(self.curve(lambda x: np.where(np.isclose(x, at), 0.8, 0.2), rng)).within

    def plateau_decays(self, rng: np.random.Generator) -> bool:
        """A rise that stays."""
        return decay(self.curve(phase_change(rng), rng)) is not None

    def flat_decays(self, rng: np.random.Generator) -> bool:
        """Above chance from the first step to the last."""
        return decay(self.curve(flat(0.6), rng, chance=0.1)) is not None

    def falling_has_window(self, rng: np.random.Generator) -> bool:
        """Above chance at first, then lost: nothing rises."""
        path = sigmoid(rng.uniform(4.5, 6.5), 0.3, low=0.8, high=0.1)
        return phase_window(self.curve(path, rng, chance=0.05)) is not None

    def onset_held(self, rng: np.random.Generator, frac: float) -> Outcome:
        """Whether the interval of a crossing holds the true one."""
        path = phase_change(rng)
        found = crossings(self.curve(path, rng), fracs=(frac,))
        truth = np.expm1(true_crossing(path, frac, self.last))
        return within(truth, found[0].lo, found[0].hi) if found else None

    def threshold_held(self, rng: np.random.Generator) -> Outcome:
        """The same for a fixed level."""
        path, level = phase_change(rng), 0.4
        found = threshold_crossing(self.curve(path, rng), level).crossing
        if found is None:
            return None
        fine = np.linspace(0, self.last, 4000)
        return within(np.expm1(fine[int((path(fine) >= level).argmax())]), found.lo, found.hi)

    def threshold_reached(self, rng: np.random.Generator) -> bool:
        """A curve that stays just below the level."""
        curves = [replace(self.curve(flat(0.39), rng, noise=2.0), among=HEADS) for _ in range(HEADS)]
        return any(threshold_crossing(c, 0.4).crossing is not None for c in curves)

    def phase_held(self, rng: np.random.Generator) -> Outcome:
        """Whether the interval of the steepest stretch holds the steepest step."""
        middle = rng.uniform(4.5, 6.5)
        found = phase_window(self.curve(sigmoid(middle, width(rng)), rng))
        return None if found is None else within(np.expm1(middle), found.lo, found.hi)

    def peak_held(self, rng: np.random.Generator) -> Outcome:
        """Whether the interval of the peak holds the best step."""
        path = rise_and_fall(rng.uniform(3.5, 5.0), lost=float(rng.choice([0.2, 0.5])))
        fine = np.linspace(0, self.last, 2000)
        found = peak(self.curve(path, rng))
        return None if found is None else within(np.expm1(fine[path(fine).argmax()]), *found.steps)

    def decay_held(self, rng: np.random.Generator) -> Outcome:
        """Whether the interval of the share lost holds the true one, of the best measured step."""
        path = rise_and_fall(rng.uniform(3.5, 5.0), lost=0.5)
        found, true = decay(self.curve(path, rng)), path(log_step(self.steps))
        if found is None:
            return None
        return within((true.max() - true[-1]) / (true.max() - true[0]), found.lo, found.hi)

    def order(self, rng: np.random.Generator, lag: float) -> LeadLag:
        """Two curves of the same sequences, the second this much later on ln(1 + step)."""
        middle, sequences = rng.uniform(4.0, 6.0), rng.standard_normal((32, 1))
        pair = [
            self.curve(sigmoid(middle + late, 0.2), rng, sequences=sequences, name=name)
            for name, late in (("first", 0.0), ("second", lag))
        ]
        return lead_lag(*pair)

    def lag_held(self, rng: np.random.Generator) -> Outcome:
        """Whether the interval of a lag holds it."""
        found = self.order(rng, 0.5)
        return None if np.isnan(found.lag) else bool(found.lo <= 0.5 <= found.hi)


def event_checks(tries: int, seed: int, *, n_steps: int = 12) -> Iterator[Check]:
    """Coverage and false alarms of every event over training, at so many checkpoints on a log scale."""
    bench, where = Bench(n_steps), f"{n_steps} checkpoints"
    alarms: tuple[tuple[str, Callable[[np.random.Generator], Outcome]], ...] = (
        ("onset on a flat noisy series", bench.flat_has_onset),
        (f"onset of any of the 4 strongest of {HEADS} flat heads", bench.strongest_has_onset),
        ("onset on a flat series with one spike", bench.spike_has_onset),
        (f"onset by threshold, any of {HEADS} flat heads just below it", bench.threshold_reached),
        ("decay after a rise that stays", bench.plateau_decays),
        ("decay of what stands above chance throughout", bench.flat_decays),
        ("phase window on a series that only falls", bench.falling_has_window),
        ("lead or lag told of curves that move together", lambda r: bench.order(r, 0.0).first != CANNOT_TELL),
        ("curves that move a factor 1.35 apart, told the wrong way round",
         lambda r: bench.order(r, 0.3).first.startswith("second")),
    )  # fmt: skip
    for i, (name, trial) in enumerate(alarms):
        yield seldom(f"{name}, {where}", trials(trial, tries, [seed, 80, i]))
    held: tuple[tuple[str, Callable[[np.random.Generator], Outcome]], ...] = (
        *((f"onset of {f:.0%}: interval holds the truth", lambda r, f=f: bench.onset_held(r, f))
          for f in (0.1, 0.5, 0.9)),
        ("onset by threshold: interval holds the truth", bench.threshold_held),
        ("phase window holds the steepest step", bench.phase_held),
        ("peak: interval holds the best step", bench.peak_held),
        ("decay: interval holds the share lost", bench.decay_held),
        ("lag: interval holds the truth", bench.lag_held),
    )  # fmt: skip
    for i, (name, trial) in enumerate(held):
        yield holds(f"{name}, {where}", trials(trial, tries, [seed, 81, i]))


def phase_change(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """A rise somewhere in the middle of the grid, sharp or slow."""
    return sigmoid(rng.uniform(4.5, 6.5), width(rng))


def width(rng: np.random.Generator) -> float:
    """Of a rise, in e-folds of steps."""
    return float(rng.choice([0.05, 0.2, 0.6]))


def within(truth: float, lo: float | int | None, hi: float | int | None) -> bool:
    """Whether an interval holds the truth; None is an open end."""
    return bool((lo is None or lo <= truth) and (hi is None or truth <= hi))
