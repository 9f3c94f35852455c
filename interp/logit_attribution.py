"""Direct logit attribution: the tokens whose logits each head raises and lowers most.

Source: direct logit attribution, Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".

1. what a head adds to the residual stream at a position: z W_O; the bias of W_O belongs to no head
2. the final norm: its centring and gain, and the divisor it had at that position in that very pass, held fixed
3. times W_U, minus the mean over the vocabulary: softmax does not see what is added to all logits alike
4. the k highest and the k lowest of these contributions, in logits

The divisor of 2 is positive and one number per position, so it changes no order and is multiplied in at the end. Heads
and vocabulary are taken in parts: contributions to all logits at once would be d_vocab numbers per head and position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from byrote.checkpoints.errors import ByroteError
from byrote.interp.model import HookedModel
from byrote.interp.observe import EndView, LayerView, observe, read_out_error

K = 5
TOLERANCE = 1e-2
TOLERANCE_HALF = 5e-2  # rounding alone reaches 1e-2 in bfloat16
_PART_BYTES = 24 * 2**20  # larger ones are slower: memory is allocated anew each time
_PART_ROWS = 256
_STRIDE = 32  # tokens that are looked at as one, until it is known which of them can matter
_TRIED_TOKENS = 16


@dataclass(frozen=True, eq=False)
class Written:
    """What every head writes at every position of some sequences.

    Attributes:
        tokens: the ids the model ran on.
        ids: the tokens a head raises most, the most raised first, then those it lowers most, the most lowered first.
        logits: its contribution to each of their logits, minus its mean over the vocabulary.
    """

    tokens: Int[np.ndarray, "batch pos"]
    ids: Int[np.ndarray, "batch n_layers n_heads pos two_k"]
    logits: Float[np.ndarray, "batch n_layers n_heads pos two_k"]


def written(model: HookedModel, tokens: Int[np.ndarray, "*batch pos"], *, k: int = K) -> Written:
    """Run a model once: the tokens each head raises and lowers most at each position.

    Args:
        model: from `interp.load`, or a step of a `HookedSeries`.
        tokens: ids, such as the `tokens` of a `Capture`.
        k: how many of either; all where the vocabulary is smaller.

    Raises:
        ByroteError: heads of this model have no direct path that can be read, ids the model does not have, or more
            tokens than its context holds.
    """
    rows = np.atleast_2d(np.asarray(tokens)).astype(np.int64)
    if reason := unreadable(model):
        raise ByroteError(
            f"the outputs of single heads cannot be read: {reason}", help="look at their attention instead"
        )
    keeper = WriteKeeper()
    observe(model, torch.from_numpy(rows), [keeper])
    ((ids, logits),) = strongest(model, [keeper], k=k)
    return Written(rows, ids, logits)


def unreadable(model: HookedModel) -> str:
    """Why no head's direct path to the logits can be read on this model, or ""; tried on a few tokens.

    It can be where z W_O is what the residual stream gains, and where the logits are the last residual through the
    final norm and W_U, up to what is the same at all positions.
    """
    try:
        weights = model.weights
    except (AttributeError, LookupError, NotImplementedError, TypeError, ValueError) as error:
        return f"the weights of its heads cannot be read ({type(error).__name__}: {error})"
    if not weights.linear_readout:
        return "a norm after attention makes a head's direct contribution to the logits non-linear"
    tokens = torch.arange(min(_TRIED_TOKENS, model.shape.n_ctx))[None] % model.shape.d_vocab
    most = TOLERANCE_HALF if model.dtype in (torch.bfloat16, torch.float16) else TOLERANCE
    if not (by := reach_error(model, tokens)) <= most:
        return f"head outputs are altered before they reach the residual stream, by {by:.2g} of its spread"
    if not (by := read_out_error(model, tokens)) <= most:
        return (
            f"logits rebuilt from the last residual, final norm and W_U differ from the model's by {by:.2g} of "
            "their spread"
        )
    return ""


def reach_error(model: HookedModel, tokens: Int[Tensor, "batch pos"]) -> float:
    """Largest difference, in any layer, between what the residual stream gains from attention and all heads' z W_O.

    In units of the latter's standard deviation, rounding taken off; the stream's gain is read before the MLP, or as what
    the block adds without its MLP. Biases shift every position alike and are left out.
    """
    seen: dict[str, Tensor] = {}

    def keep(tensor: Tensor, hook: Any) -> None:
        seen[hook.name] = tensor.float()

    sites = ("hook_in", "hook_out", "ln2.hook_in", "mlp.hook_out", "attn.o.hook_in")
    names = [f"blocks.{layer}.{site}" for layer in range(model.shape.n_layers) for site in sites]
    known = model.bridge.hook_dict
    with torch.inference_mode():
        hooks = [(name, keep) for name in names if name in known]
        model.bridge.run_with_hooks(tokens.to(model.device), fwd_hooks=hooks)
        return max(_reach_error(seen, model, layer) for layer in range(model.shape.n_layers))


def _reach_error(seen: dict[str, Tensor], model: HookedModel, layer: int) -> float:
    before, after, middle, mlp, z = (
        seen.get(f"blocks.{layer}.{site}")
        for site in ("hook_in", "hook_out", "ln2.hook_in", "mlp.hook_out", "attn.o.hook_in")
    )
    W_O = model.weights.W_O[layer].flatten(0, 1)
    if before is None or after is None or z is None or z.numel() != before.shape[:2].numel() * len(W_O):
        return torch.inf
    if mlp is not None and mlp.numel() != before.numel():
        return torch.inf
    wrote = z.reshape(*before.shape[:2], len(W_O)) @ W_O
    gains = [after - before if mlp is None else after - before - mlp.view_as(before)]
    gains += [] if middle is None else [middle - before]
    off = [gain - wrote for gain in gains]
    largest = min((d - d.mean((0, 1), keepdim=True)).abs().max().item() for d in off)
    rounding = 64 * torch.finfo(model.dtype).eps * max(before.abs().max().item(), after.abs().max().item())
    return max(0.0, largest - rounding) / max(wrote.std().item(), 1e-9)


@dataclass
class WriteKeeper:
    """An observer that stores what `strongest` reads: z of every layer, and the final norm's scale.

    Attributes:
        needs: sites.
        z: layer -> parts [n_heads, rows, d_head], a row per sequence and position.
        scale: parts [batch, pos].
    """

    needs = frozenset({"z", "final_scale"})
    z: dict[int, list[Tensor]] = field(default_factory=dict)
    scale: list[Tensor] = field(default_factory=list)

    def see_layer(self, view: LayerView) -> None:
        """One layer of one batch."""
        assert view.z is not None
        z = view.z.float().flatten(0, 1).transpose(0, 1).clone(memory_format=torch.contiguous_format)
        self.z.setdefault(view.layer, []).append(z)

    def see_end(self, view: EndView) -> None:
        """The end of one batch."""
        assert view.final_scale is not None
        self.scale.append(view.final_scale.clone())


def strongest(
    model: HookedModel, keepers: Sequence[WriteKeeper], *, k: int = K
) -> list[
    tuple[
        Int[np.ndarray, "batch n_layers n_heads pos two_k"],
        Float[np.ndarray, "batch n_layers n_heads pos two_k"],
    ]
]:
    """Tokens and contributions of every head, as `Written` holds them, for each set of sequences.

    Several sets cost less than one by one: what a head can write into each logit is worked out once for all of them.

    Args:
        model: the one that was observed; `unreadable` is not checked again.
        keepers: each of one call of `observe`.
        k: how many of either.
    """
    if not keepers:
        return []
    scales = [torch.cat(keeper.scale) for keeper in keepers]
    sizes = [scale.numel() for scale in scales]
    scale = torch.cat([scale.flatten() for scale in scales])
    found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in keepers]
    weights = model.weights
    with torch.inference_mode():
        mean_column = weights.W_U.mean(1)
        for layer in range(model.shape.n_layers):
            z = torch.cat([part for keeper in keepers for part in keeper.z[layer]], dim=1)
            read = weights.normed(weights.W_O[layer])
            ids, logits = _strongest_of_layer(z, read, weights.W_U, mean_column=mean_column, k=k)
            logits *= scale[:, None]
            for i, (own_ids, own_logits) in enumerate(
                zip(ids.split(sizes, 1), logits.split(sizes, 1), strict=True)
            ):
                found[i].append((own_ids.int().cpu().numpy(), own_logits.cpu().numpy()))
    return [
        tuple(_by_sequence([layer[part] for layer in layers], len(scales[i])) for part in (0, 1))  # type: ignore[misc]
        for i, layers in enumerate(found)
    ]


def _by_sequence(layers: list[np.ndarray], n_seq: int) -> np.ndarray:
    """[n_heads, rows, n] per layer as [batch, n_layers, n_heads, pos, n]."""
    whole = np.stack(layers)
    n_layers, n_heads, rows, n = whole.shape
    return np.ascontiguousarray(
        whole.reshape(n_layers, n_heads, n_seq, rows // n_seq, n).transpose(2, 0, 1, 3, 4)
    )


def _strongest_of_layer(
    z: Float[Tensor, "n_heads rows d_head"],
    read: Float[Tensor, "n_heads d_head d_model"],
    W_U: Float[Tensor, "d_model d_vocab"],
    *,
    mean_column: Float[Tensor, " d_model"],
    k: int,
) -> tuple[Int[Tensor, "n_heads rows two_k"], Float[Tensor, "n_heads rows two_k"]]:
    n_heads, rows, d_head = z.shape
    n_vocab = W_U.shape[1]
    k = min(k, n_vocab)
    most = max(_STRIDE, _PART_BYTES // (4 * max(min(rows, _PART_ROWS), d_head)))
    width = -(-n_vocab // -(-n_vocab // most))  # parts of the vocabulary, alike in size
    together = max(1, _PART_BYTES // (4 * width * d_head))
    best: list[_Extremes | None] = [None] * n_heads
    for first in range(0, n_heads, together):
        part = read[first : first + together]
        for start in range(0, n_vocab, width):
            columns = W_U[:, start : start + width]
            to_logits = (part.flatten(0, 1) @ columns).unflatten(0, part.shape[:2])
            for head, own in enumerate(to_logits, start=first):
                found = [_extremes(some @ own, k, start) for some in z[head].split(_PART_ROWS)]
                best[head] = _merged(
                    best[head], (torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])), k
                )
    ids, logits = (torch.stack([own[i] for own in best if own is not None]) for i in (0, 1))
    return ids, logits - z @ (read @ mean_column)[..., None]


_Extremes = tuple[Tensor, Tensor]


def _extremes(x: Float[Tensor, "rows n"], k: int, start: int) -> _Extremes:
    """Places, from `start`, and values of the k highest, then of the k lowest; fewer of either where n < k.

    A number among the k highest stands in one of the k strided groups with the highest maxima; only those are sorted.
    """
    k, groups = min(k, x.shape[-1]), x.shape[-1] // _STRIDE
    if groups <= 2 * k:
        places = [x.topk(k, largest=largest).indices for largest in (True, False)]
    else:
        grouped = x[..., : groups * _STRIDE].unflatten(-1, (_STRIDE, groups))
        ends = ((grouped.amax(-2), True), (grouped.amin(-2), False))
        places = [
            _among(x, extreme.topk(k, largest=largest).indices, k, largest=largest)
            for extreme, largest in ends
        ]
    at = torch.cat(places, -1)
    return at + start, x.gather(-1, at)


def _among(x: Tensor, best: Int[Tensor, "rows k"], k: int, *, largest: bool) -> Tensor:
    """Places of the k most extreme numbers in the best groups and in the rest that fills no group."""
    n, groups = x.shape[-1], x.shape[-1] // _STRIDE
    offsets = groups * torch.arange(_STRIDE, device=x.device)
    rest = torch.arange(groups * _STRIDE, n, device=x.device).expand(*best.shape[:-1], -1)
    places = torch.cat([(best[..., None] + offsets).flatten(-2), rest], -1)
    return places.gather(-1, x.gather(-1, places).topk(k, largest=largest).indices)


def _merged(best: _Extremes | None, new: _Extremes, k: int) -> _Extremes:
    """The most extreme of two parts of the vocabulary."""
    if best is None:
        return new
    ids, values = [], []
    for half, largest in ((0, True), (1, False)):
        both = [
            torch.cat([pair.chunk(2, -1)[half] for pair in (old, fresh)], -1)
            for old, fresh in zip(best, new, strict=True)
        ]
        top = both[1].topk(min(k, both[1].shape[-1]), largest=largest)
        ids.append(both[0].gather(-1, top.indices))
        values.append(top.values)
    return torch.cat(ids, -1), torch.cat(values, -1)
