"""What a grid of lab runs declares of its runs, so that arms are compared and reported at once. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from byrote.checkpoints.lab.run_grid import Plan, PlannedRun
from byrote.probes.results.run_facts import declare

RESULTS = "results"  # below the folder of a grid


def declare_grid(plan: Plan, out: Path) -> Path:
    """Write what is declared of every run beside where its results go, `OUT/results`.

    Args:
        plan: of the grid.
        out: its folder.

    Returns:
        The file.

    Raises:
        OSError: it cannot be written.
    """
    several = len({run.size for run in plan.runs}) > 1
    return declare(
        out / RESULTS, {run.config.name: facts_of_planned(run, sizes=several) for run in plan.runs}
    )


def facts_of_planned(run: PlannedRun, *, sizes: bool = False) -> dict[str, Any]:
    """What is declared of one run.

    Args:
        run: of a plan.
        sizes: whether the grid has several sizes: an arm of each is an arm of its own.
    """
    arm, config = run.config.arm, run.config
    facts: dict[str, Any] = {"arm": f"{run.arm} {run.size}" if sizes else run.arm, "seed": run.seed}
    if sizes:
        facts["size"] = run.size
    if arm.parts:
        facts |= {"synthetic_share": arm.synthetic_share, "generation": arm.generation}
    if not arm.made_of or arm.kind == "control":  # a control leaves out what others repeat
        return facts | {"repeat_frac": 0.0}
    facts |= {"repeat_frac": arm.repeat_frac, "pool": arm.pool_size}
    return facts | {"epochs": arm.repeats_per_sequence(batch=config.batch, steps=config.steps)}
