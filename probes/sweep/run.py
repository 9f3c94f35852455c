"""The sweep: every checkpoint of a series, every probe asked for, one forward pass per (checkpoint, stimulus).

The same command again does only what is missing. A unit is one (checkpoint, stimulus): it is written whole when it is
finished, so a kill at any moment loses at most the unit in flight.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.series import Checkpoint, CheckpointSeries, Gap, at_hand
from byrote.checkpoints.vocabulary import tokenizer_of
from byrote.probes.results import Results
from byrote.probes.results.derived import rebuild_observations
from byrote.probes.results.schema import unit_table
from byrote.probes.results.units import read_units, write_unit
from byrote.probes.sweep.ahead import AheadReader, Clock, FingerprintCache
from byrote.probes.sweep.drift import drift_rows
from byrote.probes.sweep.folder import open_run_folder, run_json, write_run_json
from byrote.probes.sweep.plan import SweepConfig, contents
from byrote.probes.sweep.setting import Setting
from byrote.probes.sweep.units import Todo, Units

Event = dict[str, Any]
SMALL_MODEL_PARAMETERS = 5_000_000


@dataclass
class SweepOutcome:
    """What a sweep did.

    Attributes:
        path: the results folder.
        measured, reused: units written now, and units found finished.
        superseded: stored units that disagreed with the weights, versions or settings and were removed.
        gaps: checkpoints or units that could not be measured, with reasons.
        interrupted: True after Ctrl-C: what was finished is kept.
        trace: what took when: {"what", "step", "start_s", "end_s"} since the sweep began.
        drift: in a lower precision than float32, how far the last step's scores are from float32; see `drift_rows`.
    """

    path: Path
    measured: int = 0
    reused: int = 0
    superseded: int = 0
    gaps: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False
    trace: list[dict[str, Any]] = field(default_factory=list)
    drift: list[dict[str, Any]] = field(default_factory=list)

    @property
    def results(self) -> Results:
        """The results, opened."""
        return Results.open(self.path)


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
    with open_run_folder(Path(out), series, fresh=fresh) as folder:
        return _Sweep(
            series, config, folder.path, fail_fast=fail_fast, emit=on_event or (lambda event: None)
        ).run()


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
        self.setting = Setting(series, config, root)
        self.units = Units(root, config, self.setting)
        self.swap_used = ""
        self._walker: Any = None
        self._threads_before: int | None = None
        self.clock = Clock()
        self._reader = AheadReader(
            FingerprintCache(root / "fingerprints.json"), self.clock, ahead=config.prefetch
        )

    def run(self) -> SweepOutcome:
        """Measure what is missing, then derive the observations."""
        self.setting.recall()
        started, total = time.monotonic(), len(self.series)
        try:
            for done, checkpoint in enumerate(self.series, 1):
                before = self.outcome.measured
                following = self.series[done] if done < total else None
                self._checkpoint(checkpoint, following)
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
            self._measure_drift()
        except KeyboardInterrupt:
            self.outcome.interrupted = True
        finally:
            self._reader.close()
            self._give_threads_back()
        self._finish()
        self.outcome.trace = self.clock.trace
        return self.outcome

    def _checkpoint(self, checkpoint: Checkpoint, following: Checkpoint | None) -> None:
        try:
            identity = self._reader.fingerprint(checkpoint, then=following)
            found = self.units.look(checkpoint, identity) if self.setting.shape else None
            if found is None or found.missing or self.units.lacks_attention(checkpoint, identity):
                with at_hand(checkpoint) as ready:
                    self._measure(checkpoint, identity, ready=ready)
            else:
                self.outcome.superseded += found.remove_superseded()
                self.outcome.reused += len(self.units.wanted)
        except CheckpointError as error:
            if self.fail_fast:
                raise
            gap = Gap(checkpoint.path, error.message, error.help, checkpoint.step)
            self.outcome.gaps.append(_gap(gap))
            self.emit({"event": "gap", **_gap(gap)})

    def _measure(self, checkpoint: Checkpoint, identity: str, *, ready: Checkpoint) -> None:
        """Measure what is missing of a step; `ready` is the same checkpoint with its files on disk."""
        with self.clock.time("load", checkpoint.step):
            model = self._hooked().load(ready)
        self._take_threads(model)
        shape, nothing_yet = model.shape.to_json(), not self.outcome.measured and not self.outcome.reused
        if not self.setting.shape or (nothing_yet and self.setting.shape != shape):
            self.setting.learn(model, checkpoint)
        self.setting.refuse_other_shape(shape, step=checkpoint.step)
        self.setting.keep_text()
        found = self.units.look(checkpoint, identity)
        self.outcome.superseded += found.remove_superseded()
        self.outcome.reused += len(self.units.wanted) - len(found.missing)
        for todo in found.missing:
            self._measure_unit(model, checkpoint, identity, todo=todo)
        if self.units.lacks_attention(checkpoint, identity):
            self._keep_attention(model, checkpoint, identity)
        self.swap_used = self._hooked().swap_used

    def _measure_unit(self, model: Any, checkpoint: Checkpoint, identity: str, *, todo: Todo) -> None:
        from byrote.probes.sweep.measure import measure_group

        group = todo.group
        with self.clock.time(f"measure {group.key}", checkpoint.step):
            measured = measure_group(model, group, self.setting)
        table = unit_table(
            measured, run=self.series.name, step=checkpoint.step, tokens_seen=checkpoint.tokens_seen
        )
        stimulus = self.setting.ids_of(group.stimuli) or group.key
        facts = self.units.provenance(checkpoint, identity, stimulus=stimulus)
        write_unit(todo.path, table, facts | contents(group.probes))
        self.outcome.measured += 1

    def _keep_attention(self, model: Any, checkpoint: Checkpoint, identity: str) -> None:
        from byrote.probes.sweep.gallery import keep_attention

        with self.clock.time("attention", checkpoint.step):
            keep_attention(
                model,
                self.root,
                checkpoint.step,
                fingerprint=identity,
                stimuli=self.setting.stimuli,
                tokenizer=tokenizer_of(checkpoint),
            )

    def _hooked(self) -> Any:
        """The model walker; torch is imported here, so that a finished sweep asked again never needs it."""
        if self._walker is None:
            import torch

            from byrote.interp.bridge import HookedSeries

            self._walker = HookedSeries(
                self.series,
                device=self.config.device,
                dtype=getattr(torch, self.config.dtype),
                swap=self.config.swap,
            )
        return self._walker

    def _measure_drift(self) -> None:
        """In a lower precision: the last step again in float32, so that every score's drift is known."""
        if self.config.dtype not in ("bfloat16", "float16") or not self.outcome.measured:
            return
        import torch

        from byrote.interp.bridge import HookedSeries
        from byrote.probes.sweep.measure import measure_group

        step = max(self.series.steps, default=0)
        checkpoint = self.series.at(step)
        self._walker = None  # one model at a time in memory
        try:
            with self.clock.time("drift", step), at_hand(checkpoint) as ready:
                model = HookedSeries(self.series, device=self.config.device, dtype=torch.float32).load(ready)
                wanted = [group for group in self.units.wanted if not group.direct]
                measured = [m for group in wanted for m in measure_group(model, group, self.setting)]
        except CheckpointError:
            return  # it is a gap already
        reference = unit_table(measured, run=self.series.name, step=step, tokens_seen=checkpoint.tokens_seen)
        self.outcome.drift = drift_rows(read_units(self.root, step), reference)

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

    def _finish(self) -> None:
        if self._walker is not None and self._walker.note:
            self.setting.notes.append(self._walker.note)
        write_run_json(self.root, run_json(self.root, self.outcome, self.setting, swap=self.swap_used))
        if (
            self.outcome.measured
            or self.outcome.superseded
            or not (self.root / "observations.parquet").is_file()
        ):
            rebuild_observations(self.root)


def _gap(gap: Gap) -> dict[str, Any]:
    return {"step": gap.step, "path": gap.path.name, "reason": gap.reason, "help": gap.help}
