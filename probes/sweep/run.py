"""The sweep: every checkpoint of a series, every requested probe, one forward pass per (checkpoint, stimulus).

The same command again does only what is missing. A unit is one (checkpoint, stimulus): it is written whole when it is
finished, so a kill at any moment loses at most the unit in flight.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from byrote.checkpoints.atomic import folders_synced_once, remove
from byrote.checkpoints.errors import ByroteError, CheckpointError
from byrote.checkpoints.series import Checkpoint, CheckpointSeries, Gap, at_hand, text_of
from byrote.checkpoints.tokenizing import one_tokenizer_process
from byrote.checkpoints.vocabulary import tokenizer_of
from byrote.probes.own_blocks import blocks_of
from byrote.probes.results.derived import observations_current, observations_whole, rebuild_observations
from byrote.probes.results.run_json import RUNNING, stored_run_json
from byrote.probes.results.run_json import write_run_json as write_stored
from byrote.probes.results.schema import AXES, to_frame, unit_table
from byrote.probes.results.unit_files import measured_steps, read_units, set_aside
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.folder import FINGERPRINTS, SweepOutcome, open_run_folder, run_json, write_run_json
from byrote.probes.sweep.pace import Pace
from byrote.probes.sweep.plan import Group
from byrote.probes.sweep.prefetch import Clock, Fingerprints
from byrote.probes.sweep.shards import Shard, SharedFolder, merged, open_shared_folder
from byrote.probes.sweep.stimulus_set import StimulusSet
from byrote.probes.sweep.units import Look, Units

if TYPE_CHECKING:
    from byrote.interp.bridge import HookedSeries
    from byrote.interp.model import HookedModel

Event = dict[str, Any]
SMALL_MODEL_PARAMETERS = 5_000_000


def sweep(
    series: CheckpointSeries,
    config: SweepConfig | None = None,
    *,
    out: str | Path = "results",
    fresh: bool = False,
    rehash: bool = False,
    fail_fast: bool = False,
    on_event: Callable[[Event], None] | None = None,
    models: Callable[[CheckpointSeries], Any] | None = None,
    shard: Shard | None = None,
    unfinished: bool = False,
    as_drawn: bool = False,
    trace: Path | None = None,
) -> SweepOutcome:
    """Measure every checkpoint of a series that is not measured yet.

    Args:
        series: what to measure; slice or `select` it to measure a part.
        config: probes, seed, sizes, device; defaults to all probes.
        out: parent of the results folder, which is named after the series.
        fresh: throw away what the folder holds and measure everything again.
        rehash: read every byte of the checkpoints again, also where size, times and inode of their files have not changed.
        fail_fast: raise at the first checkpoint that cannot be measured instead of listing it.
        on_event: called with {"event": "checkpoint", "done", "total", "step", "eta_s", ...} as work finishes; eta_s is None
            while nothing says how long a checkpoint takes.
        models: gives the `HookedSeries` that loads the checkpoints, where it is shared with other series.
        shard: measure these checkpoints alone, beside others that measure the rest into the same folder; see
            `byrote.probes.sweep.shards`.
        unfinished: training goes on: the results' status is "running", and a later sweep draws tokens anew.
        as_drawn: show the tokens that were drawn before, also where that was for a part of the series.
        trace: a file that gets a line of JSON for each read, load and measurement as it is done.

    Returns:
        What was done, and where the results are.

    Raises:
        ByroteError: the folder belongs to another series, is in use, or the settings cannot work.
        CheckpointError: with `fail_fast`, the first checkpoint that cannot be measured.
    """
    config, emit = config or SweepConfig(), on_event or (lambda event: None)
    if config.stimulus is not None:
        blocks_of(config.stimulus)  # what can be refused is refused before there is a folder
    if shard is None:
        with open_run_folder(Path(out), series, fresh=fresh) as root, one_tokenizer_process():
            running = _Sweep(
                series, config, root, rehash=rehash, models=models, as_drawn=as_drawn, trace=trace
            )
            running.outcome.unfinished = unfinished
            return running.run(emit, fail_fast=fail_fast)
    if fresh:
        raise ByroteError(
            "--fresh would delete what other shards measure",
            help="leave --fresh out, and choose an empty folder with -o",
        )
    with open_shared_folder(Path(out), series, config) as folder, one_tokenizer_process():
        sharded = _ShardSweep(series, config, folder.root, rehash=rehash, models=models, trace=trace)
        sharded.folder, sharded.mine = folder, shard.checkpoints(series)
        return sharded.run(emit, fail_fast=fail_fast)


class _Sweep:
    def __init__(
        self,
        series: CheckpointSeries,
        config: SweepConfig,
        root: Path,
        *,
        rehash: bool,
        models: Callable[[CheckpointSeries], HookedSeries] | None,
        as_drawn: bool = False,
        trace: Path | None = None,
    ) -> None:
        self.series, self.config, self.root = series, config, root
        self.mine: Sequence[Checkpoint] = series.checkpoints
        self.shown = StimulusSet(series, config, root, as_drawn=as_drawn)
        self.units = Units(root, config, self.shown)
        self.clock = Clock(trace, series.name)
        path = root / FINGERPRINTS
        self.known = Fingerprints(path, self.clock, ahead=config.prefetch, rehash=rehash)
        self.outcome = SweepOutcome(root, gaps=[_gap(g) for g in series.gaps], trace=self.clock.trace)
        self.hooked: HookedSeries | None = None
        self.models = models
        self.swap_used = ""
        self.measuring_s = 0.0
        self.threads_before: int | None = None

    def run(self, emit: Callable[[Event], None], *, fail_fast: bool) -> SweepOutcome:
        """Measure what is missing, then derive the observations."""
        self.units.refuse_mixture(self.series.steps)
        begun = stored_run_json(self.root).get("status") == RUNNING
        try:
            self._all(emit, fail_fast=fail_fast)
            if self._lacks_drift(begun=begun):
                self._measure_drift()
        except KeyboardInterrupt:
            self.outcome.interrupted = True
        finally:
            self._close_fingerprints()
            if self.threads_before is not None:
                import torch

                torch.set_num_threads(self.threads_before)
        if self.hooked is not None and self.hooked.note:
            self.shown.notes.append(self.hooked.note)
        self._finish()
        return self.outcome

    def _close_fingerprints(self) -> None:
        self.known.close()

    def _finish(self) -> None:
        write_run_json(self.root, self.outcome, self.shown, swap=self.swap_used)
        self._derive()

    def _derive(self) -> None:
        if not (observations_current(self.root) and observations_whole(self.root)):
            rebuild_observations(self.root, damaged=self._set_aside, written=self.units.written)

    def _identity(self, checkpoint: Checkpoint, following: Checkpoint | None) -> str:
        return self.known.of(checkpoint, then=following)

    def _all(self, emit: Callable[[Event], None], *, fail_fast: bool) -> None:
        total, pace = len(self.mine), Pace((one.step for one in self.mine), measured_steps(self.root))
        for done, checkpoint in enumerate(self.mine, 1):
            before, started, at_first = self.outcome.measured, time.monotonic(), self.hooked is None
            self.measuring_s = 0.0
            try:
                following = self.mine[done] if done < total else None
                self._checkpoint(checkpoint, self._identity(checkpoint, following))
            except CheckpointError as error:
                if fail_fast:
                    raise
                gap = _gap(Gap(checkpoint.path, error.message, error.help, checkpoint.step))
                self.outcome.gaps.append(gap)
                emit({"event": "gap", **gap})
            once = at_first and self.hooked is not None  # torch, the model and the stimuli are there now
            took = self.measuring_s if once else time.monotonic() - started
            pace.done(checkpoint.step, took, worked=self.outcome.measured > before)
            emit(
                {
                    "event": "checkpoint",
                    "done": done,
                    "total": total,
                    "step": checkpoint.step,
                    "measured": self.outcome.measured - before,
                    "errors": len(self.outcome.gaps),
                    "s_per_checkpoint": pace.s_per_checkpoint,
                    "eta_s": pace.eta_s,
                }
            )

    def _checkpoint(self, checkpoint: Checkpoint, identity: str) -> None:
        """Measure what one checkpoint lacks; one that lacks nothing is not loaded."""
        step = checkpoint.step
        if self.shown.shape and not self.shown.unsettled:
            found = self.units.look(checkpoint, identity)
            if not found.missing and not self.units.lacks_attention(checkpoint, identity):
                self._count(found)
                return
        with at_hand(checkpoint) as ready:
            if self.hooked is None:
                shared = self.models
                self.hooked = shared(self.series) if shared else self._walker(self.config.dtype)
            self._before_first_load(ready)
            with self.clock.time("load", step):
                model = self.known.loaded(checkpoint, partial(self.hooked.load, ready))
            self._take_threads(model)
            self.shown.fit(model, checkpoint, first=self._is_first())
            if self.shown.unsettled:
                model = self._settle(model, ready)
            self._drawn()
            found = self.units.look(checkpoint, identity)
            self._count(found)
            with folders_synced_once():
                for group in found.missing:
                    self._measure(model, group, checkpoint, identity)
            if self.units.lacks_attention(checkpoint, identity):
                from byrote.probes.sweep.gallery import keep_attention

                with self.clock.time("attention", step):
                    tokenizer, stimuli = tokenizer_of(checkpoint), self.shown.stimuli
                    keep_attention(
                        model, self.root, step, fingerprint=identity, stimuli=stimuli, tokenizer=tokenizer
                    )
            self.swap_used = self.hooked.method

    def _is_first(self) -> bool:
        """Whether the stimuli are to fit this model, whatever an earlier sweep said."""
        return not self.outcome.measured and not self.outcome.reused

    def _before_first_load(self, now: Checkpoint) -> None:
        """What a shard does before its first checkpoint is loaded."""

    def _drawn(self) -> None:
        """What a shard does once its stimuli are drawn."""

    def _settle(self, model: HookedModel, now: Checkpoint) -> HookedModel:
        """Find out how many windows of text the last step needs, since training makes losses differ; then as before.

        Returns:
            The model with the weights that it had.
        """
        from byrote.probes.sweep.measure import settle_contexts

        assert self.hooked is not None, "a model is loaded"
        for last in reversed(self.series):
            if last.step == now.step:
                with self.clock.time("windows", now.step):
                    self.outcome.settled = settle_contexts(model, self.shown)
                return model
            try:
                self.known.read(last)
                with self.clock.time("windows", last.step), at_hand(last) as ready:
                    trained = self.known.loaded(last, partial(self.hooked.load, ready))
                    self.outcome.settled = settle_contexts(trained, self.shown)
                break
            except CheckpointError:
                continue  # a gap, which is said when its turn comes
        return self.known.loaded(now, partial(self.hooked.load, now))

    def _count(self, found: Look) -> None:
        """Note what is reused; remove what is superseded, and set aside what is damaged, before anything new is written."""
        for path in found.superseded:
            remove(path)
        for path in found.damaged:
            self._set_aside(path)
        self.outcome.superseded += len(found.superseded)
        self.outcome.reused += len(self.units.wanted) - len(found.missing)

    def _set_aside(self, path: Path) -> None:
        self.outcome.set_aside.append(set_aside(path))

    def _measure(self, model: HookedModel, group: Group, checkpoint: Checkpoint, identity: str) -> None:
        from byrote.probes.sweep.measure import measure_group

        started = time.monotonic()
        with self.clock.time(f"measure {group.key}", checkpoint.step):
            measured = measure_group(model, group, self.shown)
        self.measuring_s += time.monotonic() - started
        self.units.write(group, measured, run=self.series.name, checkpoint=checkpoint, identity=identity)
        self.outcome.measured += 1

    def _walker(self, dtype: str) -> HookedSeries:
        """The models; torch is imported here, so that a finished sweep that is run again never needs it."""
        import torch

        from byrote.interp.bridge import HookedSeries

        dtype_of_it = getattr(torch, dtype)
        return HookedSeries(self.series, device=self.config.device, dtype=dtype_of_it, swap=self.config.swap)

    def _lacks_drift(self, *, begun: bool) -> bool:
        """Whether this sweep of a lower precision has to say how far the last step is from float32.

        Args:
            begun: units were left by sweeps of a series that training went on with, which do not.
        """
        last_is_mine = any(one.step == max(self.series.steps) for one in self.mine)
        new = (bool(self.outcome.measured) or begun) and not self.outcome.unfinished
        return self.config.dtype in ("bfloat16", "float16") and new and last_is_mine

    def _measure_drift(self) -> None:
        """In a lower precision: the last step again in float32, so that every score's drift is known."""
        from byrote.probes.sweep.measure import measure_group

        checkpoint = self.series.at(max(self.series.steps))
        self.hooked = None  # one model at a time in memory
        try:
            with self.clock.time("drift", checkpoint.step), at_hand(checkpoint) as ready:
                model = self.known.loaded(checkpoint, partial(self._walker("float32").load, ready))
                wanted = [group for group in self.units.wanted if not group.direct]
                measured = [m for group in wanted for m in measure_group(model, group, self.shown)]
        except CheckpointError:
            return  # it is a gap already
        reference = unit_table(measured, run=self.series.name, step=checkpoint.step, tokens_seen=None)
        self.outcome.drift = drift_rows(read_units(self.root, checkpoint.step), reference)

    def _take_threads(self, model: HookedModel) -> None:
        """A small model's products are too small to share: a second thread would mostly wait for the first."""
        if self.threads_before is None:
            import torch

            self.threads_before = torch.get_num_threads()
            small = sum(p.numel() for p in model.parameters.values()) < SMALL_MODEL_PARAMETERS
            torch.set_num_threads(self.config.threads or (1 if small else self.threads_before))


