"""Dose and response: how does damage grow with the dose, is the worst dose in the middle, and over which doses is it bad? No torch.

Source: Hernandez et al. 2022, arXiv:2205.10487, figures 2, 4 and 15 and appendix on boundaries (half of the largest effect, linear
in log); umbrella test: Mack and Wolfe 1981, J. Am. Stat. Assoc. 76. Choosing on some seeds and testing on others is byrote's own.

1. damage = mean over seeds of the value at a dose minus that of the baseline, signed so that more is worse; paired by seed where
   all doses have the same seeds, with Student's interval, otherwise Welch's
2. the peak is chosen among the inner doses on all seeds but one, and evaluated on that one, for every seed in turn; it is interior
   where it lies above both the smallest and the largest dose by more than the metric's smallest effect: both lower ends of the
   95% intervals over seeds, which needs no correction because both must hold. The largest of many noisy doses is not a peak
3. the umbrella test shown beside it tests against no difference at all: it is significant on a plateau too, which has a rise
4. the damaging band: where the mean damage falls to half of its largest, linear in the logarithm of the dose, on either side; open
   where it does not fall so far within the doses measured. Interval: `run_cells.student_ends` of the logarithm
5. boundaries over sizes: ln E = ln k + a ln N by least squares of the band's ends, in every resample

A smallest dose of 0 (no synthetic data, generation 0) is placed one step of the next ratio below the next dose, since it has no
logarithm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade.run_cells import N_DRAWS, Cells, cells_of, half_width
from byrote.probes.degrade.runs import required
from byrote.probes.rules import ALPHA, MIN_SEEDS
from byrote.probes.seed_statistics import (
    SeedDifference,
    paired_difference,
    sequence_variance,
    unpaired_difference,
)

DOSE_COLUMNS = ("dose", "seeds", "value", "damage", "lo", "hi", "p", "values")
PERMUTATIONS = 2000
_PAIRS_AT_ONCE = 4_000_000  # of runs at two doses: some 100 MB


@dataclass(frozen=True)
class Edge:
    """One end of the damaging band: a dose with its interval; `dose` NaN where the band is open on that side."""

    dose: float
    lo: float
    hi: float


@dataclass(frozen=True)
class Peak:
    """The worst dose, and whether it lies between milder ones.

    Attributes:
        dose: with the largest mean damage.
        chosen: how often each inner dose was chosen on the other seeds: dose -> share of seeds.
        over_smallest, over_largest: by how much the chosen dose is worse than either end, on seeds that chose nothing.
        interior: both significantly exceed the smallest effect, with 5 seeds or more.
        p_umbrella: of no difference between doses, by permutation; NaN with fewer than two seeds a dose.
        seeds: of the dose that has fewest.
    """

    dose: float
    chosen: Mapping[float, float]
    over_smallest: SeedDifference
    over_largest: SeedDifference
    interior: bool
    p_umbrella: float
    seeds: int


@dataclass(frozen=True)
class DoseResponse:
    """Damage by dose, for every size and seed.

    Attributes:
        over: which fact of the runs the dose is.
        rows: `DOSE_COLUMNS`, ascending doses.
        peak: None with fewer than three doses.
        left, right: ends of the damaging band.
        paired: whether doses and baseline are pairs by seed.
        unit: of the damage.
        draws: of (left, right) in logarithms, for fits over sizes.
    """

    over: str
    rows: pd.DataFrame
    peak: Peak | None
    left: Edge
    right: Edge
    paired: bool
    unit: str
    draws: Float[np.ndarray, "draws 2"]


def dose_response(
    runs: pd.DataFrame,
    over: str,
    *,
    baseline: pd.DataFrame | None = None,
    seed: int = 0,
    n_draws: int = N_DRAWS,
    permutations: int = PERMUTATIONS,
) -> DoseResponse:
    """Damage by dose, with peak and band.

    Args:
        runs: `run_rows` of the doses.
        over: epochs, repeat_frac, pool, synthetic_share, generation, or tokens.
        baseline: `run_rows` of the undamaged arm; None takes the dose with the least damage that lies at an end.
        seed: of resampling and permutation.
        n_draws: resamples.
        permutations: of the umbrella test; 0 leaves it out.

    Raises:
        ByroteError: a dose that is not declared, fewer than two doses, or a metric without a better direction.
    """
    doses = required(runs, over, what_for=f"a dose-response over {over}")
    if len(set(doses)) < 2:
        raise ByroteError(
            f"all runs have {over} {doses[0]:g}: a dose-response needs two or more",
            help="give runs of two doses or more",
        )
    sign = _worse_sign(runs)
    named = sorted({float(d) for d in doses})
    if baseline is None:
        means = [
            sign * runs["value"].to_numpy(np.float64)[doses == end].mean() for end in (named[0], named[-1])
        ]
        baseline = runs[doses == named[int(np.argmin(means))]]
    joint = pd.concat([baseline, runs], ignore_index=True)
    keys = np.concatenate([np.full(len(baseline), -1.0), [float(named.index(d)) for d in doses]])
    cells = _signed(cells_of(joint, keys, seed=seed, n_draws=n_draws), sign)
    rows = _rows(cells, named, joint, keys)
    x = log_doses(named)
    (edges,) = band(x, (cells.means[1:] - cells.means[0])[None])
    draws = band(x, cells.draws[:, 1:] - cells.draws[:, :1])
    left, right = (_edge(float(at), draws[:, i], cells.seeds, side=i) for i, at in enumerate(edges))
    smallest = float(runs["smallest"].iloc[0])
    found = peak(
        named,
        list(cells.values[1:]),
        paired=cells.paired,
        smallest=smallest,
        seed=seed,
        permutations=permutations,
    )
    return DoseResponse(over, rows, found, left, right, cells.paired, str(runs["unit"].iloc[0]), draws)


def damage_by_arm(runs: pd.DataFrame, baseline: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Damage of arms that are no doses of one another: `arm` and the columns of `DOSE_COLUMNS` but the dose, worst first.

    Args:
        runs: `run_rows` of the damaged arms.
        baseline: `run_rows` of the undamaged arm.
        seed: of resampling.

    Raises:
        ByroteError: one seed of each arm, the same seeds twice in an arm, or a metric without a better direction.
    """
    sign = _worse_sign(runs)
    if not runs["arm"].duplicated().any() or len(baseline) < 2:
        raise ByroteError(
            "each arm has one seed, and damage has an interval over seeds from two on",
            help="give several seeds of each arm; two single runs are compared by byrote compare",
        )
    arms = list(dict.fromkeys(runs["arm"]))
    joint = pd.concat([baseline, runs], ignore_index=True)
    keys = np.array([-1.0] * len(baseline) + [float(arms.index(arm)) for arm in runs["arm"]])
    cells = _signed(cells_of(joint, keys, seed=seed, n_draws=1), sign)
    rows = _rows(cells, [float(i) for i in range(len(arms))], joint, keys)
    rows.insert(0, "arm", arms)
    return rows.drop(columns="dose").sort_values("damage", ascending=False, ignore_index=True)


