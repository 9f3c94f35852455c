"""Load-bearing: does the model need the heads that look like induction heads, or do they only look the part?

Source: matched controls and the distinction of signature and load: Sabry and Belz 2025, arXiv:2509.22947; mean
ablation: Wang et al. 2022, arXiv:2211.00593. The rule and its margins are byrote's own.

1. every head's prefix_matching minus its shuffled null, paired by sequence (sink_free where more than 0.8 of its attention
   is on position 0). top: the k heads where it is highest; k = top_heads, or 5% of all heads, rounded, at least 1
2. signature = mean of it over the top heads
3. change = loss on later blocks with a set of heads ablated together (each z set to its mean over the other sequences
   at the same position) minus the loss without
4. random sets: as many other heads from the same layers; where a layer has fewer than were chosen from it, from layers
   around it, as near as suffices and at most a third of the depth away (layers_away). 20 distinct draws, or all there
   are where that is fewer. Where removing a set lowers the loss on average, its change counts as 0
5. excess = change of the top heads minus the mean change of their random sets, paired by sequence
6. joint: the heads whose prefix matching is above its null and which raise what followed beyond theirs (q_prefix and q_dla
   of the induction verdict below 5%), however little; joint_signature = sum over them of 1; joint_change and joint_excess:
   3 to 5 for all of them together. called_excess: for the heads the verdict calls
7. gain = loss on the first block minus loss on later blocks, nothing changed: what copying is worth
8. load: the lower ends of change and excess are above 0.05 nats, and change significantly above a tenth of the gain.
   verdict: 3 load-bearing: signature (lower end above 0.05) and load; 2 distributed induction: not so, but without the
   joint heads, two at least, whose joint_signature is above 0.05, at least half of the gain and 0.05 nats are lost (lower
   ends), and as much more than without random heads, where there are any; 1 signature only; 4 load without signature;
   0 neither
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from byrote.interp.intervene import Edit, Head, losses_under
from byrote.interp.model import HookedModel
from byrote.probes.circuits.effects import (
    Draws,
    checked_tokens,
    later_blocks,
    matched_draws,
    refuse_if,
    set_changes,
    shown,
    strongest,
)
from byrote.probes.heads.induction import InductionTests, induction
from byrote.probes.registry import lookup
from byrote.probes.results.schema import Measured
from byrote.probes.rules import (
    ALPHA,
    LOAD_FRAC_OF_GAIN,
    is_called,
    load_verdict,
    moved,
    rests,
    undecided,
)
from byrote.probes.spec import ProbeScores, probe
from byrote.probes.statistics import bootstrap_mean
from byrote.probes.stimuli import Stimulus

TOP_FRAC = 0.05
_UNCALLED = "copying was not measured, so that no head can be called"


@probe(
    unit="nats",
    better="higher",
    stimulus=("repeated_random", "shuffled_repeat", "jittered_repeat"),
    summary="Verdict: does the model need the heads that look like induction heads, more than random heads near them?",
    chance="0: no more is lost than with as many random heads of the same layers, or of layers around them",
    metrics={
        "verdict": "4 load without signature, 3 load-bearing, 2 distributed induction, 1 signature only, 0 neither",
        "excess": "loss added on later blocks without the top heads minus that without random ones",
        "top_change": "loss added without the top heads: the k that match prefixes most, ablated together",
        "random_change": "loss added without random heads, mean over the draws; a draw that lowers the loss counts as 0",
        "random_most": "the same of the draw that costs most",
        "beaten_frac": "share of the draws that cost less than the top heads",
        "signature": "prefix matching of the top heads above its shuffled null",
        "called_excess": "excess of the heads called induction heads",
        "joint_signature": "sum over all heads that match prefixes and raise what followed of their matching above its null",
        "joint_change": "loss added without all of those",
        "joint_excess": "that minus the loss added without random heads",
        "gain": "loss on the first block minus loss on later ones, nothing changed: what copying is worth",
        "n_top": "k: 5% of all heads, at least 1, or as many as were requested",
        "n_called": "heads called induction heads",
        "n_joint": "heads that match prefixes and raise what followed, however little",
        "n_draws": "distinct random sets the top heads were compared with",
        "n_possible": "distinct random sets there are",
        "layers_away": "0: random heads are of the same layers; otherwise how many layers away, where a layer has too few",
    },
    main_metric="excess",
    units={
        "verdict": "0 to 4",
        "signature": "attention fraction",
        "joint_signature": "sum of attention fractions",
        "n_top": "heads",
        "n_called": "heads",
        "n_joint": "heads",
        "n_draws": "sets of heads",
        "n_possible": "sets of heads",
        "layers_away": "layers",
        "beaten_frac": "fraction of draws",
    },
    undirected=(
        "random_change", "random_most", "n_top", "n_called", "n_joint", "n_draws", "n_possible", "layers_away",
        "joint_signature", "verdict",
    ),
    words={
        "verdict": ("neither", "signature only", "distributed induction", "load-bearing", "load without signature")
    },
    settings=("n_top", "n_draws", "n_possible", "layers_away"),
    uncompared=("verdict",),
    reads_as="load-bearing: the top heads match prefixes, and without them the loss rises by over 0.05 nats, by more than a tenth of what "
    "copying is worth, and by more than without random heads. distributed induction: these few are dispensable, all that match together are not. signature only: they match prefixes, and copying does not need them. load without signature: they carry the loss and match no prefixes. Few heads mean few draws (n_draws); random heads may be induction heads too, which makes "
    "excess small",
    not_measured="removing all heads' outputs does not change the logits; the logits are not finite; predictions "
    "depend on later tokens; there is one sequence only (its verdict: fewer than 16); attention is not finite, not causal or does not sum to 1",
    undefined="there are no such heads",
    default=False,
    options=("top_heads",),
    passes="up to 70: sets of heads and their random draws",
    order=230,
    headline=("excess",),
    version=3,
)  # fmt: skip
def load_bearing(
    model: HookedModel,
    stimuli: Mapping[str, Stimulus],
    *,
    seed: int,
    kind: str = "mean",
    top_heads: int | None = None,
) -> dict[str, ProbeScores]:
    """Ablate the heads that look like induction heads, and random ones beside them.

    Args:
        model: a loaded checkpoint; it is left as it was.
        stimuli: "repeated_random", "shuffled_repeat", "jittered_repeat".
        seed: of draws and bootstraps.
        kind: of ablation; see `byrote.interp.intervene`.
        top_heads: k; None is 5% of all heads. At most all heads but one are taken.

    Returns:
        Changes in nats, the verdict, and what it rests on; see the catalogue. NaN where there is no such set of heads,
        or no other heads to draw from, with the one reason.

    Raises:
        NotMeasuredError: edits of this model or its attention cannot be relied on.
    """
    stimulus = stimuli["repeated_random"]
    tokens, shape = checked_tokens(model, stimulus), model.shape
    looks = signatures(model, stimuli, seed=seed)
    n_heads = shape.n_layers * shape.n_heads
    top = strongest(looks.excess.mean(0), min(top_heads or max(1, round(TOP_FRAC * n_heads)), n_heads))  # 1.
    chosen = {"top": top, "called": looks.called, "joint": looks.joint}
    draws = {
        name: matched_draws(heads, n_layers=shape.n_layers, n_heads=shape.n_heads, seed=seed)
        for name, heads in chosen.items()
    }  # 4.
    sets = list(dict.fromkeys(s for name in chosen for s in (chosen[name], *draws[name].sets) if s))
    found = set_changes(model, tokens, sets, kind=kind, measure=later_blocks(stimulus), seed=seed)  # 3.
    loads = {
        name: _Load.of(heads, draws[name], dict(zip(sets, found, strict=True)))
        for name, heads in chosen.items()
    }
    gain, top_load, joint = _gain(model, stimulus), loads["top"], loads["joint"]
    samples = {
        "excess": top_load.excess,
        "top_change": top_load.change,
        "random_change": top_load.random.mean(0),
        "random_most": top_load.random[int(top_load.random.mean(1).argmax())],
        "signature": _over(looks.excess, top).mean(0),  # 2.
        "gain": gain,
        "called_excess": loads["called"].excess,
        "joint_signature": _over(looks.excess, looks.joint).sum(0)
        if looks.joint
        else np.full(len(gain), np.nan),
        "joint_change": joint.change,
        "joint_excess": joint.excess,
    }
    judged = samples | {
        "over_tenth": top_load.change - LOAD_FRAC_OF_GAIN * gain,
        "over_half": joint.change - gain / 2 if len(looks.joint) > 1 else np.full(len(gain), np.nan),
    }
    lower = {name: float(bootstrap_mean(s[:, None], seed=seed).lo[0]) for name, s in judged.items()}
    dtype = str(model.dtype).removeprefix("torch.")
    least, most = (load_verdict(moved(lower, dtype, sign)) for sign in (-1, 1))  # 8.
    facts = {
        "verdict": least if least == most else np.nan,
        "beaten_frac": top_load.beaten,
        "n_draws": len(draws["top"].sets),
        "n_possible": draws["top"].n_possible,
        "layers_away": np.nan if draws["top"].lacking else draws["top"].layers_away,
        "n_top": len(top),
        "n_called": looks.n_called,
        "n_joint": len(looks.joint),
    }
    reasons = _reasons(draws, (*samples, *facts), n_called=looks.n_called)
    reasons["verdict"] = reasons["verdict"] or undecided(dtype)
    scores = {name: ProbeScores(s, chance=0.0, undefined=reasons[name]) for name, s in samples.items()}
    return scores | {
        name: ProbeScores(np.full(len(tokens), float(v)), undefined=reasons[name])
        for name, v in facts.items()
    }


def _reasons(draws: Mapping[str, Draws], metrics: Iterable[str], *, n_called: float) -> dict[str, str]:
    """Metric -> the one cause why it has no value, where it has none."""
    rest_on = {
        "called_excess": "called",
        "joint_excess": "joint",
        "joint_change": "joint",
        "joint_signature": "joint",
    }
    reasons = {name: draws[rest_on.get(name, "top")].lacking for name in metrics}
    uncalled = {"n_called": _UNCALLED} | ({"called_excess": _UNCALLED} if np.isnan(n_called) else {})
    uncounted = draws["top"].lacking or "random sets matched by depth are not counted"
    return reasons | uncalled | {"n_possible": uncounted}


@dataclass(frozen=True)
class _Load:
    """What is lost without a set of heads, and without the random ones beside it; NaN where there are none."""

    change: Float[np.ndarray, " n_seq"]
    random: Float[np.ndarray, "n_draws n_seq"]

    @classmethod
    def of(
        cls, heads: tuple[Head, ...], draws: Draws, changes: Mapping[tuple[Head, ...], np.ndarray]
    ) -> _Load:
        """Of a set of heads and its draws, from the changes of all sets that were ablated."""
        nothing = np.full(len(next(iter(changes.values()))), np.nan)
        random = np.stack([changes[s] for s in draws.sets] or [nothing])
        random[random.mean(1) < 0] = 0.0  # harmful heads are no evidence for the chosen ones
        return cls(changes.get(heads, nothing), random)

    @property
    def excess(self) -> Float[np.ndarray, " n_seq"]:
        """Change of the heads beyond the mean of their random ones."""  # 5.
        return self.change - self.random.mean(0)

    @property
    def beaten(self) -> float:
        """Share of the draws that cost less."""
        if np.isnan(self.random).any():
            return float("nan")
        return float((self.random.mean(1) < self.change.mean()).mean())


def _over(scores: Float[np.ndarray, "n_seq n_layers n_heads"], heads: tuple[Head, ...]) -> np.ndarray:
    """Scores of some heads, [heads n_seq]."""
    return np.stack([scores[:, layer, head] for layer, head in heads])


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
        excess: prefix_matching minus its shuffled null, per sequence, as the induction verdict judges it.
        joint: heads that match prefixes and raise what followed, significantly and however little.
        called: heads the induction verdict calls.
        n_called: how many; NaN where copying was not measured, and so nothing can be called.
    """

    excess: Float[np.ndarray, "n_seq n_layers n_heads"]
    joint: tuple[Head, ...]
    called: tuple[Head, ...]
    n_called: float


