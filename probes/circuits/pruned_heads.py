"""Pruned heads: which heads still match prefixes when the smallest weights are taken away, and does copying last longer?

Source: magnitude pruning: Han et al. 2015, arXiv:1506.02626; that what is read from context outlasts what is recalled:
Jin et al. 2023, arXiv:2310.04680. See pruned_memory for the other side.

1. pruned: the smallest 30, 40, ... 90% of the entries of every weight matrix of every block set to 0, one share at a time, in
   place; embeddings, unembedding, norms and biases stay; afterwards the weights are put back, bit for bit
2. prefix: prefix_matching of every head at each share; unpruned: the same with nothing pruned
3. survives: largest share up to which a head keeps more than half of its unpruned excess over chance, at every smaller share
   too; 0 where it has lost it at 30%. Only of heads whose unpruned excess is above 0.05 with its whole interval
4. later: loss on later blocks at each share; first: loss on the first block
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float

from byrote.interp.model import HookedModel
from byrote.interp.pruning import pruned
from byrote.probes.circuits.effects import later_blocks
from byrote.probes.memory.spans import losses
from byrote.probes.registry import lookup
from byrote.probes.results.schema import Measured
from byrote.probes.rules import HALF_RISEN, SMALLEST, is_above
from byrote.probes.spec import NotMeasuredError, ProbeScores, probe
from byrote.probes.statistics import bootstrap_mean
from byrote.probes.stimuli import Stimulus

TENTHS = (3, 4, 5, 6, 7, 8, 9)


@probe(
    unit="attention fraction",
    range=(0.0, 1.0),
    better="higher",
    stimulus="repeated_random",
    summary="Prefix matching of every head, and loss on repeats, when 30 to 90% of the weights are pruned by magnitude.",
    chance="uniform causal attention on the same tokens; losses: guessing uniformly",
    metrics={
        "survives": "largest share pruned at which the head keeps half of its excess over chance; 0: not even 30%",
        "unpruned": "prefix matching with nothing pruned",
        "prefix": "prefix matching with position tenths of the weights pruned",
        "later": "loss on later blocks with position tenths of the weights pruned",
        "first": "loss on the first block with position tenths of the weights pruned",
    },
    main_metric="survives",
    curve_axis="tenths pruned",
    position_start=3,
    units={"survives": "share of weights", "later": "nats", "first": "nats"},
    directions={"later": "lower", "first": None},
    reads_as="A head that survives 0.7 depends on few large weights, one that does not survive 0.3 on many small ones. Magnitude is not importance: a head may fail because an earlier one did. Compare heads, steps and runs of one architecture",
    not_measured="attention cannot be scored; predictions depend on later tokens",
    undefined="the head does not match prefixes above chance, so that there is nothing to survive",
    default=False,
    passes="16: unpruned, and seven shares, each twice (attention and loss)",
    order=245,
)
def pruned_heads(model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int) -> dict[str, ProbeScores]:
    """Prune, score and put back.

    Args:
        model: a loaded checkpoint; it is left as it was.
        stimuli: "repeated_random".
        seed: of the bootstrap.

    Returns:
        `survives` (share of weights) and `unpruned` per head; `prefix` per head and position; `later` and `first` in nats per
        position. Positions are tenths pruned, from 3.

    Raises:
        NotMeasuredError: attention cannot be scored, or predictions depend on later tokens.
    """
    stimulus = stimuli["repeated_random"]
    unpruned = _prefix(model, stimulus, seed)
    levels: list[np.ndarray] = []
    nats: dict[str, list[np.ndarray]] = {"later": [], "first": []}
    first = torch.from_numpy(stimulus.copy_index[:, 1:] == 1).float()
    for tenth in TENTHS:
        with pruned(model, tenth / 10):
            levels.append(_samples(_prefix(model, stimulus, seed)))
            nll = losses(model, stimulus.tokens).nll
        nats["later"].append(later_blocks(stimulus)(nll[None])[0].double().numpy())
        nats["first"].append(((nll * first).sum(1) / first.sum(1)).double().numpy())
    own, prefix = _samples(unpruned), np.stack(levels, axis=-1)
    heads = ("layer", "head")
    guess, chance = math.log(stimulus.params["n_ids"]), unpruned.chance
    return {
        "survives": ProbeScores(_survival(own, prefix, chance, seed), axes=heads),
        "unpruned": ProbeScores(own, axes=heads, chance=chance),
        "prefix": ProbeScores(
            prefix, axes=(*heads, "position"), chance=chance[..., None], position_start=TENTHS[0]
        ),
        **{
            name: ProbeScores(
                np.stack(rows, axis=1), axes=("position",), chance=guess, position_start=TENTHS[0]
            )
            for name, rows in nats.items()
        },
    }


def _survival(
    own: Float[np.ndarray, "n_seq n_layers n_heads"],
    prefix: Float[np.ndarray, "n_seq n_layers n_heads tenths"],
    chance: Float[np.ndarray, "n_layers n_heads"],
    seed: int,
) -> Float[np.ndarray, "n_seq n_layers n_heads"]:
    """Survival of every sequence's own score; NaN for heads that have nothing to lose."""  # 3.
    excess = own - chance
    left = prefix - chance[..., None] > HALF_RISEN * excess[..., None]
    lower = bootstrap_mean(excess.reshape(len(excess), -1), seed=seed).lo.reshape(chance.shape)
    return np.where(is_above(lower, SMALLEST), survived(left), np.nan)


def survived(left: np.ndarray, tenths: Sequence[int] = TENTHS) -> Float[np.ndarray, "*shape"]:
    """Largest share up to which something is left at every share; the last axis of `left` are the shares."""
    lasting = np.logical_and.accumulate(left, axis=-1).sum(-1)
    return np.asarray([0.0, *(tenth / 10 for tenth in tenths)])[lasting]


def _prefix(model: HookedModel, stimulus: Stimulus, seed: int) -> Measured:
    from byrote.probes.sweep.measure import measure_stimulus

    found = measure_stimulus(model, stimulus, [lookup("prefix_matching")], seed=seed)[0]
    (own,) = (m for m in found if m.metric == "score")
    if own.samples is None or own.layer_reasons:
        raise NotMeasuredError(next(iter(own.layer_reasons.values()), own.undefined))
    return own


def _samples(measured: Measured) -> Float[np.ndarray, "n_seq n_layers n_heads"]:
    assert measured.samples is not None
    return measured.samples.astype(np.float64)
