"""In-context Markov chains, drawn. The floor is the Bayes predictor with the prior that the matrices are drawn from."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, UInt64

from byrote.checkpoints.lab.sequences import Sequences, below, first_over, other_than, uniform, without_blocks
from byrote.checkpoints.lab.sources.contract import CODES
from byrote.checkpoints.lab.sources.markov import Markov

_TINY = 1e-300  # a row of which every weight underflows is one-hot on the largest


def n_words(source: Markov) -> int:
    """Random words a sequence takes: its matrix, and one a position."""
    return n_private(source) + source.n_ctx


def n_private(source: Markov) -> int:
    """Words that say what a sequence's matrix is; the others walk."""
    return (source.d_vocab - 1) ** 2


def drawn(source: Markov, words: UInt64[np.ndarray, "n k"]) -> Sequences:
    """The sequences of these random words."""
    n, k = len(words), source.d_vocab - 1
    weights = _gamma(uniform(words[:, : k * k]).reshape(n, k, k), source.concentration)
    cumulative = weights.cumsum(2)
    cumulative /= cumulative[:, :, -1:]
    each = words[:, k * k :]
    states = np.empty((n, source.n_ctx), dtype=np.int64)
    states[:, 0] = below(each[:, 0], k)
    picks, rows = uniform(each), np.arange(n)
    for t in range(1, source.n_ctx):
        states[:, t] = first_over(picks[:, t], cumulative[rows, states[:, t - 1]])
    wide = np.full((n, source.n_ctx + 1), source.bos_token_id, dtype=np.int64)
    wide[:, 1:] = other_than(states, source.bos_token_id)
    return without_blocks(wide, _mechanism(states, k))


def _gamma(uniforms: Float[np.ndarray, "*shape"], concentration: float) -> Float[np.ndarray, "*shape"]:
    """Gamma variates of this shape by inversion; divided by their sum they are of a Dirichlet."""
    if concentration == 1:
        return np.maximum(-np.log1p(-uniforms), _TINY)
    from scipy import special

    return np.maximum(special.gammaincinv(concentration, uniforms), _TINY)


def _mechanism(states: Int[np.ndarray, "n n_ctx"], k: int) -> np.ndarray:
    """In context where the state before was left before; free at the first token and after a state left first."""
    n, n_ctx = states.shape
    left = np.zeros((n, k), dtype=bool)
    found = np.full((n, n_ctx + 1), CODES["free"], dtype=np.int8)
    found[:, 0] = CODES["bos"]
    rows = np.arange(n)
    for t in range(1, n_ctx):
        before = states[:, t - 1]
        found[:, t + 1] = np.where(left[rows, before], CODES["in_context"], CODES["free"])
        left[rows, before] = True
    return found


def floor(source: Markov, wide: Int[np.ndarray, "n width"]) -> Float[np.ndarray, "n width"]:
    """-log of (count of the transition + concentration) / (count of the state + states * concentration), nats.

    Edelman et al. 2024, equation 1, for any concentration; the first token costs log of the number of states.
    """
    n, width = wide.shape
    k, alpha = source.d_vocab - 1, source.concentration
    counts = np.zeros((n, source.d_vocab, source.d_vocab))
    possible, rows = wide != source.bos_token_id, np.arange(n)
    found = np.full((n, width), np.nan)
    for t in range(1, width):
        before, token = wide[:, t - 1], wide[:, t]
        seen = counts[rows, before]
        probability = (seen[rows, token] + alpha) / (seen.sum(1) + k * alpha)
        with np.errstate(divide="ignore"):
            found[:, t] = -np.log(np.where(possible[:, t], probability if t > 1 else 1 / k, 0.0))
        if t > 1:
            counts[rows, before, token] += 1
    return found
