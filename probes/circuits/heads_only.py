"""Heads only: how much of copying is left when all heads but a few of the strongest are taken away?

Source: restricted loss as a measure of progress: Nanda et al. 2023, arXiv:2301.05217 (loss with only the components of the
mechanism in question); mean ablation: Wang et al. 2022, arXiv:2211.00593. The choice of heads and the control are byrote's own.

1. clean: mean loss on later blocks, nothing changed; none: the same with every head's z set to its mean over the other
   sequences at the same position
2. chosen = the k heads with the highest prefix_matching and the k with the highest previous_token: both halves of the circuit
3. loss: with every head but the chosen ones ablated as in 1; one value for each k = 1 .. 4 (fewer where there are fewer heads)
4. returned = mean (none - loss) / mean (none - clean), resampled together: 1 when the chosen heads do it alone; above 1 where the
   others interfere. Undefined where all heads together do not significantly lower the loss
5. random: 3 with as many other heads of the same layers left standing, mean over up to 5 distinct draws; layers with too few
   others give none
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from byrote.interp.intervene import Edit, Head, clean_run, losses_under
from byrote.interp.model import HookedModel
from byrote.probes.circuits.effects import checked_tokens, later_blocks, matched_draws, strongest
from byrote.probes.registry import lookup
from byrote.probes.spec import NotMeasuredError, ProbeScores, probe
from byrote.probes.statistics import bootstrap_mean, ratio_of_means
from byrote.probes.stimuli import Stimulus

MOST, N_RANDOM = 4, 5
CLASSES = ("prefix_matching", "previous_token")


@probe(
    unit="nats",
    better="lower",
    stimulus="repeated_random",
    summary="Loss on repeated tokens with only the strongest matching and previous-token heads left: is that the circuit?",
    chance="ln(number of usable tokens): guessing uniformly; returned 0: the chosen heads do nothing by themselves",
    metrics={
        "loss": "loss on later blocks with only the k strongest heads of both kinds, k = position",
        "returned": "share of what all heads gain that these heads gain alone",
        "random": "loss on later blocks with as many other heads of the same layers instead",
        "clean": "loss on later blocks with all heads",
        "none": "loss on later blocks with every head ablated",
        "heads": "heads left in place (a head may be of both kinds)",
    },
    main_metric="loss",
    curve_axis="heads of either kind",
    position_start=1,
    units={"returned": "share of the gain", "heads": "heads"},
    directions={"returned": "higher", "random": None, "none": None, "heads": None},
    settings=("heads",),
    reads_as="returned near 1 at k = 1: two heads are the circuit. Rising with k: it is spread. Near 0 at all k while clean is low: "
    "copying is done by heads other than these. Where this loss falls and clean stays flat, these heads improve unseen by the whole model's loss",
    not_measured="removing all heads' outputs does not change the logits; the logits are not finite; predictions "
    "depend on later tokens; there is one sequence only; attention cannot be scored",
    undefined="all heads together do not significantly lower the loss (returned), or a layer has too few other heads (random)",
    default=False,
    passes="at most 10 + 4 x 5: scores, clean and no heads, four sets of heads, five random sets for each",
    order=235,
)
def heads_only(model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int) -> dict[str, ProbeScores]:
    """Ablate all heads but the strongest.

    Args:
        model: a loaded checkpoint; it is left as it was.
        stimuli: "repeated_random".
        seed: of the random sets and the bootstrap.

    Returns:
        Losses in nats per sequence, `loss`, `returned`, `random` and `heads` with a position per k, from 1.

    Raises:
        NotMeasuredError: edits of this model cannot be relied on, or its attention cannot be scored.
    """
    stimulus = stimuli["repeated_random"]
    tokens, measure, shape = checked_tokens(model, stimulus), later_blocks(stimulus), model.shape
    scores = _mean_scores(model, stimulus, seed)
    everything = {(layer, head) for layer in range(shape.n_layers) for head in range(shape.n_heads)}
    most = min(MOST, len(everything))
    chosen = [
        tuple(sorted({head for own in scores.values() for head in strongest(own, k)}))
        for k in range(1, most + 1)
    ]
    sizes = {"n_layers": shape.n_layers, "n_heads": shape.n_heads}
    random = [
        matched_draws(heads, **sizes, seed=seed, n_draws=N_RANDOM, by_depth=False).sets for heads in chosen
    ]
    clean = clean_run(model, tokens, seed=seed)
    standing: list[tuple[Head, ...]] = [*chosen, *(heads for sets in random for heads in sets), ()]
    edits = [clean.ablation("mean", sorted(everything - set(heads))) for heads in standing]
    losses = measure(losses_under(model, tokens, [Edit(), *edits])).double().numpy()
    with_all, alone, without = losses[0], losses[1 : most + 1], losses[-1]
    at = np.cumsum([most + 1, *(len(sets) for sets in random)])
    drawn = [losses[a:b].mean(0) if b > a else np.full(len(with_all), np.nan) for a, b in pairwise(at)]
    guess = math.log(stimulus.params["n_ids"])

    def curve(rows: list[np.ndarray], chance: float) -> ProbeScores:
        return ProbeScores(np.stack(rows, axis=1), axes=("position",), chance=chance, position_start=1)

    return {
        "loss": curve(list(alone), guess),
        "returned": _returned(without - alone, without - with_all, seed),
        "random": curve(drawn, guess),
        "clean": ProbeScores(with_all, chance=guess),
        "none": ProbeScores(without, chance=guess),
        "heads": curve([np.full(len(with_all), float(len(heads))) for heads in chosen], float("nan")),
    }


def _returned(
    gains: Float[np.ndarray, "k n_seq"], whole: Float[np.ndarray, " n_seq"], seed: int
) -> ProbeScores:
    """Mean gain over the mean gain of all heads; each sequence's value is its gain over that mean."""  # 4.
    if not bootstrap_mean(whole[:, None], seed=seed).lo[0] > 0:
        nothing = np.full((len(whole), len(gains)), np.nan)
        return ProbeScores(nothing, axes=("position",), chance=0.0, position_start=1)
    found = np.array([ratio_of_means(gain, whole, seed=seed) for gain in gains])
    return ProbeScores(
        gains.T / whole.mean(),
        axes=("position",),
        chance=0.0,
        position_start=1,
        interval=(found[:, 1], found[:, 2]),
    )


def _mean_scores(
    model: HookedModel, stimulus: Stimulus, seed: int
) -> dict[str, Float[np.ndarray, "n_layers n_heads"]]:
    from byrote.probes.sweep.measure import measure_stimulus

    infos = [lookup(name) for name in CLASSES]
    found = {(m.probe, m.metric): m for m in measure_stimulus(model, stimulus, infos, seed=seed)[0]}
    own = {name: found[name, "score"] for name in CLASSES}
    if bad := [one for one in own.values() if one.samples is None or one.layer_reasons]:
        raise NotMeasuredError(next(iter(bad[0].layer_reasons.values()), bad[0].undefined))
    return {name: one.values for name, one in own.items()}
