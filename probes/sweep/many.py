"""Many series, or the shards of one, measured one after another or side by side: what one process would get, bit for bit.

Models of one shape share one bridge in a process, so that a short series costs what its checkpoints cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from byrote.checkpoints.atomic import make_folder
from byrote.checkpoints.engines import HERE, Engine, Needs, run_tasks
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.series import CheckpointSeries, text_of
from byrote.checkpoints.side_by_side import Lost, OnEvent
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.folder import SweepOutcome, open_run_folder
from byrote.probes.sweep.plan import groups
from byrote.probes.sweep.shards import NOTHING, Shard
from byrote.probes.sweep.units import lacking_steps

if TYPE_CHECKING:
    from byrote.interp.bridge import HookedSeries

PROCESS_BYTES = (
    1_500_000_000  # of Python with torch and TransformerLens, stimuli and logits: 1.9 GB in all at 70M
)
WEIGHTS_TIMES = 4  # the file may hold two bytes a number and the model four; and what passes through a layer
CHECKPOINTS_A_TASK = 8  # on a cluster: few enough to be spread, many enough to be worth starting
SLURM_JOBS = 16


@dataclass(frozen=True)
class SweepTask:
    """One series that is to be measured, or a shard of it.

    Attributes:
        series: it, or the steps of it that are chosen.
        config: settings of the sweep.
        out: parent of its results folder.
        fresh, rehash, fail_fast, shard: see `sweep`.
        plugins: files with probes of one's own, which are run.
        trace: a file that gets what took when; several tasks may share it.
    """

    series: CheckpointSeries
    config: SweepConfig
    out: Path
    fresh: bool = False
    rehash: bool = False
    fail_fast: bool = False
    plugins: tuple[Path, ...] = ()
    shard: Shard | None = None
    trace: Path | None = None


def sweep_many(
    tasks: Sequence[SweepTask],
    *,
    engine: Engine = HERE,
    on_event: Callable[[int, dict[str, Any]], None] = lambda place, event: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, SweepOutcome]]:
    """Measure several series; yields the place of each as it is done, and what was done.

    Args:
        tasks: with results folders of different names.
        engine: where; in several processes torch takes one thread each, where none are set, and a series is cut into shards
            where there are more processes than series.
        on_event: called with a task's place and the events of its sweep; `done` and `total` are those of the whole series.
        stopping: asked a few times a second; where it is true, sweeps stop after the checkpoint in flight.

    Raises:
        ByroteError: that of a series; steps on the hub, which one process at a time can fetch.
        KeyboardInterrupt: it was stopped; finished checkpoints are saved.
    """
    needs = needs_of(tasks)
    n_at_once = engine.n_at_once(needs, sum(len(task.series) for task in tasks))
    if (n_at_once > 1 or engine.name != "local") and any(
        one.source is not None for task in tasks for one in task.series
    ):
        raise ByroteError(
            "steps on the hub are fetched by one process", help="leave --jobs out, or download them first"
        )
    if n_at_once > 1 or engine.name != "local":
        tasks = [
            replace(task, config=replace(task.config, threads=task.config.threads or 1)) for task in tasks
        ]
    parts = [
        (place, part)
        for place, task in enumerate(tasks)
        for part in _cut(task, engine, n_at_once, len(tasks))
    ]
    if engine.name == "local":
        engine = replace(engine, jobs=n_at_once)
    together = [
        _Together(task, [k for k, (of, _) in enumerate(parts) if of == place])
        for place, task in enumerate(tasks)
    ]
    folder = tasks[0].out if tasks else Path()
    if engine.name != "local":
        make_folder(folder)

    def hear(k: int, event: dict[str, Any]) -> None:
        place = parts[k][0]
        on_event(place, together[place].event(k, event))

    work = [part for _, part in parts]
    for k, outcome in run_tasks(
        sweep_one, work, engine=engine, needs=needs, folder=folder, hear=hear, stopping=stopping
    ):
        if isinstance(outcome, SweepOutcome) and outcome.interrupted:
            raise KeyboardInterrupt
        place = parts[k][0]
        if (whole := together[place].add(k, parts[k][1], outcome)) is not None:
            yield place, whole


def needs_of(tasks: Sequence[SweepTask]) -> Needs:
    """What one process that measures these series takes, as far as the sizes of their files say."""
    sizes = [task.series[-1].size_bytes for task in tasks if len(task.series) and task.series[-1].files]
    memory = PROCESS_BYTES + WEIGHTS_TIMES * max(sizes, default=0)
    threads = max((task.config.threads or 1 for task in tasks), default=1)
    gpus = int(any(task.config.device.startswith("cuda") for task in tasks))
    return Needs(memory, threads, gpus)


def _cut(task: SweepTask, engine: Engine, n_at_once: int, n_series: int) -> list[SweepTask]:
    """The task itself, or its shards, where there is room for more of them than there are series."""
    n = -(-n_at_once // n_series)
    if engine.name == "ray":
        n = max(-(-(engine.jobs or 1) // n_series), -(-len(task.series) // CHECKPOINTS_A_TASK))
    elif engine.name == "slurm":
        n = -(-(engine.jobs or SLURM_JOBS) // n_series)
    n = min(n, len(task.series))
    if n <= 1 and engine.name == "local":
        return [task]
    if task.fresh:
        with open_run_folder(task.out, task.series, fresh=True):
            pass
    return [replace(task, fresh=False, shard=Shard(k, n)) for k in range(1, n + 1)]


class _Together:
    """What the shards of one series did, added up.

    Args:
        task: the whole series.
        parts: numbers of its shards.
    """

    def __init__(self, task: SweepTask, parts: Sequence[int]) -> None:
        self.task, self.parts = task, parts
        self.latest: dict[int, dict[str, Any]] = {}
        self.outcomes: dict[int, SweepOutcome] = {}
        self.lost: list[dict[str, Any]] = []

    def event(self, k: int, event: dict[str, Any]) -> dict[str, Any]:
        """An event of a shard as one of the series; its time left is that of one process."""
        if event["event"] != "checkpoint" or len(self.parts) == 1:
            return event
        self.latest[k] = event
        latest, of_series = list(self.latest.values()), len(self.task.series.gaps)
        done, total = sum(one["done"] for one in latest), len(self.task.series)
        each = [one["s_per_checkpoint"] for one in latest if one["s_per_checkpoint"]]
        mean = sum(each) / len(each) if each else 0.0
        known = mean > 0 and all(one["eta_s"] is not None for one in latest)
        return {
            **event,
            "done": done,
            "total": total,
            "errors": sum(one["errors"] - of_series for one in latest) + of_series,
            "s_per_checkpoint": mean,
            "eta_s": mean * (total - done) if known else None,
        }

    def add(self, k: int, part: SweepTask, outcome: SweepOutcome | Lost) -> SweepOutcome | None:
        """Note what a shard did; what all did, once the last is there."""
        if isinstance(outcome, Lost):
            self.lost += _not_measured(part, outcome)
            outcome = SweepOutcome(part.out / part.series.name)
        self.outcomes[k] = outcome
        if len(self.outcomes) < len(self.parts):
            return None
        if self.lost:  # whoever would have said so was lost: the folder says it is not finished
            sweep_one(replace(self.task, fresh=False, shard=NOTHING), lambda event: None)
        if len(self.parts) == 1 and not self.lost:
            return outcome
        return self._whole()

    def _whole(self) -> SweepOutcome:
        found = [self.outcomes[k] for k in self.parts]
        first = SweepOutcome(found[0].path)
        of_series = len(self.task.series.gaps)
        for one in found:
            first.measured += one.measured
            first.reused += one.reused
            first.superseded += one.superseded
            first.set_aside += one.set_aside
            first.trace += one.trace
            first.drift = first.drift or one.drift
            first.settled = first.settled or one.settled
        gaps = [gap for one in found for gap in one.gaps[of_series:]] + self.lost
        place = {step: k for k, step in enumerate(self.task.series.steps)}
        listed = next((one.gaps[:of_series] for one in found if one.gaps), [])
        first.gaps = [*listed, *sorted(gaps, key=lambda gap: place.get(gap["step"], 0))]
        return first


def _not_measured(part: SweepTask, lost: Lost) -> list[dict[str, Any]]:
    """Gaps of the checkpoints of a task that was lost too often; what it finished is kept."""
    mine = part.shard.checkpoints(part.series) if part.shard else part.series.checkpoints
    root = part.out / part.series.name
    lacking = lacking_steps(root, groups(part.config.infos), [one.step for one in mine])
    return [
        {"step": one.step, "path": text_of(one.path.name), "reason": lost.reason, "help": lost.help}
        for one in mine
        if one.step in lacking
    ]


def sweep_one(task: SweepTask, on_event: OnEvent) -> SweepOutcome:
    """Measure one series, or a shard of it, in whatever process this is.

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
        shard=task.shard,
        trace=task.trace,
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
