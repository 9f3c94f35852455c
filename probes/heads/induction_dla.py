"""Induction in logits: what a head adds, by attending to what followed an earlier copy, to the logit of that token.

Source: direct logit attribution as in Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; targets as in
Olsson et al. 2022, arXiv:2209.11895. The product, its null and the share of ids are byrote's own.

1. raise r_k of key k: what its value, through W_O and the unembedding, adds to the logit of its own token x_k, less the
   mean of what it adds to the sample's other tokens (position 0 and its token are left out)
2. for query q the targets are t = j + 1 for every j < q with x_j = x_q; D_q = sum over them of A[q, t] r_t, times the
   final norm's own scale at q; score = mean over the queries that have a target, in logits
3. excess: the same of (A[q, t] - 1 / (q + 1)) (r_t - r'_t), where r'_t is the raise of x_t by the value that another
   sequence has at that place. Writing the same whatever is read cancels, and so does even attention
4. share_frac = sum of D_q over sum of A[q, k] |r_k| over all keys k >= 1, of the same queries
5. an id is copied where the mean of D_q over the queries that it is the target of is above a quarter of the head's
   mean; copied_frac = share of a sequence's queries with a target whose target is copied; ids_copied, ids_shown: counts
   of ids, over all sequences

Sequences are exchanged with their neighbour in the batch of the pass; one sequence alone has no other.
"""

from __future__ import annotations

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from byrote.interp.weights import HeadWeights
from byrote.probes.heads.copying_logit import sample_slots, to_sample_logits
from byrote.probes.heads.matching import earlier_copies, shifted_keys
from byrote.probes.rules import COPIED_FRAC_OF_MEAN
from byrote.probes.spec import NotMeasuredError, probe


@probe(
    unit="logits",
    better="higher",
    stimulus="repeated_random",
    summary="How much the head raises the token that followed an earlier copy, by attending to it.",
    chance="0: another sequence's values at the same places, under even attention",
    metrics={
        "score": "raise of the token that followed a copy, against the sample's other tokens, by attention to it",
        "excess": "the same beyond even attention and beyond the values of another sequence",
        "share_frac": "share of the head's absolute raises, over all keys, that this is",
        "copied_frac": "share of the tokens that followed a copy that are raised by a quarter of the mean or more",
        "ids_copied": "distinct ids that are raised so",
        "ids_shown": "distinct ids that followed a copy",
    },
    units={
        "share_frac": "fraction of absolute raises",
        "copied_frac": "token fraction",
        "ids_copied": "ids",
        "ids_shown": "ids",
    },
    settings=("ids_shown",),
    undirected=("ids_shown",),
    chance_levels={"score": 0.0, "excess": 0.0},
    reads_as="0: attention to what followed a copy moves no logit of it, by whatever score. 0.1 logits raise a token's odds "
    "by a tenth; a head that carries copying alone has several. Below 0: it lowers what followed (anti-copying). Only the "
    "direct path counts",
    not_measured="a norm after attention makes head outputs non-linear (Gemma 2, OLMo 2); logits cannot be rebuilt from the last "
    "residual",
    undefined="no token of the stimulus has an earlier copy, there is one sequence only, or the head raises nothing",
    needs_read_out=True,
    order=95,
)
def induction_dla(
    pattern: Float[Tensor, "batch n_heads query_pos key_pos"],
    v: Float[Tensor, "batch key_pos n_heads d_head"],
    tokens: Int[Tensor, "batch query_pos"],
    match_tokens: Int[Tensor, "batch query_pos"],
    weights: HeadWeights,
    layer: int,
) -> dict[str, Float[Tensor, "batch n_heads query_pos"]]:
    """Reduce one layer to sums per query, before the final norm's scale.

    Args:
        pattern: post-softmax causal attention.
        v: value vectors, in the batch's order; shared ones repeated for every query head.
        tokens: the ids the model ran on.
        match_tokens: ids that decide what an earlier copy is, BOS first.
        weights: of the model.
        layer: whose heads these are.

    Returns:
        `on_target`, `excess` and `total` in logits times the final norm's divisor; `has_target` 1 or 0; `target`, an id.

    Raises:
        NotMeasuredError: a norm stands between the head's output and the residual stream.
    """
    if not weights.linear_readout:
        raise NotMeasuredError(
            "a norm after attention makes the head's direct contribution to the logits non-linear"
        )
    own, others = _raises(v.float(), tokens, weights, layer)  # 1.
    targets = shifted_keys(earlier_copies(match_tokens), 1)
    n_pos = tokens.shape[1]
    even = 1 / torch.arange(1, n_pos + 1, device=tokens.device)
    attended = pattern.float() * targets[:, None]
    beyond = torch.stack([own, own - others], dim=-1)
    on_target, excess = (attended @ beyond).unbind(-1)  # 2.
    evenly = einsum(
        targets.float(), beyond[..., 1], "batch query_pos k, batch n_heads k -> batch n_heads query_pos"
    )
    last = torch.where(targets, torch.arange(n_pos, device=tokens.device), 0).amax(-1)
    return {
        "on_target": on_target,
        "excess": excess - evenly * even,  # 3.
        "total": (pattern.float() @ own.abs()[..., None]).squeeze(-1),
        "has_target": targets.any(-1)[:, None].expand_as(on_target).float(),
        "target": tokens.gather(1, last)[:, None].expand_as(on_target).float(),
    }


