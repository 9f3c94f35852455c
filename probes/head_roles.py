"""What a head is: the strongest verdict that was given on it, for titles, tables and colours. No torch.

Roles, strongest first; a head has the first that holds at the step:

1. induction head: the `induction` verdict says yes
2. previous-token head: `is_previous_token_head` of `byrote.probes.rules`
3. matches prefixes: prefix matching stands significantly above its null, and the head is called no induction head
4. attends to position 0: nearly all of its attention is there, as `rests` has it
5. looks back: attention to the token before, or to earlier copies of the same token, stands significantly above its null
6. none of these, though at least one of them was tested

Above its null: `surely_above` of `byrote.probes.rules`, for as many heads as there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from byrote.interp.axes import head_label
from byrote.probes.findings import not_called
from byrote.probes.rules import is_called, is_previous_token_head, rests, smallest_effect, surely_above
from byrote.probes.wording import chance_number, interval, probe_name, step_number

if TYPE_CHECKING:
    from byrote.probes.results.table import Table

INDUCTION, PREVIOUS, MATCHES, RESTS, LOOKS_BACK, NONE = (
    "induction head", "previous-token head", "matches prefixes", "attends to position 0", "looks back", "none of these",
)  # fmt: skip
ROLES = (INDUCTION, PREVIOUS, MATCHES, RESTS, LOOKS_BACK, NONE)
UNKNOWN = -1  # of a head on which nothing was measured

_LOOKS: Mapping[str, str] = {
    "previous_token": "the previous token",
    "duplicate_token": "earlier copies of the same token",
}
Head = tuple[int, int]


_EVIDENCE = (
    (INDUCTION, "induction", "verdict"),
    (PREVIOUS, "previous_token", "score"),
    (MATCHES, "prefix_matching", "score"),
    (RESTS, "sink", "score"),
    *((LOOKS_BACK, probe, "score") for probe in _LOOKS),
)


def role_codes(results: Table) -> Int[np.ndarray, "step layer head"]:
    """The role of every head at every step of `results.all_steps`: its place in ROLES, UNKNOWN where nothing says.

    Args:
        results: of one run.
    """

    def make() -> Int[np.ndarray, "step layer head"]:
        codes = np.full((len(results.all_steps), *results.shape), UNKNOWN)
        for role, probe, metric in _evidence(results):
            cube = results.cube(probe, metric)
            _judge(codes, role, results, probe, cube.valid, value=cube.value, lo=cube.lo, chance=cube.chance)
        return codes

    return results.cached(("role_codes",), make, lambda codes: int(codes.nbytes))


def roles(results: Table, step: int) -> dict[Head, str]:
    """(layer, head) -> the role of every head of which one was tested for at a step.

    Args:
        results: of one run.
        step: one of its steps.
    """
    codes = np.full(results.shape, UNKNOWN)
    for role, probe, metric in _evidence(results):
        rows = results.rows(probe, metric, step=step, valid=True)
        at = rows["layer"].to_numpy(dtype=np.int64), rows["head"].to_numpy(dtype=np.int64)
        valid = np.zeros(results.shape, dtype=bool)
        valid[at] = True
        found = {name: np.full(results.shape, np.nan) for name in ("value", "lo", "chance")}
        for name, grid in found.items():
            grid[at] = rows[name].to_numpy(dtype=np.float64)
        _judge(codes, role, results, probe, valid, **found)
    return {(int(l), int(h)): ROLES[int(codes[l, h])] for l, h in np.argwhere(codes != UNKNOWN)}


def _evidence(results: Table) -> list[tuple[str, str, str]]:
    """What was measured of each head, and of which role it speaks; nothing of imported scores, which have no intervals."""
    if results.imported:
        return []
    return [one for one in _EVIDENCE if results.kinds.get(one[1:]) == "head"]


def _judge(
    codes: Int[np.ndarray, "*shape"],
    role: str,
    results: Table,
    probe: str,
    valid: Bool[np.ndarray, "*shape"],
    **row: Float[np.ndarray, "*shape"],
) -> None:
    """Heads that have a role, and none stronger, get its place in `codes`; those it was tested for and that have none, NONE's."""
    codes[(codes == UNKNOWN) & valid] = ROLES.index(NONE)
    place = ROLES.index(role)
    codes[_holds(role, results, probe, **row) & valid & (codes > place)] = place


