"""Claims from nothing to verdicts: grids are trained, measured and put into one table, and the claims are judged from it.

Every stage goes on where it was interrupted: training as the lab does, measuring as sweeps do, and a grid whose table is written
is left alone. Judging reads the table and nothing else.

OUT/<grid>-<digest>.toml, OUT/<grid>-<digest>/<arm>/<size>/seed<k>   what is trained; the digest is of all that decides its weights
OUT/<grid>-<digest>/results                                          what is measured on it
OUT/tables/<grid>-<digest>.parquet                                   its table; the digest is of all that decides its numbers
"""

from __future__ import annotations

import hashlib
import re
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from byrote.checkpoints.atomic import make_folder, write_text
from byrote.checkpoints.engines import Engine
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.grid_training import train_grid
from byrote.checkpoints.lab.run_grid import PlannedRun, grid_file, grid_from
from byrote.checkpoints.lab.together import identity
from byrote.checkpoints.opening import open_series
from byrote.checkpoints.side_by_side import cores
from byrote.probes.claims.catalogue import GRIDS
from byrote.probes.claims.gather import series_rows, with_measurements
from byrote.probes.claims.judging import Judgement, judge_claims
from byrote.probes.claims.members_table import members_of, with_members
from byrote.probes.claims.record import Claim, Grid
from byrote.probes.claims.runs_table import read_runs, tidy, write_runs
from byrote.probes.results import Results
from byrote.probes.sweep.config import SweepConfig, installed_versions
from byrote.probes.sweep.many import SweepTask, sweep_many

Emit = Callable[[dict[str, Any]], None]
_SEEDS = re.compile(r"^seeds *=.*$", re.MULTILINE)
_TABLE = r"^\[sizes\.{size}(\.[^\]]*)?\]\n([^\[\n].*\n|\n)*"  # of one size, and what is nested in it
_SECONDS_PER_SWEPT = 0.2  # of one core, a checkpoint of lab size on a claim's probes


@dataclass(frozen=True)
class GridPlan:
    """What a grid takes before its claims can be judged.

    Attributes:
        grid: its name.
        runs, checkpoints: that are trained and written; of grids that are computed, seeds and 0.
        measured: checkpoints that are measured.
        seconds: of one core, a guess.
        done: whether its table is there.
    """

    grid: str
    runs: int
    checkpoints: int
    measured: int
    seconds: float
    done: bool


@dataclass(frozen=True)
class Reproduced:
    """What came of it.

    Attributes:
        judgements: in the order of the claims.
        table: all runs.
        seconds: how long it took; 0 where some of it was there already.
    """

    judgements: list[Judgement]
    table: pd.DataFrame
    seconds: float


def grids_of(claims: Sequence[Claim]) -> list[Grid]:
    """The grids that claims need, each once."""
    return [GRIDS[name] for name in dict.fromkeys(name for claim in claims for name in claim.grids)]


def plan_of(claims: Sequence[Claim], out: Path, *, full: bool = False, first_seed: int = 0) -> list[GridPlan]:
    """What is to be done, grid by grid, before anything is.

    Raises:
        ByroteError: a grid cannot be read.
    """
    return [_plan(grid, out, _seeds(grid, first_seed, full=full)) for grid in grids_of(claims)]


def _plan(grid: Grid, out: Path, seeds: Sequence[int]) -> GridPlan:
    done = table_file(grid, out, seeds).is_file()
    if grid.rows is not None:
        return GridPlan(grid.name, len(seeds), 0, 0, grid.seconds * len(seeds), done)
    runs = grid_from(tomllib.loads(_with_seeds(grid, seeds))).plan().runs
    written = sum(len(run.config.schedule) for run in runs)
    measured = sum(len(measured_steps(grid, run)) for run in runs)
    return GridPlan(
        grid.name,
        len(runs),
        written,
        measured,
        grid.seconds * len(runs) + _SECONDS_PER_SWEPT * measured,
        done,
    )


