"""Hand-made circuits: two attention-only layers in which it is known which earlier head a later one reads, and how.

CIRCUITS names the models; none of them is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from byrote.checkpoints.errors import CheckpointError, did_you_mean
from byrote.checkpoints.lab.one_hot import OneHotModel
from byrote.checkpoints.lab.planted import random_model, write_series
from byrote.checkpoints.lab.planted_answers import HARD_STRENGTH_NATS, PlantedConfig

Model = tuple[dict[str, Any], dict[str, Tensor]]


def q_pointer(*, d_vocab: int = 48, n_ctx: int = 64) -> Model:
    """Induction by queries: L0H0 finds the earlier copy and moves its position here; L1H0 looks one behind that position.

    No head looks one token back, so nothing passes through the keys of L1H0. The other heads look elsewhere and write
    where nothing reads.
    """
    model = OneHotModel(d_vocab=d_vocab, n_ctx=n_ctx, n_heads=4)
    model.same_token((0, 0), logit=HARD_STRENGTH_NATS / 2, itself=-0.75 * HARD_STRENGTH_NATS)
    model.write((0, 0), model.one_hot("position"), model.one_hot("moved"))
    model.attend((1, 0), model.one_hot("moved"), model.one_hot("position", range(1, model.width + 1)))
    model.write((1, 0), model.one_hot("token"), model.one_hot("output"))
    _bystanders(model)
    return model.fields, model.state


def two_sources(*, d_vocab: int = 48, n_ctx: int = 64) -> Model:
    """Two heads look one token back and write what the keys of L1H0 read; by weights alone the wrong one stands out.

    L0H0 does the work and writes as much again where nothing reads, which lowers its ratio of composition. L0H1 writes a
    fiftieth, all of it where it is read: composition is blind to size, and puts it first.
    """
    model = OneHotModel(d_vocab=d_vocab, n_ctx=n_ctx, n_heads=4)
    tokens = model.one_hot("token")
    for head in ((0, 0), (0, 1)):
        model.look_back(head, keys=range(n_ctx))
    model.write((0, 0), tokens, model.one_hot("moved") + model.one_hot("unread"))
    model.write((0, 1), tokens, model.one_hot("moved"), gain=0.02)
    model.attend((1, 0), tokens, model.one_hot("moved"))
    model.write((1, 0), tokens, model.one_hot("output"))
    _bystanders(model)
    return model.fields, model.state


def _bystanders(model: OneHotModel) -> None:
    """Every head that writes nothing yet looks a fixed distance back, faintly, and writes where nothing reads."""
    free = [(layer, head) for layer in (0, 1) for head in range(4) if not model.writes((layer, head))]
    for i, at in enumerate(free):
        model.look_back(at, 2 + i, logit=2.0, keys=range(model.n_ctx))
        model.write(at, model.one_hot("token"), model.one_hot("unread"))


def shared_subspace(*, seed: int, decay: float = 1.0, d_vocab: int = 32, n_ctx: int = 32) -> Model:
    """Random weights that all write and read the same few directions of the residual stream, and learned nothing.

    Entry i of the stream is scaled by (i + 1)^-decay in every W_Q, W_K, W_V and W_O: every pair of heads overlaps more
    than rotations allow for, and none of them more than the others.
    """
    fields, state = random_model(PlantedConfig(d_vocab=d_vocab, n_ctx=n_ctx, offset=3), seed=seed)
    scale = torch.arange(1, fields["d_model"] + 1).pow(-decay)
    for name, value in state.items():
        if name.endswith(("q.weight", "k.weight", "v.weight")):
            state[name] = value * scale
        elif name.endswith("o.weight"):
            state[name] = value * scale[:, None]
    return fields, state


CIRCUITS: dict[str, Callable[..., Model]] = {
    "q_pointer": q_pointer,
    "two_sources": two_sources,
    "shared_subspace": shared_subspace,
}


def write_circuit(out: Path, name: str, **options: Any) -> Path:
    """Write a lab series of one checkpoint, step 0, that holds a hand-made circuit.

    Args:
        out: folder to create; its name becomes the series' name.
        name: in CIRCUITS.
        options: of that function.

    Returns:
        `out`.

    Raises:
        CheckpointError: there is no such circuit, or the folder already holds something.
    """
    if name not in CIRCUITS:
        raise CheckpointError(
            f"there is no planted circuit {name!r}", help=did_you_mean(name, list(CIRCUITS))
        )
    fields, state = CIRCUITS[name](**options)
    return write_series(out, fields, state, kind="planted")
