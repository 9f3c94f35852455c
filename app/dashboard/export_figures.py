"""Still figures of what a page draws with its own components: the grid and the circuit at the step looked at. No Streamlit."""

from __future__ import annotations

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard import circuits, comparing, figure_cache
from byrote.dashboard.page import View
from byrote.probes.figures import Figure, difference_grid, head_grid


def grids(view: View) -> dict[str, Figure]:
    """The grid at the step, and the baseline's at the step that stands beside it."""
    state, found = view.state, {}
    if not state.probe:
        return {}
    pair = (state.probe, state.metric)
    steps = {"grid": (view.run, state.step)}
    if view.base is not None and view.base.has(*pair):
        other = _pairs(view).get(state.step)
        if other is not None:
            steps["baseline_grid"] = (view.base, other)
    for name, (run, step) in steps.items():
        if step in run.steps:
            rows = run.rows(*pair)
            if (rows["step"] == step).any():
                found[name] = head_grid(run, probe=pair[0], metric=pair[1], step=step)
    return found


def grids_and_difference(view: View) -> dict[str, Figure]:
    """The same, and the run minus the baseline."""
    state, found = view.state, grids(view)
    if view.base is None or not state.probe:
        return found
    try:
        comparison = comparing.comparison_of(view.run, view.base, state.align, state.step)
        return found | {
            "difference_grid": difference_grid(comparison, probe=state.probe, metric=state.metric)
        }
    except ByroteError:
        return found  # the page says why the two cannot be compared


def _pairs(view: View) -> dict[int, int]:
    assert view.base is not None
    try:
        return dict(comparing.pairs_of(view.run, view.base, view.state.align))
    except ByroteError:
        return {}


def circuit(view: View) -> dict[str, Figure]:
    """The edges at the step, as many as the page draws by default."""
    state = view.state
    found = circuits.wiring(view.run, state.way)
    if not found.edges.get(state.step):
        return {}
    least = found.default_least(state.step) if state.z is None else state.z
    return {"circuit": figure_cache.circuit(view.run, state.way, state.step, least)}
