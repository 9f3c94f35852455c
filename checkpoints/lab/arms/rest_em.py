"""ReST-EM: samples that a reward accepts, and training on them from the same base model in every iteration. No numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from byrote.checkpoints.lab.arms.continued import Continued
from byrote.checkpoints.lab.arms.part import Part
from byrote.checkpoints.lab.arms.repeats import Epochs
from byrote.checkpoints.lab.arms.synthetic import Sampled

REWARDS, ACCEPTED, REFERENCES = ("oracle", "table"), ("reward", "random"), ("base", "real")


@dataclass(frozen=True)
class RestEM(Sampled):
    """One iteration: the run of the one before is sampled, a reward of 0 or 1 filters, and the base model is trained on the rest.

    A sample is accepted where its score is at least the `quantile` of the scores of the `reference`, the same in every iteration.
    Where fewer are accepted than the corpus has, these are gone through more often.

    Attributes:
        base: the run whose weights training begins with, in every iteration.
        generator: the run that is sampled: the base in the first iteration, then the one before.
        generation: the iteration, from 1: it has to be one more than the generator's.
        corpus: accepted samples, at most.
        candidates: samples drawn for each of the corpus, 1 or more.
        score: "oracle" (log-probability under the source, exactly) or "table" (under a bigram table counted on the source).
        quantile: of the scores of the reference that a sample has to reach, 0 to 1.
        reference: "base", samples of the base; or "real", sequences of the source. Of a model that makes a mistake in most
            sequences hardly a sample is as likely as the median of real ones (1 in 200 of a model that copies with 0.8 nats).
        accepted: "reward"; or "random", as many of the same samples as the reward accepts, the control.
    """

    name: ClassVar[str] = "rest_em"
    made_by: ClassVar[str] = "byrote.checkpoints.lab.expectation_maximisation"
    about: ClassVar[str] = (
        "a base model is trained on samples that a reward accepts, again and again from the base"
    )
    words: ClassVar[str] = (
        "iteration {generation} from {base}: {share} of the data samples of {generator} accepted by {accepted} ({score})"
    )
    control: ClassVar[str] = "as many of the same samples at random; real data from the same base"
    paper: ClassVar[str] = "Singh et al. 2023 (ReST-EM), arXiv:2312.06585"
    runs: ClassVar[tuple[str, ...]] = ("base", "generator")
    gives_weights: ClassVar[bool] = True
    chained: ClassVar[bool] = True

    share: float = 1.0
    corpus: int = 4096
    base: str = ""
    generation: int = 1
    candidates: int = 4
    score: str = "oracle"
    quantile: float = 0.5
    reference: str = "base"
    accepted: str = "reward"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.base != "", "base", "the run whose weights every iteration begins with")
        self.require(self.corpus >= 1, "corpus", "at least 1 sequence")
        self.require(1 <= self.generation <= 1000, "generation", "1 to 1000")
        self.require(1 <= self.candidates <= 64, "candidates", "1 to 64")
        self.require(self.score in REWARDS, "score", " or ".join(REWARDS))
        self.require(0 <= self.quantile <= 1, "quantile", "a share, 0 to 1")
        self.require(self.reference in REFERENCES, "reference", " or ".join(REFERENCES))
        self.require(self.accepted in ACCEPTED, "accepted", " or ".join(ACCEPTED))

    def controls(self) -> Mapping[str, tuple[Part, ...]]:
        """No reward, and real data in place of samples."""
        at_random = type(self)(**{**self.values(), "accepted": "random"})
        return {
            "a random part": (at_random,),
            "real data": (Continued(self.base), Epochs(self.share, self.corpus)),
        }

    def fill(self, places: Any, first_step: int, n_steps: int) -> Any:
        """Accepted samples in seeded orders."""
        rows = places.rows(first_step, n_steps, corpus=places.n_stored("tokens"))
        return places.stored("tokens", rows)
