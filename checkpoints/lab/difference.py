"""Real sequences chosen from more: by how much likelier a larger model finds them (MiniPLM, Gu et al. 2024), or by repeats. Torch."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int

from byrote.checkpoints.lab.arms.selected import Selected
from byrote.checkpoints.lab.batches import Places, draw
from byrote.checkpoints.lab.generator import CHUNK, loaded
from byrote.checkpoints.lab.inputs import Made, Runs
from byrote.checkpoints.lab.masks import seen_bigrams
from byrote.checkpoints.lab.other_run import OtherRun
from byrote.checkpoints.lab.selection import chosen, mean_score
from byrote.checkpoints.lab.sequences import random_words, uniform


def inputs(part: Selected, places: Places, runs: Runs) -> Made:
    """The candidates that are chosen, in their own order."""
    n = part.size(places)
    wide = draw(places.source, seed=places.seed, stream="train", index=0, n=n * part.candidates).wide
    made_from = {}
    if part.by == "difference":
        large, small = runs(part.large, 0), runs(part.small, 0)
        made_from = {"large": large.facts(), "small": small.facts()}
        scores = log_probability(large, wide) - log_probability(small, wide)
    elif part.by == "random":
        scores = uniform(random_words("selected", seed=places.seed, index=0, shape=(len(wide), 1)))[:, 0]
    else:
        scores = seen_bigrams(wide).sum(-1) * (1.0 if part.by == "most_repeats" else -1.0)
    best = chosen(scores, n)
    facts = {"mean_score_candidates": mean_score(scores), "mean_score_chosen": mean_score(scores[best])}
    return Made({"tokens": wide[best]}, {**made_from, **facts})


def log_probability(run: OtherRun, wide: Int[np.ndarray, "n width"]) -> Float[np.ndarray, " n"]:
    """log P(sequence | BOS) under the model of a run, nats."""
    model, found = loaded(run), []
    with torch.inference_mode():
        for start in range(0, len(wide), CHUNK):
            part = torch.from_numpy(np.ascontiguousarray(wide[start : start + CHUNK]))
            log_probs = model(part[:, :-1]).double().log_softmax(-1)
            found.append(log_probs.gather(-1, part[:, 1:, None])[..., 0].sum(-1).numpy())
    return np.concatenate(found)
