"""Build a transformers module from a Hugging Face config and tensors by name, with no parameter left at random.

transformers is given tensors, never a folder: in a folder it would also look for adapters, other weight files that the
config names, and distributed checkpoints. It still maps old names to new ones and ties what is tied.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.inert_pickle import shown
from byrote.interp.quiet import quiet_upstream

# Put before or between names by torch.compile, FSDP and activation checkpointing.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Masks and rotary tables that older releases saved with the weights and newer ones compute.
_OLD_BUFFERS = re.compile(r"(?:^|\.)(?:attn|attention)\.(?:bias|masked_bias)$|(?:^|\.)rotary_emb\.inv_freq$")
_DIGITS = re.compile(r"\d+")
# Fields that make transformers look beyond the tensors it is given, or hand back other things than logits.
_IGNORED_FIELDS = (
    "transformers_weights",
    "attn_implementation",
    "_attn_implementation",
    "fusion_config",
    "_name_or_path",
    "output_hidden_states",
    "output_attentions",
    "return_dict",
)
MAX_BUFFER_ELEMENTS = 1 << 28  # a mask of 16,384 by 16,384


def fill(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, dtype: torch.dtype, step: int, exact: bool
) -> nn.Module:
    """The architecture a config names, filled from these tensors and nothing else.

    Args:
        config: fields of a config.json.
        tensors: by the names of the file, or of the module.
        dtype: of the parameters, whatever that of the tensors.
        step: for messages.
        exact: refuse every tensor that is not part of the model; otherwise only those of further layers.

    Raises:
        CheckpointError: an architecture transformers does not have, or tensors that do not fill it.
    """
    with quiet_upstream(), bounded(tensors):
        try:
            settings, kind = _class_of(config)
            module, info = kind.from_pretrained(
                None,
                config=settings,
                state_dict=dict(tensors),
                dtype=dtype,  # never "auto": half-precision files would silently run in half precision
                attn_implementation="eager",
                ignore_mismatched_sizes=True,  # refused below, by name
                output_loading_info=True,
            )
        except CheckpointError:
            raise
        except Exception as error:  # a damaged config can make transformers raise anything at all
            raise CheckpointError(
                f"transformers cannot load step {step}: {' '.join(shown(error)[:300].split())}",
                help="check config.json against the weights; `byrote scan` lists what the folder holds",
            ) from error
    for kind_of_gap in ("missing_keys", "mismatched_keys", "error_msgs"):
        names = sorted(map(str, info.get(kind_of_gap) or ()))
        if names:
            raise CheckpointError(
                f"step {step}: {len(names)} {kind_of_gap.replace('_', ' ')} ({_first(names)})",
                help="the weights do not fill this architecture; the rest would be random numbers",
            )
    unexpected = sorted(map(str, info.get("unexpected_keys") or ()))
    strangers = [name for name in unexpected if not _OLD_BUFFERS.search(name)]
    if exact and strangers:
        raise CheckpointError(
            f"step {step}: {len(strangers)} tensors do not belong to the architecture in config.json ({_first(strangers)})",
            help="config and weights belong to different models; or save the model's state_dict() alone",
        )
    # Extra heads and old buffers may be left out; layers that config.json does not count are another model.
    known = {_DIGITS.sub("#", name) for name, _ in module.named_parameters()}
    more = [name for name in unexpected if _DIGITS.sub("#", name) in known]
    if more:
        raise CheckpointError(
            f"step {step}: the files hold {len(more)} tensors of further layers ({_first(more)})",
            help="config.json counts fewer layers than the weights have: it belongs to another model",
        )
    return module


def without_prefix(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, step: int
) -> dict[str, Tensor]:
    """The tensors under the names the architecture has, with what wrappers put before them taken off.

    Of the beginnings of names (`model.`, `module.net.`, ...) the one behind which most names are the architecture's own
    is taken off; none, where that is best. All names must have it.

    Raises:
        CheckpointError: an architecture transformers does not have, names without the beginning, or two names
            that become one.
    """
    plain = {_WRAPPERS.sub("", name): tensor for name, tensor in tensors.items()}
    if len(plain) != len(tensors):
        raise CheckpointError(
            f"step {step} holds tensors inside and outside a wrapper (_orig_mod or the like) under one name",
            help="save the unwrapped model's state_dict()",
        )
    expected = _names_of(json.dumps(dict(config), sort_keys=True, default=str), len(plain))

    def fitting(beginning: str) -> int:
        return sum(n.startswith(beginning) and n[len(beginning) :] in expected for n in plain)

    best = max(_beginnings(plain), key=lambda beginning: (fitting(beginning), -len(beginning)))
    others = sorted(name for name in plain if not name.startswith(best))
    if others:
        raise CheckpointError(
            f"step {step}: the model's tensors begin with {shown(best)}, {len(others)} of the file's do not ({_first(others)})",
            help="save the model's state_dict() alone",
        )
    return {name[len(best) :]: tensor for name, tensor in plain.items()}


def _beginnings(names: Iterable[str]) -> list[str]:
    """ "", and every run of whole dotted parts that at least half of the names begin with."""
    parts = [name.split(".")[:-1] for name in names]
    counts = Counter(".".join(p[: i + 1]) + "." for p in parts for i in range(min(len(p), 8)))
    return ["", *(beginning for beginning, n in counts.items() if 2 * n >= len(parts))]


@lru_cache(maxsize=8)
def _names_of(config: str, n_tensors: int) -> frozenset[str]:
    """Names of the architecture's tensors, also without the head's own beginning (`transformer.`, `model.`)."""
    with quiet_upstream(), bounded({}, n_tensors=n_tensors), torch.device("meta"):
        try:
            settings, kind = _class_of(json.loads(config))
            module = kind(settings)
        except CheckpointError:
            raise
        except Exception as error:  # as in `fill`
            raise CheckpointError(
                f"transformers cannot build what config.json describes: {' '.join(shown(error)[:300].split())}",
                help="check config.json against the weights",
            ) from error
    names = set(module.state_dict()) | {name for name, _ in module.named_parameters(remove_duplicate=False)}
    base = f"{getattr(module, 'base_model_prefix', '')}."
    return frozenset(names | {name.removeprefix(base) for name in names})


def _class_of(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """transformers' config object and causal language model class for a config.json."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if config.get("quantization_config"):
        raise CheckpointError(
            "the weights are quantised, which byrote cannot measure", help="save them dequantised first"
        )
    wanted = config.get("architectures")
    wanted = [name for name in wanted if isinstance(name, str)] if isinstance(wanted, list) else []
    model_type = config.get("model_type")
    if not model_type:  # configs of before 2020
        named = [kind for kind, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if name in wanted]
        model_type = named[0] if named else None
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise CheckpointError(
            f"transformers has no architecture {shown(model_type or wanted)}",
            help="`byrote doctor` prints the installed versions; byrote runs no code from a checkpoint",
        )
    settings = CONFIG_MAPPING[model_type].from_dict(_plain_fields(config))
    if type(settings) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise CheckpointError(
            f"{shown(model_type)} is not a causal language model",
            help="byrote measures causal language models only",
        )
    for name in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads"):
        count = getattr(settings, name, None)
        if count is not None and (type(count) is not int or count < 1):
            raise CheckpointError(
                f"config.json says {name} = {shown(count)}", help="restore the model's config"
            )
    kinds = MODEL_FOR_CAUSAL_LM_MAPPING[type(settings)]
    kinds = kinds if isinstance(kinds, tuple | list) else (kinds,)
    return settings, next((kind for kind in kinds if kind.__name__ in wanted), kinds[0])


