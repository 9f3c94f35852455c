"""Is a results folder still what the sweep wrote? Facts in words; nothing is written and nothing is measured. No torch.

1. run.json: readable, and of one story with the units (name, model, settings, stimuli, steps, gaps, status)
2. every unit: readable, of its step and run, one set of weights per step, named after the probes it holds
3. observations.parquet: made again from the units in memory and compared number by number
4. arrays: readable, as large as the model and the texts say, of the same weights as the units
5. the checkpoints, where they still lie where they were: size and time of every file; where these changed the weights
   are hashed again, up to `MAX_HASHED_BYTES` each
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool
from safetensors import SafetensorError, safe_open

from byrote.checkpoints.atomic import leftovers
from byrote.checkpoints.errors import ByroteError, CheckpointError
from byrote.checkpoints.fingerprint import fingerprint, model_hashes
from byrote.checkpoints.opening import open_series
from byrote.interp.axes import head_label
from byrote.probes.attention import stored_metadata, texts_in
from byrote.probes.registry import REGISTRY
from byrote.probes.results import Results
from byrote.probes.results.derived import observations_of
from byrote.probes.results.schema import OBSERVATION_SCHEMA, UNIT_SCHEMA, in_order
from byrote.probes.results.units import step_folder, unit_paths, unit_provenance
from byrote.probes.sweep.plan import unit_name
from byrote.probes.sweep.prefetch import FingerprintCache
from byrote.probes.wording import counted

MAX_HASHED_BYTES = 500_000_000
N_PLACES = 3  # of a finding that are named
_SETTINGS = ("dtype", "device", "seed", "weight_processing", "intervals", "versions")
_DAMAGE = (ByroteError, OSError, SafetensorError, LookupError, ValueError)
_STALE = "observations.parquet is not what the units give; delete it, it is made again from them"
_END = struct.Struct("<I4s")  # length of the parquet footer, and the mark that ends the file

Findings = Iterator[tuple[str, str]]  # what, and the place it is true of; "" for the whole folder


@dataclass(frozen=True)
class Verified:
    """What was looked at and what was found.

    Attributes:
        findings: one line each; empty where everything agrees.
        checked: one line per kind of thing looked at, with how many of them, or why it was not.
    """

    findings: tuple[str, ...]
    checked: tuple[str, ...]


@dataclass
class _Folder:
    """A results folder and what the walk through it has seen.

    Attributes:
        root: the folder.
        meta: run.json, {} where it cannot be read.
        weights: step -> fingerprint that its units name.
        steps: that hold units.
        checked: what was looked at, in words.
    """

    root: Path
    meta: Mapping[str, Any] = field(default_factory=dict)
    weights: dict[int, str] = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Unit:
    """One unit.

    Attributes:
        file: where it is.
        said: its provenance.
        table: its rows.
    """

    file: Path
    said: Mapping[str, Any]
    table: pa.Table

    @property
    def probes(self) -> Mapping[str, Any]:
        """Name -> version of the probes it says it holds."""
        return _mapping(self.said.get("probes"))

    def unique(self, column: str) -> set[Any]:
        """Different values of a column."""
        return set(pc.unique(self.table[column]).to_pylist())


def verify(path: str | Path) -> Verified:
    """Look for damage and disagreement in a results folder.

    Args:
        path: the folder. No sweep should be writing there meanwhile.

    Raises:
        ByroteError: it is no folder.
    """
    folder = _Folder(Path(path))
    if not folder.root.is_dir():
        raise ByroteError(f"{folder.root} is not a folder", help="name a results folder, such as results/run")
    found: dict[str, list[str]] = {}  # the same fact in a hundred places is one line
    for check in (_run_json, _units, _steps, _attention, _texts, _checkpoints, _leftovers):
        for what, where in check(folder):
            found.setdefault(what, []).extend([where] if where else [])
    return Verified(tuple(what + _places(where) for what, where in found.items()), tuple(folder.checked))


def digest(path: str | Path) -> str:
    """SHA-256 over the names and footers of the units: what was measured, under which settings, on which weights.

    A footer holds the unit's provenance, its number of rows and the range of every column. Copies have the same digest,
    and it changes when a unit changes, is added or is removed; of run.json and observations.parquet it says nothing.
    """
    total = hashlib.sha256()
    for file in unit_paths(Path(path)):
        try:
            stat = file.stat()
            footer = _footer_hash(file, stat.st_mtime_ns, stat.st_size)
        except OSError:
            footer = b"unreadable"
        total.update(f"{file.parent.name}/{file.name}\0".encode() + footer)
    return total.hexdigest()


@lru_cache(maxsize=32_768)
def _footer_hash(file: Path, changed: int, size: int) -> bytes:
    """Of the file's end alone; `changed` makes a file that was replaced another key. The whole file where it is no parquet."""
    with file.open("rb") as held:
        held.seek(max(0, size - _END.size))
        end = held.read()
        length, mark = _END.unpack(end) if len(end) == _END.size else (size, b"")
        held.seek(max(0, size - _END.size - length) if mark == b"PAR1" else 0)
        return hashlib.sha256(held.read()).digest()


