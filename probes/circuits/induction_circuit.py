"""Induction circuit: does a head match prefixes because of what one earlier head writes into its keys or its queries?

Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits (K-composition of a previous-token head
with an induction head; Q-composition of a head that finds earlier copies and passes on where they are); path patching:
Wang et al. 2022, arXiv:2211.00593.

1. senders: the 4 heads with the highest mean previous_token and the 4 with the highest mean duplicate_token, of all
   layers but the last; receivers: the 4 heads with the highest mean prefix_matching, of all layers but the first. Pairs
   with src_layer < layer; n_possible counts the pairs of an earlier and a later head in the model, n_pairs those measured
2. one path is ablated: from the residual stream that the receiver's layer makes its keys of, the sender's write is
   taken out and its mean over the other sequences at the same position put in (norm applied as the model does);
   queries, values, and every head and MLP in between are those of the clean run
3. change = the receiver's prefix_matching with that path ablated minus without, paired by sequence
4. q_change: the same with the path into the queries
5. k_z, q_z: composition of the pair from the weights, as `composition` has it; not part of the test

Block lengths differ between sequences: in blocks of one length the earlier copy is at the same place in all of them,
and the mean over the others would contain exactly the position that a head passes on. Only the direct path is seen, not
what MLPs or heads in between pass on, and one path at a time: of two senders that do the same neither is missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from byrote.interp.intervene import Head, clean_run
from byrote.interp.model import HookedModel
from byrote.interp.observe import EndView, LayerView, observe
from byrote.interp.path_patching import path_problem, scores_without_paths
from byrote.probes.circuits.composition import PAIR_AXES, composition
from byrote.probes.circuits.effects import refuse_if, shown, strongest
from byrote.probes.heads.matching import earlier_copies, mean_attention_on, shifted_keys
from byrote.probes.spec import ProbeScores, probe
from byrote.probes.stimuli import Stimulus

N_SENDERS = N_RECEIVERS = 4


@probe(
    unit="attention fraction",
    range=(-1.0, 1.0),
    better="lower",
    stimulus="jittered_repeat",
    summary="Does a head match prefixes because of what one earlier head writes into its keys or queries?",
    chance="0: nothing passes along the path",
    metrics={
        "change": "change in the later head's prefix matching when the path into its keys is ablated",
        "q_change": "the same for the path into its queries",
        "k_z": "K-composition of the pair against the other pairs of its layers; not part of the test",
        "q_z": "Q-composition, the same",
        "n_pairs": "pairs measured: of the 4 strongest previous-token, the 4 strongest duplicate-token and the 4 "
        "strongest prefix-matching heads",
        "n_possible": "pairs of an earlier and a later head in the model",
    },
    main_metric="change",
    units={
        "k_z": "standard deviations",
        "q_z": "standard deviations",
        "n_pairs": "pairs",
        "n_possible": "pairs",
    },
    undirected=("n_pairs", "n_possible"),
    directions={"k_z": "higher", "q_z": "higher"},
    settings=("n_pairs", "n_possible"),
    reads_as="Well below 0: this path carries the later head's matching; by its keys from a previous-token head, or by "
    "its queries from a duplicate-token head, the pair is an induction circuit. Near 0 in all rows of a head that matches "
    "prefixes: it reads several heads that do the same, or through MLPs, or matches otherwise. A high z without a "
    "change: wired, not used",
    not_measured="fewer than two layers; a norm after attention makes head outputs non-linear (Gemma 2, OLMo 2); replacing "
    "keys does not move attention; attention is not finite, not causal or does not sum to 1; there is one sequence "
    "only",
    undefined="no token of the stimulus has an earlier copy, or a head's circuit is zero",
    default=False,
    passes="at most 3 + 32 x 4: 32 for each receiver layer, of which there are at most 4, each up to the receiver",
    order=250,
    version=2,
)
def induction_circuit(
    model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int
) -> dict[str, ProbeScores]:
    """Ablate the paths from strong previous- and duplicate-token heads into keys and queries of prefix-matching heads.

    Args:
        model: a loaded checkpoint; it is left as it was.
        stimuli: "jittered_repeat".
        seed: of the composition's null.

    Returns:
        `change`, `q_change` (attention fractions, below 0 where the path serves), `k_z` and `q_z` per pair; `n_pairs`
        and `n_possible` for the model.

    Raises:
        NotMeasuredError: one layer; a norm after attention; attention or paths that cannot be relied on; one sequence.
    """
    stimulus = stimuli["jittered_repeat"]
    tokens, copies = shown(stimulus), earlier_copies(torch.from_numpy(stimulus.match_tokens))
    wired = composition(model.weights, seed)  # 5.
    refuse_if("" if len(tokens) > 1 else "mean ablation needs two sequences")
    found = _Scores({"prefix": shifted_keys(copies, 1), "duplicate": copies})
    report = observe(model, tokens, [found])
    refuse_if("; ".join(reason for _, reason in sorted(report.problems.items())[:2]))
    prefix = found.values("prefix")
    looking = (found.values(name).mean(0)[:-1] for name in ("previous", "duplicate"))
    senders = sorted({head for scores in looking for head in strongest(scores, N_SENDERS)})
    receivers = strongest(prefix.mean(0)[1:], N_RECEIVERS, first_layer=1)  # 1.
    pairs = [(s, r) for s in senders for r in receivers if s[0] < r[0]]
    sides: tuple[Literal["k"], Literal["q"]] = ("k", "q")
    changes = {
        side: _changes(model, stimulus, pairs, clean=prefix, targets=found.targets["prefix"], side=side)
        for side in sides
    }
    n_layers, n_heads = model.shape.n_layers, model.shape.n_heads
    exists = np.zeros((n_layers, n_heads) * 2, dtype=bool)
    for source, head in pairs:
        exists[(*source, *head)] = True
    scores = {"change": changes["k"], "q_change": changes["q"]}
    for name in ("k_z", "q_z"):
        z = np.where(exists, wired[name].samples[0], np.nan)
        scores[name] = np.broadcast_to(z, changes["k"].shape)
    counts = {"n_pairs": len(pairs), "n_possible": n_heads**2 * n_layers * (n_layers - 1) // 2}
    per_pair = {name: ProbeScores(s, axes=PAIR_AXES, chance=0.0, exists=exists) for name, s in scores.items()}
    return per_pair | {name: ProbeScores(np.full(len(tokens), float(n))) for name, n in counts.items()}


def _changes(
    model: HookedModel,
    stimulus: Stimulus,
    pairs: list[tuple[Head, Head]],
    *,
    clean: Float[np.ndarray, "n_seq n_layers n_heads"],
    targets: Tensor,
    side: Literal["q", "k"],
) -> Float[np.ndarray, "n_seq src_layer src_head layer head"]:
    """Prefix matching of each pair's receiver without the path, minus that with it; NaN elsewhere."""
    tokens, (n_seq, n_layers, n_heads) = shown(stimulus), clean.shape
    out = np.full((n_seq, n_layers, n_heads, n_layers, n_heads), np.nan)
    run = clean_run(model, tokens, layers={source[0] for source, _ in pairs})

    def prefix_matching(pattern: Tensor, rows: slice) -> Tensor:
        return mean_attention_on(pattern, targets[rows].to(pattern.device))

    for layer in sorted({head[0] for _, head in pairs}):
        refuse_if(path_problem(model, tokens, layer=layer, side=side))
        senders = list(dict.fromkeys(source for source, head in pairs if head[0] == layer))
        means = [(source, run.stand_in("mean", source[0])[:, :, source[1]]) for source in senders]
        scores = scores_without_paths(
            model, tokens, means, layer=layer, side=side, score=prefix_matching
        ).numpy()  # 2.
        for source, without in zip(senders, scores, strict=True):
            for head in (h for s, h in pairs if s == source and h[0] == layer):
                out[:, *source, *head] = without[:, head[1]] - clean[:, *head]  # 3. 4.
    return out


class _Scores:
    """Prefix matching, duplicate-token and previous-token attention of every head."""

    needs = frozenset({"pattern"})

    def __init__(self, targets: Mapping[str, Tensor]) -> None:
        self.targets = targets
        self.parts: dict[str, dict[int, list[Tensor]]] = {}

    def see_layer(self, view: LayerView) -> None:
        assert view.pattern is not None
        scores = {
            name: mean_attention_on(view.pattern, targets[view.rows].to(view.pattern.device))
            for name, targets in self.targets.items()
        }
        scores["previous"] = view.pattern.float().diagonal(offset=-1, dim1=-2, dim2=-1).mean(-1)
        for name, score in scores.items():
            self.parts.setdefault(name, {}).setdefault(view.layer, []).append(score.cpu())

    def see_end(self, view: EndView) -> None:
        """Never called: no site of the end is needed."""

    def values(self, name: str) -> Float[np.ndarray, "n_seq n_layers n_heads"]:
        """One of the scores, per sequence."""
        layers = [torch.cat(parts) for _, parts in sorted(self.parts[name].items())]
        return torch.stack(layers, dim=1).double().numpy()
