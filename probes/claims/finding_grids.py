"""The grids that byrote's own findings share: settings of another table and another width, eight seeds each."""

from __future__ import annotations

from functools import partial

from byrote.probes.claims.record import FULL_SEEDS, Grid

_full = partial(Grid, seeds=FULL_SEEDS, full_seeds=FULL_SEEDS)
_TEXT = "2 layers of attention on text from a table with one private phrase a document"
_BLOCKS = "2 layers of attention alone on tiled blocks, half of each batch from a pool"

MADE = (
    _full(
        "findings",
        f"{_TEXT}: human text, and made from it in eight ways",
        file="findings",
        sizes=("d24",),
        seconds=11.0,
    ),
    _full(
        "findings-again",
        "the same with another table and another width",
        file="findings",
        sizes=("d32-t1",),
        seconds=13.0,
    ),
)
HEADS = tuple(
    _full(
        name,
        what,
        file="findings-heads",
        sizes=sizes,
        probes=("prefix_aggregates", "previous_token", "qk_matching"),
        measured=16,
        seconds=16.0,
    )
    for name, what, sizes in (
        (
            "findings-heads",
            f"{_TEXT}, 4 heads a layer: human text, and three quarters of it at temperature 0.7",
            ("d32",),
        ),
        ("findings-heads-again", "the same with another table and another width", ("d24-t1",)),
    )
)
POOLS = (
    _full(
        "findings-pools", f"{_BLOCKS}; two widths", file="findings-pools", sizes=("d16", "d32"), seconds=4.5
    ),
    _full(
        "findings-pools-again",
        "the same, half of the tokens of a block from a table",
        file="findings-pools",
        sizes=("d16-table",),
        seconds=4.0,
    ),
)
A_TENTH_LATER = "a tenth later"
COPYING_NATS = 0.25
COPYING = "a tenth of what copying is worth: 3.4 nats by guessing, below 1 with it"


def names_of(grids: tuple[Grid, ...]) -> tuple[str, ...]:
    """What a claim needs them by."""
    return tuple(grid.name for grid in grids)


SETTINGS_REVISED = (
    "how settings are joined: at first each seed's effect was read in the setting that is weakest on the other seeds, which called 6.5% "
    "of 1,000 tables of no effect reproduced; now every setting has to pass by itself, which is stricter"
)
"""Of every claim that has to hold in several settings."""
