"""Sentences about memory, beside those of `findings`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from byrote.probes.findings import MAX_RUNS_NAMED, run_name
from byrote.probes.wording import clean, listed

if TYPE_CHECKING:
    from byrote.probes.results.table import Table


def memorised_members(results: Sequence[Table]) -> str:
    """How many members of the training data each run, or arm of many runs, completes without an error at its last step that lint
    does not doubt; "" where none was tested on any.

    Args:
        results: of the runs, in the order they are named in.
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
    if not found:
        return ""
    said = [f"{done:,} of {n:,} in {name}" for name, (done, n) in found.items()]
    return f"Training members completed without an error: {listed(said, most=8)}"