def _plain_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without what points elsewhere, and without nonsense in what evaluation never uses."""
    fields = {name: value for name, value in config.items() if name not in (*_IGNORED_FIELDS, "auto_map")}
    for name, value in fields.items():
        if "drop" in name and isinstance(value, int | float):
            fields[name] = 0.0
        elif name.endswith("_token_id") and not isinstance(value, list):
            fields[name] = value if type(value) is int and 0 <= value < 1 << 31 else None
    return fields


@contextmanager
def bounded(tensors: Mapping[str, Tensor], *, n_tensors: int | None = None) -> Iterator[None]:
    """Stop modules being built from a config that describes far more than the tensors there are.

    Counts modules, numbers on the meta device and the size of tables as they are registered.

    Args:
        tensors: what the config should describe; empty where only their number is known.
        n_tensors: their number, where it is not that of `tensors`.

    Raises:
        CheckpointError: inside the block, where something far larger is built.
    """
    from torch.nn.modules import module as registration

    most_modules = 1000 + 100 * (len(tensors) if n_tensors is None else n_tensors)
    most_elements = (1 << 20) + 3 * sum(t.numel() for t in tensors.values()) if tensors else None
    seen = {"modules": 0, "elements": 0}

    def count_module(*_: Any) -> None:
        seen["modules"] += 1
        if seen["modules"] > most_modules:
            raise _too_large(f"more than {most_modules} modules")

    def count_parameter(_module: Any, _name: str, parameter: Any) -> None:
        if parameter is not None and parameter.is_meta:
            seen["elements"] += parameter.numel()
        if most_elements is not None and seen["elements"] > most_elements:
            raise _too_large(f"more than {most_elements} numbers")

    def check_buffer(_module: Any, name: str, buffer: Any) -> None:
        if buffer is not None and buffer.numel() > MAX_BUFFER_ELEMENTS:
            raise _too_large(f"a table {shown(name)} of {buffer.numel()} numbers")

    handles = [
        registration.register_module_module_registration_hook(count_module),
        registration.register_module_parameter_registration_hook(count_parameter),
        registration.register_module_buffer_registration_hook(check_buffer),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _too_large(what: str) -> CheckpointError:
    return CheckpointError(
        f"config.json describes a model with {what}, far more than the weights have",
        help="config and weights belong to different models",
    )


def _first(names: list[str]) -> str:
    return ", ".join(shown(name) for name in names[:3])
