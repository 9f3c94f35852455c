"""What a grid costs before it is trained: minutes, by a few steps of each shape trained here, and bytes.

What an arm takes from other runs before it is trained (samples, edits, choices) is made here for a few sequences, from runs of those few
steps, and counted for as many as the arm has. Arms of a stack that sample from the same run share their samples: the most count. What is
made of the source alone takes hardly any time, and is counted in bytes; so are weights that training begins with.
"""

from __future__ import annotations

import heapq
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from byrote.checkpoints.lab.arms import Arm
from byrote.checkpoints.lab.arms.part import Corpus
from byrote.checkpoints.lab.batches import INITIAL, places_of
from byrote.checkpoints.lab.config import LabConfig
from byrote.checkpoints.lab.grid_training import Job, work
from byrote.checkpoints.lab.inputs import make_inputs
from byrote.checkpoints.lab.run_grid import Plan, PlannedRun
from byrote.checkpoints.lab.sources.contract import Source
from byrote.checkpoints.lab.together import shape_of

TRIED_STEPS = (8, 40)
TRIED_SEQUENCES = 512  # models are sampled from so many at a time
_FIRST = {
    "again": False,
    "generation": 1,
    "step": 0,
}  # settings that ask of another run what one of a few steps has not


@dataclass(frozen=True)
class Tried:
    """A few steps of one shape, trained here.

    Attributes:
        n_runs: trained together.
        step_s: seconds of one step of all of them.
        written_s: seconds of one written step of all of them.
        checkpoint_bytes: of one written step of one run, its place in the manifest included.
        other_bytes: of one run: data, config and the rest of the manifest.
    """

    n_runs: int
    step_s: float
    written_s: float
    checkpoint_bytes: float
    other_bytes: float


@dataclass(frozen=True)
class Cost:
    """What a grid costs.

    Attributes:
        seconds: of training on so many cores; the start of processes is left out.
        n_bytes: of all series.
        tried: what was measured, by a config of that shape.
        making_s: seconds of one core, in `seconds`, in which arms are given what they take from other runs.
    """

    seconds: float
    n_bytes: float
    tried: Mapping[LabConfig, Tried]
    making_s: float = 0.0


@dataclass
class _Trials:
    """What was tried, in a folder that is removed.

    Attributes:
        folder: where.
        tried: by a config of that shape.
        made: (seconds of a block of sequences, bytes of each that is stored) of what a part makes, by shape and part.
    """

    folder: Path
    tried: dict[LabConfig, Tried] = field(default_factory=dict)
    made: dict[tuple[LabConfig, Any], tuple[float, float]] = field(default_factory=dict)

    def series_of(self, shape: LabConfig) -> Path:
        """A series of a few steps of this shape."""
        return self.folder / str(list(self.tried).index(shape)) / "more" / "0"


def cost_of(plan: Plan, *, cores: int) -> Cost:
    """Train a few steps of each shape of a plan, in a folder that is removed, and say what all of it takes.

    Args:
        plan: of a grid.
        cores: processes that train side by side.
    """
    with tempfile.TemporaryDirectory(prefix="byrote-") as name:
        trials = _Trials(Path(name))
        for stack in sorted(plan.stacks, key=len, reverse=True):
            config = plan.runs[stack[0]].config
            if shape_of(config) not in trials.tried:
                alike = [replace(config, arm=Arm(), seed=k) for k in range(len(stack))]
                trials.tried[shape_of(config)] = _try(alike, Path(name) / str(len(trials.tried)))
        making = {stack: _making(trials, [plan.runs[k] for k in stack]) for stack in plan.stacks}
    seconds = {stack: _training_s(trials, plan, stack) + making[stack][0] for stack in plan.stacks}
    return Cost(
        sum(_side_by_side([seconds[stack] for stack in wave], cores) for wave in plan.waves()),
        sum(_bytes(trials, plan, stack) + making[stack][1] for stack in plan.stacks),
        trials.tried,
        sum(seconds for seconds, _ in making.values()),
    )


def _training_s(trials: _Trials, plan: Plan, stack: Sequence[int]) -> float:
    config = plan.runs[stack[0]].config
    found = trials.tried[shape_of(config)]
    share = len(stack) / found.n_runs
    return share * (found.step_s * config.steps + found.written_s * len(config.schedule))


