"""Verify a results folder against what the sweep wrote; nothing is written and nothing is measured. No torch.

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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from byrote.checkpoints.atomic import leftovers
from byrote.checkpoints.errors import ByroteError, CheckpointError
from byrote.checkpoints.fingerprint import fingerprint, model_hashes
from byrote.checkpoints.opening import open_series
from byrote.interp.axes import head_label
from byrote.probes.attention import stored_metadata, stored_texts
from byrote.probes.registry import REGISTRY
from byrote.probes.results import Results
from byrote.probes.results.derived import observations_of
from byrote.probes.results.schema import OBSERVATION_SCHEMA, UNIT_SCHEMA, in_order
from byrote.probes.results.unit_files import step_folder, unit_paths, unit_provenance
from byrote.probes.sweep.prefetch import Fingerprints
from byrote.probes.sweep.units import unit_name
from byrote.probes.wording import counted

MAX_HASHED_BYTES = 500_000_000
N_PLACES = 3  # of a finding that are named
_SETTINGS = ("dtype", "device", "seed", "weight_processing", "intervals", "versions")
_DAMAGE = (ByroteError, OSError, SafetensorError, LookupError, ValueError)
_STALE = "observations.parquet is not what the units give; delete it, it is made again from them"
_END = struct.Struct("<I4s")  # length of the parquet footer, and the mark that ends the file


@dataclass(frozen=True)
class Verified:
    """What was looked at and what was found.

    Attributes:
        findings: one line each; empty where everything agrees.
        checked: one line per kind of thing looked at, with how many of them, or why it was not.
    """

    findings: tuple[str, ...]
    checked: tuple[str, ...]


def verify(path: str | Path) -> Verified:
    """Look for damage and disagreement in a results folder.

    Args:
        path: the folder. No sweep should be writing there meanwhile.

    Raises:
        ByroteError: it is no folder.
    """
    root = Path(path)
    if not root.is_dir():
        raise ByroteError(f"{root} is not a folder", help="name a results folder, such as results/run")
    return _Walk(root).all()


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
    with file.open("rb") as data:
        data.seek(max(0, size - _END.size))
        end = data.read()
        length, mark = _END.unpack(end) if len(end) == _END.size else (size, b"")
        data.seek(max(0, size - _END.size - length) if mark == b"PAR1" else 0)
        return hashlib.sha256(data.read()).digest()


class _Walk:
    """A walk through a results folder: what it has seen, found and checked.

    `meta` is run.json, {} where it cannot be read; `weights` the fingerprint that the units of each step name; `steps`
    those that hold units.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.meta: Mapping[str, Any] = {}
        self.weights: dict[int, str] = {}
        self.steps: list[int] = []
        self.checked: list[str] = []
        self._found: dict[str, list[str]] = {}  # the same fact in a hundred places is one line

    def all(self) -> Verified:
        for look in (
            self._run_json,
            self._units,
            self._steps,
            self._attention,
            self._texts,
            self._checkpoints,
        ):
            look()
        if left := len(leftovers(self.root)):
            self._find(
                f"{counted(left, 'temporary file')} of a sweep that was killed; the next sweep takes them away"
            )
        findings = tuple(what + _places(where) for what, where in self._found.items())
        return Verified(findings, tuple(self.checked))

    def _find(self, what: str, where: str | Path = "") -> None:
        """Something that is not as it should be, and the place it is true of; "" for the whole folder."""
        place = f"{where.parent.name}/{where.name}" if isinstance(where, Path) else where
        self._found.setdefault(what, []).extend([place] if place else [])

    def _run_json(self) -> None:
        try:
            self.meta = Results.open(self.root, write=False).meta
        except ByroteError as error:
            self._find(f"{error.message}; {error.help}")
            return
        self.checked.append("run.json")
        if (run := self.meta.get("run")) != self.root.name:
            self._find(f"run.json calls the run {run!r}, its folder is called {self.root.name!r}")

    def _units(self) -> None:
        """The units of every step, and the rows of observations.parquet against those they give."""
        observations = self._observations()
        n_files = 0
        for place in sorted((self.root / "units").glob("*")):
            number = place.name.removeprefix("step_")
            if not (place.is_dir() and number.isdigit() and step_folder(self.root, int(number)) == place):
                self._find("units holds what is no step", place.name)
            elif files := sorted(place.glob("*.parquet")):
                step = int(number)
                self.steps.append(step)
                n_files += len(files)
                tables = self._tables(step, files)
                if len(tables) == len(files):
                    self._derived(observations, tables, step)
        self.checked.append(f"{counted(n_files, 'unit')} of {counted(len(self.steps), 'step')}")
        if observations is not None:
            rows = f"{observations.num_rows:,} rows of observations.parquet"
            self.checked.append(f"{rows}, made again from the units")
            for step in sorted(_unique(observations, "step") - set(self.steps)):
                self._find(_STALE, f"step {step:,}, no units")

    def _tables(self, step: int, files: Sequence[Path]) -> list[pa.Table]:
        """Check the units of a step, each by itself and against each other; returns those that can be read."""
        tables, weights = [], set()
        seen: set[tuple[str, str]] = set()
        for file in files:
            provenance = unit_provenance(file)
            weights |= {str(provenance["fingerprint"])} if provenance.get("fingerprint") else set()
            own = {(file.name.split(".")[0], name) for name in _mapping(provenance.get("probes"))}
            if own & seen:
                self._find("two units hold the same probe", file)
            seen |= own
            try:
                if pq.read_schema(file).names != UNIT_SCHEMA.names:
                    self._find("units have other columns than this byrote writes", file)
                table = pq.read_table(file, schema=UNIT_SCHEMA)
            except (OSError, pa.ArrowException):
                self._find("units cannot be read; the same sweep again measures them anew", file)
                continue
            if _unique(table, "step") - {step}:
                self._find("units hold rows of another step", file)
            for problem in _unit_problems(file, table, provenance, self.meta):
                self._find(problem, file)
            tables.append(table)
        if len(weights) > 1:
            self._find("units of one step are of different weights", f"step {step:,}")
        elif weights:
            self.weights[step] = weights.pop()
        return tables

    def _observations(self) -> pa.Table | None:
        """observations.parquet; None where it is not there or cannot be read."""
        file = self.root / "observations.parquet"
        if not file.is_file():
            self.checked.append("no observations.parquet yet: it is made when the results are next read")
            return None
        try:
            return pq.read_table(file, schema=OBSERVATION_SCHEMA)
        except (OSError, pa.ArrowException) as error:
            self._find(
                f"observations.parquet cannot be read ({_first_line(error)}); delete it, it is made again"
            )
            return None

    def _derived(self, observations: pa.Table | None, units: Sequence[pa.Table], step: int) -> None:
        """The rows of a step against those its units give."""
        try:
            derived = in_order(observations_of(pa.concat_tables(units)))
        except (ByroteError, LookupError, ValueError, TypeError, pa.ArrowException) as error:
            self._find(f"verdicts cannot be derived ({_first_line(error)})", f"step {step:,}")
            return
        if observations is None:
            return
        stored = observations.filter(pc.equal(observations["step"], step))
        if stored.num_rows != derived.num_rows:
            rows = f"{derived.num_rows:,} rows in the units, {stored.num_rows:,} in the file"
            self._find(_STALE, f"step {step:,}, {rows}")
            return
        a, b = (table.select(OBSERVATION_SCHEMA.names).to_pandas() for table in (stored, derived))
        differ = ~((a == b) | (a.isna() & b.isna())).to_numpy().all(1)
        if differ.any():
            row = derived.slice(int(differ.argmax()), 1).to_pylist()[0]
            of_head = row["layer"] is not None and row["head"] is not None
            head = f" {head_label(row['layer'], row['head'])}" if of_head else ""
            rows = f"{int(differ.sum()):,} of {len(differ):,} rows"
            self._find(_STALE, f"step {step:,}, {rows}, the first {row['probe']}/{row['metric']}{head}")

    def _steps(self) -> None:
        """Every checkpoint of the series holds units or is a gap, and the status says so."""
        meta = self.meta
        if not meta:
            return
        listed, gaps = _mapping(meta.get("series")).get("steps"), meta.get("gaps") or []
        known = {step for step in listed if isinstance(step, int)} if isinstance(listed, list) else set()
        unmeasured = known - set(self.steps) - {_mapping(gap).get("step") for gap in gaps}
        if unmeasured and meta.get("status") == "interrupted":
            left = counted(len(unmeasured), "checkpoint")
            self.checked.append(f"{left} not measured yet: the sweep was interrupted")
            unmeasured = set()
        unlisted = set(self.steps) - known
        for what, steps in (
            ("checkpoints that have no units and are no gaps", unmeasured),
            ("units of steps that run.json does not list; it describes the last sweep requested", unlisted),
        ):
            for step in sorted(steps):
                self._find(what, f"step {step:,}")
        wanted = {"complete": False, "partial": True}.get(str(meta.get("status")))
        if wanted is not None and wanted != bool(gaps):
            self._find(f"run.json says {meta.get('status')} and lists {counted(len(gaps), 'gap')}")
        n_steps, n_gaps = counted(len(known), "step"), counted(len(gaps), "gap")
        self.checked.append(f"{n_steps} and {n_gaps} that run.json lists")

    def _attention(self) -> None:
        """Stored attention against the model, the texts and the weights it is of; all of it is read."""
        files = sorted((self.root / "arrays").glob("step_*/*.safetensors"))
        for file in files:
            number = file.parent.name.removeprefix("step_")
            weights = self.weights.get(int(number)) if number.isdigit() else None
            if weights is None:
                self._find("attention is saved of steps without units", file)
            try:
                fits = _fits(file, _mapping(self.meta.get("model")))
            except _DAMAGE:
                self._find(
                    "saved attention cannot be read; delete it, and run again with --save-attention", file
                )
                continue
            if not fits:
                self._find("saved attention has another size than its texts and the model", file)
            of = stored_metadata(file).get("fingerprint")
            if weights and of and weights != of:
                self._find("saved attention is of other weights than the units", file)
        if files:
            self.checked.append(f"attention saved of {counted(len(files), 'step')}")

    def _texts(self) -> None:
        for file in sorted((self.root / "stimuli").glob("*.safetensors")):
            try:
                with safe_open(file, framework="numpy") as stored:
                    stored.get_tensor("tokens")
            except _DAMAGE:
                self._find("the text that was shown cannot be read; give --text again", file.name)
            else:
                self.checked.append(f"the text that was shown, {file.name}")

    def _checkpoints(self) -> None:
        """By size and time of the files; by content, the costly way, only where these changed."""
        path = str(_mapping(self.meta.get("series")).get("path") or "")
        if not path or not Path(path).exists():
            self.checked.append("the checkpoints are not where they were: not compared")
            return
        try:
            now = {checkpoint.step: checkpoint for checkpoint in open_series(path)}
        except CheckpointError as error:
            self._find(f"the checkpoints cannot be opened: {error.message}")
            return
        cache = Fingerprints(self.root / "fingerprints.json")
        hashed = unknown = 0
        for step, measured in self.weights.items():
            if step not in now:
                self._find("checkpoints are no longer there", f"step {step:,}")
                continue
            try:
                hashes = cache.hashes(now[step])
                if hashes is None and now[step].size_bytes > MAX_HASHED_BYTES:
                    unknown += 1
                    continue
                if hashes is None:
                    hashes, hashed = model_hashes(now[step]), hashed + 1
            except (CheckpointError, OSError):
                self._find("checkpoints can no longer be read", f"step {step:,}")
                continue
            if fingerprint(hashes) != measured:
                self._find("checkpoints have other weights than those that were measured", f"step {step:,}")
        said = (
            f"{counted(len(self.weights.keys() & now.keys()), 'checkpoint')} by size and time of their files"
        )
        said += f", {hashed:,} of them by content because these had changed" if hashed else ""
        said += f"; {unknown:,} of them changed in size or time and too large to hash here" if unknown else ""
        self.checked.append(said)


