"""Edge attribution: which edges between heads and MLPs carry copying, and how few of them do it all?

Source: EAP-IG and faithfulness: Hanna et al. 2024, arXiv:2403.17806; edge attribution patching: Syed et al. 2023,
arXiv:2310.10348; over training, and the 80% of a circuit: Tigges et al. 2024, arXiv:2407.10827. The corruption is byrote's own.

1. clean: BOS and a block of random tokens m times. Corrupted: the first m - 1 blocks redrawn, each by itself, the last
   one as it was. loss: mean over the last block's tokens but its first, which nothing foretells; gain = corrupted - clean
2. nodes: the embedding, heads, MLPs; inputs: queries, keys and values of each head, MLPs, the logits. An edge is one
   node's term in the sum that one input reads
3. score of an edge = (corrupted write - clean write) . (gradient of the loss at the input), summed over positions,
   the gradient averaged over 5 runs with embeddings on the way from corrupted to clean (midpoints). Above 0: without
   the edge the loss rises
4. the 512 edges with the largest absolute mean score have rows, and all from the embedding or into the logits; n_edges
   counts all there are
5. faithfulness of the 2^position largest (the last: all): (corrupted loss - loss with every other edge ablated) / (mean gain). The
   ablated loss is exact, not first order. chance: the same of as many edges drawn at random, mean of 3 nested draws
6. circuit_edges: the smallest such circuit with a faithfulness of 80%
7. completeness: the sum over edges from the embedding divided by -(mean gain). 1 where 5 runs resolve the way
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byrote.interp.edges import EdgeGraph, Edges
from byrote.interp.model import HookedModel
from byrote.probes.circuits.effects import refuse_if, shown
from byrote.probes.rules import FAITHFUL_FRAC, SMALLEST, is_above
from byrote.probes.spec import ProbeScores, probe
from byrote.probes.statistics import bootstrap_mean
from byrote.probes.stimuli import Stimulus

N_STEPS, N_RANDOM, MOST_ROWS = 5, 3, 512


@probe(
    unit="nats",
    stimulus=("repeated_random", "shuffled_repeat"),
    summary="Which edges between heads and MLPs carry copying, and how few of them do it all?",
    chance="0: ablating the edge changes nothing; of faithfulness, as many random edges",
    metrics={
        "k_edge": "from an earlier head into a head's keys: change in loss without the edge, to first order",
        "q_edge": "the same into its queries",
        "v_edge": "the same into its values",
        "k_from_input": "from the embedding into a head's keys",
        "q_from_input": "the same into its queries",
        "v_from_input": "the same into its values",
        "k_from_mlp": "from an earlier MLP (src_layer) into a head's keys",
        "q_from_mlp": "the same into its queries",
        "v_from_mlp": "the same into its values",
        "mlp_from_head": "from a head (src_layer, src_head) into an MLP (layer)",
        "mlp_from_mlp": "from an earlier MLP (src_layer) into an MLP (layer)",
        "mlp_from_input": "from the embedding into an MLP (layer)",
        "logits_from_head": "from a head into the logits",
        "logits_from_mlp": "from an MLP (layer) into the logits",
        "logits_from_input": "from the embedding into the logits",
        "faithfulness": "share of the gain left with the 2^position largest edges alone",
        "gain": "loss on the last block with the blocks before it redrawn, minus loss on a true copy",
        "clean": "loss on the last block, a true copy",
        "circuit_edges": "edges of the smallest of these circuits with a faithfulness of 80%",
        "completeness": "share of the gain that the edges from the embedding add up to",
        "n_edges": "edges of the model",
        "n_with_rows": "edges with rows: the 512 largest, and those from the embedding or into the logits",
    },
    main_metric="k_edge",
    curve_axis="log2 of edges in the circuit",
    units={
        "faithfulness": "fraction of the gain",
        "completeness": "fraction of the gain",
        "circuit_edges": "edges",
        "n_edges": "edges",
        "n_with_rows": "edges",
    },
    undirected=("circuit_edges", "completeness", "n_edges", "n_with_rows"),
    directions={"clean": "lower", "gain": "higher", "faithfulness": "higher"},
    settings=("completeness", "n_edges", "n_with_rows"),
    reads_as="Large: copying depends on the edge; a previous-token head's edge into the keys of an induction head, and "
    "that head's into the logits, are the known circuit. First order: a saturated softmax hides an edge that the "
    "exact faithfulness curve shows missing. A curve that reaches 1 with few edges and far above its chance: a small "
    "circuit. Shared keys and values (grouped queries) are listed under the first head that uses them",
    not_measured="a norm after attention makes head outputs non-linear (Gemma 2, OLMo 2); attention and MLP read one norm "
    "(GPT-J); writes do not add up to what is read (BLOOM); the logits or gradients are not finite",
    undefined="redrawing what came before costs no more than 0.05 nats: the model does not copy, and no circuit "
    "explains it; or no circuit reaches 80%",
    default=False,
    passes="at most 5 x 3 + 10 + 4 x 20: 5 forward and backward, and 10 + 4 x log2 of edges forward",
    order=255,
)
def edge_attribution(
    model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int
) -> dict[str, ProbeScores]:
    """Attribute the loss on a copied block to edges, and see how few of them suffice.

    Args:
        model: a loaded checkpoint; it is left as it was.
        stimuli: "repeated_random" and "shuffled_repeat".
        seed: of the random circuits and the bootstrap.

    Returns:
        Scores in nats per edge, above 0 where the edge helps; `faithfulness`, a fraction by log2 of edges; and what
        they rest on.

    Raises:
        NotMeasuredError: the model is not the graph that is attributed.
    """
    clean, corrupted = shown(stimuli["repeated_random"]), redrawn_before_last(stimuli)
    graph = EdgeGraph(model, clean)
    refuse_if(graph.problem)
    loss = LastBlockLoss(clean, stimuli["repeated_random"].params["r"])
    scores = graph.attribute(clean, corrupted, loss, n_steps=N_STEPS)  # 3.
    edges, size = graph.edges, scores.mean(0).abs()
    order = torch.argsort(torch.where(edges.exists, size, -1.0).ravel(), descending=True, stable=True)
    n_edges = int(edges.exists.sum())
    circuits = nested(order[:n_edges], edges)
    everything, nothing = edges.exists, torch.zeros_like(edges.exists)
    ends = graph.losses_of(clean, corrupted, loss, [everything, nothing]).double().numpy()
    gain = ends[1] - ends[0]
    copies = bool(is_above(bootstrap_mean(gain[:, None], seed=seed).lo, SMALLEST)[0])
    faithful, chance = np.full((len(clean), len(circuits)), np.nan), np.full(len(circuits), np.nan)
    if copies:
        drawn = [np.random.default_rng([seed, 21, i]).permutation(n_edges) for i in range(N_RANDOM)]
        random = [circuit for one in drawn for circuit in nested(order[torch.from_numpy(one)], edges)]
        left = graph.losses_of(clean, corrupted, loss, [*circuits, *random]).double().numpy()
        shares = ((ends[1] - left) / gain.mean()).reshape(1 + N_RANDOM, len(circuits), -1)  # 5.
        faithful, chance = shares[0].T, shares[1:].mean((0, 2))
    enough = np.flatnonzero(faithful.mean(0) >= FAITHFUL_FRAC)  # 6.
    with_rows = torch.zeros(size.numel(), dtype=torch.bool)
    with_rows[order[: min(n_edges, MOST_ROWS)]] = True  # 4.
    with_rows = with_rows.view_as(size) | (edges.exists & _at_an_end(edges))
    facts = {
        "circuit_edges": min(2.0 ** enough[0], n_edges) if len(enough) else np.nan,
        "completeness": -scores[:, 0].sum(-1).double().mean().item() / -gain.mean()
        if copies
        else np.nan,  # 7.
        "n_edges": n_edges,
        "n_with_rows": int(with_rows.sum()),
    }
    per_edge = by_kind(scores.double().numpy(), with_rows.numpy(), edges, model)
    return per_edge | {
        "faithfulness": ProbeScores(faithful, axes=("position",), chance=chance),
        "gain": ProbeScores(gain, chance=0.0),
        "clean": ProbeScores(ends[0]),
        **{name: ProbeScores(np.full(len(clean), float(value))) for name, value in facts.items()},
    }


def redrawn_before_last(stimuli: Mapping[str, Stimulus]) -> Int[Tensor, "n_seq pos"]:
    """The repeated sequences with every block but the last redrawn: nothing before it is a copy of it."""  # 1.
    repeated, other = stimuli["repeated_random"], stimuli["shuffled_repeat"]
    r, last = repeated.params["r"], repeated.tokens[:, -repeated.params["r"] :]
    bos = repeated.tokens[:, :1]
    return torch.from_numpy(np.concatenate([bos, other.tokens[:, 1 + r :], last], axis=1))


class LastBlockLoss:
    """Mean loss in nats over the last block's tokens but its first.

    Args:
        tokens: the sequences.
        r: tokens of a block.
    """

    def __init__(self, tokens: Int[Tensor, "n_seq pos"], r: int) -> None:
        self.targets = tokens[:, -(r - 1) :]

    def __call__(self, logits: Float[Tensor, "batch pos d_vocab"], rows: slice) -> Float[Tensor, " batch"]:
        """One number per sequence of these rows."""
        targets = self.targets[rows].to(logits.device)
        scores = logits[:, -targets.shape[1] - 1 : -1].float()
        return torch.nn.functional.cross_entropy(scores.transpose(1, 2), targets, reduction="none").mean(1)


def nested(order: Int[Tensor, " n_edges"], edges: Edges) -> list[Bool[Tensor, "senders receivers"]]:
    """Circuits of the first 1, 2, 4, ... edges of an order, and of all of them."""
    sizes = [2**i for i in range(max(1, (len(order) - 1).bit_length()))]
    circuits = []
    for size in [*sizes, len(order)] if len(order) > sizes[-1] else sizes:
        circuit = torch.zeros(edges.exists.numel(), dtype=torch.bool)
        circuit[order[:size]] = True
        circuits.append(circuit.view_as(edges.exists))
    return circuits


def _at_an_end(edges: Edges) -> Bool[Tensor, "senders receivers"]:
    """Edges from the embedding or into the logits: one for a head or MLP, so that every head has its row."""
    first = torch.tensor([kind == "input" for kind, *_ in edges.senders])
    last = torch.tensor([kind == "logits" for kind, *_ in edges.receivers])
    return first[:, None] | last[None]


def by_kind(
    scores: Float[np.ndarray, "n_seq senders receivers"],
    with_rows: Bool[np.ndarray, "senders receivers"],
    edges: Edges,
    model: HookedModel,
) -> dict[str, ProbeScores]:
    """One metric per kind of edge, on the axes that tell its edges apart."""
    sizes = {"layer": model.shape.n_layers, "head": model.shape.n_heads}
    found: dict[str, tuple[tuple[str, ...], list[tuple[tuple[int, ...], int, int]]]] = {}
    for s, r in np.argwhere(with_rows).tolist():
        (source, *src), (target, *place) = edges.senders[s], edges.receivers[r]
        at_end = target == "logits"  # an edge into the logits is named after the node that writes
        at = dict(zip(("layer", "head"), src if at_end else place, strict=True))
        if not at_end:
            at |= dict(zip(("src_layer", "src_head"), src, strict=True))
        axes = tuple(axis for axis in ("src_layer", "src_head", "layer", "head") if at.get(axis, -1) >= 0)
        name = (
            f"{target}_edge" if source == "head" and target in ("q", "k", "v") else f"{target}_from_{source}"
        )
        found.setdefault(name, (axes, []))[1].append((tuple(at[axis] for axis in axes), s, r))
    out = {}
    for name, (axes, entries) in found.items():
        shape = tuple(sizes[axis.removeprefix("src_")] for axis in axes)
        flat = [int(np.ravel_multi_index(index, shape)) if axes else 0 for index, _, _ in entries]
        values, exists = (
            np.full((len(scores), math.prod(shape)), np.nan),
            np.zeros(math.prod(shape), dtype=bool),
        )
        values[:, flat] = np.stack([scores[:, s, r] for _, s, r in entries], axis=1)
        exists[flat] = True
        out[name] = ProbeScores(
            values.reshape(-1, *shape), axes, 0.0, exists=exists.reshape(shape) if axes else None
        )
    return out
