"""When something appeared: the first step at which it stands significantly above its null, and still does at the next. No torch.

1. above: the whole 95% interval lies beyond chance by the smallest effect, widened for as many heads as were measured
   (Bonferroni): `surely_above` of `byrote.probes.rules`, which says so wherever a number is said to be above chance
2. lasting: so at that step and at the next measured one, or at the last
3. bracket: the measured step before it and the step itself; between the two nothing was seen

The induction verdict, which is such a test of several numbers, is dated alike (`byrote.probes.trajectory.verdict`). When a
number had made half of its own rise is another question: `byrote.probes.trajectory.crossing`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from byrote.probes.results.curve import Curve
from byrote.probes.results.rows import Cube
from byrote.probes.rules import is_lasting, surely_above
from byrote.probes.spec import ProbeInfo

Bracket = tuple[
    int | None, int
]  # (last measured step without it, None where it was there from the start; first with it)


def above_null(cube: Cube, *, smallest: float, sampled: bool) -> Bool[np.ndarray, "step layer head"]:
    """Which heads stand significantly above their null at which steps.

    Args:
        cube: of one metric.
        smallest: smallest effect, in the metric's unit.
        sampled: whether its chance was itself measured.
    """
    sign = -1.0 if cube.lower else 1.0
    ends = (cube.value, cube.hi if cube.lower else cube.lo, cube.chance)
    among = int(cube.valid.any(axis=0).sum())
    found = surely_above(*(sign * part for part in ends), smallest=smallest, among=among, sampled=sampled)
    return found & cube.valid


def first_lasting(
    cube: Cube, there: Bool[np.ndarray, "step layer head"]
) -> tuple[tuple[int, int], Bracket] | None:
    """The head that has something first and lastingly, and since when; of several the strongest there. None where none has.

    Args:
        cube: of the metric by which the strongest is known.
        there: which heads have it at which of the cube's steps.
    """
    usable = np.flatnonzero(cube.valid.any(axis=(1, 2)))
    if not usable.size:
        return None
    n_heads = there.shape[2]
    lasting = is_lasting(there[usable].reshape(usable.size, -1))
    rows = np.flatnonzero(lasting.any(axis=1))
    if not rows.size:
        return None
    at = int(rows[0])
    strength = (-1.0 if cube.lower else 1.0) * cube.value[usable[at]].reshape(-1)
    head = int(np.where(lasting[at], strength, -np.inf).argmax())
    before = cube.steps[usable[at - 1]] if at else None
    return (head // n_heads, head % n_heads), (before, cube.steps[usable[at]])


def appeared(curve: Curve, info: ProbeInfo) -> Bracket | None:
    """Since when one curve stands significantly above its null; None where it does not, or has none.

    Args:
        curve: `among` is how many it was chosen from.
        info: of its probe.
    """
    sign = -1.0 if curve.better == "lower" else 1.0
    ends = (curve.value, curve.hi if sign < 0 else curve.lo, np.full(curve.value.shape, curve.chance))
    above = surely_above(
        *(sign * part for part in ends),
        smallest=curve.smallest,
        among=curve.among,
        sampled=info.sampled_chance,
    )
    rows = np.flatnonzero(is_lasting(above[:, None])[:, 0]) if above.size else np.empty(0, dtype=int)
    if not rows.size:
        return None
    at = int(rows[0])
    return (int(curve.steps[at - 1]) if at else None), int(curve.steps[at])