def _worse_sign(runs: pd.DataFrame) -> float:
    """1 where more of the metric is worse, -1 where less is."""
    better = runs["better"].iloc[0]
    if better not in ("higher", "lower"):
        raise ByroteError(
            f"{runs['probe'].iloc[0]}/{runs['metric'].iloc[0]} has no better direction, so damage is undefined",
            help="name a loss or a score",
        )
    return -1.0 if better == "higher" else 1.0


def log_doses(doses: list[float]) -> Float[np.ndarray, " doses"]:
    """Logarithms of ascending doses; a first dose of 0 stands one ratio of the next two below the next."""
    if doses[0] > 0:
        return np.log(doses)
    rest = np.log(doses[1:])
    step = rest[1] - rest[0] if len(rest) > 1 else 1.0
    return np.concatenate([[rest[0] - step], rest])


def band(
    x: Float[np.ndarray, " doses"], damage: Float[np.ndarray, "draws doses"]
) -> Float[np.ndarray, "draws 2"]:
    """Where damage crosses half of its maximum on either side of it, in the unit of x; NaN on a side where it does not.

    Args:
        x: logarithms of the doses, ascending.
        damage: at each, a curve a row; one whose maximum is not above 0 has no band.
    """
    top, place = damage.argmax(1)[:, None], np.arange(len(x))
    half = damage.max(1, keepdims=True) / 2
    low, row = damage <= half, np.arange(len(damage))
    out = np.full((len(damage), 2), np.nan)
    left = np.where(low & (place < top), place, -1).max(1)
    right = np.where(low & (place > top), place, len(x)).min(1)
    for side, (at, inner, known) in enumerate(
        ((left, left + 1, left >= 0), (right, right - 1, right < len(x)))
    ):
        r, a, b = row[known], inner[known], at[known]
        share = (damage[r, a] - half[r, 0]) / (damage[r, a] - damage[r, b])
        out[r, side] = x[a] + share * (x[b] - x[a])
    out[half[:, 0] <= 0] = np.nan
    return out