class _ShardSweep(_Sweep):
    """Some checkpoints of a series, beside others that measure the rest."""

    folder: SharedFolder

    def _identity(self, checkpoint: Checkpoint, following: Checkpoint | None) -> str:
        return self.known.of(checkpoint, then=following, among=self.series)

    def _before_first_load(self, now: Checkpoint) -> None:
        """Stimuli are drawn for the first step that can be loaded, as one process does, and not for this shard's first."""
        from byrote.interp.loading import read_config

        if self.shown.shape:
            return
        assert self.hooked is not None, "a model is loaded"
        for first in self.series:
            if first.step == now.step:
                return
            try:
                with at_hand(first) as ready:
                    if read_config(ready) == read_config(now):
                        return
                    self.known.read(first)
                    model = self.known.loaded(first, partial(self.hooked.load, ready))
                    self._take_threads(model)
                    self.shown.fit(model, first, first=True)
                return
            except CheckpointError:
                continue  # a gap, which is said by the shard that it is of

    def _is_first(self) -> bool:
        return not self.shown.shape

    def _drawn(self) -> None:
        """Tell the other shards what is shown, so that they need not find out."""
        if self.published:
            return
        self.published = True
        with self.folder.alone():
            self._write_run_json(last=False)

    published = False

    def _close_fingerprints(self) -> None:
        with self.folder.alone():
            self.known.close(beside_others=True)

    def _finish(self) -> None:
        with self.folder.alone():
            last = self.folder.leave()
            if not self.shown.shape:  # nothing was loaded: others may have said what is shown
                self.shown = StimulusSet(self.series, self.config, self.root)
            if self._write_run_json(last=last) != "interrupted":
                self._derive()

    def _write_run_json(self, *, last: bool) -> str:
        """Write it, and the status that it says."""
        earlier = stored_run_json(self.root)
        meta = run_json(self.root, self.outcome, self.shown, swap=self.swap_used)
        others = set(self.series.steps) - {one.step for one in self.mine}
        lacking = self.units.lacking(others) if last or earlier.get("gaps") else set()
        merged_json = merged(meta, earlier, lacking=lacking, last=last)
        write_stored(self.root, merged_json)
        return str(merged_json["status"])


