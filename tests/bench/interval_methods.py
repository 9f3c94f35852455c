"""Three intervals for the mean of a few scores from 0 to 1, on data of known mean: how often they hold it, how wide they are.

    python tests/bench/interval_methods.py [SIMULATIONS]

The table stands in docs/calibration.md; `mean_interval` uses the one that holds up. Studentized and Wilson's are here only.
"""

from __future__ import annotations

import sys

import numpy as np
from scipy import special

from byrote.probes.few import mean_interval
from byrote.probes.simulated import SHARES
from byrote.probes.statistics import bootstrap_mean, resampled_means

SIZES = (8, 12, 16, 24, 31)
Ends = tuple[np.ndarray, np.ndarray]


def percentile(x: np.ndarray) -> Ends:
    """The expanded percentile bootstrap."""
    found = bootstrap_mean(x)
    return found.lo, found.hi


def exact(x: np.ndarray) -> Ends:
    """Clopper and Pearson's, of the effective n."""
    found = mean_interval(x, "share")
    return found.lo, found.hi


def wilson(x: np.ndarray) -> Ends:
    """Wilson's, of the same effective n."""
    n, p, z = len(x), x.mean(0), special.ndtri(0.975)
    spread = np.where(np.ptp(x, axis=0) > 0, x.var(0, ddof=1), np.inf)
    worth = np.where(np.isinf(spread), n, p * (1 - p) * n / spread * (z / special.stdtrit(n - 1, 0.975)) ** 2)
    middle, below = p + z**2 / (2 * worth), 1 + z**2 / worth
    half = z * np.sqrt(p * (1 - p) / worth + z**2 / (4 * worth**2))
    return (middle - half) / below, (middle + half) / below


def studentized(x: np.ndarray) -> Ends:
    """The bootstrap of t, cut to 0 and 1."""
    n, mean, error = len(x), x.mean(0), x.std(0, ddof=1) / np.sqrt(len(x))
    drawn, squares = resampled_means(x), resampled_means(x**2)
    errors = np.sqrt(np.maximum(squares - drawn**2, 0) / (n - 1))
    with np.errstate(all="ignore"):
        t = np.where(errors > 1e-9, (drawn - mean) / errors, np.sign(drawn - mean) * np.inf)
    t = np.where(np.isnan(t), 0.0, t)
    low, high = np.quantile(t, [0.025, 0.975], axis=0, method="nearest")
    with np.errstate(all="ignore"):
        ends = [np.nan_to_num(mean - at * error, nan=0.0) for at in (high, low)]
    return np.clip(np.where(error > 0, ends[0], mean), 0, 1), np.clip(
        np.where(error > 0, ends[1], mean), 0, 1
    )


def main() -> None:
    """Print the table in Markdown."""
    tries = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    ways = {"percentile": percentile, "Clopper-Pearson": exact, "Wilson": wilson, "studentized": studentized}
    print(f"| scores | interval | {' | '.join(f'n = {n}' for n in SIZES)} |")
    print("| --- " * (2 + len(SIZES)) + "|")
    for name, (draw, mean) in SHARES.items():
        for way, interval in ways.items():
            cells = []
            for n in SIZES:
                lo, hi = interval(draw(np.random.default_rng([0, n]), (n, tries)))
                cells.append(f"{np.mean((lo <= mean) & (mean <= hi)):.1%} ({np.mean(hi - lo):.3f})")
            print(f"| {name} | {way} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
