"""Exposure: among sequences that could as well have been trained on, how early does the loss rank one that was?

Source: Carlini et al. 2019, arXiv:1802.08232: exposure = log2 |R| - log2 rank, the rank of a canary's loss in the
space R of possible canaries. R is far too large to go through, so it is sampled, as in their section 4.3.

1. loss = mean over the first block (see exact_match), of members and of candidates: sequences of the same source that
   were never trained on (the lab's twins and more of the same stream; elsewhere the twins given)
2. rank = 1 + candidates with a lower loss; a candidate of equal loss counts half
3. bits = log2(candidates + 1) - log2 rank, per member: the canary space is the sample and the member itself
4. first = share of members below every candidate: there the sample ends, and bits is only a lower bound
5. chance: a member like any candidate has every rank equally often: mean of log2((N + 1) / r) over r = 1 .. N + 1

Members stand in for canaries, which are inserted on purpose. The interval covers the choice of members, not of
candidates.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float

from byrote.interp.model import HookedModel
from byrote.probes.memory.spans import first_block, losses, mean_over
from byrote.probes.spec import ProbeScores, probe
from byrote.probes.stimuli import Stimulus


@probe(
    unit="bits",
    stimulus=("members", "candidates"),
    summary="How early a member's loss ranks among sequences that could as well have been trained on.",
    chance="mean of log2((N + 1) / r) over all ranks r: about 1.44 bits",
    metrics={
        "bits": "log2(candidates + 1) - log2 rank",
        "first": "share of members below every candidate, for which bits is only a lower bound",
    },
    main_metric="bits",
    units={"first": "member fraction"},
    reads_as="1.44: ranked like the rest. The highest value possible is log2(candidates + 1), about 10 with 1,024; "
    "where first nears 1 it stops telling strong memory from stronger",
    undefined="the loss is not finite",
    default=False,
    passes="2: members, and up to 1,024 candidates",
    order=300,
)
def exposure(model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int) -> dict[str, ProbeScores]:
    """Rank members among candidates.

    Args:
        model: a loaded checkpoint.
        stimuli: "members" and "candidates".
        seed: not used: nothing is drawn.

    Returns:
        `bits` from 0 to log2(candidates + 1), and `first`, 1.0 where no candidate is below; per member.
    """
    members, candidates = (_block_loss(model, stimuli[kind]) for kind in ("members", "candidates"))
    rank = ranks(members, candidates)
    n = len(candidates) + 1
    return {
        "bits": ProbeScores(np.log2(n / rank), chance=chance_bits(n)),  # 3.
        "first": ProbeScores((rank == 1).astype(np.float64), chance=1 / n),  # 4.
    }


def ranks(members: Float[np.ndarray, " n"], candidates: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
    """Rank of each member's loss among the candidates', from 1 (lowest) to m + 1."""
    ordered = np.sort(candidates)
    lower, not_higher = (np.searchsorted(ordered, members, side=side) for side in ("left", "right"))
    rank = 1 + (lower + not_higher) / 2  # 2.
    return np.where(np.isfinite(members), rank, np.nan)


def chance_bits(n: int) -> float:
    """Mean of log2(n / r) over r = 1 .. n."""
    return float(np.log2(n / np.arange(1, n + 1)).mean())  # 5.


def _block_loss(model: HookedModel, stimulus: Stimulus) -> Float[np.ndarray, " n"]:
    found = losses(model, stimulus.tokens)
    start = torch.from_numpy(stimulus.extra["second_block_start"])
    return mean_over(found.nll, first_block(start, found.nll.shape[1])).double().numpy()  # 1.
