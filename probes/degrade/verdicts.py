"""Verdicts on claims: does an effect of a stated direction and size show over training seeds? No torch.

1. a `Rule` is fixed before the runs: the direction, the smallest effect of interest, pairs by seed or not, means or ranks
2. effect = mean over seeds of arm minus control, seed by seed (Student), or B's mean minus A's (Welch); of ranks the median
   shift with the interval of the signed-rank or the rank-sum test, where "never" is infinite
3. p of the test, one-sided in the direction that was stated, and p of the exact permutation of signs or labels beside it; both
   must be below 5%. Of 5 pairs the smallest exact p is 1/32: it is a guard against outliers, and Student's p, which can be
   smaller, is the one that is corrected for the number of claims of a paper (Holm). Ranks have the exact p only
4. the word is `rules.claim_word`'s, and no claim is reproduced with fewer than 5 seeds a side
5. power: the effect that would have been called reproduced in 80% of repetitions (noncentral t; for ranks divided by the root of
   3/pi, their efficiency on normal values, and infinite where so few seeds cannot reach 5% after correction)

Calibration on relabelled nulls: docs/calibration.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.probes.rules import ALPHA, POWER, REPRODUCED, ClaimWord, claim_word
from byrote.probes.seed_statistics import (
    detectable,
    equivalence,
    label_p,
    least_p,
    paired_difference,
    shift_interval,
    sign_flip_p,
    signed_rank_interval,
    unpaired_difference,
)
from byrote.probes.statistics import LEVEL, holm

Direction = Literal["rises", "falls", "stays"]
_RANK_EFFICIENCY = 3 / math.pi  # of the signed-rank and the rank-sum test on normal values (Pitman)


@dataclass(frozen=True)
class Rule:
    """How a claim is judged, fixed before its runs.

    Attributes:
        direction: what the arm's value does against the control's: rises, falls, or stays (a claim of no change).
        smallest: smallest effect of interest, in the metric's unit; above 0 for a claim of no change.
        kind: "mean", or "ranks" where a value may be "never" (inf), such as the step of an onset.
        paired: whether the runs of either side are the same seeds in the same order.

    Raises:
        ByroteError: another direction or kind, a negative smallest effect, or no change judged by ranks or without a size.
    """

    direction: Direction
    smallest: float
    kind: Literal["mean", "ranks"] = "mean"
    paired: bool = True

    def __post_init__(self) -> None:
        if self.direction not in ("rises", "falls", "stays") or self.kind not in ("mean", "ranks"):
            raise ByroteError(
                f"a claim cannot be judged by {self.direction!r} and {self.kind!r}",
                help="directions are rises, falls and stays; kinds are mean and ranks",
            )
        if not (math.isfinite(self.smallest) and self.smallest >= 0):
            raise ByroteError(
                f"the smallest effect is {self.smallest}", help="give a number from 0, in the metric's unit"
            )
        if self.direction == "stays" and (self.kind == "ranks" or self.smallest == 0):
            raise ByroteError(
                "a claim of no change needs means and a smallest effect above 0",
                help="give the size from which a change would matter",
            )

    @property
    def sign(self) -> int:
        """-1 where the value is expected to fall."""
        return -1 if self.direction == "falls" else 1


@dataclass(frozen=True)
class Verdict:
    """The verdict of several seeds on one effect.

    Attributes:
        word: reproduced, reproduced in direction, not reproduced, or undecided.
        rule: how it was judged.
        value: the effect, arm minus control.
        lo, hi: 95% interval over seeds, and sequences where their variance was given; of no change still the 95% one.
        level: its coverage; below 0.95 for ranks of five pairs.
        p: one-sided, in the stated direction; of equivalence for a claim of no change.
        p_exact: one-sided, of the exact permutation.
        q: p corrected for the number of claims, see `corrected`; p until then.
        seeds_a, seeds_b: runs of the control and of the arm.
        values: the effect of each seed where paired, else the arm's values minus the control's mean (its median, of ranks).
        seen: effect that would have been called in 80% of repetitions; for no change, the smallest margin that would have.
        how: paired by seed, Welch, signed ranks or rank sums.
        claims: how many it was corrected for.
    """

    word: ClaimWord
    rule: Rule
    value: float
    lo: float
    hi: float
    level: float
    p: float
    p_exact: float
    q: float
    seeds_a: int
    seeds_b: int
    values: tuple[float, ...]
    seen: float
    how: str
    claims: int = 1

    @property
    def seeds(self) -> int:
        """On the side that has fewer."""
        return min(self.seeds_a, self.seeds_b)


@dataclass(frozen=True)
class Claimed:
    """A claim judged by its final value and by its onset, of which one decides.

    Attributes:
        name: of the claim.
        primary: which of the two the claim is about.
        final, onset: their verdicts; None where not measured.
    """

    name: str
    primary: Literal["final", "onset"]
    final: Verdict | None = None
    onset: Verdict | None = None

    def __post_init__(self) -> None:
        if getattr(self, self.primary) is None:
            raise ByroteError(
                f"the claim {self.name!r} has no verdict on its {self.primary} value, which decides it",
                help="judge it first",
            )

    @property
    def verdict(self) -> Verdict:
        """The one that decides."""
        found = self.final if self.primary == "final" else self.onset
        assert found is not None
        return found


def judge(
    control: Sequence[float] | Float[np.ndarray, " n"],
    arm: Sequence[float] | Float[np.ndarray, " m"],
    rule: Rule,
    *,
    sequences: float = 0.0,
    seed: int = 0,
) -> Verdict:
    """Judge an arm against its control.

    Args:
        control, arm: one value per seed; pairs in the same order where the rule says so.
        rule: fixed before the runs.
        sequences: variance of the effect that is due to the choice of test sequences, see `sequence_variance`.
        seed: of the labellings drawn where there are too many to try all.

    Raises:
        ByroteError: values that are not numbers, no pairs where pairs are judged, or infinite values judged by means.
    """
    a, b = (_values(side, rule) for side in (control, arm))
    if rule.paired:
        if len(a) != len(b):
            raise ByroteError(
                f"{len(a)} runs of the control and {len(b)} of the arm cannot be paired",
                help="give the same seeds in the same order, or a rule with paired=False",
            )
        return judge_effects(_difference(b, a), rule, sequences=sequences, seed=seed)
    if rule.kind == "ranks":
        return _judged_ranks(a, b, rule, seed)
    found = unpaired_difference(a, b, sequences=sequences)
    error, df = _welch(a, b, sequences)
    exact = label_p(*((a, b) if rule.sign > 0 else (b, a)), seed=seed)
    if rule.direction == "stays":
        shifted = [label_p(a, b + rule.smallest, seed=seed), label_p(b - rule.smallest, a, seed=seed)]
        exact = max(shifted)
    values = tuple((b - a.mean()).tolist())
    return _by_means(
        rule, (found.value, found.lo, found.hi), error, df, exact, (len(a), len(b)), values, "Welch"
    )


def judge_effects(
    effects: Sequence[float] | Float[np.ndarray, " n"], rule: Rule, *, sequences: float = 0.0, seed: int = 0
) -> Verdict:
    """Judge one effect per seed: of pairs, or of anything that each run has by itself, such as a slope.

    Args:
        effects: arm minus control, seed by seed.
        rule: fixed before the runs.
        sequences: variance of their mean that is due to the choice of test sequences.
        seed: of the signs drawn where there are too many to try all.

    Raises:
        ByroteError: no effect, values that are not numbers, or infinite ones judged by means.
    """
    d = _values(effects, rule)
    n = len(d)
    if rule.kind == "ranks":
        found, exact = signed_rank_interval(d), sign_flip_p(rule.sign * d, ranks=True, seed=seed)
        error, df = _spread(d), n - 1
        return _finished(
            rule, (found.value, found.lo, found.hi), found.level, exact, exact, (n, n), tuple(d.tolist()),
            _seen_by_ranks(rule, error, df, least_p(n), 1), "signed ranks",
        )  # fmt: skip
    found_mean = paired_difference(np.zeros(n), d, sequences=sequences)
    exact = sign_flip_p(rule.sign * d, seed=seed)
    if rule.direction == "stays":
        exact = max(sign_flip_p(d + rule.smallest, seed=seed), sign_flip_p(rule.smallest - d, seed=seed))
    error = math.sqrt(_spread(d) ** 2 + sequences)
    return _by_means(
        rule, (found_mean.value, found_mean.lo, found_mean.hi), error, n - 1, exact, (n, n), tuple(d.tolist()), "paired by seed"
    )  # fmt: skip


def judge_everywhere(
    effects: Sequence[Sequence[float] | Float[np.ndarray, " n"]], rule: Rule, *, seed: int = 0
) -> Verdict:
    """Judge an effect that must hold in each of several settings, such as tables and widths.

    The claim is about the setting where the effect is weakest, whichever that is; a claim of no change about the one that changes
    most. Its p is the largest of the settings' own (intersection-union test, Berger 1982: no correction is needed, because all have
    to pass). Its interval covers the weakest effect: from the lowest lower end to the lowest upper end, where the upper ends are of
    intervals at 1 - 5% / settings, since any of them may be the lowest by chance.

    Args:
        effects: of each setting one effect per seed.
        rule: fixed before the runs.
        seed: of the signs drawn where there are too many to try all.

    Raises:
        ByroteError: no setting, or as `judge_effects` does.
    """
    if not effects:
        raise ByroteError("a claim over settings needs one", help="give the effects of at least one setting")
    found = [judge_effects(one, rule, seed=seed) for one in effects]
    if len(found) == 1:
        return found[0]
    wide = [_interval(_values(one, rule), rule, 1 - (1 - LEVEL) / len(effects)) for one in effects]
    if rule.direction == "stays":
        at = max(range(len(found)), key=lambda k: abs(found[k].value))
        lo, hi = wide[at]
    else:
        at = min(range(len(found)), key=lambda k: rule.sign * found[k].value)
        near, far = ("lo", 1) if rule.sign > 0 else ("hi", 0)
        ends = (
            rule.sign * min(rule.sign * getattr(one, near) for one in found),
            rule.sign * min(rule.sign * one[far] for one in wide),
        )
        lo, hi = sorted(ends)
    p, p_exact, seen = (float(max(getattr(one, name) for one in found)) for name in ("p", "p_exact", "seen"))
    draft = replace(
        found[at], lo=lo, hi=hi, p=p, p_exact=p_exact, q=p, seen=seen, level=min(one.level for one in found),
        seeds_a=min(one.seeds_a for one in found), seeds_b=min(one.seeds_b for one in found),
        how=f"{found[at].how}, weakest of {len(found)} settings",
    )  # fmt: skip
    return replace(draft, word=_word(draft))


def corrected(claims: Sequence[Claimed]) -> list[Claimed]:
    """Claims of one paper, corrected for being several (Holm): the verdicts that decide as one family, the others as another.

    Args:
        claims: all claims of the paper that were judged, those that failed among them.
    """
    found = {}
    for deciding in (True, False):
        places = [
            (i, part)
            for i, claim in enumerate(claims)
            for part in ("final", "onset")
            if (part == claim.primary) == deciding and getattr(claim, part) is not None
        ]
        parts = [getattr(claims[i], part) for i, part in places]
        for place, one, q in zip(places, parts, holm(np.array([one.p for one in parts])), strict=True):
            found[place] = _with_q(one, float(q), len(parts))
    return [
        replace(claim, final=found.get((i, "final")), onset=found.get((i, "onset")))
        for i, claim in enumerate(claims)
    ]


def onset_effects(
    control: Sequence[float] | Float[np.ndarray, " n"], arm: Sequence[float] | Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """How many times later the arm's onset is, seed by seed, as a logarithm: for rules of ranks.

    Args:
        control, arm: step of the onset per seed, above 0; inf where there was none.

    Returns:
        ln(arm / control): inf where only the arm never has one, -inf where only the control never has, 0 where neither has.

    Raises:
        ByroteError: steps that are not above 0, or no pairs.
    """
    a, b = (np.asarray(side, dtype=np.float64) for side in (control, arm))
    if a.shape != b.shape or not (np.r_[a, b] > 0).all():
        raise ByroteError(
            "onsets are compared seed by seed and lie above step 0",
            help="give one step per seed and side, inf where there is no onset",
        )
    return _difference(np.log(b), np.log(a))


def relabelled_rate(
    control: Sequence[float] | Float[np.ndarray, " n"],
    arm: Sequence[float] | Float[np.ndarray, " m"],
    rule: Rule,
    *,
    n: int = 200,
    seed: int = 0,
) -> float:
    """Share of null comparisons judged as reproduced, made from real runs by exchanging their labels.

    Pairs exchange their sides at random; runs that are no pairs are dealt anew. The labelling of the runs as they were is one of
    them, so that a true effect adds 2^-n of n pairs.

    Args:
        control, arm: one value per seed.
        rule: the one that judges the claim.
        n: how many relabellings are drawn; all of them where that is fewer.
        seed: of the draws.

    Raises:
        ByroteError: as `judge` does.
    """
    a, b = (np.asarray(side, dtype=np.float64) for side in (control, arm))
    rng, words = np.random.default_rng([seed, len(a), len(b)]), []
    both = np.concatenate([a, b])
    everything = rule.paired and 1 << len(a) <= n
    for i in range(1 << len(a) if everything else n):
        if rule.paired:
            turned = (i >> np.arange(len(a))) & 1 == 1 if everything else rng.random(len(a)) < 0.5
            sides = np.where(turned, b, a), np.where(turned, a, b)
        else:
            order = rng.permutation(len(both))
            sides = both[order[: len(a)]], both[order[len(a) :]]
        words.append(judge(*sides, rule, seed=seed).word)
    return words.count(REPRODUCED) / len(words)


def _values(values: Sequence[float] | np.ndarray, rule: Rule) -> Float[np.ndarray, " n"]:
    found = np.asarray(values, dtype=np.float64)
    if not len(found) or np.isnan(found).any():
        raise ByroteError(
            "a verdict needs one number per seed", help="leave out runs that were not measured, on both sides"
        )
    if rule.kind == "mean" and not np.isfinite(found).all():
        raise ByroteError(
            "a mean cannot be taken of an infinite value", help='judge by ranks: Rule(..., kind="ranks")'
        )
    return found


def _difference(b: Float[np.ndarray, " n"], a: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """b - a; 0 where both are infinite alike."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(b - a, nan=0.0, posinf=np.inf, neginf=-np.inf)


