"""Graded text, drawn: a walk through a table and facts about two tokens, interrupted by mentions of private phrases.

The floor is exact. Phrases have ids of their own and are never adjacent, so tokens say where each mention is; what they
do not say is which of the document's phrases it is, and so the floor is a mixture over assignments of mentions to phrases.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from byrote.checkpoints.lab.sequences import (
    Sequences,
    below,
    first_over,
    happens,
    random_words,
    uniform,
    without_blocks,
)
from byrote.checkpoints.lab.sources.contract import CODES
from byrote.checkpoints.lab.sources.graded import Graded
from byrote.checkpoints.lab.sources.mentions import Table, zipf_table

_LOW_32 = np.uint64(0xFFFFFFFF)
_Known = tuple[
    tuple[int, ...], ...
]  # contents of the phrases that were mentioned, in the order of their first mention


@lru_cache(maxsize=8)
def graded_table(source: Graded) -> Table:
    """What follows one token of the table's ids, without facts; the background is of the same ids."""
    return zipf_table(
        purpose="graded/table",
        d_vocab=source.n_table_ids,
        successors=source.successors,
        zipf=source.zipf,
        background_frac=0.0,
        table=source.table,
        bos=source.bos_token_id,
    )


@lru_cache(maxsize=8)
def facts(source: Graded) -> Int[np.ndarray, "n_table_ids n_table_ids"]:
    """The fact of every two tokens: what follows them, drawn with the background's odds."""
    n = source.n_table_ids
    words = random_words("graded/facts", seed=source.table, index=0, shape=(n, n))
    cumulative = graded_table(source).background.cumsum()
    found = np.searchsorted(cumulative / cumulative[-1], uniform(words), side="right")
    return np.minimum(found, n - 1).astype(np.int64)


def n_words(source: Graded) -> int:
    """Random words a sequence takes: length and tokens of each phrase, then two a position."""
    return n_private(source) + 2 * source.n_ctx


def n_private(source: Graded) -> int:
    """Words that say what a sequence's phrases are; the others say what is mentioned where, and what stands between."""
    return source.phrases * (1 + source.phrase_max)


def drawn(source: Graded, words: UInt64[np.ndarray, "n k"]) -> Sequences:
    """The sequences of these random words."""
    n, n_each = len(words), 1 + source.phrase_max
    private = words[:, : source.phrases * n_each].reshape(n, source.phrases, n_each)
    length = source.phrase_min + below(private[:, :, 0], source.phrase_max - source.phrase_min + 1)
    phrase = source.n_table_ids + below(private[:, :, 1:], source.n_phrase_ids)
    each = words[:, source.phrases * n_each :].reshape(n, source.n_ctx, 2)
    starts = happens(each[:, :, 0], source.start_frac)
    which = below(each[:, :, 0], source.phrases)
    wide = np.full((n, source.n_ctx + 1), source.bos_token_id, dtype=np.int64)
    mechanism = np.full(wide.shape, CODES["bos"], dtype=np.int8)
    rows, current = np.arange(n), np.zeros(n, dtype=np.int64)
    place, seen = np.full(n, -1), np.zeros((n, source.phrases), dtype=bool)
    over = np.zeros(n, dtype=bool)  # a mention ended with the token before
    for t in range(1, source.n_ctx + 1):
        begins = (place < 0) & starts[:, t - 1] & ~over
        current = np.where(begins, which[:, t - 1], current)
        place = np.where(begins, 0, place)
        inside, two = place >= 0, _two_before(wide, t, source)
        walked = _walked(source, *two, each[:, t - 1, 1])
        wide[:, t] = np.where(inside, phrase[rows, current, np.maximum(place, 0)], walked)
        mechanism[:, t] = np.where(
            inside, _in_phrase(seen[rows, current], place), _in_table(source, *two, walked)
        )
        place += inside
        over = inside & (place >= length[rows, current])
        seen[rows[over], current[over]] = True
        place[over] = -1
    return without_blocks(wide, mechanism)


