"""Linting: nothing is said against clean series, and each planted fault is found at the steps it was planted in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drifting_series import (
    ARCHITECTURES,
    BOTH_STEPS,
    EVEN_STEPS,
    LOG_STEPS,
    States,
    drift,
    tiny_config,
    write_series,
)
from safetensors.torch import load_file, save_file

from byrote.checkpoints import open_series
from byrote.checkpoints.lint import KINDS, LintReport, lint

SCHEDULES = {
    "log": LOG_STEPS,
    "even": EVEN_STEPS,
    "both": BOTH_STEPS,
    "short": (0, 100, 200, 300),
    "every step": tuple(range(24)),
    "late": tuple(range(500, 2600, 250)),
    "irregular": (0, 3, 10, 31, 100, 316, 700, 1000, 1900),
}
PACES = {
    "usual": {},
    "straight": {"travel": 0.1, "diffusion": 0.0, "warmup": 1},
    "restless": {"travel": 3.0, "diffusion": 1.5, "warmup": 200},
}


# `make test` has every schedule on every architecture, and every pace and every fault on one architecture each; all other
# combinations are tried by `make torture`, in time of their own.
MORE = pytest.mark.torture(seconds=0)


def clean_cases() -> Iterator[Any]:
    """(architecture, schedule, pace, seed)."""
    for i, (schedule, arch) in enumerate(product(SCHEDULES, ARCHITECTURES)):
        for pace, seed in (("usual", 0), ("usual", 1), ("straight", 2), ("restless", 2)):
            first = seed == 0 or (pace != "usual" and i % 3 == list(SCHEDULES).index(schedule) % 3)
            marks = () if first else MORE
            yield pytest.param(arch, schedule, pace, seed, id=f"{arch}-{schedule}-{pace}-{seed}", marks=marks)


@pytest.mark.parametrize(("arch", "schedule", "pace", "seed"), list(clean_cases()))
def test_clean_series_has_nothing_above_a_note(
    arch: str, schedule: str, pace: str, seed: int, tmp_path: Path
) -> None:
    states = drift(arch, SCHEDULES[schedule], seed=seed, **PACES[pace])
    report = lint(open_series(write_series(tmp_path / "run", arch, states)))
    assert report.clean, _told(report)
    assert report.usable_steps == SCHEDULES[schedule]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("arch", ["gpt_neox", "llama"])
def test_clean_series_in_half_precision_and_shards(arch: str, dtype: torch.dtype, tmp_path: Path) -> None:
    for k, pace in enumerate(({}, {"travel": 0.02, "diffusion": 0.5})):
        folder = write_series(
            tmp_path / str(k), arch, drift(arch, BOTH_STEPS, **pace), dtype=dtype, shards=3, tokenizer=False
        )
        report = lint(open_series(folder))
        assert report.clean, _told(report)


def test_a_trained_lab_series_is_clean(tmp_path: Path) -> None:
    from byrote.checkpoints.lab import LabConfig, SourceConfig, train

    source = SourceConfig(d_vocab=24, n_ctx=24, block_min=4, block_max=8)
    config = LabConfig(
        source=source, d_model=32, d_head=8, steps=240, batch=8, every=20, warmup_steps=10, n_held_out=8
    )
    report = lint(open_series(train(tmp_path / "run", config)))
    assert report.clean, _told(report)
    assert [f.kind for f in report.facts] == ["unchanged_tensors"]  # biases, which the lab leaves at 0
    assert set(report.facts[0].tensors) == {f"layers.{i}.attn.{x}.bias" for i in (0, 1) for x in "qkvo"}


def test_one_checkpoint_has_nothing_that_does_not_change(tmp_path: Path) -> None:
    """Until now every tensor of a single checkpoint was said to be frozen."""
    report = lint(open_series(write_series(tmp_path / "one", "llama", drift("llama", (100,)))))
    assert report.facts == () or list(report.facts) == [], _told(report)


def test_lr_restart_and_frozen_tensors_are_no_faults(tmp_path: Path) -> None:
    steps = tuple(range(0, 2100, 100))
    first, second = drift("llama", steps, travel=0.3), drift("llama", steps, travel=3.0, seed=1)
    states: States = {}
    for step in steps:
        moved = {name: second[step][name] - second[0][name] for name in first[0]}
        # From step 1000 on, the rate is ten times what it was just before.
        restarted = {name: second[step][name] - second[1000][name] for name in moved}
        states[step] = {
            name: (first[min(step, 1000)][name] + (restarted[name] if step > 1000 else 0)).astype(np.float32)
            for name in moved
        }
        states[step]["model.embed_tokens.weight"] = first[0]["model.embed_tokens.weight"]
    report = lint(open_series(write_series(tmp_path / "run", "llama", states)))
    assert report.clean, _told(report)
    assert report.of("unchanged_tensors")[0].tensors == ("model.embed_tokens.weight",)


@dataclass(frozen=True)
class Fault:
    """One planted fault: how to plant it, what it must be called, and where it must be found.

    `plant` changes the states before they are written, or the folder after; `left_out` must be exactly the steps
    that are not usable any more.
    """

    kind: str
    steps: tuple[int, ...]
    left_out: tuple[int, ...]
    states: Callable[[States, str], None] | None = None
    folder: Callable[[Path, str], None] | None = None
    severity: str | None = None
    tensors: int | None = None
    shards: int = 1
    only: tuple[str, ...] = ARCHITECTURES
    alone: bool = True


def _matrix(states: States) -> str:
    """A matrix that every architecture has, in the middle of the model."""
    step = next(iter(states))
    return sorted(n for n, v in states[step].items() if v.ndim == 2 and "1" in n)[0]


def _copy(source: int, *targets: int) -> Callable[[States, str], None]:
    def plant(states: States, arch: str) -> None:
        for target in targets:
            states[target] = states[source]

    return plant


def _swap(a: int, b: int) -> Callable[[States, str], None]:
    def plant(states: States, arch: str) -> None:
        states[a], states[b] = states[b], states[a]

    return plant


def _one_tensor(step: int, change: Callable[[States, str], np.ndarray]) -> Callable[[States, str], None]:
    def plant(states: States, arch: str) -> None:
        name = _matrix(states)
        states[step] = {**states[step], name: change(states, name).astype(np.float32)}

    return plant


def _all_tensors(step: int, factor: float) -> Callable[[States, str], None]:
    def plant(states: States, arch: str) -> None:
        states[step] = {name: value * np.float32(factor) for name, value in states[step].items()}

    return plant


def _foreign(*targets: int, seed: int = 7) -> Callable[[States, str], None]:
    def plant(states: States, arch: str) -> None:
        other = drift(arch, tuple(states), seed=seed)
        for target in targets:
            states[target] = other[target]

    return plant


def _nan(states: States, name: str) -> np.ndarray:
    value = states[600][name].copy()
    value[0, 3], value[1, 1] = np.nan, np.inf
    return value


def _shard_of(step: int, other: int) -> Callable[[Path, str], None]:
    def plant(folder: Path, arch: str) -> None:
        file = "model-00002-of-00003.safetensors"
        shutil.copy(folder / f"step{other}" / file, folder / f"step{step}" / file)

    return plant


def _rewrite(
    step: int, change: Callable[[dict[str, torch.Tensor], str], None]
) -> Callable[[Path, str], None]:
    def plant(folder: Path, arch: str) -> None:
        file = _step_folder(folder, arch, step) / "model.safetensors"
        tensors = load_file(file)
        change(tensors, sorted(n for n, v in tensors.items() if v.ndim == 2 and "1" in n)[0])
        save_file(tensors, file)

    return plant


def _step_folder(folder: Path, arch: str, step: int) -> Path:
    return folder / (f"step_{step:08d}" if arch == "native" else f"step{step}")


def _remove(step: int) -> Callable[[States, str], None]:
    def plant(states: States, arch: str) -> None:
        del states[step]

    return plant


def _relabel(step: int, label: int) -> Callable[[States, str], None]:
    def plant(states: States, arch: str) -> None:
        moved = {label if s == step else s: value for s, value in states.items()}
        states.clear()
        states.update(sorted(moved.items()))

    return plant


def _config(step: int, field: str, value: float) -> Callable[[Path, str], None]:
    def plant(folder: Path, arch: str) -> None:
        data = {**json.loads(tiny_config(arch)), field: value}
        (folder / f"step{step}" / "config.json").write_text(json.dumps(data))

    return plant


def _tokenizer(folder: Path, arch: str) -> None:
    vocab = {"model": {"vocab": {"a": 1, "b": 0}}, "added_tokens": [], "truncation": None}
    (folder / "step600" / "tokenizer.json").write_text(json.dumps(vocab))


def _truncate(folder: Path, arch: str) -> None:
    file = _step_folder(folder, arch, 600) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])


HF = ("gpt_neox", "llama")
FAULTS: dict[str, Fault] = {
    "copy of the step before": Fault("identical_steps", (500, 600), (600,), _copy(500, 600)),
    "copy of the step after": Fault("identical_steps", (500, 600), (500,), _copy(600, 500)),
    "copy of a distant step": Fault("identical_steps", (300, 800), (800,), _copy(300, 800)),
    "block of the final weights": Fault(
        "equals_final", (300, 400, 500, 600, 1200), (300, 400, 500, 600), _copy(1200, 300, 400, 500, 600)
    ),
    "scattered final weights": Fault(
        "equals_final", (200, 500, 900, 1200), (200, 500, 900), _copy(1200, 200, 500, 900)
    ),
    "final weights from some step on": Fault(
        "equals_final", (900, 1000, 1100, 1200), (900, 1000, 1100, 1200), _copy(1200, 900, 1000, 1100)
    ),
    "final is an early step": Fault("final_equals_early", (300, 1200), (1200,), _copy(300, 1200)),
    "two neighbours swapped": Fault("swapped_steps", (500, 600), (500, 600), _swap(500, 600)),
    "two near steps swapped": Fault("swapped_steps", (500, 700), (500, 700), _swap(500, 700)),
    "two distant steps swapped": Fault("swapped_steps", (200, 1000), (200, 1000), _swap(200, 1000)),
    "last two swapped": Fault("swapped_steps", (1100, 1200), (1100, 1200), _swap(1100, 1200)),
    "a shard of another step": Fault(
        "shard_from_other_step", (300, 800), (800,), folder=_shard_of(800, 300), shards=3, only=HF
    ),
    "a shard of the step before": Fault(
        "shard_from_other_step", (500, 600), (600,), folder=_shard_of(600, 500), shards=3, only=HF
    ),
    "a tensor of another step": Fault(
        "tensors_from_other_step",
        (300, 800),
        (800,),
        _one_tensor(800, lambda states, name: states[300][name]),
        tensors=1,
    ),
    "a tensor of the step before": Fault(
        "tensors_from_other_step",
        (500, 600),
        (600,),
        _one_tensor(600, lambda states, name: states[500][name]),
        tensors=1,
    ),
    "step 0 of another seed": Fault("step0_not_ancestor", (0,), (0,), _foreign(0)),
    "a step of another seed": Fault("out_of_line", (600,), (600,), _foreign(600)),
    "three steps of another seed": Fault(
        "out_of_line", (600, 700, 800), (600, 700, 800), _foreign(600, 700, 800)
    ),
    "last step of another seed": Fault("jump", (1100, 1200), (1200,), _foreign(1200)),
    "another seed from some step on": Fault(
        "jump", (600, 700), (), _foreign(700, 800, 900, 1000, 1100, 1200)
    ),
    "all weights twice as large": Fault("norm_out_of_line", (600,), (600,), _all_tensors(600, 2.0)),
    "all weights flipped": Fault("out_of_line", (600,), (600,), _all_tensors(600, -1.0)),
    "one tensor scaled": Fault(
        "tensors_out_of_line", (600,), (600,), _one_tensor(600, lambda s, n: 3 * s[600][n]), tensors=1
    ),
    "one tensor flipped": Fault(
        "tensors_out_of_line", (600,), (600,), _one_tensor(600, lambda s, n: -s[600][n]), tensors=1
    ),
    "one tensor shuffled": Fault(
        "tensors_out_of_line", (600,), (600,), _one_tensor(600, lambda s, n: s[600][n][::-1]), tensors=1
    ),
    "NaN and infinity": Fault("non_finite", (600,), (600,), _one_tensor(600, _nan), tensors=1),
    "one step in half precision": Fault(
        "dtype_change",
        (600,),
        (),
        folder=_rewrite(600, lambda tensors, _: tensors.update({k: v.half() for k, v in tensors.items()})),
        severity="warning",
    ),
    "another config": Fault(
        "config_change", (600,), (600,), folder=_config(600, "rope_theta", 5e5), severity="error", only=HF
    ),
    "another tokenizer": Fault(
        "tokenizer_change", (600,), (), folder=_tokenizer, severity="warning", only=HF
    ),
    "a tensor missing": Fault(
        "missing_tensors", (600,), (600,), folder=_rewrite(600, lambda tensors, n: tensors.pop(n)), tensors=1
    ),
    "a tensor too many": Fault(
        "extra_tensors",
        (600,),
        (),
        folder=_rewrite(600, lambda tensors, n: tensors.update(more=torch.ones(3))),
        severity="warning",
        tensors=1,
    ),
    "a tensor of another shape": Fault(
        "shape_change",
        (600,),
        (600,),
        folder=_rewrite(600, lambda tensors, n: tensors.update({n: tensors[n][:-1].clone()})),
        tensors=1,
    ),
    "a hole in the grid": Fault("missing_steps", (700,), (), _remove(700), severity="warning"),
    "a label off the grid": Fault(
        "off_grid_steps", (630,), (), _relabel(600, 630), severity="warning", alone=False
    ),
    "a file cut short": Fault("unreadable", (600,), (), folder=_truncate, severity="error"),
}


def fault_cases() -> Iterator[Any]:
    """(name, architecture); the lab's format has one config, one file per step and no tokenizer."""
    for i, (name, fault) in enumerate(FAULTS.items()):
        for k, arch in enumerate(fault.only):
            marks = () if k == i % len(fault.only) else MORE
            yield pytest.param(name, arch, id=f"{name}-{arch}", marks=marks)


