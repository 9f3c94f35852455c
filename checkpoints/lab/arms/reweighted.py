"""Real data reweighted or thinned out by the n-grams of its corpus. No numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from byrote.checkpoints.lab.arms.part import MAX_CORPUS, Corpus, Part
from byrote.checkpoints.lab.arms.repeats import Epochs

REWEIGHTED_BY, WEIGHTS = ("correlation", "duplicates"), ("own", "shuffled")
MAX_NGRAMS, MAX_N = 256, 64


@dataclass(frozen=True)
class Reweighted(Corpus):
    """A corpus drawn from more documents of the source with weights that depend on their n-grams.

    "correlation": of all weights under which each of some n-grams is no likelier than chance (its last token follows the
    others as often as it stands anywhere), those nearest to equal weights (least Kullback-Leibler divergence, exactly
    solved); the corpus is drawn with them. "duplicates": documents are gone through in order, and one of whose n-grams more
    than `most` stood in documents retained before is left out; what is retained is the corpus, and is gone through more often where
    it is smaller.

    Attributes:
        share: see `Corpus`.
        corpus: documents in it, 2 or more.
        candidates: documents of the source for each of the corpus, 1 or more: the first of its stream for training.
        by: "correlation" or "duplicates".
        n: tokens of an n-gram.
        ngrams: how many lose their correlation, those that add most to the mutual information of a token and those before it.
        most: share of a document's n-grams that may have stood in those retained before it, 0 to 1.
        weights: "own"; "shuffled", the same weights on other documents, the control.
    """

    name: ClassVar[str] = "reweighted"
    made_by: ClassVar[str] = "byrote.checkpoints.lab.reweighting"
    about: ClassVar[str] = "documents are weighted or filtered by the n-grams of the corpus"
    words: ClassVar[str] = (
        "{share} of the data drawn from {candidates} times as much by {n}-gram {by}, weights {weights}"
    )
    control: ClassVar[str] = "the same weights on other documents; the source unfiltered"
    paper: ClassVar[str] = (
        "Serrano et al. 2023 (Stubborn Lexical Bias), arXiv:2306.02190; Lee et al. 2022 (deduplication), arXiv:2107.06499; "
        "Hainmueller 2012 (entropy balancing)"
    )
    rank: ClassVar[int] = 1
    stored: ClassVar[bool] = True

    corpus: int = 4096
    candidates: int = 4
    by: str = "correlation"
    n: int = 2
    ngrams: int = 4
    most: float = 0.5
    weights: str = "own"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.corpus >= 2, "corpus", "at least 2 documents")
        self.require(1 <= self.candidates <= 64, "candidates", "1 to 64")
        self.require(
            self.corpus * self.candidates <= MAX_CORPUS, "candidates", f"fewer: at most {MAX_CORPUS:,} in all"
        )
        self.require(self.by in REWEIGHTED_BY, "by", " or ".join(REWEIGHTED_BY))
        self.require(2 <= self.n <= MAX_N, "n", f"2 to {MAX_N}")
        self.require(1 <= self.ngrams <= MAX_NGRAMS, "ngrams", f"1 to {MAX_NGRAMS}")
        self.require(0 <= self.most <= 1, "most", "a share, 0 to 1")
        self.require(self.weights in WEIGHTS, "weights", " or ".join(WEIGHTS))

    def controls(self) -> Mapping[str, tuple[Part, ...]]:
        """The same weights on other documents, and as large a corpus of the source unfiltered."""
        shuffled = type(self)(**{**self.values(), "weights": "shuffled"})
        return {"shuffled weights": (shuffled,), "the source": (Epochs(self.share, self.corpus),)}

    def fill(self, places: Any, first_step: int, n_steps: int) -> Any:
        """Documents of the corpus in seeded orders."""
        rows = places.rows(first_step, n_steps, corpus=places.n_stored("tokens"))
        return places.stored("tokens", rows)
