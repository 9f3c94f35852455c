"""State dicts of HookedTransformer: TransformerLens 4's native model where it computes the same, else `byrote.interp.reference`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.tl_config import (
    BUFFER,
    LegacyConfig,
    differences_from_native,
    expected_shapes,
)
from byrote.checkpoints.formats.tl_layout import Layout, kind_of
from byrote.checkpoints.formats.tl_legacy import Contents, raw_config, read_checked
from byrote.checkpoints.series import Checkpoint
from byrote.interp.builders import NATIVE, Built
from byrote.interp.builders.files import read_tensors
from byrote.interp.builders.native import refuse_misfit
from byrote.interp.quiet import quiet_upstream

_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# TransformerLens's own converter gives its bridge's names; these are the inner module's.
_INNER_NAMES = (
    ("blocks.", "layers."), ("unembed.", "head."), ("pos_embed.", "pos."), ("embed.", "tok_embed."),
    ("ln_final.", "ln_out."),
)  # fmt: skip


def config(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the model computes, and the special ids the saved config names."""
    legacy, contents = _read(checkpoint)
    saved = raw_config(checkpoint, contents)
    special = {name: saved[name] for name in _SPECIAL_IDS if type(saved.get(name)) is int}
    return {"model_type": "hooked_transformer", **legacy.to_json(), **special}


def build(checkpoint: Checkpoint, dtype: torch.dtype) -> Built:
    """A native or a reference model with this step's weights.

    Raises:
        CheckpointError: a config nothing here computes, or weights that do not fill it exactly.
    """
    with quiet_upstream():
        from transformer_lens.model_bridge.sources.native.model import NativeModel

        from byrote.interp.reference import ReferenceModel, bridge_config, with_head_bias

    legacy, _ = _read(checkpoint)
    tensors = parameters(checkpoint, dtype)
    tl_config = bridge_config(legacy)
    exact = not differences_from_native(legacy)
    module = with_head_bias(NativeModel(tl_config) if exact else ReferenceModel(tl_config, legacy))
    refuse_misfit(tensors, module, checkpoint)
    module.load_state_dict(tensors)
    return Built(module, NATIVE, tl_config=tl_config)


def parameters(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Tensor]:
    """The file's tensors, converted by TransformerLens and renamed to the inner module's names."""
    with quiet_upstream():
        from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

        from byrote.interp.reference import bridge_config

    legacy, contents = _read(checkpoint)
    names = [name for name in contents.tensors if not BUFFER.fullmatch(name)]
    weights = _turned(contents.layout, legacy, _state(checkpoint, contents, names))
    weights.setdefault("unembed.b_U", torch.zeros(legacy.d_vocab, dtype=dtype))
    converted = convert_tl_checkpoint(weights, bridge_config(legacy))
    named = {_inner_name(name, legacy): tensor.to(dtype) for name, tensor in converted.items()}
    if legacy.d_mlp is not None and legacy.act_fn == "solu_ln" and legacy.normalization != "LN":
        for layer in range(
            legacy.n_layers
        ):  # there the norm inside the MLP has no gain and no bias of its own
            named[f"layers.{layer}.mlp.ln.weight"] = torch.ones(legacy.d_mlp, dtype=dtype)
            named[f"layers.{layer}.mlp.ln.bias"] = torch.zeros(legacy.d_mlp, dtype=dtype)
    return named


def _turned(layout: Layout, legacy: LegacyConfig, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights as TransformerLens has them, biases that are zero added; see `tl_layout`."""
    shapes = dict(expected_shapes(legacy))
    for name, weight in list(weights.items()):
        if kind_of(name) in layout.transposed:
            weights[name] = weight.transpose(-2, -1).reshape(shapes[name])
    missing = {name: shape for name, shape in shapes.items() if kind_of(name) in layout.no_biases}
    some = next(iter(weights.values()))
    return weights | {name: some.new_zeros(shape) for name, shape in missing.items()}


def _inner_name(name: str, legacy: LegacyConfig) -> str:
    for theirs, inner in _INNER_NAMES:
        if name.startswith(theirs):
            name = inner + name.removeprefix(theirs)
            break
    if legacy.gated:
        return name.replace(".mlp.in.bias", ".mlp.b_in")
    return name.replace(".mlp.in.", ".mlp.fc_in.").replace(".mlp.out.", ".mlp.fc_out.")


def _read(checkpoint: Checkpoint) -> tuple[LegacyConfig, Contents]:
    """Config and contents, which pairs rotary embeddings turn settled by the table saved with the weights."""
    try:
        legacy, contents = read_checked(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"step {checkpoint.step}: {error.message}", help=error.help) from None
    except OSError as error:
        raise CheckpointError(
            f"step {checkpoint.step}: {checkpoint.files[0].name} cannot be read ({error.strerror})",
            help="was it removed since the series was opened?",
        ) from error
    if legacy.positions == "rotary":
        legacy = replace(legacy, rotary_adjacent=_rotary_adjacent(checkpoint, legacy, contents))
    return legacy, contents


def _rotary_adjacent(checkpoint: Checkpoint, legacy: LegacyConfig, contents: Contents) -> bool:
    """Whether neighbouring pairs turn. Old configs did not say: it depended on the model's family."""
    from byrote.interp.reference import rotary_tables

    table = "blocks.0.attn.rotary_sin"
    if table not in contents.tensors:
        if legacy.rotary_adjacent is None:
            raise CheckpointError(
                f"step {checkpoint.step}: the config has no rotary_adjacent_pairs, and the weights no rotary_sin",
                help="add rotary_adjacent_pairs to the config: true where neighbouring pairs are rotated (GPT-J), "
                "false where halves are (GPT-NeoX, Llama)",
            )
        return legacy.rotary_adjacent
    saved = _state(checkpoint, contents, [table])[table]
    candidates = (True, False) if legacy.rotary_adjacent is None else (legacy.rotary_adjacent,)
    tolerance = 1e-3 if saved.dtype in (torch.float32, torch.float64) else 1e-2
    for adjacent in candidates:
        expected = rotary_tables(legacy, min(len(saved), legacy.n_ctx), adjacent=adjacent)[0]
        shown = saved[: len(expected)].float()
        if shown.shape == expected.shape and torch.allclose(shown, expected, atol=tolerance):
            return adjacent
    raise CheckpointError(
        f"step {checkpoint.step}: the angles saved in rotary_sin are not those of rotary_dim={legacy.rotary_dim}, "
        f"rotary_base={legacy.rotary_base:g}, rotary_adjacent_pairs={legacy.rotary_adjacent}",
        help="the config belongs to another model, or the angles were scaled in a way it does not record",
    )


def _state(checkpoint: Checkpoint, contents: Contents, wanted: list[str]) -> dict[str, Tensor]:
    """Some of the file's tensors, by TransformerLens's names."""
    state = read_tensors(checkpoint)
    return {name: state[contents.prefix + name].detach() for name in wanted}
