"""Value-weighted prefix matching: attention counted by how much it moves.

Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits (value-weighted attention); targets as in
Olsson et al. 2022, arXiv:2209.11895.

A head that parks its attention on a position reads a small value there: weighting attention by the length of what is read removes
that part. The length is that of the value vector, its bias included, before W_O.

1. weigh every entry: A[q, k] ||v_k||, and renormalise each row
2. for query q the targets are j + 1 for every j < q with x_j = x_q; sum the weighed attention on them
3. mean over the queries that have a target and read anything at all; one value per sequence and head
4. sink_free: position 0 excluded as a key, rows renormalised, then 2 and 3
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from byrote.probes.heads.matching import (
    earlier_copies,
    mean_share_on,
    shifted_keys,
    uniform_attention,
    without_sink,
)
from byrote.probes.spec import probe
from byrote.probes.stimuli import Stimulus


@probe(
    unit="weighed attention fraction",
    range=(0.0, 1.0),
    better="higher",
    stimulus="repeated_random",
    summary="Prefix matching with attention counted by the length of the value it reads.",
    chance="uniform causal attention over values of one length, on the same tokens",
    metrics={
        "score": "prefix matching of A[q,k] ||v_k||, rows renormalised",
        "sink_free": "the same with position 0 excluded and rows renormalised",
    },
    reads_as="Above prefix_matching: much of the head's attention rests where it reads little. Equal to it: all "
    "values are of one length. Length before W_O: a long value may still be written nowhere",
    not_measured="the head's values are all zero",
    undefined="no token of the stimulus has an earlier copy, or the head's values are zero",
    order=70,
)
def value_weighted(
    pattern: Float[Tensor, "batch n_heads query_pos key_pos"],
    v: Float[Tensor, "batch key_pos n_heads d_head"],
    match_tokens: Int[Tensor, "batch query_pos"],
) -> dict[str, Float[Tensor, "batch n_heads"]]:
    """Score one layer.

    Args:
        pattern: post-softmax causal attention.
        v: value vectors; shared ones repeated for every query head.
        match_tokens: ids that decide what an earlier copy is, BOS first.

    Returns:
        `score` and `sink_free`, fractions of the weighed attention from 0 to 1; NaN for a sequence without any earlier
        copy, and for a head whose values are all zero.
    """
    targets = shifted_keys(earlier_copies(match_tokens), 1)  # 2.
    length = v.float().norm(dim=-1).transpose(1, 2)[:, :, None, :]
    length = length / length.amax(-1, keepdim=True).clamp_min(torch.finfo(length.dtype).tiny)
    weighed = pattern.float() * length  # 1.
    return {"score": mean_share_on(weighed, targets), "sink_free": without_sink(weighed, targets)}  # 3. 4.


@value_weighted.chance
def chance(stimulus: Stimulus) -> dict[str, float]:
    """Uniform attention over values of one length, on the same tokens."""
    tokens = torch.from_numpy(stimulus.match_tokens)
    pattern = uniform_attention(tokens.shape[1]).expand(len(tokens), -1, -1, -1)
    uniform = value_weighted(pattern, torch.ones(*tokens.shape, 1, 1), tokens)
    return {name: float(score.nanmean()) for name, score in uniform.items()}
