"""PyTorch Lightning's `.ckpt`: `epoch=1-step=500.ckpt` and similar names in one folder.

The file holds `state_dict`, `global_step`, `epoch` and `hyper_parameters`. The step is the name's, else `global_step`.
Tokens and loss are not in it. The architecture is a Hugging Face config in `hyper_parameters`, else the `config.json`
beside the file or in the folder above.

Source: lightning.pytorch.trainer.connectors.checkpoint_connector.dump_checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.adapter import Format
from byrote.checkpoints.formats.model_config import refuse_implausible, usable_config
from byrote.checkpoints.formats.stored_tensor import is_state
from byrote.checkpoints.formats.torch_zip import read_torch_file
from byrote.checkpoints.formats.trainer_state import count_or_none
from byrote.checkpoints.formats.weight_files import (
    WeightFile,
    assemble,
    candidates,
    config_beside,
    first_content,
)
from byrote.checkpoints.series import Checkpoint, CheckpointSeries

STATE = "state_dict"  # where in the file the weights are
ENDINGS = (".ckpt",)
_MARKS = ("pytorch-lightning_version", "global_step", "epoch")
_CONFIG_FIELDS = ("config", "model_config", "hf_config", "model")


def sniff(path: Path) -> bool:
    """True for files that end in .ckpt, unless the first that can be read is a plain state dict."""
    files = candidates(path, ENDINGS)[0]
    content = first_content(files)
    return bool(files) if content is None else _is_lightning(content)


def discover(path: Path) -> CheckpointSeries:
    """List the files in step order; what is no Lightning checkpoint is a gap."""
    return assemble(path, FORMAT.name, *candidates(path, ENDINGS), _checkpoint)


def embedded_config(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """The Hugging Face config that `hyper_parameters` carry, themselves or in a field; None where they carry none.

    Raises:
        CheckpointError: it refers to code.
    """
    hyper = content.get("hyper_parameters")
    if not isinstance(hyper, dict):
        return None
    for found in (hyper, *(hyper.get(name) for name in _CONFIG_FIELDS)):
        if isinstance(found, dict) and isinstance(found.get("model_type"), str):
            return usable_config(found, where="the config in hyper_parameters")
    return None


def _is_lightning(content: Any) -> bool:
    return isinstance(content, dict) and STATE in content and any(mark in content for mark in _MARKS)


def _checkpoint(file: WeightFile) -> Checkpoint:
    content = read_torch_file(file.path).content
    if not _is_lightning(content) or not is_state(content[STATE]):
        raise CheckpointError(
            f"{file.path.name} is not a Lightning checkpoint: it lacks a state_dict of tensors, or its step",
            help="remove other files from the folder, or give the path of one file",
        )
    beside, shapes = None, {name: tensor.shape for name, tensor in content[STATE].items()}
    if (config := embedded_config(content)) is not None:
        refuse_implausible(config, shapes.values(), where="the config in hyper_parameters")
    else:
        beside = config_beside(file.path, shapes)
    saved = count_or_none(content.get("global_step"))
    return file.checkpoint(FORMAT.name, saved, spelling="step=STEP.ckpt", config=beside)


FORMAT = Format(
    "lightning",
    sniff,
    discover,
    builder="state_dict",
    reads="Lightning's .ckpt",
    single_files=True,
    config_inside=lambda checkpoint: embedded_config(read_torch_file(checkpoint.files[0]).content),
)
