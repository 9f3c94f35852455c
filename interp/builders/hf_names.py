"""Which tensor of the files fills which parameter: learned from one load by transformers, used for the next steps.

Keys in files and modules differ (GPT-NeoX files say `embed_out.weight`, the module `lm_head.weight`), and transformers'
own mapping costs a whole model build per step. After one such build the mapping is read off by content: a parameter's
tensor is the one in the files with the same shape and the same numbers. A step whose files hold other names is loaded
by transformers again, and the first swap of a series is compared with a fresh load in any case.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from byrote.checkpoints.series import Checkpoint


class LearnedNames:
    """Name maps by model config; a config whose map cannot be learned is loaded by transformers every time."""

    def __init__(self) -> None:
        self._by_config: dict[str, dict[str, str] | None] = {}
        self._in_files: dict[str, frozenset[str]] = {}

    def learn(self, config: str, module: nn.Module, checkpoint: Checkpoint) -> None:
        """Read the map off a module that was just loaded from the checkpoint; once per config."""
        if config not in self._by_config:
            files = file_tensors(checkpoint)
            self._by_config[config] = None if files is None else _match(module, files)
            self._in_files[config] = frozenset(files or ())

    def read(self, config: str, checkpoint: Checkpoint) -> dict[str, Tensor] | None:
        """The checkpoint's tensors under the module's names; None where the map does not fit its files."""
        names = self._by_config.get(config)
        if names is None:
            return None
        files = file_tensors(checkpoint)
        if files is None or files.keys() != self._in_files[config]:
            return None  # fewer or more tensors than were learned: transformers decides what that means
        return {parameter: files[name] for parameter, name in names.items()}


def file_tensors(checkpoint: Checkpoint) -> dict[str, Tensor] | None:
    """All tensors of the checkpoint's safetensors files, mapped, not read; None for other files."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for file in checkpoint.files:
        if file.suffix != ".safetensors":
            return None
        try:
            tensors.update(load_file(file))
        except (OSError, SafetensorError, KeyError):
            return None  # transformers says what is wrong with it
    return tensors


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
