"""Double descent over training: does a loss fall, rise and fall again, more than noise and the choice of steps make it? No torch.

Source: Hernandez et al. 2022, arXiv:2205.10487, figure 3 (test loss of models trained on much repeated data); epoch-wise double
descent: Nakkiran et al. 2020, arXiv:1912.02292. The test is byrote's own.

1. four measured steps in order, start < dip < top < end: those at which the smaller of the rise (dip to top) and the second fall
   (top to end) is largest, among those with a first fall (start to dip) as large; start is the first step
2. they are chosen on every second sequence, and the three differences are read on the others: the deepest of many noisy dips is
   too deep, and a curve that only falls has some
3. double descent is said when the lower ends of all three, from the sequences that chose nothing, are above the metric's smallest
   effect: an intersection of tests, each at its own level, so that no correction is due
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.probes.results.curve import Curve
from byrote.probes.rules import is_above
from byrote.probes.statistics import bootstrap_mean

MIN_SEQUENCES = 16
Change = tuple[float, float, float]  # value, lo, hi


@dataclass(frozen=True)
class DoubleDescent:
    """A loss that falls, rises and falls again.

    Attributes:
        start, dip, top, end: measured steps; what lies between two of them was not measured.
        fall, rise, second_fall: their sizes in the metric's unit, each with its interval.
        found: whether all three significantly exceed the smallest effect.
    """

    start: int
    dip: int
    top: int
    end: int
    fall: Change
    rise: Change
    second_fall: Change
    found: bool


def double_descent(curve: Curve, *, seed: int = 0) -> DoubleDescent | None:
    """The best candidate of a double descent, and whether it is one; None where a curve has no dip and top at all.

    Args:
        curve: of a loss, with per-sequence values, such as that of `held_out_loss`.
        seed: of the resampling.

    Raises:
        ByroteError: no values per sequence, or fewer than 16 sequences.
    """
    if curve.samples is None or len(curve.samples) < MIN_SEQUENCES:
        n = 0 if curve.samples is None else len(curve.samples)
        raise ByroteError(
            f"{curve.label} of {curve.run} has values of {n} sequences, and double descent needs {MIN_SEQUENCES}",
            help="measure it with --sequences 16 or more",
        )
    steps = chosen_steps(curve.samples[0::2].mean(0))
    if steps is None:
        return None
    start, dip, top, end = (curve.samples[1::2, at] for at in steps)
    differences = np.stack([start - dip, top - dip, top - end], axis=1)
    interval = bootstrap_mean(differences, seed=seed)
    fall, rise, second_fall = (
        (float(v), float(lo), float(hi))
        for v, lo, hi in zip(interval.value, interval.lo, interval.hi, strict=True)
    )
    at = [int(step) for step in curve.steps[list(steps)]]
    sure = bool(is_above(interval.lo, curve.smallest).all())
    return DoubleDescent(at[0], at[1], at[2], at[3], fall, rise, second_fall, sure)


def chosen_steps(value: Float[np.ndarray, " steps"]) -> tuple[int, int, int, int] | None:
    """Indices of start, dip, top and end; None where nothing rises after a fall and falls after that.

    Args:
        value: a loss at ascending steps.
    """
    best, size = None, 0.0
    for top in range(2, len(value) - 1):
        dip, end = 1 + int(value[1:top].argmin()), top + 1 + int(value[top + 1 :].argmin())
        least = min(value[0] - value[dip], value[top] - value[dip], value[top] - value[end])
        if least > size:
            best, size = (0, dip, top, end), least
    return best
