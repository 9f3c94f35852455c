"""TransformerLens's native model, whose names are the file's names: that of most lab series, and of planted ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.series import Checkpoint
from byrote.interp.builders import NATIVE, Built
from byrote.interp.builders.files import read_tensors
from byrote.interp.builders.files import saved_config as config
from byrote.interp.builders.filling import bounded
from byrote.interp.quiet import quiet_upstream

_NOT_TL_FIELDS = ("model_type", "bos_token_id", "eos_token_id", "format_version")


def build(
    checkpoint: Checkpoint, dtype: torch.dtype, *, change: Callable[[Any], Any] = lambda model: model
) -> Built:
    """A NativeModel with this step's weights.

    Args:
        checkpoint: whose.
        dtype: of the parameters, once it is behind hooks.
        change: makes the model that the weights are of, where that is not the native one as it is.

    Raises:
        CheckpointError: a config that is no native model, or weights that do not fill it exactly.
    """
    with quiet_upstream():
        from transformer_lens.config import TransformerBridgeConfig
        from transformer_lens.model_bridge.sources.native.model import NativeModel

    fields = {k: v for k, v in config(checkpoint).items() if k not in _NOT_TL_FIELDS}
    tensors = read_tensors(checkpoint)
    try:
        tl_config = TransformerBridgeConfig(**fields, init_weights=False)
        with bounded(tensors), torch.device("meta"):
            change(
                NativeModel(tl_config)
            )  # takes no memory; a config much larger than the weights stops here
        module = change(NativeModel(tl_config))
    except CheckpointError:
        raise
    except Exception as error:  # a damaged config can make it raise anything at all
        raise CheckpointError(
            f"{checkpoint.config_path} is not a native config ({type(error).__name__}: {error})",
            help="restore it",
        ) from error
    refuse_misfit(tensors, module, checkpoint)
    module.load_state_dict(tensors)
    return Built(module, NATIVE, tl_config=tl_config)


def parameters(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Tensor]:
    """The file's tensors."""
    return read_tensors(checkpoint)


def refuse_misfit(tensors: dict[str, Tensor], module: nn.Module, checkpoint: Checkpoint) -> None:
    """Names and shapes must be the module's own, all of them.

    Raises:
        CheckpointError: naming the first few that differ.
    """
    expected = module.state_dict()
    differing = sorted(expected.keys() ^ tensors.keys())
    if differing:
        raise CheckpointError(
            f"step {checkpoint.step}: {len(differing)} tensors missing or unexpected ({', '.join(differing[:3])})",
            help="config and weights belong to different models",
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"step {checkpoint.step}: {name} has shape {list(tensor.shape)}, the config says "
                f"{list(expected[name].shape)}",
                help="config and weights belong to different models",
            )
