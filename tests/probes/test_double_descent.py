"""Double descent: found where it was planted, with its steps; not where a loss only falls, or rises and stays."""

from __future__ import annotations

import numpy as np
import pytest

from byrote.checkpoints.errors import ByroteError
from byrote.probes.trajectory import Curve, double_descent

STEPS = np.array([0, 10, 20, 40, 80, 160, 320, 640])


def curve(mean: list[float], *, n: int = 32, noise: float = 0.1, seed: int = 0) -> Curve:
    """A loss with these means; half of the noise is common to a sequence at all steps."""
    rng = np.random.default_rng(seed)
    samples = np.array(mean) + noise * (rng.normal(size=(n, 1)) + rng.normal(size=(n, len(mean))))
    value = samples.mean(0)
    unknown = np.full(len(mean), np.nan)
    return Curve(
        "r", "held_out_loss", "loss", None, None, STEPS[: len(mean)], value, value, value, 5.0, unknown, samples, n,
        "lower", 0.05, "nats",
    )  # fmt: skip


def test_a_planted_double_descent_is_found_with_its_steps():
    found = double_descent(curve([5, 4, 3, 3.2, 3.8, 3.4, 2.9, 2.8]))
    assert found is not None and found.found
    assert (found.start, found.dip, found.top, found.end) == (0, 20, 80, 640)
    for change, truth in ((found.fall, 2.0), (found.rise, 0.8), (found.second_fall, 1.0)):
        assert change[1] < truth < change[2] and change[2] - change[1] < 0.3


def test_one_descent_and_a_plain_rise_are_none():
    rises = double_descent(curve([5, 4, 3, 3.2, 3.6, 3.8, 3.9, 4.0]))
    assert rises is None or not rises.found
    assert double_descent(curve([5, 4.5, 4, 3.5, 3, 2.5, 2, 1.5], noise=0.001)) is None


def test_flat_curves_give_no_false_alarm():
    """A fall to a noisy floor: some dip and top can always be chosen."""
    floor = [5, 3, 3, 3, 3, 3, 3, 3]
    found = [double_descent(curve(floor, noise=0.4, seed=seed)) for seed in range(100)]
    assert sum(one is not None for one in found) > 90
    assert sum(one is not None and one.found for one in found) <= 1


def test_sequences_are_needed():
    with pytest.raises(ByroteError, match="values of 8 sequences, and double descent needs 16"):
        double_descent(curve([5, 4, 3, 3.2], n=8))
