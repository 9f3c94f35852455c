"""The results folder of a sweep: made, locked while in use, and described by run.json. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from byrote.checkpoints.atomic import LOCK, locked, make_folder, remove, remove_leftovers
from byrote.checkpoints.errors import ByroteError, CheckpointError, PlaceError
from byrote.checkpoints.fingerprint import fingerprint, model_hashes
from byrote.checkpoints.lint import read_lint
from byrote.checkpoints.safe_read import own_path
from byrote.checkpoints.series import Checkpoint, CheckpointSeries, text_of
from byrote.probes.results import Results
from byrote.probes.results import run_json as store
from byrote.probes.results.series_place import series_place, stored_place
from byrote.probes.results.unit_files import measured_steps, unit_provenance, units_of
from byrote.probes.statistics import INTERVALS
from byrote.probes.stored_probes import MAX_PROBES, from_json, to_json
from byrote.probes.sweep.stimulus_set import StimulusSet
from byrote.probes.wording import counted

FINGERPRINTS = "fingerprints.json"
SHARDS = ".shards"  # lock files of those who measure shards of the series


@dataclass
class SweepOutcome:
    """What a sweep did.

    Attributes:
        path: the results folder.
        measured, reused: units written now, and units found finished.
        superseded: stored units that disagreed with the weights, versions or settings and were removed.
        set_aside: new names of damaged files; what they held was measured again where it was requested.
        gaps: checkpoints or units that could not be measured, with reasons.
        interrupted: True after Ctrl-C: what was finished is saved.
        trace: what took when: {"what", "step", "start_s", "end_s"} since the sweep began.
        settled: sequences shown once, to find out how many windows of text are needed, and the finding; None where it was
            known, or nothing needs it.
        unfinished: whether training goes on, so that the series is not all there.
        drift: in a lower precision than float32, how far the last step's scores are from float32; see `drift_rows`.
    """

    path: Path
    measured: int = 0
    reused: int = 0
    superseded: int = 0
    set_aside: list[Path] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False
    trace: list[dict[str, Any]] = field(default_factory=list)
    drift: list[dict[str, Any]] = field(default_factory=list)
    settled: tuple[int, str] | None = None
    unfinished: bool = False

    @property
    def results(self) -> Results:
        """The results, opened."""
        return Results.open(self.path)


@contextmanager
def open_run_folder(out: Path, series: CheckpointSeries, *, fresh: bool) -> Iterator[Path]:
    """Make or reopen `out/<series name>`, locked against a second sweep.

    A folder that is new, and in which nothing was measured before an error, is removed again.

    Raises:
        ByroteError: it holds another series' results, another sweep is writing there, or it cannot be written.
    """
    missing = [folder for folder in (out / series.name, out) if not folder.exists()]
    root = made_folder(out, series)
    refused = partial(unwritable, root)
    try:
        with locked(root / LOCK, busy=busy(root), refused=refused), explained(root):
            if shards_at_work(root):
                raise busy(root)
            remove_leftovers(root)
            if fresh:
                clear_results(root)
            refuse_other_series(root, series)
            yield root
    except ByroteError:
        if missing and {path.name for path in root.iterdir()} <= {LOCK, FINGERPRINTS}:
            for name in (LOCK, FINGERPRINTS):
                remove(root / name)
            with suppress(OSError):  # others may have begun to write there
                for folder in missing:
                    folder.rmdir()
        raise


def made_folder(out: Path, series: CheckpointSeries) -> Path:
    """The results folder of a series, made where it is missing.

    Raises:
        ByroteError: its name cannot be stored, or it cannot be written.
    """
    root = out / series.name
    _refuse_odd_name(root, series)
    try:
        make_folder(root)
    except OSError as error:
        raise unwritable(root, error) from None
    return root


def busy(root: Path) -> ByroteError:
    """Refuses a folder that others are writing to."""
    return PlaceError(f"another sweep is writing to {root}", help="wait for it, or use another -o")


def unwritable(root: Path, error: OSError) -> ByroteError:
    """Refuses a folder that cannot be written to."""
    return PlaceError(
        f"cannot write results to {root} ({error.strerror})", help="choose another folder with -o"
    )


@contextmanager
def explained(root: Path) -> Iterator[None]:
    """Say of a file of a results folder that it cannot be written, and what to do.

    Raises:
        ByroteError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        if not Path(str(error.filename or "")).is_relative_to(root):
            raise  # of something that is read
        what = f"cannot write {error.filename} ({error.strerror})"
        keep = "make room or choose another folder with -o; the same command resumes from what is stored"
        raise PlaceError(what, help=keep) from error


def shards_at_work(root: Path, *, but: Path | None = None) -> list[Path]:
    """The lock files of those who measure shards of the series, see `byrote.probes.sweep.shards`; those of the dead are removed.

    Args:
        root: the results folder, which is locked.
        but: not this one.
    """
    files = sorted(own_path(root, SHARDS).glob("*.lock"))
    return [file for file in files if file != but and _is_at_work(file)]


