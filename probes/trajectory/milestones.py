"""When the parts of an induction circuit appeared: the measured steps each lies between. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from byrote.interp.axes import head_label
from byrote.probes.results.curve import curves_of
from byrote.probes.rules import HALF_RISEN, is_previous_token_head
from byrote.probes.trajectory.crossing import crossings, rise
from byrote.probes.trajectory.verdict import Onset, onset
from byrote.probes.wording import probe_name, step_number

INDUCTION = "induction"
_PARTS = {"previous_token": "previous token", "copying_logit": "copying"}


@dataclass(frozen=True)
class Milestone:
    """One part and when it appeared.

    Attributes:
        what: `previous token`, `induction` or `copying`.
        head: label of the head that shows it.
        bracket: (last measured step without it, or None where it was there from the start; first with it).
        how: what is meant by having appeared.
    """

    what: str
    head: str
    bracket: tuple[int | None, int]
    how: str

    @property
    def when(self) -> str:
        """``256–512``, or ``by 512`` where it was there at the first measured step."""
        lo, hi = self.bracket
        return f"by {step_number(hi)}" if lo is None else f"{step_number(lo)}–{step_number(hi)}"


def milestones(results: Any, *, found: Onset | None = None) -> tuple[Milestone, ...]:
    """Previous-token heads, induction heads and copying, as far as the results say when.

    Induction heads appear with the first verdict that lasts. The others appear, previous-token heads where there is one
    at any step, when the strongest head has made half of
    its rise, as `byrote show --events` counts it; where that is decided by chance, from the intervals and not from
    sequences.

    Args:
        results: of one run.
        found: the onset of induction heads, where it is known already.
    """
    parts = [_risen(results, "previous_token"), _called(results, found), _risen(results, "copying_logit")]
    return tuple(part for part in parts if part is not None)


def _called(results: Any, found: Onset | None) -> Milestone | None:
    if not results.has("induction", "verdict"):
        return None
    found = onset(results) if found is None else found
    if not found.found or found.bracket is None:
        return None
    return Milestone(INDUCTION, found.head, found.bracket, "first induction verdict that lasts")


def _risen(results: Any, probe: str) -> Milestone | None:
    """The head that stands highest at any step, and between which steps it crossed half of its rise."""
    metric = results.info(probe).main_metric if results.has(probe) else ""
    if results.kinds.get((probe, metric)) != "head":
        return None
    cube = results.cube(probe, metric)
    if not cube.valid.any() or (
        probe == "previous_token" and not (cube.valid & is_previous_token_head(cube.lo)).any()
    ):
        return None
    highest = np.where(cube.valid, cube.value, -np.inf).max(axis=0)
    layer, index = np.unravel_index(int(highest.argmax()), highest.shape)
    head = int(layer), int(index)
    rows = results.rows(probe, metric, head=head, valid=True)
    (strongest,) = curves_of(results.run, rows, {}, results.info(probe)).values()
    strongest = replace(strongest, among=int(cube.valid.any(axis=0).sum()))
    risen = rise(strongest)
    if not risen.found:
        return None
    (crossing,) = crossings(strongest, fracs=(HALF_RISEN,), found=risen)
    how = f"{head_label(*head)} stood highest on {probe_name(probe)} and had made half of its rise"
    return Milestone(_PARTS[probe], head_label(*head), crossing.bracket, how)
