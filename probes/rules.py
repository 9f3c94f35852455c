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
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from byrote.probes.spec import ProbeInfo
from byrote.probes.statistics import stretched

Flags = Bool[np.ndarray, "*shape"]
Steps = Float[np.ndarray, " steps"]
Numbers = Float[np.ndarray, "*shape"]

ALPHA = 0.05
"""How often a test that finds nothing may say that it found something, after its correction for many."""

SMALLEST = 0.05
"""Smallest effect of interest of a score between 0 or -1 and 1, and of a loss in nats.

With paired sequences any two checkpoints, and any trained head and its null, differ significantly in something. Ours; what it
costs is in docs/decisions/0002-induction-verdict.md and printed by `byrote selftest`.
"""

SMALLEST_Z = 1.0
"""The same in standard deviations of a null."""

SMALLEST_LOGITS = 0.1
"""Smallest raise of a token's logit that counts: its odds grow by a tenth. Ours, as the next three are."""

SMALLEST_SHARE = 0.05
"""Share of a head's absolute raises below which induction is a sideline of it: even attention already gives 3%."""

COPIED_FRAC_OF_MEAN = 0.25
"""An id is copied where a head raises it by this share of what it raises on average: ids it does not copy get 0."""

COPIED_FRAC = 0.25
"""Share of ids that an induction head has to copy. The algorithm works on any token; heads of trained models that share
the vocabulary between them copy a third or more each, a head for a few ids 3 of 63."""

SINK = 0.8
"""Attention on position 0 above which a head is judged by the rest of its attention: there the score is at most 0.2."""

LOAD_FRAC_OF_GAIN = 0.1
"""Share of what copying is worth that heads must carry to be load-bearing, beside SMALLEST nats."""

_TWENTIETH = (SMALLEST, "one in twenty: a twentieth of the full range")
_FACTOR = (SMALLEST, "e^0.05: the probability of each token changes by a twentieth")
_ONE = (1.0, "one of them")
SMALLEST_BY_UNIT: Final[Mapping[str, tuple[float, str]]] = {
    "nats": _FACTOR,
    "nats of log odds": (SMALLEST, "e^0.05: the odds change by a twentieth"),
    "bits": (1.0, "a factor of two"),
    "standard deviations": (SMALLEST_Z, "one standard deviation of the null"),
    **dict.fromkeys(
        ("probability", "copying score", "eigenvalue positivity", "yes (1) or no (0)", "adjusted p", "AUC", "correlation"),
        _TWENTIETH,
    ),
    "logits": (SMALLEST_LOGITS, "e^0.1: the odds of a token against all others change by a tenth"),
    "0 to 4": (0.5, "half a step between two verdicts"),
    "sum of attention fractions": _TWENTIETH,
    **dict.fromkeys(
        ("pairs", "heads", "ids", "layers", "sets of heads", "edges", "sequences", "members", "words", "tokens", "tokens back", "copies", "times"),
        _ONE,
    ),
}  # fmt: skip
"""Smallest effect of interest by unit, with its reason, where a probe's own description names no other.

A fraction or share (the unit says so), and a score within [-1, 1], has 0.05; any other unit has 0: of it no size is known to
matter, and whoever writes such a probe says one (`smallest` in `byrote.probes.spec`).
"""

MIN_VERDICT_N = 16
"""Sequences below which no verdict is given: a 95% interval of a weak head's score on 8 is too narrow in one case of 12.

docs/calibration.md has the coverage of every interval at n = 8, 12, 16, 24 and 31 that this is read from.
"""

PREVIOUS_TOKEN = 0.4
"""Attention to the token before that makes a head a previous-token head: the threshold commonly taken for such heads."""

PREFIX_MATCHING = 0.4
"""Prefix matching of a head that is commonly called strong; a working threshold of the field, from no paper."""

EDITABLE_P, SURPRISING_P = 0.99, 0.001
"""Probabilities from which ToEdit resamples a token, and below which its code deletes one (arXiv:2412.14689)."""

HALF_RISEN = 0.5
"""Share of its own rise at which something is half risen; since when it is there is another question (`trajectory.appearance`)."""

