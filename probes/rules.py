"""What counts as what: every threshold of a verdict, a sentence or a figure, once, with its definition and source. No torch.

Pure functions of numbers and arrays. What changes here changes what byrote says of stored results everywhere; stored
verdicts change only when their probe measures anew, with a higher version. docs/decisions/0008-one-rule.md says which
thresholds once disagreed.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from byrote.probes.spec import ProbeInfo

Flags = Bool[np.ndarray, "*shape"]
Numbers = Float[np.ndarray, "*shape"]

ALPHA = 0.05
"""How often a test that finds nothing may say that it found something, after its correction for many."""

SMALLEST = 0.05
"""Smallest effect of interest of a score between 0 or -1 and 1, and of a loss in nats.

With paired sequences any two checkpoints, and any trained head and its null, differ surely in something. Ours; what it
costs is in docs/decisions/0002-induction-verdict.md and printed by `byrote selftest`.
"""

SMALLEST_Z = 1.0
"""The same in standard deviations of a null."""

PREVIOUS_TOKEN = 0.4
"""Attention to the token before that surely makes a previous-token head: the threshold commonly taken for such heads."""

PREFIX_MATCHING = 0.4
"""Prefix matching of a head that is commonly called strong; a working threshold of the field, from no paper."""

EDITABLE_P, SURPRISING_P = 0.99, 0.001
"""Probabilities from which ToEdit resamples a token, and below which its code deletes one (arXiv:2412.14689)."""

HALF_RISEN = 0.5
"""Share of its own rise at which something is said to have appeared."""

NEAR_ZERO_FRAC = 0.1
"""Share of the loss on fresh data below which the loss on repeated data is near zero.

Hernandez et al. 2022 (arXiv:2205.10487) find the damage worst where it nears zero; they print no threshold.
"""

FAITHFUL_FRAC = 0.8
"""Share of a task that a circuit has to do by itself to count as its circuit (Tigges et al. 2024, arXiv:2407.10827)."""

TRACED_FALL = 0.5
"""Smallest fall of the probability of a member's next token, its prompt exchanged, for the member to be traced. Ours: what
may come back must be most of what there is."""

UNCLEAR: Final = "no clear change"
NOT_TESTED: Final = "not tested"  # of imported scores, which have no samples
Change = Literal["better", "worse", "higher", "lower", "no clear change", "no change", "exact", "not tested"]


def is_above(lo: Numbers, floor: Numbers | float) -> Flags:
    """Which numbers lie above a level with their whole interval; NaN does not.

    Args:
        lo: lower ends of the intervals.
        floor: the level, in the same unit.
    """
    return np.nan_to_num(lo, nan=-np.inf) > floor


def induction_verdict(
    q: Mapping[str, Numbers], lo: Mapping[str, Numbers], *, copying_measured: Flags
) -> Numbers:
    """Which heads are induction heads: they match prefixes and copy (Olsson et al. 2022, arXiv:2209.11895).

    Both tests below ALPHA, and prefix matching, copying and prefix matching on jittered blocks above their nulls by
    more than SMALLEST with their whole intervals.

    Args:
        q: `q_prefix` and `q_copying`, adjusted over heads.
        lo: lower ends of `prefix_excess`, `copying_excess` and `jitter_excess`.
        copying_measured: where copying is defined.

    Returns:
        1.0 yes, 0.0 no, NaN for a head that matches prefixes and whose copying was not measured.
    """
    above = {name: is_above(ends, SMALLEST) for name, ends in lo.items()}
    matches = (q["q_prefix"] < ALPHA) & above["prefix_excess"] & above["jitter_excess"]
    copies = (q["q_copying"] < ALPHA) & above["copying_excess"]
    verdict = (matches & copies).astype(np.float64)
    verdict[matches & ~copying_measured] = np.nan
    return verdict


def is_called(verdict: ArrayLike) -> Flags:
    """Which stored verdicts (1 yes, 0 no, NaN not measured) say yes; of one verdict, an array without axes."""
    return np.asarray(np.asarray(verdict, dtype=np.float64) == 1)


def is_previous_token_head(lo: Numbers) -> Flags:
    """Which heads surely look one token back.

    Args:
        lo: lower ends of the intervals of `previous_token`, an attention fraction.
    """
    return is_above(lo, PREVIOUS_TOKEN)


def is_lasting(there: Bool[np.ndarray, "steps heads"]) -> Bool[np.ndarray, "steps heads"]:
    """Where something is there and still there at the next measured step, or there at the last: no onset without it."""
    return there & np.concatenate([there[1:], there[-1:]])


def smallest_effect(info: ProbeInfo, metric: str) -> float:
    """Smallest change of a metric that is reported as a finding, in the metric's unit.

    Args:
        info: the probe.
        metric: one of its metrics.

    Returns:
        0.05 for fractions, scores within [-1, 1] and nats (per token, of log odds), 1 for standard deviations of a
        null, and 0 for every other unit, where no size is known to matter.
    """
    unit = info.unit_of(metric)
    if unit == "standard deviations":
        return SMALLEST_Z
    own = unit == info.unit and info.range is not None and info.range[1] <= 1
    fraction = unit.endswith("fraction") or unit == "probability"
    return SMALLEST if own or fraction or unit in ("nats", "nats of log odds") else 0.0


def judge_change(row: Mapping[str, Any], better: str | None) -> Change:
    """What a difference between two runs is reported as.

    It changed clearly when its interval excludes 0, q is below ALPHA and it is at least the smallest effect.

    Args:
        row: difference, lo, hi, n (0 where nothing was sampled), q and smallest.
        better: the metric's own direction.
    """
    if row["n"] == 0:
        return "exact" if row["difference"] else "no change"
    small = abs(row["difference"]) < row["smallest"]
    if small or row["lo"] <= 0 <= row["hi"] or not row["q"] < ALPHA:
        return UNCLEAR
    rises = row["difference"] > 0
    if better is None:
        return "higher" if rises else "lower"
    return "better" if rises == (better == "higher") else "worse"


def change(row: Any) -> str:
    """A judged difference in words: better, worse, higher, lower, no clear change, or not tested.

    Args:
        row: of a comparison, with difference, lo, hi and `change`, see `judge_change`. Whatever it says, an interval
            that holds 0 is no clear change.
    """
    lo, hi = float(row.lo), float(row.hi)
    if row.change == NOT_TESTED:
        return NOT_TESTED
    if np.isnan(lo) or np.isnan(hi) or lo <= 0 <= hi:
        return UNCLEAR
    if row.change == "exact":
        return "higher" if row.difference > 0 else "lower"
    return str(row.change)


def against_chance(
    value: float,
    lo: float,
    hi: float,
    *,
    chance: float,
    smallest: float,
    among: int = 1,
    sampled: bool = False,
) -> Literal["above", "below", "at"]:
    """Where a number stands against chance: beyond it with its whole interval, and by the smallest effect.

    Args:
        value, lo, hi: the number with its 95% interval.
        chance: the level that chance gives.
        smallest: smallest effect, in the same unit.
        among: how many numbers it was chosen from for being the highest; the interval is widened for so many tests
            (Bonferroni, its halves stretched as a normal one's).
        sampled: whether chance was itself measured, on about as many other sequences; the interval is widened by sqrt(2),
            as that of a difference.
    """
    stretch = NormalDist().inv_cdf(1 - 0.025 / max(1, among)) / NormalDist().inv_cdf(0.975)
    stretch *= 2**0.5 if sampled else 1
    if value - stretch * (value - lo) > chance and value - chance >= smallest:
        return "above"
    return "below" if value + stretch * (hi - value) < chance and chance - value >= smallest else "at"
