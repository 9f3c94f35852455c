"""The grids that claims on synthetic data and on loss masks share."""

from __future__ import annotations

from byrote.probes.claims.record import Grid

_HEADS = ("prefix_aggregates", "repeat_loss")
SHARES = Grid(
    "toedit",
    "2 layers of attention on text from a table with one private phrase a document; a share of each batch was sampled from such a "
    "model at temperature 0.7",
    file="toedit",
    sizes=("d24",),
    probes=_HEADS,
    seconds=3.0,
)
GENERATIONS = Grid(
    "generations",
    "the same on 1,536 sequences; four generations, each sampled from the one before at temperature 1",
    file="generations",
    sizes=("d24",),
    probes=_HEADS,
    seconds=3.0,
)
MASKED = Grid(
    "masked",
    "the same on unique data, tokens left out of the loss",
    file="masked",
    sizes=("d24",),
    probes=_HEADS,
    seconds=2.5,
)
NATS = "e^0.05: the probability of each token changes by a twentieth"
