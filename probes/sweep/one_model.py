"""A model in memory, measured as a step of a series is: the same probes, stimuli and numbers."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn

from byrote.checkpoints.atomic import remove
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.series import IN_MEMORY, Checkpoint, CheckpointSeries
from byrote.interp.in_memory import copy_of, fingerprint_of
from byrote.interp.model import HookedModel
from byrote.probes.results import Results
from byrote.probes.results.curve import Sample, samples_in
from byrote.probes.results.derived import observations_of, rebuild_observations
from byrote.probes.results.schema import in_order, to_frame, unit_table
from byrote.probes.results.unit_files import measured_steps, set_aside
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.folder import SweepOutcome, open_run_folder, run_json, write_run_json
from byrote.probes.sweep.measure import measure_group, settle_contexts
from byrote.probes.sweep.plan import groups
from byrote.probes.sweep.stimulus_set import StimulusSet
from byrote.probes.sweep.units import Units

NOWHERE = Path(os.devnull) / "a model in memory"  # nothing can lie in it


class ResultsInMemory(Results):
    """What one model measured, in no folder."""

    def __init__(self, meta: dict[str, Any], units: pa.Table) -> None:
        super().__init__(
            NOWHERE, meta, in_order(observations_of(units, dtype=meta["provenance"]["dtype"])), write=False
        )
        self._units = units

    def samples(self, step: int, *, probe: str | None = None) -> pd.DataFrame:
        """Observations of one step, or of one probe at it, with per-sequence values in `samples` (empty where not stored)."""
        found = self._units.filter(pc.equal(self._units["step"], step))
        return to_frame(found if probe is None else found.filter(pc.equal(found["probe"], probe)))

    def read_samples(self, metrics: Collection[tuple[str, str]]) -> Iterator[Sample]:
        """Per-sequence values of these (probe, metric) at every step."""
        for name in metrics:
            for step in self.steps if self.info(name[0]).kind not in ("verdict", "weights") else ():
                yield from samples_in(step, self._units.filter(pc.equal(self._units["step"], step)), name)


def measure_model(
    model: nn.Module,
    config: SweepConfig,
    *,
    name: str = "model",
    step: int = 0,
    tokenizer: Path | None = None,
    out: Path | None = None,
) -> Results:
    """Measure a model that is in memory; it is copied, and left as it is.

    Args:
        model: see `byrote.interp.in_memory.copy_of`.
        config: probes, seed, sizes, dtype; "" as `device` is the model's own.
        name: of the run.
        step: of the run, which this is; further steps measured into the same `out` make a series.
        tokenizer: a tokenizer.json, which says which ids text uses.
        out: parent of the results folder; None writes nothing.

    Raises:
        ByroteError: a model that cannot be hooked, a tokenizer that is not there, or a folder of another series.
    """
    place = tokenizer_folder(tokenizer)
    copied = copy_of(model, step=step, device=config.device or None, dtype=getattr(torch, config.dtype))
    config = replace(config, device=str(copied.device))
    checkpoint = Checkpoint(step, place, IN_MEMORY)
    series = CheckpointSeries(name, NOWHERE, IN_MEMORY, (checkpoint,))
    if out is None:
        shown = StimulusSet(series, config, NOWHERE)
        shown.fit(copied, checkpoint, first=True)
        settle_contexts(copied, shown)
        measured = [m for group in groups(config.infos) for m in measure_group(copied, group, shown)]
        rows = in_order(unit_table(measured, run=name, step=step, tokens_seen=None))
        return ResultsInMemory(run_json(NOWHERE, SweepOutcome(NOWHERE), shown, swap="in memory"), rows)
    with open_run_folder(out, series, fresh=False) as root:
        shown = StimulusSet(series, config, root)
        measure_into(root, copied, checkpoint, shown)
        shown.series = replace(series, checkpoints=tuple(_all_steps(root, checkpoint)))
        write_run_json(root, SweepOutcome(root), shown, swap="in memory")
        rebuild_observations(root)
        return Results.open(root)


def tokenizer_folder(tokenizer: Path | None) -> Path:
    """Where a model's tokenizer.json is; a place where nothing is, where none is given.

    Raises:
        ByroteError: it is not there.
    """
    if tokenizer is not None and (tokenizer.name != "tokenizer.json" or not tokenizer.is_file()):
        raise ByroteError(
            f"there is no tokenizer.json at {tokenizer}", help="give the path of a tokenizer.json"
        )
    return tokenizer.parent if tokenizer else NOWHERE


def measure_into(root: Path, model: HookedModel, checkpoint: Checkpoint, shown: StimulusSet) -> None:
    """Measure one step into a results folder that is open, as far as it is not there with equal weights and settings.

    Args:
        root: the folder, locked.
        model: the weights of the step.
        checkpoint: the step.
        shown: what models of this folder are shown; drawn for this model, where that is still to be done.

    Raises:
        ByroteError: the folder was measured with other settings, or a probe cannot be run.
    """
    shown.fit(model, checkpoint, first=False)
    settle_contexts(model, shown)
    units, identity = Units(root, shown.config, shown), fingerprint_of(model)
    units.refuse_mixture([checkpoint.step])
    found = units.look(checkpoint, identity)
    for path in found.superseded:
        remove(path)
    for path in found.damaged:
        set_aside(path)
    for group in found.missing:
        measured = measure_group(model, group, shown)
        units.write(group, measured, run=shown.series.name, checkpoint=checkpoint, identity=identity)


def _all_steps(root: Path, now: Checkpoint) -> Iterator[Checkpoint]:
    """The steps measured into a folder so far, ascending."""
    steps = set(measured_steps(root))
    yield from (replace(now, step=step) for step in sorted(steps | {now.step}))
