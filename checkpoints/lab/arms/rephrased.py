"""Rephrased documents, and documents followed by questions about them. No numpy."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms.part import MAX_CORPUS, Corpus, Part
from byrote.checkpoints.lab.arms.repeats import Control, Epochs, Repeated

SUBJECTS = ("own", "other")
BOS_BEGINS = -1
MAX_PHRASINGS, MAX_QUESTIONS = 1 << 16, 64


@dataclass(frozen=True)
class Rephrased(Repeated):
    """A share of each batch from a pool of documents, each in several phrasings (as WRAP makes them with a language model).

    A phrasing of a document is a draw of the source given what the document is about (its private phrases, its matrix, what
    follows its triggers): the same facts in another order, between other words. The first phrasing is the document itself.
    The pool is gone through as that of `repeated` is, in the next phrasing every time.

    Attributes:
        share: of each batch, above 0 and at most 1.
        pool_size: documents, the same ones as in the pool of `repeated`.
        phrasings: of each document, the original among them; with 1 it is `repeated`.
    """

    name: ClassVar[str] = "rephrased"
    made_by: ClassVar[str] = "byrote.checkpoints.lab.rephrasing"
    about: ClassVar[str] = "a share of each batch comes from a small pool, rephrased every time"
    words: ClassVar[str] = "{share} of the data from a pool of {pool_size} documents in {phrasings} phrasings"
    control: ClassVar[str] = "repeated: the same pool verbatim; control: the unique part alone; unique"
    paper: ClassVar[str] = "Maini et al. 2024 (WRAP), arXiv:2401.16380"
    by_repeat_frac: ClassVar[bool] = False
    stored: ClassVar[bool] = True

    phrasings: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1 <= self.phrasings <= MAX_PHRASINGS, "phrasings", f"1 to {MAX_PHRASINGS}")
        self.require(
            self.pool_size * self.phrasings <= MAX_CORPUS,
            "phrasings",
            f"fewer: at most {MAX_CORPUS:,} in all",
        )

    def controls(self) -> Mapping[str, tuple[Part, ...]]:
        """The same documents verbatim, the fresh part alone, and fresh data."""
        alone = {"control": (Control(self.share),)} if self.share < 1 else {}
        return {"word for word": (Repeated(self.share, self.pool_size),), **alone, "unique": ()}

    def check(self, *, batch: int, steps: int | None = None) -> None:
        """Refuse phrasings that training does not come to."""
        super().check(batch=batch, steps=steps)
        shown = 0 if steps is None else self.n_places(batch) * steps
        if shown and self.pool_size * self.phrasings > shown:
            raise ByroteError(
                f"{self.phrasings} phrasings of {self.pool_size} documents are more than the {shown:,} sequences that are shown",
                help=f"use at most {shown // self.pool_size} phrasings, or train longer",
            )

    def n_stored(self, places: Any) -> int:
        """Every document in every phrasing."""
        return self.pool_size * self.phrasings

    def fill(self, places: Any, first_step: int, n_steps: int) -> Any:
        """The documents of each step, in the phrasing of their round."""
        return importlib.import_module(self.made_by).fill(self, places, first_step, n_steps)

    def counts(self, places: Any, n_steps: int) -> Any:
        """How often each document has been trained on verbatim."""
        return importlib.import_module(self.made_by).counted(self, places, n_steps)


@dataclass(frozen=True)
class Questions(Corpus):
    """Documents followed by questions about them (reading comprehension, instruction pre-training).

    A question is a token of its own, then a cue, then the answer: tokens that the document mentioned for the first time (a
    private phrase, with its first token as the cue; what follows a trigger, with the trigger as the cue). The document is cut so that its
    questions fit, and the answers lie in what is left of it. A document that mentions nothing stays as it is.

    Attributes:
        share: see `Corpus`.
        corpus: documents, the first of the source's stream for training; 0 for those that stand in these places in the unique
            arm, each once.
        questions: of each document, at most; fewer where they would not leave room for what they ask.
        subject: "own", what the document says; "other", what another document says: each has the questions of another one, of
            the same lengths, in the place of its own.
        question_token: with which a question begins; -1 is BOS, which stands nowhere else but at the beginning.
    """

    name: ClassVar[str] = "questions"
    made_by: ClassVar[str] = "byrote.checkpoints.lab.questions"
    about: ClassVar[str] = "documents are followed by questions about them, with the answers"
    words: ClassVar[str] = "{share} of the data documents with up to {questions} questions each ({subject})"
    control: ClassVar[str] = (
        "the same documents with the questions of other ones; the same documents without questions"
    )
    paper: ClassVar[str] = (
        "Cheng et al. 2024 (AdaptLLM), arXiv:2309.09530; Cheng et al. 2024 (Instruction Pre-Training), arXiv:2406.14491"
    )
    rank: ClassVar[int] = 1
    stored: ClassVar[bool] = True

    questions: int = 1
    subject: str = "own"
    question_token: int = BOS_BEGINS

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1 <= self.questions <= MAX_QUESTIONS, "questions", f"1 to {MAX_QUESTIONS}")
        self.require(self.subject in SUBJECTS, "subject", " or ".join(SUBJECTS))
        self.require(self.question_token >= BOS_BEGINS, "question_token", "a token id, or -1 for BOS")

    def controls(self) -> Mapping[str, tuple[Part, ...]]:
        """As many questions whose answers stand nowhere in the document, and the documents without any."""
        others = type(self)(**{**self.values(), "subject": "other"})
        without = (Epochs(self.share, self.corpus),) if self.corpus else ()
        return {"questions of others": (others,), "without questions": without}
