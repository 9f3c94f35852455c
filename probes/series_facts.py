"""Facts about a series that only measuring can tell: steps that predict worse than guessing, where their neighbours do not.

Torch-free: read from a results folder, beside what `byrote.checkpoints.lint` reads from the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from byrote.checkpoints.lint.report import Fact
from byrote.probes.results import Results

METRICS = {"first_block": "random tokens", "later_blocks": "repeated tokens"}


@dataclass(frozen=True)
class _Measured:
    """Loss at one step: value, 95% interval and what guessing uniformly costs, all nats."""

    step: int
    value: float
    lo: float
    hi: float
    chance: float

    @property
    def above(self) -> bool:
        """Surely worse than guessing."""
        return self.lo > self.chance

    @property
    def below(self) -> bool:
        """Surely better than guessing."""
        return self.hi < self.chance


def loss_facts(results: Results) -> list[Fact]:
    """Steps whose loss on random or on repeated tokens is above that of guessing uniformly.

    A loss above uniform is natural where random tokens are unlike anything in the training data, and where a model
    memorised: it is a note. A single step above it, between steps surely below, is a warning.

    Args:
        results: with the probe `repeat_loss`; without it there are no facts.
    """
    facts: list[Fact] = []
    for metric, words in METRICS.items():
        rows = results.select("repeat_loss", metric)
        rows = rows[rows["valid"]].sort_values("step")
        measured = [
            _Measured(*row) for row in rows[["step", "value", "lo", "hi", "chance"]].itertuples(index=False)
        ]
        facts += _of_metric(measured, metric, words)
    return facts


def _of_metric(measured: list[_Measured], metric: str, words: str) -> Iterator[Fact]:
    alone = [m for i, m in enumerate(measured) if _stands_alone(measured, i)]
    for found in alone:
        meaning = (
            f"On {words} this step is worse than guessing and its neighbours are not: look at its weights."
        )
        yield _fact([found], metric, meaning, severity="warning")
    rest = [m for m in measured if m.above and m not in alone]
    if rest:
        meaning = (
            f"On {words} these steps are worse than guessing: such tokens are unlike what the model learned."
        )
        yield _fact(rest, metric, meaning, severity="note")


def _stands_alone(measured: list[_Measured], i: int) -> bool:
    neighbours = [*measured[max(0, i - 1) : i], *measured[i + 1 : i + 2]]
    inside = 0 < i < len(measured) - 1
    return inside and measured[i].above and all(m.below for m in neighbours)


def _fact(found: list[_Measured], metric: str, meaning: str, *, severity: str) -> Fact:
    worst = max(found, key=lambda m: m.value - m.chance)
    evidence = {
        "metric": metric,
        "worst_step": int(worst.step),
        "loss_nats": float(worst.value),
        "lo_nats": float(worst.lo),
        "uniform_nats": float(worst.chance),
    }
    steps = tuple(int(m.step) for m in found)
    leave_out = steps if severity == "warning" else ()
    return Fact("loss_above_uniform", severity, steps, meaning, evidence, leave_out=leave_out)
