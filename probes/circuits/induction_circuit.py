"""Induction circuit: does a head match prefixes because of what one previous-token head writes into its keys?

Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits (K-composition of a previous-token head
with an induction head); path patching: Wang et al. 2022, arXiv:2211.00593.

1. senders: the 4 heads with the highest mean previous_token, of all layers but the last; receivers: the 4 heads with
   the highest mean prefix_matching, of all layers but the first. Pairs with src_layer < layer; n_possible counts the
   pairs of an earlier and a later head in the model, n_pairs those measured
2. k_z: K-composition of the pair from the weights, in standard deviations of its rotation null, as composition has it
3. one path is ablated: from the residual stream that the receiver's layer makes its keys of, the sender's write is
   taken out and its mean over the other sequences at the same position put in (norm applied as the model does);
   queries, values, and every head and MLP in between are those of the clean run
4. change = the receiver's prefix_matching with that path ablated minus without, paired by sequence
5. q_change: the same with the path into the queries, the control: an induction head reads previous tokens by its
   keys. Only the direct path is seen, not what MLPs or heads in between pass on
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
    stimulus="repeated_random",
    summary="Does a head match prefixes because of what one previous-token head writes into its keys?",
    chance="0: nothing passes along the path",
    metrics={
        "change": "change in the later head's prefix matching when the path into its keys is ablated",
        "q_change": "the same for the path into its queries, the control",
        "k_z": "K-composition of the pair in standard deviations of its rotation null",
        "n_pairs": "pairs measured: of the 4 strongest previous-token and the 4 strongest prefix-matching heads",
        "n_possible": "pairs of an earlier and a later head in the model",
    },
    main_metric="change",
    units={"k_z": "standard deviations", "n_pairs": "pairs", "n_possible": "pairs"},
    undirected=("q_change", "n_pairs", "n_possible"),
    directions={"k_z": "higher"},
    settings=("n_pairs", "n_possible"),
    reads_as="Well below 0: the pair is an induction circuit, and this path carries it. Near 0 on a head that "
    "matches prefixes: it reads previous tokens from several heads, or through MLPs, or matches otherwise. A high "
    "k_z without a change: wired, not used",
    not_measured="fewer than two layers; a norm after attention bends what heads write (Gemma 2, OLMo 2); replacing "
    "keys does not move attention; attention is not finite, not causal or does not sum to 1; there is one sequence "
    "only",
    undefined="no token of the stimulus has an earlier copy, or a head's circuit is zero",
    default=False,
    passes="about 3 + 16 x receiver layers (at most 4), each up to the receiver",
    order=250,
)
def induction_circuit(
    model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int
) -> dict[str, ProbeScores]:
    """Ablate the path from each strong previous-token head into the keys of each strong prefix-matching head.

    Args:
        model: a loaded checkpoint; it is left as it was.
        stimuli: "repeated_random".
        seed: of the composition's null.

    Returns:
        `change`, `q_change` (attention fractions, below 0 where the path serves) and `k_z` per pair; `n_pairs` and
        `n_possible` for the model.

    Raises:
        NotMeasuredError: one layer; a norm after attention; attention or paths that cannot be relied on; one sequence.
    """
    stimulus = stimuli["repeated_random"]
    tokens, copies = shown(stimulus), earlier_copies(torch.from_numpy(stimulus.match_tokens))
    k_z = composition(model.weights, torch.zeros(0, dtype=torch.long), seed)["k_z"].samples[0]  # 2.
    refuse_if("" if len(tokens) > 1 else "mean ablation needs two sequences")
    found = _Scores(shifted_keys(copies, 1))
    report = observe(model, tokens, [found])
    refuse_if("; ".join(reason for _, reason in sorted(report.problems.items())[:2]))
    prefix, previous = found.values("prefix"), found.values("previous")
    senders = strongest(previous.mean(0)[:-1], N_SENDERS)
    receivers = strongest(prefix.mean(0)[1:], N_RECEIVERS, first_layer=1)  # 1.
    pairs = [(s, r) for s in senders for r in receivers if s[0] < r[0]]
    sides: tuple[Literal["k"], Literal["q"]] = ("k", "q")
    changes = {
        side: _changes(model, stimulus, pairs, clean=prefix, targets=found.targets, side=side)
        for side in sides
    }
    n_layers, n_heads = model.shape.n_layers, model.shape.n_heads
    exists = np.zeros((n_layers, n_heads) * 2, dtype=bool)
    for source, head in pairs:
        exists[(*source, *head)] = True
    scores = {"change": changes["k"], "q_change": changes["q"]}
    scores |= {"k_z": np.broadcast_to(np.where(exists, k_z, np.nan), changes["k"].shape)}
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
        ).numpy()  # 3.
        for source, without in zip(senders, scores, strict=True):
            for head in (h for s, h in pairs if s == source and h[0] == layer):
                out[:, *source, *head] = without[:, head[1]] - clean[:, *head]  # 4.
    return out


class _Scores:
    """Prefix matching and previous-token attention of every head."""

    needs = frozenset({"pattern"})

    def __init__(self, targets: Tensor) -> None:
        self.targets = targets
        self.parts: dict[str, dict[int, list[Tensor]]] = {"prefix": {}, "previous": {}}

    def see_layer(self, view: LayerView) -> None:
        assert view.pattern is not None
        scores = {
            "prefix": mean_attention_on(view.pattern, self.targets[view.rows].to(view.pattern.device)),
            "previous": view.pattern.float().diagonal(offset=-1, dim1=-2, dim2=-1).mean(-1),
        }
        for name, score in scores.items():
            self.parts[name].setdefault(view.layer, []).append(score.cpu())

    def see_end(self, view: EndView) -> None:
        """Never called: no site of the end is needed."""

    def values(self, name: str) -> Float[np.ndarray, "n_seq n_layers n_heads"]:
        """One of the two scores, per sequence."""
        layers = [torch.cat(parts) for _, parts in sorted(self.parts[name].items())]
        return torch.stack(layers, dim=1).double().numpy()
