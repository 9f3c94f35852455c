"""Overlap of circuits: between two steps, how many of the strongest edges are the same, and how alike is their order? No torch.

Source: circuits over training: Tigges et al. 2024, arXiv:2407.10827 (Jaccard similarity of edges); rank-biased overlap:
Webber et al. 2010, ACM Trans. Inf. Syst. 28, equation 32 (RBO_ext).

1. edges of `edge_attribution`, all kinds together, by the absolute value of their mean score; the k strongest of a step
2. jaccard: edges both sets share, over edges in either. random: what two random sets of k of the model's edges share
3. rbo = (x_k / k) p^k + (1 - p) / p * sum over d = 1..k of (x_d / d) p^d, x_d the edges that the d strongest of both
   steps share, p = 0.9: the first ten places have 86% of the weight
4. intervals: sequences are resampled, the same at both steps, and the k strongest chosen anew. They describe resampling,
   not training seeds, and were not calibrated. An edge without rows at a step is not among its k strongest
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.overlap import jaccard, random_jaccard, rank_biased_overlap
from byrote.probes.results.opened import accepts_paths
from byrote.probes.results.rows import labels
from byrote.probes.results.table import Table
from byrote.probes.statistics import ends, resampled_means, tail_frac

PROBE = "edge_attribution"
_AXES = ["metric", "src_layer", "src_head", "layer", "head"]


@accepts_paths(one=True)
def circuit_overlap(results: Table, *, k: int = 32, to: int | None = None, seed: int = 0) -> pd.DataFrame:
    """One row per pair of neighbouring measured steps, or per step against one of them.

    Args:
        results: of one run in which `edge_attribution` was measured.
        k: how many edges make a circuit; at most those with rows.
        to: step that every other one is held against; None takes each step's successor.
        seed: of the resampling.

    Returns:
        `step_a`, `step_b`, `k`; `jaccard` and `rbo` (0 to 1) with their 95% intervals; `random`, the mean Jaccard similarity
        of random circuits; `left` and `entered`, the edges; `n` sequences.

    Raises:
        ByroteError: no edges were measured, k is below 1, or `to` is no measured step.
    """
    if k < 1:
        raise ByroteError(f"overlap of the top {k} edges", help="take k of 1 or more")
    results.require(PROBE)
    steps = results.usable_steps
    if to is not None and to not in steps:
        raise ByroteError(f"step {to:,} was not measured", help=did_you_mean(str(to), map(str, steps)))
    edges = {step: _edges(results, step) for step in steps}
    edges = {step: found for step, found in edges.items() if len(found)}
    pairs = (
        zip(list(edges), list(edges)[1:], strict=False) if to is None else ((s, to) for s in edges if s != to)
    )
    n_edges = int(results.rows(PROBE, "n_edges", valid=True)["value"].max()) if edges else 0
    return pd.DataFrame(
        [_row(a, b, edges[a], edges[b], k, n_edges, seed) for a, b in pairs if b in edges], columns=COLUMNS
    )


COLUMNS = [
    "step_a", "step_b", "k", "jaccard", "lo", "hi", "random", "rbo", "rbo_lo", "rbo_hi", "left", "entered", "n",
]  # fmt: skip


def _edges(results: Table, step: int) -> pd.DataFrame:
    """Edges of a step with their per-sequence scores."""
    rows = results.samples(step, probe=PROBE)
    rows = rows[rows["valid"]]
    is_edge = rows["metric"].str.contains("_edge$|_from_")
    return rows[is_edge].set_index(_AXES)


def _row(
    step_a: int, step_b: int, a: pd.DataFrame, b: pd.DataFrame, k: int, n_edges: int, seed: int
) -> dict[str, object]:
    k = min(k, len(a), len(b))
    union = a.index.union(b.index, sort=False)
    samples = [_stacked(frame, union) for frame in (a, b)]
    top = [_top(one.mean(0, keepdims=True), k) for one in samples]
    drawn = [_top(resampled_means(one, seed=seed), k) for one in samples]
    sets = [[_members(ids, len(union)) for ids in pair] for pair in (top, drawn)]
    names = np.array([f"{metric} {label}".strip() for metric, label in zip(
        union.get_level_values("metric"), labels(union.to_frame(index=False)), strict=True
    )])  # fmt: skip
    tail = tail_frac(len(samples[0]))
    (lo, hi), (rbo_lo, rbo_hi) = ends(jaccard(*sets[1]), tail), ends(rank_biased_overlap(*drawn), tail)
    before, after = sets[0][0][0], sets[0][1][0]
    return {
        "step_a": step_a,
        "step_b": step_b,
        "k": k,
        "jaccard": float(jaccard(*sets[0])[0]),
        "lo": float(lo),
        "hi": float(hi),
        "random": random_jaccard(k, max(n_edges, k)),
        "rbo": float(rank_biased_overlap(*top)[0]),
        "rbo_lo": float(rbo_lo),
        "rbo_hi": float(rbo_hi),
        "left": "; ".join(names[before & ~after]),
        "entered": "; ".join(names[after & ~before]),
        "n": len(samples[0]),
    }


def _stacked(frame: pd.DataFrame, union: pd.Index) -> Float[np.ndarray, "n_seq edges"]:
    """Scores of every edge of two steps; 0 where an edge has no row, which keeps it behind those that have."""
    place = union.get_indexer(frame.index)
    values = np.stack(frame["samples"].to_list(), axis=1).astype(np.float64)
    out = np.zeros((len(values), len(union)))
    out[:, place] = values
    return out


def _top(means: Float[np.ndarray, "draws edges"], k: int) -> Int[np.ndarray, "draws k"]:
    return np.argsort(-np.abs(means), axis=1, kind="stable")[:, :k]


def _members(ids: Int[np.ndarray, "draws k"], n: int) -> np.ndarray:
    found = np.zeros((len(ids), n), dtype=bool)
    np.put_along_axis(found, ids, True, axis=1)
    return found