def _two_before(
    wide: Int[np.ndarray, "n width"], t: int, source: Graded
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The two tokens before `t`, the nearer last; -1 where one is BOS or of a phrase, or nothing."""
    first = wide[:, t - 2] if t > 1 else np.full(len(wide), source.bos_token_id)
    pair = np.stack([first, wide[:, t - 1]])
    one, other = np.where((pair == source.bos_token_id) | (pair >= source.n_table_ids), -1, pair)
    return one, other


def _in_phrase(seen: Bool[np.ndarray, " n"], place: Int[np.ndarray, " n"]) -> np.ndarray:
    later = np.where(place > 0, CODES["copy"], CODES["copy_start"])
    return np.where(seen, later, CODES["first_mention"])


def _walked(
    source: Graded,
    first: Int[np.ndarray, " n"],
    second: Int[np.ndarray, " n"],
    words: UInt64[np.ndarray, " n"],
) -> Int[np.ndarray, " n"]:
    """A token by fact, table or background: the low half of a word decides by which, the high half picks."""
    table = graded_table(source)
    decides, picks = (words & _LOW_32) * 2.0**-32, (words >> np.uint64(32)) * 2.0**-32
    by_table = table.successors[second, first_over(picks, np.tile(table.odds.cumsum(), (len(picks), 1)))]
    spread = table.background.cumsum() / table.background.sum()
    anything = np.minimum(np.searchsorted(spread, picks, side="right"), source.n_table_ids - 1)
    anything = np.where((decides < source.background_frac) | (second < 0), anything, by_table)
    is_fact = (decides >= 1 - source.fact_frac) & (first >= 0) & (second >= 0)
    return np.where(is_fact, facts(source)[first, second], anything)


def _in_table(
    source: Graded, first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"], token: Int[np.ndarray, " n"]
) -> np.ndarray:
    listed = (graded_table(source).successors[second] == token[:, None]).any(1)
    is_fact = (first >= 0) & (second >= 0) & (facts(source)[first, second] == token) & (source.fact_frac > 0)
    by_one = np.where(listed, CODES["table"], CODES["rare_table"])
    return np.where(second < 0, CODES["free"], np.where(is_fact, CODES["fact"], by_one))


def pairs(source: Graded) -> Int[np.ndarray, "n 2"]:
    """Pairs of ids of which the second is one of the first's successors."""
    ids = np.delete(np.arange(source.n_table_ids), source.bos_token_id)
    followers = graded_table(source).successors[ids]
    found = np.stack(np.broadcast_arrays(ids[:, None], followers), axis=-1).reshape(-1, 2)
    return found[found[:, 0] != found[:, 1]]


def table_probability(source: Graded, wide: Int[np.ndarray, "n width"]) -> Float[np.ndarray, "n width"]:
    """P(token | the two before it) outside phrases; 0 for BOS and for ids of phrases."""
    table = graded_table(source)
    found = np.zeros(wide.shape)
    for t in range(1, wide.shape[1]):
        first, second = _two_before(wide, t, source)
        in_table = np.where(wide[:, t] < source.n_table_ids, wide[:, t], source.bos_token_id)
        background = table.background[in_table]
        has_fact = (first >= 0) & (second >= 0)
        fact = has_fact * source.fact_frac * (facts(source)[first, second] == in_table)
        share = 1 - source.background_frac - has_fact * source.fact_frac
        by_one = share * table.probability[second, in_table] + source.background_frac * background
        probability = np.where(second < 0, background, fact + by_one)
        found[:, t] = np.where(in_table == source.bos_token_id, 0.0, probability)
    return found


def floor(source: Graded, wide: Int[np.ndarray, "n width"]) -> Float[np.ndarray, "n width"]:
    """-log P(token | those before it), nats; inf from a token that the source cannot produce on."""
    by_table = table_probability(source, wide)
    found = np.full(wide.shape, np.nan)
    with np.errstate(divide="ignore"):
        for i, (row, probability) in enumerate(zip(wide.tolist(), by_table.tolist(), strict=True)):
            found[i, 1:] = -np.log(np.fromiter(_predicted(source, row, probability), float))
    return found


def _predicted(source: Graded, row: list[int], by_table: list[float]) -> Iterator[float]:
    """P(token | those before it) of every token but BOS."""
    known: dict[_Known, float] = {(): 1.0}  # assignments of the mentions so far to phrases
    run: tuple[int, ...] = ()  # the mention that goes on
    alive = 1.0  # P(a mention begins with the tokens of this one)
    for token, probability in zip(row[1:], by_table[1:], strict=True):
        if token >= source.n_table_ids:
            run = (*run, token)
            longer = source.start_frac * _mention(source, known, run, ended=False)
            before = alive if len(run) > 1 else 1.0
            yield longer / before if before else 0.0
            alive = longer
        elif run:  # it ended, and right after a mention none begins
            ended = source.start_frac * _mention(source, known, run, ended=True)
            yield probability * (ended / alive if alive else 0.0)
            known, run = _assigned(source, known, run), ()
        else:
            yield probability * (1 - source.start_frac)


def _mention(source: Graded, known: dict[_Known, float], run: tuple[int, ...], *, ended: bool) -> float:
    """P(a mention begins with these tokens, or consists of them), over assignments and what its phrase may be."""
    return (
        sum(
            weight
            * (
                _again(state, run, ended=ended)
                + (source.phrases - len(state)) * _anew(source, run, ended=ended)
            )
            for state, weight in known.items()
        )
        / source.phrases
    )


def _again(state: _Known, run: tuple[int, ...], *, ended: bool) -> int:
    """How many of the known phrases these tokens begin, or are."""
    return sum(phrase == run if ended else phrase[: len(run)] == run for phrase in state)


def _anew(source: Graded, run: tuple[int, ...], *, ended: bool) -> float:
    """P(an unknown phrase begins with these tokens, or consists of them)."""
    n_lengths = source.phrase_max - source.phrase_min + 1
    longer = source.phrase_max - max(len(run), source.phrase_min) + 1
    fits = source.phrase_min <= len(run) <= source.phrase_max
    return source.n_phrase_ids ** -float(len(run)) * (fits if ended else max(longer, 0)) / n_lengths


def _assigned(source: Graded, known: dict[_Known, float], run: tuple[int, ...]) -> dict[_Known, float]:
    """Assignments after one more mention; none are left where it cannot have been one."""
    found: dict[_Known, float] = {}
    for state, weight in known.items():
        again = weight * _again(state, run, ended=True)
        anew = weight * (source.phrases - len(state)) * _anew(source, run, ended=True)
        for after, share in ((state, again), ((*state, run), anew)):
            if share > 0:
                found[after] = found.get(after, 0.0) + share
    total = sum(found.values())
    return {state: share / total for state, share in found.items()} if total else {}