def _run_json(folder: _Folder) -> Findings:
    try:
        folder.meta = Results.open(folder.root, write=False).meta
    except ByroteError as error:
        yield f"{error.message}; {error.help}", ""
        return
    folder.checked.append("run.json")
    if folder.meta.get("run") != folder.root.name:
        run = folder.meta.get("run")
        yield f"run.json calls the run {run!r}, its folder is called {folder.root.name!r}", ""


def _units(folder: _Folder) -> Findings:
    """The units of every step, and the rows of observations.parquet against those they give."""
    observations = yield from _observations(folder)
    n_files = 0
    for place in sorted((folder.root / "units").glob("*")):
        number = place.name.removeprefix("step_")
        if not (place.is_dir() and number.isdigit() and step_folder(folder.root, int(number)) == place):
            yield "units holds what is no step", place.name
        elif files := sorted(place.glob("*.parquet")):
            step = int(number)
            folder.steps.append(step)
            n_files += len(files)
            units = yield from _step(folder, step, files)
            if len(units) == len(files):
                yield from _derived(observations, [unit.table for unit in units], step)
    folder.checked.append(f"{counted(n_files, 'unit')} of {counted(len(folder.steps), 'step')}")
    if observations is not None:
        rows = f"{observations.num_rows:,} rows of observations.parquet"
        folder.checked.append(f"{rows}, made again from the units")
        for step in sorted(set(pc.unique(observations["step"]).to_pylist()) - set(folder.steps)):
            yield _STALE, f"step {step:,}, no units"


def _step(folder: _Folder, step: int, files: Sequence[Path]) -> Generator[tuple[str, str], None, list[_Unit]]:
    """Check the units of a step, each by itself and against each other; returns those that can be read."""
    units, said_of = [], {file: unit_provenance(file) for file in files}
    for file, said in said_of.items():
        try:
            if pq.read_schema(file).names != UNIT_SCHEMA.names:
                yield "units have other columns than this byrote writes", _where(file)
            unit = _Unit(file, said, pq.read_table(file, schema=UNIT_SCHEMA))
        except (OSError, pa.ArrowException):
            yield "units cannot be read; the same sweep again measures them anew", _where(file)
            continue
        if unit.unique("step") - {step}:
            yield "units hold rows of another step", _where(file)
        for check in _UNIT_CHECKS:
            yield from ((what, _where(file)) for what in check(unit, folder.meta))
        units.append(unit)
    weights = {str(said["fingerprint"]) for said in said_of.values() if said.get("fingerprint")}
    if len(weights) > 1:
        yield "units of one step are of different weights", f"step {step:,}"
    elif weights:
        folder.weights[step] = weights.pop()
    seen: set[tuple[str, str]] = set()
    for file, said in said_of.items():
        mine = {(file.name.split(".")[0], name) for name in _mapping(said.get("probes"))}
        if mine & seen:
            yield "two units hold the same probe", _where(file)
        seen |= mine
    return units


def _of_its_run(unit: _Unit, meta: Mapping[str, Any]) -> Iterator[str]:
    if meta and unit.unique("run") - {meta.get("run")}:
        yield f"units hold rows of another run than run.json's {meta.get('run')!r}"


def _within_the_model(unit: _Unit, meta: Mapping[str, Any]) -> Iterator[str]:
    model = _mapping(meta.get("model"))
    for axis, name in (("layer", "n_layers"), ("head", "n_heads")):
        highest, there = pc.max(unit.table[axis]).as_py(), model.get(name)
        if isinstance(there, int) and highest is not None and highest >= there:
            yield f"units hold {axis} {highest}, run.json's model has {name} = {there}"


def _of_its_weights(unit: _Unit, meta: Mapping[str, Any]) -> Iterator[str]:
    if not unit.said.get("fingerprint"):
        yield "units do not say of which weights they are"


def _of_its_probes(unit: _Unit, meta: Mapping[str, Any]) -> Iterator[str]:
    """Its name, its rows, and the versions of this byrote's catalogue."""
    known = {name: version for name, version in unit.probes.items() if name in REGISTRY}
    if known and len(known) == len(unit.probes):
        infos = [replace(REGISTRY[name], version=version) for name, version in known.items()]
        if unit_name(unit.file.name.split(".")[0], infos) != unit.file.name:
            yield "units are not named after the probes they say they hold"
    if unit.probes and unit.unique("probe") - set(unit.probes):
        yield "units hold probes they do not name"
    for name, version in known.items():
        if (now := REGISTRY[name].version) != version:
            yield f"{name} was measured by its version {_short(version)}, this byrote has {now}"


