"""Planted models that a careless verdict gets wrong, each with what is right: no head of them is what it seems.

Two attention-only layers whose residual stream is a row of one-hot subspaces, as in `planted.py`, wired freely: a head may
match several things at once, rest on position 0, copy a few ids only, or write the same whatever it reads. Layer 0 holds
a head that attends one back (q_composition: to the same token), layer 1 the head in question, L1H0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from byrote.checkpoints.errors import CheckpointError, did_you_mean
from byrote.checkpoints.lab.planted import empty_state, write_series
from byrote.checkpoints.lab.planted_answers import HARD_STRENGTH_NATS, PlantedConfig

SUBSPACES = ("token", "position", "previous", "output", "unread")
NEITHER, SIGNATURE_ONLY, DISTRIBUTED, LOAD_BEARING = (
    "neither", "signature only", "distributed induction", "load-bearing",
)  # fmt: skip


class Wiring:
    """Weights of a two-layer model, wired from subspace to subspace; every row of a head is used once.

    Args:
        d_vocab: tokens, 0 among them as beginning of sequence.
        n_ctx: positions.
        n_heads: per layer.
        unembed_gain: logit of a token that a head of gain 1 copies with all its attention.
    """

    def __init__(
        self, *, d_vocab: int = 64, n_ctx: int = 104, n_heads: int = 2, unembed_gain: float = 10.0
    ) -> None:
        self.d_vocab, self.n_ctx, self.n_heads = d_vocab, n_ctx, n_heads
        self.width = max(d_vocab, n_ctx)
        self.d_model, self.d_head = len(SUBSPACES) * self.width, 2 * self.width + 2
        self.fields, self.state = empty_state(
            PlantedConfig(d_vocab=d_vocab, n_ctx=n_ctx),
            n_heads=n_heads,
            d_model=self.d_model,
            d_head=self.d_head,
        )
        self.state["tok_embed.weight"][:] = self.one_hot("token", range(d_vocab))
        self.state["pos.weight"][:] = self.one_hot("position", range(n_ctx))
        self.state["head.weight"][:] = unembed_gain * self.one_hot("output", range(d_vocab))
        self._used: dict[tuple[str, int, int], int] = {}

    def one_hot(self, subspace: str, entries: Sequence[int]) -> Float[Tensor, "n d_model"]:
        """One row for each entry of a subspace."""
        rows = torch.zeros(len(entries), self.d_model)
        rows[range(len(entries)), SUBSPACES.index(subspace) * self.width + torch.tensor(list(entries))] = 1.0
        return rows

    def any_of(self, subspace: str, entries: Sequence[int]) -> Float[Tensor, "1 d_model"]:
        """One row that answers to every one of these entries alike."""
        return self.one_hot(subspace, entries).sum(0, keepdim=True)

    def attend(self, layer: int, head: int, query: Tensor, key: Tensor, *, logit: float) -> None:
        """Add to the attention logit where a query's residual meets row i of `query` and a key's row i of `key`."""
        rows = self._rows("attend", layer, head, len(query))
        weights = [self.state[f"layers.{layer}.attn.{name}.weight"] for name in "qk"]
        weights[0][rows] = logit * math.sqrt(self.d_head) * query
        weights[1][rows] = key

    def write(self, layer: int, head: int, value: Tensor, out: Tensor, *, gain: float = 1.0) -> None:
        """Write row i of `out`, times gain, where what is attended to meets row i of `value`."""
        rows = self._rows("write", layer, head, len(value))
        self.state[f"layers.{layer}.attn.v.weight"][rows] = value
        self.state[f"layers.{layer}.attn.o.weight"][:, rows] = gain * out.T

    def _rows(self, use: str, layer: int, head: int, n: int) -> slice:
        first = self._used.get((use, layer, head), 0)
        assert first + n <= self.d_head, "the head has no rows left"
        self._used[use, layer, head] = first + n
        return slice(head * self.d_head + first, head * self.d_head + first + n)

    # The parts that most circuits are made of.

    def previous_head(self) -> None:
        """L0H0 attends one back, and writes that token where prefix heads read it."""
        keys = range(self.n_ctx - 1)
        later = self.one_hot("position", [key + 1 for key in keys])
        self.attend(0, 0, later, self.one_hot("position", keys), logit=HARD_STRENGTH_NATS)
        tokens = range(self.d_vocab)
        self.write(0, 0, self.one_hot("token", tokens), self.one_hot("previous", tokens))

    def match_prefix(
        self, head: int, *, logit: float = HARD_STRENGTH_NATS, ids: Sequence[int] | None = None
    ) -> None:
        """A head of layer 1 attends to what followed an earlier copy, for some ids or all."""
        ids = range(self.d_vocab) if ids is None else ids
        self.attend(1, head, self.one_hot("token", ids), self.one_hot("previous", ids), logit=logit)

    def copy(self, head: int, *, gain: float = 1.0, ids: Sequence[int] | None = None) -> None:
        """A head of layer 1 raises the token it attends to, for some ids or all."""
        ids = range(self.d_vocab) if ids is None else ids
        self.write(1, head, self.one_hot("token", ids), self.one_hot("output", ids), gain=gain)


def _with_previous(**sizes: Any) -> Wiring:
    net = Wiring(**sizes)
    net.previous_head()
    return net


def _perfect() -> Wiring:
    net = _with_previous(unembed_gain=40.0)
    net.match_prefix(0)
    net.copy(0)
    return net


def _load_false() -> Wiring:
    """L1H0 matches perfectly and writes 0.01 logits; its neighbours raise tokens at random, which hurts."""
    net = _with_previous(n_heads=4)
    net.match_prefix(0)
    net.copy(0, gain=1e-3)
    for head in (1, 2, 3):
        other = torch.randperm(64, generator=torch.Generator().manual_seed(head)).tolist()
        _raise_unrelated(net, head, other, gain=0.4)
    return net


def _raise_unrelated(net: Wiring, head: int, other: Sequence[int], *, gain: float) -> None:
    """A head that attends to its own token and raises another one for each."""
    tokens = net.one_hot("token", range(len(other)))
    net.attend(1, head, tokens, tokens, logit=8.0)
    net.write(1, head, tokens, net.one_hot("output", other), gain=gain)


def _faint() -> Wiring:
    net = _with_previous()
    net.match_prefix(0)
    net.copy(0, gain=1e-3)
    return net


def _sink(share: float = 0.98, gain: float = 50.0) -> Wiring:
    """An ideal head whose matching key weighs e^20, position 0 so much more that it gets the share."""
    net, logit = _with_previous(), 20.0
    net.match_prefix(0, logit=logit)
    first = net.one_hot("position", [0])
    net.attend(1, 0, net.any_of("token", range(64)), first, logit=logit + math.log(share / (1 - share)))
    net.copy(0, gain=gain, ids=range(1, 64))  # position 0 writes nothing
    return net


def _few_ids(n: int = 3) -> Wiring:
    net = _with_previous()
    net.match_prefix(0)
    net.copy(0, ids=range(1, 1 + n))
    return net


def _other_ids() -> Wiring:
    """Matches where one half of the ids followed, and copies the other half: only its own token, where nothing matches."""
    net, copied = _with_previous(), range(1, 32)
    # At the other ids L0H0 looks at position 0, so that nothing says there what stood before them.
    net.attend(0, 0, net.any_of("token", copied), net.one_hot("position", [0]), logit=2 * HARD_STRENGTH_NATS)
    net.match_prefix(0)
    places = net.one_hot("position", range(net.n_ctx))
    net.attend(1, 0, places, places, logit=8.0)
    net.copy(0, ids=copied)
    return net


def _favourites(match: float = 3.0, bonus: float = 4.0, n: int = 8, **sizes: int) -> Wiring:
    """Weak matching, a preference for eight ids, and an OV of rank 1 that raises those eight whatever it reads."""
    net = _with_previous(**sizes)
    net.match_prefix(0, logit=match)
    everything, favoured = net.any_of("token", range(64)), range(1, 1 + n)
    net.attend(1, 0, everything, net.any_of("token", favoured), logit=bonus)
    net.write(1, 0, everything, net.any_of("output", favoured))
    return net


def _own_kind(n: int = 8) -> Wiring:
    """Perfect matching; raises eight ids together, and only where it reads one of them."""
    net = _with_previous()
    net.match_prefix(0)
    net.write(1, 0, net.any_of("token", range(1, 1 + n)), net.any_of("output", range(1, 1 + n)))
    return net


def _q_composition() -> Wiring:
    """L0H0 finds the same token before and hands on its position; L1H0 looks one after that position."""
    net = Wiring(d_vocab=104, n_heads=6)
    tokens, positions = range(104), range(104)
    net.attend(0, 0, net.one_hot("token", tokens), net.one_hot("token", tokens), logit=30.0)
    net.attend(0, 0, net.one_hot("position", positions), net.one_hot("position", positions), logit=-40.0)
    net.write(0, 0, net.one_hot("position", positions), net.one_hot("previous", positions))
    before = range(103)
    after = net.one_hot("position", [at + 1 for at in before])
    net.attend(1, 0, net.one_hot("previous", before), after, logit=HARD_STRENGTH_NATS)
    net.copy(0)
    return net


def _offset(back: int = 24, **sizes: int) -> Wiring:
    net = _with_previous(**sizes)
    keys = range(1, net.n_ctx - back)
    later = net.one_hot("position", [key + back for key in keys])
    net.attend(1, 0, later, net.one_hot("position", keys), logit=HARD_STRENGTH_NATS)
    net.copy(0)
    return net


def _together(n: int = 4, match: float = 2.2, gain: float = 4.0) -> Wiring:
    """Heads that rest on their own token, give a little attention to what followed, and solve the task by their sum.

    The embedding lowers its own token by about what the resting heads raise it.
    """
    net = _with_previous(n_heads=n)
    places = net.one_hot("position", range(net.n_ctx))
    for head in range(n):
        net.match_prefix(head, logit=match)
        net.attend(1, head, places, places, logit=6.0)
        net.copy(head, gain=gain)
    net.state["tok_embed.weight"] -= 0.85 * n * gain * net.one_hot("output", range(net.d_vocab))
    return net


@dataclass(frozen=True)
class PlantedCase:
    """A planted model and what is right about it.

    Attributes:
        what: what it is.
        wired: makes it.
        called: labels of the heads that are induction heads.
        load: the word of `load_bearing`.
    """

    what: str
    wired: Callable[[], Wiring]
    called: tuple[str, ...]
    load: str


CASES: dict[str, PlantedCase] = {
    "perfect": PlantedCase("an ideal induction head", _perfect, ("L1H0",), LOAD_BEARING),
    "load_false": PlantedCase(
        "matches perfectly, writes 0.01 logits; its neighbours hurt", _load_false, (), SIGNATURE_ONLY
    ),
    "faint": PlantedCase("matches perfectly, writes 0.01 logits", _faint, (), SIGNATURE_ONLY),
    "sink98": PlantedCase(
        "an ideal head with 98% of its attention on position 0", _sink, ("L1H0",), LOAD_BEARING
    ),
    "subvocab3of63": PlantedCase("matches perfectly, copies 3 ids of 63", _few_ids, (), LOAD_BEARING),
    "other_ids": PlantedCase("attends to ids that it does not copy", _other_ids, (), SIGNATURE_ONLY),
    "freq_rank1": PlantedCase("writes the same eight ids whatever it reads", _favourites, (), SIGNATURE_ONLY),
    "own_kind": PlantedCase(
        "raises eight ids together where it reads one of them", _own_kind, (), LOAD_BEARING
    ),
    "q_composition": PlantedCase(
        "an induction head that reads a pointer", _q_composition, ("L1H0",), LOAD_BEARING
    ),
    "offset24": PlantedCase("copies from a fixed distance", _offset, (), NEITHER),
    "four_together": PlantedCase(
        "four heads that match a little and copy together", _together, (), DISTRIBUTED
    ),
}


def null_wiring(rng: np.random.Generator) -> tuple[str, Wiring]:
    """A model drawn from the cases above with no induction head in it, and what kind it is.

    Kinds: "faint" (writes too little to matter, beside heads that raise tokens at random), "few ids" (up to 6 of 63),
    "favourites", "own kind", "offset", "unrelated" (matches, and raises another token for each). All weights of attention
    carry noise, up to 1% of a planted weight.
    """
    kind = str(rng.choice(["faint", "few ids", "favourites", "own kind", "offset", "unrelated"]))
    sizes = {"n_heads": 4, "n_ctx": 64}
    net, match = _with_previous(**sizes), float(rng.uniform(3.0, 12.0))
    if kind == "offset":
        net = _offset(int(rng.integers(5, 50)), **sizes)
    elif kind == "favourites":
        levels = float(rng.uniform(1, 5)), float(rng.uniform(0, 5))
        net = _favourites(*levels, int(rng.integers(2, 17)), **sizes)
    else:
        net.match_prefix(0, logit=match)
    if kind == "faint":
        net.copy(0, gain=float(10 ** rng.uniform(-4, -2.3)))
        for head in (1, 2, 3):
            _raise_unrelated(net, head, rng.permutation(64).tolist(), gain=float(rng.uniform(0, 0.5)))
    elif kind == "few ids":
        net.copy(0, ids=rng.permutation(np.arange(1, 64))[: rng.integers(1, 7)].tolist())
    elif kind == "own kind":
        ids = rng.permutation(np.arange(1, 64))[: rng.integers(2, 13)].tolist()
        net.write(1, 0, net.any_of("token", ids), net.any_of("output", ids))
    elif kind == "unrelated":
        net.write(1, 0, net.one_hot("token", range(64)), net.one_hot("output", rng.permutation(64).tolist()))
    noise, spread = torch.Generator().manual_seed(int(rng.integers(2**31))), float(rng.uniform(0, 0.01))
    for name, weight in net.state.items():
        if name.endswith(("v.weight", "o.weight")):
            weight += spread * torch.randn(weight.shape, generator=noise)
    return kind, net


CARRIES_SOMETHING = ("few ids", "own kind")
"""Kinds of `null_wiring` that are needed for the little they copy."""


def write_case(out: Path, name: str) -> Path:
    """Write one case as a lab series of one checkpoint, as `write_planted` does.

    Args:
        out: folder to create.
        name: of `CASES`.

    Returns:
        `out`.

    Raises:
        CheckpointError: no such case, or a folder that already holds something.
        ByroteError: the folder cannot be written to.
    """
    if name not in CASES:
        raise CheckpointError(f"no planted case {name!r}", help=did_you_mean(name, CASES))
    return write_wiring(out, CASES[name].wired())


def write_wiring(out: Path, net: Wiring) -> Path:
    """Write wired weights as a lab series of one checkpoint; raises as `write_case` does."""
    return write_series(out, net.fields, net.state)
