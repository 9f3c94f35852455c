"""Load a checkpoint's files into a new TransformerBridge, or into the parameters of an existing one.

Token ids only: no tokenizer is ever given to the bridge, nothing is downloaded, no code from the checkpoint runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from byrote.checkpoints.errors import ByroteError, CheckpointError
from byrote.checkpoints.opening import open_series
from byrote.checkpoints.series import Checkpoint, CheckpointSeries, at_hand
from byrote.interp.builders import Built, builder_for, parameters
from byrote.interp.device import require_device
from byrote.interp.model import HookedModel, ModelShape
from byrote.interp.quiet import own_randomness, quiet_upstream, without_methods

_PADDING_WARNING = "warn_if_padding_and_no_attention_mask"


def _nothing(*_: object) -> None:
    pass


@own_randomness()
def load_fresh(
    checkpoint: Checkpoint, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> HookedModel:
    """Build a bridge for one checkpoint, such as `series.at(512)`, from nothing; `interp.load`.

    A step on the hub is fetched if the series allows it.

    Raises:
        CheckpointError: files that cannot be fetched, an architecture the bridge does not support, missing or unexpected tensors, wrong shapes.
    """
    with at_hand(checkpoint) as ready:
        built = builder_for(ready).build(ready, dtype)
    return behind_hooks(built, checkpoint, read_config(checkpoint), device=device, dtype=dtype)


def behind_hooks(
    built: Built,
    checkpoint: Checkpoint,
    config: dict[str, Any],
    *,
    device: str,
    dtype: torch.dtype,
    copy: bool = True,
) -> HookedModel:
    """A module that was built for this, behind a bridge.

    Args:
        built: the module and the config the bridge needs.
        checkpoint: whose weights are in it.
        config: what decides its shape and special ids, as plain JSON.
        device, dtype: of the parameters.
        copy: give its parameters memory of their own; without, those that are on the device in that dtype share theirs.

    Raises:
        CheckpointError: an architecture the bridge does not support, or one without attention heads in every layer.
    """
    for parameter in {id(p): p for p in built.module.parameters()}.values():
        # Own, aligned memory: mapped pages could make kernels round differently than after a swap.
        parameter.data = parameter.data.to(device=device, dtype=dtype, copy=copy)
        parameter.requires_grad_(False)
    built.module.to(device=device).eval()
    for (
        module
    ) in built.module.modules():  # the padding token, often also BOS, is shown as a token like others
        if hasattr(module, _PADDING_WARNING):
            setattr(module, _PADDING_WARNING, _nothing)
    parameters = dict(built.module.named_parameters(remove_duplicate=False))
    with quiet_upstream(), without_methods():
        from transformer_lens.model_bridge.sources import build_bridge_from_module

        try:
            bridge = build_bridge_from_module(
                built.module,
                built.architecture,
                hf_config=built.hf_config,
                tl_config=built.tl_config,
                tokenizer=None,
            )
        except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
            raise CheckpointError(
                f"TransformerLens cannot hook the architecture {built.architecture} ({type(error).__name__}: {error})",
                help="`byrote doctor` prints the installed versions; see the architectures TransformerBridge supports",
            ) from error
    blind = sum(not hasattr(block, "attn") for block in bridge.blocks)
    if blind or not len(bridge.blocks):
        raise CheckpointError(
            f"{built.architecture}: {blind} of {len(bridge.blocks)} layers have no attention heads",
            help="byrote measures attention heads; it needs them in every layer",
        )
    shape = _shape(bridge.cfg, built.architecture)
    return HookedModel(bridge, shape, checkpoint, parameters=parameters, config=config)


def load(
    checkpoint: Checkpoint | CheckpointSeries | str | Path,
    *,
    step: str | int | None = None,
    device: str = "cpu",
    dtype: torch.dtype | str = torch.float32,
) -> HookedModel:
    """One checkpoint as a hooked model: `.bridge` is TransformerLens's `TransformerBridge`. See `load_fresh`.

    Args:
        checkpoint: such as `series.at(512)`; or a series, or a path as `open_series` takes it.
        step: of a series: 512, "last", "nearest:3000"; None where there is one.
        device, dtype: of the copy's parameters; the type also by its name, such as "bfloat16".

    Raises:
        CheckpointError: several steps and none was named, or as `load_fresh`.
        ByroteError: a device that is not here, or a type of no such name.
    """
    chosen_dtype = dtype_named(dtype)
    require_device(str(device), dtype=str(chosen_dtype).removeprefix("torch."))
    if not isinstance(checkpoint, Checkpoint):
        series = checkpoint if isinstance(checkpoint, CheckpointSeries) else open_series(checkpoint)
        chosen = series.select(None if step is None else str(step))
        if len(chosen) != 1:
            raise CheckpointError(
                f"{series.path} holds {len(chosen)} steps",
                help="name one: load(..., step=512), or step='last'",
            )
        checkpoint = chosen[0]
    return load_fresh(checkpoint, device=str(device), dtype=chosen_dtype)


def dtype_named(dtype: torch.dtype | str) -> torch.dtype:
    """A type of parameters, also by its name.

    Raises:
        ByroteError: none of floating-point numbers has that name.
    """
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ByroteError(
            f"there is no dtype {dtype!r} for parameters", help="use float32, bfloat16, float16 or float64"
        )
    return found


@own_randomness()
def copy_into(model: HookedModel, checkpoint: Checkpoint) -> None:
    """Copy another step's tensors into the live parameters of a built bridge.

    Both steps must have equal configs; `HookedSeries` sees to that and proves the result equal to a fresh load.

    Raises:
        CheckpointError: names or shapes differ from the live model's.
    """
    with at_hand(checkpoint) as ready:  # mapped tensors stay valid when the files are removed
        source = parameters(ready, model.dtype)
    differing = sorted(source.keys() ^ model.parameters.keys()) or [
        name for name, live in model.parameters.items() if live.shape != source[name].shape
    ]
    if differing:
        raise CheckpointError(
            f"step {checkpoint.step} has other tensors than the step before ({', '.join(differing[:3])})",
            help="config and weights belong to different models",
        )
    with torch.no_grad():
        for name, parameter in model.parameters.items():
            parameter.copy_(source[name])
        refresh_split_attention(model.bridge)
    model.weights_changed(checkpoint)


def read_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """What decides the checkpoint's shape and special ids, as plain JSON."""
    with at_hand(checkpoint) as ready:
        return builder_for(ready).config(ready)


