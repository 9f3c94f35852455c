"""Checkpoint series whose weights move as in training, without training: for linting, and for planting faults in.

Weights start at random, warm up, turn slowly while they move, diffuse, and settle as the learning rate falls.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tiny_models import LAB_FIELDS, lab_state, tiny_hf_model

State = dict[str, np.ndarray]
States = dict[int, State]

LOG_STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
EVEN_STEPS = tuple(range(0, 1300, 100))
BOTH_STEPS = (0, 1, 2, 4, 8, 16, 32, 64, *range(100, 1600, 100))
ARCHITECTURES = ("native", "gpt_neox", "llama")


@cache
def _initial(arch: str, seed: int) -> tuple[tuple[str, np.ndarray], ...]:
    """A fresh initialisation: matrices random, biases zero, gains one, as trainers begin."""
    state = lab_state(seed) if arch == "native" else tiny_hf_model(arch, seed=seed).state_dict()
    fixed = {"bias": 0.0, "norm": 1.0}
    arrays = {}
    for name, tensor in state.items():
        value = next((v for word, v in fixed.items() if word in name and tensor.ndim == 1), None)
        arrays[name] = tensor.numpy() if value is None else np.full(tensor.shape, value, np.float32)
    return tuple(arrays.items())


def drift(
    arch: str,
    steps: Sequence[int],
    *,
    seed: int = 0,
    travel: float = 1.0,
    diffusion: float = 0.3,
    warmup: int = 20,
) -> States:
    """Weights at each step.

    Args:
        arch: one of `ARCHITECTURES`.
        steps: ascending.
        seed: of the start and of the way.
        travel: how far the weights go in all, in units of their size.
        diffusion: how much of the way is random walk.
        warmup: steps over which the learning rate rises.
    """
    states = _drifted(arch, tuple(steps), seed=seed, travel=travel, diffusion=diffusion, warmup=warmup)
    return {step: {name: value.copy() for name, value in state.items()} for step, state in states.items()}


@lru_cache(maxsize=12)
def _drifted(
    arch: str, steps: tuple[int, ...], *, seed: int, travel: float, diffusion: float, warmup: int
) -> States:
    generator = np.random.default_rng(seed)
    state = {name: value.astype(np.float64) for name, value in _initial(arch, seed)}
    size = {name: max(0.02, float(value.std())) for name, value in state.items()}
    ways = {name: generator.normal(size=(2, *value.shape)) for name, value in state.items()}
    time = [_learning(step, last=steps[-1], warmup=warmup) for step in steps]
    walked = {name: np.zeros_like(value) for name, value in state.items()}
    states: States = {}
    for k, step in enumerate(steps):
        passed = time[k] - time[k - 1] if k else time[0]
        angle = 1.5 * time[k]
        states[step] = {}
        for name, start in state.items():
            walked[name] += np.sqrt(passed) * diffusion * generator.normal(size=start.shape)
            straight = time[k] * (np.cos(angle) * ways[name][0] + np.sin(angle) * ways[name][1])
            states[step][name] = (start + travel * size[name] * (straight + walked[name])).astype(np.float32)
    return states


def _learning(step: int, *, last: int, warmup: int) -> float:
    """Share of all learning done by a step: the integral of a learning rate that warms up and falls to a tenth."""
    if last == 0:
        return 0.0
    warmup = min(warmup, last)

    def integral(s: float) -> float:
        risen = min(s, warmup) ** 2 / (2 * warmup)
        fallen = max(0.0, s - warmup)
        return risen + fallen - 0.45 * fallen**2 / max(1, last - warmup)

    return integral(step) / integral(last)


def write_series(
    folder: Path,
    arch: str,
    states: Mapping[int, State],
    *,
    dtype: torch.dtype = torch.float32,
    shards: int = 1,
    tokenizer: bool = True,
) -> Path:
    """Write states as the lab or Hugging Face would, and give back the folder.

    Args:
        folder: made.
        arch: one of `ARCHITECTURES`; native is written as a lab series.
        states: by step.
        dtype: stored type.
        shards: weight files per step, for Hugging Face folders.
        tokenizer: put a small tokenizer.json beside each step's weights.
    """
    folder.mkdir(parents=True)
    listed = []
    for step, state in states.items():
        name = f"step_{step:08d}" if arch == "native" else f"step{step}"
        path = folder / name
        path.mkdir()
        _write_weights(path, state, dtype=dtype, shards=shards)
        listed.append({"step": step, "folder": name, "tokens_seen": 100 * step, "train_loss_nats": 3.0})
        if arch != "native":
            (path / "config.json").write_text(tiny_config(arch))
            if tokenizer:
                vocab = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [], "truncation": None}
                (path / "tokenizer.json").write_text(json.dumps(vocab))
    if arch == "native":
        (folder / "config.json").write_text(json.dumps(LAB_FIELDS))
        manifest = {"format": "byrote-lab", "version": 1, "name": folder.name, "status": "complete"}
        (folder / "manifest.json").write_text(json.dumps({**manifest, "checkpoints": listed}))
    return folder


@cache
def tiny_config(arch: str) -> str:
    """The config.json of an architecture."""
    return tiny_hf_model(arch, seed=0).config.to_json_string()


def _write_weights(path: Path, state: State, *, dtype: torch.dtype, shards: int) -> None:
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)).to(dtype) for name, value in state.items()}
    if shards == 1:
        save_file(tensors, path / "model.safetensors")
        return
    where = {}
    for k in range(shards):
        file = f"model-{k + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in list(tensors)[k::shards]}
        save_file(part, path / file)
        where |= dict.fromkeys(part, file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