def reproduce(
    claims: Sequence[Claim],
    out: Path,
    *,
    full: bool = False,
    first_seed: int = 0,
    jobs: int | None = None,
    engine: Engine | None = None,
    on_event: Emit | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Reproduced:
    """Make every table that is missing, and judge.

    Args:
        claims: all that are to be judged.
        out: folder of series, results and tables.
        full: as many seeds as the kept run has.
        first_seed: of the runs; another one makes fresh runs, in a folder of their own.
        jobs: processes; as many as there are cores if None. No number depends on it.
        engine: where grids are trained and measured, in place of `jobs` processes of this machine.
        on_event: called with a dictionary, always with `event` and `grid`: `stage` (what), and those of training and of sweeps.
        stopping: asked a few times a second; where it is true, work stops and is gone on with by the same call.

    Raises:
        ByroteError: training, measuring or judging refuses something; the message names it.
        KeyboardInterrupt: it was stopped.
    """
    emit, started = on_event or (lambda event: None), time.monotonic()
    engine = engine or Engine(jobs=jobs or cores())
    tables, there = [], False
    for grid in grids_of(claims):
        seeds = _seeds(grid, first_seed, full=full)
        path = table_file(grid, out, seeds)
        there = there or path.is_file() or _is_begun(grid, out, seeds)
        if not path.is_file():
            emit({"event": "stage", "grid": grid.name, "what": "making its runs"})
            made = (
                _computed(grid, seeds, stopping)
                if grid.rows
                else _trained(grid, out, seeds, engine, emit, stopping)
            )
            make_folder(path.parent)
            write_runs(path, made)
        tables.append(read_runs(path))
    table = tidy(pd.concat(tables, ignore_index=True)) if tables else tidy([])
    return Reproduced(judge_claims(claims, table), table, 0.0 if there else time.monotonic() - started)


def table_file(grid: Grid, out: Path, seeds: Sequence[int]) -> Path:
    """Where a grid's table is; its name changes with everything that decides its numbers.

    Raises:
        ByroteError: the grid's file cannot be read.
    """
    trained = "" if grid.rows is not None else _identity(grid, seeds)
    versions = {name: number for name, number in installed_versions().items() if name != "transformers"}
    text = repr(
        (
            grid.name,
            tuple(seeds),
            trained,
            grid.probes,
            grid.measured,
            sorted(versions.items()),
            *["members"] * grid.members,
        )
    )
    return out / "tables" / f"{grid.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.parquet"


def _identity(grid: Grid, seeds: Sequence[int]) -> str:
    """Of everything that decides the weights of a grid's runs."""
    return identity([run.config for run in grid_from(tomllib.loads(_with_seeds(grid, seeds))).plan().runs])


def measured_steps(grid: Grid, run: PlannedRun) -> tuple[int, ...]:
    """The written steps of a run that are measured: evenly spaced in the order they were written, the last among them.

    Where members are what is measured, none of a run that has none.
    """
    steps = run.config.schedule
    if not grid.probes or not grid.measured or (grid.members and not run.config.arm.repeats):
        return ()
    n = min(grid.measured, len(steps))
    return tuple(steps[len(steps) - 1 - (len(steps) * k) // n] for k in reversed(range(n)))


def _seeds(grid: Grid, first: int, *, full: bool) -> range:
    return range(first, first + grid.n_seeds(full=full))


def _computed(grid: Grid, seeds: Sequence[int], stopping: Callable[[], bool]) -> pd.DataFrame:
    rows: list[Any] = []
    assert grid.rows is not None, "a computed grid"
    for seed in seeds:
        if stopping():
            raise KeyboardInterrupt
        rows += grid.rows(seed)
    return tidy(rows)


def _with_seeds(grid: Grid, seeds: Sequence[int]) -> str:
    """The text of a grid's file with these seeds in it, and of its sizes those of the grid."""
    text = grid_file(grid.file).read_text(encoding="utf-8")
    found, n = _SEEDS.subn(f"seeds = {list(seeds)}", text)
    if n != 1:
        raise ByroteError(
            f"the grid {grid.file!r} names its seeds {n} times", help="write one line: seeds = 5"
        )
    for size in tomllib.loads(found).get("sizes", {}).keys() - set(grid.sizes):
        found = re.sub(_TABLE.format(size=re.escape(size)), "", found, flags=re.MULTILINE)
    return found


def _place(grid: Grid, out: Path, seeds: Sequence[int]) -> Path:
    """Where a grid's runs are: other settings, seeds or recipes have another folder, so that nothing has to be deleted."""
    return out / f"{grid.name}-{_identity(grid, seeds)[:8]}"


def _is_begun(grid: Grid, out: Path, seeds: Sequence[int]) -> bool:
    return grid.rows is None and _place(grid, out, seeds).is_dir()


def _trained(
    grid: Grid, out: Path, seeds: Sequence[int], engine: Engine, emit: Emit, stopping: Callable[[], bool]
) -> pd.DataFrame:
    place = _place(grid, out, seeds)
    file = place.with_name(f"{place.name}.toml")
    make_folder(out)
    write_text(file, _with_seeds(grid, seeds))
    plan = train_grid(
        file,
        place,
        engine=engine,
        retrain_stale=True,  # the folder is this command's own, and what is trained again is measured again
        on_event=lambda event: emit({**event, "grid": grid.name}),
        stopping=stopping,
    )
    todo = [(place / run.folder, steps) for run in plan.runs if (steps := measured_steps(grid, run))]
    if todo:
        emit({"event": "stage", "grid": grid.name, "what": "measuring them"})
        _measure(grid, todo, place / "results", engine, emit, stopping)
    parts = []
    for run in plan.runs:
        rows = list(series_rows(place / run.folder, grid=grid.name, arm=run.arm, size=run.size))
        results = Results.open(place / "results" / run.config.name) if measured_steps(grid, run) else None
        table = with_measurements(rows, results)
        known = members_of(results) if grid.members and results is not None else {}
        parts.append(with_members(table, known))
    return tidy(pd.concat(parts, ignore_index=True))


def _measure(
    grid: Grid,
    todo: Sequence[tuple[Path, tuple[int, ...]]],
    results: Path,
    engine: Engine,
    emit: Emit,
    stopping: Callable[[], bool],
) -> None:
    """Sweep the steps of every run, one process per core.

    Raises:
        ByroteError: a step cannot be measured.
    """
    total, done, started = sum(len(steps) for _, steps in todo), 0, time.monotonic()
    config = SweepConfig(probes=tuple(grid.probes), threads=1)
    series = [open_series(path).select(",".join(map(str, steps))) for path, steps in todo]
    tasks = [SweepTask(one, config, results) for one in series]
    for place, outcome in sweep_many(tasks, engine=engine, stopping=stopping):
        path, steps = todo[place]
        if outcome.gaps:
            raise ByroteError(
                f"{path}: {outcome.gaps[0]['reason']}", help="remove its grid's folder and start again"
            )
        done += len(steps)
        each = (time.monotonic() - started) / max(1, done)
        emit(
            {"event": "checkpoint", "grid": grid.name, "done": done, "total": total, "step": steps[-1], "s_per_checkpoint": each,
             "errors": 0, "eta_s": each * (total - done)}
        )  # fmt: skip
