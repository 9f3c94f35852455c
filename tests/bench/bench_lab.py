"""What the lab costs: its trainer over a bare PyTorch loop, runs trained together over single ones, a checkpoint measured.

Run it from the repository's root: ``python tests/bench/bench_lab.py [--steps 600] [--pairs 5]``.
The lab's side counts everything: drawing data, evaluating, writing every checkpoint and the state to resume.
The bare side gets its batches ready-made. What is compared alternates in one process, so that a slow spell hits both.

Three numbers, each with its target:
    lab / bare, of the default recipe                              at most 1.2
    single / together, of 12 runs of tiled-small                   at least 2
    seconds of one core to measure a checkpoint of tiled-small     at most 0.1
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))

from byrote.checkpoints import open_series
from byrote.checkpoints.lab import Arm, LabConfig, train
from byrote.checkpoints.lab.model import build_model, learning_rate
from byrote.checkpoints.lab.recipes import recipe
from byrote.checkpoints.lab.source import ArmStream
from byrote.checkpoints.lab.stack import train_stack
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.many import SweepTask, sweep_many

TARGET_RATIO, TARGET_TOGETHER, TARGET_MEASURED_S = 1.2, 2.0, 0.1
N_TOGETHER, N_SERIES, N_CHECKPOINTS = 12, 4, 20
PROBES = ("prefix_matching", "previous_token", "copying_logit", "repeat_loss")


def bare_loop_s(config: LabConfig, batches: Tensor) -> float:
    """Seconds of a loop that only trains."""
    model = build_model(config)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    started = time.perf_counter()
    for step, tokens in enumerate(batches):
        optimizer.param_groups[0]["lr"] = learning_rate(config, step)
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started


def lab_s(config: LabConfig) -> float:
    """Seconds of `train`, from an empty folder to a complete series."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        train(Path(folder) / "series", config, on_event=lambda event: None)
        return time.perf_counter() - started


def lab_over_bare(steps: int, pairs: int) -> float:
    """Median of lab / bare, of the default recipe."""
    config = LabConfig(arm=Arm("repeated", 0.5, 64), steps=steps)
    stream = ArmStream(config.source, config.arm, seed=config.seed, batch=config.batch)
    batches = torch.from_numpy(stream.batches(0, config.steps))
    bare_loop_s(config, batches[:20])
    ratios = []
    for pair in range(pairs):
        bare, lab = bare_loop_s(config, batches), lab_s(config)
        ratios.append(lab / bare)
        print(f"pair {pair + 1}: bare {bare:.2f} s, lab {lab:.2f} s, ratio {ratios[-1]:.3f}", flush=True)
    median = statistics.median(ratios)
    print(
        f"lab / bare over {steps} steps, {len(config.schedule)} checkpoints: median {median:.3f}, "
        f"range {min(ratios):.3f}-{max(ratios):.3f}, target at most {TARGET_RATIO}"
    )
    return median


def single_over_together(steps: int, pairs: int) -> float:
    """Median of the time of 12 single runs over that of the same 12 together; one of them stands for the single ones."""
    base = replace(recipe("tiled-small"), steps=steps, checkpoints=5)
    configs = [replace(base, seed=seed, name=f"seed{seed}") for seed in range(N_TOGETHER)]
    ratios = []
    for pair in range(pairs):
        with tempfile.TemporaryDirectory() as folder:
            runs = [(Path(folder) / config.name, config) for config in configs]
            started = time.perf_counter()
            train_stack(runs, state=Path(folder) / "state")
            together = time.perf_counter() - started
        single = N_TOGETHER * lab_s(configs[pair % N_TOGETHER])
        ratios.append(single / together)
        print(
            f"pair {pair + 1}: single {single:.2f} s, together {together:.2f} s, ratio {ratios[-1]:.2f}",
            flush=True,
        )
    median = statistics.median(ratios)
    print(
        f"{N_TOGETHER} runs of tiled-small, single / together over {steps} steps: median {median:.2f}, "
        f"range {min(ratios):.2f}-{max(ratios):.2f}, target at least {TARGET_TOGETHER}"
    )
    return median


def measured_s() -> float:
    """Seconds of one core to measure a checkpoint with the probes of a claim: median of several series."""
    base = replace(recipe("tiled-small"), steps=40, checkpoints=N_CHECKPOINTS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = [(folder / f"seed{seed}", replace(base, seed=seed)) for seed in range(N_SERIES)]
        train_stack(runs, state=folder / "state")
        config = SweepConfig(probes=PROBES, threads=1)
        tasks = [SweepTask(open_series(path), config, folder / "results") for path, _ in runs]
        took, last = [], time.process_time()
        for place, _ in sweep_many(tasks):
            now = time.process_time()
            took.append((now - last) / len(tasks[place].series))
            last = now
    first, others = took[0], took[1:]  # the first one imports, and builds the bridge
    median = statistics.median(others)
    print(
        f"a checkpoint of tiled-small measured with {', '.join(PROBES)}: median {median:.3f} s of one core, range "
        f"{min(others):.3f}-{max(others):.3f} (first series {first:.3f}), target at most {TARGET_MEASURED_S}"
    )
    return median


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--pairs", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    missed = lab_over_bare(asked.steps, asked.pairs) > TARGET_RATIO
    missed |= single_over_together(min(asked.steps, 300), asked.pairs) < TARGET_TOGETHER
    missed |= measured_s() > TARGET_MEASURED_S
    sys.exit(missed)


if __name__ == "__main__":
    main()
