"""Results of a small planted study of repeated data: a ladder of healthy sizes, and pools at the largest, five seeds each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from planted_series import head_metric, model_metric, write_results

from byrote.probes.results import Results

LOSS = {0: 2.0, 256: 2.1, 16: 3.5, 4: 2.8}  # nats, by pool; 0 is the control
LADDER = {1000: 4.0, 2000: 3.0, 4000: 2.0}  # nats, of the control by parameters
RAISE = {0: 2.0, 256: 2.0, 16: 0.1, 4: 1.5}  # logits of the one head that copies
KNOWN = {256: 0.6, 16: 0.05, 4: 0.01}  # loss on the pool over that on fresh data
SEEDS = range(5)


def write_study(root: Path) -> list[Results]:
    """Every run, the control's sizes first."""
    root.mkdir(parents=True, exist_ok=True)
    lines, runs = [], []
    for name, pool, size, seed in _names():
        lines.append(f'[runs."{name}"]\nparameters = {size}\nparameters_without_embeddings = {size // 2}\n')
        runs.append(write_run(root, name, pool, size, seed))
    (root / "byrote.toml").write_text("".join(lines))
    return [Results.open(path) for path in runs]


def descending(root: Path, arm: str, humps: list[float]) -> list[Results]:
    """A run per seed whose loss falls, rises by its hump at steps 30 to 200, and falls again; a hump of 0 only falls."""
    steps = [1, 3, 10, 30, 60, 100, 200, 500, 1500]
    shape = np.array([5, 4, 3, 3, 3, 3, 3, 2.8, 2.6]), np.array([0, 0, 0, 0.5, 1, 1, 0.5, 0, 0])
    runs = []
    for seed, hump in enumerate(humps):
        loss = shape[0] + hump * shape[1] + 0.01 * seed
        units = {
            step: [model_metric("held_out_loss", "loss", float(v), half=0.001)]
            for step, v in zip(steps, loss, strict=True)
        }
        facts = {"kind": arm, "repeat_frac": 0.5 if arm == "repeated" else 0.0}
        runs.append(write_results(root, f"{arm}-s{seed}", units, arm=facts, seed=seed))
    return [Results.open(path) for path in runs]


def _names() -> Iterator[tuple[str, int, int, int]]:
    for size in LADDER:
        yield from ((f"control-{size}-s{seed}", 0, size, seed) for seed in SEEDS)
    for pool in list(LOSS)[1:]:
        yield from ((f"rep-p{pool}-s{seed}", pool, 4000, seed) for seed in SEEDS)


def write_run(root: Path, name: str, pool: int, size: int, seed: int) -> Path:
    """One results folder of one step."""
    arm = {"kind": "repeated" if pool else "control", "repeat_frac": 0.5 if pool else 0.0, "pool_size": pool,
           "repeats_per_sequence": 1000 / pool if pool else 0}  # fmt: skip
    raises, called, before = np.full((2, 3), 0.1), np.zeros((2, 3)), np.full((2, 3), 0.1)
    raises[1, 2], called[1, 2], before[0, 1] = RAISE[pool], float(RAISE[pool] > 1), 0.9
    loss = (LOSS[pool] if pool else LADDER[size]) + 0.01 * seed
    units = [
        model_metric("held_out_loss", "loss", loss),
        head_metric("induction_dla", raises, half=0.0),
        head_metric("induction", called, metric="verdict", half=0.0),
        head_metric("previous_token", before),
        head_metric("prefix_matching", called),
    ]
    if pool:
        units.append(model_metric("mem_gap", "loss_share", KNOWN[pool], half=0.001))
    return write_results(root, name, {20: units}, arm=arm, seed=seed)
