"""The tensors of a HookedTransformer's state dict: their names in a file, and those a config describes.

Source: the parameters and buffers of HookedTransformer in TransformerLens 3.9.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.adapter import TensorInfo
from byrote.checkpoints.formats.safetensors_header import read_header
from byrote.checkpoints.formats.state_dict import state_of
from byrote.checkpoints.formats.tl_config import LegacyConfig
from byrote.checkpoints.formats.torch_zip import read_torch_file

# Buffers: masks and tables that follow from the config.
BUFFER = re.compile(r"blocks\.\d+\.attn\.(mask|IGNORE|rotary_sin|rotary_cos)")
# TransformerLens filled this one with zeros where a state dict lacked it; models of that time had no such bias.
OPTIONAL = frozenset({"unembed.b_U"})

_CONFIG_KEYS = ("cfg", "config", "model_cfg", "model_config")
_FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
CONVERT = (
    "where you trust it, load it once with the TransformerLens that wrote it and save plain values: "
    "torch.save(model.state_dict(), 'step_N.pth'); json.dump(model.cfg.to_dict(), open('config.json', 'w'), default=str)"
)


@dataclass(frozen=True)
class Contents:
    """What one file holds, tensors by TransformerLens's names; `prefix` is what wrappers put before them."""

    tensors: Mapping[str, TensorInfo]
    prefix: str
    config: Mapping[str, Any] | None
    beside: Mapping[str, Any]


def read_contents(file: Path) -> Contents:
    """Names and shapes in a file, and the plain values beside them.

    Raises:
        CheckpointError: the file is damaged, asks for code to be run, or holds no HookedTransformer.
    """
    tensors, outer = tensors_in(file)
    embedding = embedding_name(tensors)
    if embedding is None:
        raise CheckpointError(
            f"{file.name} holds no state dict of a HookedTransformer (no embed.W_E)",
            help='save model.state_dict(), alone or as "state_dict" beside "cfg"',
        )
    prefix = embedding.removesuffix("embed.W_E")
    strangers = sorted(name for name in tensors if not name.startswith(prefix))
    if strangers:
        raise CheckpointError(
            f"{file.name}: {len(strangers)} tensors are outside {prefix!r} ({', '.join(strangers[:3])})",
            help="save the HookedTransformer's state_dict() alone",
        )
    config = next((outer[key] for key in _CONFIG_KEYS if isinstance(outer.get(key), dict)), None)
    return Contents({n.removeprefix(prefix): t for n, t in tensors.items()}, prefix, config, outer)


def tensors_in(file: Path) -> tuple[dict[str, TensorInfo], Mapping[str, Any]]:
    """Tensors by their names in the file, and what was saved beside them."""
    if file.suffix.lower() == ".safetensors":
        return {
            entry.name: TensorInfo(entry.dtype, entry.shape, file.name) for entry in read_header(file)
        }, {}
    try:
        content = read_torch_file(file).content
    except CheckpointError as error:
        if "transformer_lens" in error.message or "numpy" in error.message:
            raise CheckpointError(error.message, help=CONVERT) from None
        raise
    state = state_of(content)
    beside = {} if state is content else {k: v for k, v in content.items() if v is not state}
    return {name: TensorInfo(tensor.dtype, tensor.shape, file.name) for name, tensor in state.items()}, beside


def embedding_name(tensors: Mapping[str, TensorInfo]) -> str | None:
    """The name of `embed.W_E`, whatever wrappers (`_orig_mod.`, `module.`) put before it."""
    return next((name for name in tensors if re.fullmatch(r"(?:[\w]+\.)*?embed\.W_E", name)), None)


def refuse_misfit(legacy: LegacyConfig, tensors: Mapping[str, TensorInfo]) -> None:
    """Names and shapes must be those the config describes, all of them; buffers are left out.

    Raises:
        CheckpointError: naming the first few that differ.
    """
    expected = dict(expected_shapes(legacy))
    found = {name: tensor for name, tensor in tensors.items() if not BUFFER.fullmatch(name)}
    missing = sorted(expected.keys() - found.keys() - OPTIONAL)
    unexpected = sorted(found.keys() - expected.keys())
    for names, what in ((missing, "missing"), (unexpected, "not described by the config")):
        if names:
            raise CheckpointError(
                f"{len(names)} tensors are {what} ({', '.join(names[:3])})",
                help=_misfit_help(missing + unexpected, legacy),
            )
    for name, tensor in found.items():
        if tensor.shape != expected[name]:
            raise CheckpointError(
                f"{name} has shape {list(tensor.shape)}, the config says {list(expected[name])}",
                help="config and weights belong to different models",
            )
        if tensor.dtype not in _FLOATS:
            raise CheckpointError(
                f"{name} holds {tensor.dtype} numbers", help="quantised weights are not supported"
            )


def expected_shapes(legacy: LegacyConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every parameter of the HookedTransformer a config describes, by TransformerLens's names."""
    d_model = legacy.d_model
    yield "embed.W_E", (legacy.d_vocab, d_model)
    if legacy.positions != "rotary":
        yield "pos_embed.W_pos", (legacy.n_ctx, d_model)
    for layer in range(legacy.n_layers):
        for name, shape in _block_shapes(legacy):
            yield f"blocks.{layer}.{name}", shape
    yield from _norm_shapes("ln_final", legacy, d_model, final=True)
    yield "unembed.W_U", (d_model, legacy.d_vocab)
    yield "unembed.b_U", (legacy.d_vocab,)


def _block_shapes(legacy: LegacyConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    heads, width, d_model = legacy.n_heads, legacy.d_head, legacy.d_model
    shared, mark = legacy.n_key_value_heads or heads, "_" if legacy.n_key_value_heads else ""
    yield from _norm_shapes("ln1", legacy, d_model)
    yield "attn.W_Q", (heads, d_model, width)
    yield "attn.b_Q", (heads, width)
    for part in "KV":
        yield f"attn.{mark}W_{part}", (shared, d_model, width)
        yield f"attn.{mark}b_{part}", (shared, width)
    yield "attn.W_O", (heads, width, d_model)
    yield "attn.b_O", (d_model,)
    if legacy.d_mlp is None:
        return
    yield from _norm_shapes("ln2", legacy, d_model)
    yield "mlp.W_in", (d_model, legacy.d_mlp)
    yield "mlp.b_in", (legacy.d_mlp,)
    yield "mlp.W_out", (legacy.d_mlp, d_model)
    yield "mlp.b_out", (d_model,)
    if legacy.gated:
        yield "mlp.W_gate", (d_model, legacy.d_mlp)
    if legacy.act_fn == "solu_ln" and legacy.normalization == "LN":
        yield from _norm_shapes("mlp.ln", legacy, legacy.d_mlp)


def _norm_shapes(
    name: str, legacy: LegacyConfig, width: int, *, final: bool = False
) -> Iterator[tuple[str, tuple[int, ...]]]:
    if legacy.normalization in ("LN", "RMS"):
        yield f"{name}.w", (width,)
    if legacy.normalization == "LN" and not (final and legacy.final_rms):
        yield f"{name}.b", (width,)


def _misfit_help(names: list[str], legacy: LegacyConfig) -> str:
    if any(re.search(r"(^|\.)ln(1|2|_final)\.", name) for name in names):
        return (
            f"the config says normalization_type={legacy.normalization!r}; weights whose norms were folded in need "
            "'LNPre' or 'RMSPre', others 'LN' or 'RMS'"
        )
    if "pos_embed.W_pos" in names:
        return f"the config says positional_embedding_type={legacy.positions!r}"
    return "config and weights belong to different models"
