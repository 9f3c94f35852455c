"""Where tasks are done: processes of this machine, a Ray cluster, or jobs of Slurm; what a task has to be is the same for all.

A task is done by a function of a module, called with the task and a function that takes events. It writes its results itself,
into a folder that every machine sees, whole or not at all, and finds what is finished when it is done again. So an engine
only has to start tasks, start those again whose machine was lost, pass on what they say, and stop them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.machine import memory_bytes
from byrote.checkpoints.side_by_side import OnEvent, cores, side_by_side

ENGINES = {
    "local": "processes of this machine, as many as memory and cores allow",
    "ray": "a Ray cluster; needs byrote[ray]",
    "slurm": "jobs of Slurm, through submitit; needs byrote[slurm]",
}
USED_FRAC = 0.8  # of the memory that is available: the estimate of what a process needs is rough


@dataclass(frozen=True)
class Needs:
    """What one task takes.

    Attributes:
        memory_bytes: at most; 0 where it is little.
        cores: threads that compute.
        gpus: whole ones.
    """

    memory_bytes: int = 0
    cores: int = 1
    gpus: int = 0


@dataclass(frozen=True)
class Engine:
    """Where tasks are done.

    Attributes:
        name: one of `ENGINES`.
        jobs: tasks at the same time, at most; None is as many as there is room for.
        options: of Ray or Slurm, by name.
    """

    name: str = "local"
    jobs: int | None = 1
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise ByroteError(f"there is no engine {self.name!r}", help=did_you_mean(self.name, ENGINES))
        if self.options and self.name == "local":
            raise ByroteError(
                f"the engine local has no options, such as {min(self.options)}",
                help="options are for --engine ray and --engine slurm",
            )

    def n_at_once(self, needs: Needs, n_tasks: int) -> int:
        """Tasks that are done at the same time, as far as that is known before they are started.

        Args:
            needs: of one task.
            n_tasks: how many there are to do.
        """
        if self.jobs is not None or self.name != "local":
            return min(self.jobs or n_tasks, n_tasks)
        _, available = memory_bytes()
        room = cores() // needs.cores
        if available is not None and needs.memory_bytes:
            room = min(room, int(available * USED_FRAC) // needs.memory_bytes)
        return max(1, min(room, n_tasks))


HERE = Engine()


def run_tasks(
    work: Callable[[Any, OnEvent], Any],
    tasks: Sequence[Any],
    *,
    engine: Engine,
    needs: Needs,
    folder: Path,
    hear: Callable[[int, dict[str, Any]], None],
    stopping: Callable[[], bool],
) -> Iterator[tuple[int, Any]]:
    """Do every task, and yield its place and its result as it is done; see `side_by_side`.

    Args:
        work: a function of a module of a package that every machine has installed.
        tasks: what can be pickled.
        engine: where.
        needs: of one task.
        folder: that every machine sees, for what tasks say of themselves while they run; left as it was.
        hear: called here with a task's place and its events.
        stopping: asked a few times a second; where it is true, every task stops at its next `checkpoint`.

    Raises:
        ByroteError: that of a task; the engine's library is not installed, or the engine refuses an option.
        KeyboardInterrupt: work was stopped.
    """
    if engine.name == "local":
        n = engine.n_at_once(needs, len(tasks))
        yield from side_by_side(work, tasks, processes=n, hear=hear, stopping=stopping)
        return
    if engine.name == "ray":
        from byrote.checkpoints.ray_engine import on_ray as elsewhere
    else:
        from byrote.checkpoints.slurm_engine import on_slurm as elsewhere
    yield from elsewhere(
        work, tasks, engine.jobs, needs, engine.options, folder, hear=hear, stopping=stopping
    )
