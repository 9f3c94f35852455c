"""A hand-made two-layer model whose every head has a known pattern, and its random counterpart.

The residual stream is five one-hot subspaces: the token here, the position here, the token before (written by
the layer-0 head that attends one back), the output (all the unembedding reads), and one nothing reads. Every
weight is a scaled one-hot map between two of them, so each head probe has an answer that can be worked out
with pencil and paper: `expected` works them out.
"""

from __future__ import annotations

import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from byrote.checkpoints.atomic import make_folder, write_folder, write_json
from byrote.checkpoints.errors import CheckpointError, did_you_mean
from byrote.checkpoints.lab.folder import FORMAT, VERSION, explained, step_folder_name
from byrote.checkpoints.lab.planted_answers import HARD_STRENGTH_NATS as HARD_STRENGTH_NATS
from byrote.checkpoints.lab.planted_answers import PLANTED_HEADS as PLANTED_HEADS
from byrote.checkpoints.lab.planted_answers import HeadSpec as HeadSpec
from byrote.checkpoints.lab.planted_answers import PlantedConfig as PlantedConfig
from byrote.checkpoints.lab.planted_answers import expected as expected
from byrote.checkpoints.lab.planted_answers import expected_logits as expected_logits

BOS_TOKEN_ID = 0
RANDOM_STD = 0.1
STEP_FOLDER = step_folder_name(0)


def planted_model(config: PlantedConfig = PlantedConfig()) -> tuple[dict[str, Any], dict[str, Tensor]]:  # noqa: B008
    """The planted weights.

    Args:
        config: what to plant.

    Returns:
        The fields of config.json (`TransformerBridgeConfig` takes them minus model_type and bos_token_id), and
        the state dict of TransformerLens's `NativeModel`, float32.
    """
    fields, state = empty_state(config)
    rows = _subspaces(config)
    d_head = fields["d_head"]
    state["tok_embed.weight"][:, rows["token"]] = torch.eye(config.d_vocab)
    state["pos.weight"][:, rows["position"]] = torch.eye(config.n_ctx)
    state["head.weight"][:, rows["output"]] = config.unembed_gain * torch.eye(config.d_vocab)
    for l, layer in enumerate(config.heads):
        for h, head in enumerate(layer):
            part = slice(h * d_head, (h + 1) * d_head)
            q, k, v = (state[f"layers.{l}.attn.{name}.weight"][part] for name in "qkv")
            _query(config, head, q)
            _key(config, head, k)
            if head.writes != "nothing":
                v[: config.d_vocab, rows["token"]] = torch.eye(config.d_vocab)
                o = state[f"layers.{l}.attn.o.weight"][:, part]
                o[rows[head.writes], : config.d_vocab] = head.gain * torch.eye(config.d_vocab)
    return fields, state


def empty_state(config: PlantedConfig, **sizes: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The same with every weight 0, for another wiring.

    Args:
        config: of which the vocabulary and the context count.
        sizes: fields of config.json that differ from the planted model's, such as n_heads and d_head.
    """
    fields = _fields(config) | sizes
    return fields, {name: torch.zeros(shape) for name, shape in _shapes(fields).items()}


def random_model(
    config: PlantedConfig = PlantedConfig(),  # noqa: B008
    *,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The same shapes with every weight drawn from N(0, 0.1) and zero biases: a model that learned nothing.

    Args:
        config: only the sizes matter.
        seed: of the draw.

    Returns:
        As `planted_model`.
    """
    fields = _fields(config)
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: torch.zeros(shape)
        if name.endswith(".bias")
        else RANDOM_STD * torch.randn(shape, generator=generator)
        for name, shape in _shapes(fields).items()
    }
    return fields, state


def write_planted(
    out: Path,
    config: PlantedConfig = PlantedConfig(),  # noqa: B008
    *,
    kind: str = "planted",
    seed: int = 0,
) -> Path:
    """Write a lab series of one checkpoint, step 0, that `checkpoints.open_series` reads.

    Args:
        out: folder to create; its name becomes the series' name.
        config: what to plant.
        kind: "planted" or "random".
        seed: of the random weights; only recorded for "planted".

    Returns:
        `out`.

    Raises:
        CheckpointError: an unknown kind, or a folder that is not empty.
        ByroteError: the folder cannot be written to.
    """
    if kind not in ("planted", "random"):
        raise CheckpointError(
            f"no planted series of kind {kind!r}", help=did_you_mean(kind, ["planted", "random"])
        )
    fields, state = planted_model(config) if kind == "planted" else random_model(config, seed=seed)
    return write_series(out, fields, state, kind=kind, seed=seed)


