"""One measured step of a run by the words for it: 512, 1k, first, last, nearest:3000. No torch."""

from __future__ import annotations

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.steps import parse_steps
from byrote.probes.results.table import Table
from byrote.probes.wording import counted


def resolve_step(spec: str, results: Table) -> int:
    """The step of a run that ``512``, ``1k``, ``first``, ``last`` or ``nearest:3000`` names.

    Raises:
        ByroteError: it cannot be read, or names no one measured step.
    """
    steps = results.steps
    where = f"{results.path} ({counted(len(steps), 'step')}, {steps[0]:,}-{steps[-1]:,})"
    try:
        (step,) = parse_steps(spec, steps, where=str(results.path))
    except ByroteError:
        digits = "".join(c for c in spec if c.isdigit())
        near = f"nearest:{digits}" if digits and spec[:1].isdigit() else "last"
        raise ByroteError(f"{spec!r} is not a measured step of {where}", help=f"try {near}") from None
    except ValueError:
        raise ByroteError(f"{spec!r} names several steps of {where}", help="name one step") from None
    return step
