"""How much the lab's trainer costs over a bare PyTorch loop on the same module, optimiser and batches.

Run it from the repository's root: ``python tests/bench/bench_lab.py [--steps 600] [--pairs 5]``.
The lab's side counts everything: drawing data, evaluating, writing every checkpoint and the state to resume.
The bare side gets its batches ready-made. The two alternate in one process, so that a slow spell hits both.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))

from byrote.checkpoints.lab import Arm, LabConfig, train
from byrote.checkpoints.lab.model import build_model, learning_rate
from byrote.checkpoints.lab.source import ArmStream

TARGET_RATIO = 1.2


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--pairs", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    config = LabConfig(arm=Arm("repeated", 0.5, 64), steps=asked.steps)
    stream = ArmStream(config.source, config.arm, seed=config.seed, batch=config.batch)
    batches = torch.from_numpy(stream.batches(0, config.steps))
    bare_loop_s(config, batches[:20])
    ratios = []
    for pair in range(asked.pairs):
        bare, lab = bare_loop_s(config, batches), lab_s(config)
        ratios.append(lab / bare)
        print(f"pair {pair + 1}: bare {bare:.2f} s, lab {lab:.2f} s, ratio {ratios[-1]:.3f}", flush=True)
    median = statistics.median(ratios)
    print(
        f"lab / bare over {asked.steps} steps, {len(config.schedule)} checkpoints: median {median:.3f}, "
        f"range {min(ratios):.3f}-{max(ratios):.3f}, target {TARGET_RATIO}"
    )
    sys.exit(median > TARGET_RATIO)


if __name__ == "__main__":
    main()
