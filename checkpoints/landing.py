"""Checkpoints of a folder that is still written to: which of them have landed, changed again, or gone. No torch.

Trainers write a checkpoint file by file, and some write a file's bytes after its size. A checkpoint has landed when none of
its files has changed for a while; whether it can be read is found out by reading it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from byrote.checkpoints.fingerprint import files_of
from byrote.checkpoints.series import Checkpoint, CheckpointSeries, Gap
from byrote.checkpoints.stored_bytes import FileStamp, file_stamp

MAX_FILES = 10_000  # of one checkpoint that are looked at
_DEPTH = 3  # of its folders

Stamps = tuple[tuple[str, FileStamp], ...]
Place = tuple[str, tuple[str | int, ...]]


@dataclass
class Landing:
    """What was seen of a growing folder.

    Attributes:
        settle_s: how long nothing of a checkpoint may change before it has landed.
        changed_s: when something last changed, by the clock that `look` is given.
        gone: steps that went before they were measured.
    """

    settle_s: float
    changed_s: float = 0.0
    gone: set[int] = field(default_factory=set)
    _seen: dict[Place, tuple[Stamps, float]] = field(default_factory=dict)
    _steps: dict[Place, int | None] = field(default_factory=dict)
    _done: dict[Place, Stamps] = field(default_factory=dict)
    _unreadable: dict[Place, Stamps] = field(default_factory=dict)

    def look(self, series: CheckpointSeries, *, now_s: float) -> tuple[list[Checkpoint], list[Gap]]:
        """Look at a series as it is now.

        Args:
            series: opened just now.
            now_s: of a clock that never goes back.

        Returns:
            Checkpoints that have landed and were not found unreadable as they are, in step order; and gaps that have stood
            still as long, each once.
        """
        here: list[Checkpoint | Gap] = [*series.checkpoints, *series.gaps]
        places = {_place(one): one for one in here}
        for place in self._seen.keys() - places.keys():
            self._leave(place)
        still = []
        for place, one in places.items():
            stamps = _stamps(one, series.path)
            before, since_s = self._seen.get(place, ((), now_s))
            if before != stamps:
                since_s = self.changed_s = now_s
            self._seen[place], self._steps[place] = (stamps, since_s), one.step
            if now_s - since_s >= self.settle_s and self._unreadable.get(place) != stamps:
                still.append(one)
        gaps = [one for one in still if isinstance(one, Gap)]
        for gap in gaps:
            self._unreadable[_place(gap)] = self._seen[_place(gap)][0]
        return [one for one in still if isinstance(one, Checkpoint)], gaps

    def is_new(self, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint that landed has not been measured as it is."""
        place = _place(checkpoint)
        return self._done.get(place) != self._seen[place][0]

    def measured(self, checkpoint: Checkpoint) -> None:
        """Note that a checkpoint was measured as it was seen last."""
        self._done[_place(checkpoint)] = self._seen[_place(checkpoint)][0]

    def unreadable(self, checkpoint: Checkpoint) -> None:
        """Note that a checkpoint could not be measured: it is left alone until one of its files changes."""
        self._unreadable[_place(checkpoint)] = self._seen[_place(checkpoint)][0]

    @property
    def waits(self) -> bool:
        """Whether something is here that was neither measured nor found unreadable as it is."""
        return any(
            stamps not in (self._done.get(place), self._unreadable.get(place))
            for place, (stamps, _) in self._seen.items()
        )

    @property
    def removed(self) -> bool:
        """Whether a checkpoint that was measured is no longer there."""
        return bool(self._done.keys() - self._seen.keys())

    def _leave(self, place: Place) -> None:
        del self._seen[place]
        step = self._steps.pop(place)
        if place not in self._done and step is not None:
            self.gone.add(step)


def _place(one: Checkpoint | Gap) -> Place:
    return str(one.path), one.inside if isinstance(one, Checkpoint) else ()


def _stamps(one: Checkpoint | Gap, series: Path) -> Stamps:
    """Names and stamps of all files of a checkpoint: those in a folder of its own, else its weights and config."""
    if one.path.is_dir() and one.path != series:
        files: list[Path] = sorted(_below(one.path, _DEPTH))[:MAX_FILES]
    else:
        files = files_of(one) if isinstance(one, Checkpoint) else [one.path]
    return tuple((str(file), file_stamp(file, follow_links=True, missing_ok=True)) for file in files)


def _below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError:
        return
    for entry in entries[:MAX_FILES]:
        if entry.is_dir(follow_symlinks=False):
            if depth > 1:
                yield from _below(Path(entry.path), depth - 1)
        else:
            yield Path(entry.path)
