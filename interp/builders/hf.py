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


class LearnedNames:
    """Name maps by model config; a config whose map cannot be learned is loaded by transformers every time."""

    def __init__(self) -> None:
        self._by_config: dict[str, dict[str, str] | None] = {}
        self._in_files: dict[str, frozenset[str]] = {}

    def learn(self, config: str, module: nn.Module, checkpoint: Checkpoint) -> None:
        """Read the map off a module that was just loaded from the checkpoint; once per config."""
        if config not in self._by_config:
            files = _mapped(checkpoint)
            self._by_config[config] = None if files is None else _match(module, files)
            self._in_files[config] = frozenset(files or ())

    def read(self, config: str, checkpoint: Checkpoint) -> dict[str, Tensor] | None:
        """The checkpoint's tensors under the module's names; None where the map does not fit its files."""
        names = self._by_config.get(config)
        if names is None:
            return None
        files = _mapped(checkpoint)
        if files is None or files.keys() != self._in_files[config]:
            return None  # fewer or more tensors than were learned: transformers decides what that means
        return {parameter: files[name] for parameter, name in names.items()}


_NAMES = LearnedNames()


def build(checkpoint: Checkpoint, dtype: torch.dtype) -> Built:
    """The architecture config.json names, filled from the folder's weights and nothing else.

    Raises:
        CheckpointError: transformers cannot load it, or something would be left at random.
    """
    module = _loaded(checkpoint, dtype)
    _NAMES.learn(_config_key(checkpoint), module, checkpoint)
    return Built(module, type(module).__name__, hf_config=module.config)


def parameters(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Tensor]:
    """The files' tensors under the module's names; by a full load where the names cannot be told."""
    mapped = _NAMES.read(_config_key(checkpoint), checkpoint)
    if mapped is not None:
        return mapped
    return dict(_loaded(checkpoint, dtype).named_parameters(remove_duplicate=False))


def _config_key(checkpoint: Checkpoint) -> str:
    return json.dumps(config(checkpoint), sort_keys=True)


def _loaded(checkpoint: Checkpoint, dtype: torch.dtype) -> nn.Module:
    return fill(config(checkpoint), read_tensors(checkpoint), dtype=dtype, step=checkpoint.step, exact=False)


def _mapped(checkpoint: Checkpoint) -> dict[str, Tensor] | None:
    """All tensors of the checkpoint's safetensors files, mapped, not read; None for other files and damaged ones."""
    if any(file.suffix != ".safetensors" for file in checkpoint.files):
        return None
    try:
        return read_tensors(checkpoint)
    except CheckpointError:
        return None  # transformers says what is wrong with it


def _match(module: nn.Module, files: dict[str, Tensor]) -> dict[str, str] | None:
    names = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        found = _source(name, parameter, files)
        if found is None:
            return None
        names[name] = found
    return names


def _source(name: str, parameter: Tensor, files: dict[str, Tensor]) -> str | None:
    """The file's name for a parameter: equal numbers, and the one name that shares the longest ending."""
    equal = [
        (_shared_ending(key, name), key)
        for key, tensor in files.items()
        if tensor.shape == parameter.shape and torch.equal(tensor.to(parameter.dtype), parameter.data)
    ]
    equal.sort(reverse=True)
    if not equal or (len(equal) > 1 and equal[0][0] == equal[1][0]):
        return None  # not there, or told apart neither by numbers nor by name (biases that are all zero)
    return equal[0][1]


def _shared_ending(a: str, b: str) -> int:
    shared = 0
    for x, y in zip(reversed(a.split(".")), reversed(b.split(".")), strict=False):
        if x != y:
            break
        shared += 1
    return shared
