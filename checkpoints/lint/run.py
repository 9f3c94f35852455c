"""The lint itself: one pass over the weights, then every check over what the pass kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from checkpoints.errors import CheckpointError
from checkpoints.fingerprint import fingerprint
from checkpoints.lint.equality import constant_tensors, equal_facts
from checkpoints.lint.files import config_facts, layout_facts, non_finite_facts, tokenizer_facts
from checkpoints.lint.grid import grid_facts
from checkpoints.lint.order import swap_facts
from checkpoints.lint.outliers import first_step_facts, outlier_facts
from checkpoints.lint.report import Fact, LintReport, in_order
from checkpoints.lint.saved import stamp
from checkpoints.lint.scan import Layout, StepScan, plan_sampling, read_layout, scan_step
from checkpoints.lint.trajectory import Trajectory
from checkpoints.series import Checkpoint, CheckpointSeries, Gap

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
    kept, layouts, facts = _layouts(series)
    facts += [_unreadable(gap) for gap in series.gaps]
    facts += grid_facts(_all_steps(series), scheduled=_schedule(series))
    facts += config_facts(kept) + tokenizer_facts(kept)
    facts += layout_facts([c.step for c in kept], layouts)
    kept, layouts, scans, unread = _scans(kept, layouts, on_event or (lambda event: None))
    facts += unread
    steps = [c.step for c in kept]
    if scans:
        facts += weight_facts(steps, scans, layouts=layouts)
    return LintReport(
        series=series.name,
        steps=series.steps,
        facts=in_order(facts),
        fingerprints={s: fingerprint(scan.hashes) for s, scan in zip(steps, scans, strict=True)},
        stamps=stamps,
    )


def weight_facts(steps: Sequence[int], scans: Sequence[StepScan], *, layouts: Sequence[Layout]) -> list[Fact]:
    """What the weights themselves say: not finite, equal, exchanged, out of line.

    Args:
        steps: ascending.
        scans: one per step, all taken with the sampling `plan_sampling(layouts)`.
        layouts: one per step.
    """
    facts = non_finite_facts(steps, scans, constant_tensors(scans) if len(scans) > 1 else set())
    path = Trajectory(steps, scans, layouts=layouts, sampling=plan_sampling(layouts))
    equal = equal_facts(path, scans, layouts)
    facts += equal.facts
    if not path.moving.any():
        return facts
    comparable = np.isfinite(np.diagonal(path.distances))
    chain = [i for i in range(len(path)) if i not in equal.shadows and comparable[i]]
    swaps, order = swap_facts(path, chain)
    return [
        *facts,
        *swaps,
        *first_step_facts(path, order),
        *outlier_facts(path, order, foreign=equal.foreign),
    ]


def _layouts(series: CheckpointSeries) -> tuple[list[Checkpoint], list[Layout], list[Fact]]:
    kept, layouts, facts = [], [], []
    for checkpoint in series:
        try:
            layouts.append(read_layout(checkpoint))
            kept.append(checkpoint)
        except (CheckpointError, OSError) as error:
            facts.append(_broken(checkpoint, error))
    return kept, layouts, facts


def _scans(
    checkpoints: Sequence[Checkpoint], layouts: Sequence[Layout], emit: Callable[[Event], None]
) -> tuple[list[Checkpoint], list[Layout], list[StepScan], list[Fact]]:
    sampling = plan_sampling(layouts)
    kept: list[tuple[Checkpoint, Layout, StepScan]] = []
    facts: list[Fact] = []
    started = time.monotonic()
    for done, (checkpoint, layout) in enumerate(zip(checkpoints, layouts, strict=True), 1):
        try:
            kept.append((checkpoint, layout, scan_step(checkpoint, layout, sampling)))
        except (CheckpointError, OSError) as error:
            facts.append(_broken(checkpoint, error))
        pace = (time.monotonic() - started) / done
        emit(
            {
                "event": "checkpoint",
                "done": done,
                "total": len(checkpoints),
                "step": checkpoint.step,
                "s_per_checkpoint": pace,
                "eta_s": pace * (len(checkpoints) - done),
                "errors": len(facts),
            }
        )
    return [k[0] for k in kept], [k[1] for k in kept], [k[2] for k in kept], facts


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