@pytest.mark.parametrize(("name", "arch"), list(fault_cases()))
def test_planted_fault_is_found_at_its_steps(name: str, arch: str, tmp_path: Path) -> None:
    fault = FAULTS[name]
    states = drift(arch, EVEN_STEPS, seed=3)
    if fault.states:
        fault.states(states, arch)
    folder = write_series(tmp_path / "run", arch, states, shards=fault.shards)
    if fault.folder:
        fault.folder(folder, arch)
    report = lint(open_series(folder))
    found = report.of(fault.kind)
    assert [f.steps for f in found] == [fault.steps], _told(report)
    assert tuple(report.left_out) == fault.left_out, _told(report)
    if fault.severity:
        assert found[0].severity == fault.severity
    if fault.tensors is not None:
        assert len(found[0].tensors) == fault.tensors
    assert found[0].meaning.endswith(".")
    if fault.alone:
        assert [f.kind for f in report.facts if f.severity != "note"] == [fault.kind], _told(report)


def _told(report: LintReport) -> str:
    return "\n".join(
        f"{f.severity} {f.kind} {f.steps} -> {f.leave_out} {dict(f.evidence)} {f.tensors[:3]}"
        for f in report.facts
    )


def test_every_kind_of_fact_is_explained_in_the_documentation() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "lint.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"`{kind}`" not in text] == []
