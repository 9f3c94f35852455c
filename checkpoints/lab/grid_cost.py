"""What a grid costs before it is trained: minutes, by a few steps of each shape trained here, and bytes."""

from __future__ import annotations

import heapq
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from byrote.checkpoints.lab.arms import Arm
from byrote.checkpoints.lab.config import LabConfig
from byrote.checkpoints.lab.grid_training import Job, work
from byrote.checkpoints.lab.run_grid import Plan
from byrote.checkpoints.lab.together import shape_of

TRIED_STEPS = (8, 40)


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
    """

    seconds: float
    n_bytes: float
    tried: Mapping[LabConfig, Tried]


def cost_of(plan: Plan, *, cores: int) -> Cost:
    """Train a few steps of each shape of a plan, in a folder that is removed, and say what all of it takes.

    Args:
        plan: of a grid.
        cores: processes that train side by side.
    """
    tried: dict[LabConfig, Tried] = {}
    for stack in sorted(plan.stacks, key=len, reverse=True):
        config = plan.runs[stack[0]].config
        if shape_of(config) not in tried:
            tried[shape_of(config)] = _try([replace(config, arm=Arm(), seed=k) for k in range(len(stack))])
    stacks_s = []
    n_bytes = 0.0
    for stack in plan.stacks:
        config = plan.runs[stack[0]].config
        found = tried[shape_of(config)]
        share = len(stack) / found.n_runs
        stacks_s.append(share * (found.step_s * config.steps + found.written_s * len(config.schedule)))
        log = 64 * config.steps / 10
        each = found.checkpoint_bytes * len(config.schedule) + found.other_bytes + log
        n_bytes += len(stack) * each
    return Cost(_side_by_side(stacks_s, cores), n_bytes, tried)


def _side_by_side(seconds: list[float], cores: int) -> float:
    """Seconds until all are done, each started on the first core that is free."""
    free = [0.0] * max(1, cores)
    for one in seconds:
        heapq.heappush(free, heapq.heappop(free) + one)
    return max(free)


def _try(configs: list[LabConfig]) -> Tried:
    with tempfile.TemporaryDirectory(prefix="byrote-") as name:
        few, more = TRIED_STEPS
        _train_few(configs, few, Path(name) / "first")  # imports, and what is only slow once
        took_few = _train_few(configs, few, Path(name) / "few")
        took_more = _train_few(configs, more, Path(name) / "more")
        step_s = max(took_more - took_few, 1e-9) / (more - few)
        series = Path(name) / "more" / "0"
        sizes = {
            file.relative_to(series): file.stat().st_size for file in series.rglob("*") if file.is_file()
        }
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
