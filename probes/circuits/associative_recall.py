"""Associative recall: which of the three memories of an induction head are in the weights?

Source: Bietti et al. 2023, arXiv:2306.00802, memory recall probes of W_O^2, W_K^2 and W_K^1 (as their code has them; there one head a
layer, and W_O^1 W_V^1 of that head in step 2).

1. output: share of ids v of which the head's e_v W_V W_O W_U is largest at v itself
2. keys: share of ids v for which e_v W_Q W_K^T (e_u C)^T is largest at u = v, C the sum of W_V W_O over all heads of earlier layers:
   the query of a token finds the key that an earlier head has written it into
3. positions: share of positions t, from 1, for which p_t W_Q W_K^T p_s^T is largest at s = t - 1, of all s up to t; p are the learned
   positions, the first 512 of them
4. norms folded; ids are those of repeated_random, v 128 of them drawn at random from larger vocabularies; ties do not count. output and
   keys of heads behind the first layer, positions of heads in it. Intervals are over ids, or positions
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from byrote.interp.model import HookedModel
from byrote.interp.weights import HeadWeights
from byrote.probes.heads.ov_copying import largest_at, sample_tokens
from byrote.probes.spec import NotMeasuredError, ProbeScores, probe
from byrote.probes.stimuli import Stimulus

_POSITIONS = 512


@probe(
    unit="token fraction",
    range=(0, 1),
    better="higher",
    stimulus="repeated_random",
    summary="From weights alone: is each token, and each position before, what the head's output, keys and queries recall?",
    chance="1 in the number of ids; of positions, 1 in those that can be attended to, on average",
    metrics={
        "output": "share of tokens whose own logit the head's OV circuit raises most",
        "keys": "share of tokens whose query meets the key that earlier heads have written the same token into most",
        "positions": "share of positions whose query meets the key of the position before most",
    },
    main_metric="keys",
    units={"positions": "position fraction"},
    reads_as="1: the memory is complete. output comes first where the head copies, keys where it matches what earlier heads move, "
    "positions where it is a previous-token head. Strength does not count: a faint memory recalls as well as a strong one",
    not_measured="a norm after attention makes head outputs non-linear (Gemma 2, OLMo 2); fewer than two layers; smeared keys; for positions, no learned ones",
    undefined="the model has no learned positions",
    default=False,
    passes="none: weights alone",
    order=112,
)
def associative_recall(
    model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int
) -> dict[str, ProbeScores]:
    """Read the memories of every head from the weights; the stimulus says which ids there are.

    Args:
        model: a loaded checkpoint.
        stimuli: "repeated_random", for its ids.
        seed: of the token sample.

    Returns:
        `output`, `keys` and `positions`, see `recalled`.

    Raises:
        NotMeasuredError: one layer, smeared keys, or a norm stands between a head's output and the residual stream.
    """
    ids = torch.from_numpy(np.unique(stimuli["repeated_random"].tokens[:, 1:])).to(model.weights.W_E.device)
    return recalled(model.weights, ids, seed)


def recalled(weights: HeadWeights, ids: Int[Tensor, " n_ids"], seed: int) -> dict[str, ProbeScores]:
    """Ask the memories of every head.

    Args:
        weights: of the model.
        ids: token ids, distinct.
        seed: of the token sample.

    Returns:
        `output` and `keys`, one row per token, and `positions`, one row per position: 1 where it is recalled, else 0.

    Raises:
        NotMeasuredError: one layer, smeared keys, or a norm stands between a head's output and the residual stream.
    """
    if not weights.linear_readout:
        raise NotMeasuredError("a norm after attention makes what a head writes non-linear")
    if weights.smeared_keys:
        raise NotMeasuredError(
            "keys are smeared: each is a mixture of two tokens', which W_K alone does not describe"
        )
    n_layers, n_heads = weights.W_V.shape[:2]
    if n_layers < 2:
        raise NotMeasuredError("the model has one layer: no head can read what an earlier one moved")
    sample = sample_tokens(ids.cpu(), torch.Generator().manual_seed(seed)).to(ids.device)
    place, unembed = (sample[:, None] == ids).int().argmax(1), weights.unembed(ids)
    pos = None if weights.W_pos is None else weights.W_pos[:_POSITIONS]
    n_pos = 1 if pos is None else len(pos) - 1
    output, keys = (torch.full((len(sample), n_layers, n_heads), torch.nan) for _ in range(2))
    positions = torch.full((n_pos, n_layers, n_heads), torch.nan)
    for layer, moved in enumerate(_moved(weights, ids)):
        W_Q, W_K, W_V = (weights.reads_of(name, layer) for name in ("W_Q", "W_K", "W_V"))
        for head in range(n_heads):
            if layer:
                raised = weights.W_E[sample] @ W_V[head] @ weights.W_O[layer, head] @ unembed  # 1.
                met = weights.W_E[sample] @ W_Q[head] @ (moved @ W_K[head]).mT  # 2.
                output[:, layer, head] = largest_at(raised, place)
                keys[:, layer, head] = largest_at(met, place)
            elif pos is not None:
                positions[:, layer, head] = _previous(pos @ W_Q[head], pos @ W_K[head])
    first = np.zeros((n_layers, n_heads), dtype=bool)
    first[0] = True
    axes, guess = ("layer", "head"), 1 / len(ids)
    guess_position = float((1 / np.arange(2, n_pos + 2)).mean())
    return {
        "output": ProbeScores(output.numpy(), axes, guess, exists=~first),
        "keys": ProbeScores(keys.numpy(), axes, guess, exists=~first),
        "positions": ProbeScores(positions.numpy(), axes, guess_position, exists=first),
    }


def _moved(weights: HeadWeights, ids: Int[Tensor, " n_ids"]) -> Iterator[Float[Tensor, "n_ids d_model"]]:
    """For each layer, what all heads of the layers before write where they attend to each id."""
    total = torch.zeros_like(weights.W_E[ids])
    for layer in range(weights.W_V.shape[0]):
        yield total
        for W_V, W_O in zip(weights.reads_of("W_V", layer), weights.W_O[layer], strict=True):
            total = total + weights.W_E[ids] @ W_V @ W_O


def _previous(
    queries: Float[Tensor, "pos d_head"], keys: Float[Tensor, "pos d_head"]
) -> Float[Tensor, " pos_but_one"]:
    """1 for each position from 1 whose query meets the key of the one before most, of all keys up to its own."""  # 3.
    met = queries @ keys.mT
    later = torch.ones_like(met, dtype=torch.bool).triu(1)
    before = torch.arange(len(met) - 1, device=met.device)
    return largest_at(met.masked_fill(later, -torch.inf)[1:], before)
