"""A model in training, measured step by step into a results folder of its own: the same probes and numbers as a sweep's."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from byrote.checkpoints.atomic import remove
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.series import IN_MEMORY, Checkpoint, CheckpointSeries, text_of
from byrote.interp.in_memory import LiveModel
from byrote.interp.quiet import as_in_a_sweep
from byrote.probes.results import Results
from byrote.probes.results.derived import rebuild_observations
from byrote.probes.results.run_json import RUN_JSON, stored_run_json
from byrote.probes.results.unit_files import measured_steps, step_folder
from byrote.probes.spec import ProbeInfo
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.folder import SweepOutcome, open_run_folder, write_run_json
from byrote.probes.sweep.one_model import NOWHERE, measure_into, tokenizer_folder
from byrote.probes.sweep.stimulus_set import StimulusSet

MAX_NAMES = 10_000


class LiveRun:
    """The results folder of a model in training.

    Attributes:
        root: the folder.
        set_up_s: seconds that importing TransformerLens and putting the model behind hooks took, once.
        removed: steps of an earlier training that were removed, since training resumed before them.

    Args:
        model: as for `byrote.interp.in_memory.LiveModel`.
        config: probes, seed, sizes; "" as `dtype` is the model's own; the device is where the model is.
        name: of the run; a number is appended where a folder of that name holds a run that this one does not resume.
        out: parent of the results folder.
        tokenizer: a tokenizer.json, which says which ids text uses.
        begun: steps taken before; from 1 on, training is resumed, and so is its results folder.

    Raises:
        ByroteError: a model that cannot be measured so, or no tokenizer at that path.
    """

    def __init__(
        self,
        model: nn.Module,
        config: SweepConfig,
        *,
        name: str,
        out: Path,
        tokenizer: Path | None = None,
        begun: int = 0,
    ) -> None:
        started = time.perf_counter()
        self._place, self._begun = tokenizer_folder(tokenizer), begun
        with as_in_a_sweep():
            self._live = LiveModel(model, dtype=getattr(torch, config.dtype) if config.dtype else None)
            self._live.at(begun)
            self._live.release()
        dtype = str(self._live.dtype).removeprefix("torch.")
        self._config = replace(config, device=self._live.device, dtype=dtype)
        self.root = out / run_name(out, name, resumed=begun > 0)
        self.removed: list[int] = []
        self._shown: StimulusSet | None = None
        self._gaps: dict[int, dict[str, Any]] = {}
        self._loss: dict[int, float] = {}
        self.set_up_s = time.perf_counter() - started

    def measure(
        self, step: int, *, loss_nats: float | None = None, tokens_seen: int | None = None
    ) -> Results:
        """Measure the weights as they are now; what is stored of them already is not measured again.

        Modes, gradients, weights and generators of random numbers are those that they were.

        Args:
            step: optimiser steps taken.
            loss_nats: training loss at this step.
            tokens_seen: training tokens so far.

        Raises:
            ByroteError: the folder cannot be written or is of another run, or a probe cannot be run.
        """
        with as_in_a_sweep(), open_run_folder(self.root.parent, self._series([]), fresh=False) as root:
            if self._shown is None:
                self._resume()
                self._shown = StimulusSet(self._series([step]), self._config, root)
            self._shown.series = self._series([*measured_steps(root), step])
            checkpoint = replace(self._checkpoint(step), tokens_seen=tokens_seen)
            try:
                measure_into(root, self._live.at(step), checkpoint, self._shown)
            finally:
                self._live.release()
            if loss_nats is not None and math.isfinite(loss_nats):
                self._loss[step] = loss_nats
            self._gaps.pop(step, None)
            self._describe(finished=False)
        return Results.open(root)

    def gap(self, step: int, error: Exception) -> None:
        """List a step that could not be measured.

        Raises:
            ByroteError: the folder cannot be written.
        """
        message = error.message if isinstance(error, ByroteError) else f"{type(error).__name__}: {error}"
        reason = text_of(" ".join(message.split())[:500])
        help = text_of(error.help) if isinstance(error, ByroteError) else ""
        self._gaps[step] = {"step": step, "path": IN_MEMORY, "reason": reason, "help": help}
        if self._shown is not None:
            with open_run_folder(self.root.parent, self._series([]), fresh=False):
                self._describe(finished=False)

    def finish(self, notes: Sequence[str] = ()) -> Results | None:
        """Say that training has ended, and derive the observations; None where no step was measured.

        Args:
            notes: for readers of the results.

        Raises:
            ByroteError: the folder cannot be written.
        """
        if self._shown is None:
            return None
        with open_run_folder(self.root.parent, self._series([]), fresh=False) as root:
            self._shown.notes += [note for note in notes if note not in self._shown.notes]
            self._describe(finished=True)
            rebuild_observations(root)
        return Results.open(root)

    def _describe(self, *, finished: bool) -> None:
        assert self._shown is not None, "something was measured"
        self._shown.series = self._series(measured_steps(self.root))
        gaps = [self._gaps[step] for step in sorted(self._gaps)]
        outcome = SweepOutcome(self.root, gaps=gaps, interrupted=not finished)
        write_run_json(self.root, outcome, self._shown, swap="in memory")

    def _resume(self) -> None:
        """What the folder says of earlier steps; those after the checkpoint that training resumed from are removed."""
        stored = stored_run_json(self.root)
        losses, gaps = (stored.get("series") or {}).get("loss_nats") or {}, stored.get("gaps") or []
        for step, loss in losses.items():
            if step.isascii() and step.isdigit() and loss is not None and int(step) <= self._begun:
                self._loss[int(step)] = loss
        for gap in gaps:
            if (step := gap.get("step")) is not None and step <= self._begun:
                self._gaps.setdefault(step, gap)
        self.removed = [step for step in measured_steps(self.root) if step > self._begun]
        for step in self.removed:
            remove(step_folder(self.root, step))

    def _checkpoint(self, step: int) -> Checkpoint:
        return Checkpoint(step, self._place, IN_MEMORY, loss_nats=self._loss.get(step))

    def _series(self, steps: Sequence[int]) -> CheckpointSeries:
        return CheckpointSeries(self.root.name, NOWHERE, IN_MEMORY, tuple(map(self._checkpoint, steps)))


def run_name(out: Path, name: str, *, resumed: bool) -> str:
    """The name of the folder that a training writes to: `name`, or `name-2`, `name-3`, ... where earlier ones hold a run.

    Args:
        out: parent of the folders.
        name: as requested.
        resumed: whether the last of those that are there is gone on with, or a new one is begun.

    Raises:
        ByroteError: the name is no name of a folder.
    """
    if not name or name != Path(name).name or name in (".", ".."):
        raise ByroteError(f"{name!r} is not a valid run name", help="give one without slashes")
    names = itertools.chain([name], (f"{name}-{n}" for n in range(2, MAX_NAMES)))
    taken = list(itertools.takewhile(lambda one: _holds_run(out / one), names))
    if resumed and taken:
        return taken[-1]
    return f"{name}-{len(taken) + 1}" if taken else name


def _holds_run(folder: Path) -> bool:
    with suppress(OSError):
        return bool(measured_steps(folder)) or (folder / RUN_JSON).exists()
    return False


def headline(results: Results, infos: Sequence[ProbeInfo], step: int) -> dict[str, float]:
    """One number per probe, for a tracker: of heads the strongest, of a verdict how many it holds of.

    Args:
        results: of a run.
        infos: the probes; of each the main metric counts.
        step: that was measured.

    Returns:
        ``byrote/<probe>/<metric>`` -> value, for heads ``.../strongest`` or ``.../n_heads``; what is not valid is left out.
    """
    found = {}
    for info in infos:
        rows = results.select(info.name, info.main_metric, step=step)
        rows = rows[rows["position"].isna() & rows["valid"]]
        if rows.empty:
            continue
        name, per_head = f"byrote/{info.name}/{info.main_metric}", bool(rows["head"].notna().any())
        if info.kind == "verdict" and per_head:
            found[f"{name}/n_heads"] = float(rows["value"].sum())
        elif per_head:
            lower = info.better_of(info.main_metric) == "lower"
            found[f"{name}/strongest"] = float(rows["value"].min() if lower else rows["value"].max())
        elif len(rows) == 1:
            found[name] = float(rows["value"].iloc[0])
    return found
