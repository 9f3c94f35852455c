"""Open checkpoint series from what a user names: a folder, a folder of runs, a glob, a list of steps, a hub repository."""

from __future__ import annotations

import glob
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError, did_you_mean
from byrote.checkpoints.formats import NothingReadableError, discover, format_at, hub
from byrote.checkpoints.listing import listed_once
from byrote.checkpoints.safe_read import FileRefused, read_json
from byrote.checkpoints.series import STEP_UNKNOWN, Checkpoint, CheckpointSeries, Gap, series_of, text_of
from byrote.checkpoints.step_map import OPTION, epochs_of, last_models, places_of, read_step_map, unfinished
from byrote.checkpoints.step_names import (
    MixedPartsError,
    is_results,
    parse_name,
    refuse_mixed_parts,
    step_folders,
)

_GLOB = frozenset("*?[")
Named = str | Path
Broken = Callable[[Path, CheckpointError], None]


@listed_once()
def open_series(
    path: str | Path | Sequence[str | Path],
    *,
    part: str | None = None,
    base_model: str | Path | None = None,
    allow_download: bool = False,
    disk_budget_bytes: int | None = None,
    step_map: str | Path | Mapping[str, int] | None = None,
) -> CheckpointSeries:
    """Open one series of checkpoints, whatever its format, without reading any weights.

    Args:
        path: a lab series, a folder of checkpoints, one model folder, a glob or list of the steps of one series
            (``runs/x/checkpoint-*``), or a Hugging Face repository whose branches are steps
            (``EleutherAI/pythia-70m``), which is read from the local hub cache.
        part: which stage of a training of several, such as ``stage1``; also written ``path@stage1``.
        base_model: the model a series of adapters belongs to, where their own config does not say or is wrong.
        allow_download: let a hub repository list its branches over the network, and fetch each step that is not
            in the cache when it is loaded.
        disk_budget_bytes: most that steps downloaded by this process may hold on disk at any time; steps that
            were loaded are removed again to make room. None removes nothing.
        step_map: the steps of folders or files whose names say none, by their names inside `path`, or a JSON or TOML file
            of them; see `byrote.checkpoints.step_map`.

    Returns:
        The series, its checkpoints in step order; whatever claims to be a checkpoint but cannot be read
        is in `.gaps` with its reason.

    Raises:
        CheckpointError: the path does not exist, holds no checkpoint, or holds several series.
    """
    options = {
        "part": part,
        "base_model": base_model,
        "allow_download": allow_download,
        "disk_budget_bytes": disk_budget_bytes,
        "step_map": step_map,
    }
    given = _paths(path, help="name a series, or the steps of one")
    targets = [target for named in given for target in _expand(named)]
    if not targets:
        raise CheckpointError("no path was given", help="name a series, or the steps of one")
    _refuse_map_of_several(targets, options)
    if len(targets) == 1:
        return targets[0].open(options)
    return _series_of_steps([target.path for target in targets], options)


@listed_once()
def open_runs(
    paths: Named | Sequence[Named], *, on_broken: Broken | None = None, **options: Any
) -> list[CheckpointSeries]:
    """Open several series, each under a unique name.

    Args:
        paths: one or several of: a series; a folder of runs, each sub-folder a series; a glob of either; the step
            folders of a series; a hub repository. A training of several stages gives one series per stage.
        on_broken: called for a run inside a folder of runs that cannot be opened; without it the first one raises.
        options: as for `open_series`.

    Returns:
        The series in the order named, runs inside a folder by name; the same series named twice is opened once.

    Raises:
        CheckpointError: a path that is not there, holds nothing, or is broken.
    """
    given = _paths(paths, help="name a series, a folder of runs, or a glob")
    targets = _unsplit([target for named in given for target in _expand(named)])
    if not targets:
        raise CheckpointError("no path was given", help="name a series, a folder of runs, or a glob")
    _refuse_map_of_several(targets, options)
    found: dict[tuple[Path, tuple[int, ...], str], CheckpointSeries] = {}
    for target in targets:
        for series in _series_at(target, on_broken, options):
            found.setdefault((series.path.resolve(), series.steps, series.name), series)
    return _uniquely_named(list(found.values()))


def _paths(given: Any, *, help: str) -> list[Named]:
    """One path or several, as a list.

    Raises:
        CheckpointError: something else, such as results or None.
    """
    found: list[Any] = list(given) if isinstance(given, list | tuple | set | Iterator) else [given]
    for one in found:
        if not isinstance(one, str | Path):
            what = repr(one) if one is None or isinstance(one, int | float) else f"a {type(one).__name__}"
            raise CheckpointError(f"{what} is not a path of checkpoints", help=help)
    return found


