"""Claim 6: prefix matching is hit harder than test loss at a low share of repeats, both as sizes of a model."""

from __future__ import annotations

from byrote.probes.claims.record import Claim

CLAIMS = (
    Claim(
        6,
        "hernandez-prefix-matching-in-sizes",
        "hernandez",
        "At a low share of repeats, prefix matching costs more of a model's size than test loss does.",
        "f 3%: 1/1.47 of the size on prefix matching, at least 1/1.15 on test loss",
        untestable="sizes cannot be read off prefix matching at this scale: past the phase change it falls as models grow (0.98 at width "
        "8 to 0.79 at width 64 in first trials), so that no size belongs to a score",
    ),
)
