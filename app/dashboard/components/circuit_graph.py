"""The circuit graph: heads in fixed places, ablated paths and edges by composition z, over the series in the browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from byrote.dashboard.components.base import VOID, encode, packed, series_data
from byrote.dashboard.figure_cache import wiring
from byrote.dashboard.library import number_of, run_cache
from byrote.dashboard.query_params import State
from byrote.probes.figures.circuit import MAX_EDGES_PER_STEP, ROLE_TOKENS, WAY_NAMES, Wiring, path_words
from byrote.probes.figures.theme import TOKENS
from byrote.probes.head_roles import (
    INDUCTION,
    LOOKS_BACK,
    MATCHES,
    NONE,
    PREVIOUS,
    RESTS,
    ROLES,
    UNKNOWN,
    role_codes,
)
from byrote.probes.results import Results

# Columns of a graph of many heads, from left to right roughly as a circuit runs; "" is what nothing says.
FLOW = [PREVIOUS, LOOKS_BACK, RESTS, NONE, "", MATCHES, INDUCTION]


def graph_data(
    run: Results, state: State, found: Wiring, *, least: float, theme: str, events: Sequence[tuple[int, str]]
) -> dict[str, Any]:
    """Everything the browser needs to play the circuit; it reports a head, a step, and z, the smallest one drawn.

    Args:
        run: whose heads.
        state: probe that sizes the nodes, step, head, kind of composition.
        found: its edges.
        least: smallest z drawn.
        theme: "light" or "dark", for the colour of the path.
        events: (step, what happened there).
    """
    most = max([len(edges) for edges in found.edges.values()], default=0)
    return {
        "key": str(hash((number_of(run), state.probe, state.metric, state.way))),
        **series_data(run, state, events),
        "edges": _edges(run, state.way),
        "totals": [found.totals.get(s, 0) for s in run.all_steps],
        "cut": MAX_EDGES_PER_STEP if most == MAX_EDGES_PER_STEP else 0,
        "z": least,
        "z_max": float(np.ceil(max(found.most, least, 1.0))),
        "what": WAY_NAMES[state.way],
        "path_words": {str(step): path_words(found, state.way, step) for step in run.all_steps},
        "path_color": TOKENS["series1"][0 if theme == "light" else 1],
        "scores": _scores(run, state.probe, state.metric),
        "roles": list(ROLES),
        "flow": FLOW,
        "role_of": _roles(run),
        "role_colors": [TOKENS[ROLE_TOKENS[role]][0 if theme == "light" else 1] for role in ROLES],
    }


@run_cache(3)
def _edges(run: Results, way: str) -> list[list[tuple[int, int, float | None, int, float | None]]]:
    """Per step, per edge: source, target, z, whether the path carries, change of prefix matching without it."""
    found, n_heads = wiring(run, way), run.shape[1]
    return [
        [
            (
                e.source[0] * n_heads + e.source[1],
                e.target[0] * n_heads + e.target[1],
                round(e.z, 2) if np.isfinite(e.z) else None,
                int(e.carries),
                round(e.path.change, 3) if e.path else None,
            )
            for e in found.edges.get(step, [])
        ]
        for step in run.all_steps
    ]


@run_cache(1)
def _roles(run: Results) -> str:
    """One byte a head and step: its place in ROLES, 255 where nothing says."""
    return packed(np.where((codes := role_codes(run)) == UNKNOWN, 255, codes).astype(np.uint8))


@run_cache(12)
def _scores(run: Results, probe: str, metric: str) -> str:
    if not probe:
        return packed(np.full((len(run.all_steps), *run.shape), VOID, dtype="<u2"))
    cube = run.cube(probe, metric)
    return packed(encode(np.where(cube.measured, cube.value, np.nan), cube.limits))