NEAR_ZERO_FRAC = 0.1
"""Share of the loss on fresh data below which the loss on repeated data is near zero.

Hernandez et al. 2022 (arXiv:2205.10487) find the damage worst where it nears zero; they print no threshold.
"""

FAITHFUL_FRAC = 0.8
"""Share of a task that a circuit has to do by itself to count as its circuit (Tigges et al. 2024, arXiv:2407.10827)."""

TRACED_FALL = 0.5
"""Smallest fall of the probability of a member's next token, its prompt exchanged, for the member to be traced. Ours: what
may come back must be most of what there is."""
MIN_SEEDS = 5
"""Training seeds a side from which a difference between groups is said of the arms; below, it is said of these runs.

Of 3 seeds a side even 3 of 3 against 0 of 3 has p = 0.10 (Fisher's exact test), and intervals over three seeds at a phase
change hold the truth in 75% of cases. Of 5 a side 5 against 0 has p = 0.008.
"""

PRIMARY: Final = (("repeat_loss", "difference@jittered_repeat"), ("repeat_loss", "difference"))
"""What a comparison is decided by, named beforehand: the copying gain, where blocks have varying lengths if that was measured.

The first of them that was measured in both. Varying lengths, because a head with one fixed offset gains as much on equal ones.
"""

SECONDARY: Final = (
    ("repeat_loss", "later_blocks"),
    ("repeat_loss", "top1_later"),
    ("prefix_matching", "score:best_head"),
    ("previous_token", "score:best_head"),
    ("icl_score", "score"),
    ("inducible_loss", "difference"),
    ("held_out_loss", "loss"),
    ("mem_gap", "gap"),
)
"""The eight further metrics of a comparison, corrected together (Holm): does it copy, by which heads, and at what price."""

WORSE_THAN_UNIFORM_NATS = 0.5
"""By how much loss on text must significantly exceed that of guessing to be an alert; fresh initialisations stay within it."""

FAR_WORSE_NATS = 1.0
"""By how much it must significantly exceed that of both steps beside (of the step before, at the last): as much as a small model
learns over its whole second half of training, and far above what a spike of the loss leaves at a saved step."""

UNCLEAR: Final = "no clear change"
NOT_TESTED: Final = "not tested"  # of imported scores, which have no samples
POWER = 0.8
"""Chance with which an effect is said to have been visible: the custom of the field (Cohen 1988)."""

REPRODUCED: Final = "reproduced"
IN_DIRECTION: Final = "reproduced in direction"
NOT_REPRODUCED: Final = "not reproduced"
UNDECIDED: Final = "undecided"
ClaimWord = Literal["reproduced", "reproduced in direction", "not reproduced", "undecided"]
Change = Literal["better", "worse", "higher", "lower", "no clear change", "no change", "exact", "not tested"]


def is_above(lo: Numbers, floor: Numbers | float) -> Flags:
    """Which numbers lie above a level with their whole interval; NaN does not.

    Args:
        lo: lower ends of the intervals.
        floor: the level, in the same unit.
    """
    return np.nan_to_num(lo, nan=-np.inf) > floor


FLOORS: Final[Mapping[str, float]] = {
    "prefix_excess": SMALLEST,
    "jitter_excess": SMALLEST,
    "copying_excess": SMALLEST,
    "dla": SMALLEST_LOGITS,
    "dla_excess": SMALLEST_LOGITS,
    "dla_share": SMALLEST_SHARE,
    "copied": COPIED_FRAC,
}
"""What the lower end of each number that the induction verdict rests on must exceed. The first two are of matching."""

_HALF: Final[Mapping[str, float]] = {
    **dict.fromkeys(("prefix_excess", "jitter_excess", "signature", "joint_signature"), 0.02),
    "copying_excess": 0.005,
    **dict.fromkeys(("dla", "dla_excess"), 0.01),
    "dla_share": 0.003,
    "copied": 0.18,
    **dict.fromkeys(
        ("top_change", "excess", "over_tenth", "joint_change", "joint_excess", "over_half"), 0.02
    ),
    "loss_share": 0.01,
}
ROUNDING: Final[Mapping[str, Mapping[str, float]]] = {"bfloat16": _HALF, "float16": _HALF}
"""By how much a precision moves the numbers that verdicts rest on, in their units: twice what was measured, or more.

`python tests/bench/rounding.py` measures it; docs/calibration.md has what it found. A verdict that would be another if its
numbers moved so far either way is not given.
"""


