"""Many series, measured one after another or side by side: what each of them would get alone, bit for bit.

Models of one shape share one bridge in a process, so that a short series costs what its checkpoints cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.series import CheckpointSeries
from byrote.checkpoints.side_by_side import OnEvent, side_by_side
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.folder import SweepOutcome

if TYPE_CHECKING:
    from byrote.interp.bridge import HookedSeries


@dataclass(frozen=True)
class SweepTask:
    """One series that is to be measured.

    Attributes:
        series: it, or the steps of it that are chosen.
        config: settings of the sweep.
        out: parent of its results folder.
        fresh, rehash, fail_fast: see `sweep`.
        plugins: files with probes of one's own, which are run.
    """

    series: CheckpointSeries
    config: SweepConfig
    out: Path
    fresh: bool = False
    rehash: bool = False
    fail_fast: bool = False
    plugins: tuple[Path, ...] = ()


def sweep_many(
    tasks: Sequence[SweepTask],
    *,
    jobs: int = 1,
    on_event: Callable[[int, dict[str, Any]], None] = lambda place, event: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, SweepOutcome]]:
    """Measure several series; yields the place of each as it is done, and what was done.

    Args:
        tasks: with results folders of different names.
        jobs: processes; in several of them torch takes one thread each, where none are set.
        on_event: called with a task's place and the events of its sweep.
        stopping: asked a few times a second; where it is true, sweeps stop after the checkpoint in flight.

    Raises:
        ByroteError: that of a series; steps on the hub, which one process at a time can fetch.
        KeyboardInterrupt: it was stopped; finished checkpoints are kept.
    """
    if jobs > 1 and any(one.source is not None for task in tasks for one in task.series):
        raise ByroteError(
            "steps on the hub are fetched by one process", help="leave --jobs out, or download them first"
        )
    if jobs > 1:
        tasks = [
            replace(task, config=replace(task.config, threads=task.config.threads or 1)) for task in tasks
        ]
    for place, outcome in side_by_side(sweep_one, tasks, processes=jobs, hear=on_event, stopping=stopping):
        if outcome.interrupted:
            raise KeyboardInterrupt
        yield place, outcome


def sweep_one(task: SweepTask, on_event: OnEvent) -> SweepOutcome:
    """Measure one series, in whatever process this is.

    Raises:
        ByroteError: see `sweep`.
    """
    from byrote.probes.registry import load_file
    from byrote.probes.sweep.run import sweep

    for file in task.plugins:
        load_file(file)
    return sweep(
        task.series,
        task.config,
        out=task.out,
        fresh=task.fresh,
        rehash=task.rehash,
        fail_fast=task.fail_fast,
        on_event=on_event,
        models=shared_models(task.config.device, task.config.dtype, task.config.swap),
    )


@lru_cache(maxsize=1)
def shared_models(
    device: str, dtype: str, swap: Literal["auto", "fresh"]
) -> Callable[[CheckpointSeries], Any]:
    """What loads series one after another into one bridge; nothing is imported before the first model is loaded.

    Args:
        device, dtype, swap: as in a sweep's configuration.
    """
    walker: HookedSeries | None = None

    def for_series(series: CheckpointSeries) -> HookedSeries:
        nonlocal walker
        import torch

        from byrote.interp.bridge import HookedSeries

        if walker is None or walker.note:  # swapping failed on a series: the next one tries anew
            walker = HookedSeries(series, device=device, dtype=getattr(torch, dtype), swap=swap)
        walker.series = series
        return walker

    return for_series
