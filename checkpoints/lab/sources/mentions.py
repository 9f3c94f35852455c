"""Names, drawn: a walk through a bigram table, interrupted by mentions of the document's one phrase.

The floor is exact: a forward algorithm over what the tokens do not say, namely where the phrase was first mentioned, how
long it is, and how far into a later mention a position is.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from byrote.checkpoints.lab.sequences import (
    Sequences,
    below,
    drawn_without_replacement,
    first_over,
    happens,
    other_than,
    random_words,
    without_blocks,
)
from byrote.checkpoints.lab.sources.contract import CODES
from byrote.checkpoints.lab.sources.names import Names
from byrote.checkpoints.lab.sources.trigger_bigrams import TriggerBigrams


class Table(NamedTuple):
    """What follows what.

    Attributes:
        successors: of each id, the likeliest first.
        odds: P(successor | the successors decide), by its place.
        background: probability of each id where the background decides; BOS has none.
        probability: P(next | id), of both together; the row of BOS is the background.
        cumulative: its running sum, which ends in 1.
    """

    successors: Int[np.ndarray, "d_vocab k"]
    odds: Float[np.ndarray, " k"]
    background: Float[np.ndarray, " d_vocab"]
    probability: Float[np.ndarray, "d_vocab d_vocab"]
    cumulative: Float[np.ndarray, "d_vocab d_vocab"]


def zipf_table(
    *, purpose: str, d_vocab: int, successors: int, zipf: float, background_frac: float, table: int, bos: int
) -> Table:
    """A table drawn by name and number: successors without replacement, with the background's odds.

    Args:
        purpose: of the random words.
        d_vocab: ids the table is about, BOS included.
        successors: of each id.
        zipf: exponent of the background's odds by rank; the rank of an id is its number, BOS apart.
        background_frac: probability of the background.
        table: which of the tables of that purpose.
        bos: never follows anything; what follows it is the background.
    """
    weights = 1.0 / np.arange(2, d_vocab + 1) ** zipf
    words = random_words(purpose, seed=table, index=0, shape=(d_vocab, d_vocab - 1))
    ids = other_than(drawn_without_replacement(words, weights, successors), bos)
    background = np.zeros(d_vocab)
    background[np.arange(d_vocab) != bos] = weights / weights.sum()
    odds = 0.5 ** np.arange(successors)
    odds /= odds.sum()
    probability = np.tile(background_frac * background, (d_vocab, 1))
    np.put_along_axis(
        probability, ids, np.take_along_axis(probability, ids, 1) + (1 - background_frac) * odds, 1
    )
    probability[bos] = background
    cumulative = probability.cumsum(1)
    return Table(ids, odds, background, probability, cumulative / cumulative[:, -1:])


@lru_cache(maxsize=16)
def walk_table(source: Names | TriggerBigrams) -> Table:
    """The table that a source walks through where no phrase or trigger decides, the same for every seed."""
    return zipf_table(
        purpose=f"{source.name}/table",
        d_vocab=source.d_vocab,
        successors=source.successors,
        zipf=source.zipf,
        background_frac=source.background_frac,
        table=source.table,
        bos=source.bos_token_id,
    )


def n_words(source: Names) -> int:
    """Random words a sequence takes: length and tokens of the phrase, then one a position."""
    return n_private(source) + source.n_ctx


def n_private(source: Names) -> int:
    """Words that say what a sequence's phrase is; the others say where it is mentioned, and what stands between."""
    return 1 + source.phrase_max


def drawn(source: Names, words: UInt64[np.ndarray, "n k"]) -> Sequences:
    """The sequences of these random words."""
    table, n = walk_table(source), len(words)
    length = source.phrase_min + below(words[:, 0], source.phrase_max - source.phrase_min + 1)
    phrase = other_than(below(words[:, 1 : 1 + source.phrase_max], source.d_vocab - 1), source.bos_token_id)
    each = words[:, 1 + source.phrase_max :]
    starts = happens(each, source.start_frac)
    picks = (each >> np.uint64(32)) * 2.0**-32
    wide = np.full((n, source.n_ctx + 1), source.bos_token_id, dtype=np.int64)
    mechanism = np.full(wide.shape, CODES["bos"], dtype=np.int8)
    place, seen = np.full(n, -1), np.zeros(n, dtype=bool)  # in the phrase, -1 outside it
    for t in range(1, source.n_ctx + 1):
        before = wide[:, t - 1]
        walked = first_over(picks[:, t - 1], table.cumulative[before])
        place = np.where((place < 0) & starts[:, t - 1], 0, place)
        inside = place >= 0
        wide[:, t] = np.where(inside, phrase[np.arange(n), np.maximum(place, 0)], walked)
        mechanism[:, t] = np.where(
            inside, _in_phrase(seen, place), _in_table(table, before, walked, source.bos_token_id)
        )
        place += inside
        over = inside & (place >= length)
        seen |= over
        place[over] = -1
    return without_blocks(wide, mechanism)


