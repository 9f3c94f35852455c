"""Claims judged from a table of runs: verdicts of final value and onset, corrected within each paper, and their null. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.probes.claims.record import Claim, Effects, NotTestable
from byrote.probes.claims.runs_table import Runs
from byrote.probes.degrade.verdicts import Claimed, Rule, Verdict, corrected, judge_everywhere
from byrote.probes.rules import REPRODUCED
from byrote.probes.wording import plain

UNTESTABLE = "not testable here"
N_NULL = 200


@dataclass(frozen=True)
class Judgement:
    """A claim and what its runs say.

    Attributes:
        claim: as it was fixed before the runs.
        verdicts: of final value and onset; None where the claim cannot be tested.
        final_words, onset_words: what else the runs show.
        untestable: why its runs cannot show it; "" where they can, or where the claim itself says why not.
    """

    claim: Claim
    verdicts: Claimed | None
    final_words: str = ""
    onset_words: str = ""
    untestable: str = ""

    @property
    def verdict(self) -> Verdict | None:
        """The one that decides."""
        return None if self.verdicts is None else self.verdicts.verdict

    @property
    def word(self) -> str:
        """Reproduced, reproduced in direction, not reproduced, undecided, or not testable here."""
        return UNTESTABLE if self.verdict is None else self.verdict.word

    @property
    def why_not(self) -> str:
        """Why it cannot be tested; "" where it can."""
        return self.claim.untestable or self.untestable

    @property
    def words(self) -> str:
        """What the runs show, of what decides; why it cannot be tested where that is so."""
        return self.why_not or (self.final_words if self.claim.primary == "final" else self.onset_words)


def judge_claims(claims: Sequence[Claim], table: pd.DataFrame) -> list[Judgement]:
    """Every claim judged from a table of runs; those of one paper are corrected for being several.

    Args:
        claims: in any order; all that are judged of a paper have to be there, or they are corrected for too few.
        table: see `byrote.probes.claims.runs_table`.

    Raises:
        ByroteError: the table lacks runs or metrics that a claim needs.
    """
    runs, found = Runs(table), dict[str, Judgement]()
    for claim in claims:
        found[claim.name] = judge_one(claim, runs)
    for paper in dict.fromkeys(claim.paper for claim in claims):
        mine = [j for j in found.values() if j.claim.paper == paper and j.verdicts is not None]
        together = corrected([j.verdicts for j in mine if j.verdicts is not None])
        for judged, verdicts in zip(mine, together, strict=True):
            found[judged.claim.name] = Judgement(
                judged.claim, verdicts, judged.final_words, judged.onset_words
            )
    return [found[claim.name] for claim in claims]


def judge_one(claim: Claim, runs: Runs) -> Judgement:
    """One claim, uncorrected.

    Raises:
        ByroteError: the runs lack what it needs; the message names the claim.
    """
    if claim.untestable:
        return Judgement(claim, None)
    try:
        final, final_words = _judged(claim.final, claim.rule, runs, decides=claim.primary == "final")
        onset, onset_words = _judged(claim.onset, claim.onset_rule, runs, decides=claim.primary == "onset")
    except NotTestable as found:
        return Judgement(claim, None, untestable=found.reason)
    except ByroteError as error:
        raise ByroteError(f"{claim.name}: {error.message}", help=error.help) from None
    return Judgement(claim, Claimed(claim.name, claim.primary, final, onset), final_words, onset_words)


def _judged(
    effect: Callable[[Runs], Effects] | None, rule: Rule | None, runs: Runs, *, decides: bool
) -> tuple[Verdict | None, str]:
    """The verdict on one part of a claim and what the runs show; no verdict where they cannot show a part that does not decide."""
    if effect is None or rule is None:
        return None, ""
    try:
        found = effect(runs)
    except NotTestable as why:
        if decides:
            raise
        return None, why.reason
    return judge_everywhere((found.values, *found.others), rule), found.words


def null_words(claim: Claim, table: pd.DataFrame, *, n: int = N_NULL, seed: int = 0) -> Iterator[str]:
    """What a claim's rule says of runs whose arms mean nothing: labels exchanged at random within each seed.

    Args:
        claim: with `exchange`.
        table: real runs.
        n: how many relabellings are drawn; all there are where that is fewer.
        seed: of the draws.

    Yields:
        The word of the verdict that decides, uncorrected for other claims.

    Raises:
        ByroteError: the claim compares no arms.
    """
    if not claim.exchange:
        raise ByroteError(f"{claim.name} compares no arms", help="its rule has no null of exchanged labels")
    runs, only = Runs(table), frozenset(claim.exchanged) or None
    grids = {place.grid: [p for p in claim.exchange if p.grid == place.grid] for place in claim.exchange}
    sides = [(grid, seed, places) for grid, places in grids.items() for seed in runs.seeds(*places)]
    for orders in _orders([len(places) for _, _, places in sides], n, seed):
        exchanged = {
            (grid, pair): {
                (a.arm, a.size): (places[k].arm, places[k].size) for a, k in zip(places, order, strict=True)
            }
            for (grid, pair, places), order in zip(sides, orders, strict=True)
        }
        yield judge_one(claim, runs.exchanging(exchanged, only)).word


def _orders(sizes: Sequence[int], n: int, seed: int) -> Iterator[Sequence[Sequence[int]]]:
    """All ways to deal the labels anew where they are no more than n, else n random ones; each one order per seed."""
    if math.prod(map(math.factorial, sizes)) <= n:
        yield from product(*(permutations(range(size)) for size in sizes))
        return
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        yield [rng.permutation(size).tolist() for size in sizes]


def null_rate(claim: Claim, table: pd.DataFrame, *, n: int = N_NULL, seed: int = 0) -> float:
    """Share of relabelled comparisons that come out as reproduced.

    Raises:
        ByroteError: the claim compares no arms.
    """
    words = list(null_words(claim, table, n=n, seed=seed))
    return words.count(REPRODUCED) / len(words)


def as_json(judged: Judgement) -> dict[str, Any]:
    """A judgement as plain values, with the claim's own words."""
    claim = judged.claim
    return {
        "number": claim.number or None,
        "name": claim.name,
        "paper": claim.paper,
        "statement": claim.statement,
        "reported": claim.reported,
        "compared": claim.compared,
        "metric": claim.metric,
        "unit": claim.unit,
        "verdict": judged.word,
        "why": judged.words,
        "decided_by": None if judged.verdicts is None else claim.primary,
        "final": _verdict_json(
            None if judged.verdicts is None else judged.verdicts.final, judged.final_words
        ),
        "onset": _verdict_json(
            None if judged.verdicts is None else judged.verdicts.onset, judged.onset_words
        ),
        "smallest_reason": claim.reason,
        "grids": list(claim.grids),
    }


def _verdict_json(verdict: Verdict | None, words: str) -> dict[str, Any] | None:
    if verdict is None:
        return {"verdict": UNTESTABLE, "words": words} if words else None
    numbers = {
        name: _number(getattr(verdict, name))
        for name in ("value", "lo", "hi", "level", "p", "p_exact", "q", "seen")
    }
    return {
        "verdict": verdict.word,
        **numbers,
        "values": [_number(value) for value in verdict.values],
        "seeds": verdict.seeds,
        "direction": verdict.rule.direction,
        "smallest": verdict.rule.smallest,
        "how": verdict.how,
        "corrected_for": verdict.claims,
        "words": words,
    }


def _number(value: float) -> float | str | None:
    """Six significant digits; infinities in words, which JSON has none for."""
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    found = plain(value)
    return None if found is None else float(f"{found:.6g}")