def _unit_problems(
    file: Path, table: pa.Table, provenance: Mapping[str, Any], meta: Mapping[str, Any]
) -> Iterator[str]:
    """What a unit's rows, its name and what it says of itself disagree about with each other and with run.json."""
    if meta and _unique(table, "run") - {meta.get("run")}:
        yield f"units hold rows of another run than run.json's {meta.get('run')!r}"
    model = _mapping(meta.get("model"))
    for axis, size in (("layer", "n_layers"), ("head", "n_heads")):
        highest, there = pc.max(table[axis]).as_py(), model.get(size)
        if isinstance(there, int) and highest is not None and highest >= there:
            yield f"units hold {axis} {highest}, run.json's model has {size} = {there}"
    if not provenance.get("fingerprint"):
        yield "units do not say of which weights they are"
    probes = _mapping(provenance.get("probes"))
    known = {name: version for name, version in probes.items() if name in REGISTRY}
    if known and len(known) == len(probes) and unit_name(file.name.split(".")[0], known) != file.name:
        yield "units are not named after the probes they say they hold"
    if probes and _unique(table, "probe") - set(probes):
        yield "units hold probes they do not name"
    for name, version in known.items():
        if (now := REGISTRY[name].version) != version:
            yield f"{name} was measured by its version {_short(version)}, this byrote has {now}"
    of_run = _mapping(meta.get("provenance"))
    for name in _SETTINGS:
        if name in provenance and name in of_run:
            there = str(of_run[name]).split(":")[0] if name == "device" else of_run[name]
            if provenance[name] != there:
                yield f"run.json says {name} {_short(there)}, units say {_short(provenance[name])}"
    listed = meta.get("stimuli")
    stimuli = [_mapping(one) for one in listed] if isinstance(listed, list) else []
    ids = {str(one.get("kind")): str(one.get("id")) for one in stimuli}
    for shown in str(provenance.get("stimulus", "")).split():
        kind = shown.split("-")[0]
        if ids.get(kind, shown) != shown:
            yield f"run.json says {kind} was {_short(ids[kind])}, units say {_short(shown)}"


def _fits(file: Path, model: Mapping[str, Any]) -> bool:
    """Whether every pattern is as large as the model has heads and its text has tokens."""
    texts = stored_texts(file)
    with safe_open(file, framework="numpy") as stored:
        shapes = {kind: stored.get_tensor(f"{kind}/pattern").shape for kind in {t.stimulus for t in texts}}
    for text in texts:
        n, layers, heads, *square = shapes[text.stimulus]
        wanted = (model.get("n_layers", layers), model.get("n_heads", heads))
        if (layers, heads) != wanted or square != [len(text.tokens)] * 2 or n <= text.index:
            return False
    return True


def _unique(table: pa.Table, column: str) -> set[Any]:
    return set(pc.unique(table[column]).to_pylist())


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
