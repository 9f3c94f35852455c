"""A base model with an adapter merged into it, by the `peft` library, which an extra installs.

Merging is the adapter's own arithmetic (for LoRA: W + scale * B A); tests hold it against the adapter's forward pass.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import torch

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.peft import CONFIG, base_of, refuse_unmergeable
from byrote.checkpoints.formats.trainer_state import read_json
from byrote.checkpoints.series import Checkpoint
from byrote.interp.builders import Built, hf
from byrote.interp.builders.files import saved_config, tensors_in
from byrote.interp.quiet import quiet_upstream


def config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The base's config.json, and the adapter's settings under `adapter`: steps that differ in either are not swapped."""
    return saved_config(checkpoint) | {"adapter": _adapter_config(checkpoint)}


def build(checkpoint: Checkpoint, dtype: torch.dtype) -> Built:
    """The base's architecture with base and adapter weights merged.

    Raises:
        CheckpointError: peft is not installed, base or adapter cannot be loaded, or they do not fit.
    """
    try:
        import peft
    except ImportError:
        raise CheckpointError(
            "adapters are merged by the peft library, which is not installed",
            help="pip install 'byrote[peft]'",
        ) from None
    settings = _adapter_config(checkpoint)
    refuse_unmergeable(settings)
    base = hf.build(base_of(checkpoint), dtype).module
    with quiet_upstream(), torch.random.fork_rng(devices=[]):
        try:
            model = peft.get_peft_model(base, peft.PeftConfig.from_peft_type(**settings))
            tensors = tensors_in(checkpoint.files[0], step=checkpoint.step)
            needed = set(peft.get_peft_model_state_dict(model, save_embedding_layers=False))
            # The library may save the base's embeddings beside the adapter, where tokens were added.
            allowed = set(peft.get_peft_model_state_dict(model, save_embedding_layers=True))
            _refuse_misfit(needed - tensors.keys(), tensors.keys() - allowed, step=checkpoint.step)
            peft.set_peft_model_state_dict(model, tensors)
            module = model.merge_and_unload().to(dtype)
        except CheckpointError:
            raise
        except Exception as error:  # peft raises what its many kinds of adapter happen to raise
            raise CheckpointError(
                f"peft cannot merge the adapter of step {checkpoint.step}: {' '.join(str(error).split())[:300]}",
                help=f"check {CONFIG} against the base model",
            ) from error
    return Built(module, type(module).__name__, hf_config=module.config)


def _refuse_misfit(missing: Set[str], unexpected: Set[str], *, step: int) -> None:
    """What the file does not fill would be random numbers, and what nobody takes was meant for another base."""
    for kind, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            raise CheckpointError(
                f"step {step}: {len(names)} {kind} tensors in the adapter ({', '.join(sorted(names)[:3])})",
                help="the adapter belongs to another base model, or to other settings",
            )


def _adapter_config(checkpoint: Checkpoint) -> dict[str, Any]:
    return read_json(checkpoint.path / CONFIG)
