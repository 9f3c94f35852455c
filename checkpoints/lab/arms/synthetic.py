"""Arms of synthetic data: a share of each batch was sampled from a trained lab series. No numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from byrote.checkpoints.lab.arms.part import Corpus, Part
from byrote.checkpoints.lab.arms.repeats import Control, Epochs

MAX_TEMPERATURE = 100.0
SCORES = ("generator", "table", "oracle", "random")
REGIMES = ("replace", "accumulate", "accumulate_fixed")


@dataclass(frozen=True)
class Sampled(Corpus):
    """What arms of sampled sequences have in common.

    Attributes:
        generator: the run that is sampled from: in a grid the name of an arm, else its folder as seen from this run's.
        step: written step of the generator; 0 for its last.
        temperature: that its logits are divided by, above 0.
        top_k: tokens that may be drawn at each position, the likeliest; 0 for all. BOS is never drawn.
    """

    synthetic: ClassVar[bool] = True
    runs: ClassVar[tuple[str, ...]] = ("generator",)
    rank: ClassVar[int] = 0

    generator: str = ""
    step: int = 0
    temperature: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.generator != "", "generator", "the run that is sampled from")
        self.require(self.step >= 0, "step", "a written step, or 0 for the last")
        self.require(
            0 < self.temperature <= MAX_TEMPERATURE, "temperature", f"above 0, at most {MAX_TEMPERATURE:g}"
        )
        self.require(self.top_k >= 0, "top_k", "0 or more")

    def controls(self) -> Mapping[str, tuple[Part, ...]]:
        """The human part alone; the same corpus, or the same number of sequences, from the source."""
        real = (Epochs(self.share, self.corpus),) if self.corpus else ()
        return {"human part alone": (Control(self.share),), "fresh data": real}


@dataclass(frozen=True)
class Synthetic(Sampled):
    """A share of each batch sampled from a trained model."""

    name: ClassVar[str] = "synthetic"
    made_by: ClassVar[str] = "byrote.checkpoints.lab.generator"
    about: ClassVar[str] = "a share of each batch is sampled from a trained run"
    words: ClassVar[str] = "{share} of the data sampled from {generator} at temperature {temperature}"
    control: ClassVar[str] = "the human part alone; fresh data"
    paper: ClassVar[str] = "Zhu et al. 2024, arXiv:2412.14689; Dohmatob et al. 2024, arXiv:2402.07043"


@dataclass(frozen=True)
class Curated(Sampled):
    """Of several samples for each place, those that score best.

    Attributes:
        candidates: samples that are drawn for each that is chosen, 2 or more.
        score: "generator" (its own log-probability of the sample, temperature 1), "table" (log-probability under a bigram
            table counted on the source), "oracle" (under the source itself, exactly; sequences it cannot produce come last)
            or "random" (a random part, the control).
        least: those that score lowest are chosen.
    """

    name: ClassVar[str] = "curated"
    made_by: ClassVar[str] = "byrote.checkpoints.lab.selection"
    about: ClassVar[str] = "a share of each batch is sampled from a trained run and filtered by a reward"
    words: ClassVar[str] = "{share} of the data sampled from {generator}, the best of {candidates} by {score}"
    control: ClassVar[str] = "a random part of the same samples; fresh data"
    paper: ClassVar[str] = (
        "Ferbach et al. 2024, arXiv:2407.09499; Singh et al. 2023 (ReST-EM), arXiv:2312.06585"
    )

    candidates: int = 2
    score: str = "generator"
    least: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(2 <= self.candidates <= 64, "candidates", "2 to 64")
        self.require(self.score in SCORES, "score", " or ".join(SCORES))

    def controls(self) -> Mapping[str, tuple[Part, ...]]:
        """A random part of the same samples, and the controls of synthetic data."""
        settings = {name: getattr(self, name) for name in self.settings()}
        random = type(self)(**{**settings, "score": "random", "least": False})
        return {"a random part": (random,), **super().controls()}


@dataclass(frozen=True)
class Generation(Sampled):
    """One generation of a chain of models, each trained on what those before it made.

    Its corpus is made of blocks of `corpus` sequences: of real data (the first of the source's stream for training) and of
    samples of each earlier generation. "replace" has the block of the last generator alone, "accumulate" all blocks,
    "accumulate_fixed" as many sequences as one block has, drawn from all without replacement. A share of original data beside it
    is a part of its own (`epochs`).

    Attributes:
        generator: the run of the generation before; for generation 1 one trained on real data.
        regime: "replace", "accumulate" or "accumulate_fixed".
        generation: 1 or more: it has to be one more than the generator's.
        corpus: sequences in a block, 1 or more.
    """

    name: ClassVar[str] = "generation"
    made_by: ClassVar[str] = "byrote.checkpoints.lab.generations"
    chained: ClassVar[bool] = True
    about: ClassVar[str] = (
        "trained on samples of the generation before, which replace what was there or are added to it"
    )
    words: ClassVar[str] = (
        "generation {generation}, {regime}: {share} of the data from blocks of {corpus} sequences"
    )
    control: ClassVar[str] = "the real block alone, as often; the regimes among one another"
    paper: ClassVar[str] = (
        "Shumailov et al. 2024, Nature 631; Gerstgrasser et al. 2024, arXiv:2404.01413; Kazdan et al. 2024, arXiv:2410.16713"
    )

    corpus: int = 4096
    regime: str = "replace"
    generation: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.corpus >= 1, "corpus", "at least 1 sequence")
        self.require(self.regime in REGIMES, "regime", " or ".join(REGIMES))
        self.require(1 <= self.generation <= 1000, "generation", "1 to 1000")

    def controls(self) -> Mapping[str, tuple[Part, ...]]:
        """Real data of the same size, as often."""
        return {"real data": (Epochs(self.share, self.corpus),)}

    def n_stored(self, places: Any) -> int:
        """One block; where blocks accumulate that of real data and those of all generations so far."""
        return self.corpus * (1 if self.regime == "replace" else self.generation + 1)

    def fill(self, places: Any, first_step: int, n_steps: int) -> Any:
        """Sequences of the corpus in seeded orders."""
        rows = places.stored("rows")
        return places.stored("tokens", rows[places.rows(first_step, n_steps, corpus=len(rows))])


def chain(regime: str, *, first: str, n: int, name: str = "", **settings: Any) -> dict[str, dict[str, Any]]:
    """The arms of a chain of generations as a grid declares them: name -> table.

    Args:
        regime: "replace", "accumulate" or "accumulate_fixed".
        first: arm whose runs are sampled for generation 1, trained on real data.
        n: generations after it.
        name: what arms are called, the generation follows; the regime's if empty.
        settings: of the parts, such as corpus and temperature.
    """
    called = name or regime
    return {
        f"{called}-g{k}": {
            "kind": "generation",
            "regime": regime,
            "generation": k,
            "generator": first if k == 1 else f"{called}-g{k - 1}",
            **settings,
        }
        for k in range(1, n + 1)
    }
