"""Claim 13: training on repeats leaves a model that learns other data more slowly."""

from __future__ import annotations

from byrote.probes.claims.record import Claim

CLAIMS = (
    Claim(
        13,
        "hernandez-ossification",
        "hernandez",
        "A model trained on repeats and then on other data does worse than one trained on the other data alone, and catches up late.",
        "f 90% at the worst number of repeats, then Python: 1.6 times smaller in effect than training from scratch",
        untestable="the lab does not continue a run on another source yet",
    ),
)
