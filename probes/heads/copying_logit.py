"""Copying, from activations: does a head raise the logit of the token it attends to?

Source: Olsson et al. 2022, arXiv:2209.11895, copying evaluator. The paper's ratio runs from 0 to 0.5 and is rescaled to
[-1, 1]; 4a/(a+S) - 1 is the formula consistent with that. Their examples lack BOS (an admitted mistake); byrote's have it.

1. a head's direct contribution to the logits at query q: z W_O, final norm applied with the run's own scale, W_U
2. subtract its mean over the vocabulary, keep the positive part: the raise of every token
3. a_q = sum over sources k of A[q, k] * raise of x_k;  S_q = summed raise over the sample's distinct tokens
4. a and S are summed over q >= 1 of a sequence; score = 4a/(a+S) - 1, undefined where nothing is raised
5. sink_free: position 0 is no source (rows renormalised) and its token is not in the sample
6. exchanged: the null. Pattern, position, head and tokens stay, and z is that of another sequence (the neighbour in the
   batch of the pass), so that writing the same whatever is read has no excess. Where it raises none of the sample's tokens,
   and at the least in its mean over sequences, it is the score with the sample's token identities permuted: in
   expectation every source has the sample's mean raise, a = S / u for u distinct tokens, and the score is 4 / (u + 1) - 1

The final norm divides all of a query's contribution by one number, so 3 is reduced layer by layer and multiplied by
that number when the pass has reached the end.
"""

from __future__ import annotations

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byrote.interp.weights import HeadWeights
from byrote.probes.spec import NotMeasuredError, probe


@probe(
    unit="copying score",
    range=(-1.0, 1.0),
    better="higher",
    stimulus="repeated_random",
    summary="Does the head raise the logit of the token it attends to, more than of the sample's other tokens?",
    chance="what the head writes on another sequence at the same place, or token identities permuted, whichever is higher",
    metrics={
        "score": "4a/(a+S)-1: a = raise of the attended token, S = summed raise over the sample's tokens",
        "sink_free": "the same without position 0 as a source and without its token in the sample",
        "exchanged": "the null of the score: the head's outputs on another sequence, under the same attention",
        "exchanged_sink_free": "the null of sink_free, likewise",
    },
    undirected=("exchanged", "exchanged_sink_free"),
    reads_as="1: only the attended token is raised; chance (about -0.8): it is raised no more than others; -1: it is "
    "lowered. Compare with chance, not with 0. Only the direct path to the logits counts",
    not_measured="a norm after attention makes head outputs non-linear (Gemma 2, OLMo 2); logits cannot be rebuilt from the "
    "last residual",
    undefined="the head raises no token of the sample: it writes nothing the unembedding reads",
    needs_read_out=True,
    order=90,
    featured=3,
    followed=3,
    version=2,
)
def copying_logit(
    pattern: Float[Tensor, "batch n_heads query_pos key_pos"],
    z: Float[Tensor, "batch query_pos n_heads d_head"],
    tokens: Int[Tensor, "batch query_pos"],
    weights: HeadWeights,
    layer: int,
) -> dict[str, Float[Tensor, "batch n_heads query_pos"]]:
    """Reduce one layer to a_q and S_q per query, before the final norm's scale.

    Args:
        pattern: post-softmax causal attention.
        z: head outputs before W_O.
        tokens: the ids the model ran on.
        weights: of the model.
        layer: whose heads these are.

    Returns:
        a and S with and without position 0, of the head's own outputs and of another sequence's; see `finish`.

    Raises:
        NotMeasuredError: a norm stands between the head's output and the residual stream.
    """
    if not weights.linear_readout:
        raise NotMeasuredError(
            "a norm after attention makes the head's direct contribution to the logits non-linear"
        )
    slot, ids, present = sample_slots(tokens)
    to_sample = to_sample_logits(weights, layer, ids)
    on_slot = torch.zeros(*pattern.shape[:3], ids.shape[1], device=pattern.device)
    index = slot[:, None, None, :].expand(-1, *pattern.shape[1:3], -1)
    on_slot.scatter_add_(-1, index, pattern.float())
    rest = 1 - pattern[..., 0].float()
    free_slot = on_slot.clone()
    free_slot.scatter_add_(-1, index[..., :1], -pattern[..., :1].float())
    free_slot = free_slot / rest.clamp_min(1e-6)[..., None]
    found = {"sample_size": present.sum(-1)[:, None, None].expand(pattern.shape[:3]).float()}
    exchanged = z.roll(1, 0) if len(z) > 1 else torch.zeros_like(z)
    for name, written in (("", z), ("_exchanged", exchanged)):
        raised = _raises(written.float(), to_sample) * present[:, None, None]  # 1. 2.
        free_raised = raised.scatter(-1, index[..., :1], 0.0)  # 5.
        found[f"a{name}"], found[f"S{name}"] = (on_slot * raised).sum(-1), raised.sum(-1)  # 3.
        found[f"a_free{name}"] = (free_slot * free_raised).sum(-1)
        found[f"S_free{name}"] = free_raised.sum(-1)
    return found


