"""The lint report: facts with their evidence, the steps that remain without the flagged ones, and the stored file.

A report is stored beside the series and ignored once the files it is about have changed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from byrote.checkpoints.atomic import remove_leftovers_of, write_json
from byrote.checkpoints.formats import format_of
from byrote.checkpoints.former_name import same_format
from byrote.checkpoints.lint.scan import TOKENIZER_FILES
from byrote.checkpoints.safe_read import read_json
from byrote.checkpoints.series import Checkpoint, CheckpointSeries

SEVERITIES = ("error", "warning", "note")
FORMAT, VERSION = "byrote-lint", 1
MAX_LINT_BYTES = 256 << 20  # a fact may name every tensor of every step


_MIXTURE = "The tensors were taken from another step: this step is a mixture of two."
KINDS: dict[str, tuple[str, str]] = {
    "unreadable": ("error", "This step cannot be measured; comparisons of its neighbours span the gap."),
    "identical_steps": ("error", "One step was saved, copied or uploaded under several labels."),
    "equals_final": ("error", "All these labels hold the final weights: nothing changes between them."),
    "final_equals_early": (
        "error",
        "The last label holds the weights of an early step: training seems undone.",
    ),
    "shard_from_other_step": ("error", _MIXTURE),
    "tensors_from_other_step": ("error", _MIXTURE),
    "unchanged_tensors": (
        "note",
        "Frozen, without a gradient, or moving less than their number type can represent.",
    ),
    "swapped_steps": (
        "warning",
        "The two labels were swapped: each step's weights lie between the other's neighbours.",
    ),
    "out_of_line": (
        "warning",
        "The weights come from another run or from a damaged file: training does not jump away and back.",
    ),
    "norm_out_of_line": ("warning", "The weights were scaled, folded or saved by other code at these steps."),
    "jump": (
        "warning",
        "Training restarted from other weights, another run continues here, or steps in between are missing.",
    ),
    "tensors_out_of_line": (
        "warning",
        "These tensors were damaged, flipped, scaled or taken from elsewhere; the rest of the step was not.",
    ),
    "tensors_jump": (
        "warning",
        "These tensors were re-initialised, re-ordered or first trained here; the rest continued as before.",
    ),
    "step0_not_ancestor": (
        "warning",
        "The series did not start from these weights: another initialisation, or another run's.",
    ),
    "unrelated_steps": ("warning", "The folder mixes runs, or the steps were trained from different starts."),
    "missing_steps": ("warning", "These steps were never written, were lost, or carry another label."),
    "off_grid_steps": (
        "note",
        "Extra steps were saved, or a label is wrong; intervals between steps are not all the same.",
    ),
    "config_change": (
        "error",
        "These steps would be run as a different model from the rest: their config is from elsewhere.",
    ),
    "tokenizer_change": (
        "warning",
        "The same id means another piece of text at these steps: texts are not comparable.",
    ),
    "dtype_change": (
        "warning",
        "The steps were saved by different code; rounding differs, and values near its size with it.",
    ),
    "zero_tensors": (
        "error",
        "The file was preallocated and never filled, or pages of it were lost: the neighbours are not zero there.",
    ),
    "shape_change": ("error", "The weights belong to a model of another size, or the model was resized."),
    "missing_tensors": (
        "error",
        "The file is incomplete; loaders would fill the gap with random numbers.",
    ),
    "extra_tensors": ("warning", "These steps hold another model, or more than the model."),
    "non_finite": ("error", "Training diverged or the file is damaged; the model's outputs are not numbers."),
    "loss_above_uniform": ("warning", ""),  # found in results, which say what it means
}
"""Severity and meaning of each kind of fact, where the check that finds it does not say otherwise; see docs/lint.md."""


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
        return _plain_json(asdict(self))

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Fact:
        """The inverse of `to_json`.

        Raises:
            ValueError, LookupError, TypeError: it is no fact.
        """
        if row["kind"] not in KINDS or row["severity"] not in SEVERITIES:
            raise ValueError("unknown kind or severity")
        return cls(
            kind=row["kind"],
            severity=row["severity"],
            steps=_steps(row["steps"]),
            meaning=str(row["meaning"]),
            evidence=dict(row["evidence"]),
            tensors=tuple(str(name) for name in row["tensors"]),
            leave_out=_steps(row["leave_out"]),
        )


def fact(
    kind: str,
    steps: tuple[int, ...],
    evidence: Mapping[str, Any],
    *,
    tensors: tuple[str, ...] = (),
    leave_out: tuple[int, ...] = (),
    severity: str = "",
    meaning: str = "",
) -> Fact:
    """A fact with the severity and the meaning of its kind, unless others are given; the rest as for `Fact`."""
    usual_severity, usual_meaning = KINDS[kind]
    return Fact(
        kind, severity or usual_severity, steps, meaning or usual_meaning, evidence, tensors, leave_out
    )


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
        """Steps that no fact excludes."""
        left_out = self.left_out
        return tuple(s for s in self.steps if s not in left_out)

    @property
    def left_out(self) -> dict[int, str]:
        """Steps to leave out, and why: the kinds of the facts, in words."""
        reasons: dict[int, dict[str, None]] = {}
        for fact in self.facts:
            for step in fact.leave_out:
                reasons.setdefault(step, {})[fact.kind.replace("_", " ")] = None
        return {step: ", ".join(reasons[step]) for step in sorted(reasons)}

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

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, as stored."""
        usable = {"usable_steps": self.usable_steps}
        return _plain_json({"format": FORMAT, "version": VERSION, **asdict(self), **usable})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LintReport:
        """The inverse of `to_json`.

        Raises:
            ValueError, LookupError, TypeError, AttributeError: it is no report, or one of another version.
        """
        if not same_format(data["format"], FORMAT) or data["version"] != VERSION:
            raise ValueError("not a report of this version")
        return cls(
            series=str(data["series"]),
            steps=_steps(data["steps"]),
            facts=tuple(Fact.from_json(row) for row in data["facts"]),
            fingerprints={int(step): str(value) for step, value in data["fingerprints"].items()},
            stamps={int(step): str(value) for step, value in data["stamps"].items()},
        )


