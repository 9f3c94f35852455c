"""Claim 28, in two parts: loss on human text rises with the share of synthetic data, and most steeply at its end."""

from __future__ import annotations

import numpy as np

from byrote.probes.claims.record import Claim, Effects, Picture
from byrote.probes.claims.runs_table import Runs
from byrote.probes.claims.seed_effects import final_values, onset_ratio
from byrote.probes.claims.synthetic_grids import NATS, SHARES
from byrote.probes.degrade.verdicts import Rule

_SHARE_OF = {"human": 0.0, "syn25": 0.25, "syn50": 0.5, "syn75": 0.75, "syn100": 1.0}
_PLACES = SHARES.places(*_SHARE_OF)
_PICTURE = Picture("doses", "test_loss", _PLACES, fact="synthetic_share")


def _values(runs: Runs) -> np.ndarray:
    return final_values(runs, _PLACES, "test_loss", runs.seeds(*_PLACES))


def slope(runs: Runs) -> Effects:
    """Rise of test loss per unit of the share, by least squares over the five shares."""
    values = _values(runs)
    slopes = np.polyfit(list(_SHARE_OF.values()), values.T, 1)[0]
    return Effects(
        slopes,
        "test loss "
        + ", ".join(f"{v:.2f} at {s:.0%}" for v, s in zip(values.mean(0), _SHARE_OF.values(), strict=True)),
    )


def cliff(runs: Runs) -> Effects:
    """Rise per unit of the share from 75% to 100%, minus that from 0 to 75%."""
    values = _values(runs)
    last, before = (values[:, 4] - values[:, 3]) / 0.25, (values[:, 3] - values[:, 0]) / 0.75
    return Effects(
        last - before,
        f"{last.mean():.2f} nats per unit share over the last quarter, {before.mean():.2f} before",
    )


CLAIMS = (
    Claim(
        28,
        "toedit-share",
        "toedit",
        "Loss on human text rises with the share of synthetic data in the training data.",
        "Perplexity 21.0, 22.1, 23.5, 27.6, 51.9 at 0, 25, 50, 75, 100% synthetic",
        "slope of test loss over the share, five shares, everything else alike; onset: where copying appears, all synthetic against "
        "all human",
        "test_loss",
        "nats per unit share",
        Rule("rises", 0.05),
        f"{NATS}, from none to all",
        (SHARES.name,),
        slope,
        lambda runs: onset_ratio(runs, _PLACES[0], _PLACES[-1]),
        Rule("rises", float(np.log(1.1)), kind="ranks"),
        exchange=_PLACES,
        picture=_PICTURE,
    ),
    Claim(
        28,
        "toedit-cliff",
        "toedit",
        "The last quarter of human text is worth most: loss rises steeply only where nearly all data are synthetic.",
        "Perplexity 27.6 at 75%, 51.9 at 100%",
        "rise of test loss per unit share from 75% to 100%, minus that from 0 to 75%",
        "test_loss",
        "nats per unit share",
        Rule("rises", 0.05),
        NATS,
        (SHARES.name,),
        cliff,
        exchange=_PLACES,
        picture=_PICTURE,
    ),
)
