"""Finding 5, its first two parts: repetition is a delay, longest at an intermediate pool, which grows with the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from byrote.probes.claims.finding_grids import A_TENTH_LATER, POOLS, SETTINGS_REVISED, names_of
from byrote.probes.claims.record import Claim, Effects, Picture
from byrote.probes.claims.runs_table import Place, Runs
from byrote.probes.claims.seed_effects import final_values, in_every_setting, inverted_u, inverted_u_onsets
from byrote.probes.claims.synthetic_grids import NATS
from byrote.probes.degrade.verdicts import Rule

SEQUENCES = (128, 64, 32, 16, 8, 4, 1)
_ARMS = tuple(f"P{pool}" for pool in SEQUENCES)


def worst_pool(losses: Float[np.ndarray, " pools"]) -> float:
    """Natural logarithm of the pool that is worst: the top of the parabola, in the logarithm, through the highest loss and those
    beside it; the highest itself at either end.

    Args:
        losses: of `SEQUENCES`.
    """
    x, top = np.log(SEQUENCES), int(losses.argmax())
    if top in (0, len(x) - 1):
        return float(x[top])
    near = slice(top - 1, top + 2)
    a, b, _ = np.polyfit(x[near] - x[top], losses[near], 2)
    return float(x[top] - b / (2 * a)) if a < 0 else float(x[top])


def per_parameter(runs: Runs) -> Effects:
    """Worst pool per parameter of the larger model over that of the smaller, as a logarithm."""
    small, large = POOLS[0].sizes
    places: dict[str, list[Place]] = {small: [], large: []}
    for place in POOLS[0].places(*_ARMS):
        places[place.size].append(place)
    seeds = runs.seeds(*places[small], *places[large])
    pools = {
        size: np.array([worst_pool(row) for row in final_values(runs, mine, "test_loss", seeds)])
        for size, mine in places.items()
    }
    weights = {size: runs.fact(mine[0], "parameters") for size, mine in places.items()}
    ratio = (pools[large] - pools[small]) - math.log(weights[large] / weights[small])
    text = " and ".join(
        f"{np.exp(pools[size].mean()):.0f} sequences at {weights[size]:,.0f} weights" for size in places
    )
    return Effects(ratio, f"worst at {text}")


def _everywhere(effect: Callable[[Runs, Sequence[Place], str], Effects]) -> Callable[[Runs], Effects]:
    return lambda runs: in_every_setting(
        POOLS, lambda at: effect(runs, [at(arm) for arm in _ARMS], "test_loss")
    )


CLAIMS = (
    Claim(
        0,
        "finding-repeats-delay",
        "findings",
        "Repetition delays copying, longest at an intermediate pool: later than with hardly any repeats, and than with one sequence "
        "all the time.",
        "another trainer, 3 seeds, one size: step 400 without repeats, 1,400 with a pool of 64, never with 32 or 16, 1,000 with 1",
        "how many times later copying appears at the worst pool inside the range (by test loss of the other seeds) than at the later of "
        "both ends, in the data and width where that is least; final: the same of test loss",
        "test_loss",
        "nats",
        Rule("rises", 0.05),
        f"{A_TENTH_LATER}; of the final loss {NATS}",
        names_of(POOLS),
        _everywhere(inverted_u),
        _everywhere(inverted_u_onsets),
        Rule("rises", math.log(1.1), kind="ranks"),
        primary="onset",
        exchange=tuple(place for grid in POOLS for place in grid.places(*_ARMS)),
        picture=Picture(
            "doses", "test_loss", tuple(Place(POOLS[0].name, arm, "d16") for arm in ("none", *_ARMS))
        ),
        revised=SETTINGS_REVISED,
        full_only=True,
    ),
    Claim(
        0,
        "finding-repeats-pool",
        "findings",
        "The pool that is worst has a fixed number of tokens per parameter.",
        "the same trials: 0.11 and 0.08 tokens per parameter at widths 16 and 32, one seed at the larger",
        "worst pool per parameter of the model of width 32 over that of width 16, as a logarithm; worst by test loss, between pools by a "
        "parabola in their logarithm; one pool for both sizes would give -1.16",
        "test_loss",
        "as a logarithm of how many times larger",
        Rule("stays", math.log(2)),
        "a factor of two: one step of the grid of pools",
        (POOLS[0].name,),
        per_parameter,
        picture=Picture(
            "doses", "test_loss", tuple(Place(POOLS[0].name, arm, "d32") for arm in ("none", *_ARMS))
        ),
        full_only=True,
    ),
)
