"""Questions after documents: a document's first mentions are queried again. No torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int8, UInt64

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms.rephrased import BOS_BEGINS, Questions
from byrote.checkpoints.lab.batches import Places
from byrote.checkpoints.lab.inputs import Made, Runs
from byrote.checkpoints.lab.sequences import random_words
from byrote.checkpoints.lab.sources.contract import CODES


class Posed(NamedTuple):
    """Questions of one document.

    Attributes:
        spans: (first, end) of the cue and answer of each, in the document.
        length: of the document that is left, tokens, BOS among them.
    """

    spans: tuple[tuple[int, int], ...]
    length: int


def inputs(part: Questions, places: Places, runs: Runs) -> Made:
    """The documents with their questions.

    Returns:
        `tokens`; facts: `questioned_frac` of documents that have a question, `questions_per_document`, `answer_frac` of all tokens
        but BOS that are answers, `answered_frac` of questions whose tokens stand in the document before them, and
        `own_anyway_frac` of documents that have their own questions because no other document's are of the same lengths.

    Raises:
        ByroteError: no document mentions anything, or a token that the source does not have.
    """
    source = places.source
    begin = source.bos_token_id if part.question_token == BOS_BEGINS else part.question_token
    if begin >= source.d_vocab:
        raise ByroteError(
            f"question_token {begin} is not one of the {source.d_vocab} token ids of the source {source.name}",
            help=f"choose 0 to {source.d_vocab - 1}, or leave it out: then BOS begins a question",
        )
    documents = places.originals(part.corpus)
    wide = documents.wide
    words = random_words(f"questions/{places.number}", seed=places.seed, index=0, shape=wide.shape)
    found = [
        chosen_spans(mentions_of(row), order, width=len(row), questions=part.questions)
        for row, order in zip(documents.mechanism, words, strict=True)
    ]
    if not any(one.spans for one in found):
        raise ByroteError(
            f"documents of the source {source.name} mention nothing that a question could be about",
            help="use a source with phrases or facts of each document, such as names, graded or trigger_bigrams",
        )
    of = np.arange(len(wide)) if part.subject == "own" else others_questions(found)
    tokens = wide.copy()
    answered = 0
    for row, (mine, other) in enumerate(zip(found, of, strict=True)):
        place = mine.length
        for first, end in found[other].spans:
            answer = wide[other, first:end]
            tokens[row, place] = begin
            tokens[row, place + 1 : place + 1 + len(answer)] = answer
            place += 1 + len(answer)
            answered += stands_in(answer, wide[row, : mine.length])
    n_questions = sum(len(one.spans) for one in found)
    n_answer_tokens = sum(end - first - 1 for one in found for first, end in one.spans)
    has_one = np.array([bool(one.spans) for one in found])
    facts = {
        "questioned_frac": float(has_one.mean()),
        "questions_per_document": n_questions / len(found),
        "answer_frac": float(n_answer_tokens / wide[:, 1:].size),
        "answered_frac": answered / n_questions,
        "own_anyway_frac": float((of == np.arange(len(of)))[has_one].mean())
        if part.subject == "other"
        else 1.0,
    }
    return Made({"tokens": tokens}, facts)


def mentions_of(mechanism: Int8[np.ndarray, " width"]) -> list[tuple[int, int]]:
    """(first, end) of everything that a sequence mentions for the first time, with the token that is its cue.

    The cue of a phrase is its own first token, that of a single token the one before it, such as its trigger.
    """
    new = np.concatenate([[False], mechanism == CODES["first_mention"], [False]])
    edges = np.flatnonzero(new[1:] != new[:-1]).reshape(-1, 2).tolist()
    return [(first - 1 if end - first == 1 else first, end) for first, end in edges]


def chosen_spans(
    mentions: list[tuple[int, int]], words: UInt64[np.ndarray, " width"], *, width: int, questions: int
) -> Posed:
    """Which mentions the questions are about, and how long a document they leave.

    Args:
        mentions: of the document, see `mentions_of`; those that go on to its last token may be cut and are left out.
        words: random, one for each mention.
        width: of the document with its questions, tokens.
        questions: at most; several may be about the same mention.
    """
    order = [mentions[k] for k in np.argsort(words[: len(mentions)], kind="stable") if mentions[k][1] < width]
    chosen: tuple[tuple[int, int], ...] = ()
    length = width
    for number in range(questions):
        for one in order[number % max(1, len(order)) :] + order[: number % max(1, len(order))]:
            more = (*chosen, one)
            left = width - sum(1 + end - first for first, end in more)
            if max(end for _, end in more) <= left:
                chosen, length = more, left
                break
    return Posed(chosen, length)


def others_questions(found: list[Posed]) -> Int[np.ndarray, " n"]:
    """Whose questions each document has instead of its own: those of the next one with questions of the same lengths."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for row, one in enumerate(found):
        alike.setdefault(tuple(end - first for first, end in one.spans), []).append(row)
    of = np.empty(len(found), dtype=np.int64)
    for rows in alike.values():
        of[rows] = [*rows[1:], rows[0]]
    return of


def stands_in(answer: Int[np.ndarray, " k"], document: Int[np.ndarray, " n"]) -> bool:
    """Whether tokens stand one after another in a document."""
    if len(document) < len(answer):
        return False
    windows: Bool[np.ndarray, "starts k"] = (
        np.lib.stride_tricks.sliding_window_view(document, len(answer)) == answer
    )
    return bool(windows.all(-1).any())
