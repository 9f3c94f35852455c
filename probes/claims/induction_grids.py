"""The grids that claims on induction heads share: no repeats, other models."""

from __future__ import annotations

from byrote.probes.claims.record import Grid

LAYERS = Grid(
    "induction",
    "attention alone on blocks of random tokens that repeat: one layer, two layers, one layer whose keys see the token before",
    file="induction",
    sizes=("one", "two", "smeared"),
    seconds=1.5,
)
HEADS = Grid(
    "induction-heads",
    "2 layers of 4 heads on the same data",
    file="induction-heads",
    sizes=("d32",),
    probes=(
        "prefix_aggregates",
        "previous_token",
        "repeat_loss",
        "icl_score",
        "composition",
        "qk_matching",
        "ov_copying",
        "load_bearing",
        "additive_heads",
    ),
    measured=12,
    seeds=6,
    seconds=8.0,
)
