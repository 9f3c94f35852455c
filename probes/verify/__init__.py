"""Is a results folder still what the sweep wrote? Facts in words; nothing is written and nothing is measured. No torch.

1. run.json: readable, and of one story with the units (name, model, settings, stimuli, steps, gaps, status)
2. every unit: readable, of its step and run, one set of weights per step, named after the probes it holds
3. observations.parquet: made again from the units in memory and compared number by number
4. arrays: readable, as large as the model and the texts say, of the same weights as the units
5. the checkpoints, where they still lie where they were: size and time of every file; where these changed the weights
   are hashed again, up to `originals.MAX_HASHED_BYTES` each
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byrote.checkpoints.atomic import leftovers
from byrote.checkpoints.errors import ByroteError
from byrote.probes.results import Results
from byrote.probes.verify.arrays import check_arrays
from byrote.probes.verify.digest import digest
from byrote.probes.verify.notes import Notes, mapping, numbers
from byrote.probes.verify.observations import Stored
from byrote.probes.verify.originals import check_checkpoints
from byrote.probes.verify.units import Units
from byrote.probes.wording import counted

__all__ = ["Verified", "digest", "verify"]


@dataclass(frozen=True)
class Verified:
    """What was looked at and what was found.

    Attributes:
        findings: one line each; empty where everything agrees.
        checked: one line per kind of thing looked at, with how many of them, or why it was not.
    """

    findings: tuple[str, ...]
    checked: tuple[str, ...]


def verify(path: str | Path) -> Verified:
    """Look for damage and disagreement in a results folder.

    Args:
        path: the folder. No sweep should be writing there meanwhile.

    Raises:
        ByroteError: it is no folder.
    """
    root, notes = Path(path), Notes()
    if not root.is_dir():
        raise ByroteError(f"{root} is not a folder", help="name a results folder, such as results/run")
    meta = _run_json(root, notes)
    units, stored = Units(root, meta, notes), Stored(root, notes)
    for step, files in units.by_step():
        stored.compare(units.check(step, files), step)
    notes.checked.append(f"{counted(units.n_files, 'unit')} of {counted(len(units.steps), 'step')}")
    stored.close(units.steps)
    if meta:
        _steps(meta, units.steps, notes)
    check_arrays(root, meta, units.weights, notes)
    check_checkpoints(root, meta, units.weights, notes)
    if left := len(leftovers(root)):
        notes.add(
            f"{counted(left, 'temporary file')} of a sweep that was killed; the next sweep takes them away"
        )
    return Verified(notes.lines(), tuple(notes.checked))


def _run_json(root: Path, notes: Notes) -> Mapping[str, Any]:
    """What it says; {} where it cannot be read."""
    try:
        meta = Results.open(root).meta
    except ByroteError as error:
        notes.add(f"{error.message}; {error.help}")
        return {}
    notes.checked.append("run.json")
    if meta.get("run") != root.name:
        notes.add(f"run.json calls the run {meta.get('run')!r}, its folder is called {root.name!r}")
    return meta


def _steps(meta: Mapping[str, Any], steps: list[int], notes: Notes) -> None:
    """Every checkpoint of the series holds units or is a gap, and the status says so."""
    known, gaps = numbers(mapping(meta.get("series")).get("steps")), meta.get("gaps") or []
    unread = {mapping(gap).get("step") for gap in gaps}
    silent, status = known - set(steps) - unread, meta.get("status")
    if silent and status == "interrupted":
        notes.checked.append(
            f"{counted(len(silent), 'checkpoint')} not measured yet: the sweep was interrupted"
        )
    elif silent:
        notes.add("checkpoints that hold no units and are no gaps", *(f"step {s:,}" for s in sorted(silent)))
    if foreign := set(steps) - known:
        where = (f"step {s:,}" for s in sorted(foreign))
        notes.add("units of steps that run.json does not list; it tells of the last sweep asked for", *where)
    wanted = {"complete": False, "partial": True}.get(str(status))
    if wanted is not None and wanted != bool(gaps):
        notes.add(f"run.json says {status} and lists {counted(len(gaps), 'gap')}")
    notes.checked.append(f"{counted(len(known), 'step')} and {counted(len(gaps), 'gap')} that run.json lists")
