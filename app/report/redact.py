"""Redaction of paths: home folders and user names are removed from reports."""

from __future__ import annotations

import re
from pathlib import Path

_HOMES = re.compile(r"(?:/home/|/Users/|[A-Za-z]:\\Users\\)[^/\\\s'\"]+")


def redact(text: str) -> str:
    """The text with home folders as `~`: this machine's, and any that look like one.

    Args:
        text: a path, a command, or an error message that holds some.
    """
    home = str(Path.home())
    if len(home) > 1:
        text = re.sub(re.escape(home) + r"(?=[/\\\s'\"]|$)", "~", text)
    return _HOMES.sub("~", text)