def signatures(model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int) -> Signatures:
    """Score every head as the sweep does, and call induction heads by the tests of the `induction` verdict.

    Raises:
        NotMeasuredError: the model's attention cannot be scored.
    """
    from byrote.probes.sweep.measure import measure_stimulus

    found: dict[tuple[str, str], Measured] = {}
    for kind, stimulus in stimuli.items():
        infos = [info for info in map(lookup, induction.info.needs) if kind in info.stimuli]
        for m in measure_stimulus(model, stimulus, infos, seed=seed)[0]:
            found[m.probe, m.metric] = m
    by_name = {name: found[key] for name, key in induction.info.inputs.items()}
    for name in _OF_MATCHING:
        m = by_name[name]
        refuse_if("" if m.samples is not None else m.undefined)
        refuse_if("; ".join(reason for _, reason in sorted(m.layer_reasons.items())[:2]))
    readable = all(m.samples is not None and not m.layer_reasons for m in by_name.values())
    names = by_name if readable else _OF_MATCHING
    scores = {name: _samples(by_name[name]) for name in names}
    shape = scores["prefix"].shape
    flat = {name: s.reshape(shape[0], -1) for name, s in scores.items()}
    if not readable:  # nothing can be called: what is not measured is left undefined
        flat |= {"copying": np.full_like(flat["prefix"], np.nan)}
    tests = induction(
        **flat,
        jitter_chance=by_name["prefix_jittered"].chance.ravel(),
        jitter_chance_free=by_name["jittered_free"].chance.ravel(),
        copying_chance=np.zeros(flat["prefix"].shape[1]),
        seed=seed,
        dtype=str(model.dtype).removeprefix("torch."),
    )
    on_free = rests(scores["sink"].mean(0))
    excess = np.where(
        on_free, scores["prefix_free"] - scores["shuffled_free"], scores["prefix"] - scores["prefix_shuffled"]
    )
    called = _heads(is_called(tests.verdict), shape[1:])
    return Signatures(
        excess, _heads(_joint(tests), shape[1:]), called, float(len(called)) if readable else np.nan
    )


_OF_MATCHING = (
    "prefix", "prefix_shuffled", "prefix_jittered", "prefix_free", "shuffled_free", "jittered_free", "sink",
)  # fmt: skip


def _joint(tests: InductionTests) -> np.ndarray:
    """Heads that match prefixes and, where it was measured, raise what followed: significantly, by however little."""
    tested = [q for name, q in tests.q.items() if name in ("q_prefix", "q_dla")]
    return np.logical_and.reduce([q < ALPHA for q in tested])


def _samples(m: Measured) -> Float[np.ndarray, "n_seq n_layers n_heads"]:
    assert m.samples is not None
    return m.samples.astype(np.float64)


def _heads(flags: np.ndarray, shape: tuple[int, ...]) -> tuple[Head, ...]:
    return tuple((int(layer), int(head)) for layer, head in np.argwhere(flags.reshape(shape)))
