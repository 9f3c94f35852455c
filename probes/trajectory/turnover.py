"""Turnover of the top heads, and how much of a behaviour there is whichever heads carry it. No torch.

Between neighbouring measured steps: the Jaccard similarity of the k strongest heads, and beside it the total mass of
the score over all heads. Heads may trade places while the algorithm stays: low similarity with a mass that holds is a
swap, with a mass that falls it is a loss.

Heads that no sequence sample can tell apart trade ranks by noise. A swap is `sure` only when a head that leaves and one
that enters are in the opposite order at the two steps and each is above chance by more than the smallest effect while it
is on top (t-tests, Bonferroni over pairs of heads and steps, 5%).

Total mass:
1. The heads that were measured at every measured step.
2. Per step and sequence, the sum over these heads of score minus chance.
3. Its mean over sequences, with the bootstrap interval of that mean: heads share their sequences, so the sum is
   resampled, not its parts. Where no per-sequence values are stored the heads' intervals are added as if independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from byrote.checkpoints.errors import ByroteError
from byrote.interp.axes import head_label
from byrote.probes.overlap import jaccard, random_jaccard
from byrote.probes.results.curve import Curve
from byrote.probes.results.table import Table
from byrote.probes.rules import ALPHA
from byrote.probes.statistics import N_RESAMPLES, bootstrap_mean, ends, normal_sf, p_greater, resampled_means

TURNOVER_COLUMNS = [
    "step_a", "step_b", "k", "jaccard", "lo", "hi", "random", "mass_a", "mass_b", "change", "change_lo", "change_hi",
    "left", "entered", "sure", "n",
]  # fmt: skip


def turnover(
    results: Table, *, probe: str = "prefix_matching", metric: str = "score", k: int = 4, seed: int = 0
) -> pd.DataFrame:
    """One row per pair of neighbouring measured steps.

    Args:
        results: of one run.
        probe, metric: of heads.
        k: how many heads count as on top; at most half of them.
        seed: of the resampling.

    Returns:
        `jaccard` with its 95% interval and `random`, what two random sets of k heads share on average; `mass_a` and
        `mass_b`, score minus chance summed over all heads, and their change with its interval; `left` and `entered`,
        the heads; `sure`, whether any of them significantly traded places; `n` sequences. Of imported scores there are no
        intervals, and nothing is sure.

    Raises:
        ByroteError: the metric has no values per head, or k is below 1.
    """
    if k < 1:
        raise ByroteError(f"turnover of the top {k} heads", help="take k of 1 or more")
    heads = {key: c for key, c in results.curves(probe, metric).items() if key is not None}
    if not heads:
        raise ByroteError(
            f"{probe}/{metric} has no values per head in {results.run}", help="take a head probe"
        )
    return turnover_of(heads, k=k, seed=seed)


def turnover_of(heads: Mapping[tuple[int, int], Curve], *, k: int, seed: int = 0) -> pd.DataFrame:
    """The same from the curves of some heads, one or more; `k` is 1 or more."""
    whole = max(len(c.steps) for c in heads.values())
    heads = {key: c for key, c in heads.items() if len(c.steps) == whole}
    k = max(1, min(k, len(heads) // 2))
    grid = Grid(heads, k, seed)
    return pd.DataFrame([grid.row(i) for i in range(whole - 1)], columns=TURNOVER_COLUMNS)


class Grid:
    """Every head's curve, resampled together: the rows of `turnover`, one by one."""

    def __init__(self, heads: Mapping[tuple[int, int], Curve], k: int, seed: int) -> None:
        self.curves, self.k = list(heads.values()), k
        self.labels = [head_label(*key) for key in heads]
        self.first = self.curves[0]
        self.value = np.stack([c.value for c in self.curves])
        self.chance = np.array([0.0 if np.isnan(c.chance) else c.chance for c in self.curves])
        self.seed = seed
        self._drawn: dict[int, Float[np.ndarray, "draws heads"]] = {}

    def draws(self, i: int) -> Float[np.ndarray, "draws heads"]:
        """Every head at step i in each resample; the two latest steps are cached."""
        if i not in self._drawn:
            self._drawn = {step: values for step, values in self._drawn.items() if step == i - 1}
            self._drawn[i] = self._resampled(i)
        return self._drawn[i]

    def _resampled(self, i: int) -> Float[np.ndarray, "draws heads"]:
        samples = [c.samples for c in self.curves if c.samples is not None]
        if len(samples) == len(self.curves) and len({len(s) for s in samples}) == 1:
            return resampled_means(np.stack([s[:, i] for s in samples], axis=1), seed=self.seed)
        rng = np.random.default_rng([self.seed, i])
        error = np.array([c.error[i] for c in self.curves])
        return self.value[:, i] + error * rng.standard_normal((N_RESAMPLES, len(self.curves)))

    def row(self, i: int) -> dict[str, object]:
        """Step i against step i + 1."""
        a, b = self._top(self.value[None, :, i])[0], self._top(self.value[None, :, i + 1])[0]
        before, after = self.draws(i), self.draws(i + 1)
        drawn = jaccard(self._top(before), self._top(after))
        mass = self.value.sum(0) - self.chance.sum()
        change = after.sum(1) - before.sum(1)
        (lo, hi), (change_lo, change_hi) = ends(drawn, self.first.tail), ends(change, self.first.tail)
        if self.first.imported:
            (lo, hi), (change_lo, change_hi) = np.full((2, 2), np.nan)
        left, entered = np.flatnonzero(a & ~b), np.flatnonzero(b & ~a)
        return {
            "step_a": int(self.first.steps[i]),
            "step_b": int(self.first.steps[i + 1]),
            "k": self.k,
            "jaccard": float(jaccard(a[None], b[None])[0]),
            "lo": float(lo),
            "hi": float(hi),
            "random": random_jaccard(self.k, len(self.curves)),
            "mass_a": float(mass[i]),
            "mass_b": float(mass[i + 1]),
            "change": float(mass[i + 1] - mass[i]),
            "change_lo": float(change_lo),
            "change_hi": float(change_hi),
            "left": " ".join(self.labels[h] for h in left),
            "entered": " ".join(self.labels[h] for h in entered),
            "sure": not self.first.imported and self._sure(left, entered, i),
            "n": self.first.n,
        }

    def _top(self, scores: Float[np.ndarray, "draws heads"]) -> Bool[np.ndarray, "draws heads"]:
        """Which heads are among the k strongest; ties to the earlier head."""
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self.k]
        top = np.zeros(scores.shape, dtype=bool)
        np.put_along_axis(top, order, True, axis=1)
        return top

    def _sure(self, left: Int[np.ndarray, " l"], entered: Int[np.ndarray, " e"], i: int) -> bool:
        k, heads = self.k, len(self.curves)
        tests = k * (heads - k) * (len(self.first.steps) - 1)
        for out in left.tolist():
            for into in entered.tolist():
                p = max(self._p(out, into, i), self._p(into, out, i + 1))
                weak = max(self._p_strong(out, i), self._p_strong(into, i + 1))
                if max(p, weak) * tests < ALPHA:
                    return True
        return False

    def _p_strong(self, head: int, i: int) -> float:
        """One-sided p that a head is above chance by more than the smallest effect at a step."""
        curve = replace(self.curves[head], chance=float(self.chance[head]))
        return float(curve.p_above(None, 1.0, by=curve.smallest)[i])

    def _p(self, high: int, low: int, i: int) -> float:
        """One-sided p that one head is above another at a step."""
        a, b = self.curves[high], self.curves[low]
        if a.samples is not None and b.samples is not None and len(a.samples) == len(b.samples):
            return float(p_greater(a.samples[:, i : i + 1] - b.samples[:, i : i + 1])[0])
        apart, spread = a.value[i] - b.value[i], np.hypot(a.error[i], b.error[i])
        return float(normal_sf(apart / spread)) if spread > 0 else float(apart <= 0)


