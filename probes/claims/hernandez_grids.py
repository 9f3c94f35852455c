"""The grids that claims of Hernandez et al. share: a pool of half of each batch, from many sequences to one."""

from __future__ import annotations

from byrote.probes.claims.record import Grid

POOLS = (512, 128, 64, 32, 16, 8, 4, 2, 1)  # sequences; fewer are repeated more often
DOSES = tuple(f"P{pool}" for pool in POOLS)
HEADS = ("prefix_aggregates", "previous_token", "duplicate_token", "repeat_loss", "skip_trigram", "icl_score")

TILED = Grid(
    "hernandez",
    "2 layers of attention alone, 3,456 weights, on blocks of random tokens that repeat to the end of the context",
    file="hernandez",
    sizes=("d16",),
    probes=("exact_match",),
    seconds=2.0,
)
HEADS_4 = Grid(
    "hernandez-heads",
    "the same with 4 heads a layer",
    file="hernandez-heads",
    sizes=("d32",),
    probes=(*HEADS, "qk_matching", "ov_copying"),
    seconds=5.0,
)
ONE_LAYER = Grid(
    "hernandez-one-layer",
    "1 layer of attention on text from a table in which one private phrase per document recurs",
    file="hernandez-one-layer",
    sizes=("d24",),
    probes=("skip_trigram", "repeat_loss"),
    seconds=2.0,
)
DESCENT = Grid(
    "hernandez-descent",
    "2 layers of attention on the same text; of nine tenths of each batch a pool",
    file="hernandez-descent",
    sizes=("d24",),
    seconds=4.0,
)
