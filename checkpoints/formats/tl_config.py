"""The config of a TransformerLens `HookedTransformer`: the architecture it describes, or why it is refused.

Source: `HookedTransformerConfig` of TransformerLens 1 to 3, with its defaults; parameters and buffers of TransformerLens 3.9. Only fields that change the computation
are read. A field that would change it in a way nothing here computes is refused by name, and so is any field that is
neither one of TransformerLens's nor about training: a model that is silently wrong is worse than none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.adapter import TensorInfo

NORMALIZATIONS = ("LN", "LNPre", "RMS", "RMSPre", None)
POSITIONS = ("standard", "shortformer", "rotary")
# Names on the right are what TransformerLens 4 computes; the tanh forms of gelu differ in the tenth digit.
ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_new", "gelu_fast": "gelu_new", "gelu_pytorch_tanh": "gelu_new",
    "relu": "relu", "silu": "silu", "solu": "solu", "solu_ln": "solu_ln",
}  # fmt: skip

_LARGEST = {
    "n_layers": 1_000,
    "n_ctx": 65_536,
    "d_vocab": 10_000_000,
}  # a damaged config must not eat all memory
_ALIASES = {"normalization": "normalization_type", "ln_eps": "eps"}  # spellings of the first public models
# Fields that change the computation, and the values with which they do not.
_ONLY: dict[str, tuple[Any, ...]] = dict.fromkeys((
    "clip_qkv", "decoder_start_token_id", "experts_per_token", "num_experts", "quantization_method",
    "relative_attention_max_distance", "relative_attention_num_buckets", "rotary_base_local",
), (None,)) | dict.fromkeys((
    "load_in_4bit", "post_embedding_ln", "rmsnorm_uses_offset", "use_NTK_by_parts_rope", "use_attention_sinks",
    "use_dynamic_ntk_rope", "use_logn_attn", "use_normalization_before_and_after", "use_qk_norm", "use_yarn_rope",
), (False, None)) | {
    "attention_dir": ("causal",), "architecture": (None, "neel"), "right_multiply_matrices": (True, False, None),
    "rotary_scaling_factor": (1.0,),
}  # fmt: skip
_SOFT_CAPS = ("attn_scores_soft_cap", "output_logits_soft_cap")
_OTHER_ARCHITECTURES = re.compile(r"olmoe|olmo2|olmo3|t5|bert|gptoss|neel-solu-old|mingpt", re.IGNORECASE)
_USED = {
    "n_layers", "d_model", "n_heads", "d_head", "n_key_value_heads", "d_mlp", "n_ctx", "d_vocab", "d_vocab_out",
    "act_fn", "normalization_type", "final_rms", "eps", "positional_embedding_type", "shortformer_pos",
    "rotary_dim", "rotary_base", "rotary_adjacent_pairs", "attn_only", "parallel_attn_mlp", "gated_mlp",
    "use_attn_scale", "attn_scale", "scale_attn_by_inverse_layer_idx", "use_local_attn", "window_size",
    "attn_types", "original_architecture", "transposed",
}  # fmt: skip
# HookedTransformerConfig's remaining fields: hooks, devices, names, initialisation, parameters of refused features.
_HARMLESS = re.compile(
    r"use_attn_result|use_split_qkv_input|use_hook_mlp_in|use_attn_in|use_hook_tokens|default_prepend_bos"
    r"|ungroup_grouped_query_attention|model_name|from_checkpoint|checkpoint_\w+|tokenizer_\w+|init_mode|n_devices"
    r"|device|seed|initializer_range|init_weights|n_params|dtype|trust_remote_code|tie_word_embeddings|yarn_\w+"
    r"|NTK_\w+|norm_topk_prob|train_seq_length|layer_norm_folding|uses_rms_norm|default_padding_side"
)
# What people keep beside it: nothing of this reaches a forward pass.
_TRAINING = frozenset({
    "lr", "learning", "decay", "momentum", "batch", "batches", "step", "steps", "epoch", "epochs", "tokens",
    "optim", "optimizer", "warmup", "schedule", "beta", "betas", "grad", "loss", "wandb", "debug", "save",
    "checkpoint", "checkpoints", "log", "logging", "seed", "data", "dataset", "path", "folder", "dir",
    "float16", "bfloat16", "id", "name", "run", "version", "timestamp", "date", "note", "notes", "comment",
    "description", "task", "author", "precision", "device", "devices", "init", "train", "training", "eval",
    "test", "control", "project", "entity", "tags",
})  # fmt: skip

# Buffers of a state dict: masks and tables that follow from the config.
BUFFER = re.compile(r"blocks\.\d+\.attn\.(mask|IGNORE|rotary_sin|rotary_cos)")
# TransformerLens filled this one with zeros where a state dict lacked it; models of that time had no such bias.
_OPTIONAL = frozenset({"unembed.b_U"})
_FLOATS = frozenset({"F16", "BF16", "F32", "F64"})


@dataclass(frozen=True)
class LegacyConfig:
    """What a HookedTransformer computes.

    Attributes:
        n_key_value_heads: None for plain multi-head attention.
        d_mlp: None without MLPs.
        act_fn: one of `ACTIVATIONS`' values; None without MLPs.
        positions: one of `POSITIONS`. Shortformer adds position embeddings to the inputs of queries and keys only.
        rotary_adjacent: rotate neighbouring pairs, else the two halves; None where the config does not say.
        scales: per layer, what attention scores are divided by.
        windows: per layer, how many tokens a query sees back, itself included; None for all.
    """

    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    n_key_value_heads: int | None
    d_mlp: int | None
    n_ctx: int
    d_vocab: int
    act_fn: str | None
    normalization: str | None
    final_rms: bool
    eps: float
    positions: str
    rotary_dim: int
    rotary_base: float
    rotary_adjacent: bool | None
    parallel: bool
    gated: bool
    scales: tuple[float, ...]
    windows: tuple[int | None, ...]

    @property
    def attn_only(self) -> bool:
        """Without MLPs."""
        return self.d_mlp is None

    @property
    def folded(self) -> bool:
        """Norm gains are in the neighbouring weights: the norms have no parameters of their own."""
        return self.normalization in ("LNPre", "RMSPre")

    def to_json(self) -> dict[str, Any]:
        """Plain fields: equal for two configs exactly where the two models compute alike."""
        return {**asdict(self), "scales": list(self.scales), "windows": list(self.windows)}


def looks_like_legacy(data: Any) -> bool:
    """True for a JSON object with HookedTransformerConfig's fields that is no Hugging Face or lab config."""
    return (
        isinstance(data, dict)
        and {"n_layers", "d_model", "n_ctx"} <= data.keys()
        and not {"model_type", "architectures"} & data.keys()
    )


