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
        untestable="no ladder of prefix matching was found that trains in minutes: with smeared keys every width of the ladder copies, with "
        "two heads a layer, too few for a claim about heads; without them a model of width 8 (2 layers, 4 heads, MLPs) has not begun to "
        "copy after 2,000 steps (3.70 nats on copied tokens, where guessing among the ids of phrases costs 3.47), and in first trials "
        "prefix matching fell as models grew past the phase change (0.98 at width 8 to 0.79 at width 64), so that no size belongs to a "
        "score",
    ),
)
