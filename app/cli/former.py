"""The command that version 0.1 installed: says what it is called now."""

from __future__ import annotations

import sys

from byrote.checkpoints.former_name import FORMER, NAME


def main() -> None:
    """Entry point of the former `rote` command: one error, exit 2."""
    typed = " ".join([NAME, *sys.argv[1:]])
    print(f"error: the command `{FORMER}` is now `{NAME}`\n  run: {typed}", file=sys.stderr)
    sys.exit(2)
