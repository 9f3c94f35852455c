"""The edges of the circuit page, worked out once per run. No Streamlit."""

from __future__ import annotations

from byrote.dashboard.run_cache import run_cache
from byrote.probes.figures.circuit import Wiring
from byrote.probes.figures.circuit import wiring as wiring_of
from byrote.probes.results import Results


@run_cache(16)
def wiring(run: Results, way: str) -> Wiring:
    """Edges of one kind of composition."""
    return wiring_of(run, way)
