"""Claim 34, in two parts: four epochs of a corpus are as good as fresh data, and many are not."""

from __future__ import annotations

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.probes.claims.record import Claim, Effects, Grid, Picture
from byrote.probes.claims.runs_table import Place, Runs
from byrote.probes.claims.seed_effects import difference, onset_ratio
from byrote.probes.claims.synthetic_grids import NATS
from byrote.probes.degrade.effective_data import R_STAR_DATA, fit_r_star
from byrote.probes.degrade.verdicts import Rule
from byrote.probes.wording import interval

GRID = Grid(
    "epochs",
    "2 layers of attention on text from a table with one private phrase a document, for 1 to 64 epochs over a corpus; "
    "two lengths of training",
    file="epochs",
    sizes=("long", "short"),
    seconds=3.0,
)
_SEQUENCES = {"long": 32_000, "short": 16_000}  # trained on, fresh or not
_CORPORA = (16_000, 8_000, 4_000, 2_000, 500)
_LONG = (Place(GRID.name, "unique", "long"), *(Place(GRID.name, f"c{n}", "long") for n in _CORPORA))
_UNIQUE, _FOUR, _MANY = _LONG[0], _LONG[2], _LONG[-1]
_DRAWS = 20  # of seeds, for the interval of R*


def four_epochs(runs: Runs) -> Effects:
    """Test loss after four epochs minus that after as many fresh tokens."""
    found = difference(runs, _UNIQUE, _FOUR, "test_loss")
    fresh = runs.final(_UNIQUE, "test_loss", runs.seeds(_UNIQUE, _FOUR)).mean()
    return Effects(found.values, f"{fresh:.3f} on fresh data, four epochs {found.values.mean() / fresh:+.1%}")


def many_epochs(runs: Runs) -> Effects:
    """Test loss after 64 epochs minus that after as many fresh tokens; R* in words."""
    found = difference(runs, _UNIQUE, _MANY, "test_loss")
    means = ", ".join(
        f"{runs.final(place, 'test_loss', runs.seeds(*_LONG)).mean():.3f} at {_SEQUENCES['long'] / n:.0f}"
        for place, n in zip(_LONG, (_SEQUENCES["long"], *_CORPORA), strict=True)
    )
    return Effects(found.values, f"test loss {means} epochs; {_r_star(runs)}")


def _r_star(runs: Runs) -> str:
    """R* refitted on all runs, in words: it decides nothing."""
    try:
        found = fit_r_star(_points(runs), n_draws=_DRAWS)
    except ByroteError as error:
        return f"R* is not fitted: {error.message}"
    edge = ", at the edge of what was searched" if found.at_edge else ""
    return f"R* refitted {interval(found.r_star, found.lo, found.hi)}{edge} (the paper: {R_STAR_DATA:.1f})"


def _points(runs: Runs) -> pd.DataFrame:
    """Final test loss of every run, with its unique tokens in sequences and its epochs."""
    return pd.DataFrame([
        {"run": f"{size}-{n}", "init_seed": i, "data_seed": d, "samples": None, "unique_tokens": float(n), "smallest": 0.05,
         "epochs": total / n, "value": runs.final(Place(GRID.name, arm, size), "test_loss", [(i, d)])[0]}
        for size, total in _SEQUENCES.items()
        for arm, n in (("unique", total), *((f"c{n}", n) for n in _CORPORA))
        for i, d in runs.seeds(Place(GRID.name, arm, size))
        if not (arm == "c16000" and size == "short")  # once through it: the fresh data again
    ])  # fmt: skip


_ARMS = Picture("doses", "test_loss", _LONG)
CLAIMS = (
    Claim(
        34,
        "muennighoff-four-epochs",
        "muennighoff",
        "Up to four epochs over a corpus are nearly as good as as many tokens of fresh data.",
        "8.7B parameters: validation loss 0.5% higher after 4 epochs of 44B tokens than after one of 178B",
        "test loss after four epochs of 8,000 sequences, minus that after as many steps on fresh ones",
        "test_loss",
        "nats",
        Rule("stays", 0.05),
        NATS,
        (GRID.name,),
        four_epochs,
        picture=_ARMS,
    ),
    Claim(
        34,
        "muennighoff-decay",
        "muennighoff",
        "With many epochs the value of repeated tokens decays to nothing: they are worse than fresh ones.",
        "R* = 15.4: a further pass is worth 1/e of a fresh one after 15 repetitions, and 16.4 corpora at most",
        "test loss after 64 epochs of 500 sequences, minus that after as many steps on fresh ones; onset: where copying appears",
        "test_loss",
        "nats",
        Rule("rises", 0.05),
        NATS,
        (GRID.name,),
        many_epochs,
        lambda runs: onset_ratio(runs, _UNIQUE, _MANY),
        Rule("rises", float(np.log(1.1)), kind="ranks"),
        exchange=(_UNIQUE, _MANY),
        picture=_ARMS,
    ),
)
