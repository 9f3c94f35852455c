"""Bigrams with triggers, drawn. The floor is exact: over which tokens are triggers, and over what follows them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from byrote.checkpoints.lab.sequences import Sequences, below, first_over, other_than, uniform, without_blocks
from byrote.checkpoints.lab.sources.contract import CODES
from byrote.checkpoints.lab.sources.mentions import walk_table
from byrote.checkpoints.lab.sources.trigger_bigrams import TriggerBigrams


def n_words(source: TriggerBigrams) -> int:
    """Random words a sequence takes: an order of all tokens, what follows each trigger, and one a position."""
    return n_private(source) + source.n_ctx


def n_private(source: TriggerBigrams) -> int:
    """Words that say what a sequence's triggers are and what follows them; the others walk."""
    return source.d_vocab - 1 + source.triggers


def drawn(source: TriggerBigrams, words: UInt64[np.ndarray, "n k"]) -> Sequences:
    """The sequences of these random words."""
    n, n_ids, bos = len(words), source.d_vocab - 1, source.bos_token_id
    table, rows = walk_table(source), np.arange(n)
    chosen = np.tile(np.arange(source.triggers), (n, 1))  # by rank: the most frequent
    if source.random_triggers:
        chosen = np.argsort(words[:, :n_ids], axis=1, kind="stable")[:, : source.triggers]
    follower = np.full((n, source.d_vocab), -1)
    own = other_than(below(words[:, n_ids : n_ids + source.triggers], n_ids), bos)
    np.put_along_axis(follower, other_than(chosen, bos), own, 1)
    picks = uniform(words[:, n_ids + source.triggers :])
    wide = np.full((n, source.n_ctx + 1), bos, dtype=np.int64)
    mechanism = np.full(wide.shape, CODES["bos"], dtype=np.int8)
    seen = np.zeros((n, source.d_vocab), dtype=bool)
    for t in range(1, source.n_ctx + 1):
        before = wide[:, t - 1]
        walked, forced = first_over(picks[:, t - 1], table.cumulative[before]), follower[rows, before]
        wide[:, t] = np.where(forced >= 0, forced, walked)
        by_trigger = np.where(seen[rows, before], CODES["copy"], CODES["first_mention"])
        listed = (table.successors[before] == walked[:, None]).any(1)
        by_table = np.where(listed, CODES["table"], CODES["rare_table"])
        by_table = np.where(before == bos, CODES["free"], by_table)
        mechanism[:, t] = np.where(forced >= 0, by_trigger, by_table)
        seen[rows, before] = True
    return without_blocks(wide, mechanism)


def pairs(source: TriggerBigrams) -> Int[np.ndarray, "n 2"]:
    """Pairs of ids of which the second is one of the first's successors by the table."""
    ids = np.delete(np.arange(source.d_vocab), source.bos_token_id)
    followers = walk_table(source).successors[ids]
    found = np.stack(np.broadcast_arrays(ids[:, None], followers), axis=-1).reshape(-1, 2)
    return found[found[:, 0] != found[:, 1]]


def floor(source: TriggerBigrams, wide: Int[np.ndarray, "n width"]) -> Float[np.ndarray, "n width"]:
    """-log P(token | those before it), nats; inf from a token that the source cannot produce on.

    `odds` is, for every token v, log P(what followed v | v is a trigger) - log P(what followed v | v is none), and the
    log probability of a set of triggers is the sum of its odds, up to a constant.
    """
    n, width = wide.shape
    table, n_ids, rows = walk_table(source).probability, source.d_vocab - 1, np.arange(n)
    odds = np.zeros((n, source.d_vocab))
    odds[:, source.bos_token_id] = -np.inf
    fixed = np.zeros(source.d_vocab, dtype=bool)
    fixed[other_than(np.arange(source.triggers), source.bos_token_id)] = not source.random_triggers
    follower = np.full((n, source.d_vocab), -1)
    possible = wide != source.bos_token_id
    found = np.full((n, width), np.nan)
    for t in range(1, width):
        before, token = wide[:, t - 1], wide[:, t]
        by_table, known = table[before, token], follower[rows, before]
        by_trigger = np.where(known >= 0, (known == token).astype(float), 1 / n_ids)
        triggers = _is_trigger(source, odds, before, fixed)
        with np.errstate(divide="ignore", invalid="ignore"):
            probability = triggers * by_trigger + (1 - triggers) * by_table
            found[:, t] = -np.log(np.where(possible[:, t], probability, 0.0))
            odds[rows, before] += np.log(by_trigger) - np.log(by_table)
        odds[:, source.bos_token_id] = -np.inf
        follower[rows, before] = token
    return found


def _is_trigger(
    source: TriggerBigrams,
    odds: Float[np.ndarray, "n d_vocab"],
    token: Int[np.ndarray, " n"],
    fixed: Bool[np.ndarray, " d_vocab"],
) -> Float[np.ndarray, " n"]:
    """P(a token is a trigger | what followed every token so far)."""
    if not source.random_triggers:
        return fixed[token].astype(float)
    others, rows = odds.copy(), np.arange(len(odds))
    others[rows, token] = -np.inf
    without = _log_symmetric(others, source.triggers)
    with_it = odds[rows, token] + without[:, source.triggers - 1]
    return np.exp(with_it - np.logaddexp(with_it, without[:, source.triggers]))


def _log_symmetric(odds: Float[np.ndarray, "n d_vocab"], degree: int) -> Float[np.ndarray, "n degree_and_1"]:
    """Logs of elementary symmetric polynomials, degrees 0 to `degree`: of sums over sets of products of exp(odds)."""
    found = np.full((len(odds), degree + 1), -np.inf)
    found[:, 0] = 0.0
    for column in odds.T:
        found[:, 1:] = np.logaddexp(found[:, 1:], column[:, None] + found[:, :-1])
    return found
