"""How often verdicts about one run at one step say something where nothing is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from byrote.probes.calibration.intervals import mem_gap_of
from byrote.probes.checks import Check, low_share, seldom, trials
from byrote.probes.effects import SMALLEST, against_chance
from byrote.probes.heads.induction import ALPHA, InductionTests, induction
from byrote.probes.memory.mem_gap import NEAR_ZERO_FRAC, mem_gap
from byrote.probes.statistics import bootstrap_mean

N, HEADS = 32, 16


def verdict_checks(tries: int, seed: int) -> Iterator[Check]:
    """False alarms of the induction verdict, of near-zero loss on members, and of `above chance`."""
    yield from _induction_checks(tries, seed)
    yield from _memory(tries, seed)
    yield from _chance(tries, seed)


def _induction_checks(tries: int, seed: int) -> Iterator[Check]:
    kinds = (
        ("nothing matches and nothing copies", 0, 0),
        ("all match prefixes and nothing copies", HEADS, 0),
        ("all copy and nothing matches", 0, HEADS),
    )
    for i, (name, matching, copying) in enumerate(kinds):
        found = trials(lambda rng, m=matching, c=copying: bool((_judged(rng, m, c).verdict == 1).any()),
                       tries, [seed, 60, i])  # fmt: skip
        yield seldom(f"induction verdict on {HEADS} heads, {name}: any called", found)
    noisy = trials(lambda rng: bool((_judged(rng, 0, 0, noisy=True).verdict == 1).any()), tries, [seed, 61])
    yield seldom(f"induction verdict on {HEADS} heads, nothing there but noise: any called", noisy)
    mixed = trials(_false_discoveries, tries, [seed, 62])
    yield low_share("induction verdict, 16 true heads among 64: share of those called that are false", mixed)
    for name in ("q_prefix", "q_copying"):
        shares = trials(lambda rng, name=name: _false_q(rng, name), tries, [seed, 67])
        yield low_share(
            f"induction {name}, 8 true heads among 64: share of those below 5% that are false", shares
        )


def _judged(
    rng: np.random.Generator, matching: int, copying: int, *, heads: int = HEADS, noisy: bool = False
) -> InductionTests:
    """Tests of heads of which the first so many match prefixes, or copy; a null head's scores are those of its null.

    The noise is such that the smallest effect alone keeps nothing out.
    """
    level, copies_by = ((0.3, 0.7), (0.1, 0.9)) if noisy else ((2, 62), (6, 54))
    prefix, jittered, null = rng.beta(*level, (3, N, heads))
    copies = 2 * rng.beta(*copies_by, (N, heads)) - 1
    prefix[:, :matching], jittered[:, :matching] = rng.beta(40, 10, (2, N, matching))
    copies[:, :copying] = 2 * rng.beta(20, 20, (N, copying)) - 1
    chance = np.full(heads, level[0] / sum(level)), np.full(heads, -0.8)
    return induction(prefix, null, jittered, chance[0], copies, chance[1])


def _false_discoveries(rng: np.random.Generator) -> float:
    """Of 64 heads 16 match and copy, and 24 only match: the share of calls that are false."""
    called = _judged(rng, 40, 16, heads=64, noisy=True).verdict == 1
    return float(called[16:].sum() / max(1, called.sum()))


def _false_q(rng: np.random.Generator, name: str) -> float:
    """The same for one of the two tests alone, where most heads are null."""
    below = _judged(rng, 8, 8, heads=64, noisy=True).q[name] < ALPHA
    return float(below[8:].sum() / max(1, below.sum()))


def _memory(tries: int, seed: int) -> Iterator[Check]:
    flagged = trials(lambda rng: mem_gap_of(rng, NEAR_ZERO_FRAC).near_zero == 1, tries, [seed, 63])
    yield seldom(f"mem_gap near_zero where members have {NEAR_ZERO_FRAC:.0%} of the twins' loss", flagged)
    few = trials(_few_not_memorised, tries, [seed, 64])
    yield seldom(
        f"mem_gap near_zero where one member in {round(1 / NEAR_ZERO_FRAC)} is not memorised, the others wholly",
        few,
    )


def _few_not_memorised(rng: np.random.Generator) -> bool:
    loss = rng.lognormal(0.5, 0.4, 64)
    known = rng.random(64) >= NEAR_ZERO_FRAC
    return mem_gap(np.where(known, 0.0, loss), rng.lognormal(0.5, 0.4, 64), np.ones(64)).near_zero == 1


def _chance(tries: int, seed: int) -> Iterator[Check]:
    yield seldom(
        f"strongest of {HEADS} heads, all at chance: told as above chance",
        trials(_strongest, tries, [seed, 65]),
    )
    yield seldom(
        "recall_vs_copy, members like twins: a share told as above chance", trials(_recall, tries, [seed, 66])
    )


def _strongest(rng: np.random.Generator) -> bool:
    """Scores so noisy that the smallest effect alone keeps nothing out."""
    found = bootstrap_mean(rng.beta(0.3, 0.7, (N, HEADS)))
    best = int(found.value.argmax())
    ends = (float(found.value[best]), float(found.lo[best]), float(found.hi[best]))
    return against_chance(*ends, chance=0.3, smallest=SMALLEST, among=HEADS) != "at"


def _recall(rng: np.random.Generator) -> bool:
    """Shares of 12 tokens recalled of 32 members and of 32 twins, whose mean stands for chance."""
    members, twins = rng.binomial(12, rng.beta(1, 4, (2, N))) / 12
    found = bootstrap_mean(members[:, None])
    ends = (float(found.value[0]), float(found.lo[0]), float(found.hi[0]))
    return against_chance(*ends, chance=float(twins.mean()), smallest=SMALLEST, sampled=True) != "at"
