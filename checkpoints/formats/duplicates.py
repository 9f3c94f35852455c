"""Two folders or files that claim one step cannot both be right, and nothing says which is: neither is used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from byrote.checkpoints.series import Checkpoint, Gap


def without_duplicates(checkpoints: Iterable[Checkpoint]) -> tuple[list[Checkpoint], list[Gap]]:
    """The checkpoints whose step no other claims, and a gap for each of the others."""
    by_step: dict[int, list[Checkpoint]] = defaultdict(list)
    for checkpoint in checkpoints:
        by_step[checkpoint.step].append(checkpoint)
    kept = [group[0] for group in by_step.values() if len(group) == 1]
    gaps = []
    for step, group in by_step.items():
        if len(group) > 1:
            names = ", ".join(sorted(c.path.name for c in group))
            kind = "folders" if all(c.path.is_dir() for c in group) else "files"
            reason = f"{len(group)} {kind} claim step {step}: {names}"
            gaps += [Gap(c.path, reason, "remove or rename all but one", step) for c in group]
    return kept, gaps
