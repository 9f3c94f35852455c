"""A report kept beside the series, and thrown away when the files it speaks of have changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from byrote.checkpoints.atomic import write_json
from byrote.checkpoints.formats import format_of
from byrote.checkpoints.former_name import same_format
from byrote.checkpoints.lint.report import KINDS, SEVERITIES, Fact, LintReport
from byrote.checkpoints.lint.small_files import TOKENIZER_FILES
from byrote.checkpoints.series import Checkpoint, CheckpointSeries

FORMAT, VERSION = "byrote-lint", 1


def lint_path(series: CheckpointSeries) -> Path:
    """Where a series' report is kept: `<series folder>.lint.json`, beside the folder and never in it."""
    folder = series.path.resolve()
    return folder.with_name(f"{folder.name}.lint.json")


def stamp(checkpoint: Checkpoint) -> str:
    """A hash of names, sizes and times of the files behind one step; it changes when any of them does."""
    if (version := format_of(checkpoint).version) is not None:
        return version(checkpoint)
    files = [*checkpoint.files, *(checkpoint.path / name for name in TOKENIZER_FILES)]
    if checkpoint.config_path is not None:
        files.append(checkpoint.config_path)
    lines = []
    for file in files:
        try:
            state = file.stat()
            lines.append(f"{file.name} {state.st_size} {state.st_mtime_ns}")
        except OSError:
            lines.append(f"{file.name} -")
    return xxhash.xxh3_128("\n".join(lines).encode()).hexdigest()


def write_lint(series: CheckpointSeries, report: LintReport) -> Path | None:
    """Keep a report beside its series, whole or not at all.

    Returns:
        The file; None where the folder that holds the series cannot be written to.
    """
    path = lint_path(series)
    try:
        write_json(path, to_json(report))
    except OSError:
        return None
    return path


def read_lint(series: CheckpointSeries) -> LintReport | None:
    """The report kept beside a series, or a part of a series.

    Returns:
        The report; None where there is none, it cannot be read, or it does not speak of the files there are now: a step
        of `series` was added, or its weights, config or tokenizer changed.
    """
    try:
        report = from_json(json.loads(lint_path(series).read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    fresh = all(report.stamps.get(c.step) == stamp(c) for c in series)
    return report if fresh else None


def to_json(report: LintReport) -> dict[str, Any]:
    """A report as plain JSON values."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "series": report.series,
        "steps": list(report.steps),
        "usable_steps": list(report.usable_steps),
        "facts": [fact.to_json() for fact in report.facts],
        "fingerprints": {str(step): value for step, value in report.fingerprints.items()},
        "stamps": {str(step): value for step, value in report.stamps.items()},
    }


def from_json(data: Mapping[str, Any]) -> LintReport:
    """The inverse of `to_json`.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: it is no report, or one of another version.
    """
    if not same_format(data["format"], FORMAT) or data["version"] != VERSION:
        raise ValueError("not a report of this version")
    return LintReport(
        series=str(data["series"]),
        steps=_steps(data["steps"]),
        facts=tuple(_fact(row) for row in data["facts"]),
        fingerprints={int(step): str(value) for step, value in data["fingerprints"].items()},
        stamps={int(step): str(value) for step, value in data["stamps"].items()},
    )


def _fact(row: Mapping[str, Any]) -> Fact:
    if row["kind"] not in KINDS or row["severity"] not in SEVERITIES:
        raise ValueError("unknown kind or severity")
    return Fact(
        kind=row["kind"],
        severity=row["severity"],
        steps=_steps(row["steps"]),
        meaning=str(row["meaning"]),
        evidence=dict(row["evidence"]),
        tensors=tuple(str(name) for name in row["tensors"]),
        leave_out=_steps(row["leave_out"]),
    )


def _steps(values: list[Any]) -> tuple[int, ...]:
    if not all(type(value) is int for value in values):
        raise ValueError("steps must be whole numbers")
    return tuple(values)
