"""What linting found: facts with their evidence, and the steps that are left when the doubtful ones are taken out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SEVERITIES = ("error", "warning", "note")

KINDS: dict[str, str] = {
    "unreadable": "a step is there and cannot be read",
    "identical_steps": "several steps hold the same weights, bit for bit",
    "equals_final": "steps hold the weights of the last step",
    "final_equals_early": "the last step holds the weights of an early one",
    "shard_from_other_step": "a whole weight file is that of another step, the others are not",
    "tensors_from_other_step": "some tensors are those of another step, bit for bit, the others are not",
    "unchanged_tensors": "tensors that do not change, where nothing is wrong with that",
    "swapped_steps": "two steps fit better in each other's place",
    "out_of_line": "steps far from the steps before and after, which are close to each other",
    "norm_out_of_line": "the same, and mostly a matter of scale",
    "jump": "the weights move further between two steps than anywhere near, and stay there",
    "tensors_out_of_line": "single tensors far from the same tensors before and after",
    "tensors_jump": "single tensors move further between two steps than anywhere near, and stay there",
    "step0_not_ancestor": "the first step has nothing in common with the next",
    "unrelated_steps": "no step has anything in common with the next",
    "missing_steps": "a regular grid of steps has holes",
    "off_grid_steps": "steps that do not lie on the grid of the others",
    "config_change": "config.json differs between steps",
    "tokenizer_change": "tokenizer files differ between steps",
    "dtype_change": "tensors are stored in another type than at the other steps",
    "shape_change": "tensors have another shape than at the other steps",
    "missing_tensors": "tensors the other steps have are not there",
    "extra_tensors": "tensors the other steps do not have",
    "non_finite": "NaN or infinity in the weights",
    "loss_above_uniform": "steps predict random or repeated tokens worse than guessing would",
}


@dataclass(frozen=True)
class Fact:
    """One thing that was found.

    Attributes:
        kind: key of `KINDS`.
        severity: "error": measuring these steps under these labels would be wrong; "warning": out of line, look at
            it; "note": worth knowing.
        steps: the steps concerned, ascending.
        meaning: what it would mean, one sentence.
        evidence: numbers and names, as plain JSON values.
        tensors: names of the tensors concerned; empty where it is all of them or none.
        leave_out: those of the steps that should not be measured or plotted as they are labelled.
    """

    kind: str
    severity: str
    steps: tuple[int, ...]
    meaning: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    tensors: tuple[str, ...] = ()
    leave_out: tuple[int, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether all the steps concerned may be used."""
        return not self.leave_out

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; numbers that are not finite become null."""
        return plain_json(asdict(self))


@dataclass(frozen=True)
class LintReport:
    """All facts about one series.

    Attributes:
        series: the series' name.
        steps: what was linted, ascending.
        facts: most severe first, then by step.
        fingerprints: content hash of the weights, by step.
        stamps: names, sizes and times of the files behind each step, by step; `read_lint` compares them.
    """

    series: str
    steps: tuple[int, ...]
    facts: tuple[Fact, ...]
    fingerprints: Mapping[int, str] = field(default_factory=dict)
    stamps: Mapping[int, str] = field(default_factory=dict)

    @property
    def usable_steps(self) -> tuple[int, ...]:
        """Steps that no fact asks to leave out."""
        left_out = self.left_out
        return tuple(s for s in self.steps if s not in left_out)

    @property
    def left_out(self) -> dict[int, str]:
        """Steps to leave out, and why: the kinds of the facts, in words."""
        reasons: dict[int, list[str]] = {}
        for fact in self.facts:
            for step in fact.leave_out:
                kinds = reasons.setdefault(step, [])
                if fact.kind not in kinds:
                    kinds.append(fact.kind)
        return {step: ", ".join(k.replace("_", " ") for k in reasons[step]) for step in sorted(reasons)}

    @property
    def severity(self) -> str | None:
        """The worst severity found; None where nothing was."""
        return next((s for s in SEVERITIES if any(f.severity == s for f in self.facts)), None)

    @property
    def clean(self) -> bool:
        """Nothing above a note."""
        return self.severity in (None, "note")

    def of(self, kind: str) -> tuple[Fact, ...]:
        """Facts of one kind."""
        return tuple(f for f in self.facts if f.kind == kind)


def in_order(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """Most severe first, then by first step, then by kind."""
    return tuple(sorted(facts, key=lambda f: (SEVERITIES.index(f.severity), f.steps[:1], f.kind, f.steps)))


def plain_json(value: Any) -> Any:
    """Numpy scalars unwrapped, tuples as lists, floats rounded to 6 digits; what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(k): plain_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_json(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
