"""Hand-made circuits: two attention-only layers in which it is known which earlier head a later one reads, and how.

The residual stream is five one-hot subspaces of equal width, as in `planted`, so that a position can be written where a
token was read: the token here, the position here, what earlier heads moved here ("moved"), the output (all that the
unembedding reads), and one nothing reads. A head attends by what a query and a key hold, and moves one subspace to another.

CIRCUITS names the models; none of them is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from byrote.checkpoints.errors import CheckpointError, did_you_mean
from byrote.checkpoints.lab.planted import empty_state, random_model, write_series
from byrote.checkpoints.lab.planted_answers import HARD_STRENGTH_NATS, PlantedConfig

SUBSPACES = ("token", "position", "moved", "output", "unread")
Head = tuple[int, int]
Rows = Float[Tensor, "n d_model"]
Model = tuple[dict[str, Any], dict[str, Tensor]]


class OneHotModel:
    """Weights to plant heads in: zero, but for what embeds tokens and positions and reads the output.

    Args:
        d_vocab: tokens, 0 among them as beginning of sequence.
        n_ctx: positions.
        n_heads: per layer.
        unembed_gain: logit of a token that one head with gain 1 copies with all its attention.
    """

    def __init__(self, *, d_vocab: int, n_ctx: int, n_heads: int, unembed_gain: float = 10.0) -> None:
        self.width = max(d_vocab, n_ctx)
        self.d_head = 2 * self.width
        self.fields, self.state = empty_state(
            PlantedConfig(d_vocab=d_vocab, n_ctx=n_ctx),
            n_heads=n_heads,
            d_model=len(SUBSPACES) * self.width,
            d_head=self.d_head,
        )
        self.state["tok_embed.weight"][:] = self.rows("token")[:d_vocab]
        self.state["pos.weight"][:] = self.rows("position")[:n_ctx]
        self.state["head.weight"][:] = unembed_gain * self.rows("output")[:d_vocab]

    def rows(self, subspace: str, *, ahead: int = 0) -> Rows:
        """Row i reads entry i + `ahead` (0 or more) of a subspace; rows beyond its end read nothing."""
        start = SUBSPACES.index(subspace) * self.width
        read = torch.eye(self.width).roll(ahead, dims=1)
        read[self.width - ahead :] = 0
        found = torch.zeros(self.width, len(SUBSPACES) * self.width)
        found[:, start : start + self.width] = read
        return found

    def attend(
        self, at: Head, query: Rows, key: Rows, *, logit: float = HARD_STRENGTH_NATS, slot: int = 0
    ) -> None:
        """Add to a head's attention logits where the same row reads something in the query and in the key.

        Args:
            at: layer and head.
            query, key: what is compared, see `rows`.
            logit: of an agreement, before softmax.
            slot: 0 or 1: which half of d_head holds the comparison.
        """
        part = self._part(at, slot, len(query))
        self.state[f"layers.{at[0]}.attn.q.weight"][part] += logit * math.sqrt(self.d_head) * query
        self.state[f"layers.{at[0]}.attn.k.weight"][part] += key

    def move(self, at: Head, source: str, *targets: str, gain: float = 1.0) -> None:
        """Let a head write what it attends to, read from one subspace, into others.

        Args:
            at: layer and head.
            source, targets: subspaces.
            gain: factor on what is written.
        """
        part = self._part(at, 0, self.width)
        self.state[f"layers.{at[0]}.attn.v.weight"][part] += self.rows(source)
        for target in targets:
            self.state[f"layers.{at[0]}.attn.o.weight"][:, part] += gain * self.rows(target).T

    def writes(self, at: Head) -> bool:
        """Whether a head was given something to write."""
        part = self._part(at, 0, self.d_head)
        return bool(self.state[f"layers.{at[0]}.attn.o.weight"][:, part].any())

    def previous_token(self, at: Head, *, logit: float = HARD_STRENGTH_NATS) -> None:
        """Attention to the position before."""
        self.attend(at, self.rows("position", ahead=1), self.rows("position"), logit=logit)

    def same_token(self, at: Head, *, logit: float = HARD_STRENGTH_NATS / 2) -> None:
        """Attention to earlier copies of the token, and not to itself."""
        self.attend(at, self.rows("token"), self.rows("token"), logit=logit)
        self.attend(at, self.rows("position"), self.rows("position"), logit=-1.5 * logit, slot=1)

    def _part(self, at: Head, slot: int, n: int) -> slice:
        start = at[1] * self.d_head + slot * self.width
        return slice(start, start + n)


def q_pointer(*, d_vocab: int = 48, n_ctx: int = 64) -> Model:
    """Induction by queries: L0H0 finds the earlier copy and moves its position here; L1H0 looks one behind that position.

    No head looks one token back, so nothing passes through the keys of L1H0. The other heads look elsewhere and write
    where nothing reads.
    """
    model = OneHotModel(d_vocab=d_vocab, n_ctx=n_ctx, n_heads=4)
    model.same_token((0, 0))
    model.move((0, 0), "position", "moved")
    model.attend((1, 0), model.rows("moved"), model.rows("position", ahead=1))
    model.move((1, 0), "token", "output")
    _bystanders(model)
    return model.fields, model.state


def two_sources(*, d_vocab: int = 48, n_ctx: int = 64) -> Model:
    """Two heads look one token back and write what the keys of L1H0 read; by weights alone the wrong one stands out.

    L0H0 does the work and writes as much again where nothing reads, which lowers its ratio of composition. L0H1 writes a
    fiftieth, all of it where it is read: composition is blind to size, and puts it first.
    """
    model = OneHotModel(d_vocab=d_vocab, n_ctx=n_ctx, n_heads=4)
    for head in ((0, 0), (0, 1)):
        model.previous_token(head)
    model.move((0, 0), "token", "moved", "unread")
    model.move((0, 1), "token", "moved", gain=0.02)
    model.attend((1, 0), model.rows("token"), model.rows("moved"))
    model.move((1, 0), "token", "output")
    _bystanders(model)
    return model.fields, model.state


def _bystanders(model: OneHotModel) -> None:
    """Every head that writes nothing yet looks a fixed distance back, faintly, and writes where nothing reads."""
    free = [(layer, head) for layer in (0, 1) for head in range(4) if not model.writes((layer, head))]
    for i, at in enumerate(free):
        model.attend(at, model.rows("position", ahead=2 + i), model.rows("position"), logit=2.0)
        model.move(at, "token", "unread")


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
            f"no planted circuit is called {name!r}", help=did_you_mean(name, list(CIRCUITS))
        )
    fields, state = CIRCUITS[name](**options)
    return write_series(out, fields, state, kind="planted")
