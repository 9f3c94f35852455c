"""OV copying, from weights alone: does the OV circuit map tokens onto themselves?

Source: Elhage et al. 2021, eigenvalue analysis of W_U W_OV W_E. Positive eigenvalues are not proof of copying
(eigenvectors need not be orthogonal), so `self_rank` is reported with them.

1. the full circuit W_E W_V W_O W_U (d_vocab x d_vocab, norms folded) has the non-zero spectrum of the
   d_head x d_head matrix  W_O (W_U W_E) W_V
2. score = sum Re(lambda) / sum |lambda|
3. null: W_O keeps its spectrum, its output directions are replaced by a random orthonormal frame (Haar); the draws
   are pooled over a layer's heads, at least 16 per head in models of up to 4 heads and 64 per layer in all
4. z = (score - mean of the null) / standard deviation of the null
5. self_rank: share of tokens t whose own logit is the largest in row t of the full circuit, on all tokens or on
   128 drawn at random from larger vocabularies (bootstrap interval over tokens). Most rows are decided by a few
   columns: those that a sixteenth of the vocabulary clearly beats are not multiplied with the rest
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byrote.interp.weights import HeadWeights
from byrote.probes.spec import NotMeasuredError, ProbeScores, probe
from byrote.probes.spectra import haar_frames, positivity, turned_positivity

_DRAWS_PER_HEAD = 4
_DRAWS_PER_LAYER = 64
_SELF_RANK_TOKENS = 128
_FIRST_OF = 16  # every so manieth column is looked at first
_CLEARLY = 1e-3  # of a row's largest number: far above rounding, so that what is decided first is what all columns decide


@probe(
    unit="eigenvalue positivity",
    range=(-1.0, 1.0),
    better="higher",
    summary="From weights alone: do tokens raise their own logit through the head's OV circuit?",
    chance="the same spectrum of W_O under random rotations",
    metrics={
        "score": "sum of real parts over sum of absolute eigenvalues of the full OV circuit",
        "z": "the score in standard deviations of the rotation null",
        "self_rank": "share of tokens whose own logit the head raises most",
    },
    units={"z": "standard deviations", "self_rank": "token fraction"},
    reads_as="1: all eigenvalues positive, tokens raise themselves; 0: as many against; -1: anti-copying. Positive eigenvalues alone prove nothing (eigenvectors need not be orthogonal): read self_rank and copying_logit beside it",
    not_measured="a norm after attention makes head outputs non-linear (Gemma 2, OLMo 2); the OV circuit is zero",
    undefined="the OV circuit is zero",
    order=100,
    featured=5,
)
def ov_copying(weights: HeadWeights, ids: Int[Tensor, " n_ids"], seed: int) -> dict[str, ProbeScores]:
    """Score every head.

    Args:
        weights: of the model.
        ids: token ids the model really uses.
        seed: of the null and of the token sample.

    Returns:
        `score` in [-1, 1] and `z`, exact (n = draws of the null); `self_rank` in [0, 1] with one row per token.

    Raises:
        NotMeasuredError: a norm stands between the head's output and the residual stream.
    """
    if not weights.linear_readout:
        raise NotMeasuredError("a norm after attention makes the OV circuit non-linear")
    n_layers, n_heads = weights.W_V.shape[:2]
    generator = torch.Generator().manual_seed(seed)
    sample = sample_tokens(ids.cpu(), generator).to(ids.device)
    unembed, d_model = weights.unembed(), weights.W_E.shape[1]
    gram = unembed[:, ids] @ weights.W_E[ids]
    per_head = max(_DRAWS_PER_HEAD, math.ceil(_DRAWS_PER_LAYER / n_heads))
    frames = haar_frames(per_head, d_model, weights.W_O.shape[2], generator).to(gram.device)

    score, null_mean, null_sd = (torch.zeros(n_layers, n_heads) for _ in range(3))
    own = torch.zeros(len(sample), n_layers, n_heads)
    first = unembed[:, ::_FIRST_OF].contiguous()
    for l in range(n_layers):
        nulls = []
        for h in range(n_heads):
            reads = weights.reads(weights.W_V[l, h], l)
            right = gram @ reads
            score[l, h] = positivity(weights.W_O[l, h] @ right)  # 1. 2.
            nulls.append(turned_positivity(weights.W_O[l, h], right, frames))
            written = weights.W_E[sample] @ reads @ weights.W_O[l, h]
            left = (~surely_beaten(written, sample, unembed, first)).nonzero()[:, 0]
            own[left.cpu(), l, h] = largest_at(written[left] @ unembed, sample[left]).cpu()  # 5.
        pooled = torch.cat(nulls)  # 3.
        null_mean[l], null_sd[l] = pooled.mean(), pooled.std()
    z = (score - null_mean) / null_sd  # 4.
    axes, n_draws, guess = ("layer", "head"), per_head * n_heads, torch.full_like(z, 1 / unembed.shape[1])
    return {
        "score": ProbeScores(score.numpy()[None], axes, null_mean.numpy(), exact_n=n_draws),
        "z": ProbeScores(z.numpy()[None], axes, 0.0, exact_n=n_draws),
        "self_rank": ProbeScores(own.numpy(), axes, guess.numpy()),
    }


def sample_tokens(ids: Int[Tensor, " n_ids"], generator: torch.Generator) -> Int[Tensor, " sample"]:
    """All ids, or 128 of them drawn at random."""
    if len(ids) <= _SELF_RANK_TOKENS:
        return ids
    return ids[torch.randperm(len(ids), generator=generator)[:_SELF_RANK_TOKENS]]


def surely_beaten(
    written: Float[Tensor, "sample d_model"],
    own: Int[Tensor, " sample"],
    unembed: Float[Tensor, "d_model n"],
    some: Float[Tensor, "d_model m"],
) -> Bool[Tensor, " sample"]:
    """Whether a row's own column is below another by more than rounding, as some of the columns show.

    Args:
        written: what a head adds to the residual stream for each token of the sample.
        own: the column of each row.
        unembed: all columns.
        some: a part of them.
    """
    mine = (written * unembed[:, own].T).sum(1)
    raised = written @ some
    return raised.amax(1) > mine + _CLEARLY * torch.maximum(raised.abs().amax(1), mine.abs())


def largest_at(scores: Float[Tensor, "sample n"], own: Int[Tensor, " sample"]) -> Float[Tensor, " sample"]:
    """1 where the score of a row's own column is above all others of the row, else 0.

    Args:
        scores: of anything; ties at the top, as of a head that writes nothing, do not count.
        own: the column of each row.
    """
    mine = scores.gather(1, own[:, None])
    return ((scores >= mine).sum(1) == 1).float()
