"""Printing the checks of `--expect`, and the exit code they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from byrote.cli import exits
from byrote.probes.wording import counted

if TYPE_CHECKING:
    from byrote.cli.expect import Checked
    from byrote.cli.output import Output
    from byrote.cli.session import Session


def say_checks(session: Session, checks: Sequence[Checked], *, out: Output | None = None) -> int:
    """Print each check: under a table on stdout, beside data on stderr, and even when quiet.

    Returns:
        The exit code: 1 when a check failed.
    """
    say = session.data if out is not None and not out.machine else session.warn
    for one in checks:
        say(one.line)
    failed = sum(not one.passed for one in checks)
    if checks:
        say(f"{counted(len(checks), 'check')}: {f'{failed} failed' if failed else 'all passed'}")
    return exits.CHECK_FAILED if failed else exits.DONE
