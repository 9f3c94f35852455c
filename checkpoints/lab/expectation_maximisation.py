"""One iteration of ReST-EM: samples of the last model that a reward accepts, and the weights of the base. Torch."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms.rest_em import RestEM
from byrote.checkpoints.lab.batches import INITIAL, Places, draw
from byrote.checkpoints.lab.continuing import all_weights
from byrote.checkpoints.lab.generator import sample, sampled
from byrote.checkpoints.lab.inputs import Made, Runs
from byrote.checkpoints.lab.other_run import OtherRun
from byrote.checkpoints.lab.selection import mean_score, scores_of
from byrote.checkpoints.lab.sequences import random_words

N_REFERENCE = {"base": 1024, "real": 4096}  # sequences that say what a good score is


def inputs(part: RestEM, places: Places, runs: Runs) -> Made:
    """Accepted samples, and the base's weights.

    Returns:
        `tokens`, and the weights by their names with `INITIAL` in front; facts: which weights were sampled and begun with,
        `reward_from`, the score from which on a sample is accepted (nats), `accepted_frac` of the samples, and mean scores.

    Raises:
        ByroteError: the generator is of another iteration than the one before, a run cannot be read, or no sample is accepted.
    """
    base, run = runs(part.base, 0), runs(part.generator, part.step)
    if part.generation != run.generation + 1:
        raise ByroteError(
            f"the generator {run.name} is iteration {run.generation}, but this arm is declared as iteration {part.generation}",
            help=f"write generation = {run.generation + 1}, or name another generator",
        )
    drawn = sampled(part, places, run, part.corpus * part.candidates).wide
    scores = scores_of(part.score, drawn, source=places.source, seed=places.seed)
    least = reward_from(part, places, base)
    accepted = scores >= least
    if not accepted.any():
        raise ByroteError(
            f"the reward accepts none of {len(drawn):,} samples of {run.name}",
            help='use a lower quantile, more candidates, a generator trained for longer, or reference = "base"',
        )
    rows = chosen_rows(
        accepted, size=part.corpus, how=part.accepted, seed=places.seed, iteration=part.generation
    )
    weights = {f"{INITIAL}{name}": array for name, array in all_weights(base).items()}
    facts = {
        "base": base.facts(),
        "generator": run.facts(),
        "reward_from": least,
        "accepted_frac": float(accepted.mean()),
        "mean_score_drawn": mean_score(scores),
        "mean_score_chosen": mean_score(scores[rows]),
    }
    return Made({"tokens": drawn[rows], **weights}, facts)


def reward_from(part: RestEM, places: Places, base: OtherRun) -> float:
    """The score that a sample has to reach, nats: the quantile of those of the base's samples, or of real sequences.

    Neither of them is trained on.
    """
    n, source, seed = N_REFERENCE[part.reference], places.source, places.seed
    if part.reference == "real":
        wide = draw(source, seed=seed, stream="pool", index=0, n=n).wide
    else:
        wide = sample(
            base,
            seed=seed,
            purpose="reference",
            n=n,
            n_ctx=source.n_ctx,
            temperature=part.temperature,
            top_k=part.top_k,
        ).wide
    scores = np.sort(scores_of(part.score, wide, source=source, seed=seed))
    return float(scores[min(int(part.quantile * n), n - 1)])


def chosen_rows(
    accepted: Bool[np.ndarray, " n"], *, size: int, how: str, seed: int, iteration: int
) -> Int[np.ndarray, " chosen"]:
    """The first samples that are accepted, or as many at random; at most `size`, in their own order."""
    many = min(size, int(accepted.sum()))
    if how == "reward":
        return np.flatnonzero(accepted)[:many]
    words = random_words("rest_em", seed=seed, index=iteration, shape=(1, len(accepted)))[0]
    return np.sort(np.argsort(words, kind="stable")[:many])