def read_legacy_config(data: Mapping[str, Any]) -> LegacyConfig:
    """What the fields of a HookedTransformerConfig say, with TransformerLens's defaults for what they leave out.

    Raises:
        CheckpointError: naming the field and value that is missing, impossible or not supported.
    """
    fields = _renamed(data)
    _refuse_unsupported(fields)
    n_layers, d_model, d_head = (_whole(fields, name) for name in ("n_layers", "d_model", "d_head"))
    n_heads = d_model // d_head if fields.get("n_heads", -1) == -1 else _whole(fields, "n_heads")
    grouped = None if fields.get("n_key_value_heads") is None else _whole(fields, "n_key_value_heads")
    if n_heads % (grouped or 1):
        raise _refused("n_key_value_heads", grouped, f"it does not divide n_heads={n_heads}")
    default = "shortformer" if _flag(fields, "shortformer_pos") else "standard"
    positions = _choice(fields, "positional_embedding_type", dict.fromkeys(POSITIONS), default=default)
    d_mlp = None if _flag(fields, "attn_only") else _whole(fields, "d_mlp", default=4 * d_model)
    config = LegacyConfig(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        d_head=d_head,
        n_key_value_heads=grouped,
        d_mlp=d_mlp,
        n_ctx=_whole(fields, "n_ctx"),
        d_vocab=_whole(fields, "d_vocab"),
        act_fn=None if d_mlp is None else _choice(fields, "act_fn", ACTIVATIONS, default="relu"),
        normalization=_choice(fields, "normalization_type", dict.fromkeys(NORMALIZATIONS), default="LN"),
        final_rms=_flag(fields, "final_rms"),
        eps=_positive(fields, "eps", default=1e-5),
        positions=positions,
        rotary_dim=_rotary_dim(fields, d_head) if positions == "rotary" else 0,
        rotary_base=_positive(fields, "rotary_base", default=10_000.0),
        rotary_adjacent=_flag(fields, "rotary_adjacent_pairs") if "rotary_adjacent_pairs" in fields else None,
        parallel=_flag(fields, "parallel_attn_mlp"),
        gated=d_mlp is not None and _flag(fields, "gated_mlp"),
        scales=_scales(fields, n_layers, d_head),
        windows=_windows(fields, n_layers),
    )
    _refuse_combinations(config, fields)
    return config


def differences_from_native(legacy: LegacyConfig) -> tuple[str, ...]:
    """What TransformerLens 4's own native model would compute wrongly or refuse; empty where it is exact."""
    found = {
        "shortformer positions": legacy.positions == "shortformer",
        "rotary embeddings of halves": legacy.positions == "rotary" and not legacy.rotary_adjacent,
        "a rotary base that is not a whole number": legacy.positions == "rotary"
        and not legacy.rotary_base.is_integer(),
        "unscaled attention": math.isclose(legacy.scales[0], 1.0, abs_tol=1e-9) and legacy.d_head > 1,
        "attention scaled by layer": len(set(legacy.scales)) > 1,
        "local attention": any(window is not None for window in legacy.windows),
        "attention and MLP in parallel": legacy.parallel,
        "a gated MLP with biases": legacy.gated,
    }
    return tuple(name for name, there in found.items() if there)


def refuse_misfit(legacy: LegacyConfig, tensors: Mapping[str, TensorInfo]) -> None:
    """Names and shapes must be those the config describes, all of them; buffers are left out.

    Raises:
        CheckpointError: naming the first few that differ.
    """
    expected = dict(expected_shapes(legacy))
    found = {name: tensor for name, tensor in tensors.items() if not BUFFER.fullmatch(name)}
    missing = sorted(expected.keys() - found.keys() - _OPTIONAL)
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


