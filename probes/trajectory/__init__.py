"""When did it happen: onsets, peaks, decays, phase windows, turnover of heads, and which moves first. No torch.

An onset is known only up to the measured steps around it, so every event carries its bracket of measured steps beside
its estimate. Positions between steps are on ln(1 + step): training moves fast early, and step 0 has a place.
"""

from __future__ import annotations

from byrote.probes.results.curve import Curve, log_step
from byrote.probes.trajectory.circuit_overlap import circuit_overlap
from byrote.probes.trajectory.crossing import Crossing, Reached, Rise, crossings, rise, threshold_crossing
from byrote.probes.trajectory.descent import DoubleDescent, double_descent
from byrote.probes.trajectory.events import EVENT_COLUMNS, EventTable, event_head, events, onsets, peaks
from byrote.probes.trajectory.shape import (
    CANNOT_TELL,
    Decay,
    LeadLag,
    Peak,
    PhaseWindow,
    decay,
    lead_lag,
    peak,
    phase_window,
)
from byrote.probes.trajectory.turnover import total_mass, turnover
from byrote.probes.trajectory.verdict import (
    Onset,
    best_head,
    head_onsets,
    heads_above,
    onset,
    verdict_table,
)

__all__ = [
    "CANNOT_TELL",
    "EVENT_COLUMNS",
    "Crossing",
    "Curve",
    "Decay",
    "DoubleDescent",
    "EventTable",
    "LeadLag",
    "Onset",
    "Peak",
    "PhaseWindow",
    "Reached",
    "Rise",
    "best_head",
    "circuit_overlap",
    "crossings",
    "decay",
    "double_descent",
    "event_head",
    "events",
    "head_onsets",
    "heads_above",
    "lead_lag",
    "log_step",
    "onset",
    "onsets",
    "peak",
    "peaks",
    "phase_window",
    "rise",
    "threshold_crossing",
    "total_mass",
    "turnover",
    "verdict_table",
]
