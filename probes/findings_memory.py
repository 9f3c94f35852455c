"""Sentences about memory, beside those of `findings`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from byrote.probes.findings import MAX_RUNS_NAMED, run_name
from byrote.probes.findings_arms import MAX_COUNTS_NAMED, names_in_title
from byrote.probes.wording import clean

if TYPE_CHECKING:
    from byrote.probes.results.table import Table

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
    return {name: _of(*counts) for name, counts in _completed(results, _names(results)).items()}


def _names(results: Sequence[Table]) -> dict[str, str]:
    """Run -> its name in a sentence, of many runs its arm."""
    several, own = len(results) > MAX_RUNS_NAMED, names_in_title(results)
    return {r.run: clean(r.facts.arm or r.run) if several else run_name(own[r.run]) for r in results}


def _of(done: int, n: int) -> str:
    return f"{done:,} of {n:,}"


def _completed(
    results: Sequence[Table], names: Mapping[str, str], metric: str = "completed"
) -> dict[str, tuple[int, int]]:
    """Name among all runs -> (completed, tested) of some of them."""
    found: dict[str, tuple[int, int]] = {}
    for r in results:
        rows = r.rows("exact_match", metric, step=r.usable_steps[-1], valid=True) if r.usable_steps else None
        if rows is None or rows.empty:
            continue
        row = rows.iloc[0]
        done, n = found.get(names[r.run], (0, 0))
        found[names[r.run]] = (done + round(float(row["value"]) * int(row["n"])), n + int(row["n"]))
    return found


def memorised_members(results: Sequence[Table], *, title: bool = False) -> str:
    """`completed_members` as a sentence; "" where no run was tested on any.

    Args:
        results: of the runs, in the order they are named in.
        title: leave out the runs that were not trained on these sequences.
    """
    names = _names(results)
    theirs = _completed([r for r in results if trained_on_members(r)], names)
    others = _completed([r for r in results if not trained_on_members(r)], names)
    text = _of(*next(iter(theirs.values()))) if len(results) == 1 and theirs else _counts(theirs)
    if title:
        return f"training sequences completed without an error: {text}" if text else ""
    not_theirs = f"{_counts(others)}, which {'was' if len(others) == 1 else 'were'} not trained on them"
    text = ", ".join(filter(None, (text, not_theirs if others else "")))
    return f"Training sequences completed without an error: {text}{_of_twins(results, names)}" if text else ""


def _of_twins(results: Sequence[Table], names: Mapping[str, str]) -> str:
    """``; of fresh ones, 0 of 16``: what chance and the source alone complete; "" where no twins were tested."""
    tested = [r for r in results if r.has("exact_match", "completed", valid=True)]
    found = _completed(tested, names, "completed@twins").values()
    return f"; of fresh ones, {_of(*map(sum, zip(*found, strict=True)))}" if found else ""


def _counts(found: Mapping[str, tuple[int, int]]) -> str:
    """``12 of 16 in a, 0 of 16 in b``; of many, the one that completes the largest and the one that completes the smallest share."""
    named = [f"{_of(*counts)} in {name}" for name, counts in found.items()]
    if len(named) <= MAX_COUNTS_NAMED:
        return ", ".join(named)
    shares = [done / n for done, n in found.values()]
    most, least = (shares.index(end) for end in (max(shares), min(shares)))
    return f"from {named[least]} to {named[most]}"
