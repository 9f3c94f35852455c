"""A folder of training checkpoints as one ordered, lazy, sliceable series.

Opening a series reads names, sizes and small JSON files, never weights, and never imports torch.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

from checkpoints.errors import CheckpointError
from checkpoints.steps import parse_steps


@dataclass(frozen=True, order=True)
class Checkpoint:
    """One readable step of a series.

    Attributes:
        step: optimiser steps taken before these weights were saved.
        path: the folder that holds the weights.
        format: name of the module in `checkpoints.formats` that reads it.
        tokens_seen: training tokens read so far, or None where nothing on disk says.
        loss_nats: training loss recorded nearest this step, or None.
        files: the weight files, in shard order.
        config_path: the JSON file that describes the architecture.
    """

    step: int
    path: Path = field(compare=False)
    format: str = field(compare=False)
    tokens_seen: int | None = field(default=None, compare=False)
    loss_nats: float | None = field(default=None, compare=False)
    files: tuple[Path, ...] = field(default=(), compare=False)
    config_path: Path | None = field(default=None, compare=False)

    @property
    def size_bytes(self) -> int:
        """Bytes of weights on disk."""
        return sum(file.stat().st_size for file in self.files)


@dataclass(frozen=True)
class Gap:
    """Something in the folder that claims to be a checkpoint and cannot be read as one."""

    path: Path
    reason: str
    help: str = ""
    step: int | None = None


@dataclass(frozen=True)
class CheckpointSeries:
    """Checkpoints in step order, with what could not be read listed beside them.

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
    def __getitem__(self, index: int | slice) -> Checkpoint | CheckpointSeries:
        if isinstance(index, slice):
            return replace(self, checkpoints=self.checkpoints[index])
        return self.checkpoints[index]

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

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of exactly this step.

        Raises:
            CheckpointError: no such step; the message names the nearest ones.
        """
        for checkpoint in self.checkpoints:
            if checkpoint.step == step:
                return checkpoint
        self._refuse_empty()
        around = self._neighbours(step)
        raise CheckpointError(
            f"step {step} is not in {self.path} ({len(self)} checkpoints, {self.steps[0]}-{self.steps[-1]})",
            help=f"nearest: {', '.join(str(s) for s in around)}; "
            f"use series.nearest({step}) or --steps nearest:{step}",
        )

    def nearest(self, step: int) -> Checkpoint:
        """The checkpoint whose step is closest; the earlier one of two equally close.

        Raises:
            CheckpointError: there is none, in an empty slice.
        """
        self._refuse_empty()
        return min(self.checkpoints, key=lambda c: (abs(c.step - step), c.step))

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
            raise CheckpointError(f"this part of {self.path} holds no checkpoint", help="slice it less")

    def _neighbours(self, step: int) -> tuple[int, ...]:
        i = bisect.bisect_left(self.steps, step)
        return self.steps[max(0, i - 1) : i + 1]


def open_series(path: str | Path) -> CheckpointSeries:
    """Open a folder of checkpoints, whatever its format, without reading any weights.

    Args:
        path: a lab series, a folder of Hugging Face checkpoint folders, or one model folder.

    Returns:
        The series, its checkpoints in step order; whatever claims to be a checkpoint but cannot be read
        is in `.gaps` with its reason.

    Raises:
        CheckpointError: the path does not exist, is no folder, or holds no checkpoint.
    """
    from checkpoints import formats  # a format reads JSON and headers; keep `import checkpoints` instant

    return formats.discover(Path(path))