def moved(lo: Mapping[str, Any], dtype: str, sign: int) -> dict[str, Any]:
    """Lower ends moved by what rounding to a precision does to them, down (-1) or up (1)."""
    by = ROUNDING.get(dtype, {})
    return {name: ends + sign * by.get(name, 0.0) for name, ends in lo.items()}


def undecided(dtype: str) -> str:
    """Why a verdict is not given where rounding decides it; "" in precisions that decide nothing."""
    if dtype not in ROUNDING:
        return ""
    return f"its threshold is nearer than what rounding to {dtype} moves: measure it with --dtype float32"


_MATCHING = ("prefix_excess", "jitter_excess")
_TESTED = {"q_prefix": "prefix_excess", "q_copying": "copying_excess", "q_dla": "dla_excess"}


def induction_verdict(
    q: Mapping[str, Numbers], lo: Mapping[str, Numbers], *, copying_measured: Flags
) -> Numbers:
    """Which heads are induction heads: they match prefixes and copy (Olsson et al. 2022, arXiv:2209.11895), and it shows.

    Every test below ALPHA, and every lower end above its floor.

    Args:
        q: `q_prefix`, `q_copying` and `q_dla`, adjusted over heads.
        lo: lower ends, of any of `FLOORS`; results of earlier versions have the first three only.
        copying_measured: where copying, and what it does to logits, is defined.

    Returns:
        1.0 yes, 0.0 no, NaN for a head that matches prefixes and whose copying was not measured.
    """
    met = _conditions(q, lo)
    matches = np.logical_and.reduce([met[name] for name in _MATCHING])
    verdict = np.logical_and.reduce(list(met.values())).astype(np.float64)
    verdict[matches & ~copying_measured] = np.nan
    return verdict


def unmet_condition(q: Mapping[str, Numbers], lo: Mapping[str, Numbers]) -> Numbers:
    """The first condition of `induction_verdict` that a head does not meet: its place in `FLOORS`, from 1; 0 for none."""
    met = _conditions(q, lo)
    place = np.zeros(len(lo["prefix_excess"]))
    for i, name in reversed(list(enumerate(FLOORS, start=1))):
        if name in met:
            place[~met[name]] = i
    return place


def _conditions(q: Mapping[str, Numbers], lo: Mapping[str, Numbers]) -> dict[str, Flags]:
    met = {name: is_above(ends, FLOORS[name]) for name, ends in lo.items()}
    for name, p in q.items():
        met[_TESTED[name]] = met[_TESTED[name]] & (p < ALPHA)
    return met


def load_verdict(lo: Mapping[str, float]) -> float:
    """What `load_bearing` says, as the place of its word in the catalogue.

    Args:
        lo: lower ends of signature and joint_signature (attention fractions), top_change, excess, joint_change and
            joint_excess (nats), over_tenth (top_change beyond a tenth of what copying is worth) and over_half
            (joint_change beyond half of it; NaN where the joint heads are fewer than two).

    Returns:
        0 to 4; NaN where the top heads cost enough and there is nothing to compare them with.
    """
    costs = lo["top_change"] > SMALLEST and lo["over_tenth"] > 0
    if lo["signature"] > SMALLEST and costs and lo["excess"] > SMALLEST:
        return 3.0
    controlled = np.isnan(lo["joint_excess"]) or lo["joint_excess"] > SMALLEST
    together = lo["joint_signature"] > SMALLEST and lo["joint_change"] > SMALLEST and lo["over_half"] > 0
    if together and controlled:
        return 2.0
    if costs and np.isnan(lo["excess"]):
        return float("nan")
    if lo["signature"] > SMALLEST:
        return 1.0
    return 4.0 if costs and lo["excess"] > SMALLEST else 0.0


def rests(sink: Numbers) -> Flags:
    """Which heads are judged by their attention without position 0.

    Args:
        sink: mean attention on position 0.
    """
    return is_above(sink, SINK)


