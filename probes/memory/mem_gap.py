"""Memory gap: how much lower is the loss on what was trained on repeatedly than on fresh data of the same source? No torch.

Source: Hernandez et al. 2022, arXiv:2205.10487: damage is worst where the training loss on the repeated data nears
zero, their "practical diagnostic". The near-zero threshold is byrote's own: they print none.

1. loss per sequence over its first block, members and twins (exact_match)
2. gap = mean over twins - mean over members; members and twins are resampled apart, for they are not pairs
3. by_repeats: the same for the members whose repeat count c has floor(log2 c) = position
4. loss_share = mean over members / mean over twins
5. near_zero: yes when the upper end of loss_share's interval is below NEAR_ZERO_FRAC. Where the members are a sample,
   it must stay below it if as many are not memorised as their count allows (exact one-sided 95% bound; not memorised: a
   loss above NEAR_ZERO_FRAC of the twins'): where nearly all have no loss, the few that have some may be missing from
   the sample, and no interval of the mean shows it. Fewer than 29 are never enough

A share and not nats: of P members the first token alone costs ln P nats, 0.2 a token for 64 of the lab's blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from byrote.probes.few import exact_ends
from byrote.probes.results.schema import Measured, not_measured
from byrote.probes.rules import NEAR_ZERO_FRAC, moved, undecided
from byrote.probes.spec import probe
from byrote.probes.statistics import two_sample_interval


@dataclass(frozen=True)
class Estimate:
    """A value, the ends of its interval, and how many members it is of."""

    value: float
    lo: float
    hi: float
    n: int


@dataclass(frozen=True)
class MemGap:
    """Outcome of one step.

    Attributes:
        gap: in nats.
        loss_share: members' loss over twins' loss.
        near_zero: 1.0 yes, 0.0 no.
        by_repeats: floor(log2 of the repeat count) -> gap in nats of those members.
    """

    gap: Estimate
    loss_share: Estimate
    near_zero: float
    by_repeats: dict[int, Estimate]


@probe(
    unit="nats",
    inputs={
        "members": ("exact_match", "loss"),
        "twins": ("exact_match", "loss@twins"),
        "repeats": ("exact_match", "repeats"),
        "in_all": ("exact_match", "in_all"),
    },
    summary="How much lower the loss is on repeated training sequences than on fresh ones of the same source.",
    chance="0: members are predicted like twins",
    metrics={
        "gap": "mean loss on twins minus mean loss on members, over first blocks",
        "loss_share": "mean loss on members over mean loss on twins",
        "near_zero": "1 when the upper end of loss_share is below 0.1, and of a sample stays below it if as many "
        "members are not memorised as its size allows: the founding paper's sign of the worst region",
        "by_repeats": "gap of the members with floor(log2 of the repeat count) = position",
    },
    main_metric="gap",
    curve_axis="log2 of repeats",
    units={"loss_share": "fraction of the twins' loss", "near_zero": "yes (1) or no (0)"},
    smallest={"loss_share": (0.05, "half of what near_zero requires")},
    reads_as="Interval over 0: no sign of memory. near_zero says that the repeated data is all but free, not that "
    "damage has been done: look at copying and held-out loss",
    not_measured="the series carries no members and none were given (--members FILE); or no twins (--twins FILE); near_zero: fewer than 16 members",
    undefined="the loss on members or twins is not finite",
    order=270,
    version=4,
)
def mem_gap(
    members: Float[np.ndarray, " n"],
    twins: Float[np.ndarray, " m"],
    repeats: Float[np.ndarray, " n"],
    *,
    in_all: Float[np.ndarray, " n"] | None = None,
    seed: int = 0,
) -> MemGap:
    """Compare members with twins at one step.

    Args:
        members: mean loss in nats of each member.
        twins: of each twin.
        repeats: how often each member was trained on; counts below 1 stand with 1.
        in_all: how many members there are, the same for each; None where that is not known.
        seed: of the bootstrap.
    """

    def against_twins(rows: np.ndarray, of: Callable[[Any, Any], Any], *, relative: bool = False) -> Estimate:
        found = two_sample_interval(rows, twins, of, seed=seed, relative=relative)
        return Estimate(*found, len(rows))

    share = against_twins(members, lambda member, twin: member / twin, relative=True)  # 4.
    every_one = in_all is not None and len(members) >= in_all.max()
    sure = every_one or _most_possible(members / float(twins.mean())) < NEAR_ZERO_FRAC
    bucket = bucket_of(repeats)
    return MemGap(
        gap=against_twins(members, lambda member, twin: twin - member),  # 2.
        loss_share=share,
        near_zero=float(share.hi < NEAR_ZERO_FRAC and sure) if np.isfinite(share.hi) else np.nan,  # 5.
        by_repeats={
            int(b): against_twins(members[bucket == b], lambda member, twin: twin - member)
            for b in np.unique(bucket)
        },  # 3.
    )


def _most_possible(shares: Float[np.ndarray, " n"]) -> float:
    """Mean share of the twins' loss if as many members are not memorised as their count allows."""
    known = shares <= NEAR_ZERO_FRAC
    most = float(exact_ends(np.array((~known).sum()), np.array(len(shares)), level=0.9)[1])  # one-sided 95%
    rest = max(1.0, float(shares[~known].mean())) if not known.all() else 1.0
    return (1 - most) * (float(shares[known].mean()) if known.any() else 0.0) + most * rest


