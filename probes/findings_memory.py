"""Sentences about memory, beside those of `findings`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from byrote.probes.findings import MAX_RUNS_NAMED, run_name
from byrote.probes.wording import clean, listed

if TYPE_CHECKING:
    from byrote.probes.results.table import Table


def completed_members(results: Sequence[Table]) -> dict[str, str]:
    """How many members of the training data are completed without an error, at the last step that lint does not doubt.

    Args:
        results: of the runs, in the order they are named in.

    Returns:
        Run, or arm of many runs, to ``12 of 16``; those that were tested on none are left out.
    """
    found: dict[str, list[int]] = {}
    for r in results:
        rows = (
            r.rows("exact_match", "completed", step=r.usable_steps[-1], valid=True)
            if r.usable_steps
            else None
        )
        if rows is None or rows.empty:
            continue
        row = rows.iloc[0]
        name = run_name(r.run) if len(results) <= MAX_RUNS_NAMED else clean(r.facts.arm or r.run)
        counts = found.setdefault(name, [0, 0])
        counts[0] += round(float(row["value"]) * int(row["n"]))
        counts[1] += int(row["n"])
    return {name: f"{done:,} of {n:,}" for name, (done, n) in found.items()}


def memorised_members(results: Sequence[Table]) -> str:
    """`completed_members` as a sentence; "" where no run was tested on any."""
    found = completed_members(results)
    said = [counts if len(results) == 1 else f"{counts} in {name}" for name, counts in found.items()]
    if not said:
        return ""
    return f"Training sequences completed without an error: {listed(said, most=8)}"
