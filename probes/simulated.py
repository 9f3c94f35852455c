"""Simulated data with known truth, for calibrating intervals, tests and onsets. No torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize, special

from byrote.probes.results.curve import Curve, log_step
from byrote.probes.rules import SMALLEST
from byrote.probes.statistics import bootstrap_mean

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
Path = Callable[[np.ndarray], np.ndarray]

# name -> (one value per sequence, its true mean). Skewness 0 to 1.4, as measured on trained models.
SHAPES: dict[str, tuple[Draw, float]] = {
    "score at chance": (lambda rng, shape: rng.beta(2, 62, shape), 1 / 32),
    "score near 1": (lambda rng, shape: rng.beta(62, 2, shape), 31 / 32),
    "middling score": (lambda rng, shape: rng.beta(6, 6, shape), 0.5),
    "loss in nats": (lambda rng, shape: rng.lognormal(0.5, 0.4, shape), float(np.exp(0.58))),
    "paired difference": (
        lambda rng, shape: rng.beta(2, 30, shape) - rng.beta(1, 31, shape),
        1 / 32,
    ),
    "share of tokens": (lambda rng, shape: rng.binomial(50, 0.9, shape) / 50, 0.9),
}

# Scores and shares from 0 to 1 that few sequences make hard: weak and strong heads, heads that seldom fire.
SHARES: dict[str, tuple[Draw, float]] = {
    "weak head, beta(0.5, 4)": (lambda rng, shape: rng.beta(0.5, 4, shape), 1 / 9),
    "strong head, beta(4, 0.5)": (lambda rng, shape: rng.beta(4, 0.5, shape), 8 / 9),
    "beta(1, 9)": (lambda rng, shape: rng.beta(1, 9, shape), 0.1),
    "none or all, beta(0.3, 0.7)": (lambda rng, shape: rng.beta(0.3, 0.7, shape), 0.3),
    "12 tokens, beta(1, 4)": (lambda rng, shape: rng.binomial(12, rng.beta(1, 4, shape)) / 12, 0.2),
    "1 sequence in 10 fires": (lambda rng, shape: (rng.random(shape) < 0.1) * rng.beta(8, 2, shape), 0.08),
    "score at chance": SHAPES["score at chance"],
    "score near 1": SHAPES["score near 1"],
    "middling score": SHAPES["middling score"],
    "share of tokens": SHAPES["share of tokens"],
}


def paired_scores(
    rng: np.random.Generator, *, columns: int, n: int = 32, shift: float = 0.1
) -> tuple[Float[np.ndarray, "n columns"], Float[np.ndarray, "n columns"]]:
    """Scores of two runs on the same sequences, half of their noise in common; the second is higher by shift on average."""
    easy = rng.beta(4, 12, (n, columns))
    a, b = (easy + rng.beta(2, 14, (n, columns)) for _ in range(2))
    return a, b + shift


def log_grid(n: int, *, last: int = 4096, first: int = 8) -> Int[np.ndarray, " steps"]:
    """Step 0 and n - 1 steps evenly spaced on a log axis; fewer where two of them round to the same step."""
    return np.unique([0, *np.round(np.geomspace(first, last, n - 1)).astype(np.int64)])


def sigmoid(middle: float, width: float, *, low: float = 0.03, high: float = 0.85) -> Path:
    """A phase change on `log_step`, from low to high."""
    return lambda at: low + (high - low) / (1 + np.exp(-(at - middle) / width))


def rise_and_fall(middle: float, *, lost: float) -> Path:
    """A phase change that loses a share of its height again, two e-folds of steps later."""
    up, down = sigmoid(middle, 0.3, low=0.0, high=0.8), sigmoid(middle + 2, 0.3, low=0.0, high=lost)
    return lambda at: 0.03 + up(at) * (1 - down(at))


def flat(level: float) -> Path:
    """Nothing happens."""
    return lambda at: np.full(np.shape(at), level)


def true_crossing(path: Path, frac: float, last: float) -> float:
    """Where a rising path has made a share of its way, on `log_step`."""
    level = path(np.array(0.0)) + frac * (path(np.array(last)) - path(np.array(0.0)))
    return float(optimize.brentq(lambda at: path(np.array(at)) - level, 0.0, last))


def simulated_curve(
    path: Path,
    steps: Int[np.ndarray, " steps"],
    rng: np.random.Generator,
    *,
    n: int = 32,
    concentration: float = 20.0,
    sequences: Float[np.ndarray, "n 1"] | None = None,
    chance: float = np.nan,
    name: str = "simulated",
) -> Curve:
    """A score of n sequences in [0, 1] around a path, as a curve.

    Args:
        path: true mean on `log_step`.
        steps: measured.
        rng: draws the noise.
        n: sequences.
        concentration: of the beta distribution around the mean; small is noisy.
        sequences: normal scores that half of every sequence's noise follows at all steps; drawn where None. Give the
            same to two curves to pair them.
        chance: chance level.
        name: of the probe.
    """
    mean = np.clip(path(log_step(steps)), 1e-3, 1 - 1e-3)
    shared = rng.standard_normal((n, 1)) if sequences is None else sequences
    noise = np.sqrt(0.5) * (shared + rng.standard_normal((n, len(steps))))
    samples = special.betaincinv(mean * concentration, (1 - mean) * concentration, special.ndtr(noise))
    interval = bootstrap_mean(samples)
    return Curve(
        run="simulated", probe=name, metric="score", layer=0, head=0, steps=np.asarray(steps, dtype=np.int64),
        value=interval.value, lo=interval.lo, hi=interval.hi, chance=chance, tokens=np.full(len(steps), np.nan),
        samples=samples, n=n, better="higher", smallest=SMALLEST, unit="attention fraction",
    )  # fmt: skip
