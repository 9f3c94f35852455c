"""Processes that can be interrupted wherever the tests run."""

from __future__ import annotations

import signal


def heed_interrupts() -> None:
    """For `preexec_fn`: what a shell starts in the background ignores SIGINT, and so would every process below it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
