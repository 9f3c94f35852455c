"""QK matching: do a head's weights send a token to whatever followed its earlier copies, through previous-token heads?

Source: Olsson et al. 2022, arXiv:2209.11895, QK eigenvalue measure of prefix matching; circuits of Elhage et al. 2021.

An induction head compares the token at the query with the token before the key, which an earlier head h has moved to
the key. Token t at the query then meets a key whose previous token is u with the logit  e_t W_Q W_K^T (W_V,h W_O,h)^T
e_u^T. A positive trace and positive eigenvalues of that d_vocab x d_vocab matrix say: more where t = u.

1. p_h = mean attention of every earlier head from q to q-1 on this checkpoint (the score of `previous_token`)
2. the matrix W_E W_Q W_K^T C^T W_E^T with C = sum of p_h W_V,h W_O,h over the heads h of earlier layers, norms folded,
   has the non-zero spectrum of the d_head x d_head matrix  M = W_K^T C^T (W_E^T W_E) W_Q
3. trace = sum lambda = tr M;  score = sum Re(lambda) / sum |lambda|
4. null: the directions W_K reads are replaced by a random orthonormal frame (Haar), its spectrum is kept. For the
   score, draws are pooled over a layer's heads, at least 4 per head and 32 per layer; z = (score - mean) / standard
   deviation. For the trace the null has mean 0 and standard deviation ||C^T (W_E^T W_E) W_Q W_K^T||_F / sqrt(d_model)
   (d_model - 1 behind a LayerNorm), exactly: trace_z
5. interval: the trace is linear in p_h and is taken per sequence; the score is linearised about the mean p_h
   (d score = Re tr(Gamma dM), Gamma from the eigenvectors of M), per sequence

Only the content path is read. Left out: positions, whether learned, rotary (the product at offset 0) or ALiBi; biases
of Q, K and V; norms on queries and keys; MLPs in between; paths through two earlier heads; W_E is taken for what
reaches the query. Heads of layer 0 have nothing earlier to read and have no row. All rows of W_E count, padding too.
"""

from __future__ import annotations

import math

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from byrote.interp.weights import HeadWeights
from byrote.probes.heads.previous_token import previous_token
from byrote.probes.spec import NotMeasuredError, probe
from byrote.probes.spectra import finite_or_zero, haar_frames, positivity_of, turned_positivity

_DRAWS_PER_HEAD = 4
_DRAWS_PER_LAYER = 32


@probe(
    unit="eigenvalue positivity",
    range=(-1.0, 1.0),
    better="higher",
    stimulus="repeated_random",
    summary="From weights: does the head look for what followed the current token, through previous-token heads?",
    chance="the same spectrum of W_K under random rotations",
    metrics={
        "score": "sum of real parts over sum of absolute eigenvalues of the QK circuit through previous-token heads",
        "z": "the score in standard deviations of the rotation null",
        "trace": "sum of the eigenvalues: summed products of each token's query with its own key",
        "trace_z": "the trace in standard deviations of the rotation null",
    },
    units={"z": "standard deviations", "trace": "query-key products", "trace_z": "standard deviations"},
    smallest={"trace": (1.0, "moves an attention score by 1 / sqrt(d_head), about a tenth")},
    reads_as="Near 1 with a large trace_z: the weights match prefixes. The score is scale-free and may be high on a "
    "circuit too faint to matter: trace_z weighs it by size. Only the content path counts: no positions, no MLPs",
    not_measured="a norm after attention makes head outputs non-linear (Gemma 2, OLMo 2); fewer than two layers; smeared "
    "keys; the matrix is zero",
    undefined="nothing earlier heads move reaches this head's keys as a token",
    reads_earlier_layers=True,
    order=110,
)
def qk_matching(
    pattern: Float[Tensor, "batch n_heads query_pos key_pos"], weights: HeadWeights
) -> dict[str, Float[Tensor, "batch n_heads"]]:
    """Reduce one layer to its previous-token attention; `finish` joins it with the weights.

    Args:
        pattern: post-softmax causal attention.
        weights: of the model.

    Returns:
        `p`, attention fractions.

    Raises:
        NotMeasuredError: the model has one layer or smeared keys, or a norm stands between a head's output and the residual stream.
    """
    if weights.W_K.shape[0] < 2:
        raise NotMeasuredError("the model has one layer: no head can read what an earlier one moved")
    if not weights.linear_readout:
        raise NotMeasuredError("a norm after attention makes what a head writes for later heads non-linear")
    if weights.smeared_keys:
        raise NotMeasuredError(
            "keys are smeared: each is a mixture of two tokens', which W_K alone does not describe"
        )
    return {"p": previous_token(pattern)["score"]}  # 1.