@copying_logit.finish
def finish(
    parts: dict[str, Float[Tensor, "n_layers batch n_heads query_pos"]],
    final_scale: Float[Tensor, "batch query_pos"],
) -> dict[str, Float[Tensor, ...]]:
    """Scores from the per-query sums and the final norm's scale.

    Returns:
        `score`, `sink_free` in [-1, 1], NaN where the head raises no token of the sample; their nulls per sequence; and
        their chance levels (`chance:...`), the means of these over sequences.
    """
    sizes = parts.pop("sample_size")[0, :, 0, 0]
    total = {
        name: (part * final_scale[None, :, None, :])[..., 1:].sum(-1).movedim(0, 1)  # 4. q >= 1
        for name, part in parts.items()
    }
    found = {"score": _score(total["a"], total["S"]), "sink_free": _score(total["a_free"], total["S_free"])}
    exchanged = _score(total["a_exchanged"], total["S_exchanged"])
    found["exchanged"] = _at_least(exchanged, 4 / (sizes + 1) - 1)  # 6.
    without_first = _score(total["a_free_exchanged"], total["S_free_exchanged"])
    found["exchanged_sink_free"] = _at_least(without_first, 4 / sizes - 1)  # one token fewer in the sample
    return found | {
        "chance:score": found["exchanged"].mean(0),
        "chance:sink_free": found["exchanged_sink_free"].mean(0),
    }


def _at_least(
    null: Float[Tensor, "batch n_layers n_heads"], permuted: Float[Tensor, " batch"]
) -> Float[Tensor, "batch n_layers n_heads"]:
    """A null with its gaps filled by the permuted level, and moved up as a whole where its mean lies below that."""
    level = permuted[:, None, None].expand_as(null)
    filled = torch.where(null.isnan(), level, null)
    return filled + (level.mean(0) - filled.mean(0)).clamp_min(0)


def sample_slots(
    tokens: Int[Tensor, "batch pos"],
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch sample"], Bool[Tensor, "batch sample"]]:
    """A sequence's distinct tokens, and which of them stands at each position.

    Returns:
        slot of every position; ids of every slot (padded with 0); which slots are real.
    """
    rows = [torch.unique(row, return_inverse=True) for row in tokens]
    width = max(len(ids) for ids, _ in rows)
    ids = torch.stack([torch.nn.functional.pad(ids, (0, width - len(ids))) for ids, _ in rows])
    present = torch.stack([torch.arange(width, device=tokens.device) < len(ids) for ids, _ in rows])
    return torch.stack([inverse for _, inverse in rows]), ids, present


def to_sample_logits(
    weights: HeadWeights, layer: int, ids: Int[Tensor, "batch sample"]
) -> Float[Tensor, "batch n_heads d_head sample"]:
    """What every dimension of a head's z adds to the logits of a sample's tokens, the vocabulary's mean subtracted."""
    return einsum(
        weights.W_O[layer],
        weights.unembed_centred[:, ids],
        "n_heads d_head d_model, d_model batch sample -> batch n_heads d_head sample",
    )


def _raises(
    z: Float[Tensor, "batch query_pos n_heads d_head"],
    to_sample: Float[Tensor, "batch n_heads d_head sample"],
) -> Float[Tensor, "batch n_heads query_pos sample"]:
    return einsum(
        z,
        to_sample,
        "batch query_pos n_heads d_head, batch n_heads d_head sample -> batch n_heads query_pos sample",
    ).relu()


def _score(a: Tensor, S: Tensor) -> Tensor:
    nothing_nats = (
        1e-6  # summed over a sequence, less than this is rounding: the head writes nothing W_U reads
    )
    return torch.where(S.gt(nothing_nats), 4 * a / (a + S).clamp_min(nothing_nats) - 1, torch.nan)
