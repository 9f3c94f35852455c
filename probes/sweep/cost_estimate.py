"""How long and how large would it be? Two checkpoints are measured for real, into a folder that is thrown away."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.series import CheckpointSeries
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.plan import groups
from byrote.probes.sweep.run import sweep

N_TRIED = 2


@dataclass(frozen=True)
class CostEstimate:
    """What measuring one checkpoint took.

    Attributes:
        steps: that were tried.
        unit_s: seconds of reading, loading and measuring of the last of them, per unit; what happens once, such as
            importing torch and building the first model, is left out.
        unit_bytes: stored per unit, observations included.
    """

    steps: tuple[int, ...]
    unit_s: float
    unit_bytes: float


def cost_estimate(series: CheckpointSeries, config: SweepConfig) -> CostEstimate:
    """Measure the last checkpoints of a series and throw the numbers away.

    Nothing is downloaded: of a series on the hub, only steps already in the cache are tried.

    Raises:
        ByroteError: no step is on this machine, or none of those tried can be measured.
    """
    here = [c for c in series if c.source is None or c.files]
    if not here:
        raise ByroteError(
            "no step of this series is on this machine yet: time and disk cannot be tried",
            help="measure one step first: --steps last --allow-download",
        )
    tried = replace(series, checkpoints=tuple(here[-N_TRIED:]), gaps=())
    with tempfile.TemporaryDirectory(prefix="byrote-trial-") as folder:
        outcome = sweep(tried, replace(config, prefetch=False), out=folder)
        if not outcome.measured:
            reason = outcome.gaps[0]["reason"] if outcome.gaps else "it was interrupted"
            raise ByroteError(f"the trial measured nothing: {reason}", help="time and disk are not known")
        stored = sum(
            file.stat().st_size
            for file in Path(folder).rglob("*")
            if file.suffix in (".parquet", ".safetensors")
        )
    last = max(entry["step"] for entry in outcome.trace if entry["what"].startswith("measure"))
    seconds = sum(
        entry["end_s"] - entry["start_s"]
        for entry in outcome.trace
        if entry["step"] == last and entry["what"] != "drift"
    )
    n_units = len(groups(config.infos))
    return CostEstimate(tried.steps, seconds / n_units, stored / outcome.measured)
