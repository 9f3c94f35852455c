"""A folder of training checkpoints as one ordered, lazy, sliceable series.

Opening a series reads names, sizes and small JSON files, never weights, and never imports torch.
"""

from __future__ import annotations

import bisect
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, SupportsIndex, overload, runtime_checkable

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.steps import parse_steps, span_of, step_of

Inside = tuple[str | int, ...]
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # how a name that is not UTF-8 shows in Python
IN_MEMORY = "memory"  # the format of a model in memory or in training, whose series is nowhere on a disk
STEP_UNKNOWN = "the training step of this checkpoint is unknown; it is shown as step 0"


@runtime_checkable
class Source(Protocol):
    """Where a checkpoint comes from whose files are not on disk all the time."""

    def fetch(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint with its files on disk, where they stay until it is released as often as it was fetched."""

    def release(self, checkpoint: Checkpoint) -> None:
        """Say that its files may go when room is needed."""


@dataclass(frozen=True, order=True)
class Checkpoint:
    """One readable step of a series.

    Attributes:
        step: optimiser steps taken before these weights were saved.
        path: the folder that holds the weights.
        format: name of the family that reads it; see `byrote.checkpoints.formats`.
        tokens_seen: training tokens read so far, or None where nothing on disk says.
        loss_nats: training loss recorded nearest this step, or None.
        files: the weight files, in shard order; none yet where `source` has still to fetch them.
        config_path: the JSON file that describes the architecture.
        inside: the keys that lead to its tensors where one file holds many steps; () where the file is of this step alone.
        inside_bytes: bytes of its tensors in such a file.
        source: who fetches the files when they are needed; None where they are simply there. See `at_hand`.
    """

    step: int
    path: Path = field(compare=False)
    format: str = field(compare=False)
    tokens_seen: int | None = field(default=None, compare=False)
    loss_nats: float | None = field(default=None, compare=False)
    files: tuple[Path, ...] = field(default=(), compare=False)
    config_path: Path | None = field(default=None, compare=False)
    source: Source | None = field(default=None, compare=False, repr=False)
    inside: Inside = field(default=(), compare=False)
    inside_bytes: int = field(default=0, compare=False, repr=False)

    def __repr__(self) -> str:
        return f"Checkpoint(step {self.step:,}, {self.format}, {text_of(str(self.path))!r})"

    @property
    def size_bytes(self) -> int:
        """Bytes of weights on disk."""
        return self.inside_bytes or sum(file.stat().st_size for file in self.files)


@contextmanager
def at_hand(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    """The checkpoint with its files on disk for the length of the block; a step on the hub is downloaded for it.

    Afterwards the files may be removed to make room for another step, if a budget says so. Blocks may be nested.

    Raises:
        CheckpointError: the files cannot be fetched.
    """
    if checkpoint.source is None:
        yield checkpoint
        return
    ready = checkpoint.source.fetch(checkpoint)
    try:
        yield ready
    finally:
        checkpoint.source.release(checkpoint)


@dataclass(frozen=True)
class Gap:
    """Something in the folder that claims to be a checkpoint and cannot be read as one."""

    path: Path
    reason: str
    help: str = ""
    step: int | None = None


@dataclass(frozen=True)
class CheckpointSeries:
    """Checkpoints in step order, with a list of what could not be read.

    Supports `len`, iteration, `series[3]`, `series[2:5]` (a series), `series.at(step)` and
    `series.nearest(step)`. Axes: `steps`, `tokens_seen`, `loss_nats`.
    """

    name: str
    path: Path
    format: str
    checkpoints: tuple[Checkpoint, ...]
    gaps: tuple[Gap, ...] = ()
    notes: tuple[str, ...] = ()
    manifest: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.checkpoints)

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(self.checkpoints)

    @overload
    def __getitem__(self, index: int) -> Checkpoint: ...
    @overload
    def __getitem__(self, index: slice) -> CheckpointSeries: ...
    def __getitem__(self, index: object) -> Checkpoint | CheckpointSeries:
        if isinstance(index, slice):
            return replace(self, checkpoints=self.checkpoints[index])
        if not isinstance(index, SupportsIndex):
            raise CheckpointError(
                f"a series is indexed by position, and {index!r:.80} is {type(index).__name__}",
                help="series[-1] is its last checkpoint, series.steps are its steps",
            )
        return self.checkpoints[index]

    @property
    def span(self) -> str:
        """The steps in words: ``steps 0-1,000``, ``step 5,000`` or ``no steps``."""
        return span_of(self.steps)

    def __repr__(self) -> str:
        gaps = f", {len(self.gaps)} that cannot be read (.gaps)" if self.gaps else ""
        notes = f", {len(self.notes)} note{'s' * (len(self.notes) != 1)} (.notes)" if self.notes else ""
        return (
            f"CheckpointSeries({self.name!r}: {len(self)} checkpoint{'s' * (len(self) != 1)}, {self.span}, {self.format}{gaps}{notes}; "
            f"{text_of(str(self.path))!r})"
        )

    @property
    def steps(self) -> tuple[int, ...]:
        """Optimiser steps, ascending."""
        return tuple(c.step for c in self.checkpoints)

    @property
    def tokens_seen(self) -> tuple[int | None, ...]:
        """Training tokens at each step; None where unknown."""
        return tuple(c.tokens_seen for c in self.checkpoints)

    @property
    def loss_nats(self) -> tuple[float | None, ...]:
        """Recorded training loss at each step; None where unknown."""
        return tuple(c.loss_nats for c in self.checkpoints)

    def at(self, step: int | str) -> Checkpoint:
        """The checkpoint of exactly this step, such as 512 or "1k".

        Raises:
            CheckpointError: no such step; the message names the nearest ones, or says why this one cannot be read.
        """
        step = step_of(step)
        for checkpoint in self.checkpoints:
            if checkpoint.step == step:
                return checkpoint
        for gap in self.gaps:
            if gap.step == step:
                raise CheckpointError(
                    f"step {step} of {self.path} cannot be read: {gap.reason}", help=gap.help
                )
        self._refuse_empty()
        i = bisect.bisect_left(self.steps, step)
        around = self.steps[max(0, i - 1) : i + 1]
        raise CheckpointError(
            f"step {step} is not in {self.path} ({len(self)} checkpoints, {self.steps[0]}-{self.steps[-1]})",
            help=f"nearest: {', '.join(str(s) for s in around)}; "
            f"use series.nearest({step}) or --steps nearest:{step}",
        )

    def nearest(self, step: int | str) -> Checkpoint:
        """The checkpoint whose step is closest to this one, such as 512 or "1k"; the earlier one of two equally close.

        Raises:
            CheckpointError: there is none, in an empty slice, or what is not a step.
        """
        self._refuse_empty()
        target = step_of(step)
        return min(self.checkpoints, key=lambda c: (abs(c.step - target), c.step))

    def select(self, spec: str | None) -> CheckpointSeries:
        """The part of the series a step specification names, such as ``0,512,1k..8k,log:12,last``.

        Raises:
            CheckpointError: a step that is not there, or a term that cannot be read.
        """
        if spec is None:
            return self
        self._refuse_empty()
        wanted = parse_steps(spec, self.steps, where=str(self.path))
        return replace(self, checkpoints=tuple(c for c in self.checkpoints if c.step in wanted))

    def _refuse_empty(self) -> None:
        if not self.checkpoints:
            raise CheckpointError(
                f"this slice of {self.path} contains no checkpoint", help="use a wider slice"
            )


def series_of(
    path: Path,
    format: str,
    found: Iterable[Checkpoint | Gap],
    *,
    name: str = "",
    notes: Iterable[str] = (),
    manifest: Mapping[str, Any] | None = None,
) -> CheckpointSeries:
    """Checkpoints and gaps as a series. Several that claim one step are all gaps: nothing says which of them is right.

    Args:
        path: the folder or file that was opened.
        format: the format's name.
        found: in any order.
        name: of the series; the folder's where it is empty.
        notes: as `CheckpointSeries.notes`.
        manifest: as `CheckpointSeries.manifest`.
    """
    gaps: list[Gap] = []
    by_step: dict[int, list[Checkpoint]] = defaultdict(list)
    for one in found:
        if isinstance(one, Gap):
            gaps.append(one)
        else:
            by_step[one.step].append(one)
    for step, group in by_step.items():
        if len(group) > 1:
            names = ", ".join(sorted(c.path.name for c in group))
            kind = "folders" if all(c.path.is_dir() for c in group) else "files"
            reason = f"{len(group)} {kind} claim step {step}: {names}"
            gaps += [Gap(c.path, reason, "remove or rename all but one", step) for c in group]
    return CheckpointSeries(
        name=text_of(name or path.resolve().name),
        path=path,
        format=format,
        checkpoints=tuple(sorted(group[0] for group in by_step.values() if len(group) == 1)),
        gaps=tuple(sorted(gaps, key=lambda g: (g.step is None, g.step or 0, g.path.name))),
        notes=tuple(notes),
        manifest=manifest or {},
    )


def text_of(name: str) -> str:
    """A name as text: what is not UTF-8 in it, which neither a table nor a terminal takes, is replaced."""
    return _HALF_CHARACTER.sub("\ufffd", name)


def read_or_gap(place: Path, step: int | None, read: Callable[[], Checkpoint]) -> Checkpoint | Gap:
    """What `read` returns, or a gap with the reason why it is no checkpoint.

    Args:
        place: the folder or file that claims to be one.
        step: the step its name says.
        read: raises CheckpointError or OSError.
    """
    try:
        return read()
    except CheckpointError as error:
        return Gap(place, error.message, error.help, step)
    except OSError as error:
        reason = f"{Path(error.filename or place).name} cannot be read ({error.strerror})"
        return Gap(place, reason, "check its permissions", step)
