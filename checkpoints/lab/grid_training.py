"""Train a grid: its stacks side by side, one process per core; ended at any moment and started again, it ends in the same bytes.

OUT/grid.toml                   the grid, as it was given
OUT/<arm>/<size>/seed<k>/       one series each
OUT/.stacks/<name>.safetensors  what a stack goes on from; there while it is not complete
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from byrote.checkpoints import atomic
from byrote.checkpoints.atomic import write_bytes
from byrote.checkpoints.engines import Engine, Needs, run_tasks
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.config import LabConfig
from byrote.checkpoints.lab.folder import SeriesFolder, cannot_write, explained
from byrote.checkpoints.lab.run_grid import MAX_BYTES, Plan, PlannedRun, read_grid
from byrote.checkpoints.lab.stale import stale_because
from byrote.checkpoints.lab.together import identity
from byrote.checkpoints.lab.trainer import OnEvent, locked, train
from byrote.checkpoints.safe_read import read_bytes
from byrote.checkpoints.side_by_side import Lost, cores

GRID, STATES = "grid.toml", ".stacks"


@dataclass(frozen=True)
class Job:
    """What one process does at a time.

    Attributes:
        runs: folder and configuration of each run that is trained together.
        state: the file a stack of several goes on from.
    """

    runs: tuple[tuple[Path, LabConfig], ...]
    state: Path


def _say_nothing(event: dict[str, Any]) -> None:
    return


def train_grid(
    file: Path,
    out: Path,
    *,
    jobs: int | None = None,
    engine: Engine | None = None,
    fresh: bool = False,
    retrain_stale: bool = False,
    on_event: OnEvent | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Plan:
    """Train every run of a grid that is not complete.

    Args:
        file: the grid.
        out: the folder of its runs; the grid is copied into it.
        jobs: processes, 1 or more; as many as there are cores if None. Bytes do not depend on it.
        engine: where, in place of `jobs` processes of this machine.
        fresh: delete the series of the grid that are there, whatever their configuration.
        retrain_stale: delete runs that were made from a run which has been trained again since, and make and train them again.
        on_event: called with a dictionary, always with the key `event`: `step` about twice a second (step, total,
            train_loss_nats, steps_per_s, eta_s; steps of all runs), `runs` as runs are complete (done, total), and
            `restarted` (run, reason) where a stack had to begin again.
        stopping: asked a few times a second; where it is true, training stops at written steps.

    Returns:
        The grid's plan.

    Raises:
        ByroteError: the grid cannot be read, runs are stale and not to be trained again, a folder holds something else or cannot
            be written to, training diverged.
        KeyboardInterrupt: it was stopped.
    """
    plan, engine = read_grid(file).plan(), engine or Engine(jobs=jobs or cores())
    for run in plan.runs:  # refuses before anything is written
        folder = SeriesFolder(out / run.folder, run.config)
        if not fresh:
            folder.require_same()
    with explained(out):
        atomic.make_folder(out)
    busy = ByroteError(f"another process is training in {out}", help="wait for it, or choose another folder")
    with atomic.locked(out / atomic.LOCK, busy=busy, refused=lambda error: cannot_write(out, error)):
        with explained(out):
            _take_over(file, out, plan)
            if fresh:
                _clear(plan, plan.runs, out)
            _settle_stale(plan, _stale(plan, out), out, again=retrain_stale)
        progress = _Progress([job_of(plan, stack, out) for stack in plan.stacks], on_event or _say_nothing)
        for wave in plan.waves():
            places = [place for place, stack in enumerate(plan.stacks) if stack in wave]
            with explained(out):  # what was just trained may have other weights than before
                stale = _stale(plan, out)
                _settle_stale(plan, stale, out, again=retrain_stale)
            progress.begin_again(stale)
            todo = [place for place in places if not _is_complete(progress.jobs[place])]

            def hear(k: int, event: dict[str, Any], todo: Sequence[int] = todo) -> None:
                progress.event(todo[k], event)

            mine = [progress.jobs[place] for place in todo]
            lost = None
            for k, result in run_tasks(
                work, mine, engine=engine, needs=Needs(), folder=out, hear=hear, stopping=stopping
            ):
                if isinstance(result, Lost):
                    lost = ByroteError(
                        f"{mine[k].runs[0][0]} was not trained: {result.reason}", help=result.help
                    )
                else:
                    progress.ends(todo[k])
            if lost is not None:
                raise lost
    return plan


def job_of(plan: Plan, stack: Sequence[int], out: Path) -> Job:
    """What is trained together, and where."""
    runs = tuple((out / plan.runs[k].folder, plan.runs[k].config) for k in stack)
    return Job(runs, out / STATES / f"{identity([config for _, config in runs])}.safetensors")


State = Literal["complete", "running", "stopped", "missing", "stale"]


def status(out: Path) -> list[tuple[PlannedRun, State, int | None]]:
    """What stands of a grid's runs.

    Args:
        out: the folder of its runs.

    Returns:
        Each run of the grid, in its order: whether it is complete, is trained now, was stopped, is not there, or is stale (made
        from a run that has been trained again since, or from a stale one), and its last written step, None where there is none.

    Raises:
        ByroteError: the folder holds no grid, or a run's folder something else.
    """
    if not (out / GRID).is_file():
        raise ByroteError(
            f"{out} holds no {GRID}", help=f"train one there: byrote lab train {out} --grid FILE"
        )
    plan = read_grid(out / GRID, follow_links=False).plan()
    now = _is_locked(out)
    stale = _stale(plan, out)
    found: list[tuple[PlannedRun, State, int | None]] = []
    for run in plan.runs:
        folder = SeriesFolder(out / run.folder, run.config)
        listed = (folder.manifest or {}).get("checkpoints") or []
        last = listed[-1]["step"] if listed else None
        if run.folder in stale:
            state: State = "stale"
        elif folder.complete:
            state = "complete"
        elif folder.manifest is None:
            state = "missing"
        else:
            state = "running" if now and _is_locked(folder.path) else "stopped"
        found.append((run, state, last))
    return found


def _is_locked(folder: Path) -> bool:
    """Whether a process holds a folder."""
    if not (folder / atomic.LOCK).is_file():
        return False
    held = ByroteError("held")
    try:
        with atomic.locked(
            folder / atomic.LOCK, busy=held, refused=lambda error: cannot_write(folder, error)
        ):
            return False
    except ByroteError as error:
        return error is held


def _take_over(file: Path, out: Path, plan: Plan) -> None:
    """Copy the grid, and remove what no run of it needs any more."""
    if not (out / GRID).exists() or not file.samefile(out / GRID):
        write_bytes(out / GRID, read_bytes(file, max_bytes=MAX_BYTES, follow_links=True))
    ours = {job_of(plan, stack, out).state for stack in plan.stacks}
    for state in (out / STATES).glob("*"):
        if state not in ours:
            atomic.remove(state)


def _stale(plan: Plan, out: Path) -> set[str]:
    """Folders of runs that are made from a run which has been trained again since, or from one of these."""
    found: set[str] = set()
    for wave in plan.waves():
        for run in (plan.runs[k] for stack in wave for k in stack):
            if not run.needs:
                continue
            folder = SeriesFolder(out / run.folder, run.config)
            if folder.manifest is not None and (found.intersection(run.needs) or stale_because(folder)):
                found.add(run.folder)
    return found


def _settle_stale(plan: Plan, runs: set[str], out: Path, *, again: bool) -> None:
    """Delete stale runs, so that they are made and trained again, or refuse them.

    Raises:
        ByroteError: naming the first of them.
    """
    mine = [run for run in plan.runs if run.folder in runs]
    if not mine:
        return
    if again:
        _clear(plan, mine, out)
        return
    reasons = ((run, stale_because(SeriesFolder(out / run.folder, run.config))) for run in mine)
    run, reason = next((one for one in reasons if one[1]), (mine[0], mine[0].needs[0]))
    others = f" (and {len(mine) - 1} more runs that were made from such a one)" if len(mine) > 1 else ""
    raise ByroteError(
        f"{out / run.folder} was made from weights of {reason}, which was retrained since and now has different weights{others}",
        help="pass --retrain-stale to delete these runs, train them again and measure them again afterwards",
    )


def _clear(plan: Plan, runs: Sequence[PlannedRun], out: Path) -> None:
    """Delete what runs of a grid wrote; states go first, so that none can meet runs that have begun anew."""
    folders = {run.folder for run in runs}
    for stack in plan.stacks:
        if any(plan.runs[k].folder in folders for k in stack):
            atomic.remove(job_of(plan, stack, out).state)
    for run in runs:
        folder = SeriesFolder(out / run.folder, run.config)
        if folder.manifest is not None:
            with locked(folder.path):
                folder.clear()


def _is_complete(job: Job) -> bool:
    """Whether every run has all its steps, as written.

    Raises:
        ByroteError: one is marked complete and is not.
    """
    folders = [SeriesFolder(path, config) for path, config in job.runs]
    for folder in folders:
        if folder.complete:
            folder.require_steps()
    return all(folder.complete for folder in folders)


class _Progress:
    """Adds up what is trained, over all stacks of a grid.

    Args:
        jobs: of all stacks.
        emit: gets the sums.
    """

    def __init__(self, jobs: Sequence[Job], emit: OnEvent) -> None:
        self.jobs, self.emit, self.started = jobs, emit, time.monotonic()
        unfinished = [[not SeriesFolder(*run).complete for run in job.runs] for job in jobs]
        self.n_left = [sum(one) for one in unfinished]  # runs that are still to be trained, by job
        self.n_runs = sum(len(job.runs) for job in jobs)
        self.total = sum(config.steps for job in jobs for _, config in job.runs)
        self.before = self.total - sum(
            n * job.runs[0][1].steps for n, job in zip(self.n_left, jobs, strict=True)
        )
        self.n_done = self.n_runs - sum(self.n_left)
        self.at, self.resumed = [0] * len(jobs), [0] * len(jobs)

    def begin_again(self, folders: set[str]) -> None:
        """Runs in these folders, of the grid's, have been deleted and are trained once more."""
        for place, job in enumerate(self.jobs):
            if not any("/".join(path.parts[-3:]) in folders for path, _ in job.runs):
                continue
            n_more = sum(not SeriesFolder(*run).complete for run in job.runs) - self.n_left[place]
            self.n_left[place] += n_more
            self.n_done -= n_more
            self.before -= n_more * job.runs[0][1].steps

    def event(self, place: int, event: dict[str, Any]) -> None:
        """What the training of a job says."""
        kind = event["event"]
        if kind in ("restarted", "retried"):
            self.emit({**event, "run": str(self.jobs[place].runs[0][0])})
        if kind == "resumed":
            self.at[place] = self.resumed[place] = event["step"]
        if kind in ("step", "checkpoint"):
            self.at[place] = event["step"]
        if kind == "step":
            done, resumed = (
                sum(step * n for step, n in zip(steps, self.n_left, strict=True))
                for steps in (self.at, self.resumed)
            )
            rate = (done - resumed) / max(time.monotonic() - self.started, 1e-9)
            left = self.total - self.before - done
            step_event = {
                "event": "step",
                "step": self.before + done,
                "total": self.total,
                "steps_per_s": rate,
            }
            loss = event["train_loss_nats"]
            self.emit({**step_event, "train_loss_nats": loss, "eta_s": left / max(rate, 1e-9)})

    def ends(self, place: int) -> None:
        """A job is complete."""
        self.n_done += self.n_left[place]
        self.at[place] = self.jobs[place].runs[0][1].steps
        self.emit({"event": "runs", "done": self.n_done, "total": self.n_runs})


def work(job: Job, on_event: OnEvent) -> None:
    """Train the runs of a job.

    Raises:
        ByroteError: see `train` and `train_stack`.
    """
    if len(job.runs) == 1:
        (path, config) = job.runs[0]
        train(path, config, on_event=on_event)
        return
    from byrote.checkpoints.lab.stack import train_stack  # torch

    train_stack(job.runs, state=job.state, on_event=on_event)
