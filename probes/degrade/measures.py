"""Everything that groups of runs say about degradation, as one tidy table: what command line, report and pages show. No torch.

Which numbers there are follows from what the runs declare and what was measured of them. A number that cannot be had is a row with the
reason; one that was requested by name and cannot be had is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.degrade.capacity import Capacity, Extraction
from byrote.probes.degrade.dose_response import DoseResponse
from byrote.probes.degrade.effective_size import EffectiveSize
from byrote.probes.degrade.measure_rows import MEASURES, Row
from byrote.probes.degrade.study import DegradeSettings, Study, taken_apart
from byrote.probes.groups import Group
from byrote.probes.results import Results

COLUMNS = (
    "measure", "arm", "dose", "size", "metric", "value", "lo", "hi", "p", "seeds", "unit", "how", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class Degradation:
    """What was found.

    Attributes:
        rows: `COLUMNS`.
        baseline: name of the undamaged arm.
        over: the dose; "" where nothing varies.
        metric: PROBE/METRIC that is damaged.
        doses: size -> dose-response; size NaN where it is not declared.
        sizes: multipliers of `metric`; None where there is no ladder.
        groups: arms as they were taken apart, the baseline's first.
        capacities: size -> memorised bits per parameter, likewise; empty where that was not sought or is not to be had.
        extractions: likewise name of an arm, with its size where several have that name -> extraction by duplicates.
    """

    rows: pd.DataFrame
    baseline: str
    over: str
    metric: str
    doses: Mapping[float, DoseResponse]
    sizes: EffectiveSize | None
    groups: tuple[Group, ...] = field(repr=False, default=())
    capacities: Mapping[float, Capacity] = field(repr=False, default_factory=dict)
    extractions: Mapping[str, Extraction] = field(repr=False, default_factory=dict)

    def of(self, measure: str) -> pd.DataFrame:
        """The rows of one measure that have a number."""
        return self.rows[(self.rows["measure"] == measure) & (self.rows["reason"] == "")]


def degradation(
    named: Sequence[tuple[str, Sequence[Results]]],
    settings: DegradeSettings | None = None,
    *,
    measures: Sequence[str] = (),
) -> Degradation:
    """Everything about degradation that these runs say.

    Args:
        named: runs under the name of their arm; an arm may have several doses and sizes, which are distinguished by what runs declare.
        settings: what is held against what.
        measures: of `MEASURES`; those named must succeed. () tries all, and what cannot be had is a row with its reason.

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
    return Degradation(
        table, work.baseline, work.over or "", work.metric, _or(lambda: work.doses, {}), _or(lambda: work.sizes, None),
        tuple(work.groups),
        **_memorised(work, measures or MEASURES),
    )  # fmt: skip


def _memorised(work: Study, sought: Collection[str]) -> dict[str, Any]:
    """What was memorised, as far as it was sought and is to be had."""
    capacities = _or(lambda: work.capacities, {}) if "capacity" in sought else {}
    extractions = _or(lambda: work.extractions, []) if "extraction" in sought else []
    names = [one.name for one, _ in extractions]
    named = {
        one.name
        if names.count(one.name) == 1
        else f"{one.name}, N = {one.runs[0].facts.parameters or 0:,}": found
        for one, found in extractions
    }
    return {"capacities": capacities, "extractions": named}


def _or(make: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return make()
    except ByroteError:
        return otherwise


def _row(measure: str, found: Row) -> Row:
    empty = {"arm": "", "dose": np.nan, "size": np.nan, "metric": "", "value": np.nan, "lo": np.nan, "hi": np.nan, "p": np.nan,
             "seeds": 0, "unit": "", "how": "", "reason": ""}  # fmt: skip
    return empty | {"measure": measure} | found