def _is_at_work(file: Path) -> bool:
    held = ByroteError("it is held")
    try:
        with locked(file, busy=held, refused=lambda error: ByroteError(str(error))):
            remove(file)
            return False
    except ByroteError as error:
        return error is held


def run_json(root: Path, outcome: SweepOutcome, shown: StimulusSet, *, swap: str) -> dict[str, Any]:
    """What the folder holds and under which conditions it was measured; nothing in it depends on when or how often.

    A sweep of some steps or probes adds to what earlier ones stored, so what these said of the rest stays.

    Args:
        root: the results folder.
        outcome: what was done.
        shown: what the models were shown.
        swap: how weights were put in place; empty where no model was loaded.
    """
    series, config, earlier = shown.series, shown.config, store.stored_run_json(root)
    # A sweep that finds everything stored, or lacks a plugin, adds nothing to what the one before it wrote.
    plugins = {
        info.name: info for data in _list(earlier, "plugins")[:MAX_PROBES] if (info := from_json(data))
    }
    plugins |= {info.name: info for info in config.infos if info.plugin is not None}
    manifest = {k: v for k, v in (series.manifest or {}).items() if k not in ("checkpoints", "schedule")}
    gaps = outcome.gaps + _other_gaps(series, earlier)
    steps = sorted(
        {*series.steps, *measured_steps(root), *(gap["step"] for gap in gaps if gap["step"] is not None)}
    )
    drawn = shown.stimuli.keys() | shown.refused.keys()
    return {
        "schema": store.SCHEMA_VERSION,
        "run": series.name,
        "status": _status(outcome, gaps),
        "series": {
            "name": series.name,
            **{name: text_of(place) for name, place in stored_place(root, series.path).items()},
            "format": series.format,
            "n_checkpoints": len(steps),
            "steps": steps,
            "loss_nats": _losses(series, earlier, steps),
            "manifest": manifest if series.manifest else None,
            "notes": list(series.notes),
        },
        "model": shown.shape or None,
        "vocabulary": None if shown.vocabulary is None else shown.vocabulary.to_json(),
        "probes": _with_others(
            [{"name": i.name, "version": i.version} for i in config.infos], _list(earlier, "probes"), "name"
        ),
        **({"plugins": [to_json(info) for info in plugins.values()]} if plugins else {}),
        "stimuli": _with_others(
            [s.to_json() for s in shown.stimuli.values()],
            [one for one in _list(earlier, "stimuli") if one.get("kind") not in shown.refused],
            "kind",
        ),
        "refused_stimuli": {k: v for k, v in _mapping(earlier, "refused_stimuli").items() if k not in drawn}
        | shown.refused,
        "provenance": {
            "dtype": config.dtype,
            "device": config.device,
            "weight_processing": "raw",
            "intervals": INTERVALS,
            "seed": config.seed,
            "swap": swap or _stored_swap(earlier),
            "versions": dict(config.versions),
        },
        "gaps": gaps,
        "lint": _lint(series),
        "drift_from_float32": outcome.drift or _list(earlier, "drift_from_float32"),
        "notes": _notes(shown, earlier),
    }


def _notes(shown: StimulusSet, earlier: dict[str, Any]) -> list[str]:
    """What the series says now; then what earlier sweeps said of what they were shown and how they measured, and this one does.

    A sweep that is shown one of these stimuli otherwise, or not at all any more, replaces what was measured on it: then the
    earlier ones' notes go. A version that did not store which notes are the series' own (`series.notes`) has no others.
    """
    own = [note for note in shown.notes if note not in shown.series.notes]
    of_series: Any = _mapping(earlier, "series").get("notes")
    ids = {one.get("kind"): one.get("id") for one in _list(earlier, "stimuli") if isinstance(one, dict)}
    alike = not ids.keys() & shown.refused.keys() and all(
        ids.get(kind, one.id) == one.id for kind, one in shown.stimuli.items()
    )
    known = alike and isinstance(of_series, list)
    kept = [note for note in _list(earlier, "notes") if known and note not in of_series]
    return list(dict.fromkeys((*shown.series.notes, *kept, *own)))


def write_run_json(root: Path, outcome: SweepOutcome, shown: StimulusSet, *, swap: str) -> None:
    """Write `run_json`, whole or not at all."""
    store.write_run_json(root, run_json(root, outcome, shown, swap=swap))


def _status(outcome: SweepOutcome, gaps: list[dict[str, Any]]) -> str:
    if outcome.unfinished:
        return store.RUNNING
    return "interrupted" if outcome.interrupted else "partial" if gaps else "complete"


def _with_others(now: list[dict[str, Any]], before: list[Any], key: str) -> list[dict[str, Any]]:
    """What this sweep says of each probe or stimulus, then what an earlier one said of those that are not in this one."""
    current = {one[key] for one in now}
    return now + [one for one in before if one.get(key) not in current]


