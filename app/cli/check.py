"""`byrote check`: results against the rules of a gate, for pipelines."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byrote.cli import options
from byrote.cli.annotations import github_lines, write_junit
from byrote.cli.command import argument, option, verb
from byrote.cli.expect import summary
from byrote.cli.output import Column, Output, Row, columns
from byrote.cli.session import Exit, Session
from byrote.probes.wording import plain

if TYPE_CHECKING:
    from byrote.probes.gate import Checked

COLUMNS = (
    Column("outcome", "outcome"),
    Column("run", "run"),
    *columns("rule name kind"),
    Column("what", "what", fold=True),
    Column("expected", "expected", fold=True),
    Column("found", "found", fold=True),
    *columns("value lo hi passed file line"),
)


@verb(
    "byrote check results/a --expect gate.toml",
    "byrote check results --expect gate.toml --junit gate.xml",
)
def check(
    session: Session,
    *,
    paths: tuple[str, ...] = argument("RESULT..."),
    expect: Path = option(
        "The gate: a TOML file of rules, see docs/gate.md.", type=options.PATH, metavar="FILE", required=True
    ),
    junit: Path | None = option(
        "Write the outcomes as JUnit XML, which CI systems show.", type=options.PATH, metavar="FILE"
    ),
    github: bool | None = option(
        "Write what did not pass as GitHub Actions annotations, on stderr; by default where GITHUB_ACTIONS is set.",
        "--github/--no-github",
        default=None,
    ),
    out: Output,
) -> int:
    """Check RESULT... against the rules of a gate, and exit 1 when one does not pass.

    RESULT is a results folder, a folder of several, or a quoted glob. The interval decides: a rule passes when the result is
    clearly inside its bounds, fails when it is clearly outside, and is undecided otherwise. Undecided counts as failed unless the
    gate says `undecided = "pass"`.
    """
    from byrote.probes.gate import check as checked
    from byrote.probes.gate import read_gate

    gate = read_gate(expect)
    checks = checked(gate, options.open_results(paths))
    out.rows(COLUMNS, _rows(checks))
    if junit is not None:
        write_junit(junit, checks)
    if os.environ.get("GITHUB_ACTIONS") == "true" if github is None else github:
        for line in github_lines(checks, gate.path):
            session.warn(line)
    say = session.warn if out.machine else session.data
    say(summary(checks))
    return Exit.DONE if all(one.passed for one in checks) else Exit.CHECK_FAILED


def _rows(checks: Sequence[Checked]) -> list[Row]:
    rows: list[Row] = []
    for one in checks:
        rule, judged = one.rule, one.judged
        file = rule.where.partition(" of ")[2]
        row: dict[str, Any] = {
            "outcome": one.outcome,
            "run": one.run,
            "rule": rule.where,
            "name": rule.name or None,
            "kind": rule.kind,
        }
        row |= {"what": one.what, "expected": one.expected, "found": one.found, "passed": one.passed}
        row |= {
            "value": judged.value,
            "lo": judged.lo,
            "hi": judged.hi,
            "file": file,
            "line": rule.line or None,
        }
        rows.append({name: plain(value) for name, value in row.items()})
    return rows