def write_series(
    out: Path, fields: dict[str, Any], state: dict[str, Tensor], *, kind: str = "planted", seed: int = 0
) -> Path:
    """Write any weights of TransformerLens's `NativeModel` as a lab series of one checkpoint, step 0.

    Args:
        out: folder to create; its name becomes the series' name.
        fields: of config.json.
        state: the weights.
        kind: what the manifest calls the arm.
        seed: recorded there.

    Returns:
        `out`.

    Raises:
        CheckpointError: a folder that is not empty.
        ByroteError: the folder cannot be written to.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} is not empty", help="choose an empty or new folder")
    with explained(out):
        make_folder(out)
        write_json(out / "config.json", fields)
        whole = {name: value.contiguous() for name, value in state.items()}
        write_folder(out / STEP_FOLDER, {"model.safetensors": save(whole, metadata={"format": "pt"})})
        write_json(out / "manifest.json", _manifest(out.name, fields, kind=kind, seed=seed))
    return out


def _fields(config: PlantedConfig) -> dict[str, Any]:
    return {
        "model_type": "transformer_lens_native",
        "bos_token_id": BOS_TOKEN_ID,
        "d_model": 4 * config.d_vocab + config.n_ctx,
        "d_head": max(config.d_vocab, config.n_ctx),
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "n_ctx": config.n_ctx,
        "d_vocab": config.d_vocab,
        "d_vocab_out": config.d_vocab,
        "attn_only": True,
        "normalization_type": None,
        "positional_embedding_type": "standard",
        "act_fn": "relu",
    }


def _shapes(fields: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of `NativeModel.state_dict()`."""
    d_model, width = fields["d_model"], fields["n_heads"] * fields["d_head"]
    shapes: dict[str, tuple[int, ...]] = {
        "tok_embed.weight": (fields["d_vocab"], d_model),
        "pos.weight": (fields["n_ctx"], d_model),
    }
    for l in range(fields["n_layers"]):
        for name in "qkv":
            shapes[f"layers.{l}.attn.{name}.weight"] = (width, d_model)
            shapes[f"layers.{l}.attn.{name}.bias"] = (width,)
        shapes[f"layers.{l}.attn.o.weight"] = (d_model, width)
        shapes[f"layers.{l}.attn.o.bias"] = (d_model,)
    return shapes | {"head.weight": (fields["d_vocab"], d_model)}


def _subspaces(config: PlantedConfig) -> dict[str, slice]:
    """Where each one-hot subspace lies in the residual stream."""
    sizes = {"token": config.d_vocab, "position": config.n_ctx}
    sizes |= dict.fromkeys(("previous", "output", "unread"), config.d_vocab)
    rows, start = {}, 0
    for name, size in sizes.items():
        rows[name] = slice(start, start + size)
        start += size
    return rows


def _query(config: PlantedConfig, head: HeadSpec, block: Float[Tensor, "d_head d_model"]) -> None:
    """The one-hot of the selected key, times c and the square root the attention divides by."""
    rows, strength = _subspaces(config), head.strength_nats * math.sqrt(len(block))
    if head.match in ("duplicate", "prefix"):
        block[: config.d_vocab, rows["token"]] = strength * torch.eye(config.d_vocab)
    elif head.match in ("previous", "offset"):
        back, first = (1, 0) if head.match == "previous" else (config.offset, 1)
        keys = torch.arange(first, config.n_ctx - back)
        block[keys, rows["position"].start + keys + back] = strength


def _key(config: PlantedConfig, head: HeadSpec, block: Float[Tensor, "d_head d_model"]) -> None:
    """The one-hot a key answers to: its position, its token, or the token before it."""
    source = {"previous": "position", "offset": "position", "duplicate": "token", "prefix": "previous"}
    if head.match in source:
        rows = _subspaces(config)[source[head.match]]
        size = rows.stop - rows.start
        block[:size, rows] = torch.eye(size)


def _manifest(name: str, fields: dict[str, Any], *, kind: str, seed: int) -> dict[str, Any]:
    row = dict.fromkeys(("train_loss_nats", "test_loss_nats", "copy_loss_nats", "pool_loss_nats"))
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "status": "complete",
        "arm": {"kind": kind, "repeat_frac": 0.0, "pool_size": 0, "repeats_per_sequence": 0},
        "seed": seed,
        "data": {
            "kind": kind,
            "d_vocab": fields["d_vocab"],
            "n_ctx": fields["n_ctx"],
            "bos_token_id": BOS_TOKEN_ID,
        },
        "train": {"steps": 0},
        "schedule": [0],
        "versions": {package: version(package) for package in ("torch", "transformer-lens", "safetensors")},
        "checkpoints": [{"step": 0, "folder": STEP_FOLDER, "tokens_seen": 0, **row}],
    }
