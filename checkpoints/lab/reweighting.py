"""Weights of documents by their n-grams: n-grams that lose their correlation, documents that repeat others left out. No torch.

1. an n-gram (c, b) is a context c of n - 1 tokens and the token b after it; BOS is in none
2. x of a document = how often b follows c in it, less how often c stands before anything times the share q of b among all
   tokens that follow a context; the weighted sum of x is 0 just where P(b | c) = q. Beside it y = how often b stands, less q
   times the tokens: with both sums 0 the weighted P(b) is still q, so that c and b are independent
3. of all weights with these sums 0, those of least Kullback-Leibler divergence from equal ones are proportional to exp(x . l)
   (entropy balancing, Hainmueller 2012); l is the least of a convex function, found by Newton's method with halved steps
4. the corpus has each document floor or ceil of (size times weight) times (systematic sampling, one uniform number)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms.reweighted import Reweighted
from byrote.checkpoints.lab.batches import Places, draw
from byrote.checkpoints.lab.inputs import Made, Runs
from byrote.checkpoints.lab.sequences import random_words, uniform

_ITERATIONS, _SMALL, _FARTHEST = 200, 1e-10, 60.0


class Pair(NamedTuple):
    """An n-gram: context and token, by the names that `contexts_of` gives contexts.

    Attributes:
        context, token: of it.
        expected: share of the token among all that follow a context.
    """

    context: int
    token: int
    expected: float


def inputs(part: Reweighted, places: Places, runs: Runs) -> Made:
    """The corpus.

    Returns:
        `tokens` [size, width]; facts: `effective_frac`, the effective number of candidates (1 / sum of squared weights) over
        their number, `used_frac` of candidates that are in the corpus, `distinct_frac` of its documents; of "correlation"
        `ratio_before`, `ratio_weighted` and `ratio_after`, the mean over the n-grams of P(b | c) / P(b) in the candidates,
        under the weights (1 to rounding) and in the corpus; of "duplicates" `seen_frac_before` and `seen_frac_after`, n-grams
        that stood in an earlier document, over n-grams.

    Raises:
        ByroteError: no weights take these n-grams' correlation away.
    """
    n = part.corpus * part.candidates
    wide = draw(places.source, seed=places.seed, stream="train", index=0, n=n).wide
    if part.n >= wide.shape[1] - 1:
        raise ByroteError(
            f"documents of {wide.shape[1] - 1} tokens have no {part.n}-grams to be weighted by",
            help="use a smaller n",
        )
    words = random_words(f"reweighted/{places.number}", seed=places.seed, index=0, shape=(1, n + 1))[0]
    order = np.argsort(words[:n], kind="stable") if part.weights == "shuffled" else np.arange(n)
    facts: dict[str, float | None]
    if part.by == "duplicates":
        retained = not_seen_before(wide, n=part.n, most=part.most)
        weights = retained / retained.sum()
        rows = np.sort(np.flatnonzero(retained[order])[: part.corpus])
        facts = {
            "seen_frac_before": seen_before(wide, part.n),
            "seen_frac_after": seen_before(wide[rows], part.n),
        }
    else:
        contexts = contexts_of(wide, part.n)
        pairs = strongest(contexts, wide, n=part.n, many=part.ngrams)
        weights = balanced(features(contexts, wide, pairs, n=part.n))[order]
        rows = sampled_rows(weights, part.corpus, float(uniform(words[n:])[0]))
        counts = np.bincount(rows, minlength=n)
        weightings = (np.full(n, 1 / n), weights, counts / counts.sum())
        before, under, after = (mean_ratio(contexts, wide, pairs, one, n=part.n) for one in weightings)
        facts = {"ratio_before": before, "ratio_weighted": under, "ratio_after": after}
    shared = {
        "effective_frac": float(1 / (weights**2).sum() / n),
        "used_frac": len(np.unique(rows)) / n,
        "distinct_frac": len(np.unique(wide[rows], axis=0)) / len(rows),
    }
    return Made({"tokens": wide[rows]}, {**shared, **facts})


def contexts_of(wide: Int[np.ndarray, "docs width"], n: int) -> Int[np.ndarray, "docs places"]:
    """Names of the n - 1 tokens before each token from the n-th after BOS on: equal for equal ones, from 0."""
    windows = np.lib.stride_tricks.sliding_window_view(wide[:, 1:-1], n - 1, axis=1)
    _, names = np.unique(windows.reshape(-1, n - 1), axis=0, return_inverse=True)
    return names.reshape(windows.shape[:2])


def strongest(
    contexts: Int[np.ndarray, "docs places"], wide: Int[np.ndarray, "docs width"], *, n: int, many: int
) -> list[Pair]:
    """The n-grams that add most to the mutual information of a token and its context, the strongest first."""
    tokens = wide[:, n:]
    base = int(tokens.max()) + 1
    codes, counts = np.unique(contexts * base + tokens, return_counts=True)
    context, token = np.divmod(codes, base)
    total = tokens.size
    of_token = np.bincount(tokens.ravel(), minlength=base) / total
    of_context = np.bincount(contexts.ravel()) / total
    share = counts / total
    information = share * np.log(share / (of_token[token] * of_context[context]))
    best = np.argsort(-information, kind="stable")[:many]
    return [Pair(int(context[k]), int(token[k]), float(of_token[token[k]])) for k in best]


def features(
    contexts: Int[np.ndarray, "docs places"],
    wide: Int[np.ndarray, "docs width"],
    pairs: list[Pair],
    *,
    n: int,
) -> Float[np.ndarray, "docs features"]:
    """What has to sum to 0 over weighted documents: x of every n-gram, then y of every different token of them."""
    tokens = wide[:, n:]
    x = [((contexts == c) * ((tokens == b) - q)).sum(1) for c, b, q in pairs]
    of = {b: q for _, b, q in pairs}
    y = [((tokens == b) - q).sum(1) for b, q in of.items()]
    return np.stack([*x, *y], axis=1).astype(np.float64)


def balanced(x: Float[np.ndarray, "docs features"]) -> Float[np.ndarray, " docs"]:
    """The weights nearest to equal ones under which every feature sums to 0; they sum to 1.

    Raises:
        ByroteError: there are none.
    """
    scale = np.abs(x).max(0)
    x = x / np.where(scale > 0, scale, 1.0)
    at = np.zeros(x.shape[1])
    value, weights = _tilted(x, at)
    for _ in range(_ITERATIONS):
        slope = weights @ x
        if np.abs(slope).max() < _SMALL:
            return weights
        spread = (weights[:, None] * x).T @ x - np.outer(slope, slope)
        step = -np.linalg.pinv(spread, hermitian=True) @ slope
        length = 1.0
        while (found := _tilted(x, at + length * step))[0] > value + 1e-4 * length * (
            slope @ step
        ) and length > 1e-9:
            length /= 2
        at, (value, weights) = at + length * step, found
        if np.abs(at).max() > _FARTHEST:
            break
    raise ByroteError(
        "no weighting of these documents removes the correlation of these n-grams",
        help="use fewer ngrams, or more candidates",
    )


def _tilted(
    x: Float[np.ndarray, "docs features"], at: Float[np.ndarray, " features"]
) -> tuple[float, Float[np.ndarray, " docs"]]:
    """log of the mean of exp(x . at), and its derivative by each document's share: the weights."""
    tilt = x @ at
    top = float(tilt.max())
    raised = np.exp(tilt - top)
    return top + float(np.log(raised.mean())), raised / raised.sum()


