"""Calibration of claims: how often a claim that compares arms is called reproduced where the arms mean nothing. No torch."""

from __future__ import annotations

from collections.abc import Callable

from byrote.probes.calibration import Calibration
from byrote.probes.checks import seldom
from byrote.probes.claims.catalogue import CLAIMS
from byrote.probes.claims.judging import judge_claims
from byrote.probes.claims.null_runs import null_table
from byrote.probes.claims.record import FULL_SEEDS, QUICK_SEEDS, Claim
from byrote.probes.rules import REPRODUCED


def claim_calibrations() -> list[Calibration]:
    """One per claim that compares arms."""
    return [
        Calibration(
            f"claim {claim.name}, {_seeds(claim)} seeds of arms that mean nothing: reproduced",
            seldom,
            _trials(claim),
        )
        for claim in CLAIMS.values()
        if claim.exchange
    ]


def _seeds(claim: Claim) -> int:
    return FULL_SEEDS if claim.full_only else QUICK_SEEDS


def _trials(claim: Claim) -> Callable[[int, int], list[bool]]:
    """A tenth as many data sets as are requested elsewhere: each is a whole table of runs."""

    def run(tries: int, seed: int) -> list[bool]:
        return [called(claim, seed=seed * 100_003 + i) for i in range(max(1, tries // 10))]

    return run


def called(claim: Claim, *, seed: int) -> bool:
    """Whether a claim, judged alone, is called reproduced on runs whose arms mean nothing.

    Args:
        claim: one that compares arms.
        seed: of the simulation.
    """
    (judged,) = judge_claims([claim], null_table(claim, seeds=_seeds(claim), seed=seed))
    return judged.word == REPRODUCED
