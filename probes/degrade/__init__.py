"""The arithmetic of degradation: what repeated and synthetic data cost, in sizes, doses and verdicts, with intervals over seeds. No torch.

Every function is a pure function of a table with one row per run (`run_rows` makes it of results), or of values with one per seed.
"""

from __future__ import annotations

from byrote.probes.degrade.capacity import (
    Capacity,
    Extraction,
    capacity,
    extraction_counts,
    extraction_threshold,
)
from byrote.probes.degrade.counterfactual import Counterfactual, counterfactual
from byrote.probes.degrade.dependence import Dependence, dependence
from byrote.probes.degrade.dependence_matrix import DependenceMatrix, dependence_matrix
from byrote.probes.degrade.descent_over_seeds import ArmDescent, double_descent
from byrote.probes.degrade.displacement import displacement
from byrote.probes.degrade.dose_response import (
    Boundary,
    DoseResponse,
    Peak,
    boundary_fit,
    damage_by_arm,
    dose_response,
)
from byrote.probes.degrade.effective_data import RStar, effective_data, fit_r_star, with_unique_tokens
from byrote.probes.degrade.effective_size import EffectiveSize, Ladder, effective_size
from byrote.probes.degrade.measures import Degradation, degradation
from byrote.probes.degrade.member_rows import member_rows
from byrote.probes.degrade.near_zero import NearZero, near_zero
from byrote.probes.degrade.noise_floor import Churn, churn, noise_floor, prediction_churn
from byrote.probes.degrade.preferential_damage import preferential_damage
from byrote.probes.degrade.runs import run_rows, shared_answers
from byrote.probes.degrade.study import DegradeSettings, by_arm
from byrote.probes.degrade.verdicts import (
    Claimed,
    Rule,
    Verdict,
    corrected,
    judge,
    judge_effects,
    judge_everywhere,
    onset_effects,
    relabelled_rate,
)

__all__ = [
    "ArmDescent",
    "Boundary",
    "Capacity",
    "Churn",
    "Claimed",
    "Counterfactual",
    "Degradation",
    "DegradeSettings",
    "Dependence",
    "DependenceMatrix",
    "DoseResponse",
    "EffectiveSize",
    "Extraction",
    "Ladder",
    "NearZero",
    "Peak",
    "RStar",
    "Rule",
    "Verdict",
    "boundary_fit",
    "by_arm",
    "capacity",
    "churn",
    "corrected",
    "counterfactual",
    "damage_by_arm",
    "degradation",
    "dependence",
    "dependence_matrix",
    "displacement",
    "dose_response",
    "double_descent",
    "effective_data",
    "effective_size",
    "extraction_counts",
    "extraction_threshold",
    "fit_r_star",
    "judge",
    "judge_effects",
    "judge_everywhere",
    "member_rows",
    "near_zero",
    "noise_floor",
    "onset_effects",
    "prediction_churn",
    "preferential_damage",
    "relabelled_rate",
    "run_rows",
    "shared_answers",
    "with_unique_tokens",
]