def _bytes(trials: _Trials, plan: Plan, stack: Sequence[int]) -> float:
    config = plan.runs[stack[0]].config
    found, log = trials.tried[shape_of(config)], 64 * config.steps / 10
    return len(stack) * (found.checkpoint_bytes * len(config.schedule) + found.other_bytes + log)


def _making(trials: _Trials, runs: Sequence[PlannedRun]) -> tuple[float, float]:
    """Seconds and bytes of what the arms of a stack are given before training."""
    seconds, n_bytes = dict[Any, float](), 0.0
    for run in runs:
        config = run.config
        for places in places_of(
            config.source, config.arm, seed=config.seed, batch=config.batch, steps=config.steps
        ):
            part, stored = places.part, places.part.n_stored(places)
            if part.gives_weights:
                n_bytes += trials.tried[shape_of(config)].checkpoint_bytes
            if not part.runs or not isinstance(part, Corpus):
                n_bytes += stored * _sequence_bytes(places.source)
                continue
            block, block_s, each_bytes = _made(trials, config, part)
            n, alike = part.size(places), (config.seed, replace(part, share=1.0))
            seconds[alike] = max(seconds.get(alike, 0.0), -(-n // block) * block_s)
            n_bytes += stored * each_bytes
    return sum(seconds.values()), n_bytes


def _made(trials: _Trials, config: LabConfig, part: Corpus) -> tuple[int, float, float]:
    """How many sequences were tried, seconds for them, and bytes of each that is stored, of what a part makes from a run of a few steps."""
    shape = shape_of(config)
    named = {name: str(trials.series_of(shape)) for name in part.runs if getattr(part, name)}
    simple = {name: value for name, value in _FIRST.items() if name in part.settings()}
    block = min(TRIED_SEQUENCES, config.batch * config.steps)
    tried = replace(part, share=1.0, corpus=block, **named, **simple)
    if (shape, tried) not in trials.made:
        seconds = 0.0
        for seed in (0, 1):  # what is only slow once is in the first; samples of another seed are made anew
            started = time.perf_counter()
            arrays, _ = make_inputs(replace(config, arm=Arm.of(tried), seed=seed), trials.folder)
            seconds = time.perf_counter() - started
        n_bytes = sum(array.nbytes for name, array in arrays.items() if INITIAL not in name)
        rows = max(len(array) for name, array in arrays.items() if INITIAL not in name)
        trials.made[shape, tried] = seconds, n_bytes / rows
    return (block, *trials.made[shape, tried])


def _sequence_bytes(source: Source) -> int:
    """Of one stored sequence: ids in as few bytes as they need, BOS among them."""
    return (source.n_ctx + 1) * np.min_scalar_type(source.d_vocab - 1).itemsize


def _side_by_side(seconds: list[float], cores: int) -> float:
    """Seconds until all are done, each started on the first core that is free."""
    free = [0.0] * max(1, cores)
    for one in seconds:
        heapq.heappush(free, heapq.heappop(free) + one)
    return max(free)


def _try(configs: list[LabConfig], folder: Path) -> Tried:
    few, more = TRIED_STEPS
    _train_few(configs, few, folder / "first")  # imports, and what is only slow once
    took_few = _train_few(configs, few, folder / "few")
    took_more = _train_few(configs, more, folder / "more")
    step_s = max(took_more - took_few, 1e-9) / (more - few)
    series = folder / "more" / "0"
    sizes = {file.relative_to(series): file.stat().st_size for file in series.rglob("*") if file.is_file()}
    weights = [size for file, size in sizes.items() if file.name == "model.safetensors"]
    manifest = sizes[Path("manifest.json")]
    per_entry = manifest / 4  # two entries, and as much of everything else
    others = sum(sizes.values()) - sum(weights) - sizes.get(Path("log.jsonl"), 0) - 2 * per_entry
    written_s = max(took_few - few * step_s, 0.0) / len(weights)
    return Tried(len(configs), step_s, written_s, weights[0] + per_entry, others)


def _train_few(configs: list[LabConfig], steps: int, out: Path) -> float:
    """Seconds of so many steps with a written one at either end."""
    short = [
        replace(config, steps=steps, every=steps, checkpoints=2, name=str(k))
        for k, config in enumerate(configs)
    ]
    job = Job(tuple((out / config.name, config) for config in short), out / "state")
    started = time.perf_counter()
    work(job, lambda event: None)
    return time.perf_counter() - started
