"""Claim 41: an interior worst number of copies, also in a misspecified linear regression."""

from __future__ import annotations

from byrote.probes.claims.linear_models import COPIES, duplicate_rows
from byrote.probes.claims.record import Claim, Grid, Picture
from byrote.probes.claims.runs_table import Place
from byrote.probes.claims.seed_effects import inverted_u
from byrote.probes.degrade.verdicts import Rule

GRID = Grid(
    "linear-duplicates",
    "least squares on 20 of 40 features, 2,000 samples of which half are copies, 20 simulations a seed",
    rows=duplicate_rows,
    seeds=10,
    full_seeds=10,
    seconds=0.3,
)
_DOSES = tuple(Place(GRID.name, f"copies {copies}") for copies in COPIES)

CLAIMS = (
    Claim(
        41,
        "linear-duplicates",
        "chudnovsky",
        "Where the share of repeats is fixed, the worst number of repeats is an intermediate one, also in a misspecified linear "
        "regression with verbatim duplicates.",
        "Closed form (abstract): the peak of language models is reproduced",
        "excess risk at the worst number of copies inside the range, chosen on the other seeds, minus the higher one of both ends",
        "excess_risk",
        "times the variance of the noise",
        Rule("rises", 0.05),
        "a twentieth of the noise",
        (GRID.name,),
        lambda runs: inverted_u(runs, _DOSES, "excess_risk", called="copies"),
        exchange=_DOSES,
        picture=Picture("doses", "excess_risk", _DOSES),
    ),
)
