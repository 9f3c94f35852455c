"""The sentence at the top of each page, made of data. No Streamlit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from byrote.dashboard.run_cache import run_cache
from byrote.interp.axes import head_label, parse_head
from byrote.probes.results import Cube, Results
from byrote.probes.results.curve import curves_of
from byrote.probes.rules import HALF_RISEN, against_chance, smallest_effect
from byrote.probes.trajectory import Curve, Onset, crossings, onset
from byrote.probes.wording import (
    bracket,
    chance_number,
    clean,
    interval,
    probe_name,
    sentence_case,
    step_number,
)


@run_cache(1)
def run_onset(run: Results) -> Onset:
    """When induction heads appear in a run."""
    return onset(run)


def overview(runs: list[Results]) -> str:
    """What happened in each run, or how many runs there are."""
    judged = [(run, run_onset(run)) for run in runs if run.has("induction", "verdict")]
    if not judged:
        return f"{len(runs)} run{'' if len(runs) == 1 else 's'} measured; the induction verdict is not among the probes"
    if len(judged) > 3:
        forming = sum(found.found for _, found in judged)
        return f"Induction heads form in {forming} of {len(judged)} runs"
    return "; ".join(_formed(run, found) for run, found in judged)


def trajectory(run: Results, cube: Cube, *, probe: str, step: int) -> str:
    """Where the strongest head of a probe stands and when it got there."""
    name = sentence_case(probe_name(probe))
    usable = [s for s in cube.steps if cube.valid[cube.index(s)].any()]
    if not usable:
        return f"{name} was not measured in {clean(run.run, limit=60)}"
    best = cube.strongest(usable[-1])
    assert best is not None
    at = (cube.index(usable[-1]), *best)
    score = interval(*cube.interval(usable[-1], best))
    where = f"{head_label(*best)} reaches {score} by step {step_number(usable[-1])}"
    chance = float(cube.chance[at])
    if np.isfinite(chance) and not _above_chance(run, cube, at, probe):
        level = chance_number(chance)
        return f"{name}: no head of {clean(run.run, limit=60)} rises clear of chance ({level}); the highest is {head_label(*best)}, {score}"
    rise = _steepest(cube, best, usable)
    return f"{name}: {where}" + (f", rising most between steps {rise}" if rise else "")


def _above_chance(run: Results, cube: Cube, at: tuple[int, int, int], probe: str) -> bool:
    """Whether the strongest head of a step lies above chance, by the rule of the report's tables."""
    info = run.info(probe)
    ends = (float(grid[at]) for grid in (cube.value, cube.lo, cube.hi))
    side = against_chance(
        *ends,
        chance=float(cube.chance[at]),
        smallest=smallest_effect(info, info.main_metric),
        among=int(cube.valid[at[0]].sum()),
        sampled=info.sampled_chance,
    )
    return side == "above"


def head(run: Results, cube: Cube | None, label: str, *, probe: str, step: int) -> str:
    """What one head scores at a step."""
    if cube is None or not label:
        return f"{clean(run.run, limit=60)} has no head to show"
    layer, index = parse_head(label)
    at = (cube.index(step), layer, index)
    name = probe_name(probe)
    if not cube.valid[at]:
        return f"{label}: {name} was not measured at step {step_number(step)}"
    score = interval(*cube.interval(step, (layer, index)))
    rank = cube.ranked(step).index((layer, index)) + 1
    return f"{label} scores {score} on {name} at step {step_number(step)}, rank {rank} of {int(cube.valid[at[0]].sum())}"


def head_curve(run: Results, probe: str, metric: str, head: tuple[int, int]) -> Curve | None:
    """One head over the steps, with its intervals and not its sequences; None where it was never measured."""
    return curves_of(run.run, run.rows(probe, metric, head=head, valid=True), {}, run.info(probe)).get(head)


@run_cache(512)
def half_risen(run: Results, probe: str, metric: str, head: tuple[int, int]) -> str:
    """Between which measured steps a head had made half of its rise, tested against all heads; "–" where none is sure."""
    mine = head_curve(run, probe, metric, head)
    if mine is None:
        return "–"
    n_layers, n_heads = run.shape
    crossed = crossings(replace(mine, among=n_layers * n_heads), fracs=(HALF_RISEN,))
    if not crossed:
        return "–"
    return bracket(*crossed[0].bracket)


def events(run: Results) -> list[tuple[int, str]]:
    """Steps worth jumping to: where induction heads appear, and where the last of them is lost."""
    if not run.has("induction", "verdict"):
        return []
    found = run_onset(run)
    if not found.found or found.bracket is None:
        return []
    marks = [(found.bracket[1], f"first lasting induction head ({found.head})")]
    called = run.cube("induction", "verdict")
    alive = (np.where(called.valid, called.value, 0) > 0.5).any(axis=(1, 2))
    if not found.heads_at_end and alive.any():
        last = int(np.flatnonzero(alive)[-1])
        if last + 1 < len(called.steps):
            marks.append((called.steps[last + 1], "the last induction head is lost"))
    return marks


def _formed(run: Results, found: Onset) -> str:
    name = clean(run.run, limit=60)
    if not found.found or found.bracket is None:
        return f"{name} forms no lasting induction head"
    before, at = found.bracket
    when = (
        f"by step {step_number(at)}"
        if before is None
        else f"between steps {step_number(before)} and {step_number(at)}"
    )
    lost = "" if found.heads_at_end else ", and loses them again"
    return f"{name} forms induction heads {when}{lost}"


def _steepest(cube: Cube, head: tuple[int, int], usable: list[int]) -> str:
    """The two measured steps between which a head's value rose most."""
    values = [float(cube.value[(cube.index(s), *head)]) for s in usable if cube.valid[(cube.index(s), *head)]]
    steps = [s for s in usable if cube.valid[(cube.index(s), *head)]]
    rises = np.diff(values)
    if not len(rises) or rises.max() <= 0:
        return ""
    i = int(rises.argmax())
    return f"{step_number(steps[i])} and {step_number(steps[i + 1])}"
