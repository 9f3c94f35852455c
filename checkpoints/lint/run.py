"""The lint itself: one pass over the weights, then every check over what the pass kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.fingerprint import fingerprint
from byrote.checkpoints.lint.equality import constant_tensors, equal_facts
from byrote.checkpoints.lint.excursions import excursion_facts
from byrote.checkpoints.lint.files import config_facts, non_finite_facts, tensor_facts, tokenizer_facts
from byrote.checkpoints.lint.grid import grid_facts
from byrote.checkpoints.lint.jumps import jump_facts
from byrote.checkpoints.lint.order import swap_facts
from byrote.checkpoints.lint.report import Fact, LintReport, in_order
from byrote.checkpoints.lint.saved import stamp
from byrote.checkpoints.lint.scan import Scanner, StepScan
from byrote.checkpoints.lint.single_tensors import tensor_outliers
from byrote.checkpoints.lint.trajectory import Trajectory
from byrote.checkpoints.series import Checkpoint, CheckpointSeries, Gap

Event = dict[str, Any]
UNREADABLE = "This step cannot be measured; what is said of its neighbours spans the hole."


def lint(series: CheckpointSeries, *, on_event: Callable[[Event], None] | None = None) -> LintReport:
    """Look for wrong, doubled, exchanged, damaged and missing steps in a series.

    Every byte of weights is read once. Memory does not grow with the size of the model: of each step, hashes, norms and
    a sample of at most 2^25 numbers over all steps are kept.

    Args:
        series: what to lint, as opened; of a slice, only the slice is looked at.
        on_event: called with {"event": "checkpoint", "done", "total", "step", "s_per_checkpoint", "eta_s", "errors"}
            after each step.

    Returns:
        Facts; none of them is a verdict. What no fact asks to leave out is in `.usable_steps`.
    """
    stamps = {c.step: stamp(c) for c in series}
    scans, facts = _scans(series, on_event or (lambda event: None))
    facts += [_unreadable(gap) for gap in series.gaps]
    facts += grid_facts(_all_steps(series), scheduled=_schedule(series))
    if scans:
        facts += config_facts(scans) + tokenizer_facts(scans) + tensor_facts(scans)
        facts += weight_facts(scans)
    return LintReport(
        series=series.name,
        steps=series.steps,
        facts=in_order(facts),
        fingerprints={scan.step: fingerprint(scan.hashes) for scan in scans},
        stamps=stamps,
    )


def weight_facts(scans: Sequence[StepScan]) -> list[Fact]:
    """What the weights themselves say: not finite, equal, exchanged, out of line.

    Args:
        scans: one per step, in step order, all of one `Scanner`; their samples are used up.
    """
    facts = non_finite_facts(scans, constant_tensors(scans) if len(scans) > 1 else set())
    path = Trajectory(scans)
    equal = equal_facts(path, scans)
    facts += equal.facts
    if not path.moving.any():
        return facts
    comparable = np.isfinite(np.diagonal(path.distances))
    chain = [i for i in range(len(path)) if i not in equal.shadows and comparable[i]]
    swaps, chain = swap_facts(path, chain)
    excursions, chain = excursion_facts(path, chain)
    jumps, chain = jump_facts(path, chain)
    known = {fact.steps for fact in jumps}
    tensors = tensor_outliers(path, chain, foreign=equal.foreign, known=known)
    return [*facts, *swaps, *excursions, *jumps, *tensors]


def _scans(series: CheckpointSeries, emit: Callable[[Event], None]) -> tuple[list[StepScan], list[Fact]]:
    scanner = Scanner(len(series))
    scans: list[StepScan] = []
    facts: list[Fact] = []
    started = time.monotonic()
    for done, checkpoint in enumerate(series, 1):
        try:
            scans.append(scanner.scan(checkpoint))
        except (CheckpointError, OSError) as error:
            facts.append(_broken(checkpoint, error))
        pace = (time.monotonic() - started) / done
        emit(
            {
                "event": "checkpoint",
                "done": done,
                "total": len(series),
                "step": checkpoint.step,
                "s_per_checkpoint": pace,
                "eta_s": pace * (len(series) - done),
                "errors": len(facts),
            }
        )
    return scans, facts


def _unreadable(gap: Gap) -> Fact:
    steps = () if gap.step is None else (gap.step,)
    return Fact("unreadable", "error", steps, UNREADABLE, {"path": gap.path.name, "reason": gap.reason})


def _broken(checkpoint: Checkpoint, error: Exception) -> Fact:
    reason = error.message if isinstance(error, CheckpointError) else str(error)
    evidence = {"path": checkpoint.path.name, "reason": reason}
    step = (checkpoint.step,)
    return Fact("unreadable", "error", step, UNREADABLE, evidence, leave_out=step)


def _all_steps(series: CheckpointSeries) -> list[int]:
    """Steps that are there, readable or not: a step that cannot be read is not also missing."""
    return sorted({*series.steps, *(g.step for g in series.gaps if g.step is not None)})


def _schedule(series: CheckpointSeries) -> list[int] | None:
    """What the lab set out to write, as far as it got; None for series that do not say."""
    schedule = series.manifest.get("schedule")
    if not isinstance(schedule, list) or not all(type(step) is int for step in schedule):
        return None
    last = max(_all_steps(series))
    return schedule if series.manifest.get("status") == "complete" else [s for s in schedule if s <= last]
