"""The arithmetic of degradation: what repeated and synthetic data cost, in sizes, doses and verdicts, with intervals over seeds. No torch.

Every function is a pure function of a table with one row per run, or of values with one per seed.
"""

from __future__ import annotations

from byrote.probes.degrade.verdicts import (
    Claimed,
    Rule,
    Verdict,
    corrected,
    judge,
    judge_effects,
    onset_effects,
    relabelled_rate,
)

__all__ = [
    "Claimed",
    "Rule",
    "Verdict",
    "corrected",
    "judge",
    "judge_effects",
    "onset_effects",
    "relabelled_rate",
]
