"""The head grid: a whole series in the browser, the baseline beside it on the same step slider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from plotly.colors import sample_colorscale

from byrote.dashboard.components.base import encode, packed, series_data
from byrote.dashboard.library import number_of, run_cache
from byrote.dashboard.query_params import State
from byrote.probes.figures.theme import DIVERGING, SEQUENTIAL
from byrote.probes.registry import REGISTRY
from byrote.probes.results import Cube, Results
from byrote.probes.wording import chance_number, clean, probe_name

N_COLOURS = 64
N_DIFFERENCES = 65  # odd: one colour is exactly zero


def grid_data(
    run: Results,
    state: State,
    *,
    base: Results | None,
    pairs: Mapping[int, int],
    events: Sequence[tuple[int, str]],
    difference: bool = False,
) -> dict[str, Any]:
    """Everything the browser needs to play the series without asking again.

    It reports a head that is chosen, a step where the player rests, another layer to show, and a head to open.

    Args:
        run: whose heads.
        state: probe, metric, step, head, pins and layer shown.
        base: the baseline, drawn beside it.
        pairs: step of the run -> step of the baseline it stands beside.
        events: (step, what happened there), marked on the slider.
        difference: add a third grid, the run minus the baseline.
    """
    cube = run.cube(state.probe, state.metric)
    limits, other = cube.limits, None
    if base is not None and base.has(state.probe, state.metric):
        other = base.cube(state.probe, state.metric)
        limits = (min(limits[0], other.limits[0]), max(limits[1], other.limits[1]))
    if limits[0] < 0:  # zero keeps the middle colour
        limits = (-max(-limits[0], limits[1]), max(-limits[0], limits[1]))
    same_shape = other is not None and base is not None and base.shape == run.shape
    chance = cube.typical_chance()
    panels = [_panel(run, state, limits, role="run", title=clean(run.run, limit=60))]
    if base is not None and same_shape and other is not None:
        at = [other.steps.index(pairs[s]) if s in pairs else -1 for s in cube.steps]
        title = f"{clean(base.run, limit=60)}, baseline"
        panels.append(_panel(base, state, limits, role="base", title=title) | {"at": at})
    if difference and len(panels) > 1:
        words = f"{clean(run.run, limit=40)} minus {clean(state.base, limit=40)}"
        panels.append({"role": "difference", "title": words, "codes": "", "at": None})
        state = replace(state, show="value")
    return {
        "key": str(hash((number_of(run), base and number_of(base), state.probe, state.metric, state.align))),
        "panels": panels,
        **series_data(run, state, events),
        "cell": cell_px(run.shape[1]),
        "pinned": list(state.pin),
        "show": state.show if same_shape or state.show != "base" else "value",
        "what": what(state),
        "lo": limits[0],
        "hi": limits[1],
        "decimals": cell_decimals(limits),
        "chance": "" if chance is None else f" (chance {chance_number(chance)})",
        "chance_frac": None if chance is None else (chance - limits[0]) / (limits[1] - limits[0]),
        "colors": list(palette("sequential" if limits[0] >= 0 else "diverging")),
        "differences": list(palette("diverging")),
    }


def what(state: State) -> str:
    """Probe and metric in words."""
    info = REGISTRY.get(state.probe)
    main = info is None or state.metric in ("score", info.main_metric)
    return probe_name(state.probe) + ("" if main else f" ({probe_name(state.metric)})")


def cell_decimals(limits: tuple[float, float]) -> int:
    """Places that fit a cell and tell a hundredth of the range: two on 0-1."""
    return max(0, min(4, 2 + int(np.ceil(-np.log10(limits[1] - limits[0])))))


def cell_px(n_heads: int) -> int:
    """Width of a cell: as large as is of use, never below what a finger or a pointer can hit."""
    return 44 if n_heads <= 8 else 36 if n_heads <= 12 else 30 if n_heads <= 16 else 24


@lru_cache(maxsize=2)
def palette(kind: str) -> tuple[str, ...]:
    """Colours as ``#rrggbb``, lowest first."""
    scale, n = (SEQUENTIAL, N_COLOURS) if kind == "sequential" else (DIVERGING, N_DIFFERENCES)
    sampled = sample_colorscale(scale, [i / (n - 1) for i in range(n)], colortype="tuple")
    return tuple("#" + "".join(f"{round(255 * c):02x}" for c in color) for color in sampled)


def _panel(
    run: Results, state: State, limits: tuple[float, float], *, role: str, title: str
) -> dict[str, Any]:
    return {"role": role, "title": title, "codes": _codes(run, state.probe, state.metric, limits), "at": None}


@run_cache(24)
def _codes(run: Results, probe: str, metric: str, limits: tuple[float, float]) -> str:
    """Values of steps lint left out are sent too: the grid shows them grey."""
    cube: Cube = run.cube(probe, metric)
    return packed(encode(np.where(cube.measured, cube.value, np.nan), limits))