def _spread(d: Float[np.ndarray, " n"]) -> float:
    """Standard error of a mean over seeds; infinite where it is not known."""
    return float(d.std(ddof=1)) / math.sqrt(len(d)) if len(d) > 1 and np.isfinite(d).all() else math.inf


def _welch(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"], sequences: float) -> tuple[float, float]:
    errors = [_spread(x) for x in (a, b)]
    total = sum(e**2 for e in errors)
    if not 0 < total < math.inf:
        return math.sqrt(total + sequences), min(len(a), len(b)) - 1
    df = total**2 / sum(e**4 / (len(x) - 1) for e, x in zip(errors, (a, b), strict=True))
    return math.sqrt(total + sequences), df


def _by_means(
    rule: Rule,
    ends: tuple[float, float, float],
    error: float,
    df: float,
    exact: float,
    seeds: tuple[int, int],
    values: tuple[float, ...],
    how: str,
) -> Verdict:
    from scipy import special

    value = ends[0]
    if rule.direction == "stays":
        p = equivalence(value, error, df, smallest=rule.smallest)[2]
        margin = math.inf
        if df >= 1 and math.isfinite(error):  # both tests pass where the truth is 0
            margin = float(special.stdtrit(df, 1 - ALPHA) + special.stdtrit(df, (1 + POWER) / 2)) * error
        return _finished(rule, ends, 0.95, p, exact, seeds, values, margin, how)
    p = math.nan
    if df >= 1 and math.isfinite(error):
        sure = 0.0 if rule.sign * value > 0 else 1.0
        p = float(special.stdtr(df, -rule.sign * value / error)) if error > 0 else sure
    return _finished(
        rule, ends, 0.95, p, exact, seeds, values, detectable(error, df, smallest=rule.smallest, power=POWER), how
    )  # fmt: skip


def _judged_ranks(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"], rule: Rule, seed: int) -> Verdict:
    found = shift_interval(a, b)
    exact = label_p(*((a, b) if rule.sign > 0 else (b, a)), ranks=True, seed=seed)
    error, df = _welch(a, b, 0.0)
    values = tuple(_difference(b, np.full(len(b), np.median(a))).tolist())
    return _finished(
        rule, (found.value, found.lo, found.hi), found.level, exact, exact, (len(a), len(b)), values,
        _seen_by_ranks(rule, error, df, least_p(len(a), len(b)), 1), "rank sums",
    )  # fmt: skip


def _seen_by_ranks(rule: Rule, error: float, df: float, least: float, claims: int) -> float:
    if least * claims >= ALPHA:
        return math.inf
    return detectable(error / math.sqrt(_RANK_EFFICIENCY), df, smallest=rule.smallest, power=POWER)


def _interval(d: Float[np.ndarray, " n"], rule: Rule, level: float) -> tuple[float, float]:
    """Of the mean, or of the shift by ranks, over seeds."""
    found = (
        signed_rank_interval(d, level=level)
        if rule.kind == "ranks"
        else paired_difference(np.zeros(len(d)), d, level=level)
    )
    return found.lo, found.hi


def _finished(
    rule: Rule,
    ends: tuple[float, float, float],
    level: float,
    p: float,
    p_exact: float,
    seeds: tuple[int, int],
    values: tuple[float, ...],
    seen: float,
    how: str,
) -> Verdict:
    draft = Verdict("undecided", rule, *ends, level, p, p_exact, p, *seeds, values, seen, how)
    return replace(draft, word=_word(draft))


def _with_q(found: Verdict, q: float, claims: int) -> Verdict:
    least = least_p(found.seeds_a) if found.rule.paired else least_p(found.seeds_a, found.seeds_b)
    too_few = found.rule.kind == "ranks" and least * claims >= ALPHA
    new = replace(found, q=q, claims=claims, seen=math.inf if too_few else found.seen)
    return replace(new, word=_word(new))


def _word(found: Verdict) -> ClaimWord:
    lo, hi = (found.lo, found.hi) if found.rule.sign > 0 else (-found.hi, -found.lo)
    return claim_word(
        lo, hi, q=found.q, p_exact=found.p_exact, smallest=found.rule.smallest, seeds=found.seeds,
        stays=found.rule.direction == "stays",
    )  # fmt: skip
