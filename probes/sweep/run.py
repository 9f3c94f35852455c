"""The sweep: every checkpoint of a series, every probe asked for, one forward pass per (checkpoint, stimulus).

The same command again does only what is missing. A unit is one (checkpoint, stimulus): it is written whole when it is
finished, so a kill at any moment loses at most the unit in flight.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.errors import CheckpointError, RoteError
from checkpoints.material import Material, material_from_files, material_of
from checkpoints.series import Checkpoint, CheckpointSeries, Gap, at_hand
from checkpoints.vocabulary import from_ranges, tokenizer_of, usable_ids, variant_pairs
from probes.attention import lacks_attention
from probes.info import ProbeInfo
from probes.observations import Measured, not_measured, unit_table
from probes.registry import REGISTRY
from probes.stimuli import Stimulus, Vocabulary, make
from probes.store import Results, read_units, rebuild_observations, step_folder, unit_provenance, write_unit
from probes.sweep.ahead import AheadReader, Clock, FingerprintCache
from probes.sweep.drift import drift_rows
from probes.sweep.folder import open_run_folder, write_run_json
from probes.sweep.given import Draw, keep, with_kept, with_text
from probes.sweep.plan import Group, SweepConfig, groups, probe_versions, provenance, unit_name

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


@dataclass(frozen=True)
class _Todo:
    """One unit to measure."""

    group: Group
    path: Path


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
        RoteError: the folder belongs to another series, is in use, or the settings cannot work.
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
        self.stimuli: dict[str, Stimulus] = {}
        self.refused: dict[str, str] = {}
        self.vocabulary: Vocabulary | None = None
        self.shape: dict[str, Any] = {}
        self.swap_used, self.notes = "", list(series.notes)
        self._walker: Any = None
        self._text: tuple[Draw, str, list[str]] | None = None
        self._threads_before: int | None = None
        self.clock = Clock()
        self._reader = AheadReader(
            FingerprintCache(root / "fingerprints.json"), self.clock, ahead=config.prefetch
        )

    def run(self) -> SweepOutcome:
        """Measure what is missing, then derive the observations."""
        self._recall()
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
            if (
                not self.shape
                or self._missing(checkpoint, identity)
                or self._lacks_attention(checkpoint, identity)
            ):
                with at_hand(checkpoint):
                    self._measure(checkpoint, identity)
            else:
                self._remove_superseded(checkpoint, identity)
                self.outcome.reused += len(groups(self.config.infos))
        except CheckpointError as error:
            if self.fail_fast:
                raise
            gap = Gap(checkpoint.path, error.message, error.help, checkpoint.step)
            self.outcome.gaps.append(_gap(gap))
            self.emit({"event": "gap", **_gap(gap)})

    def _measure(self, checkpoint: Checkpoint, identity: str) -> None:
        with self.clock.time("load", checkpoint.step):
            model = self._hooked().load(checkpoint)
        self._take_threads(model)
        nothing_yet = not self.outcome.measured and not self.outcome.reused
        if not self.shape or (nothing_yet and self.shape != model.shape.to_json()):
            tokenizer = tokenizer_of(checkpoint)
            ids, bos, note = usable_ids(model.config, model.shape.d_vocab, tokenizer=tokenizer)
            self._prepare(model.shape.to_json(), ids, bos, note, variant_pairs(tokenizer, ids))
        self._same_shape(checkpoint, model.shape.to_json())
        self._keep_text()
        self._remove_superseded(checkpoint, identity)
        todos = self._missing(checkpoint, identity)
        self.outcome.reused += len(groups(self.config.infos)) - len(todos)
        for todo in todos:
            with self.clock.time(f"measure {todo.group.key}", checkpoint.step):
                measured = self._unit(model, todo.group)
            table = unit_table(
                measured,
                run=self.series.name,
                step=checkpoint.step,
                tokens_seen=checkpoint.tokens_seen,
            )
            facts = self._provenance(checkpoint, identity, self._shown(todo.group.key, todo.group.stimuli))
            write_unit(todo.path, table, facts | {"probes": probe_versions(todo.group.probes)})
            self.outcome.measured += 1
        if self._lacks_attention(checkpoint, identity):
            from probes.sweep.gallery import keep_attention

            with self.clock.time("attention", checkpoint.step):
                keep_attention(
                    model,
                    self.root,
                    checkpoint.step,
                    fingerprint=identity,
                    stimuli=self.stimuli,
                    tokenizer=tokenizer_of(checkpoint),
                )
        self.swap_used = self._hooked().swap_used

    def _lacks_attention(self, checkpoint: Checkpoint, identity: str) -> bool:
        """Whether attention was asked to be kept and is not."""
        if not self.config.save_attention:
            return False
        return lacks_attention(self.root, checkpoint.step, fingerprint=identity, stimuli=self.stimuli)

    def _unit(self, model: Any, group: Group) -> list[Measured]:
        from probes.sweep.measure import measure_direct, measure_stimulus, measure_weights

        refused = [self.refused[kind] for kind in group.stimuli if kind in self.refused]
        if refused:
            return [not_measured(i, m, refused[0]) for i in group.probes for m in _metrics_of(i, group)]
        if not group.stimuli:
            assert self.vocabulary is not None
            return measure_weights(model, group.probes, ids=self.vocabulary.ids, seed=self.config.seed)
        shown = {kind: self.stimuli[kind] for kind in group.stimuli}
        if group.direct:
            return measure_direct(model, shown, group.probes[0], seed=self.config.seed)
        return measure_stimulus(model, shown[group.stimuli[0]], group.probes, seed=self.config.seed)[0]

    def _shown(self, key: str, kinds: Sequence[str]) -> str:
        """Ids of the stimuli a unit was measured on; the group's key where it has none or they were refused."""
        ids = [self.stimuli[kind].id for kind in kinds if kind in self.stimuli]
        return " ".join(ids) or key

    def _missing(self, checkpoint: Checkpoint, identity: str) -> list[_Todo]:
        """Units of this checkpoint still to measure; probes already stored with equal provenance are left out."""
        todos = []
        current, _ = self._stored(checkpoint, identity)
        for group in groups(self.config.infos):
            lacking = tuple(i for i in group.probes if i.name not in current.get(group.key, ()))
            if lacking:
                path = step_folder(self.root, checkpoint.step) / unit_name(group.key, lacking)
                todos.append(_Todo(Group(group.stimuli, lacking), path))
        return todos

    def _remove_superseded(self, checkpoint: Checkpoint, identity: str) -> None:
        """Before anything new is written, so that a kill never leaves numbers of two sets of weights side by side."""
        for path in self._stored(checkpoint, identity)[1]:
            path.unlink()
            self.outcome.superseded += 1

    def _stored(self, checkpoint: Checkpoint, identity: str) -> tuple[dict[str, set[str]], list[Path]]:
        """Stimulus -> probes stored for these weights and settings; and the units, asked for or not, that are not."""
        current: dict[str, set[str]] = {}
        superseded = []
        for path in sorted(step_folder(self.root, checkpoint.step).glob("*.parquet")):
            key, found = path.name.split(".")[0], unit_provenance(path)
            probes = found.pop("probes", {})
            wanted = self._provenance(checkpoint, identity, self._wanted_stimulus(key, probes, found))
            known = all(name in REGISTRY and REGISTRY[name].version == v for name, v in probes.items())
            if found == wanted and known:
                current.setdefault(key, set()).update(probes)
            else:
                superseded.append(path)
        return current, superseded

    def _wanted_stimulus(self, key: str, probes: Mapping[str, int], found: Mapping[str, Any]) -> str:
        """The stimulus ids a stored unit should name; what it does name where this sweep draws none of them."""
        kinds = [key]
        if "+" in key:
            kinds = [kind for name in probes if name in REGISTRY for kind in REGISTRY[name].stimuli]
        drawn = self._shown("", kinds)
        return drawn or str(found.get("stimulus", ""))

    def _provenance(self, checkpoint: Checkpoint, identity: str, stimulus: str) -> dict[str, Any]:
        return provenance(
            self.config,
            fingerprint=identity,
            format=checkpoint.format,
            stimulus=stimulus,
        )

    def _prepare(
        self, shape: dict[str, Any], ids: list[int], bos: int, note: str, variants: Sequence[Sequence[int]]
    ) -> None:
        """Draw the stimuli once, from the first model loaded; every step of the series is shown the same tokens."""
        self.shape, self.stimuli, self.refused = shape, {}, {}
        alike = tuple((first, second) for first, second in variants)
        self.vocabulary = Vocabulary(np.asarray(ids, dtype=np.int64), bos, note, alike)
        self.notes += [note] if note and note not in self.notes else []
        material = self._material(Draw(self.config.seed, self.config.n_seq, shape["n_ctx"], bos))
        for kind in dict.fromkeys(kind for group in groups(self.config.infos) for kind in group.stimuli):
            if kind in self.refused:
                continue
            try:
                self.stimuli[kind] = make(
                    kind,
                    self.vocabulary,
                    n_ctx=shape["n_ctx"],
                    seed=self.config.seed,
                    n_seq=self.config.n_seq,
                    material=material,
                )
            except CheckpointError:
                raise
            except RoteError as error:
                self.refused[kind] = error.message

    def _material(self, draw: Draw) -> Material:
        """Real text, members and twins: what the series carries, and the files given on top, now or before."""
        files = {"members": self.config.members, "twins": self.config.twins}
        found, tokenizer, said = material_of(self.series), tokenizer_of(self.series[0]), []
        if any(files.values()):
            found = material_from_files(found, tokenizer=tokenizer, bos=draw.bos, **files)
        if self.config.text is not None:
            found, said = with_text(found, self.config.text, draw, tokenizer=tokenizer)
            self._text = (draw, found.sources["natural"], said)
        elif found.natural is None:
            try:
                found, said = with_kept(found, self.root, draw)
            except RoteError as error:
                self.refused["natural"] = error.message
        self.notes += [note for note in said if note not in self.notes]
        return found

    def _keep_text(self) -> None:
        """Text that was given is kept as the windows shown, so that the next sweep can do without the file."""
        if self._text is not None and "natural" in self.stimuli:
            draw, source, said = self._text
            keep(self.root, self.stimuli["natural"], draw, source=source, notes=said)
            self._text = None

    def _recall(self) -> None:
        """Shape of an earlier sweep of this folder, so that a finished one loads no model at all."""
        file = self.root / "run.json"
        if not file.is_file():
            return
        try:
            earlier = json.loads(file.read_text(encoding="utf-8"))
            shape, vocabulary = earlier["model"], earlier["vocabulary"]
            variants = [(int(first), int(second)) for first, second in vocabulary["variants"]]
            remembered = (
                dict(shape),
                from_ranges(vocabulary["ids"]),
                vocabulary["bos"],
                vocabulary["note"],
                variants,
            )
            n_ctx = shape["n_ctx"]
        except (ValueError, LookupError, TypeError, AttributeError):
            return  # damaged, or of a sweep that loaded nothing: the first model loaded says it again
        if isinstance(n_ctx, int):
            self._prepare(*remembered)

    def _same_shape(self, checkpoint: Checkpoint, shape: dict[str, Any]) -> None:
        if shape != self.shape:
            differing = ", ".join(
                f"{k} {self.shape[k]} -> {shape[k]}" for k in shape if shape[k] != self.shape[k]
            )
            raise CheckpointError(
                f"step {checkpoint.step} is another model than the first step ({differing})",
                help="a series is one model in training; put the other model in its own folder",
            )

    def _hooked(self) -> Any:
        """The model walker; torch is imported here, so that a finished sweep asked again never needs it."""
        if self._walker is None:
            import torch

            from interp.bridge import HookedSeries

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

        from interp.bridge import HookedSeries

        step = max(self.series.steps, default=0)
        checkpoint = self.series.at(step)
        self._walker = None  # one model at a time in memory
        try:
            with self.clock.time("drift", step), at_hand(checkpoint):
                model = HookedSeries(self.series, device=self.config.device, dtype=torch.float32).load(
                    checkpoint
                )
                measured = [
                    m for g in groups(self.config.infos) if not g.direct for m in self._unit(model, g)
                ]
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
            self.notes.append(self._walker.note)
        write_run_json(self.root, self.series, self.config, self.outcome, self)
        if (
            self.outcome.measured
            or self.outcome.superseded
            or not (self.root / "observations.parquet").is_file()
        ):
            rebuild_observations(self.root)


def _metrics_of(info: ProbeInfo, group: Group) -> list[str]:
    """Metrics of a probe that a group's unit holds."""
    if group.direct or group.stimuli[0] == info.stimuli[0]:
        return [m for m in info.metrics if "@" not in m]
    return [m for m in info.metrics if m.endswith(f"@{group.stimuli[0]}")]


def _gap(gap: Gap) -> dict[str, Any]:
    return {"step": gap.step, "path": gap.path.name, "reason": gap.reason, "help": gap.help}
