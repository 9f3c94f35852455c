"""Sentences about memory, beside those of `findings`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from byrote.probes.findings import MAX_RUNS_NAMED, run_name
from byrote.probes.findings_arms import names_in_title
from byrote.probes.wording import clean, listed

if TYPE_CHECKING:
    from byrote.probes.results.table import Table

MAX_COUNTS_NAMED = 8
NOT_MEASURED = "Memory was not measured: no sequences of the training data were given (--members FILE)."


def trained_on_members(results: Table) -> bool:
    """Whether a run was trained on its members; a control is measured on those of the run it is the control of."""
    return bool(results.arm.get("kind") != "control")


def completed_members(results: Sequence[Table]) -> dict[str, str]:
    """How many members of the training data are completed without an error, at the last step that lint does not doubt.

    Args:
        results: of the runs, in the order they are named in.

    Returns:
        Run, or arm of many runs, to ``12 of 16``; those that were tested on none are left out.
    """
    return _completed(results, _names(results))


def _names(results: Sequence[Table]) -> dict[str, str]:
    """Run -> its name in a sentence, of many runs its arm."""
    several, own = len(results) > MAX_RUNS_NAMED, names_in_title(results)
    return {r.run: clean(r.facts.arm or r.run) if several else run_name(own[r.run]) for r in results}


def _completed(results: Sequence[Table], names: Mapping[str, str]) -> dict[str, str]:
    """The same of some of the runs, by the names they have among all."""
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
        counts = found.setdefault(names[r.run], [0, 0])
        counts[0] += round(float(row["value"]) * int(row["n"]))
        counts[1] += int(row["n"])
    return {name: f"{done:,} of {n:,}" for name, (done, n) in found.items()}


def memorised_members(results: Sequence[Table], *, title: bool = False) -> str:
    """`completed_members` as a sentence; "" where no run was tested on any.

    Args:
        results: of the runs, in the order they are named in.
        title: leave out the runs that were not trained on these sequences.
    """
    names = _names(results)
    theirs = _completed([r for r in results if trained_on_members(r)], names)
    others = _completed([r for r in results if not trained_on_members(r)], names)
    said = [counts if len(results) == 1 else f"{counts} in {name}" for name, counts in theirs.items()]
    if title:
        shown = listed(said, most=MAX_COUNTS_NAMED)
        return f"training sequences completed without an error: {shown}" if said else ""
    if others:
        controls = ", ".join(f"{counts} in {name}" for name, counts in others.items())
        said.append(f"{controls}, which {'was' if len(others) == 1 else 'were'} not trained on them")
    return (
        f"Training sequences completed without an error: {listed(said, most=MAX_COUNTS_NAMED)}"
        if said
        else ""
    )