MASS_COLUMNS = ["step", "value", "lo", "hi", "heads", "n"]


def total_mass(
    results: Table,
    *,
    probe: str = "prefix_matching",
    metric: str = "score",
    seed: int = 0,
    sequences: bool = True,
) -> pd.DataFrame:
    """Score minus chance summed over all heads, per measured step; of prefix matching, the induction mass.

    Args:
        results: of one run. Steps that lint leaves out are not used.
        probe, metric: of heads.
        seed: of the resampling.
        sequences: read the per-sequence values, from a file per step; without them intervals are those of independent heads.

    Returns:
        `step`, `value` with its 95% interval `lo` and `hi` (in units of the score; below 0 where heads are below
        chance), `heads` in the sum, `n` sequences.

    Raises:
        ByroteError: the metric has no values per head.
    """
    rows = results.rows(probe, metric)
    rows = rows[
        rows["valid"].astype(bool) & rows["head"].notna() & rows["src_head"].isna() & rows["position"].isna()
    ]
    if rows.empty:
        raise ByroteError(
            f"{probe}/{metric} has no values per head in {results.run}", help="take a head probe"
        )
    counts = rows.groupby(["layer", "head"])["step"].transform("nunique")
    rows = rows[counts == rows["step"].nunique()]
    if rows.empty:
        raise ByroteError(
            f"no head of {results.run} was measured on {probe}/{metric} at every step", help="run it again"
        )
    rows = rows.assign(chance=rows["chance"].fillna(0.0), error=(rows["hi"] - rows["lo"]) ** 2 / 4)
    grouped = rows.groupby("step")
    chance, value = grouped["chance"].sum(), grouped["value"].sum()
    half = np.sqrt(grouped["error"].sum(min_count=1))  # none where there are no intervals
    found = pd.DataFrame({"value": value - chance, "lo": value - chance - half, "hi": value - chance + half})
    resampled = _mass_intervals(results, probe, metric, rows, seed) if sequences else {}
    for step, (lo, hi) in resampled.items():
        found.loc[step, ["lo", "hi"]] = lo - chance[step], hi - chance[step]
    found = found.assign(heads=grouped.size(), n=grouped["n"].min()).rename_axis("step").reset_index()
    return found[MASS_COLUMNS].astype({"step": int, "heads": int, "n": int})


def _mass_intervals(
    results: Table, probe: str, metric: str, rows: pd.DataFrame, seed: int
) -> dict[int, tuple[float, float]]:
    """Step -> interval of the summed score; only steps whose per-sequence values are all stored."""
    heads = {(int(layer), int(head)) for layer, head in zip(rows["layer"], rows["head"], strict=True)}
    sums: dict[int, np.ndarray] = {}
    seen: dict[int, int] = {}
    for _, (step, key), own in results.read_samples([(probe, metric)]):
        if key in heads and len(sums.setdefault(step, np.zeros_like(own))) == len(own):
            sums[step] = sums[step] + own
            seen[step] = seen.get(step, 0) + 1
    whole = [step for step, count in seen.items() if count == len(heads)]
    found = {}
    for step in whole:
        interval = bootstrap_mean(sums[step][:, None], seed=seed)
        found[step] = (float(interval.lo[0]), float(interval.hi[0]))
    return found
