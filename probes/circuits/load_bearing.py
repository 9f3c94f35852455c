"""Load-bearing: does the model need the heads that look like induction heads, or do they only look the part?

Source: matched controls and the distinction of signature and load: Sabry and Belz 2025, arXiv:2509.22947; mean
ablation: Wang et al. 2022, arXiv:2211.00593. The rule and its margins are ours.

1. top: the k heads with the highest mean prefix_matching; k = 5% of all heads, rounded, at least 1
2. signature = prefix_matching of the top heads minus their shuffled null, mean over them, paired by sequence
3. change = loss on later blocks with a set of heads ablated together (each z set to its mean over the other sequences
   at the same position) minus the loss without
4. random sets: as many other heads from the same layers; 20 distinct draws, or all there are where that is fewer.
   None where a layer has fewer other heads than were chosen from it: what rests on them is then not measured
5. excess = change of the top heads minus the mean change of their random sets, paired by sequence
6. called_excess: 3 to 5 for the heads the induction verdict calls (by the same tests, on the same sequences); wide_*:
   for all heads whose own prefix_matching is above its null by more than 0.05 (lower end of the interval)
7. gain = loss on the first block minus loss on later blocks, nothing changed: what copying is worth
8. verdict: 3 load-bearing: the lower ends of signature and of excess are above 0.05 (attention, nats);
   2 distributed: signature as before, excess not, but more than k heads look the part, and without all of them at least
   half of the gain is lost (lower end; no random heads serve as its control);
   1 signature only: signature as before, nothing else; 0 neither: no signature, whatever is lost
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from byrote.interp.intervene import Edit, Head, losses_under
from byrote.interp.model import HookedModel
from byrote.probes.circuits.effects import (
    checked_tokens,
    later_blocks,
    matched_draws,
    refuse_if,
    set_changes,
    shown,
    strongest,
)
from byrote.probes.heads.induction import induction
from byrote.probes.registry import lookup
from byrote.probes.results.schema import Measured
from byrote.probes.rules import SMALLEST, is_above, is_called
from byrote.probes.spec import ProbeScores, probe
from byrote.probes.statistics import bootstrap_mean
from byrote.probes.stimuli import Stimulus

TOP_FRAC = 0.05


@probe(
    unit="nats",
    better="higher",
    stimulus=("repeated_random", "shuffled_repeat", "jittered_repeat"),
    summary="Verdict: does the model need the heads that look like induction heads, more than random heads beside them?",
    chance="0: no more is lost than with as many random heads of the same layers",
    metrics={
        "verdict": "3 load-bearing, 2 distributed, 1 signature only, 0 neither",
        "excess": "loss added on later blocks without the top heads minus that without random ones",
        "top_change": "loss added without the top heads: the k with the highest prefix_matching, ablated together",
        "random_change": "loss added without random heads, mean over the draws",
        "random_most": "the same of the draw that costs most",
        "beaten_frac": "share of the draws that cost less than the top heads",
        "signature": "prefix matching of the top heads above its shuffled null",
        "called_excess": "excess of the heads called induction heads",
        "wide_excess": "excess of all heads whose own prefix matching is above its null by 0.05",
        "wide_change": "loss added without all of those",
        "gain": "loss on the first block minus loss on later ones, nothing changed: what copying is worth",
        "n_top": "k: 5% of all heads, at least 1",
        "n_called": "heads called induction heads",
        "n_wide": "heads whose own prefix matching is above its null by 0.05",
        "n_draws": "distinct random sets the top heads were compared with",
        "n_possible": "distinct random sets there are",
    },
    main_metric="excess",
    units={
        "verdict": "0 to 3",
        "signature": "attention fraction",
        "n_top": "heads",
        "n_called": "heads",
        "n_wide": "heads",
        "n_draws": "sets of heads",
        "n_possible": "sets of heads",
        "beaten_frac": "fraction of draws",
    },
    undirected=("random_change", "random_most", "n_top", "n_called", "n_wide", "n_draws", "n_possible"),
    words={"verdict": ("neither", "signature only", "distributed", "load-bearing")},
    settings=("n_top", "n_draws", "n_possible"),
    reads_as="load-bearing: the top heads match prefixes and their loss costs over 0.05 nats more than random "
    "heads'. distributed: these few can be spared, all that look the part together cannot. signature only: they look "
    "the part and copying does without. Few heads mean few draws (n_draws); random heads may be induction heads too, "
    "which makes excess small",
    not_measured="removing all heads' outputs does not move the logits; the logits are not finite; predictions "
    "depend on later tokens; there is one sequence only; attention is not finite, not causal or does not sum to 1",
    undefined="there are no such heads, copying was not measured, or a layer has too few other heads to draw from",
    default=False,
    passes="up to 70: sets of heads and their random draws",
    order=230,
    headline=("excess",),
)
def load_bearing(
    model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int, kind: str = "mean"
) -> dict[str, ProbeScores]:
    """Ablate the heads that look like induction heads, and random ones beside them.

    Args:
        model: a loaded checkpoint; it is left as it was.
        stimuli: "repeated_random", "shuffled_repeat", "jittered_repeat".
        seed: of draws and bootstraps.
        kind: of ablation; see `byrote.interp.intervene`.

    Returns:
        Changes in nats, the verdict, and what it rests on; see the catalogue. NaN where there is no such set of heads,
        or no other heads to draw from.

    Raises:
        NotMeasuredError: edits of this model or its attention cannot be relied on.
    """
    stimulus = stimuli["repeated_random"]
    tokens, shape = checked_tokens(model, stimulus), model.shape
    looks = signatures(model, stimuli, seed=seed)
    top = strongest(looks.prefix.mean(0), max(1, round(TOP_FRAC * shape.n_layers * shape.n_heads)))  # 1.
    chosen = {"top": top, "called": looks.called, "wide": looks.wide}
    draws = {
        name: matched_draws(heads, n_heads=shape.n_heads, seed=seed) for name, heads in chosen.items()
    }  # 4.
    sets = list(dict.fromkeys(s for name in chosen for s in (chosen[name], *draws[name].sets) if s))
    found = set_changes(model, tokens, sets, kind=kind, measure=later_blocks(stimulus), seed=seed)  # 3.
    changes = dict(zip(sets, found, strict=True))
    gain, nothing = _gain(model, stimulus), np.full(len(tokens), np.nan)
    change = {name: changes.get(heads, nothing) for name, heads in chosen.items()}
    random = {name: np.stack([changes[s] for s in draws[name].sets] or [nothing]) for name in chosen}
    excess = {name: change[name] - random[name].mean(0) for name in chosen}  # 5.
    cheaper = random["top"].mean(1) < change["top"].mean()
    samples = {
        "excess": excess["top"],
        "top_change": change["top"],
        "random_change": random["top"].mean(0),
        "random_most": random["top"][int(random["top"].mean(1).argmax())],
        "signature": np.stack([looks.excess[:, layer, head] for layer, head in top]).mean(0),  # 2.
        "gain": gain,
        "called_excess": excess["called"],
        "wide_excess": excess["wide"],
        "wide_change": change["wide"],
    }
    over_half = change["wide"] - gain / 2 if len(looks.wide) > len(top) else nothing
    lower = [
        float(bootstrap_mean(s[:, None], seed=seed).lo[0])
        for s in (samples["signature"], samples["excess"], over_half)
    ]
    facts = {
        "verdict": judge(*lower),
        "beaten_frac": np.where(np.isnan(random["top"]).any(1), np.nan, cheaper).mean(),
        "n_draws": len(draws["top"].sets),
        "n_possible": draws["top"].n_possible,
        "n_top": len(top),
        "n_called": looks.n_called,
        "n_wide": len(looks.wide),
    }
    scores = {name: ProbeScores(s, chance=0.0) for name, s in samples.items()}
    return scores | {name: ProbeScores(np.full(len(tokens), float(v))) for name, v in facts.items()}


def judge(signature_lo: float, excess_lo: float, over_half_lo: float) -> float:
    """The verdict from lower ends of intervals, as the place of its word in the catalogue.

    Args:
        signature_lo: of the top heads' prefix matching above its null; attention fraction.
        excess_lo: of what is lost without the top heads beyond what is lost without random ones, in nats.
        over_half_lo: of what is lost without all heads that look the part beyond half of what copying is worth, in
            nats; NaN where those are not more than the top heads.

    Returns:
        0 to 3; NaN where there is a signature and nothing to compare the top heads with.
    """  # 8.
    if not signature_lo > SMALLEST:
        return 0.0
    if np.isnan(excess_lo):
        return float("nan")
    if excess_lo > SMALLEST:
        return 3.0
    return 2.0 if over_half_lo > 0 else 1.0


def _gain(model: HookedModel, stimulus: Stimulus) -> Float[np.ndarray, " n_seq"]:
    """What copying is worth: loss on the first block minus loss on later ones."""  # 7.
    nll = losses_under(model, shown(stimulus), [Edit()])
    first = torch.from_numpy(stimulus.copy_index[:, 1:] == 1).float()
    first_nats = (nll * first).sum(-1) / first.sum(-1)
    return (first_nats - later_blocks(stimulus)(nll))[0].double().numpy()


@dataclass(frozen=True)
class Signatures:
    """Which heads look like induction heads.

    Attributes:
        prefix: prefix_matching per sequence.
        excess: the same minus its shuffled null.
        wide: heads whose own excess is above 0.05 with its whole interval.
        called: heads the induction verdict calls.
        n_called: how many; NaN where copying was not measured, and so nothing can be called.
    """

    prefix: Float[np.ndarray, "n_seq n_layers n_heads"]
    excess: Float[np.ndarray, "n_seq n_layers n_heads"]
    wide: tuple[Head, ...]
    called: tuple[Head, ...]
    n_called: float


def signatures(model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int) -> Signatures:
    """Score every head as the sweep does, and call induction heads by the tests of the `induction` verdict.

    Raises:
        NotMeasuredError: the model's attention cannot be scored.
    """
    from byrote.probes.sweep.measure import measure_stimulus

    requested = {
        "repeated_random": ("prefix_matching", "copying_logit"),
        "shuffled_repeat": ("prefix_matching",),
        "jittered_repeat": ("prefix_matching",),
    }
    found: dict[tuple[str, str], Measured] = {}
    for stimulus, names in requested.items():
        infos = [lookup(name) for name in names]
        for m in measure_stimulus(model, stimuli[stimulus], infos, seed=seed)[0]:
            found[m.probe, m.metric] = m
    scores = {suffix: _scored(found["prefix_matching", f"score{suffix}"]) for suffix in _SUFFIXES}
    prefix, excess = scores[""], scores[""] - scores["@shuffled_repeat"]
    lower = bootstrap_mean(excess.reshape(len(excess), -1), seed=seed).lo.reshape(excess.shape[1:])
    wide = np.argwhere(is_above(lower, SMALLEST))
    called, n_called = _called(scores, found, seed)
    return Signatures(prefix, excess, _heads(wide), called, n_called)


_SUFFIXES = ("", "@shuffled_repeat", "@jittered_repeat")


def _scored(measured: Measured) -> Float[np.ndarray, "n_seq n_layers n_heads"]:
    refuse_if("" if measured.samples is not None else measured.undefined)
    refuse_if("; ".join(reason for _, reason in sorted(measured.layer_reasons.items())[:2]))
    assert measured.samples is not None
    return measured.samples.astype(np.float64)


def _called(
    scores: Mapping[str, np.ndarray], found: Mapping[tuple[str, str], Measured], seed: int
) -> tuple[tuple[Head, ...], float]:
    copying = found["copying_logit", "score"]
    if copying.samples is None or copying.layer_reasons:
        return (), float("nan")
    n = len(copying.samples)
    tests = induction(
        *(scores[suffix].reshape(n, -1) for suffix in _SUFFIXES),
        found["prefix_matching", "score@jittered_repeat"].chance.ravel(),
        copying.samples.reshape(n, -1).astype(np.float64),
        np.nan_to_num(copying.chance, nan=0.0).ravel(),
        seed=seed,
    )
    heads = _heads(np.argwhere(is_called(tests.verdict).reshape(copying.chance.shape)))
    return heads, float(len(heads))


def _heads(indices: np.ndarray) -> tuple[Head, ...]:
    return tuple((int(layer), int(head)) for layer, head in indices)
