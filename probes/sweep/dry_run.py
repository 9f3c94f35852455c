"""What would a sweep do, how long would it take and how large would it be? Nothing is written where results go."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import ByroteError, CheckpointError
from byrote.checkpoints.series import CheckpointSeries, Gap
from byrote.probes.results.unit_files import step_folder
from byrote.probes.spec import ProbeInfo
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.folder import FINGERPRINTS, refuse_other_series
from byrote.probes.sweep.pass_counts import count_passes
from byrote.probes.sweep.plan import WEIGHTS, Group, groups
from byrote.probes.sweep.prefetch import Fingerprints
from byrote.probes.sweep.run import sweep
from byrote.probes.sweep.stimulus_set import StimulusSet
from byrote.probes.sweep.units import Units
from byrote.probes.wording import counted

N_TRIED = 2
_ONE_PASS = "repeat_loss"  # is tried where nothing else makes one pass


@dataclass(frozen=True)
class Preview:
    """What a sweep would do.

    Attributes:
        path: the results folder.
        to_measure: units that are missing or no longer agree with the weights or settings.
        stored: units that would be reused.
        forward_passes: units to measure that need the model run; the others read weights only.
        gaps: checkpoints with stored units whose weights cannot be read now, and why.
    """

    path: Path
    to_measure: int
    stored: int
    forward_passes: int
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True)
class CostEstimate:
    """What measuring one checkpoint takes.

    Attributes:
        steps: that were tried.
        unit_s: seconds of reading, loading and measuring of the last of them, per unit; what happens once, such as
            importing torch and building the first model, is left out.
        unit_bytes: stored per unit, observations included.
        sequences: shown to the model for one checkpoint: those of the probes that share one pass were counted while it was
            tried, those of the others follow from the passes that each makes.
        notes: how many windows of text that includes, and why; which probes were counted and not tried.
    """

    steps: tuple[int, ...]
    unit_s: float
    unit_bytes: float
    sequences: int
    notes: tuple[str, ...] = ()


def preview(
    series: CheckpointSeries, config: SweepConfig, *, out: str | Path, fresh: bool = False
) -> Preview:
    """Count what `sweep` with the same arguments would measure and reuse; nothing is written.

    Stored units are looked at one by one, as the sweep does: weights are hashed, no model is built.

    Raises:
        ByroteError: the results folder belongs to another series.
    """
    root = Path(out) / series.name
    if not fresh:
        refuse_other_series(root, series)
    known, stimuli = Fingerprints(root / FINGERPRINTS), StimulusSet(series, config, root)
    units = Units(root, config, stimuli)
    if not fresh:
        units.refuse_mixture(series.steps)
    missing: list[Group] = []
    gaps: list[Gap] = []
    for checkpoint in series:
        if fresh or not stimuli.shape or not step_folder(root, checkpoint.step).is_dir():
            missing += units.wanted  # nothing is stored, so nothing has to be hashed
        else:
            try:
                missing += units.look(checkpoint, known.of(checkpoint)).missing
            except CheckpointError as error:
                gaps.append(Gap(checkpoint.path, error.message, error.help, checkpoint.step))
    return Preview(
        path=root,
        to_measure=len(missing),
        stored=(len(series) - len(gaps)) * len(units.wanted) - len(missing),
        forward_passes=sum(group.key != WEIGHTS for group in missing),
        gaps=tuple(gaps),
    )


def cost_estimate(series: CheckpointSeries, config: SweepConfig) -> CostEstimate:
    """Measure the last checkpoints of a series into a folder that is thrown away, but for probes that run the model often.

    Of those, passes are counted, each as long as the others took for as many sequences. Nothing is downloaded: of a series
    on the hub, only steps already in the cache are tried.

    Raises:
        ByroteError: no step is on this machine, or none of those tried can be measured.
    """
    from byrote.interp.model import counting_passes

    here = [c for c in series if c.source is None or c.files]
    if not here:
        raise ByroteError(
            "no step of this series is on this machine yet: time and disk cannot be tried",
            help="measure one step first: --steps last --allow-download",
        )
    tried = replace(series, checkpoints=tuple(here[-N_TRIED:]), gaps=())
    often = tuple(info for info in config.infos if info.kind == "direct")
    names = tuple(info.name for info in config.infos if info not in often) or (_ONE_PASS,)
    trial = replace(config, prefetch=False, probes=names if often else config.probes)
    with tempfile.TemporaryDirectory(prefix="byrote-trial-") as folder:
        with counting_passes() as shown:
            outcome = sweep(tried, trial, out=folder)
        if not outcome.measured:
            reason = outcome.gaps[0]["reason"] if outcome.gaps else "it was interrupted"
            raise ByroteError(f"the trial measured nothing: {reason}", help="time and disk are not known")
        meta = outcome.results.meta if often else {}
        files = [f for f in Path(folder).rglob("*") if f.suffix in (".parquet", ".safetensors")]
        stored = sum(file.stat().st_size for file in files)
    last = max(entry["step"] for entry in outcome.trace if entry["what"].startswith("measure"))
    took = [
        e["end_s"] - e["start_s"]
        for e in outcome.trace
        if e["step"] == last and e["what"] not in ("drift", "windows")
    ]
    once, note = outcome.settled or (0, "")
    notes = [note] if note else []
    unit_bytes = stored / outcome.measured
    sequences = round((sum(shown.rows) - once) * len(groups(trial.infos)) / outcome.measured)
    each_s = sum(took) / max(1, sequences)
    if often:
        counted_rows, how = _counted(often, meta, config)
        sequences = counted_rows + (sequences if names != (_ONE_PASS,) else 0)
        took = [each_s * sequences]
        notes.append(how)
    return CostEstimate(
        tried.steps, sum(took) / len(groups(config.infos)), unit_bytes, sequences, tuple(notes)
    )


def _counted(probes: tuple[ProbeInfo, ...], meta: Mapping[str, Any], config: SweepConfig) -> tuple[int, str]:
    """Sequences that probes show the model for one checkpoint, and how that was counted, in words."""
    shape, n_shown = meta["model"], {one["kind"]: one["n"] for one in meta["stimuli"]}
    rows, notes = 0, []
    for info in probes:
        n = count_passes(info.passes, layers=shape["n_layers"], heads=shape["n_layers"] * shape["n_heads"])
        rows += (n or 0) * n_shown.get(info.stimuli[0], config.n_seq)
        notes.append(
            f"{info.name} {counted(n, 'pass')}"
            if n is not None
            else f"{info.name} an unknown number of passes"
        )
    return rows, f"counted and not tried: {', '.join(notes)}"
