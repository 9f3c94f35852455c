"""Exit codes, the same for every verb, and the one error that has a code of its own."""

from __future__ import annotations

from byrote.checkpoints.errors import ByroteError

DONE = 0
CHECK_FAILED = 1
USAGE = 2
GAPS = 3
NOTHING = 4
INTERNAL = 70
INTERRUPTED = 130

MEANING = {
    DONE: "everything asked was done",
    CHECK_FAILED: "done, and a check failed (`--expect`, `lint`, `selftest`): a finding, not a fault",
    USAGE: "usage or configuration error; for `doctor`, something needed is missing",
    GAPS: "done with gaps: some checkpoints could not be measured; results are written and marked partial "
    "(`--allow-partial` turns it to 0)",
    NOTHING: "nothing to do: no checkpoints found at that path",
    INTERNAL: "internal error: one line is printed, and where the traceback was saved",
    INTERRUPTED: "interrupted by Ctrl-C: finished work is kept",
}


class NothingFoundError(ByroteError):
    """The path is fine and holds no checkpoint: exit code 4."""
