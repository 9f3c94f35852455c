"""The sentences that say what happened in a run and between runs: one place, read by every face. No torch."""

from __future__ import annotations

from typing import Any


def sequence_seed(results: Any) -> int | None:
    """Seed of the test sequences of a run, None where it does not say."""
    return (results.meta.get("provenance") or {}).get("seed")


def training_seed(results: Any) -> int | None:
    """Seed the model was trained with, None where the series does not say."""
    return ((results.meta.get("series") or {}).get("manifest") or {}).get("seed")


def seeds(results: Any) -> str:
    """``, sequence seed 0, training seed 1``: what a table's title ends in."""
    found = (("sequence", sequence_seed(results)), ("training", training_seed(results)))
    return "".join(f", {what} seed {seed}" for what, seed in found if seed is not None)
