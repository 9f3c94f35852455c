"""Claim 8: in-context learning at large is harmed less than copying."""

from __future__ import annotations

from byrote.probes.claims.record import Claim

CLAIMS = (
    Claim(
        8,
        "hernandez-icl",
        "hernandez",
        "Repeated data harm in-context learning at large, and copying more, both as sizes of a model without repeats.",
        "2 layers, f 50% (figure 7, right): loss by position is harmed less than loss by copy",
        untestable="on the lab's sources nothing but copying can be learned in context, so that the two are one number; it needs a ladder "
        "and a source with both",
    ),
)
