"""Regular grids in a list of steps, the steps missing from them, and the steps that do not lie on them.

Two kinds are recognised, also one after the other: powers of two, and even spacing. Where most steps follow neither,
nothing is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from byrote.checkpoints.lint.report import Fact, fact

MIN_EVEN_SPACINGS = 4  # equal spacings before a stretch counts as an even grid
MIN_POWERS = 4  # powers of two before they count as a grid
MIN_FILLED_FRAC = 0.6  # share of an even grid's steps that must be there
MIN_FILLED_POWERS_FRAC = 0.7  # every second power of two is a grid of its own
MAX_OFF_GRID_FRAC = 0.2


@dataclass(frozen=True)
class Grid:
    """One regular stretch.

    Attributes:
        name: what it is, in words.
        first, last: its ends, both on the grid.
        spacing: of an even grid; 0 for powers of two.
        missing: steps on the grid, between the ends, that are not there.
        beyond: a step that continues the grid past an end and leaves a hole there; it may never have been written.
        off: steps there, between the ends, that are not on the grid.
    """

    name: str
    first: int
    last: int
    spacing: int = 0
    missing: tuple[int, ...] = ()
    beyond: tuple[int, ...] = ()
    off: tuple[int, ...] = ()


def grid_facts(steps: Sequence[int], *, scheduled: Sequence[int] | None = None) -> list[Fact]:
    """Holes and strays of a series.

    Args:
        steps: all steps there are, readable or not, ascending.
        scheduled: what the training run set out to write, where it says so; nothing is guessed then.
    """
    if scheduled is None:
        grids = find_grids(steps)
    else:
        missing = tuple(sorted(set(scheduled) - set(steps)))
        grids = [Grid("the schedule in the manifest", 0, 0, missing=missing)]
    facts = []
    for grid in grids:
        if grid.missing:
            facts.append(fact("missing_steps", grid.missing, {"grid": grid.name}))
        if grid.beyond:
            meaning = "Steps may be missing at the end of the grid, or it was never meant to reach further."
            facts.append(
                fact("missing_steps", grid.beyond, {"grid": grid.name}, severity="note", meaning=meaning)
            )
        if grid.off:
            # A stray beside a hole may be the missing step under a wrong label; alone it is only an extra step.
            severity = "warning" if grid.missing else "note"
            evidence = {"grid": grid.name, "missing": list(grid.missing)}
            facts.append(fact("off_grid_steps", grid.off, evidence, severity=severity))
    return facts


def find_grids(steps: Sequence[int]) -> list[Grid]:
    """The regular stretches of ascending steps, in order."""
    even = [_with_edges(grid, steps) for grid in _even(list(steps))]
    floor = next((min(g.first, *g.beyond, g.first) for g in even if g.spacing > 1), None)
    powers = _powers(steps, below=floor)
    return [*([powers] if powers else []), *even]


def _even(steps: list[int]) -> list[Grid]:
    """Evenly spaced stretches: the most frequent spacing first, then what is left of and right of it."""
    spacings = [b - a for a, b in pairwise(steps)]
    if not spacings:
        return []
    spacing, count = Counter(spacings).most_common(1)[0]
    if count < MIN_EVEN_SPACINGS:
        return []
    low = spacings.index(spacing)
    high = len(spacings) - spacings[::-1].index(spacing)
    grid = _even_grid(steps[low : high + 1], spacing)
    return _even(steps[: low + 1]) + ([grid] if grid else []) + _even(steps[high:])


def _even_grid(stretch: list[int], spacing: int) -> Grid | None:
    first, last = stretch[0], stretch[-1]
    whole = range(first, last + 1, spacing)
    off = tuple(s for s in stretch if s not in whole)
    on = len(stretch) - len(off)
    if on < MIN_FILLED_FRAC * len(whole) or len(off) > MAX_OFF_GRID_FRAC * on:
        return None
    missing = tuple(sorted(set(whole) - set(stretch)))
    return Grid(f"every {spacing:,} steps", first, last, spacing, missing, off=off)


def _with_edges(grid: Grid, steps: Sequence[int]) -> Grid:
    """A grid with the step that would continue it, where exactly that one is missing beyond an end."""
    spacing, beyond = grid.spacing, []
    before = [s for s in reversed(steps) if s < grid.first]
    after = [s for s in steps if s > grid.last]
    if before and grid.first % spacing == 0 and not _repeats(grid.first, before):
        hole = spacing < grid.first - before[0] <= 2 * spacing
        if hole and grid.first > 2 * before[0]:  # else powers of two go over into the even grid
            beyond.append(grid.first - spacing)
    if after and after[0] - grid.last == 2 * spacing and not _repeats(grid.last, after):
        beyond.append(grid.last + spacing)
    return replace(grid, beyond=tuple(beyond))


def _repeats(end: int, outside: Sequence[int]) -> bool:
    """Whether a wider spacing begins at the end of a grid, so that nothing is missing there."""
    return len(outside) > 1 and outside[1] - outside[0] == outside[0] - end


def _powers(steps: Sequence[int], *, below: int | None) -> Grid | None:
    """A stretch of powers of two, before any even one that starts at `below`."""
    early = [s for s in steps if s > 0 and (below is None or s < below)]
    powers = [s for s in early if s & (s - 1) == 0]
    if len(powers) < MIN_POWERS:
        return None
    first, last = powers[0], powers[-1]
    whole = [first << k for k in range((last // first).bit_length())]
    off = tuple(s for s in early if first < s < last and s not in whole)
    if len(powers) < MIN_FILLED_POWERS_FRAC * len(whole) or len(off) > MAX_OFF_GRID_FRAC * len(powers):
        return None
    beyond = (2 * last,) if below is not None and 2 * last < below <= 4 * last else ()
    missing = tuple(sorted(set(whole) - set(powers)))
    return Grid("powers of two", first, last, missing=missing, beyond=beyond, off=off)