@dataclass(frozen=True)
class _Target:
    """A path or repository as named, and the part of it that was requested."""

    path: Path
    repo: str | None = None
    part: str | None = None
    steps: tuple[Path, ...] = ()

    def open(self, options: dict[str, Any]) -> CheckpointSeries:
        if self.steps:
            return _series_of_steps(self.steps, options)
        options = options | {"part": self.part if self.part is not None else options.get("part")}
        if self.repo is not None:
            known = {name: value for name, value in options.items() if name in hub.FORMAT.options}
            return hub.open_repository(self.repo, **known)
        step_map = options.pop("step_map", None)
        if step_map is not None:
            named = step_map if isinstance(step_map, Mapping) else read_step_map(Path(step_map))
            return _series_of_map(self.path, places_of(self.path, named), options)
        if epochs := _epochs_at(self.path):
            return _series_of_epochs(self.path, epochs, options)
        part = options["part"]
        if part is None and _has_steps(self.path):
            return _with_last_models(discover(self.path, **options), options)
        if part is None or ((found := format_at(self.path)) is not None and "part" in found.options):
            return discover(self.path, **options)
        return _part_of_folder(self.path, part, options)


def _expand(named: Named) -> list[_Target]:
    """A path that exists is taken as it is, whatever characters it has; else a glob, then a repository."""
    text = str(named)
    if _exists(text):
        _refuse_results(Path(text))
        return [_Target(Path(text))]
    if _GLOB & set(text):
        return [_Target(path) for path in _matches(text)]
    whole, _, part = text.rpartition("@")
    if whole and _exists(whole):
        return [_Target(Path(whole), part=part)]
    if (repo := hub.repository(whole or text)) is not None:
        return [_Target(Path(text), repo=repo, part=part if whole else None)]
    return [_Target(Path(text))]


def _refuse_results(path: Path) -> None:
    """Results, or a table of scores, given where checkpoints belong.

    Raises:
        CheckpointError: that says so, and where the checkpoints of these results were.
    """
    if path.suffix.lower() in (".csv", ".tsv") and path.is_file():
        raise CheckpointError(
            f"{path} is a table, not a checkpoint",
            help=f"if it holds published scores: byrote import {path} -o results/{path.stem}",
        )
    inside = path.name in ("units", "arrays") and is_results(path.parent)
    root = path.parent if inside else path
    runs = [root] if is_results(root) else []
    if not runs and path.is_dir() and format_at(path) is None:
        runs = _results_in(path) or []
    if runs:
        where = f", such as those of {runs[0].name}" if runs[0] != root else ""
        place = _measured_at(runs[0])
        raise CheckpointError(
            f"{path} holds results, not checkpoints",
            help=f"look at them with `byrote show {runs[0]}`, or name the checkpoints{where}{f': {place}' if place else ''}",
        )


def _results_in(path: Path, *, deeper: bool = True) -> list[Path] | None:
    """The results folders that a folder holds; None where it holds another folder, but for one of results alone."""
    found: list[Path] = []
    for child in sorted(path.iterdir()):
        if child.is_dir():
            inside = [child] if is_results(child) else _results_in(child, deeper=False) if deeper else None
            if not inside:
                return None
            found += inside
    return found


def _measured_at(results: Path) -> str:
    """Where the checkpoints of results are; "" where they are not, or that is not recorded."""
    try:
        series = read_json(results / "run.json").get("series")
        place = Path(os.path.normpath(results.resolve() / series["path"]))
        return os.path.relpath(place) if place.exists() else ""
    except (OSError, FileRefused, ValueError, LookupError, TypeError):
        return ""


def _matches(pattern: str) -> list[Path]:
    found = sorted(Path(text) for text in glob.glob(pattern, recursive=True))  # noqa: PTH207
    matches = [p for p in found if p.is_dir()] or [p for p in found if parse_name(p.name)]
    if matches:
        return matches
    parts = Path(pattern).parts
    first = next(i for i, piece in enumerate(parts) if _GLOB & set(piece))
    fixed = Path(*parts[:first])
    if not fixed.is_dir():
        raise CheckpointError(f"{pattern} matches no folder", help=f"{fixed} does not exist")
    names = [child.name for child in fixed.iterdir() if child.is_dir()]
    wanted = "".join(c for c in parts[first] if c not in "*?[]")
    near = did_you_mean(wanted, names) if names else "it holds no folders"
    raise CheckpointError(f"{pattern} matches no folder in {fixed}", help=near)


def _unsplit(targets: list[_Target]) -> list[_Target]:
    """Steps in one folder, as a shell's glob spells them out, are one series again."""
    by_parent: dict[Path, list[Path]] = defaultdict(list)
    for target in targets:
        named = parse_name(target.path.name)
        if named and not named.bare and target.repo is None and target.part is None:
            by_parent[target.path.parent].append(target.path)
    steps = {parent: paths for parent, paths in by_parent.items() if len(paths) > 1}
    together: list[_Target] = []
    for target in targets:
        siblings = steps.get(target.path.parent, [])
        if target.path not in siblings:
            together.append(target)
        elif target.path == siblings[0]:
            together.append(_Target(target.path.parent, steps=tuple(siblings)))
    return together


