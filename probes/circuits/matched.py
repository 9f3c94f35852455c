"""Random heads to hold against chosen ones: as many, from the same layers. No torch."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Head = tuple[int, int]
N_DRAWS = 20


@dataclass(frozen=True)
class Draws:
    """Random sets of heads, none of them holding a chosen one.

    Attributes:
        sets: distinct, each with as many heads per layer as the chosen set; sorted heads.
        n_possible: how many distinct sets there are; `sets` are all of them where that is not more than was asked for.
            0 where a layer has fewer other heads than were chosen from it.
    """

    sets: tuple[tuple[Head, ...], ...]
    n_possible: int


def matched_draws(chosen: Sequence[Head], *, n_heads: int, seed: int, n_draws: int = N_DRAWS) -> Draws:
    """Distinct random sets with as many heads in every layer as the chosen set, without the chosen heads.

    Args:
        chosen: the heads the random ones stand beside.
        n_heads: heads per layer of the model.
        seed: of the draws.
        n_draws: how many sets; all of them where there are not more.
    """
    taken, rng = set(chosen), np.random.default_rng([seed, 12, len(chosen)])
    wanted = Counter(layer for layer, _ in taken)
    free = {l: [(l, h) for h in range(n_heads) if (l, h) not in taken] for l in sorted(wanted)}
    n_possible = math.prod(math.comb(len(heads), wanted[l]) for l, heads in free.items()) if taken else 0
    if n_possible <= n_draws:
        per_layer = [itertools.combinations(heads, wanted[l]) for l, heads in free.items()] if taken else []
        everything = itertools.product(*per_layer) if n_possible else ()
        return Draws(tuple(tuple(itertools.chain(*parts)) for parts in everything), n_possible)
    sets: set[tuple[Head, ...]] = set()
    while len(sets) < n_draws:
        drawn = [heads[i] for l, heads in free.items() for i in rng.permutation(len(heads))[: wanted[l]]]
        sets.add(tuple(sorted(drawn)))
    return Draws(tuple(sorted(sets)), n_possible)
