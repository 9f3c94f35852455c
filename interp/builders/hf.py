"""Hugging Face folders, local or fetched. transformers maps the names in files to those of its modules, which differ.

Keys in files and modules differ (GPT-NeoX files say `embed_out.weight`, the module `lm_head.weight`), and transformers'
own mapping costs a whole model build per step. After one such build the mapping is read off by content: a parameter's
tensor is the one in the files with the same shape and the same numbers. A step whose files hold other names is loaded
by transformers again, and the first swap of a series is compared with a fresh load in any case.
"""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.series import Checkpoint
from byrote.interp.builders import Built
from byrote.interp.builders.files import read_tensors
from byrote.interp.builders.files import saved_config as config
from byrote.interp.builders.filling import fill

# Config as JSON -> the file's name of each of the module's parameters, and all names in the files; None where the names
# cannot be learned, and transformers loads every step.
_NAMES: dict[str, tuple[dict[str, str], frozenset[str]] | None] = {}


def build(checkpoint: Checkpoint, dtype: torch.dtype) -> Built:
    """The architecture config.json names, filled from the folder's weights and nothing else.

    Raises:
        CheckpointError: transformers cannot load it, or something would be left at random.
    """
    fields, files = config(checkpoint), read_tensors(checkpoint)
    module = fill(fields, files, dtype=dtype, step=checkpoint.step, exact=False)
    key = json.dumps(fields, sort_keys=True)
    if key not in _NAMES:
        names = _match(module, files) if _safetensors(checkpoint) else None
        _NAMES[key] = None if names is None else (names, frozenset(files))
    return Built(module, type(module).__name__, hf_config=module.config)


def parameters(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Tensor]:
    """The files' tensors under the module's names; by a full load where the names are not known.

    Fewer or more tensors than were learned: transformers decides what that means.
    """
    fields = config(checkpoint)
    learned = _NAMES.get(json.dumps(fields, sort_keys=True))
    files = _mapped(checkpoint) if learned is not None else None
    if learned is not None and files is not None and files.keys() == learned[1]:
        return {parameter: files[name] for parameter, name in learned[0].items()}
    module = fill(fields, read_tensors(checkpoint), dtype=dtype, step=checkpoint.step, exact=False)
    return dict(module.named_parameters(remove_duplicate=False))


def _mapped(checkpoint: Checkpoint) -> dict[str, Tensor] | None:
    """All tensors of the checkpoint's safetensors files, mapped, not read; None for other files and damaged ones."""
    if not _safetensors(checkpoint):
        return None
    try:
        return read_tensors(checkpoint)
    except CheckpointError:
        return None  # transformers says what is wrong with it


def _safetensors(checkpoint: Checkpoint) -> bool:
    """Whether all files of a checkpoint are."""
    return all(file.suffix == ".safetensors" for file in checkpoint.files)


def _match(module: nn.Module, files: dict[str, Tensor]) -> dict[str, str] | None:
    """The file's name for each parameter: equal numbers, and the one name that shares the longest ending."""
    names = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        equal = [
            (_shared_ending(key, name), key)
            for key, tensor in files.items()
            if tensor.shape == parameter.shape and torch.equal(tensor.to(parameter.dtype), parameter.data)
        ]
        equal.sort(reverse=True)
        if not equal or (len(equal) > 1 and equal[0][0] == equal[1][0]):
            return None  # not there, or neither numbers nor names tell which (biases that are all zero)
        names[name] = equal[0][1]
    return names


def _shared_ending(a: str, b: str) -> int:
    shared = 0
    for x, y in zip(reversed(a.split(".")), reversed(b.split(".")), strict=False):
        if x != y:
            break
        shared += 1
    return shared
