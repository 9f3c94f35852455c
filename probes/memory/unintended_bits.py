"""Unintended bits: how much does the model know of a sequence beyond what its source gives away?

Source: Morris et al. 2025, arXiv:2505.24832: mem(x) = -log2 p_ref(x) + log2 max(p_model(x), p_ref(x)), that is
max(0, log2 p_model(x) - log2 p_ref(x)), and its sum over the data against the parameters (their plateau: 3.6 bits each).

1. the tokens of the first block are scored (see exact_match): what can be copied is no memory
2. reference: the source's own distribution where it is known (the lab's: uniform over its ids, or its bigram table),
   else the losses of a reference model given as `reference_nll` beside the tokens; without either, not measured
3. gain of a token in bits = (loss under the reference - loss under the model) / ln 2
4. bits = max(0, sum of gains over the block), per sequence: the paper's formula
5. token_bits = sum of max(0, gain): counts what is known of a few tokens even where the rest is predicted worse than
   by the reference. Chance hits count and misses do not, so it is above 0 on sequences never seen: read it
   against token_bits@twins
6. share = bits / bits of the block under the reference; total = bits x members; per_parameter = total / parameters
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from byrote.probes.memory.spans import first_block
from byrote.probes.spec import probe


@probe(
    unit="bits",
    stimulus=("members", "twins"),
    summary="Bits known of a training sequence beyond what its source implies; and all of them per parameter.",
    chance="0: no more is known than the reference knows; the twins show what chance hits add",
    chance_levels={"bits": 0.0, "token_bits": 0.0, "share": 0.0, "total": 0.0, "per_parameter": 0.0},
    metrics={
        "bits": "max(0, log2 p_model - log2 p_reference) of the first block, mean per sequence",
        "token_bits": "the same with each token's gain cut at 0 before they are summed",
        "share": "bits over what the reference needs for the block",
        "total": "bits of all members together",
        "per_parameter": "total over the number of parameters",
        "bits@twins": "bits, of twins",
        "token_bits@twins": "token_bits, of twins",
        "share@twins": "share, of twins",
    },
    main_metric="bits",
    units={"share": "fraction of the reference's bits", "per_parameter": "bits per parameter"},
    smallest={
        "share": (0.05, "a twentieth of what there is to know"),
        "total": (64.0, "one bit of each of 64 sequences, the lab's usual pool"),
        "per_parameter": (0.05, "a seventieth of the published capacity, 3.6 bits"),
    },
    details=("token_bits", "total", "bits@twins", "token_bits@twins", "share@twins"),
    reads_as="share near 1: memorised. Published capacity is about 3.6 bits per parameter (half-precision "
    "language models trained to the plateau); token_bits is above 0 on twins too, only the excess is memory",
    not_measured="neither their source nor reference_nll is known",
    undefined="no reference: their source is unknown; give reference_nll beside the tokens (.safetensors)",
    order=280,
)
def unintended_bits(
    token_nll: Float[Tensor, "batch next_pos"],
    second_block_start: Int[Tensor, " batch"],
    reference_nll: Float[Tensor, "batch pos"],
    n_in_all: Int[Tensor, " batch"],
    n_parameters: int,
) -> dict[str, Float[Tensor, " batch"]]:
    """Score a batch.

    Args:
        token_nll: loss in nats of predicting tokens 1, 2, ... of every sequence.
        second_block_start: index of the first token that repeats the sequence's beginning.
        reference_nll: loss of every token under the reference, NaN where there is none.
        n_in_all: how many sequences there are, of which these are all or a sample.
        n_parameters: of the model, embeddings included.

    Returns:
        `bits`, `token_bits` per sequence; `share` from 0 to 1; `total` and `per_parameter`, whose mean over the
        sequences is the figure for all of them. NaN where the reference is undefined.
    """
    block = first_block(second_block_start, token_nll.shape[1])  # 1.
    reference = reference_nll[:, 1:].float()
    gain = torch.where(block, (reference - token_nll) / math.log(2), 0.0)  # 3.
    bits = gain.sum(1).clamp(min=0)  # 4. NaN is kept
    known = torch.where(block, reference, 0.0).sum(1) / math.log(2)
    total = bits * n_in_all
    return {
        "bits": bits,
        "token_bits": gain.clamp(min=0).sum(1),  # 5.
        "share": bits / known,  # 6.
        "total": total,
        "per_parameter": total / n_parameters,
    }