def _renamed(data: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(data)
    for old, new in _ALIASES.items():
        value = fields.pop(old, fields.get(new))
        if fields.setdefault(new, value) != value:
            raise _refused(old, value, f"{new} says {fields[new]!r}")
        if old not in data and new not in data:
            del fields[new]
    return fields


def _refuse_unsupported(fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if name in _ONLY:
            if value not in _ONLY[name]:
                raise _refused(name, value, f"supported is {_ONLY[name][0]!r}")
        elif name in _SOFT_CAPS:
            if value is not None and not (_is_number(value) and value <= 0):
                raise _refused(name, value, "soft caps are not supported")
        elif name in _USED or _HARMLESS.fullmatch(name):
            continue
        elif value not in (None, False, "", [], {}) and not _TRAINING & set(name.lower().split("_")):
            raise CheckpointError(
                f"the config has {name}={_shown(value)}, which is not a field of TransformerLens's config",
                help="it may change what the model computes; if it does not, remove it",
            )
    family = fields.get("original_architecture")
    if isinstance(family, str) and _OTHER_ARCHITECTURES.search(family):
        raise _refused("original_architecture", family, "TransformerLens computes this family differently")


def _refuse_combinations(config: LegacyConfig, fields: Mapping[str, Any]) -> None:
    d_vocab_out = fields.get("d_vocab_out", -1)
    if d_vocab_out not in (None, -1, config.d_vocab):
        raise _refused(
            "d_vocab_out", d_vocab_out, f"it must equal d_vocab={config.d_vocab} to predict the next token"
        )
    if config.parallel and config.attn_only:
        raise _refused("parallel_attn_mlp", True, "an attention-only model has no MLP to run in parallel")
    if config.act_fn == "solu_ln" and config.gated:
        raise _refused(
            "act_fn", "solu_ln", "TransformerLens never used the input weights of such a gated MLP"
        )
    if config.act_fn == "solu_ln" and config.normalization == "RMSPre":
        raise _refused("act_fn", "solu_ln", "with RMSPre, TransformerLens normalised its MLP in two ways")


def _rotary_dim(fields: Mapping[str, Any], d_head: int) -> int:
    rotary_dim = _whole(fields, "rotary_dim", default=d_head)
    if rotary_dim % 2 or rotary_dim > d_head:
        raise _refused("rotary_dim", rotary_dim, f"it must be even and at most d_head={d_head}")
    return rotary_dim


def _scales(fields: Mapping[str, Any], n_layers: int, d_head: int) -> tuple[float, ...]:
    scale = math.sqrt(d_head)
    if not _flag(fields, "use_attn_scale", default=True):
        scale = 1.0
    elif fields.get("attn_scale", -1) != -1:
        scale = _positive(fields, "attn_scale", default=scale)
    by_layer = _flag(fields, "scale_attn_by_inverse_layer_idx")
    return tuple(scale * (layer + 1 if by_layer else 1) for layer in range(n_layers))


def _windows(fields: Mapping[str, Any], n_layers: int) -> tuple[int | None, ...]:
    if not _flag(fields, "use_local_attn"):
        return (None,) * n_layers
    kinds = fields.get("attn_types")
    if (
        not isinstance(kinds, list)
        or len(kinds) < n_layers
        or any(kind not in ("local", "global") for kind in kinds)
    ):
        raise _refused("attn_types", kinds, f"it must say local or global for each of {n_layers} layers")
    window = _whole(fields, "window_size")
    return tuple(window if kind == "local" else None for kind in kinds[:n_layers])


def _whole(fields: Mapping[str, Any], name: str, *, default: int | None = None) -> int:
    value = fields.get(name, default)
    value = default if value is None else value
    if value is None:
        raise CheckpointError(
            f"the config does not say {name}", help="save the whole HookedTransformerConfig: cfg.to_dict()"
        )
    if type(value) is not int or not 0 < value <= _LARGEST.get(name, 1_000_000):
        raise _refused(name, value, "it must be a whole number above 0, and not absurdly large")
    return value


def _positive(fields: Mapping[str, Any], name: str, *, default: float) -> float:
    value = fields.get(name, default)
    if not _is_number(value) or not value > 0:
        raise _refused(name, value, "it must be a number above 0")
    return float(value)


def _flag(fields: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    value = fields.get(name, default)
    if not isinstance(value, bool | None):
        raise _refused(name, value, "it must be true or false")
    return bool(value)


def _choice(fields: Mapping[str, Any], name: str, known: Mapping[Any, Any], *, default: str) -> Any:
    value = fields.get(name, default)
    if not isinstance(value, str | None) or value not in known:
        raise _refused(name, value, f"known are {', '.join(map(str, known))}")
    return known[value] or value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refused(name: str, value: Any, why: str) -> CheckpointError:
    return CheckpointError(
        f"the config has {name}={_shown(value)}: {why}",
        help="byrote loads what it can compute exactly as TransformerLens did, and nothing else",
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


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