def _raises(
    v: Float[Tensor, "batch key_pos n_heads d_head"],
    tokens: Int[Tensor, "batch key_pos"],
    weights: HeadWeights,
    layer: int,
) -> tuple[Float[Tensor, "batch n_heads key_pos"], Float[Tensor, "batch n_heads key_pos"]]:
    """Raise of every key's own token by its value, and by the value of another sequence at its place; 0 at position 0."""
    slot, ids, present = sample_slots(tokens)
    in_sample = present.scatter(1, slot[:, :1], value=False).float()
    to_sample = to_sample_logits(weights, layer, ids)
    summed = einsum(to_sample, in_sample, "batch n_heads d_head sample, batch sample -> batch n_heads d_head")
    index = slot[:, None, None, :].expand(-1, *to_sample.shape[1:3], -1)
    counted = in_sample.gather(1, slot)[:, None, None]  # 0 where the token is that of position 0
    n_others = (in_sample.sum(-1)[:, None, None, None] - counted).clamp_min(1)
    own = to_sample.gather(-1, index)
    against = own - (summed[..., None] - own * counted) / n_others  # read by a value: the raise of each token
    against[..., 0] = 0.0
    read = "batch key_pos n_heads d_head, batch n_heads d_head key_pos -> batch n_heads key_pos"
    exchanged = v.roll(1, 0) if len(v) > 1 else torch.full_like(v, torch.nan)
    return einsum(v, against, read), einsum(exchanged, against, read)


@induction_dla.finish
def finish(
    parts: dict[str, Float[Tensor, "n_layers batch n_heads query_pos"]],
    final_scale: Float[Tensor, "batch query_pos"],
) -> dict[str, Float[Tensor, "batch n_layers n_heads"]]:
    """Means over queries, in logits, and the share of ids that are copied."""
    has = parts["has_target"][0, :, 0].bool()
    target = parts["target"][0, :, 0].long()
    scaled = {
        name: (parts[name] * final_scale[None, :, None, :] * has[None, :, None, :]).movedim(0, 1)
        for name in ("on_target", "excess", "total")
    }
    n_queries = torch.where(has.any(-1), has.sum(-1), torch.nan)[:, None, None]
    total = scaled["total"].sum(-1)
    nothing_logits = 1e-6  # summed over a sequence: rounding
    share = torch.where(
        total > nothing_logits, scaled["on_target"].sum(-1) / total.clamp_min(nothing_logits), torch.nan
    )
    copied, ids_copied, ids_shown = _copied_ids(scaled["on_target"], target, has)
    found = {
        "score": scaled["on_target"].sum(-1) / n_queries,
        "excess": scaled["excess"].sum(-1) / n_queries,  # 3.
        "share_frac": share,  # 4.
        "copied_frac": copied.sum(-1) / n_queries,
        "ids_copied": ids_copied.expand_as(total),
        "ids_shown": torch.full_like(total, float(ids_shown)),
    }
    return {name: values.float() for name, values in found.items()}


def _copied_ids(
    on_target: Float[Tensor, "batch n_layers n_heads query_pos"],
    target: Int[Tensor, "batch query_pos"],
    has: Tensor,
) -> tuple[Tensor, Float[Tensor, "n_layers n_heads"], int]:
    """Which queries' targets are copied ids [batch n_layers n_heads query_pos]; how many ids are, and were shown."""  # 5.
    by_query = on_target.movedim(-1, 1)[has]  # [queries, n_layers, n_heads]
    ids, place = torch.unique(target[has], return_inverse=True)
    sums = torch.zeros(len(ids), *by_query.shape[1:], device=by_query.device, dtype=by_query.dtype)
    sums.index_add_(0, place, by_query)
    means = sums / torch.bincount(place, minlength=len(ids))[:, None, None]
    level = by_query.mean(0)
    is_copied = (means > COPIED_FRAC_OF_MEAN * level) & (level > 0)
    copied = torch.zeros_like(on_target.movedim(-1, 1))
    copied[has] = is_copied[place].to(copied.dtype)
    return copied.movedim(1, -1), is_copied.sum(0).float(), len(ids)