def _other_gaps(series: CheckpointSeries, earlier: dict[str, Any]) -> list[dict[str, Any]]:
    """Gaps at steps that this sweep did not look at and whose checkpoints are still there."""
    gaps = [gap for gap in _list(earlier, "gaps") if gap.get("step") not in (None, *series.steps)]
    known = {gap.step for gap in series.gaps}
    return [gap for gap in gaps if gap["step"] not in known and (series.path / str(gap.get("path"))).exists()]


def _losses(
    series: CheckpointSeries, earlier: dict[str, Any], steps: Iterable[int]
) -> dict[str, float | None]:
    """Recorded training loss by step: of the series, and of other steps of the folder."""
    known = {str(step) for step in steps}
    stored = _mapping(_mapping(earlier, "series"), "loss_nats")
    found = {step: loss for step, loss in stored.items() if step in known}
    own = {str(c.step): c.loss_nats for c in series}
    found |= {step: loss for step, loss in own.items() if loss is not None or step not in found}
    return dict(sorted(found.items(), key=lambda item: int(item[0])))


def _stored_swap(earlier: dict[str, Any]) -> str:
    """How the numbers that are there were made: a sweep that loads no model makes none."""
    before = earlier.get("provenance")
    return str(before.get("swap") or "not needed") if isinstance(before, dict) else "not needed"


def _list(data: dict[str, Any], key: str) -> list[Any]:
    return data[key] if isinstance(data.get(key), list) else []


def _mapping(data: dict[str, Any], key: str) -> dict[str, Any]:
    return data[key] if isinstance(data.get(key), dict) else {}


def _lint(series: CheckpointSeries) -> dict[str, Any] | None:
    """What `byrote lint` found of these very files, where it was run: facts above a note, and steps to leave out."""
    report = read_lint(series)
    if report is None:
        return None
    facts = [fact.to_json() for fact in report.facts if fact.severity != "note"]
    return {"facts": facts, "left_out": {str(step): why for step, why in report.left_out.items()}}


def refuse_other_series(root: Path, series: CheckpointSeries) -> None:
    """A results folder is of one series, which may have been moved, copied or named by another path.

    Raises:
        ByroteError: its run.json names another place, and what lies at the given one has other weights.
    """
    stored = store.stored_run_json(root)
    if source := store.imported_from(stored):
        raise ByroteError(
            f"{root} holds scores imported from {source}",
            help="give another folder with -o, or replace them with --fresh",
        )
    place = series_place(root, stored)
    if place is None or _same_place(place, series.path):
        return
    measured = measured_steps(root)
    common = sorted(set(measured) & set(series.steps), reverse=True)
    if not measured or any(_same_weights(root, series.at(step)) for step in common[:1]):
        return
    found = (
        f"at step {common[0]:,} these have different weights"
        if common
        else f"none of its {counted(len(measured), 'step')} is among those given"
    )
    raise ByroteError(
        f"{root} holds results of the series at {place}, and {series.path} is another: {found}",
        help="give another folder with -o, or replace them with --fresh",
    )


def _refuse_odd_name(root: Path, series: CheckpointSeries) -> None:
    try:
        f"{series.name}{stored_place(root, series.path)['path']}".encode()
    except UnicodeEncodeError:
        raise ByroteError(
            f"the name of {str(series.path)!a} is not UTF-8, so results cannot refer to it",
            help="rename that folder",
        ) from None
    if series.steps and series.steps[-1] > store.MAX_COUNT:
        raise ByroteError(
            f"{series.path} has a step of {len(str(series.steps[-1])):,} digits; steps are stored up to {store.MAX_COUNT:,}",
            help="rename that checkpoint",
        )


def _same_place(one: Path, other: Path) -> bool:
    try:
        return one.resolve() == other.resolve()
    except OSError:
        return False


def _same_weights(root: Path, checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint has the weights that a step was measured on; the last step has, since training starts alike."""
    known = {unit_provenance(file).get("fingerprint") for file in units_of(root, checkpoint.step)}
    try:
        return fingerprint(model_hashes(checkpoint)) in known
    except (CheckpointError, OSError):
        return False


def clear_results(root: Path) -> None:
    """Delete everything of a results folder but the lock.

    Raises:
        ByroteError: it holds files that byrote did not write.
    """
    ours = {
        "run.json",
        "observations.parquet",
        "units",
        "arrays",
        "stimuli",
        FINGERPRINTS,
        LOCK,
        SHARDS,
    }
    others = sorted(p.name for p in root.iterdir() if p.name not in ours)
    if others:
        raise ByroteError(
            f"--fresh would delete {root}, which holds files byrote did not write ({', '.join(others[:3])})",
            help="move them away, or give another folder with -o",
        )
    for path in root.iterdir():
        if path.name != LOCK:
            remove(path)
