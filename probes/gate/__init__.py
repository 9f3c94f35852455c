"""The gate: rules that results have to satisfy, from a file; see docs/cli.md. No torch."""

from __future__ import annotations

from byrote.probes.gate.checked import FAIL, PASS, UNDECIDED, Checked, Judged, Outcome
from byrote.probes.gate.grammar import Gate, Rule, gate_of, read_gate
from byrote.probes.gate.judge import check

__all__ = [
    "FAIL",
    "PASS",
    "UNDECIDED",
    "Checked",
    "Gate",
    "Judged",
    "Outcome",
    "Rule",
    "check",
    "gate_of",
    "read_gate",
]