def _of_its_settings(unit: _Unit, meta: Mapping[str, Any]) -> Iterator[str]:
    """What run.json says of all units, against what this one says of itself."""
    said, of_run = unit.said, _mapping(meta.get("provenance"))
    for name in _SETTINGS:
        if name in said and name in of_run:
            there = str(of_run[name]).split(":")[0] if name == "device" else of_run[name]
            if said[name] != there:
                yield f"run.json says {name} {_short(there)}, units say {_short(said[name])}"
    listed = meta.get("stimuli")
    stimuli = [_mapping(one) for one in listed] if isinstance(listed, list) else []
    drawn = {str(one.get("kind")): str(one.get("id")) for one in stimuli}
    for shown in str(said.get("stimulus", "")).split():
        kind = shown.split("-")[0]
        if drawn.get(kind, shown) != shown:
            yield f"run.json says {kind} was {_short(drawn[kind])}, units say {_short(shown)}"


_UNIT_CHECKS = (_of_its_run, _within_the_model, _of_its_weights, _of_its_probes, _of_its_settings)


def _observations(folder: _Folder) -> Generator[tuple[str, str], None, pa.Table | None]:
    """Returns observations.parquet; None where it is not there or cannot be read."""
    file = folder.root / "observations.parquet"
    if not file.is_file():
        folder.checked.append("no observations.parquet yet: it is made when the results are next read")
        return None
    try:
        return pq.read_table(file, schema=OBSERVATION_SCHEMA)
    except (OSError, pa.ArrowException) as error:
        said = _first_line(error)
        yield f"observations.parquet cannot be read ({said}); delete it, it is made again", ""
        return None


def _derived(observations: pa.Table | None, units: Sequence[pa.Table], step: int) -> Findings:
    """The rows of a step against those its units give."""
    try:
        derived = in_order(observations_of(pa.concat_tables(units)))
    except (ByroteError, LookupError, ValueError, TypeError, pa.ArrowException) as error:
        yield f"verdicts cannot be derived ({_first_line(error)})", f"step {step:,}"
        return
    if observations is None:
        return
    held = observations.filter(pc.equal(observations["step"], step))
    if held.num_rows != derived.num_rows:
        said = f"{derived.num_rows:,} rows in the units, {held.num_rows:,} in the file"
        yield _STALE, f"step {step:,}, {said}"
    elif (differ := _differing(held, derived)).any():
        row = derived.slice(int(np.flatnonzero(differ)[0]), 1).to_pylist()[0]
        of_head = row["layer"] is not None and row["head"] is not None
        head = f" {head_label(row['layer'], row['head'])}" if of_head else ""
        first = f"{row['probe']}/{row['metric']}{head}"
        said = f"{int(differ.sum()):,} of {len(differ):,} rows, the first {first}"
        yield _STALE, f"step {step:,}, {said}"


def _differing(a: pa.Table, b: pa.Table) -> Bool[np.ndarray, " row"]:
    """Where two tables of as many rows differ in any column; two values that are not there are alike."""
    differ = np.zeros(a.num_rows, dtype=bool)
    for name in OBSERVATION_SCHEMA.names:
        x, y = a[name].to_pandas(), b[name].to_pandas()
        differ |= ~((x == y) | (x.isna() & y.isna())).to_numpy()
    return differ


def _steps(folder: _Folder) -> Findings:
    """Every checkpoint of the series holds units or is a gap, and the status says so."""
    meta = folder.meta
    if not meta:
        return
    listed, gaps = _mapping(meta.get("series")).get("steps"), meta.get("gaps") or []
    known = {step for step in listed if isinstance(step, int)} if isinstance(listed, list) else set()
    silent = known - set(folder.steps) - {_mapping(gap).get("step") for gap in gaps}
    if silent and meta.get("status") == "interrupted":
        left = counted(len(silent), "checkpoint")
        folder.checked.append(f"{left} not measured yet: the sweep was interrupted")
    elif silent:
        for step in sorted(silent):
            yield "checkpoints that hold no units and are no gaps", f"step {step:,}"
    for step in sorted(set(folder.steps) - known):
        yield (
            "units of steps that run.json does not list; it tells of the last sweep asked for",
            f"step {step:,}",
        )
    wanted = {"complete": False, "partial": True}.get(str(meta.get("status")))
    if wanted is not None and wanted != bool(gaps):
        yield f"run.json says {meta.get('status')} and lists {counted(len(gaps), 'gap')}", ""
    steps, n_gaps = counted(len(known), "step"), counted(len(gaps), "gap")
    folder.checked.append(f"{steps} and {n_gaps} that run.json lists")


