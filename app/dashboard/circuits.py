"""The sentence at the top of the circuit page, and the edges it is about, worked out once per run. No Streamlit."""

from __future__ import annotations

from byrote.dashboard.run_cache import run_cache
from byrote.interp.axes import head_label
from byrote.probes.figures.circuit import WAY_NAMES, Wiring
from byrote.probes.figures.circuit import wiring as wiring_of
from byrote.probes.results import Results
from byrote.probes.wording import clean, number, step_number


@run_cache(16)
def wiring(run: Results, way: str) -> Wiring:
    """Edges of one kind of composition."""
    return wiring_of(run, way)


def finding(run: Results, found: Wiring, *, way: str, step: int) -> str:
    """The strongest wire at a step, and whether it is the induction circuit's."""
    name, edges = WAY_NAMES[way], found.edges.get(step, [])
    if not edges:
        return f"{name} was not measured in {clean(run.run, limit=60)} at step {step_number(step)}"
    path = [edge for edge in edges if edge.on_path]
    if path and way == "k":
        best = path[0]
        return (
            f"{head_label(*best.target)}, an induction head, reads {head_label(*best.source)}, a previous-token head: "
            f"{name} z {number(best.z)} at step {step_number(step)}"
        )
    best = edges[0]
    tail = "" if way != "k" else "; no previous-token head feeds an induction head"
    return f"The strongest {name} at step {step_number(step)} is {best.label}, z {number(best.z)}{tail}"