def refresh_split_attention(bridge: Any) -> None:
    """Fused QKV architectures hold q, k, v as copies made at wrapping; make them again from the fused tensor."""
    for block in bridge.blocks:
        attn: Any = getattr(block, "attn", None)
        split = getattr(attn, "split_qkv_matrix", None)
        if split is None:
            continue
        for part, fresh in zip((attn.q, attn.k, attn.v), split(attn.original_component), strict=True):
            live = part.original_component
            live.weight.copy_(fresh.weight)
            if live.bias is not None:
                live.bias.copy_(fresh.bias)


def _shape(cfg: Any, architecture: str) -> ModelShape:
    norm = cfg.normalization_type
    normalization = (
        "none" if norm is None else ("RMS" if "RMS" in norm.upper() or cfg.uses_rms_norm else "LN")
    )
    return ModelShape(
        architecture=architecture,
        n_layers=cfg.n_layers,
        n_heads=cfg.n_heads,
        n_key_value_heads=cfg.n_key_value_heads or cfg.n_heads,
        d_model=cfg.d_model,
        d_head=cfg.d_head,
        d_vocab=cfg.d_vocab,
        n_ctx=cfg.n_ctx,
        normalization=normalization,
        final_normalization="RMS" if cfg.final_rms and norm is not None else normalization,
        attn_only=bool(cfg.attn_only),
    )
