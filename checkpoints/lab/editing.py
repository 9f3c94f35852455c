"""Token editing (ToEdit, Zhu et al. 2024, arXiv:2412.14689): tokens that a prior expects are drawn anew from it. Torch for the prior alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int8
from torch import nn

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms.edited import Edited
from byrote.checkpoints.lab.batches import Places
from byrote.checkpoints.lab.generator import loaded
from byrote.checkpoints.lab.inputs import Made, Runs
from byrote.checkpoints.lab.masks import seen_bigrams
from byrote.checkpoints.lab.other_run import OtherRun
from byrote.checkpoints.lab.sequences import random_words, uniform
from byrote.checkpoints.lab.sources.contract import CODES

CHUNK = 512  # sequences that the prior reads at once; "as_many_elsewhere" counts in each


def inputs(part: Edited, places: Places, runs: Runs) -> Made:
    """The sequences of an editing arm, and what was changed in them.

    Args:
        part: the arm's.
        places: where it stands.
        runs: finds the prior.

    Returns:
        `tokens`, and `changed` (a token that is another than it was) for each but BOS; facts: `edited_frac`, tokens
        at which a new one was drawn over all, `changed_frac`, and what share of the edits hit copies, and of copies was hit.

    Raises:
        ByroteError: the sequences that the prior was trained on are asked for, and are not this arm's.
    """
    prior, size = runs(part.prior, part.step), part.size(places)
    originals = places.originals(part.corpus)
    wide, mechanism = originals.wide, originals.mechanism[:, 1:]
    before = _edited_before(part, prior, size)
    if before is not None:
        wide = before
    model, bos = loaded(prior), places.source.bos_token_id
    words = random_words(
        f"edited/{prior.generation}", seed=places.seed, index=0, shape=(size, wide.shape[1] - 1)
    )
    new, hit = np.empty_like(wide), np.zeros((size, wide.shape[1] - 1), dtype=bool)
    new[:, 0] = wide[:, 0]
    for start in range(0, size, CHUNK):
        rows = slice(start, start + CHUNK)
        probability = token_probabilities(model, wide[rows], bos=bos)
        expected = _of_token(probability, wide[rows])
        hit[rows] = chosen_tokens(
            expected, wide[rows], mechanism[rows], edited=part.edited, threshold=part.threshold
        )
        drawn = drawn_from_top(probability, uniform(words[rows]), top_k=part.top_k)
        new[rows, 1:] = np.where(hit[rows], drawn, wide[rows, 1:])
    changed, copies = new[:, 1:] != wide[:, 1:], mechanism == CODES["copy"]
    facts = {
        "edited_frac": float(hit.mean()),
        "changed_frac": float(changed.mean()),
        "edits_on_copies_frac": float((hit & copies).sum() / max(1, hit.sum())),
        "copies_edited_frac": float((hit & copies).sum() / max(1, copies.sum())),
    }
    return Made({"tokens": new, "changed": changed}, {**prior.facts(), **facts})


def token_probabilities(
    model: nn.Module, wide: Int[np.ndarray, "n width"], *, bos: int
) -> Float[np.ndarray, "n n_ctx d_vocab"]:
    """P(token | the unedited tokens before it) for every token but the first; BOS has none, in double precision."""
    with torch.inference_mode():
        logits = model(torch.from_numpy(np.ascontiguousarray(wide[:, :-1]))).double()
        logits[..., bos] = -torch.inf
        probability: Float[np.ndarray, "n n_ctx d_vocab"] = logits.softmax(-1).numpy()
    return probability


def chosen_tokens(
    expected: Float[np.ndarray, "n n_ctx"],
    wide: Int[np.ndarray, "n width"],
    mechanism: Int8[np.ndarray, "n n_ctx"],
    *,
    edited: str,
    threshold: float,
) -> Bool[np.ndarray, "n n_ctx"]:
    """Which tokens are drawn anew.

    Args:
        expected: the prior's probability of each token but the first.
        wide: token ids.
        mechanism: of each token but the first, by its code in `MECHANISMS`.
        edited: one of `EDITED`.
        threshold: that a token's probability has to reach.
    """
    hit = expected >= threshold
    if edited == "any":
        return hit
    if edited == "no_copies":
        return hit & (mechanism != CODES["copy"])
    repeated = seen_bigrams(wide)
    if edited == "repeats":
        return hit & repeated
    if edited == "no_repeats":
        return hit & ~repeated
    free = np.where(repeated, -1.0, expected).ravel()
    wanted = min(int(hit.sum()), int((~repeated).sum()))
    elsewhere = np.zeros(hit.size, dtype=bool)
    elsewhere[np.argsort(-free, kind="stable")[:wanted]] = True
    return elsewhere.reshape(hit.shape)


def drawn_from_top(
    probability: Float[np.ndarray, "*tokens d_vocab"], uniforms: Float[np.ndarray, "*tokens"], *, top_k: int
) -> Int[np.ndarray, "*tokens"]:
    """A token each from the `top_k` likeliest, renormalised, by inversion; ids decide between equals."""
    order = np.argsort(-probability, axis=-1, kind="stable")[..., :top_k]
    top = np.take_along_axis(probability, order, axis=-1)
    cumulative = top.cumsum(-1)
    place = (uniforms[..., None] * cumulative[..., -1:] >= cumulative).sum(-1)
    place = np.minimum(place, (top > 0).sum(-1) - 1)
    return np.take_along_axis(order, place[..., None], axis=-1)[..., 0]


def _of_token(
    probability: Float[np.ndarray, "n n_ctx d_vocab"], wide: Int[np.ndarray, "n width"]
) -> Float[np.ndarray, "n n_ctx"]:
    return np.take_along_axis(probability, wide[:, 1:, None], axis=-1)[..., 0]


def _edited_before(part: Edited, prior: OtherRun, size: int) -> Any:
    """What the prior was trained on, where that is what is edited."""
    if not part.again:
        return None
    tokens = prior.stored(part.name, "tokens")
    if tokens is None or len(tokens) != size:
        found = "no edited sequences" if tokens is None else f"{len(tokens):,} of them"
        raise ByroteError(
            f"the prior {prior.name} was trained on {found}, and {size:,} are to be edited again",
            help="name a run of the same arm with the same corpus, or write again = false",
        )
    return tokens.astype(np.int64)
