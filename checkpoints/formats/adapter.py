"""The adapter of a checkpoint format: everything that differs between formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byrote.checkpoints.series import Checkpoint, CheckpointSeries


@dataclass(frozen=True)
class TensorInfo:
    """What a file says of a tensor.

    Attributes:
        dtype: safetensors' name of its type.
        shape: its shape.
        file: the name of the file it lies in; "" where it is spread over several.
    """

    dtype: str
    shape: tuple[int, ...]
    file: str


StoredTensors = Iterator[tuple[str, TensorInfo, Any]]
"""Name, description and bytes of tensors, one at a time: in row-major order, a numpy array of uint8 or `StoredBytes`."""


@dataclass(frozen=True)
class Format:
    """One family. Everything but `builder` works without torch; nothing in it may run what a checkpoint holds.

    Attributes:
        name: what results call it; never used for another family.
        sniff: whether a path looks like this family's. Cheap: names, and a few headers or one small file at most.
        discover: the series at such a path, without reading weights. Called as `discover(path, **options)`; raises
            CheckpointError for a folder that is of this family and broken.
        builder: its torch half: a module with the functions of `byrote.interp.builders.Builder`, by its dotted name, or
            by that of one of `byrote.interp.builders`.
        reads: what a person calls it, for the list that is shown where nothing is recognised.
        options: those of `open_series` that `discover` takes: part, base, allow_download, disk_budget_bytes.
        single_files: whether a path may also be one of its weight files.
        tensors: a checkpoint's tensors as they are stored, for fingerprints and lint; None for safetensors and `torch.save`
            files, which are known by their endings.
        config_inside: what describes the architecture where it is saved with the weights; it counts as part of the
            fingerprint where a checkpoint has no `config_path`.
        also_described_by: the name of a further file in a checkpoint's folder that decides what is measured, and so is part
            of the fingerprint; "" for none.
        version: what changes whenever a checkpoint's files do, where that need not be read off the files.
    """

    name: str
    sniff: Callable[[Path], bool]
    discover: Callable[..., CheckpointSeries]
    builder: str
    reads: str = ""
    options: frozenset[str] = frozenset()
    single_files: bool = False
    tensors: Callable[[Checkpoint], StoredTensors] | None = None
    config_inside: Callable[[Checkpoint], Mapping[str, Any] | None] | None = None
    also_described_by: str = ""
    version: Callable[[Checkpoint], str] | None = None

    @property
    def network(self) -> bool:
        """Whether its files may have to be fetched; only with `allow_download`."""
        return "allow_download" in self.options