def too_few(info: ProbeInfo, metric: str, n: float) -> str:
    """Why a metric that is a verdict is not given on so few sequences; "" where it is, and for metrics that are numbers.

    Args:
        info: the probe.
        metric: one of its metrics.
        n: sequences.
    """
    judges = metric in info.words or info.unit_of(metric) == "yes (1) or no (0)"
    if not judges or not 0 < n < MIN_VERDICT_N:
        return ""
    more = "more members" if ".memory." in info.module else f"--sequences {MIN_VERDICT_N} or more"
    return f"no verdict on fewer than {MIN_VERDICT_N} sequences, and there were {int(n)}: give {more}"


def is_called(verdict: ArrayLike) -> Flags:
    """Which stored verdicts (1 yes, 0 no, NaN not measured) say yes; of one verdict, an array without axes."""
    return np.asarray(np.asarray(verdict, dtype=np.float64) == 1)


def is_previous_token_head(lo: Numbers) -> Flags:
    """Which heads look one token back, significantly.

    Args:
        lo: lower ends of the intervals of `previous_token`, an attention fraction.
    """
    return is_above(lo, PREVIOUS_TOKEN)


def is_lasting(there: Bool[np.ndarray, "steps heads"]) -> Bool[np.ndarray, "steps heads"]:
    """Where something is there and still there at the next measured step, or there at the last: no onset without it."""
    return there & np.concatenate([there[1:], there[-1:]])


def smallest_effect(info: ProbeInfo, metric: str) -> float:
    """Smallest change of a metric that is reported as a finding, in the metric's unit; 0 where none is known.

    Args:
        info: the probe.
        metric: one of its metrics.
    """
    return _smallest(info, metric)[0]


def smallest_reason(info: ProbeInfo, metric: str) -> str:
    """Why `smallest_effect` is what it is; "" where there is none."""
    return _smallest(info, metric)[1]


def _smallest(info: ProbeInfo, metric: str) -> tuple[float, str]:
    unit = info.unit_of(metric)
    for name in (metric, metric.split("@")[0], unit):
        if name in info.smallest:
            return info.smallest[name]
    if unit in SMALLEST_BY_UNIT:
        return SMALLEST_BY_UNIT[unit]
    own = unit == info.unit and info.range is not None and info.range[1] <= 1
    share = unit.endswith("fraction") or unit.startswith(("fraction of", "share of", "attention fraction"))
    return _TWENTIETH if own or share else (0.0, "")


def text_loss_alarm(
    steps: Int[np.ndarray, " steps"], lo: Steps, hi: Steps, chance: Steps, *, single: bool = False
) -> tuple[Flags, Flags, Flags]:
    """Steps whose loss on text says that something is wrong with the step.

    Args:
        steps: ascending.
        lo, hi, chance: ends of the intervals, and the loss of guessing uniformly, in nats.
        single: the series has one checkpoint, whose step 0 may only mean that nothing says which step it is.

    Returns:
        Worse than guessing; far worse than the steps beside; no better, though the last step or after one that was better.
    """
    before = np.concatenate([[np.inf], hi[:-1]])  # the first step is worse than the next by learning alone
    after = np.concatenate([hi[1:], [-np.inf]])
    learned = np.logical_or.accumulate(np.concatenate([[False], hi < chance]))[: len(steps)]
    late = (learned | (np.arange(len(steps)) == len(steps) - 1)) & ((steps > 0) | single)
    worse, far = lo - chance > WORSE_THAN_UNIFORM_NATS, lo - np.maximum(before, after) > FAR_WORSE_NATS
    return worse, far & ~worse, late & (hi >= chance) & ~worse & ~far


def judge_change(row: Mapping[str, Any], better: str | None, *, seeds: int = 1) -> Change:
    """What a difference between two runs, or two groups of runs, is reported as.

    It changed clearly when its whole interval lies beyond the smallest effect and q is below ALPHA.

    Args:
        row: difference, lo, hi, n (0 where nothing was sampled), q and smallest.
        better: the metric's own direction.
        seeds: training seeds a side; below MIN_SEEDS a change has no direction of its own, only a sign.
    """
    if row["n"] == 0:
        return "exact" if row["difference"] else "no change"
    rises = row["lo"] > row["smallest"]
    if not (rises or row["hi"] < -row["smallest"]) or not row["q"] < ALPHA:
        return UNCLEAR
    if better is None or seeds < MIN_SEEDS:
        return "higher" if rises else "lower"
    return "better" if rises == (better == "higher") else "worse"