def _series_at(target: _Target, on_broken: Broken | None, options: dict[str, Any]) -> list[CheckpointSeries]:
    single = target.repo is not None or target.steps or not target.path.is_dir() or format_at(target.path)
    if single or options.get("step_map") is not None or _epochs_at(target.path):
        return _every_part(target, options)
    children = sorted(p for p in target.path.iterdir() if p.is_dir() and not p.name.startswith("."))
    runs = [child for child in children if format_at(child)]
    if not runs:
        return [target.open(options)]  # says what the folder holds instead
    found: list[CheckpointSeries] = []
    for run in runs:
        try:
            found += _every_part(_Target(run), options)
        except CheckpointError as error:
            if on_broken is None:
                raise
            on_broken(run, error)
    return found


def _every_part(target: _Target, options: dict[str, Any]) -> list[CheckpointSeries]:
    try:
        return [target.open(options)]
    except MixedPartsError as mixed:
        if target.steps:
            steps = _by_part(target.steps)
            return [_in_part(_series_of_steps(steps[part], options), part) for part in mixed.parts]
        return [replace(target, part=part).open(options) for part in mixed.parts]


def _part_of_folder(path: Path, part: str, options: dict[str, Any]) -> CheckpointSeries:
    steps = _by_part(step_folders(path) if path.is_dir() else ())
    if part not in steps:
        parts = steps.keys() - {""}
        raise CheckpointError(
            f"{path} has no part {part!r}",
            help=did_you_mean(part, parts) if parts else "its steps name no stages",
        )
    return _in_part(_series_of_steps(steps[part], options | {"part": None}), part)


def _by_part(steps: Iterable[Path]) -> dict[str, list[Path]]:
    """Part -> the steps whose names say they belong to it."""
    parts: dict[str, list[Path]] = {}
    for step in steps:
        if named := parse_name(step.name):
            parts.setdefault(named.part, []).append(step)
    return parts


def _in_part(series: CheckpointSeries, part: str) -> CheckpointSeries:
    return replace(series, name=f"{series.name}-{part}") if part else series


def _refuse_map_of_several(targets: Sequence[_Target], options: Mapping[str, Any]) -> None:
    if options.get("step_map") is not None and (len(targets) != 1 or targets[0].repo is not None):
        raise CheckpointError(
            "a step map belongs to one folder of checkpoints", help="name that folder, and no other"
        )


def _alone(place: Path, options: dict[str, Any], step: int | None) -> tuple[Checkpoint | Gap, bool]:
    """The one checkpoint at a place, or why there is none; and whether something in it says its step.

    Raises:
        CheckpointError: it is a series of its own.
    """
    try:
        alone = discover(place, **options)
    except NothingReadableError as error:
        return Gap(place, error.gap.reason, error.gap.help, step), False
    except CheckpointError as error:
        return Gap(place, error.message, error.help, step), False
    if len(alone) > 1:
        raise CheckpointError(
            f"{place} is a series of its own, of {len(alone)} checkpoints",
            help="open one series at a time, or several with open_runs",
        )
    return alone[0], STEP_UNKNOWN not in alone.notes


def _series_of_map(folder: Path, places: Mapping[Path, int], options: dict[str, Any]) -> CheckpointSeries:
    """What a step map names, beside the steps that the folder names itself."""
    own: tuple[Checkpoint | Gap, ...] = ()
    notes: tuple[str, ...] = ()
    format = ""
    try:
        series = discover(folder, **options)
        one_model = len(series) == 1 and series[0].path == folder
        own = () if one_model else (*series.checkpoints, *series.gaps)
        notes, format = () if one_model else series.notes, series.format
    except CheckpointError:
        pass  # nothing in it is named by step: the map is all there is
    found: list[Checkpoint | Gap] = [
        one for one in own if not any(place in (one.path, *one.path.parents) for place in places)
    ]
    for place, step in places.items():
        one, _ = _alone(place, options, step)
        found.append(replace(one, step=step))
    series = series_of(folder, format, found, notes=notes)
    formats = {checkpoint.format for checkpoint in series}
    if len(formats) != 1:
        gap = series.gaps[0] if series.gaps else None
        why = f"of {len(formats)} formats ({', '.join(sorted(formats))})" if formats else "none can be read"
        raise CheckpointError(
            f"the checkpoints that the step map names in {folder}: {why}"
            + (f": {gap.reason}" if gap else ""),
            help=gap.help if gap else "a series is one model in training",
        )
    return replace(series, format=formats.pop())


