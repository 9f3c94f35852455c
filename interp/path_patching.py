"""Path patching: change one head's output in what one later layer reads, and nowhere else.

Source: Wang et al. 2022, arXiv:2211.00593; Goldowsky-Dill et al. 2023, arXiv:2304.05969. Here the path is the direct
one, through the residual stream: what lies between sender and receiver is as in the clean run.

For a sender s with output z and stand-in z', a receiving layer l and an input, keys or queries: every sequence is
shown twice. The second copy's residual stream is the first one's minus (z - z') W_O of s where layer l begins, so its
keys (queries) are what the layer would read without that write, norm and all. They are put in place of the first
copy's; its attention pattern is then that of the model with this one path changed. Each head reads its own keys alone,
so one pass serves all receivers of a layer. Needs a head's write to be z W_O: not behind a norm after attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from byrote.interp.intervene import Head
from byrote.interp.model import HookedModel

Side = Literal["q", "k"]
_MOST_ROWS = 64
_MOVED_FRAC = 1e-6

Score = Callable[[Float[Tensor, "n_rows n_heads query_pos key_pos"], slice], Float[Tensor, "n_rows n_heads"]]


def scores_without_paths(
    model: HookedModel,
    tokens: Int[Tensor, "n_seq pos"],
    senders: Sequence[tuple[Head, Float[Tensor, "n_seq pos d_head"]]],
    *,
    layer: int,
    side: Side,
    score: Score,
) -> Float[Tensor, "n_senders n_seq n_heads"]:
    """Score a layer's attention with one path changed at a time.

    Args:
        model: a loaded checkpoint; it is left as it was.
        tokens: the sequences.
        senders: heads of earlier layers, and what stands in for each one's z.
        layer: whose attention is read.
        side: the input that is changed: keys or queries.
        score: reduces patterns of some rows (which ones, as a slice) to one number per sequence and head.
    """
    assert all(head[0] < layer for head, _ in senders), "a head reads what earlier layers wrote"
    out = torch.empty(len(senders), len(tokens), model.shape.n_heads)
    n_rows = max(1, min(len(tokens), _MOST_ROWS // 2))
    at_once = max(1, _MOST_ROWS // (2 * n_rows))
    for start in range(0, len(tokens), n_rows):
        rows = slice(start, min(start + n_rows, len(tokens)))
        for first in range(0, len(senders), at_once):
            part = senders[first : first + at_once]
            pattern = _Paths(model, part, rows, layer=layer, side=side).pattern(tokens[rows])
            for i, one in enumerate(pattern):
                out[first + i, rows] = score(one, rows).float().cpu()
    return out


def path_problem(model: HookedModel, tokens: Int[Tensor, "n_seq pos"], *, layer: int, side: Side) -> str:
    """Why paths into a layer cannot be changed on this architecture, or "".

    The residual stream before the layer is shifted by one position for a second copy of the sequences, and the copy's
    keys (queries) are put in place of the first one's: that has to move its attention pattern.
    """
    tokens = tokens[:2]
    seen: dict[str, Tensor] = {}
    for name, change in (("clean", lambda x: x), ("moved", lambda x: x.roll(1, dims=1))):
        seen[name] = _Paths(model, [], slice(None), layer=layer, side=side, change=change).pattern(tokens)[0]
    moved = (seen["moved"] - seen["clean"]).abs().max()
    if moved > _MOVED_FRAC:
        return ""
    word = {"q": "queries", "k": "keys"}[side]
    return f"replacing the {word} of layer {layer} does not change its attention: paths into it cannot be patched"


class _Paths:
    """One pass: for every sender a block of rows that is read, and behind it one whose residual stream is changed."""

    def __init__(
        self,
        model: HookedModel,
        senders: Sequence[tuple[Head, Tensor]],
        rows: slice,
        *,
        layer: int,
        side: Side,
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model, self.senders, self.rows = model, senders, rows
        self.layer, self.side, self.change = layer, side, change
        self.n_blocks = 2 * max(1, len(senders))
        self.writes: dict[int, Tensor] = {}
        self.seen: Tensor | None = None

    def pattern(self, tokens: Tensor) -> Float[Tensor, "n_paths n_rows n_heads query_pos key_pos"]:
        with torch.inference_mode():
            shown = tokens.repeat(self.n_blocks, 1).to(self.model.device)
            self.model.bridge.run_with_hooks(shown, fwd_hooks=list(self._hooks()))
        assert self.seen is not None, f"the pattern hook of layer {self.layer} never fired"
        return self.seen

    def _hooks(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        for layer in sorted({head[0] for head, _ in self.senders}):
            yield f"blocks.{layer}.attn.o.hook_in", self._z_hook(layer)
        yield f"blocks.{self.layer}.hook_in", self._residual_hook
        yield f"blocks.{self.layer}.attn.{self.side}.hook_out", self._side_hook
        yield f"blocks.{self.layer}.attn.hook_pattern", self._pattern_hook

    def _blocks(self, tensor: Tensor) -> Tensor:
        return tensor.unflatten(0, (self.n_blocks, -1))

    def _z_hook(self, layer: int) -> Callable[..., None]:
        def hook(tensor: Tensor, hook: Any) -> None:
            d_head = self.model.shape.d_head
            z = self._blocks(tensor.flatten(2).unflatten(-1, (-1, d_head)))
            for i, ((l, h), stand_in) in enumerate(self.senders):
                if l == layer:
                    lost = z[2 * i, :, :, h].float() - stand_in[self.rows].to(tensor.device).float()
                    self.writes[i] = lost @ self.model.weights.W_O[l, h]

        return hook

    def _residual_hook(self, tensor: Tensor, hook: Any) -> Tensor:
        resid = self._blocks(tensor.clone())
        for i in range(self.n_blocks // 2):
            x = resid[2 * i]
            resid[2 * i + 1] = self.change(x) if self.change else (x.float() - self.writes[i]).to(x.dtype)
        return resid.flatten(0, 1)

    def _side_hook(self, tensor: Tensor, hook: Any) -> Tensor:
        parts = self._blocks(tensor.clone())
        parts[0::2] = parts[1::2]
        return parts.flatten(0, 1)

    def _pattern_hook(self, tensor: Tensor, hook: Any) -> None:
        from transformer_lens.model_bridge.exceptions import StopAtLayerException

        self.seen = self._blocks(tensor)[0::2]
        raise StopAtLayerException(tensor)
