"""How checks of results against a gate are printed, and the exit code they give: `--expect FILE`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from byrote.cli.output import Output
from byrote.cli.session import Exit, Session
from byrote.probes.wording import counted

if TYPE_CHECKING:
    from byrote.probes.gate import Checked
    from byrote.probes.results import Results


def expected(path: Path | None) -> Callable[[Sequence[Results]], Sequence[Checked]]:
    """The checks of a gate, read now and made when the runs are there; none, and nothing is imported, without a file.

    Raises:
        ByroteError: the file is no gate.
    """
    if path is None:
        return lambda runs: ()
    from byrote.probes.gate import check, read_gate

    gate = read_gate(path)
    return lambda runs: check(gate, runs)


def say_checks(session: Session, checks: Sequence[Checked], *, out: Output | None = None) -> int:
    """Print each check: under a table on stdout, beside data on stderr, and even when quiet.

    Returns:
        The exit code: 1 when a check failed.
    """
    say = session.data if out is not None and not out.machine else session.warn
    for one in checks:
        say(one.line)
    if checks:
        say(summary(checks))
    return Exit.DONE if all(one.passed for one in checks) else Exit.CHECK_FAILED


def summary(checks: Sequence[Checked]) -> str:
    """``4 checks: all passed``, ``3 checks: 1 failed, 1 undecided (counts as failed)``."""
    parts = []
    for passed, word in ((False, "failed"), (True, "passed")):
        n = sum(one.outcome == "undecided" and one.passed == passed for one in checks)
        parts += [f"{n:,} undecided (counts as {word})"] if n else []
    n_failed = sum(one.broken for one in checks)
    counts_text = ", ".join([f"{n_failed:,} failed", *parts]) if parts or n_failed else "all passed"
    return f"{counted(len(checks), 'check')}: {counts_text}"
