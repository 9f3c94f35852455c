"""`byrote lint`: is this series what it claims to be?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.series import CheckpointSeries
from byrote.cli import options
from byrote.cli.command import option, record, verb
from byrote.cli.output import Column, Output, Row
from byrote.cli.progress import make_progress
from byrote.cli.session import Exit, Session
from byrote.probes.wording import counted, number

if TYPE_CHECKING:
    from byrote.checkpoints.lint import LintReport

_SHOWN_STEPS, _SHOWN_TEXT = 6, 60

COLUMNS = (
    Column("run"),
    Column("severity", "severity"),
    Column("kind", "fact", lambda row: row["kind"].replace("_", " ")),
    Column("steps", "steps", lambda row: _steps(row["steps"]), fold=True),
    Column("leave_out", "leave out", lambda row: _steps(row["leave_out"]), fold=True),
    Column("tensors"),
    Column("evidence", "evidence", lambda row: _evidence(row["evidence"]), fold=True),
    Column("meaning", "it would mean", fold=True),
)


@verb("byrote lint runs/a", "byrote lint runs --json --no-write")
def lint(
    session: Session,
    *,
    paths: tuple[str, ...] = options.PATHS,
    results: str | None = option(
        "Results of these series: steps whose predictions are worse than guessing are listed too.",
        metavar="RESULTS",
    ),
    write: bool = option(
        "Store the facts beside the series, in SERIES.lint.json, where `byrote run` and `byrote report` find them.",
        "--write/--no-write",
        default=True,
    ),
    opening: options.Opening = record(options.Opening),
    progress: str = options.PROGRESS,
    out: Output,
) -> int:
    """Check that the series in PATH are what they claim to be, before measuring them.

    Reads every weight once and lists facts: steps with equal or exchanged weights, tensors or files of another step, a
    step 0 from which the others did not start, jumps, NaN, gaps in the grid of steps, changes of config, tokenizer, type or
    shape. Facts are not verdicts: each comes with its evidence and with what it would mean. Exit 1 when there is a
    warning or an error.
    """
    opened = opening.open(paths)
    measured = _measured(results, opened.series)
    reports = [
        _linted(session, series, measured.get(series.name), write=write, progress=progress)
        for series in opened.series
    ]
    if out.machine:
        out.rows(COLUMNS, [row for found in reports for row in _rows(found, as_text=out.form == "csv")])
    for found in reports:
        if not out.machine and found.facts:
            out.rows(COLUMNS, _rows(found, as_text=False), title=_title(found))
            session.data("")
        else:
            session.note(_title(found))
    opened.report_broken(session)
    if not all(found.clean for found in reports):
        return Exit.CHECK_FAILED
    return Exit.GAPS if opened.broken else Exit.DONE


def _linted(
    session: Session, series: CheckpointSeries, results: Any, *, write: bool, progress: str
) -> LintReport:
    """Lint one series, add what its results say, and keep the report."""
    from byrote.checkpoints.lint import lint as lint_series
    from byrote.checkpoints.lint import lint_path, write_lint
    from byrote.checkpoints.lint.report import in_order

    with closing(make_progress(progress, session, label=series.name)) as shown:
        found = lint_series(series, on_event=shown.event)
    if results is not None:
        from byrote.probes.series_facts import loss_facts

        found = replace(found, facts=in_order([*found.facts, *loss_facts(results)]))
    if write and write_lint(series, found) is None:
        session.note(f"{lint_path(series)} cannot be written: the facts are not saved")
    return found


def _measured(results: str | None, series: Sequence[CheckpointSeries]) -> dict[str, Any]:
    """Results by the name of their series."""
    if results is None:
        return {}
    found = {r.run: r for r in options.open_results([results])}
    if not found.keys() & {s.name for s in series}:
        raise ByroteError(
            f"{results} holds results of {', '.join(sorted(found))}, not of {', '.join(s.name for s in series)}",
            help="give the folder that `byrote run` wrote for this series",
        )
    return found


def _rows(found: LintReport, *, as_text: bool) -> Iterator[Row]:
    for fact in found.facts:
        row = fact.to_json()
        evidence = _evidence(row["evidence"]) if as_text else row["evidence"]
        yield {"run": found.series, **row, "evidence": evidence}


def _title(found: LintReport) -> str:
    count = Counter(fact.severity for fact in found.facts)
    counts_text = [counted(count[s], s) for s in ("error", "warning", "note") if count[s]]
    usable = f"{len(found.usable_steps):,} of {counted(len(found.steps), 'step')} usable"
    return f"{found.series}: {', '.join(counts_text) or 'nothing found'}; {usable}"


def _steps(steps: Sequence[int]) -> str:
    shown = [f"{step:,}" for step in steps]
    if len(shown) > _SHOWN_STEPS:
        shown = [*shown[: _SHOWN_STEPS - 2], "...", shown[-1], f"({len(steps)})"]
    return " ".join(shown)


def _evidence(evidence: dict[str, Any]) -> str:
    """``cosine 0.02, here "F16"``; long values are cut, numbers have three digits."""
    return ", ".join(f"{name.replace('_', ' ')} {_value(value)}" for name, value in evidence.items())


def _value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict):
        return "(" + _evidence(value) + ")"
    shown = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return shown if len(shown) <= _SHOWN_TEXT else f"{shown[: _SHOWN_TEXT - 3]}..."
