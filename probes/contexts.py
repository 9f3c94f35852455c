"""How many windows of real text are shown, and in which order: until a mean is known well enough. No torch.

The loss of one token of text varies by several nats, so that the in-context learning score of 32 windows is known to
0.7 nats, and windows of one document are more alike than others. Windows come in one fixed order, a first one of every
document before a second one of any, and a number on 32 is 32 of the 512 that a longer one shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, Int

from byrote.checkpoints.token_sets import TokenSets
from byrote.probes.statistics import bootstrap_mean
from byrote.probes.wording import counted, number, step_number

CONTEXT_TOKENS = 512  # of the founding paper's contexts
RUNGS = (32, 64, 128, 256, 512)  # windows that are tried, so that runs which need about as many show the same
MOST_WINDOWS = RUNGS[-1]
HALF_WIDTH_NATS = 0.1
MIN_DOCUMENTS = 16  # below it, documents are too few to be resampled, and their windows are


def contexts_in_order(
    token_sets: TokenSets, *, n_ctx: int, seed: int
) -> tuple[Int[np.ndarray, "n width"], Int[np.ndarray, " n"]]:
    """Up to 512 windows of up to 512 tokens, and the document of each; those of an earlier sweep as they are.

    Args:
        token_sets: with real text.
        n_ctx: the model's context.
        seed: of the order of documents and of the windows in each.
    """
    if token_sets.contexts is not None:
        return token_sets.contexts
    assert token_sets.natural is not None, "there is text"
    document = token_sets.natural_document
    if document is None:  # every window is a document of its own
        document = np.arange(len(token_sets.natural))
    rows = np.random.default_rng([seed, 14]).permutation(len(document))
    rows = rows[np.argsort(_turn(document[rows]), kind="stable")][:MOST_WINDOWS]
    return token_sets.natural[rows][:, : min(n_ctx, CONTEXT_TOKENS)], document[rows]


def _turn(document: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The how-manieth window of its document each one is, from 0."""
    order = np.argsort(document, kind="stable")
    ordered = document[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    turn = np.empty(len(document), dtype=np.int64)
    turn[order] = np.arange(len(document)) - np.repeat(starts, np.diff(starts, append=len(document)))
    return turn


def by_document(
    samples: Float[np.ndarray, n * k], document: Int[np.ndarray, " n"]
) -> Float[np.ndarray, n * k]:
    """Means over the windows of each document, at its first window, NaN at the others: what is resampled are documents.

    Args:
        samples: one row per window.
        document: of each window; of fewer than `MIN_DOCUMENTS` the windows are left as they are.
    """
    names, first, of = np.unique(document, return_index=True, return_inverse=True)
    if len(names) < MIN_DOCUMENTS or len(names) == len(document):
        return samples
    total = np.zeros((len(names), *samples.shape[1:]))
    np.add.at(total, of, samples)
    out = np.full(samples.shape, np.nan)
    out[first] = total / np.bincount(of).reshape(-1, *[1] * (samples.ndim - 1))
    return out


def half_width(samples: Float[np.ndarray, " n"], document: Int[np.ndarray, " n"], *, seed: int) -> float:
    """Half the width of the mean's 95% interval, documents resampled."""
    found = bootstrap_mean(by_document(samples, document)[:, None], seed=seed)
    return float(found.hi[0] - found.lo[0]) / 2


def windows_needed(
    score: Callable[[slice], Float[np.ndarray, " m"]], document: Int[np.ndarray, " n"], *, seed: int
) -> tuple[int, float]:
    """How many windows are shown until the half-width of the mean is at most 0.1 nats, and what it comes to.

    Args:
        score: the value of some windows, in nats; each is asked for once.
        document: of each window, in order.
        seed: of the resampling.
    """
    found, reached = np.zeros(0), float("inf")
    for rung in _rungs(len(document)):
        found = np.concatenate([found, score(slice(len(found), rung))])
        reached = half_width(found, document[:rung], seed=seed)
        if not reached > HALF_WIDTH_NATS:  # NaN where the context is too short for the score
            break
    return len(found), reached


def contexts_note(document: Int[np.ndarray, " n"], reached: float, *, step: int) -> str:
    """How many windows icl_score is shown, and how well that makes it known.

    Args:
        document: of each window shown.
        reached: half-width in nats at `step`; NaN where it has no score.
    """
    windows, documents = counted(len(document), "window"), counted(len(np.unique(document)), "document")
    if not reached > HALF_WIDTH_NATS:
        enough = f"at most {HALF_WIDTH_NATS} nats" if reached <= HALF_WIDTH_NATS else "not known"
    else:
        limit = "the most" if len(document) == MOST_WINDOWS else "all there are"
        enough = f"{number(reached)} nats, above {HALF_WIDTH_NATS}; these are {limit}"
    return f"icl_score: {windows} of {documents}; half of its 95% interval at step {step_number(step)} is {enough}"


def _rungs(n: int) -> Iterator[int]:
    yield from (rung for rung in RUNGS if rung < n)
    yield min(n, MOST_WINDOWS)
