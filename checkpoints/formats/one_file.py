"""A single weight file of a Hugging Face model, named itself: `.../model.safetensors`, `pytorch_model.bin`.

A path to a folder is read as that folder's format; this is for the file alone, as a series of one model. Files that are named
otherwise (`step_512.pt`, `weights.safetensors`) are those of `state_dict`, and `.gguf` is a format of its own.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.adapter import Format
from byrote.checkpoints.formats.safetensors_header import read_header
from byrote.checkpoints.formats.state_dict import state_of
from byrote.checkpoints.formats.torch_zip import read_torch_file
from byrote.checkpoints.formats.weight_files import WeightFile, config_beside, hf_named
from byrote.checkpoints.series import STEP_UNKNOWN, CheckpointSeries, series_of
from byrote.checkpoints.step_names import parse_name

_SHARD = re.compile(r"-\d+-of-\d+\.\w+$")


def sniff(path: Path) -> bool:
    """True for a file that is named as Hugging Face names a model's weights."""
    return path.is_file() and hf_named(path.name) and not path.name.startswith("adapter_")


def discover(path: Path) -> CheckpointSeries:
    """The one model in the file; its step is that of its folder's name, else 0.

    Raises:
        CheckpointError: it is one shard of several, holds no tensors by name, or no config.json describes it.
    """
    if _SHARD.search(path.name):
        raise CheckpointError(
            f"{path.name} is one shard of a model in several files", help=f"name its folder: {path.parent}"
        )
    folder = path.absolute().parent
    named = parse_name(folder.name)
    file = WeightFile(path, named.step, named.tokens) if named else WeightFile(path)
    config = config_beside(path, _shapes(path))
    checkpoint = file.checkpoint(FORMAT.name, 0, spelling="", config=config)
    series = series_of(path, FORMAT.name, [checkpoint], name=folder.name)
    if named is None:
        note = STEP_UNKNOWN
        return replace(series, notes=(*series.notes, note))
    return series


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Of every tensor in the file, which is proved readable."""
    if path.suffix.lower() == ".safetensors":
        return {entry.name: entry.shape for entry in read_header(path)}
    state = state_of(read_torch_file(path).content, where=path.name)
    return {name: tensor.shape for name, tensor in state.items()}


FORMAT = Format(
    "one_file",
    sniff,
    discover,
    builder="hf",
    reads="one weight file with a config.json beside it",
    single_files=True,
)