def _gap(gap: Gap) -> dict[str, Any]:
    return {
        "step": gap.step,
        "path": text_of(gap.path.name),
        "reason": text_of(gap.reason),
        "help": text_of(gap.help),
    }


def drift_rows(measured: pa.Table, reference: pa.Table) -> list[dict[str, Any]]:
    """What a lower precision changes: the difference of every score from its float32 value, per probe and metric.

    Args:
        measured: units of one step in the precision of the sweep.
        reference: the same units in float32.

    Returns:
        One row per probe and metric: `max_abs` and `mean_abs` difference, `n` values compared, and `interval`, the mean
        width of the float32 interval, to judge the difference by; None where a score has no interval.
    """
    keys = ["probe", "metric", *AXES]
    columns = [*keys, "value", "lo", "hi", "valid"]
    both = to_frame(measured)[columns].merge(to_frame(reference)[columns], on=keys, suffixes=("", "_float32"))
    both = both[both["valid"] & both["valid_float32"]]
    off, width = (both["value"] - both["value_float32"]).abs(), both["hi_float32"] - both["lo_float32"]
    rows = []
    for (probe, metric), part in both.assign(off=off, width=width).groupby(["probe", "metric"], sort=True):
        row = {"probe": probe, "metric": metric, "max_abs": float(part["off"].max())}
        row |= {"mean_abs": float(part["off"].mean()), "n": len(part)}
        mean_width = float(part["width"].mean())
        rows.append(row | {"interval": mean_width if mean_width > 0 else None})
    return rows