def _in_phrase(seen: Bool[np.ndarray, " n"], place: Int[np.ndarray, " n"]) -> np.ndarray:
    later = np.where(place > 0, CODES["copy"], CODES["copy_start"])
    return np.where(seen, later, CODES["first_mention"])


def _in_table(
    table: Table, before: Int[np.ndarray, " n"], token: Int[np.ndarray, " n"], bos: int
) -> np.ndarray:
    listed = (table.successors[before] == token[:, None]).any(1)
    return np.where(before == bos, CODES["free"], np.where(listed, CODES["table"], CODES["rare_table"]))


def pairs(source: Names) -> Int[np.ndarray, "n 2"]:
    """Pairs of ids of which the second is one of the first's successors."""
    ids = np.delete(np.arange(source.d_vocab), source.bos_token_id)
    followers = walk_table(source).successors[ids]
    found = np.stack(np.broadcast_arrays(ids[:, None], followers), axis=-1).reshape(-1, 2)
    return found[found[:, 0] != found[:, 1]]


def floor(source: Names, wide: Int[np.ndarray, "n width"]) -> Float[np.ndarray, "n width"]:
    """-log P(token | those before it), nats; inf from a token that the source cannot produce on.

    Hypotheses are pairs (first token of the first mention, length of the phrase): they say what the phrase is. `state`
    is the probability of each hypothesis and place in a later mention (0 outside) jointly with the tokens so far, divided
    by that of the tokens so far. `none` is the same of no mention having begun.
    """
    n, width = wide.shape
    lengths = np.arange(source.phrase_min, source.phrase_max + 1)
    any_token, start = 1 / (source.d_vocab - 1), source.start_frac
    walk = walk_table(source).probability[wide[:, :-1], wide[:, 1:]]
    possible = wide != source.bos_token_id
    state = np.zeros((n, width, len(lengths), source.phrase_max))
    first = np.zeros((n, width, len(lengths)))  # inside the first mention
    none = np.ones(n)
    found = np.full((n, width), np.nan)
    begun = np.arange(width)
    for t in range(1, width):
        table = walk[:, t - 1]
        first *= any_token
        first[:, t] = (none * start * any_token / len(lengths))[:, None]
        none = none * (1 - start) * table
        _go_on(state[:, :t], wide, t, lengths, start=start, table=table)
        done = (t - begun)[:, None] + 1 == lengths[None]  # the first mention ends with this token
        state[:, :, :, 0] += np.where(done, first, 0.0)
        first = np.where(done, 0.0, first)
        total = (none + first.sum((1, 2)) + state.sum((1, 2, 3))) * possible[:, t]
        with np.errstate(divide="ignore", invalid="ignore"):
            found[:, t] = -np.log(total)
            state /= total[:, None, None, None]
            first /= total[:, None, None]
            none = none / total
    return found


def _go_on(
    state: Float[np.ndarray, "n begun lengths places"],
    wide: Int[np.ndarray, "n width"],
    t: int,
    lengths: Int[np.ndarray, " lengths"],
    *,
    start: float,
    table: Float[np.ndarray, " n"],
) -> None:
    """One token more for all who know the phrase: by the table outside a mention, by the phrase inside one."""
    outside = state[..., 0] * (1 - start) * table[:, None, None]
    state[..., 0] *= start  # a mention begins with this token
    ended = np.zeros_like(outside)
    for place in reversed(range(state.shape[-1])):  # of this token in the phrase
        at = np.minimum(np.arange(state.shape[1]) + place, wide.shape[1] - 1)
        moved = state[..., place] * (wide[:, at] == wide[:, t, None])[:, :, None]
        over = place + 1 >= lengths
        ended += moved * over
        if place + 1 < state.shape[-1]:
            state[..., place + 1] = moved * ~over
    state[..., 0] = outside + ended
