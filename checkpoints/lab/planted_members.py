"""Where planted members stand, and what they are. No torch."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Int

from byrote.checkpoints.lab.arms.members import Planted, Subsets
from byrote.checkpoints.lab.batches import Batches, Places, draw
from byrote.checkpoints.lab.sequences import Sequences, below, other_than, random_words, without_blocks
from byrote.checkpoints.lab.sources.contract import CODES


def change(part: Planted | Subsets, batches: Batches, places: Places, first_step: int) -> Batches:
    """Batches in which members stand in place of fresh sequences."""
    uses, who = _schedule(part, places.seed, places.steps, places.n_fresh)
    n_steps = len(batches.wide)
    now = slice(
        *np.searchsorted(uses, (first_step * places.n_fresh, (first_step + n_steps) * places.n_fresh))
    )
    step, place = np.divmod(uses[now], places.n_fresh)
    wide = batches.wide.copy()
    wide[step - first_step, place] = places.pool.wide[who[now]]
    return replace(batches, wide=wide)


def members(part: Planted | Subsets, places: Places) -> Sequences:
    """All members, by number."""
    source, n = places.source, part.n_members
    shared = isinstance(part, Subsets)
    seed = part.table if isinstance(part, Subsets) else places.seed
    if part.tokens == "source":
        return draw(source, seed=seed, stream="pool", index=0, n=n)
    words = random_words(
        "shared members" if shared else "canaries", seed=seed, index=0, shape=(n, source.n_ctx)
    )
    wide = np.full((n, source.n_ctx + 1), source.bos_token_id, dtype=np.int64)
    wide[:, 1:] = other_than(below(words, source.d_vocab - 1), source.bos_token_id)
    mechanism = np.full(wide.shape, CODES["free"], dtype=np.int8)
    mechanism[:, 0] = CODES["bos"]
    return without_blocks(wide, mechanism)


def counted(part: Planted | Subsets, places: Places, n_steps: int) -> Int[np.ndarray, " members"]:
    """How often each member has been trained on in the first steps."""
    uses, who = _schedule(part, places.seed, places.steps, places.n_fresh)
    return np.bincount(who[: np.searchsorted(uses, n_steps * places.n_fresh)], minlength=part.n_members)


@lru_cache(maxsize=32)
def _schedule(
    part: Planted | Subsets, seed: int, steps: int, n_fresh: int
) -> tuple[Int[np.ndarray, " uses"], Int[np.ndarray, " uses"]]:
    """Places of the whole run that members take, ascending, and which member stands in each."""
    words = random_words("planted", seed=seed, index=0, shape=(1, steps * n_fresh))[0]
    taken = np.argsort(words, kind="stable")[: part.n_uses]
    if isinstance(part, Subsets):
        who = np.repeat(included_members(part, seed), part.times)
        taken = taken[: len(who)]
    else:
        number = np.arange(part.n_members)
        who = np.repeat(number, (1 << (number // part.per_count)) >> 1)
        mine = {"all": who >= 0, "even": who % 2 == 0, "odd": who % 2 == 1}[part.planted]
        taken, who = taken[mine], who[mine]
    order = np.argsort(taken)
    return taken[order], who[order]


def included_members(part: Subsets, seed: int) -> Int[np.ndarray, " included"]:
    """The members that the run of a seed is trained on, ascending: drawn without replacement, or whole experiments."""
    if part.experiments:
        return np.flatnonzero(np.repeat(included_experiments(part, seed), part.members // part.experiments))
    words = random_words(f"subsets/{part.table}", seed=seed, index=0, shape=(1, part.members))[0]
    return np.sort(np.argsort(words, kind="stable")[: part.n_included])


def included_experiments(part: Subsets, seed: int) -> Bool[np.ndarray, " experiments"]:
    """Which experiments the run of a seed is trained on: a row of a Hadamard matrix (Sylvester's), or its complement for odd seeds.

    Any two experiments are together in half of the rows, so that few seeds tell them apart where coins often would not. Rows are in
    an order that the table draws, and come again after all of them.
    """
    n_rows = 1 << part.experiments.bit_length()
    words = random_words(f"experiments/{part.table}", seed=0, index=0, shape=(1, n_rows))[0]
    row = int(np.argsort(words, kind="stable")[seed // 2 % n_rows])
    even = [(row & column).bit_count() % 2 == 0 for column in range(1, part.experiments + 1)]
    return np.array(even) != (seed % 2 == 1)