def _holds(
    role: str,
    results: Table,
    probe: str,
    *,
    value: Float[np.ndarray, "*shape"],
    lo: Float[np.ndarray, "*shape"],
    chance: Float[np.ndarray, "*shape"],
) -> Bool[np.ndarray, "*shape"]:
    if role == INDUCTION:
        return is_called(value)
    if role == PREVIOUS:
        return is_previous_token_head(lo)
    if role == RESTS:
        return rests(lo)
    info, among = results.info(probe), int(np.prod(results.shape))
    return surely_above(
        value, lo, chance, smallest=smallest_effect(info, "score"), among=among, sampled=info.sampled_chance
    )


def introduce(results: Table, head: Head, *, step: int) -> str:
    """One sentence on what a head is at a step, by its strongest verdict and the number that shows it.

    Args:
        results: of one run.
        head: (layer, head).
        step: one of its steps.
    """
    role, label, when = roles(results, step).get(head), head_label(*head), f"at step {step_number(step)}"
    if role is None:
        return f"No role of {label} was tested for {when}"
    if role == INDUCTION:
        return f"{label} is an induction head {when}{_with(results, 'prefix_matching', head, step)}"
    if role == PREVIOUS:
        return f"{label} is a previous-token head {when}{_with(results, 'previous_token', head, step)}"
    if role == MATCHES:
        why = not_called(results, step).get(head)
        but = f" and is not an induction head: {why}" if why else ""
        return f"{label} matches prefixes {when}{but}{_with(results, 'prefix_matching', head, step, after='; ' if but else ': ')}"
    if role == RESTS:
        return f"{label} attends to position 0 {when}{_with(results, 'sink', head, step)}"
    if role == LOOKS_BACK:
        probe = max(_LOOKS, key=lambda name: _above_by(results, name, head, step))
        return f"{label} attends to {_LOOKS[probe]} more than by chance {when}{_with(results, probe, head, step)}"
    return f"{label} has none of the roles tested for {when}{_with(results, 'prefix_matching', head, step)}"


def score_and_rank(
    results: Table, head: tuple[int, int], probe: str, metric: str | None = None, *, step: int
) -> str:
    """What one head scores at a step, and its rank among the heads.

    Args:
        results: of one run.
        head: (layer, head).
        probe, metric: one value per head; None is the probe's main metric.
        step: training step.
    """
    cube = results.cube(probe, metric)
    label, name, at = head_label(*head), probe_name(probe), cube.index(step)
    if not cube.valid[(at, *head)]:
        return f"{label}: {name} was not measured at step {step_number(step)}"
    rank, among = cube.ranked(step).index(head) + 1, int(cube.valid[at].sum())
    score = interval(*cube.interval(step, head))
    return f"{label} scores {score} on {name} at step {step_number(step)}, rank {rank} of {among}"


def _row(results: Table, probe: str, head: Head, step: int) -> Any:
    rows = results.rows(probe, "score", step=step, head=head, valid=True)
    return next(rows.itertuples(index=False), None)


def _above_by(results: Table, probe: str, head: Head, step: int) -> float:
    """How far a head stands above the null of a probe, -inf where not significantly."""
    row = _row(results, probe, head, step)
    if row is None:
        return float("-inf")
    ends = {name: np.array([getattr(row, name)], dtype=np.float64) for name in ("value", "lo", "chance")}
    return float(row.value - row.chance) if _holds(LOOKS_BACK, results, probe, **ends)[0] else float("-inf")


def _with(results: Table, probe: str, head: Head, step: int, *, after: str = ": ") -> str:
    """``: prefix matching 0.90 [0.88, 0.92], chance 0.05``, "" where it was not measured."""
    row = _row(results, probe, head, step)
    if row is None:
        return ""
    chance = f", chance {chance_number(row.chance)}" if np.isfinite(row.chance) else ""
    return f"{after}{probe_name(probe)} {interval(row.value, row.lo, row.hi)}{chance}"
