"""Grids of lab runs on the command line: `lab plan`, `lab train --grid` and `lab status`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms import describe_arm
from byrote.cli import options
from byrote.cli.command import argument, option, verb
from byrote.cli.output import Column, Output
from byrote.cli.progress import Work, interrupted
from byrote.cli.session import Exit, Session
from byrote.probes.wording import counted, duration, shell_line, size

if TYPE_CHECKING:
    from byrote.checkpoints.engines import Engine

_OF_GRIDS = (
    "out",
    "grid",
    "jobs",
    "engine",
    "engine_option",
    "fresh",
    "retrain_stale",
    "progress",
)  # parameters of `train` that go with a grid
COLUMNS = (
    Column("run", "run"),
    Column("arm"),
    Column("size"),
    Column("seed"),
    Column("state", "state"),
    Column("last_step", "last step", right=True),
    Column("steps", "of", right=True),
    Column("path"),
)


def train_grid(
    session: Session,
    out: Path,
    grid: str,
    progress: str,
    *,
    engine: Engine,
    fresh: bool,
    retrain_stale: bool,
) -> int:
    """Train what is missing of a grid, and declare its arms beside where results go.

    Raises:
        ByroteError: a setting of a single run was typed too, or the grid cannot be trained.
    """
    from byrote.checkpoints.lab import grid_training
    from byrote.checkpoints.lab.run_grid import grid_file
    from byrote.probes.lab_grid import RESULTS, declare_grid

    context = click.get_current_context()
    for param in context.command.params:
        typed = context.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
        if typed and str(param.name) not in (*_OF_GRIDS, "quiet", "verbose", "no_color", "traceback"):
            raise ByroteError(
                f"{param.opts[0]} is a setting of one run, and --grid names the settings of many",
                help=f"write it into the grid's file, or leave --grid out; `{context.command_path} -h`",
            )
    work = Work(progress, session, out.name, promise="stopping at the next written steps")
    try:
        with work:
            plan = grid_training.train_grid(
                grid_file(grid),
                out,
                engine=engine,
                fresh=fresh,
                retrain_stale=retrain_stale,
                on_event=lambda event: work.event(event, last=False),
                stopping=lambda: work.stopping,
            )
    except KeyboardInterrupt:
        return interrupted(session, "written steps are saved")
    declared = declare_grid(plan, out)
    session.data(str(out))
    session.detail(f"arms, seeds and doses are declared in {declared}")
    session.note(
        f"next: byrote run {shell_line([str(out / '*' / '*' / '*')])} -o {shell_line([str(out / RESULTS)])}"
    )
    return Exit.DONE


@verb("byrote lab plan hernandez", "byrote lab plan grid.toml --jobs 8")
def plan(
    session: Session,
    *,
    grid: str = argument("GRID"),
    jobs: int | None = option(
        "Processes that will train; one per core by default.", type=click.IntRange(min=1), metavar="N"
    ),
) -> int:
    """Estimate what a grid takes before anything is trained: its runs, steps, minutes and bytes.

    GRID is a file, or the name of a grid that comes with byrote. Minutes are those of a few steps of each shape,
    trained here and discarded.
    """
    from byrote.checkpoints.lab.grid_cost import TRIED_STEPS, cost_of
    from byrote.checkpoints.lab.run_grid import grid_file, read_grid
    from byrote.checkpoints.side_by_side import cores

    found = read_grid(grid_file(grid))
    planned, jobs = found.plan(), jobs or cores()
    session.data(
        f"{counted(len(planned.runs), 'run')}: {counted(len(found.arms), 'arm')}, {counted(len(found.sizes), 'size')}, "
        f"{counted(len(found.seeds), 'seed')}; {planned.steps:,} steps, {counted(planned.n_checkpoints, 'checkpoint')}, "
        f"trained in {counted(len(planned.stacks), 'stack')}"
    )
    for arm in found.arms:
        against = f", against {arm.control}" if arm.control else ""
        session.data(f"  {arm.name}: {describe_arm(arm.arm.definition())}{against}")
    session.note("timing a few steps of each shape; Ctrl-C skips this")
    try:
        cost = cost_of(planned, cores=jobs)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    session.data(f"about {duration(cost.seconds)} on {counted(jobs, 'core')}, and {size(cost.n_bytes)}")
    if cost.making_s:
        session.data(
            f"  with about {duration(cost.making_s)} of one core for what arms need from other runs, such as samples"
        )
    for shape, tried in cost.tried.items():
        session.data(
            f"  as measured here over {TRIED_STEPS[1] - TRIED_STEPS[0]} steps: d_model {shape.d_model}, "
            f"{counted(tried.n_runs, 'run')} together, {1e3 * tried.step_s:.1f} ms a step, "
            f"{1e3 * tried.written_s:.0f} ms a written step"
        )
    return Exit.DONE


@verb("byrote lab status runs/hernandez")
def status(session: Session, *, folder: Path = argument("OUT", type=options.PATH), out: Output) -> int:
    """List which runs of the grid in OUT are complete, running, stopped, missing, or stale.

    A run is stale where it was made from another run that was retrained since and now has different weights.
    """
    from byrote.checkpoints.lab.grid_training import GRID
    from byrote.checkpoints.lab.grid_training import status as status_of

    found = status_of(folder)
    states = Counter(state for _, state, _ in found)
    counts_text = ", ".join(
        f"{states[state]} {state}"
        for state in ("complete", "running", "stopped", "missing", "stale")
        if states[state]
    )
    out.headline(f"{folder}: {counted(len(found), 'run')}, {counts_text}")
    rows = [
        {
            "run": run.config.name,
            "arm": run.arm,
            "size": run.size,
            "seed": run.seed,
            "state": state,
            "last_step": last,
            "steps": run.config.steps,
            "path": str(folder / run.folder),
        }
        for run, state, last in found
    ]
    out.rows(COLUMNS, rows)
    if states["stale"]:
        again = shell_line(["byrote", "lab", "train", str(folder), "--grid", str(folder / GRID)])
        session.note(
            f"{counted(states['stale'], 'run')} made from runs that were retrained since: "
            f"{again} --retrain-stale retrains them; measure them again afterwards"
        )
    return Exit.DONE