def _epochs_at(folder: Path) -> dict[Path, int]:
    """Models in folders called by their epochs, where none is called by its step."""
    if not _is_folder(folder):
        return {}
    return {place: epoch for place, epoch in epochs_of(folder).items() if format_at(place) is not None}


def _series_of_epochs(folder: Path, epochs: Mapping[Path, int], options: dict[str, Any]) -> CheckpointSeries:
    """Models by epoch: at their steps where every one of them says it, else at their epochs, with a note."""
    read = {place: _alone(place, options, epoch) for place, epoch in epochs.items()}
    known = all(says for one, says in read.values() if isinstance(one, Checkpoint))
    found = [
        one if known and isinstance(one, Checkpoint) else replace(one, step=epochs[place])
        for place, (one, _) in read.items()
    ]
    readable = [one for one in found if isinstance(one, Checkpoint)]
    if not readable:
        gap = next(one for one in found if isinstance(one, Gap))
        raise CheckpointError(
            f"none of the {len(found)} checkpoint folders in {folder} can be read: {gap.path.name}: {gap.reason}",
            help=gap.help,
        )
    note = f"the folders are named by epochs, which are used as steps here; {OPTION} gives the steps"
    series = series_of(folder, readable[0].format, found, notes=() if known else (note,))
    return _with_last_models(series, options, known=known)


def _has_steps(path: Path) -> bool:
    """Whether a path is a folder with folders named by steps."""
    return _is_folder(path) and bool(step_folders(path))


def _with_last_models(
    series: CheckpointSeries, options: dict[str, Any], *, known: bool = True
) -> CheckpointSeries:
    """A series with the models called final, best and the like whose step is known, and notes on the others.

    Args:
        series: of folders.
        options: of `open_series`.
        known: whether the series is along steps.
    """
    notes, found = [*series.notes, *unfinished(series.path)], list(series.checkpoints)
    for place in last_models(series.path):
        if format_at(place) is None or any(place in (one.path, *one.path.parents) for one in found):
            continue
        one, says = _alone(place, options, None)
        if isinstance(one, Gap):
            notes.append(f"{place.name} was left out: {one.reason}")
        elif not (says and known):
            notes.append(f"{place.name} was left out: its step is unknown; give it with {OPTION}")
        elif one.step in series.steps or one.format != series.format:
            why = "again" if one.step in series.steps else f"in another format ({one.format})"
            notes.append(f"{place.name} is step {one.step} {why} and was left out")
        else:
            found.append(one)
    return replace(series, checkpoints=tuple(sorted(found)), notes=tuple(notes))


def _series_of_steps(paths: Sequence[Path], options: dict[str, Any]) -> CheckpointSeries:
    """One series from the folders of its steps; those that cannot be read become gaps."""
    refuse_mixed_parts((path.name for path in paths), where="the list")
    parent = Path(os.path.commonpath([path.parent for path in paths]))
    found: list[Checkpoint | Gap] = []
    notes: list[str] = []
    for path in paths:
        named = parse_name(path.name)
        try:
            alone = discover(path, **options)
        except CheckpointError as error:
            found.append(Gap(path, error.message, error.help, named.step if named else None))
            continue
        if len(alone) > 1:
            raise CheckpointError(
                f"{path} is a series of its own, of {len(alone)} checkpoints",
                help="open one series at a time, or several with open_runs",
            )
        if named is None and STEP_UNKNOWN in alone.notes:
            notes.append(f"{path.name} was left out: its training step is unknown")
            continue
        found += alone.checkpoints
    series = series_of(parent, "", found, notes=notes)
    families = sorted({checkpoint.format for checkpoint in series})
    if len(families) > 1:
        raise CheckpointError(
            f"the steps named in {parent} are of {len(families)} formats ({', '.join(families)})",
            help="a series is one model in training; name the steps of one format",
        )
    if not families:
        gap = series.gaps[0] if series.gaps else None
        raise CheckpointError(
            f"none of the steps named in {parent} can be read"
            + (f": {gap.path.name}: {gap.reason}" if gap else ""),
            help=gap.help if gap else "name folders that hold one checkpoint each",
        )
    return replace(series, format=families[0])


def _uniquely_named(found: list[CheckpointSeries]) -> list[CheckpointSeries]:
    """Results are stored under a series' name: where two share one, the folder above is put before it, then a number."""
    uses = Counter(series.name for series in found)
    found = [
        replace(s, name=text_of(f"{s.path.resolve().parent.name}-{s.name}")) if uses[s.name] > 1 else s
        for s in found
    ]
    uses, count = Counter(series.name for series in found), Counter[str]()
    named = []
    for series in found:
        count[series.name] += 1
        number = f"-{count[series.name]}" if uses[series.name] > 1 else ""
        named.append(replace(series, name=f"{series.name}{number}"))
    return named


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name no file system takes
        return False


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # a name no file system takes
        return False
