"""Planted models that a careless verdict gets wrong, each with what is right: no head of them is what it seems.

Wired freely in a stream of one-hot subspaces (`one_hot.py`): a head may match several things at once, rest on position 0,
copy a few ids only, or write the same whatever it reads. Layer 0 holds a head that attends one back (q_composition: to the
same token), layer 1 the head in question, L1H0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from byrote.checkpoints.errors import CheckpointError, did_you_mean
from byrote.checkpoints.lab.one_hot import OneHotModel
from byrote.checkpoints.lab.planted import write_series
from byrote.checkpoints.lab.planted_answers import HARD_STRENGTH_NATS

NEITHER, SIGNATURE_ONLY, DISTRIBUTED, LOAD_BEARING = (
    "neither", "signature only", "distributed induction", "load-bearing",
)  # fmt: skip
L0H0, L1H0 = (0, 0), (1, 0)


def _wired(
    *, d_vocab: int = 64, n_ctx: int = 104, n_heads: int = 2, unembed_gain: float = 10.0
) -> OneHotModel:
    """A model without circuits; the preference for a few ids, or for position 0, takes a row beyond those of two subspaces."""
    d_head = 2 * max(d_vocab, n_ctx) + 2
    return OneHotModel(
        d_vocab=d_vocab, n_ctx=n_ctx, n_heads=n_heads, unembed_gain=unembed_gain, d_head=d_head
    )


def _with_previous(**sizes: Any) -> OneHotModel:
    """L0H0 attends one back, and writes that token where prefix heads read it."""
    net = _wired(**sizes)
    net.look_back(L0H0)
    tokens = range(net.d_vocab)
    net.write(L0H0, net.one_hot("token", tokens), net.one_hot("moved", tokens))
    return net


def _perfect() -> OneHotModel:
    net = _with_previous(unembed_gain=40.0)
    net.match_prefix(L1H0)
    net.copy(L1H0)
    return net


def _load_false() -> OneHotModel:
    """L1H0 matches perfectly and writes 0.01 logits; its neighbours raise tokens at random, which hurts."""
    net = _with_previous(n_heads=4)
    net.match_prefix(L1H0)
    net.copy(L1H0, gain=1e-3)
    for head in (1, 2, 3):
        other = torch.randperm(64, generator=torch.Generator().manual_seed(head)).tolist()
        _raise_unrelated(net, head, other, gain=0.4)
    return net


def _raise_unrelated(net: OneHotModel, head: int, other: Sequence[int], *, gain: float) -> None:
    """A head that attends to its own token and raises another one for each."""
    tokens = net.one_hot("token", range(len(other)))
    net.attend((1, head), tokens, tokens, logit=8.0)
    net.write((1, head), tokens, net.one_hot("output", other), gain=gain)


def _faint() -> OneHotModel:
    net = _with_previous()
    net.match_prefix(L1H0)
    net.copy(L1H0, gain=1e-3)
    return net


def _sink(share: float = 0.98, gain: float = 50.0) -> OneHotModel:
    """An ideal head whose matching key weighs e^20, position 0 so much more that it gets the share."""
    net, logit = _with_previous(), 20.0
    net.match_prefix(L1H0, logit=logit)
    first = net.one_hot("position", [0])
    net.attend(L1H0, net.any_of("token", range(64)), first, logit=logit + math.log(share / (1 - share)))
    net.copy(L1H0, gain=gain, ids=range(1, 64))  # position 0 writes nothing
    return net


def _few_ids(n: int = 3) -> OneHotModel:
    net = _with_previous()
    net.match_prefix(L1H0)
    net.copy(L1H0, ids=range(1, 1 + n))
    return net


def _other_ids() -> OneHotModel:
    """Matches where one half of the ids followed, and copies the other half: only its own token, where nothing matches."""
    net, copied = _with_previous(), range(1, 32)
    # At the other ids L0H0 looks at position 0, so that nothing says there what stood before them.
    net.attend(L0H0, net.any_of("token", copied), net.one_hot("position", [0]), logit=2 * HARD_STRENGTH_NATS)
    net.match_prefix(L1H0)
    places = net.one_hot("position", range(net.n_ctx))
    net.attend(L1H0, places, places, logit=8.0)
    net.copy(L1H0, ids=copied)
    return net


def _favourites(match: float = 3.0, bonus: float = 4.0, n: int = 8, **sizes: int) -> OneHotModel:
    """Weak matching, a preference for eight ids, and an OV of rank 1 that raises those eight whatever it reads."""
    net = _with_previous(**sizes)
    net.match_prefix(L1H0, logit=match)
    everything, favoured = net.any_of("token", range(64)), range(1, 1 + n)
    net.attend(L1H0, everything, net.any_of("token", favoured), logit=bonus)
    net.write(L1H0, everything, net.any_of("output", favoured))
    return net


def _own_kind(n: int = 8) -> OneHotModel:
    """Perfect matching; raises eight ids together, and only where it reads one of them."""
    net = _with_previous()
    net.match_prefix(L1H0)
    net.write(L1H0, net.any_of("token", range(1, 1 + n)), net.any_of("output", range(1, 1 + n)))
    return net


def _q_composition() -> OneHotModel:
    """L0H0 finds the same token before and hands on its position; L1H0 looks one after that position."""
    net = _wired(d_vocab=104, n_heads=6)
    net.same_token(L0H0, logit=30.0, itself=-40.0)
    net.write(L0H0, net.one_hot("position"), net.one_hot("moved"))
    net.attend(L1H0, net.one_hot("moved", range(103)), net.one_hot("position", range(1, 104)))
    net.copy(L1H0)
    return net


def _offset(back: int = 24, **sizes: int) -> OneHotModel:
    net = _with_previous(**sizes)
    net.look_back(L1H0, back, keys=range(1, net.n_ctx - back))
    net.copy(L1H0)
    return net


def _together(n: int = 4, match: float = 2.2, gain: float = 4.0) -> OneHotModel:
    """Heads that rest on their own token, give a little attention to what followed, and solve the task by their sum.

    The embedding lowers its own token by about what the resting heads raise it.
    """
    net = _with_previous(n_heads=n)
    places = net.one_hot("position", range(net.n_ctx))
    for head in range(n):
        net.match_prefix((1, head), logit=match)
        net.attend((1, head), places, places, logit=6.0)
        net.copy((1, head), gain=gain)
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
    wired: Callable[[], OneHotModel]
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


def null_wiring(rng: np.random.Generator) -> tuple[str, OneHotModel]:
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
        net.match_prefix(L1H0, logit=match)
    if kind == "faint":
        net.copy(L1H0, gain=float(10 ** rng.uniform(-4, -2.3)))
        for head in (1, 2, 3):
            _raise_unrelated(net, head, rng.permutation(64).tolist(), gain=float(rng.uniform(0, 0.5)))
    elif kind == "few ids":
        net.copy(L1H0, ids=rng.permutation(np.arange(1, 64))[: rng.integers(1, 7)].tolist())
    elif kind == "own kind":
        ids = rng.permutation(np.arange(1, 64))[: rng.integers(2, 13)].tolist()
        net.write(L1H0, net.any_of("token", ids), net.any_of("output", ids))
    elif kind == "unrelated":
        net.write(L1H0, net.one_hot("token", range(64)), net.one_hot("output", rng.permutation(64).tolist()))
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


def write_wiring(out: Path, net: OneHotModel) -> Path:
    """Write wired weights as a lab series of one checkpoint; raises as `write_case` does."""
    return write_series(out, net.fields, net.state)
