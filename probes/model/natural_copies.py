"""Natural copies: loss on one paragraph of real text, eleven times over, beside a random one of the same length.

Source: Hernandez et al. 2022, arXiv:2205.10487: the copying evaluation is the loss on the first paragraph of a novel (1,463
characters), eleven times in one context; appendix D repeats it with 125 characters, to exclude effects of length. That the
mean goes over all tokens of the context is implied there, not stated. No text is shipped: the paragraphs are yours.

1. paragraph: the first p tokens of a window of `natural`, up to where the window begins to repeat itself (the lab's do).
   p = 365 tokens, about 1,460 characters of English at 4 a token, or as many as fit the context eleven times
2. short: the same with 31 tokens, about 125 characters
3. random: as long as 1 and as often, of ids drawn without replacement from those of `paragraph_copies`; with replacement
   where the paragraph is longer than there are ids
4. a context that cannot hold eleven copies of 12 tokens holds fewer copies, as in `paragraph_copies`; `copies`, `tokens`
   and `short_tokens` say what was shown
5. mean = over all tokens of all copies, as in the paper; first = over the first copy; later = over the others; by_copy = over
   the X-th copy. In these three the first token of each copy is left out, as in copy_curve: what stands before it does not
   say that the paragraph begins again. One value per paragraph; random and natural are paired
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from byrote.interp.model import HookedModel
from byrote.probes.memory.spans import losses
from byrote.probes.spec import NotMeasuredError, ProbeScores, probe
from byrote.probes.stimuli import COPIES, MIN_BLOCK, Stimulus

LONG_TOKENS, SHORT_TOKENS = 365, 31
MAX_PARAGRAPHS = 32


@probe(
    unit="nats",
    better="lower",
    stimulus=("natural", "paragraph_copies"),
    summary="Loss on a paragraph of real text eleven times over, a short one, and a random one: is text copied like noise?",
    chance="ln(number of usable tokens): guessing uniformly",
    metrics={
        "mean": "mean loss over all tokens of eleven copies of a paragraph of the text",
        "first": "mean loss on its first copy",
        "later": "mean loss on its other copies",
        "by_copy": "mean loss on the X-th copy",
        "short_mean": "mean, of a paragraph of 31 tokens (about 125 characters)",
        "short_first": "first, of the short paragraph",
        "short_later": "later, of the short paragraph",
        "short_by_copy": "by_copy, of the short paragraph",
        "random_mean": "mean, of random tokens as long as the paragraph",
        "random_first": "first, of the random tokens",
        "random_later": "later, of the random tokens",
        "random_by_copy": "by_copy, of the random tokens",
        "copies": "copies that the context holds",
        "tokens": "tokens of the paragraph",
        "short_tokens": "tokens of the short paragraph",
    },
    main_metric="mean",
    curve_axis="copy",
    position_start=1,
    units={"copies": "copies", "tokens": "tokens", "short_tokens": "tokens"},
    undirected=("copies", "tokens", "short_tokens"),
    settings=("copies", "tokens", "short_tokens"),
    details=("by_copy", "short_by_copy", "random_by_copy"),
    reads_as="mean is the copying score of the founding paper. later near first on text and not on random tokens: the text is "
    "known so well that copies add nothing. later near first on both: nothing is copied, as at the worst point of "
    "repeated-data training. Means of another number of copies or tokens are not comparable",
    not_measured="the context holds no two copies of a paragraph of 2 tokens",
    undefined="the loss is not finite, or no paragraph has so many copies",
    default=False,
    passes="3: paragraphs, short paragraphs and random ones, up to 32 each",
    order=142,
)
def natural_copies(
    model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int
) -> dict[str, ProbeScores]:
    """Show each paragraph several times over.

    Args:
        model: a loaded checkpoint.
        stimuli: "natural" and "paragraph_copies".
        seed: of the random paragraphs.

    Returns:
        Losses in nats per paragraph; `by_copy` and its kin with a position per copy, from 1.

    Raises:
        NotMeasuredError: the context holds no two copies.
    """
    text, ids = stimuli["natural"], np.unique(stimuli["paragraph_copies"].tokens[:, 1:])
    windows, start = text.tokens[:MAX_PARAGRAPHS], text.extra["second_block_start"][:MAX_PARAGRAPHS]
    rng = np.random.default_rng([seed, 14])
    scores: dict[str, ProbeScores] = {}
    chance = math.log(text.params["n_ids"])
    for prefix, longest in (("", LONG_TOKENS), ("short_", SHORT_TOKENS), ("random_", LONG_TOKENS)):
        m, p = copies_that_fit(model.shape.n_ctx, longest=longest)
        length = np.minimum(p, start - 1)
        shown = windows if prefix != "random_" else _random_like(windows, ids, rng, p)
        tokens, copy = tiled(shown, length, m=m)
        inside = copy * (np.diff(copy, axis=1, prepend=0) == 0)
        nll = losses(model, tokens).nll.double().numpy()
        curve = np.stack([_mean(nll, inside == x) for x in range(1, m + 1)], axis=1)
        found = {"mean": copy > 0, "first": inside == 1, "later": inside > 1}
        scores |= {
            f"{prefix}{name}": ProbeScores(_mean(nll, where), chance=chance) for name, where in found.items()
        }
        scores[f"{prefix}by_copy"] = ProbeScores(curve, axes=("position",), chance=chance, position_start=1)
        if not prefix:
            scores["copies"] = ProbeScores(np.full(len(tokens), float(m)))
        if prefix != "random_":
            scores[f"{prefix}tokens"] = ProbeScores(length.astype(np.float64))
    return scores


def copies_that_fit(n_ctx: int, *, longest: int) -> tuple[int, int]:
    """How often a paragraph is shown, and how many tokens it has: copies give way before it is shorter than 12 tokens.

    Raises:
        NotMeasuredError: not even two copies of two tokens fit.
    """
    room, m = n_ctx - 1, COPIES
    p = min(longest, room // m)
    if p < MIN_BLOCK:
        m = max(2, room // MIN_BLOCK)
        p = min(longest, room // m)
    if p < 2:
        raise NotMeasuredError(f"a context of {n_ctx} tokens holds no two copies of a paragraph")
    return m, p


def tiled(
    windows: Int[np.ndarray, "n width"], length: Int[np.ndarray, " n"], *, m: int
) -> tuple[Int[np.ndarray, "n pos"], Int[np.ndarray, "n next_pos"]]:
    """BOS and the first `length` tokens of each window `m` times; and the copy of every predicted token, 0 beyond the m-th."""
    offset = np.arange(m * int(length.max()))[None]
    body = np.take_along_axis(windows[:, 1:], offset % length[:, None], axis=1)
    copy = offset // length[:, None] + 1
    return np.concatenate([windows[:, :1], body], axis=1), np.where(copy <= m, copy, 0)


def _random_like(
    windows: Int[np.ndarray, "n width"], ids: Int[np.ndarray, " n_ids"], rng: np.random.Generator, p: int
) -> Int[np.ndarray, "n random_width"]:
    rows = [rng.choice(ids, size=p, replace=p > len(ids)) for _ in windows]
    return np.concatenate([windows[:, :1], np.stack(rows)], axis=1)


def _mean(values: Float[np.ndarray, "n next_pos"], where: np.ndarray) -> Float[np.ndarray, " n"]:
    return np.where(where, values, 0.0).sum(1) / where.sum(1)