def sampled_rows(weights: Float[np.ndarray, " docs"], size: int, start: float) -> Int[np.ndarray, " size"]:
    """Documents in ascending order, each floor or ceil of (size times its weight) times.

    Args:
        weights: sum to 1.
        size: how many.
        start: uniform in [0, 1).
    """
    ends = np.cumsum(weights) * size
    ends[-1] = size  # whatever rounding says
    return np.searchsorted(ends, start + np.arange(size), side="right").clip(max=len(weights) - 1)


def mean_ratio(
    contexts: Int[np.ndarray, "docs places"],
    wide: Int[np.ndarray, "docs width"],
    pairs: list[Pair],
    weights: Float[np.ndarray, " docs"],
    *,
    n: int,
) -> float | None:
    """Mean over the n-grams of P(b | c) / P(b) in weighted documents; None where one's context or token has no weight."""
    tokens = wide[:, n:]
    found = []
    for c, b, _ in pairs:
        here, there = contexts == c, tokens == b
        both, context, token = (float(weights @ one.sum(1)) for one in (here & there, here, there))
        if context * token <= 0:
            return None
        found.append(both * tokens.shape[1] / (context * token))
    return float(np.mean(found))


def _grams(wide: Int[np.ndarray, "docs width"], n: int) -> Int[np.ndarray, "docs places"]:
    """Names of the n-grams of documents, BOS apart."""
    windows = np.lib.stride_tricks.sliding_window_view(wide[:, 1:], n, axis=1)
    _, names = np.unique(windows.reshape(-1, n), axis=0, return_inverse=True)
    return names.reshape(windows.shape[:2])


def not_seen_before(wide: Int[np.ndarray, "docs width"], *, n: int, most: float) -> Bool[np.ndarray, " docs"]:
    """Which documents are retained: those of whose n-grams at most a share `most` stood in documents retained before."""
    grams = _grams(wide, n)
    seen = np.zeros(int(grams.max()) + 1, dtype=bool)
    retained = np.zeros(len(wide), dtype=bool)
    for row, mine in enumerate(grams):
        if seen[mine].mean() <= most:
            retained[row] = True
            seen[mine] = True
    return retained


def seen_before(wide: Int[np.ndarray, "docs width"], n: int) -> float:
    """Share of the n-grams of documents that stood in an earlier one."""
    grams = _grams(wide, n)
    row = np.broadcast_to(np.arange(len(wide))[:, None], grams.shape)
    first = np.full(int(grams.max()) + 1, len(wide))
    np.minimum.at(first, grams.ravel(), row.ravel())
    return float((first[grams] < row).mean())
