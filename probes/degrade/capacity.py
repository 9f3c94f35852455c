"""Capacity in bits per parameter, and extraction against the number of duplicates. No torch.

Source: Morris et al. 2025, arXiv:2505.24832: the plateau of unintended memorisation over data set sizes, about 3.6 bits per parameter;
Carlini et al. 2022, arXiv:2202.07646: extraction grows with the logarithm of duplicates. The threshold reading is byrote's own: at small
scale extraction jumps, so that a logistic curve has a place and a steepness where a line has neither.

1. capacity: bits per parameter = bits of all members over N, per run; mean over seeds at each data set size; plateau = that of the
   largest data set. It is not yet a plateau where it is significantly above the next largest, beyond the smallest effect
2. extraction: of each run, members extracted among members by number of duplicates c; logit p = a + b ln c by Firth's penalised
   likelihood (1993), finite where all or none are extracted; threshold = the c of one half, exp(-a / b); steepness b
3. interval of ln threshold and of b over seeds: Student's over the runs' own fits, or one run: not known
4. `log_linear`: by how many nats of likelihood a straight line in ln c fits worse than the logistic curve, both with two constants
5. share extracted at each c: mean over runs with Student's interval, cut to 0 and 1; Clopper and Pearson's of all members together
   where runs agree exactly, since they would else seem sure
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade.run_cells import cells_of, half_width
from byrote.probes.degrade.runs import required
from byrote.probes.few import exact_ends
from byrote.probes.results import Results
from byrote.probes.seed_statistics import SeedDifference, paired_difference, unpaired_difference

PUBLISHED_BITS = 3.6  # per parameter, Morris et al. 2025
_NO_SLOPE = (
    1e-6  # log odds per e-fold: rounding, where none or all are extracted at every number of duplicates
)
_BITS_SMALLEST = 0.05  # bits per parameter, see the card of unintended_bits


@dataclass(frozen=True)
class Capacity:
    """Memorised bits per parameter, by the number of sequences there are to memorise.

    Attributes:
        rows: one per data set size: members, seeds, value, lo, hi in bits per parameter, and values, one per seed.
        plateau, lo, hi: of the largest data set.
        rising: whether it still grows significantly.
    """

    rows: pd.DataFrame
    plateau: float
    lo: float
    hi: float
    rising: bool


def capacity(runs: pd.DataFrame, *, seed: int = 0) -> Capacity:
    """Memorised bits per parameter at the plateau: capacity.

    Args:
        runs: `run_rows` of `unintended_bits` `per_parameter`, with `pool` declared: how many sequences there were to memorise.
        seed: of the resampling.

    Raises:
        ByroteError: a pool that is not declared, or fewer than two data set sizes.
    """
    pool = required(runs, "pool", what_for="capacity")
    cells = cells_of(runs, pool, seed=seed)
    if len(cells.keys) < 2:
        raise ByroteError(
            "capacity is a plateau over data set sizes, and the runs have one",
            help="give runs of two pools or more",
        )
    rows = []
    for i, (members, values) in enumerate(zip(cells.keys, cells.values, strict=True)):
        half = half_width(cells.draws[:, i], len(values))
        mean = float(cells.means[i])
        rows.append((members, len(values), mean, mean - half, mean + half, tuple(values.tolist())))
    table = pd.DataFrame(rows, columns=["members", "seeds", "value", "lo", "hi", "values"])
    test = paired_difference if cells.paired else unpaired_difference
    rise = test(cells.values[-2], cells.values[-1])
    last = table.iloc[-1]
    return Capacity(
        table, float(last["value"]), float(last["lo"]), float(last["hi"]), bool(rise.lo > _BITS_SMALLEST)
    )


@dataclass(frozen=True)
class Extraction:
    """Share of members extracted, by how often each was trained on.

    Attributes:
        rows: one per number of duplicates: duplicates, extracted, members; value (share, mean over runs), lo, hi; values, one per run.
        threshold: duplicates at which one half is extracted, with its interval over seeds; NaN where duplicates make no difference.
        lo, hi: of the threshold.
        steepness: change of the log odds per e-fold of duplicates, over seeds.
        log_linear: nats of likelihood by which a straight line in ln duplicates is worse; below 0 it is better.
        seeds: runs.
        inside: whether the threshold lies within the numbers of duplicates that were planted.
    """

    rows: pd.DataFrame
    threshold: float
    lo: float
    hi: float
    steepness: SeedDifference
    log_linear: float
    seeds: int
    inside: bool


def extraction_threshold(counts: pd.DataFrame) -> Extraction:
    """Fit extraction against ln duplicates, run by run.

    Args:
        counts: columns run, duplicates (above 0), extracted, members.

    Raises:
        ByroteError: missing columns, impossible counts, or fewer than three numbers of duplicates.
    """
    missing = {"run", "duplicates", "extracted", "members"} - set(counts)
    if (
        missing
        or not counts["duplicates"].between(0, 1e15, inclusive="neither").all()
        or (counts["extracted"] > counts["members"]).any()
    ):
        raise ByroteError(
            "extraction by duplicates needs run, duplicates above 0, and extracted of members",
            help="make one row per run and number of duplicates",
        )
    pooled = counts.groupby("duplicates", as_index=False)[["extracted", "members"]].sum()
    if len(pooled) < 3:
        raise ByroteError(
            f"{len(pooled)} numbers of duplicates are too few for a curve",
            help="plant members at three numbers or more",
        )
    fits = []
    for _, mine in counts.groupby("run", sort=False):
        columns = (mine[name].to_numpy(np.float64) for name in ("duplicates", "extracted", "members"))
        fits.append(firth_logistic(*columns))
    found = np.array(fits)
    steep = np.where(np.abs(found[:, 1]) > _NO_SLOPE, found[:, 1], np.nan)
    places = -found[:, 0] / steep
    zero = np.zeros(len(found))
    place, steepness = paired_difference(zero, places), paired_difference(zero, found[:, 1])
    seen = pooled["duplicates"].to_numpy(np.float64)
    with np.errstate(over="ignore"):
        threshold, lo, hi = (float(end) for end in np.exp([place.value, place.lo, place.hi]))
    whole = (pooled[name].to_numpy(np.float64) for name in ("duplicates", "extracted", "members"))
    return Extraction(
        _shares(counts, pooled), threshold, lo, hi, steepness, line_deficit(*whole), len(found),
        bool(seen[0] <= threshold <= seen[-1]),
    )  # fmt: skip


def _shares(counts: pd.DataFrame, pooled: pd.DataFrame) -> pd.DataFrame:
    """The pooled counts with the share extracted and its interval."""
    rows = []
    for one in pooled.to_dict("records"):  # 5.
        mine = counts[counts["duplicates"] == one["duplicates"]]
        values = (mine["extracted"] / mine["members"]).to_numpy(np.float64)
        found = paired_difference(np.zeros(len(values)), values)
        lo, hi = (float(np.clip(end, 0.0, 1.0)) for end in (found.lo, found.hi))
        if np.ptp(values) == 0:
            lo, hi = (float(end) for end in exact_ends(np.array(one["extracted"]), np.array(one["members"])))
        rows.append(one | {"value": found.value, "lo": lo, "hi": hi, "values": tuple(values.tolist())})
    return pd.DataFrame(rows)


def extraction_counts(run: Results, step: int | None = None) -> pd.DataFrame:
    """How many members of one run were extracted, by how often each was trained on: 1, 2 to 3, 4 to 7, ... times.

    Args:
        run: with `extraction`; where `exact_match` was measured too, members that were never trained on are left out, which
            `by_repeats` counts with those of one.
        step: training step; None is the last.

    Returns:
        run, duplicates (the least of each range), extracted, members.
    """
    at = run.last_step if step is None else step
    columns = ["run", "duplicates", "extracted", "members"]
    if at is None:
        return pd.DataFrame([], columns=columns)
    rows = run.samples(at)
    out, repeats = (
        member_values(rows, *name) for name in (("extraction", "score"), ("exact_match", "repeats"))
    )
    if len(out) and len(out) == len(repeats):
        kept = (repeats > 0) & np.isfinite(out)
        ranges = 2.0 ** np.floor(np.log2(repeats[kept]))
        found = [(times, out[kept][ranges == times]) for times in np.unique(ranges)]
        counts = [(run.run, float(times), float(mine.sum()), float(len(mine))) for times, mine in found]
        return pd.DataFrame(counts, columns=columns)
    rows = run.select("extraction", "by_repeats", step=at)
    rows = rows[rows["valid"].astype(bool) & rows["position"].notna()]
    members = rows["n"].to_numpy(np.float64)
    return pd.DataFrame({
        "run": run.run,
        "duplicates": 2.0 ** rows["position"].to_numpy(np.float64),
        "extracted": np.round(rows["value"].to_numpy(np.float64) * members),
        "members": members,
    })  # fmt: skip


def member_values(rows: pd.DataFrame, probe: str, metric: str) -> Float[np.ndarray, " n"]:
    """One value per member as it was stored; empty where it was not.

    Args:
        rows: `Results.samples` of a step.
        probe, metric: of the whole model.
    """
    mine = rows[(rows["probe"] == probe) & (rows["metric"] == metric) & rows["valid"].astype(bool)]
    return np.asarray(mine["samples"].iloc[0], dtype=np.float64) if len(mine) == 1 else np.empty(0)


def firth_logistic(
    duplicates: Float[np.ndarray, " k"], extracted: Float[np.ndarray, " k"], members: Float[np.ndarray, " k"]
) -> tuple[float, float]:
    """(a, b) of logit p = a + b ln c by Firth's penalised likelihood; finite also where all or none are extracted.

    Args:
        duplicates: c, above 0.
        extracted, members: counts.
    """
    design = np.stack([np.ones(len(duplicates)), np.log(duplicates)], axis=1)
    beta = np.zeros(2)
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ beta, -30, 30)))
        weight = np.maximum(members * p * (1 - p), 1e-12)
        inverse = np.linalg.pinv(design.T @ (weight[:, None] * design))
        hat = weight * np.einsum("ki,ij,kj->k", design, inverse, design)
        step = inverse @ design.T @ (extracted - members * p + hat * (0.5 - p))
        size = float(np.abs(step).max())
        beta = beta + step * min(1.0, 2.0 / size if size else 1.0)
        if size < 1e-8:
            break
    return float(beta[0]), float(beta[1])


def line_deficit(
    duplicates: Float[np.ndarray, " k"], extracted: Float[np.ndarray, " k"], members: Float[np.ndarray, " k"]
) -> float:
    """Nats of likelihood by which the least-squares line in ln c fits worse than the logistic curve; below 0 it fits better.

    Args:
        duplicates: c, above 0, at least two different.
        extracted, members: counts.
    """
    a, b = firth_logistic(duplicates, extracted, members)
    x = np.log(duplicates)
    share = extracted / members
    slope = float(((x - x.mean()) @ (share - share.mean())) / ((x - x.mean()) ** 2).sum())
    line = share.mean() + slope * (x - x.mean())

    def likelihood(p: np.ndarray) -> float:
        p = np.clip(p, 1e-3, 1 - 1e-3)
        return float((extracted * np.log(p) + (members - extracted) * np.log(1 - p)).sum())

    return likelihood(1 / (1 + np.exp(-np.clip(a + b * x, -30, 30)))) - likelihood(line)
