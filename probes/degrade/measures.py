"""Everything that groups of runs say about degradation, as one tidy table: what command line, report and pages show. No torch.

Which numbers there are follows from what the runs declare and what was measured of them. A number that cannot be had is a row with the
reason; one that was requested by name and cannot be had is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.degrade.capacity import Capacity, Extraction
from byrote.probes.degrade.dependence_matrix import DependenceMatrix
from byrote.probes.degrade.descent_over_seeds import ArmCurve
from byrote.probes.degrade.dose_response import DoseResponse
from byrote.probes.degrade.effective_data import RStar
from byrote.probes.degrade.effective_size import EffectiveSize
from byrote.probes.degrade.measure_rows import MEASURES, Row
from byrote.probes.degrade.study import DegradeSettings, Study, size_of, taken_apart
from byrote.probes.groups import Group
from byrote.probes.results import Results

COLUMNS = (
    "measure", "arm", "dose", "size", "metric", "value", "lo", "hi", "p", "seeds", "unit", "how", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class Degradation:
    """What `degradation` found: one attribute per measure, None or empty where it was not computed.

    Attributes:
        rows: `COLUMNS`.
        baseline: name of the undamaged arm.
        over: the dose; "" where nothing varies.
        metric: PROBE/METRIC that is damaged.
        doses: size -> dose-response; size NaN where it is not declared.
        sizes: multipliers of `metric`; None where there is no ladder.
        groups: arms as they were taken apart, the baseline's first.
        preferential: `PREFERENTIAL_COLUMNS`; None where not sought or not to be had, as the next ones are empty then.
        displaced: name of a damaged arm, with its size where there are several -> `DISPLACEMENT_COLUMNS`.
        descents: likewise of every arm -> its curve, with its double descent.
        r_star: of effective data; None where not sought or not to be had.
        capacities: size -> memorised bits per parameter.
        matrices: (arms, accuracy or loss) -> what training on each experiment does to each.
        extractions: name of an arm, with its size where several have that name -> extraction by duplicates.
    """

    rows: pd.DataFrame
    baseline: str
    over: str
    metric: str
    doses: Mapping[float, DoseResponse]
    sizes: EffectiveSize | None
    groups: tuple[Group, ...] = field(repr=False, default=())
    preferential: pd.DataFrame | None = field(repr=False, default=None)
    displaced: Mapping[str, pd.DataFrame] = field(repr=False, default_factory=dict)
    descents: Mapping[str, ArmCurve] = field(repr=False, default_factory=dict)
    r_star: RStar | None = None
    extractions: Mapping[str, Extraction] = field(repr=False, default_factory=dict)
    capacities: Mapping[float, Capacity] = field(repr=False, default_factory=dict)
    matrices: Mapping[tuple[str, str], DependenceMatrix] = field(repr=False, default_factory=dict)

    def of(self, measure: str) -> pd.DataFrame:
        """The rows of one measure that have a number."""
        return self.rows[(self.rows["measure"] == measure) & (self.rows["reason"] == "")]


def degradation(
    named: Sequence[tuple[str, Sequence[Results]]],
    settings: DegradeSettings | None = None,
    *,
    measures: Sequence[str] = (),
) -> Degradation:
    """Compute every measure of degradation that these runs allow.

    Args:
        named: runs under the name of their arm; an arm may have several doses and sizes, which are distinguished by what runs declare.
        settings: what is held against what.
        measures: of `MEASURES`; those named must succeed. () tries all, and a measure that cannot be computed is a row with its reason.

    Raises:
        ByroteError: no runs, an unknown measure, fact or baseline, or what was requested and cannot be had.
    """
    for name in measures:
        if name not in MEASURES:
            raise ByroteError(
                f"there is no measure {name!r} of degradation", help=did_you_mean(name, MEASURES)
            )
    work = Study(taken_apart(named), settings or DegradeSettings())
    rows: list[Row] = []
    for name in measures or MEASURES:
        try:
            rows += [_row(name, one) for one in MEASURES[name](work)]
        except ByroteError as error:
            if measures:
                raise
            rows.append(_row(name, {"reason": error.message}))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    sought = set(measures or MEASURES)
    displaced = _or(lambda: work.displacements, []) if "displacement" in sought else []
    descents = _or(lambda: work.descents, []) if "double_descent" in sought else []
    capacities = _or(lambda: work.capacities, {}) if "capacity" in sought else {}
    labels = labels_of(work.groups)
    return Degradation(
        table, work.baseline, work.over or "", work.metric, _or(lambda: work.doses, {}), _or(lambda: work.sizes, None),
        tuple(work.groups),
        _or(lambda: work.preferential, None) if "preferential" in sought else None,
        {labels[id(one)]: shares for one, shares, _ in displaced},
        {labels[id(one)]: curve for one, curve in descents},
        _or(lambda: work.r_star, None) if "r_star" in sought else None,
        {labels[id(one)]: found for one, found in (_or(lambda: work.extractions, []) if "extraction" in sought else [])},
        capacities,
        _or(lambda: work.matrices, {}) if "dependence_matrix" in sought else {},
    )  # fmt: skip


def labels_of(groups: Sequence[Group]) -> dict[int, str]:
    """id of a group -> its name, with its size where several groups have that name."""
    names = [one.name for one in groups]
    return {
        id(one): one.name if names.count(one.name) == 1 else f"{one.name}, N = {size_of(one):,.0f}"
        for one in groups
    }


def _or(make: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return make()
    except ByroteError:
        return otherwise


def _row(measure: str, found: Row) -> Row:
    empty = {"arm": "", "dose": np.nan, "size": np.nan, "metric": "", "value": np.nan, "lo": np.nan, "hi": np.nan, "p": np.nan,
             "seeds": 0, "unit": "", "how": "", "reason": ""}  # fmt: skip
    return empty | {"measure": measure} | found
