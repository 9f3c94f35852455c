"""Which steps of a lab run are written."""

from __future__ import annotations


def checkpoint_steps(steps: int, *, every: int) -> tuple[int, ...]:
    """Steps to write: 0, the powers of two below `every`, every multiple of `every`, and the last.

    Early training is fast and gets log-spaced steps; after that the steps are even, because nobody knows in
    advance where the phase change falls.

    Args:
        steps: optimiser steps of the whole run, 1 or more.
        every: spacing of the even part, 1 or more.

    Returns:
        Ascending, without repeats, from 0 to `steps`.
    """
    powers = {2**k for k in range(every.bit_length()) if 2**k < every}
    chosen = {0, steps} | powers | set(range(every, steps, every))
    return tuple(sorted(s for s in chosen if s <= steps))