def claim_word(
    lo: float, hi: float, *, q: float, p_exact: float, smallest: float, seeds: int, stays: bool = False
) -> ClaimWord:
    """What seeds say of a claim whose direction and smallest effect were fixed before its runs.

    A claim of change is reproduced where the whole interval lies beyond the smallest effect and both p are below ALPHA; in
    direction, where it lies beyond 0 only; not reproduced, where it lies below the smallest effect. A claim of no change is
    reproduced where the interval lies within the smallest effect on either side, not reproduced where it lies outside.
    Nothing is decided with fewer than MIN_SEEDS seeds a side.

    Args:
        lo, hi: 95% interval of the effect, its sign such that the claim expects more than 0.
        q: corrected p of the claim's own test, one-sided (of equivalence where `stays`).
        p_exact: p of an exact permutation test, one-sided.
        smallest: smallest effect of interest.
        seeds: on the side that has fewer.
        stays: whether the claim is one of no change.
    """
    if seeds < MIN_SEEDS or not (lo <= hi):
        return "undecided"
    sure = q < ALPHA and p_exact < ALPHA
    if stays:
        if lo > smallest or hi < -smallest:
            return "not reproduced"
        return "reproduced" if sure else "undecided"
    if sure and lo > smallest:
        return "reproduced"
    if hi < smallest:
        return "not reproduced"
    return "reproduced in direction" if sure and lo > 0 else "undecided"


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


def surely_above(
    value: ArrayLike, lo: ArrayLike, chance: ArrayLike, *, smallest: float, among: int, sampled: bool
) -> Flags:
    """Which numbers stand above chance, as `against_chance` has it; NaN does not."""
    value, lo, chance = (np.asarray(part, dtype=np.float64) for part in (value, lo, chance))
    return np.asarray(value - stretched(among, sampled=sampled) * (value - lo) > chance + smallest)


def against_chance(
    value: float, lo: float, hi: float, *, chance: float, smallest: float, among: int = 1, sampled: bool = False
) -> Literal["above", "below", "at"]:  # fmt: skip
    """Where a number stands against chance: beyond it by the smallest effect with its whole interval.

    Args:
        value, lo, hi: the number with its 95% interval.
        chance: the level that chance gives.
        smallest: smallest effect, in the same unit.
        among, sampled: what the interval is widened for, see `stretched` in `byrote.probes.statistics`.
    """
    if surely_above(value, lo, chance, smallest=smallest, among=among, sampled=sampled):
        return "above"
    below = surely_above(-value, -hi, -chance, smallest=smallest, among=among, sampled=sampled)
    return "below" if below else "at"


LOST_FRAC = 0.25
"""Share of the called heads whose sure loss is a finding of its own; fewer that come and go are turnover."""


def is_lost(lo: float, hi: float) -> bool:
    """Whether a head is significantly weaker at a later step: intervals that do not overlap, by more than SMALLEST.

    Two 95% intervals that do not touch are a stricter test than one of the difference (p below about 0.6%).

    Args:
        lo: lower end at the earlier step; NaN is not lost.
        hi: upper end at the later step.
    """
    return lo - hi > SMALLEST


def path_carries(change: float, hi: float, *, among: int) -> bool:
    """Whether a head needs a path, significantly: its prefix matching falls by more than SMALLEST without it.

    Args:
        change: of prefix matching with the path ablated, an attention fraction.
        hi: upper end of its 95% interval, widened here for the number of paths that were ablated (Bonferroni).
        among: how many those are.
    """
    return against_chance(change, change, hi, chance=0.0, smallest=SMALLEST, among=among) == "below"


def stands_out(z: float, *, among: int) -> bool:
    """Whether the highest of several z, each standard normal under its null, is significantly above 0 (one-sided, Bonferroni).

    Args:
        z: in standard deviations of the null.
        among: how many it is the highest of.
    """
    return bool(z > NormalDist().inv_cdf(1 - ALPHA / max(1, among)))
