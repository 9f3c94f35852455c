"""Two attention-only layers to plant heads in: the residual stream is a row of one-hot subspaces of equal width.

As in `planted`, so that a position can be written where a token was read: the token here, the position here, what layer 0
moved here ("moved"), the output (all that the unembedding reads), and one nothing reads. A head attends by what a query
and a key hold, and writes what it reads of one subspace into others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from byrote.checkpoints.lab.planted import empty_state
from byrote.checkpoints.lab.planted_answers import HARD_STRENGTH_NATS, PlantedConfig

SUBSPACES = ("token", "position", "moved", "output", "unread")
Head = tuple[int, int]  # layer, head
Rows = Float[Tensor, "n d_model"]


class OneHotModel:
    """Weights of a two-layer model, wired from subspace to subspace; every row of a head is used once.

    Attributes:
        fields: of config.json.
        state: the weights, float32.
        width: entries of each subspace, the larger of d_vocab and n_ctx.

    Args:
        d_vocab: tokens, 0 among them as beginning of sequence.
        n_ctx: positions.
        n_heads: per layer.
        unembed_gain: logit of a token that a head of gain 1 copies with all its attention.
        d_head: rows of a head; None is two for each entry of a subspace.
    """

    def __init__(
        self, *, d_vocab: int, n_ctx: int, n_heads: int, unembed_gain: float = 10.0, d_head: int | None = None
    ) -> None:
        self.d_vocab, self.n_ctx, self.n_heads = d_vocab, n_ctx, n_heads
        self.width = max(d_vocab, n_ctx)
        self.d_model, self.d_head = len(SUBSPACES) * self.width, d_head or 2 * self.width
        self.fields, self.state = empty_state(
            PlantedConfig(d_vocab=d_vocab, n_ctx=n_ctx),
            n_heads=n_heads,
            d_model=self.d_model,
            d_head=self.d_head,
        )
        self.state["tok_embed.weight"][:] = self.one_hot("token", range(d_vocab))
        self.state["pos.weight"][:] = self.one_hot("position", range(n_ctx))
        self.state["head.weight"][:] = unembed_gain * self.one_hot("output", range(d_vocab))
        self._used: dict[tuple[str, Head], int] = {}

    def one_hot(self, subspace: str, entries: Iterable[int] | None = None) -> Rows:
        """One row for each entry of a subspace, all of them by default; a row beyond its end reads nothing."""
        chosen = list(range(self.width) if entries is None else entries)
        rows = torch.zeros(len(chosen), self.d_model)
        for row, entry in zip(rows, chosen, strict=True):
            if entry < self.width:
                row[SUBSPACES.index(subspace) * self.width + entry] = 1.0
        return rows

    def any_of(self, subspace: str, entries: Sequence[int]) -> Float[Tensor, "1 d_model"]:
        """One row that answers to every one of these entries alike."""
        return self.one_hot(subspace, entries).sum(0, keepdim=True)

    def attend(self, at: Head, query: Rows, key: Rows, *, logit: float = HARD_STRENGTH_NATS) -> None:
        """Add to the attention logit where a query's residual meets row i of `query` and a key's row i of `key`."""
        rows = self._rows("attend", at, len(query))
        weights = [self.state[f"layers.{at[0]}.attn.{name}.weight"] for name in "qk"]
        weights[0][rows] += logit * math.sqrt(self.d_head) * query
        weights[1][rows] += key

    def write(self, at: Head, value: Rows, out: Rows, *, gain: float = 1.0) -> None:
        """Write row i of `out`, times gain, where what is attended to meets row i of `value`."""
        rows = self._rows("write", at, len(value))
        self.state[f"layers.{at[0]}.attn.v.weight"][rows] += value
        self.state[f"layers.{at[0]}.attn.o.weight"][:, rows] += gain * out.T

    def writes(self, at: Head) -> bool:
        """Whether a head was given something to write."""
        return ("write", at) in self._used

    def _rows(self, use: str, at: Head, n: int) -> slice:
        first = self._used.get((use, at), 0)
        assert first + n <= self.d_head, "the head has no rows left"
        self._used[use, at] = first + n
        return slice(at[1] * self.d_head + first, at[1] * self.d_head + first + n)

    # The parts that most circuits are made of.

    def look_back(
        self, at: Head, back: int = 1, *, logit: float = HARD_STRENGTH_NATS, keys: Iterable[int] | None = None
    ) -> None:
        """Attention a fixed distance back.

        Args:
            at: layer and head.
            back: tokens.
            logit: of the agreement, before softmax.
            keys: positions that are attended to; None is all that have one so far behind them.
        """
        chosen = list(range(self.n_ctx - back) if keys is None else keys)
        later = self.one_hot("position", [key + back for key in chosen])
        self.attend(at, later, self.one_hot("position", chosen), logit=logit)

    def same_token(self, at: Head, *, logit: float, itself: float) -> None:
        """Attention to copies of the token; `itself` is added to the logit of the position itself."""
        self.attend(at, self.one_hot("token"), self.one_hot("token"), logit=logit)
        self.attend(at, self.one_hot("position"), self.one_hot("position"), logit=itself)

    def match_prefix(
        self, at: Head, *, logit: float = HARD_STRENGTH_NATS, ids: Iterable[int] | None = None
    ) -> None:
        """Attention to what followed an earlier copy of the token, for some ids or all, where it was moved."""
        chosen = list(range(self.d_vocab) if ids is None else ids)
        self.attend(at, self.one_hot("token", chosen), self.one_hot("moved", chosen), logit=logit)

    def copy(self, at: Head, *, gain: float = 1.0, ids: Iterable[int] | None = None) -> None:
        """Raise the token that is attended to, for some ids or all."""
        chosen = list(range(self.d_vocab) if ids is None else ids)
        self.write(at, self.one_hot("token", chosen), self.one_hot("output", chosen), gain=gain)
