"""Results folders written by hand, in the store's own format: whatever a test or a benchmark wants to find in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probes.observations import Measured, not_measured, unit_table
from probes.registry import lookup
from probes.store import rebuild_observations, step_folder, write_json, write_unit

STEPS = (0, 10, 20, 40)
SHAPE = (2, 3)


N = 32


def head_metric(
    probe: str, values: np.ndarray, *, metric: str = "score", chance: float = 0.05, half: float = 0.02
) -> Measured:
    """One head metric at one step: an interval of `half` around every value; NaN is not measured."""
    grid = np.asarray(values, dtype=np.float64)
    levels = [np.full(grid.shape, v) for v in (chance, float(N))]
    ends = grid - half, grid + half
    axes = ("layer", "head")
    return Measured(
        probe, metric, grid, *ends, *levels, axes, samples=_samples(grid, half), undefined="planted gap"
    )


def model_metric(
    probe: str, metric: str, value: float, *, chance: float = 0.0, half: float = 0.05
) -> Measured:
    """One number of the whole model."""
    numbers = [np.array(v, dtype=np.float64) for v in (value, value - half, value + half, chance, N)]
    return Measured(probe, metric, *numbers, (), samples=_samples(numbers[0], half))


def _samples(values: np.ndarray, half: float) -> np.ndarray:
    """One value per sequence, close around the planted one."""
    rng = np.random.default_rng(int(1000 * np.nansum(values)))
    return values + half * rng.normal(size=(N, *values.shape))


def pair_metric(metric: str, values: np.ndarray) -> Measured:
    """Composition of every earlier head with every later one: [src_layer, src_head, layer, head]."""
    exists = np.zeros(values.shape, dtype=bool)
    for later in range(values.shape[2]):
        exists[:later, :, later] = True
    chance, n = np.zeros(values.shape), np.full(values.shape, 16.0)
    axes = ("src_layer", "src_head", "layer", "head")
    return Measured("composition", metric, values, values, values, chance, n, axes, exists=exists)


def write_results(
    root: Path,
    run: str,
    units: Mapping[int, Sequence[Measured]],
    *,
    shape: tuple[int, int] = SHAPE,
    arm: Mapping[str, Any] | None = None,
    rebuild: bool = True,
    **meta: Any,
) -> Path:
    """Write `root/run` with one unit per step.

    Args:
        root: folder of results.
        run: the run's name, as run.json says it; the folder is called `meta["folder"]` where given.
        units: step -> what was measured there.
        shape: (n_layers, n_heads).
        arm: of a lab series.
        rebuild: write observations.parquet too; otherwise the units stand alone, as during a sweep.
        meta: further keys of run.json.
    """
    folder = root / str(meta.pop("folder", run))
    for step, measured in units.items():
        write_step(folder, run, step, measured)
    facts = {
        "schema": 1,
        "run": run,
        "status": "complete",
        "series": {
            "name": run,
            "path": f"runs/{run}",
            "format": "lab",
            "n_checkpoints": len(units),
            "steps": list(units),
            "loss_nats": {str(s): 4.0 - i / 10 for i, s in enumerate(units)},
            "manifest": {"arm": dict(arm)} if arm else None,
        },
        "model": {"n_layers": shape[0], "n_heads": shape[1]},
        "provenance": {"dtype": "float32", "device": "cpu", "seed": 0, "versions": {"rote": "0.1.0"}},
        "stimuli": [{"id": "repeated_random-planted", "kind": "repeated_random"}],
        "gaps": [],
        "notes": [],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "run.json", facts | meta)
    if rebuild:
        rebuild_observations(folder)
    return folder


def write_step(folder: Path, run: str, step: int, measured: Sequence[Measured]) -> None:
    """One unit of one step."""
    table = unit_table(measured, run=run, step=step, tokens_seen=1000 * step)
    write_unit(step_folder(folder, step) / "planted.00000000.parquet", table, {"fingerprint": f"{run}{step}"})


def rising(run: str = "risen", *, top: float = 0.9, at: int = 20) -> dict[int, list[Measured]]:
    """Head L1H2 matches prefixes from step `at` on and is called an induction head; L0H1 looks one token back."""
    units = {}
    for step in STEPS:
        on = step >= at
        prefix, previous, verdict = np.full(SHAPE, 0.05), np.full(SHAPE, 0.1), np.zeros(SHAPE)
        prefix[1, 2] = top if on else 0.06
        previous[0, 1] = 0.8
        verdict[1, 2] = float(on and top > 0.5)
        z = np.full((*SHAPE, *SHAPE), 0.5)
        z[0, 1, 1, 2] = 7.5 if on else 1.0
        units[step] = [
            head_metric("prefix_matching", prefix),
            head_metric("previous_token", previous),
            Measured(
                "induction",
                "verdict",
                verdict,
                verdict,
                verdict,
                *(np.full(SHAPE, v) for v in (np.nan, 32.0)),
                ("layer", "head"),
            ),
            pair_metric("k_z", z),
            model_metric("composition", "n_pairs", 9.0, half=0.0),
            model_metric("repeat_loss", "first_block", 4.8, chance=4.84),
            model_metric("repeat_loss", "later_blocks", 0.3 if on else 4.8, chance=4.84),
        ]
    return units


def flat(top: float = 0.06) -> dict[int, list[Measured]]:
    """No head ever rises clear of chance."""
    return rising(top=top, at=10_000)


def with_gap(units: Mapping[int, Sequence[Measured]], step: int) -> dict[int, list[Measured]]:
    """The same, with prefix matching not measured at a step, for a reason."""
    told = not_measured(lookup("prefix_matching"), "score", "attention is not causal")
    return {s: [told, *list(ms)[1:]] if s == step else list(ms) for s, ms in units.items()}


def damage(folder: Path) -> None:
    """Make a results folder that cannot be read."""
    (folder / "run.json").write_text(json.dumps({"schema": 1})[:-3])
