"""Moved to byrote.probes.results.curve; to go."""

from byrote.probes.results.curve import Curve as Curve
from byrote.probes.results.curve import log_step as log_step


def curves(results, probe, metric="score", *, sequences=True):
    """`results.curves`."""
    return results.curves(probe, metric, sequences=sequences)


def curve(results, probe, metric="score", *, head=None):
    """`results.curve`."""
    return results.curve(probe, metric, head=head)
