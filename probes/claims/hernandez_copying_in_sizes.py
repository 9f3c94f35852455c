"""Claim 5: copying is hit harder than test loss, both as sizes of a model."""

from __future__ import annotations

from byrote.probes.claims.record import Claim

CLAIMS = (
    Claim(
        5,
        "hernandez-copying-in-sizes",
        "hernandez",
        "Repeated data cost copying more than test loss, both as the size of a model without repeats that does as well.",
        "f 3%, at the worst number of repeats: a third of the size on copying, 1/1.15 of it on test loss",
        untestable="it needs a ladder of sizes on which test loss, copying and prefix matching each change for a reason of their own, "
        "trained past the phase change at every size; the lab's graded source is made for it, and no such ladder is among the kept runs",
    ),
)
