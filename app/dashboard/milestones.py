"""When the parts of an induction circuit came: the measured steps each lies between. No Streamlit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from byrote.dashboard.findings import head_curve, run_onset
from byrote.dashboard.run_cache import run_cache
from byrote.dashboard.saved import SavedRun
from byrote.interp.axes import head_label
from byrote.probes.figures.rows import main_metric
from byrote.probes.trajectory import Curve, crossings, rise
from byrote.probes.wording import bracket, probe_name

HALF = 0.5
INDUCTION = "induction"
_PARTS = {"previous_token": "previous token", "copying_logit": "copying"}


@dataclass(frozen=True)
class Came:
    """One part and when it came.

    Attributes:
        what: `previous token`, `induction` or `copying`.
        head: label of the head that shows it.
        bracket: (last measured step without it, or None where it was there from the start; first with it).
        how: what is meant by having come.
    """

    what: str
    head: str
    bracket: tuple[int | None, int]
    how: str

    @property
    def when(self) -> str:
        """``256–512``, or ``by 512`` where it was there at the first measured step."""
        return bracket(*self.bracket)


@run_cache(1)
def milestones(run: SavedRun) -> tuple[Came, ...]:
    """Previous-token heads, induction heads and copying, as far as the results say when.

    Induction heads came with the first verdict that lasts. The others came when the strongest head had made half of its
    rise, as `byrote show --events` counts it; where that is decided by chance, from the intervals and not from sequences.
    """
    found = [_risen(run, "previous_token"), _called(run), _risen(run, "copying_logit")]
    return tuple(one for one in found if one is not None)


def _called(run: SavedRun) -> Came | None:
    if not run.has("induction", "verdict"):
        return None
    found = run_onset(run)
    if not found.found or found.bracket is None:
        return None
    return Came(INDUCTION, found.head, found.bracket, "first induction verdict that lasts")


def _risen(run: SavedRun, probe: str) -> Came | None:
    """The head that stands highest at any step, and between which steps it crossed half of its rise."""
    strongest = strongest_curve(run, probe)
    if strongest is None or strongest.layer is None or strongest.head is None:
        return None
    found = rise(strongest)
    if not found.found:
        return None
    (crossing,) = crossings(strongest, fracs=(HALF,), found=found)
    name = head_label(strongest.layer, strongest.head)
    how = f"{name} stood highest on {probe_name(probe)} and had made half of its rise"
    return Came(_PARTS[probe], name, crossing.bracket, how)


def strongest_curve(run: SavedRun, probe: str) -> Curve | None:
    """The curve of the head that stands highest at any step, with its intervals; None where no head was measured."""
    metric = main_metric(probe)
    if run.kinds.get((probe, metric)) != "head":
        return None
    cube = run.cube(probe, metric)
    if not cube.valid.any():
        return None
    at = np.where(cube.valid, cube.value, -np.inf)
    layer, head = (int(i) for i in np.unravel_index(int(at.max(axis=0).argmax()), run.shape))
    mine = head_curve(run, probe, metric, (layer, head))
    return None if mine is None else replace(mine, among=int(cube.valid.any(axis=0).sum()))