def peak(
    doses: list[float],
    values: list[Float[np.ndarray, " seeds"]],
    *,
    paired: bool,
    smallest: float,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> Peak | None:
    """The worst dose, chosen on some seeds and tested on the others.

    Args:
        doses: ascending.
        values: damage, or a loss, by seed at each dose; more is worse.
        paired: whether all doses have the same seeds in the same order.
        smallest: smallest effect of interest.
        seed: of the permutations.
        permutations: of the umbrella test; 0 leaves it out.

    Returns:
        None with fewer than three doses.
    """
    if len(doses) < 3:
        return None
    n = min(map(len, values))
    over: list[list[float]] = [[], []]
    chosen: dict[float, float] = dict.fromkeys(doses[1:-1], 0.0)
    for k in range(n):
        others = [np.delete(v, k).mean() if len(v) > 1 else np.nan for v in values[1:-1]]
        at = 1 + int(np.argmax(others)) if np.isfinite(others).all() else 1
        chosen[doses[at]] += 1 / n
        for side, end in enumerate((0, -1)):
            over[side].append(float(values[at][k] - values[end][k]))
    found = [paired_difference(np.zeros(n), np.array(one)) for one in over]
    sure = n >= MIN_SEEDS and all(one.lo > smallest for one in found)
    tested = n > 1 and permutations > 0
    p = umbrella_p(values, paired=paired, seed=seed, permutations=permutations) if tested else np.nan
    worst = doses[int(np.argmax([v.mean() for v in values]))]
    return Peak(worst, chosen, found[0], found[1], sure, p, n)


def umbrella_p(
    values: list[Float[np.ndarray, " seeds"]],
    *,
    paired: bool,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> float:
    """p of no difference between doses against an umbrella with unknown peak (Mack and Wolfe 1981), by permutation.

    The largest standardised A_p over peaks p; labels are exchanged within seeds where the doses are pairs.

    Args:
        values: by seed at each dose, ascending doses.
        paired: whether all doses have the same seeds in the same order.
        seed: of the permutations.
        permutations: how many.
    """
    sizes = np.array([len(v) for v in values])
    label, flat = np.repeat(np.arange(len(values)), sizes), np.concatenate(values)
    rng = np.random.default_rng([seed, len(flat)])
    if paired:
        grid = np.stack(values, axis=1)
        shuffled = rng.permuted(np.broadcast_to(grid, (permutations, *grid.shape)), axis=2)
        draws = np.concatenate([shuffled[:, :, d] for d in range(len(values))], axis=1)
    else:
        draws = rng.permuted(np.broadcast_to(flat, (permutations, len(flat))), axis=1)
    all_draws = np.concatenate([flat[None], draws])
    at_once = max(1, _PAIRS_AT_ONCE // max(1, int(sizes.max()) ** 2))
    parts = [all_draws[i : i + at_once] for i in range(0, len(all_draws), at_once)]
    u = np.concatenate([_pairwise_wins(part, label, len(values)) for part in parts])
    a = np.stack([_umbrella(u, top) for top in range(len(values))], axis=1)
    null = a[1:]
    spread = np.where(null.std(0) > 0, null.std(0), 1.0)
    z = ((a - null.mean(0)) / spread).max(1)
    return float((1 + (z[1:] >= z[0] - 1e-9).sum()) / len(z))


def _pairwise_wins(
    draws: Float[np.ndarray, "draws n"], label: np.ndarray, k: int
) -> Float[np.ndarray, "draws k k"]:
    """[draw, u, v]: pairs of a run at dose u and one at dose v of which the second is larger; ties count half."""
    out = np.zeros((len(draws), k, k))
    for u in range(k):
        for v in range(u + 1, k):
            gap = draws[:, None, label == v] - draws[:, label == u][:, :, None]
            wins = (gap > 0).sum((1, 2)) + 0.5 * (gap == 0).sum((1, 2))
            out[:, u, v], out[:, v, u] = wins, gap.shape[1] * gap.shape[2] - wins
    return out


def _umbrella(u: Float[np.ndarray, "draws k k"], top: int) -> Float[np.ndarray, " draws"]:
    k = u.shape[1]
    up = [(i, j) for j in range(top + 1) for i in range(j)]
    down = [(j, i) for i in range(top, k) for j in range(i + 1, k)]
    return sum((u[:, i, j] for i, j in [*up, *down]), start=np.zeros(len(u)))


def _signed(cells: Cells, sign: float) -> Cells:
    """The same with more being worse."""
    return Cells(
        cells.keys,
        tuple(sign * v for v in cells.values),
        sign * cells.means,
        sign * cells.draws,
        cells.paired,
    )


def _rows(cells: Cells, doses: list[float], joint: pd.DataFrame, keys: np.ndarray) -> pd.DataFrame:
    base, rows = cells.values[0], []
    values, samples = joint["value"].to_numpy(np.float64), joint["samples"].to_list()
    shared = all(x is not None for x in samples) and len({len(x) for x in samples}) == 1
    table = np.stack(samples).astype(np.float64) if shared else None
    test = paired_difference if cells.paired else unpaired_difference
    for i, dose in enumerate(doses, start=1):
        own = keys == i - 1
        common = 0.0 if table is None else sequence_variance(table[own].mean(0) - table[keys == -1].mean(0))
        found = test(base, cells.values[i], sequences=common)
        ends = (found.value, found.lo, found.hi, found.p)
        rows.append((dose, int(own.sum()), float(values[own].mean()), *ends, values[own].tolist()))
    return pd.DataFrame(rows, columns=list(DOSE_COLUMNS))


def _edge(at: float, draws: Float[np.ndarray, " draws"], seeds: int, *, side: int) -> Edge:
    if np.isnan(at):
        return Edge(np.nan, np.nan, np.nan)
    half = half_width(draws, seeds)
    lo, hi = float(np.exp(at - half)), float(np.exp(at + half))
    if np.isnan(draws).mean() > ALPHA:  # open in more resamples than an interval may leave out
        lo, hi = (0.0, hi) if side == 0 else (lo, np.inf)
    return Edge(float(np.exp(at)), lo, hi)


@dataclass(frozen=True)
class Boundary:
    """How one end of the damaging band moves with model size: the fit E = k N^a.

    Attributes:
        side: left or right.
        k, a: of the fit; lo and hi are the ends of a's interval.
        sizes: how many sizes have that end within their doses.
    """

    side: str
    k: float
    a: float
    lo: float
    hi: float
    sizes: int


def boundary_fit(bands: Mapping[float, DoseResponse]) -> list[Boundary]:
    """How the ends of the damaging band move with size.

    Args:
        bands: size -> its dose-response, all over the same fact.

    Returns:
        Left and right; NaN where fewer than two sizes have that end.
    """
    out = []
    for i, side in enumerate(("left", "right")):
        edges = {size: getattr(one, side) for size, one in bands.items()}
        known = sorted(size for size, edge in edges.items() if np.isfinite(edge.dose))
        if len(known) < 2:
            out.append(Boundary(side, *(np.nan,) * 4, len(known)))
            continue
        x = np.log(known)
        y = np.log([edges[size].dose for size in known])
        n = min(len(bands[size].draws) for size in known)
        drawn = np.stack([bands[size].draws[:n, i] for size in known], axis=1)
        fits = np.stack(
            [
                (y - y.mean()) @ (x - x.mean()) / ((x - x.mean()) ** 2).sum(),
                *((drawn - drawn.mean(1, keepdims=True)) @ (x - x.mean()) / ((x - x.mean()) ** 2).sum()),
            ]
        )
        a = float(fits[0])
        seeds = min(int(bands[size].rows["seeds"].min()) for size in known)
        half = half_width(fits[1:], seeds)
        out.append(Boundary(side, float(np.exp(y.mean() - a * x.mean())), a, a - half, a + half, len(known)))
    return out
