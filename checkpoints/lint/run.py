"""Run the lint: one pass over the weights, then every check over the result of that pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.fingerprint import fingerprint
from byrote.checkpoints.lint.compare import (
    config_facts,
    non_finite_facts,
    tensor_facts,
    tokenizer_facts,
    zero_facts,
)
from byrote.checkpoints.lint.copies import Copies, constant_tensors
from byrote.checkpoints.lint.grid import grid_facts
from byrote.checkpoints.lint.outliers import excursion_facts, jump_facts, swap_facts
from byrote.checkpoints.lint.outliers import tensor_facts as outlying_tensors
from byrote.checkpoints.lint.path import WeightPath
from byrote.checkpoints.lint.report import Fact, LintReport, fact, in_order, stamp
from byrote.checkpoints.lint.scan import Scanner, StepScan
from byrote.checkpoints.series import CheckpointSeries

Event = dict[str, Any]


def lint(series: CheckpointSeries, *, on_event: Callable[[Event], None] | None = None) -> LintReport:
    """Look for wrong, doubled, exchanged, damaged and missing steps in a series.

    Every byte of weights is read once. Memory does not grow with the size of the model: of each step, hashes, norms and
    a sample of at most 2^25 numbers over all steps stay in memory.

    Args:
        series: what to lint, as opened; of a slice, only the slice is looked at.
        on_event: called with {"event": "checkpoint", "done", "total", "step", "s_per_checkpoint", "eta_s", "errors"}
            after each step.

    Returns:
        Facts; none of them is a verdict. Steps that no fact excludes are in `.usable_steps`.
    """
    stamps = {c.step: stamp(c) for c in series}
    scans, facts = _scans(series, on_event or (lambda event: None))
    for gap in series.gaps:
        step = () if gap.step is None else (gap.step,)
        facts.append(fact("unreadable", step, {"path": gap.path.name, "reason": gap.reason}))
    # A step that cannot be read is not also missing.
    steps = sorted({*series.steps, *(gap.step for gap in series.gaps if gap.step is not None)})
    facts += grid_facts(steps, scheduled=_schedule(series, steps))
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
    facts = non_finite_facts(scans, constant_tensors(scans)) + zero_facts(scans)
    path = WeightPath(scans)
    copies = Copies(path, scans)
    facts += copies.facts
    if not path.moving.any():
        return facts
    comparable = np.isfinite(np.diagonal(path.distances))
    chain = [i for i in copies.chain if comparable[i]]
    swaps, chain = swap_facts(path, chain)
    excursions, chain = excursion_facts(path, chain)
    jumps, chain = jump_facts(path, chain)
    known = {jump.steps for jump in jumps}
    tensors = outlying_tensors(path, chain, foreign=copies.foreign, known=known)
    return [*facts, *swaps, *excursions, *jumps, *tensors]


def _scans(series: CheckpointSeries, emit: Callable[[Event], None]) -> tuple[list[StepScan], list[Fact]]:
    scanner = Scanner(len(series))
    scans: list[StepScan] = []
    facts: list[Fact] = []
    started = time.monotonic()
    for done, checkpoint in enumerate(series, 1):
        step = (checkpoint.step,)
        try:
            scans.append(scanner.scan(checkpoint))
        except (ByroteError, OSError) as error:
            reason = error.message if isinstance(error, ByroteError) else str(error)
            evidence = {"path": checkpoint.path.name, "reason": reason}
            facts.append(fact("unreadable", step, evidence, leave_out=step))
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


def _schedule(series: CheckpointSeries, steps: Sequence[int]) -> list[int] | None:
    """What the lab set out to write, as far as it got; None for series that do not say."""
    schedule = series.manifest.get("schedule")
    if not isinstance(schedule, list) or not all(type(step) is int for step in schedule):
        return None
    if series.manifest.get("status") == "complete":
        return schedule
    return [step for step in schedule if step <= max(steps)]
