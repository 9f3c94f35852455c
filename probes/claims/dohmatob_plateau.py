"""Claim 33, in two parts: where a fixed share of the data is synthetic, more data stop helping, however small the share."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from byrote.probes.claims.linear_mixtures import SHARES, mixture_rows
from byrote.probes.claims.record import Claim, Effects, Grid, Picture
from byrote.probes.claims.runs_table import Place, Runs
from byrote.probes.degrade.verdicts import Rule

GRID = Grid(
    "linear-mixtures",
    "least squares in 20 dimensions on up to 268 million samples, a share of them labelled by a fit to 100 real ones; 200 simulations "
    "a seed",
    rows=mixture_rows,
    seeds=10,
    full_seeds=10,
    seconds=0.3,
)
_PLACES = tuple(Place(GRID.name, arm) for arm in SHARES)
_REAL, _ONE, _TEN, _ = _PLACES
_LAST = 16  # the slope is that of the last factor of so many in the number of samples
_PICTURE = Picture("steps", "excess_risk", _PLACES, step="samples")


def slopes(runs: Runs, place: Place) -> Float[np.ndarray, " seeds"]:
    """Slope of the logarithm of the excess risk over that of the number of samples, in its last factor of 16; one per seed."""
    found = []
    for seed in runs.seeds(*_PLACES):
        steps, risks = runs.curve(place, "excess_risk", seed)
        late = steps * _LAST >= steps[-1]
        found.append(np.polyfit(np.log(steps[late]), np.log(risks[late]), 1)[0])
    return np.array(found)


def _words(runs: Runs) -> str:
    parts = [
        f"{slopes(runs, place).mean():+.2f} with {share:.0%}"
        for place, share in zip(_PLACES, SHARES.values(), strict=True)
    ]
    return f"slopes {', '.join(parts)} synthetic"


def _flat(runs: Runs) -> Effects:
    return Effects(slopes(runs, _TEN), _words(runs))


def _flatter(runs: Runs) -> Effects:
    return Effects(slopes(runs, _ONE) - slopes(runs, _REAL), _words(runs))


_MEASURED = "As little as 1% (or 1 in 1,000) of synthetic data: larger and larger training sets do not enhance performance (abstract)"
_UNIT = "slope of log risk over log n"
CLAIMS = (
    Claim(
        33,
        "dohmatob-plateau",
        "dohmatob",
        "Where a fixed share of the training data is synthetic, test error stops falling as data are added.",
        _MEASURED,
        "slope of log excess risk over log n from 17 to 268 million samples, a tenth of them labelled by a fit to 100 real samples; real "
        "data alone have -1",
        "excess_risk",
        _UNIT,
        Rule("stays", 0.1),
        "a tenth of the slope of real data alone",
        (GRID.name,),
        _flat,
        picture=_PICTURE,
    ),
    Claim(
        33,
        "dohmatob-one-percent",
        "dohmatob",
        "A hundredth of synthetic data is enough for that.",
        _MEASURED,
        "the same slope with a hundredth of the data synthetic, minus that with real data alone",
        "excess_risk",
        _UNIT,
        Rule("rises", 0.5),
        "half of the slope of real data alone",
        (GRID.name,),
        _flatter,
        exchange=(_REAL, _ONE),
        picture=_PICTURE,
    ),
)
