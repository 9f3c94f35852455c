"""The sweep: every checkpoint of a series, every probe asked for, one forward pass per (checkpoint, stimulus).

The same command again does only what is missing. A unit is one (checkpoint, stimulus): it is written whole when it is
finished, so a kill at any moment loses at most the unit in flight.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.series import Checkpoint, CheckpointSeries, Gap, at_hand
from byrote.checkpoints.vocabulary import tokenizer_of
from byrote.probes.results.derived import rebuild_observations
from byrote.probes.results.schema import unit_table
from byrote.probes.results.units import read_units
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.drift import drift_rows
from byrote.probes.sweep.folder import SweepOutcome, open_run_folder, write_run_json
from byrote.probes.sweep.prefetch import Clock, FingerprintCache, Prefetcher
from byrote.probes.sweep.stimulus_set import StimulusSet
from byrote.probes.sweep.units import Units

Event = dict[str, Any]
SMALL_MODEL_PARAMETERS = 5_000_000


def sweep(
    series: CheckpointSeries,
    config: SweepConfig | None = None,
    *,
    out: str | Path = "results",
    fresh: bool = False,
    fail_fast: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> SweepOutcome:
    """Measure every checkpoint of a series that is not measured yet.

    Args:
        series: what to measure; slice or `select` it to measure a part.
        config: probes, seed, sizes, device; defaults to all probes.
        out: parent of the results folder, which is named after the series.
        fresh: throw away what the folder holds and measure everything again.
        fail_fast: raise at the first checkpoint that cannot be measured instead of listing it.
        on_event: called with {"event": "checkpoint", "done", "total", "step", "eta_s", ...} as work finishes.

    Returns:
        What was done, and where the results are.

    Raises:
        ByroteError: the folder belongs to another series, is in use, or the settings cannot work.
        CheckpointError: with `fail_fast`, the first checkpoint that cannot be measured.
    """
    config = config or SweepConfig()
    with open_run_folder(Path(out), series, fresh=fresh) as root:
        return _Sweep(series, config, root, fail_fast=fail_fast, emit=on_event or (lambda event: None)).run()


class _Sweep:
    def __init__(
        self,
        series: CheckpointSeries,
        config: SweepConfig,
        root: Path,
        *,
        fail_fast: bool,
        emit: Callable[[Event], None],
    ) -> None:
        self.series, self.config, self.root, self.fail_fast, self.emit = series, config, root, fail_fast, emit
        self.outcome = SweepOutcome(root, gaps=[_gap(g) for g in series.gaps])
        self.shown = StimulusSet(series, config, root)
        self.units = Units(root, config, self.shown)
        self.clock = Clock()
        self.swap_used = ""
        self._walker: Any = None
        self._threads_before: int | None = None

    def run(self) -> SweepOutcome:
        """Measure what is missing, then derive the observations."""
        cache = FingerprintCache(self.root / "fingerprints.json")
        prefetcher = Prefetcher(cache, self.clock, enabled=self.config.prefetch)
        try:
            self._all(prefetcher)
            self._measure_drift()
        except KeyboardInterrupt:
            self.outcome.interrupted = True
        finally:
            prefetcher.close()
            self._give_threads_back()
        if self._walker is not None and self._walker.note:
            self.shown.notes.append(self._walker.note)
        write_run_json(self.root, self.outcome, self.shown, swap=self.swap_used)
        changed = self.outcome.measured or self.outcome.superseded
        if changed or not (self.root / "observations.parquet").is_file():
            rebuild_observations(self.root)
        self.outcome.trace = self.clock.trace
        return self.outcome

    def _all(self, prefetcher: Prefetcher) -> None:
        started, total = time.monotonic(), len(self.series)
        for done, checkpoint in enumerate(self.series, 1):
            before = self.outcome.measured
            try:
                following = self.series[done] if done < total else None
                self._checkpoint(checkpoint, prefetcher.fingerprint(checkpoint, then=following))
            except CheckpointError as error:
                if self.fail_fast:
                    raise
                gap = _gap(Gap(checkpoint.path, error.message, error.help, checkpoint.step))
                self.outcome.gaps.append(gap)
                self.emit({"event": "gap", **gap})
            elapsed = time.monotonic() - started
            self.emit(
                {
                    "event": "checkpoint",
                    "done": done,
                    "total": total,
                    "step": checkpoint.step,
                    "measured": self.outcome.measured - before,
                    "errors": len(self.outcome.gaps),
                    "s_per_checkpoint": elapsed / done,
                    "eta_s": elapsed / done * (total - done),
                }
            )

    def _checkpoint(self, checkpoint: Checkpoint, identity: str) -> None:
        """Measure what one checkpoint lacks; one that lacks nothing is not loaded."""
        if self.shown.shape:
            found = self.units.look(checkpoint, identity)
            if not found.missing and not self.units.lacks_attention(checkpoint, identity):
                self.outcome.superseded += found.remove_superseded()
                self.outcome.reused += len(self.units.wanted)
                return
        with at_hand(checkpoint) as ready:
            self._measure(checkpoint, identity, ready=ready)

    def _measure(self, checkpoint: Checkpoint, identity: str, *, ready: Checkpoint) -> None:
        """Measure what is missing of a step; `ready` is the same checkpoint with its files on disk."""
        from byrote.probes.sweep.gallery import keep_attention
        from byrote.probes.sweep.measure import measure_group

        step, outcome = checkpoint.step, self.outcome
        with self.clock.time("load", step):
            model = self._hooked().load(ready)
        self._take_threads(model)
        self.shown.fit(model, checkpoint, first=not outcome.measured and not outcome.reused)
        found = self.units.look(checkpoint, identity)
        outcome.superseded += found.remove_superseded()
        outcome.reused += len(self.units.wanted) - len(found.missing)
        for group in found.missing:
            with self.clock.time(f"measure {group.key}", step):
                measured = measure_group(model, group, self.shown)
            self.units.write(group, measured, run=self.series.name, checkpoint=checkpoint, identity=identity)
            outcome.measured += 1
        if self.units.lacks_attention(checkpoint, identity):
            with self.clock.time("attention", step):
                stimuli, tokenizer = self.shown.stimuli, tokenizer_of(checkpoint)
                keep_attention(
                    model, self.root, step, fingerprint=identity, stimuli=stimuli, tokenizer=tokenizer
                )
        self.swap_used = self._hooked().swap_used

    def _hooked(self) -> Any:
        """The model walker; torch is imported here, so that a finished sweep asked again never needs it."""
        if self._walker is None:
            self._walker = _walker(self.series, self.config, dtype=self.config.dtype)
        return self._walker

    def _measure_drift(self) -> None:
        """In a lower precision: the last step again in float32, so that every score's drift is known."""
        if self.config.dtype not in ("bfloat16", "float16") or not self.outcome.measured:
            return
        from byrote.probes.sweep.measure import measure_group

        checkpoint = self.series.at(max(self.series.steps))
        self._walker = None  # one model at a time in memory
        try:
            with self.clock.time("drift", checkpoint.step), at_hand(checkpoint) as ready:
                model = _walker(self.series, self.config, dtype="float32").load(ready)
                wanted = [group for group in self.units.wanted if not group.direct]
                measured = [m for group in wanted for m in measure_group(model, group, self.shown)]
        except CheckpointError:
            return  # it is a gap already
        reference = unit_table(
            measured, run=self.series.name, step=checkpoint.step, tokens_seen=checkpoint.tokens_seen
        )
        self.outcome.drift = drift_rows(read_units(self.root, checkpoint.step), reference)

    def _take_threads(self, model: Any) -> None:
        """A small model's products are too small to share: a second thread would mostly wait for the first."""
        if self._threads_before is None:
            import torch

            self._threads_before = torch.get_num_threads()
            small = sum(p.numel() for p in model.parameters.values()) < SMALL_MODEL_PARAMETERS
            torch.set_num_threads(self.config.threads or (1 if small else self._threads_before))

    def _give_threads_back(self) -> None:
        if self._threads_before is not None:
            import torch

            torch.set_num_threads(self._threads_before)


def _walker(series: CheckpointSeries, config: SweepConfig, *, dtype: str) -> Any:
    import torch

    from byrote.interp.bridge import HookedSeries

    return HookedSeries(series, device=config.device, dtype=getattr(torch, dtype), swap=config.swap)


def _gap(gap: Gap) -> dict[str, Any]:
    return {"step": gap.step, "path": gap.path.name, "reason": gap.reason, "help": gap.help}