def in_order(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """Most severe first, then by first step, then by kind."""
    return tuple(sorted(facts, key=lambda f: (SEVERITIES.index(f.severity), f.steps[:1], f.kind, f.steps)))


def lint_path(series: CheckpointSeries) -> Path:
    """Where a series' report is stored: `<series folder>.lint.json`, beside the folder and never in it."""
    folder = series.path.resolve()
    return folder.with_name(f"{folder.name}.lint.json")


def stamp(checkpoint: Checkpoint) -> str:
    """A hash of names, sizes, times and inodes of the files behind one step; it changes when any of them does."""
    return _hash_of(checkpoint, lambda s: f"{s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}")


def _stamp_of_0_1(checkpoint: Checkpoint) -> str:
    """The stamp in reports of version 0.1, which did not notice a file replaced by one of equal size and time."""
    return _hash_of(checkpoint, lambda s: f"{s.st_size} {s.st_mtime_ns}")


def _hash_of(checkpoint: Checkpoint, identify: Callable[[os.stat_result], str]) -> str:
    if (version := format_of(checkpoint).version) is not None:
        return version(checkpoint)
    lines = []
    files = [*checkpoint.files, *(checkpoint.path / name for name in TOKENIZER_FILES)]
    for file in (*files, *([checkpoint.config_path] if checkpoint.config_path else [])):
        try:
            lines.append(f"{file.name} {identify(file.stat())}")
        except OSError:
            lines.append(f"{file.name} -")
    return xxhash.xxh3_128("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def write_lint(series: CheckpointSeries, report: LintReport) -> Path | None:
    """Store a report beside its series, whole or not at all.

    Returns:
        The file; None where the folder that holds the series cannot be written to.
    """
    path = lint_path(series)
    try:
        remove_leftovers_of(path)
        write_json(path, report.to_json())
    except OSError:
        return None
    return path


def read_lint(series: CheckpointSeries) -> LintReport | None:
    """The report stored beside a series, or a part of a series.

    Returns:
        The report; None where there is none, it cannot be read, or it is not about the files there are now: a step of
        `series` was added, or its weights, config or tokenizer changed.
    """
    try:
        report = LintReport.from_json(read_json(lint_path(series), max_bytes=MAX_LINT_BYTES))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    current = all(report.stamps.get(c.step) in (stamp(c), _stamp_of_0_1(c)) for c in series)
    return report if current else None


def _steps(values: list[Any]) -> tuple[int, ...]:
    if not all(type(value) is int for value in values):
        raise ValueError("steps must be whole numbers")
    return tuple(values)


def _plain_json(value: Any) -> Any:
    """Numpy scalars unwrapped, tuples as lists, floats rounded to 6 digits; what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(k): _plain_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain_json(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