def _attention(folder: _Folder) -> Findings:
    """Stored attention against the model, the texts and the weights it is of; all of it is read."""
    files = sorted((folder.root / "arrays").glob("step_*/*.safetensors"))
    for file in files:
        number = file.parent.name.removeprefix("step_")
        weights = folder.weights.get(int(number)) if number.isdigit() else None
        if not number.isdigit() or int(number) not in folder.weights:
            yield "attention is kept of steps without units", _where(file)
        try:
            fits = _fits(file, _mapping(folder.meta.get("model")))
        except _DAMAGE:
            yield (
                "kept attention cannot be read; delete it, and run again with --save-attention",
                _where(file),
            )
            continue
        if not fits:
            yield "kept attention has another size than its texts and the model", _where(file)
        held = stored_metadata(file).get("fingerprint")
        if weights and held and weights != held:
            yield "kept attention is of other weights than the units", _where(file)
    if files:
        folder.checked.append(f"attention kept of {counted(len(files), 'step')}")


def _fits(file: Path, model: Mapping[str, Any]) -> bool:
    """Whether every pattern is as large as the model has heads and its text has tokens."""
    texts = texts_in(file)
    with safe_open(file, framework="numpy") as held:
        shapes = {
            kind: held.get_tensor(f"{kind}/pattern").shape for kind in {text.stimulus for text in texts}
        }
    for text in texts:
        n, layers, heads, *square = shapes[text.stimulus]
        wanted = (model.get("n_layers", layers), model.get("n_heads", heads))
        if (layers, heads) != wanted or square != [len(text.tokens)] * 2 or n <= text.index:
            return False
    return True


def _texts(folder: _Folder) -> Findings:
    for file in sorted((folder.root / "stimuli").glob("*.safetensors")):
        try:
            with safe_open(file, framework="numpy") as held:
                held.get_tensor("tokens")
        except _DAMAGE:
            yield "the text that was shown cannot be read; give --text again", file.name
        else:
            folder.checked.append(f"the text that was shown, {file.name}")


def _checkpoints(folder: _Folder) -> Findings:
    """By size and time of the files; by content, the costly way, only where these changed."""
    path = str(_mapping(folder.meta.get("series")).get("path") or "")
    if not path or not Path(path).exists():
        folder.checked.append("the checkpoints are not where they were: not compared")
        return
    try:
        now = {checkpoint.step: checkpoint for checkpoint in open_series(path)}
    except CheckpointError as error:
        yield f"the checkpoints cannot be opened: {error.message}", ""
        return
    cache = FingerprintCache(folder.root / "fingerprints.json")
    hashed = unknown = 0
    for step, measured in folder.weights.items():
        if step not in now:
            yield "checkpoints are no longer there", f"step {step:,}"
            continue
        try:
            hashes = cache.of(now[step])
            if hashes is None and now[step].size_bytes > MAX_HASHED_BYTES:
                unknown += 1
                continue
            if hashes is None:
                hashes, hashed = model_hashes(now[step]), hashed + 1
        except (CheckpointError, OSError):
            yield "checkpoints can no longer be read", f"step {step:,}"
            continue
        if fingerprint(hashes) != measured:
            yield "checkpoints have other weights than those that were measured", f"step {step:,}"
    said = f"{counted(len(folder.weights.keys() & now.keys()), 'checkpoint')} by size and time of their files"
    said += f", {hashed:,} of them by content because these had changed" if hashed else ""
    said += f"; {unknown:,} of them changed in size or time and too large to hash here" if unknown else ""
    folder.checked.append(said)


def _leftovers(folder: _Folder) -> Findings:
    if left := len(leftovers(folder.root)):
        yield (
            f"{counted(left, 'temporary file')} of a sweep that was killed; the next sweep takes them away",
            "",
        )


def _where(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"


def _places(where: list[str]) -> str:
    """`` (12): step_00000010/natural.parquet; ... and 9 more``."""
    if len(where) < 2:
        return f": {where[0]}" if where else ""
    more = f" and {len(where) - N_PLACES:,} more" if len(where) > N_PLACES else ""
    return f" ({len(where):,}): {'; '.join(where[:N_PLACES])}{more}"


def _mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is an object, else an empty one: files may say anything."""
    return value if isinstance(value, Mapping) else {}


def _short(value: Any) -> str:
    """A value in one line of at most 80 characters."""
    text = (
        value
        if isinstance(value, str)
        else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    )
    return text if len(text) <= 80 else f"{text[:40]}…{text[-36:]}"


def _first_line(error: Exception) -> str:
    """What an error says first."""
    return _short((str(error) or type(error).__name__).splitlines()[0])