def bucket_of(repeats: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Floor of log2 of each repeat count: bucket b holds 2^b to 2^(b+1) - 1 repeats."""
    return np.floor(np.log2(np.maximum(repeats, 1))).astype(np.int64)


@mem_gap.finish
def finish(rows: Mapping[str, pd.DataFrame], dtype: str = "float32") -> list[Measured]:
    """The gap at one step from the stored rows of exact_match, measured in `dtype`; its first version has no `in_all`."""
    info = mem_gap.info
    missing = [part["reason"].iloc[0] for part in rows.values() if not part["valid"].iloc[0]]
    if missing:
        return [not_measured(info, metric, missing[0]) for metric in info.metrics]
    found = mem_gap(**{name: part["samples"].iloc[0].astype(np.float64) for name, part in rows.items()})
    first, last = min(found.by_repeats), max(found.by_repeats)
    least, most = (moved({"loss_share": found.loss_share.hi}, dtype, s)["loss_share"] for s in (-1, 1))
    near_zero = np.nan if least < NEAR_ZERO_FRAC <= most else found.near_zero
    flag = Estimate(near_zero, near_zero, near_zero, found.gap.n)
    reasons = "; or ".join(filter(None, (info.undefined, undecided(dtype))))
    curve = [found.by_repeats.get(bucket) for bucket in range(first, last + 1)]
    return [
        _measured("gap", found.gap, chance=0.0),
        _measured("loss_share", found.loss_share, chance=1.0),
        replace(_measured("near_zero", flag, chance=np.nan), undefined=reasons),
        _measured("by_repeats", curve, chance=0.0, position_start=first),
    ]


def _measured(
    metric: str, found: Estimate | list[Estimate | None], *, chance: float, position_start: int = 0
) -> Measured:
    """One value, or a curve; what is None is no quantity and has no row."""
    curve, nothing = isinstance(found, list), Estimate(np.nan, np.nan, np.nan, 0)
    each = [e or nothing for e in found] if isinstance(found, list) else [found]
    grid = np.array([(e.value, e.lo, e.hi, e.n) for e in each], dtype=np.float64)
    value, lo, hi, n = grid.T if curve else (part.reshape(()) for part in grid.T)
    return Measured(
        mem_gap.info.name, metric, value, lo, hi, np.full(value.shape, chance), n, ("position",) if curve else (),
        position_start=position_start, undefined=mem_gap.info.undefined,
        exists=np.array([e is not None for e in found]) if isinstance(found, list) else None,
    )  # fmt: skip