@qk_matching.finish
def finish(
    parts: dict[str, Float[Tensor, "n_layers batch n_heads"]], weights: HeadWeights, seed: int
) -> dict[str, Tensor]:
    """Scores of every head from previous-token attention and weights.

    Args:
        parts: `p` of all layers and sequences.
        weights: of the model.
        seed: of the null.

    Returns:
        `score` in [-1, 1], `z` and `trace_z` in standard deviations, `trace` in summed products of queries and keys,
        per sequence [batch n_layers n_heads]; NaN where the matrix is zero. Their chance levels (`chance:...`), and
        which heads have a value at all (`exists`): all but those of layer 0.
    """
    p = parts["p"].movedim(0, 1).cpu().double()
    batch, n_layers, n_heads = p.shape
    gram = finite_or_zero(weights.W_E.T @ weights.W_E)
    draws = max(_DRAWS_PER_HEAD, math.ceil(_DRAWS_PER_LAYER / n_heads))
    generator, (d_model, d_head) = torch.Generator().manual_seed(seed), weights.W_K.shape[2:]
    frames = haar_frames(draws, d_model, d_head, generator, centred=weights.centred).to(weights.W_K)
    names = ("score", "z", "trace", "trace_z", "chance:score")
    out = {name: torch.full((batch, n_layers, n_heads), torch.nan) for name in names}
    for layer in range(1, n_layers):
        for name, values in _scores(weights, layer, p[:, :layer], gram=gram, frames=frames).items():
            out[name][:, layer] = values.float()
    exists = torch.ones(n_layers, n_heads, dtype=torch.bool)
    exists[0] = False
    zero = torch.zeros(n_layers, n_heads)
    null_mean = out.pop("chance:score")[0]
    chance = {"chance:score": null_mean, "chance:z": zero, "chance:trace": zero, "chance:trace_z": zero}
    return {**out, **chance, "exists": exists}


def _scores(
    weights: HeadWeights,
    layer: int,
    p: Float[Tensor, "batch n_layers_before n_heads"],
    *,
    gram: Float[Tensor, "d_model d_model"],
    frames: Float[Tensor, "draws d_model n"],
) -> dict[str, Tensor]:
    """Every metric of one layer's heads h, per sequence, from the earlier heads n, counted layer by layer."""
    keys, queries = weights.reads_of("W_K", layer), weights.reads_of("W_Q", layer)
    values = torch.cat([weights.reads_of("W_V", l) for l in range(layer)])
    outputs = weights.W_O[:layer].flatten(0, 1)
    weighed = p.mean(0).flatten().to(values)[:, None, None] * values
    moved = rearrange(weighed, "n d i -> d (n i)") @ outputs.flatten(0, 1)  # C of step 2
    wanted = gram @ queries
    right = moved.T @ wanted
    read = einsum(values, wanted, "n d i, h d j -> n h i j")
    met = einsum(keys, outputs, "h d i, n j d -> n h i j")  # M of step 2 is the sum of p_h met read
    p = p.flatten(1)

    value, gamma = _linearised(keys.mT @ right)
    towards = einsum(met @ read, gamma.to(read), "n h i j, h j i -> n h").cpu().double()
    score = value + (p - p.mean(0)) @ towards  # 5.
    trace = p @ einsum(met, read, "n h i j, n h j i -> n h").cpu().double()  # 3.
    # ||right keys^T||_F from the two Gram matrices: d_head x d_head instead of d_model x d_model
    squared = ((right.mT @ right) * (keys.mT @ keys)).sum((1, 2))
    readable = keys.shape[1] - weights.centred
    trace_sd = squared.clamp_min(0).sqrt().cpu().double() / math.sqrt(readable)  # 4.
    trace = torch.where(trace_sd > 0, trace, torch.nan)
    null = torch.cat([turned_positivity(k.T, r, frames) for k, r in zip(keys, right, strict=True)])
    null = null[torch.isfinite(null)].double()
    if not len(null):  # every head's matrix is zero
        null = torch.full((2,), torch.nan, dtype=torch.float64)
    return {
        "score": score,
        "z": (score - null.mean()) / null.std(),
        "chance:score": null.mean(),
        "trace": trace,
        "trace_z": trace / trace_sd,
    }


def _linearised(
    matrix: Float[Tensor, "n_heads d_head d_head"],
) -> tuple[Float[Tensor, " n_heads"], Float[Tensor, "n_heads d_head d_head"]]:
    """Positivity S of each matrix, and the matrix Gamma with dS = tr(Gamma dM).

    dS = (sum Re dlambda - S sum d|lambda|) / sum |lambda|, with dlambda_i = (X^-1 dM X)_ii for eigenvectors X. Gamma
    is zero where the eigenvectors do not span: the score then has no derivative.
    """
    values, vectors = torch.linalg.eig(finite_or_zero(matrix).cpu().double())
    score = positivity_of(values)
    size = values.abs().sum(-1, keepdim=True)
    slope = (1 - score[:, None] * values.sgn().conj()) / size
    inverse, _ = torch.linalg.inv_ex(vectors)
    gamma = ((vectors * slope[:, None, :]) @ inverse).real
    usable = torch.isfinite(gamma).all((1, 2), keepdim=True)
    return score, torch.where(usable, gamma, torch.zeros_like(gamma))
