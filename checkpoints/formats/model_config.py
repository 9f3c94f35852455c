"""Checks of an untrusted config.json: no code, an architecture by name, and no sizes the weights cannot have.

transformers builds lists and modules as long as a config says before it looks at any weight, so a config that counts a
billion layers must be refused by comparing it with the tensors first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.inert_pickle import shown
from byrote.checkpoints.formats.trainer_state import read_json

MAX_CONFIG_BYTES = 16 << 20
MAX_NUMBER = 1 << 24  # beyond any width, vocabulary, context or layer count in use
_COUNTS = frozenset({
    "n_layer", "n_layers", "num_layers", "num_hidden_layers", "num_blocks", "n_blocks", "decoder_layers",
    "encoder_layers", "num_decoder_layers", "num_encoder_layers",
})  # fmt: skip
_WIDTHS = frozenset({
    "hidden_size", "n_embd", "d_model", "d_mlp", "d_ff", "n_inner", "intermediate_size", "ffn_dim", "vocab_size", "d_vocab",
    "d_head", "head_dim", "block_size", "n_head", "n_heads", "num_attention_heads", "num_key_value_heads", "word_embed_proj_dim",
})  # fmt: skip
# Numbers that size nothing: ids, bases, seeds, statistics.
_NO_SIZE = re.compile(
    r"(?:^|_)(?:ids?|theta|seed|base|freq|tokens?|params|parameters|flops|bytes|max_length|step|date)(?:_|$)"
)


def read_config(path: Path) -> dict[str, Any]:
    """A config.json that may be used.

    Raises:
        CheckpointError: too long to be a config, no JSON object, asking for code, or without an architecture.
    """
    return usable_config(read_json(path, max_bytes=MAX_CONFIG_BYTES), where=path.name)


def usable_config(data: dict[str, Any], *, where: str) -> dict[str, Any]:
    """The same fields, once nothing in them refers to code and something names the architecture.

    Raises:
        CheckpointError: as for `read_config`.
    """
    if data.get("auto_map"):
        raise CheckpointError(
            f"{where} would run code from the checkpoint (auto_map)",
            help="byrote never runs code from a checkpoint; convert it to an architecture transformers ships",
        )
    if not data.get("architectures") and not data.get("model_type"):
        raise CheckpointError(f"{where} names no architecture", help='add "architectures": ["..."]')
    return data


def refuse_implausible(config: Mapping[str, Any], shapes: Iterable[tuple[int, ...]], *, where: str) -> None:
    """Compare a config's numbers with the tensors there are, before anything is built from it.

    Args:
        config: its fields.
        shapes: of all tensors.
        where: the config, for messages.

    Raises:
        CheckpointError: it counts more layers than there are tensors, is wider than the widest of them, or holds
            a number nothing in a model has.
    """
    shapes = list(shapes)
    longest = max((n for shape in shapes for n in shape), default=0)
    for name, value in _numbers(config):
        limit = max(longest, MAX_NUMBER)
        if name in _COUNTS:
            limit = len(shapes)
        elif name in _WIDTHS:
            limit = max(longest, 1)
        elif _NO_SIZE.search(name):
            continue
        if value > limit:
            raise CheckpointError(
                f"{where} says {shown(name)} = {shown(value)}, but the weights have {len(shapes)} tensors, "
                f"none longer than {longest}",
                help="config and weights belong to different models",
            )


def _numbers(value: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, int]]:
    """Whole numbers anywhere in a config, each under the nearest field's name."""
    if isinstance(value, int) and not isinstance(value, bool):
        yield name, value
    elif depth < 50 and isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, str(key), depth + 1)
    elif depth < 50 and isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, name, depth + 1)
