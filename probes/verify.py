"""Verify a results folder against what the sweep wrote; nothing is written and nothing is measured. No torch.

1. run.json: readable, as it was written, and of one story with the units (name, model, settings, stimuli, steps, gaps,
   status)
2. every unit: its bytes and its numbers are what its hashes say, it is of its step and run, one set of weights per step,
   named after the probes it holds; units of version 0.1 have no hashes and are counted as unverified
3. observations.parquet: made again from the units in memory and compared number by number
4. arrays: as they were written, as large as the model and the texts say, of the same weights as the units
5. the checkpoints, where they still lie where they were: size and time of every file; where these changed the weights
   are hashed again, up to `MAX_HASHED_BYTES` each; with `content` all of them are
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from safetensors import SafetensorError

from byrote.checkpoints.array_files import arrays_sealed, open_arrays
from byrote.checkpoints.atomic import leftovers
from byrote.checkpoints.errors import ByroteError, CheckpointError
from byrote.checkpoints.fingerprint import content_of
from byrote.checkpoints.opening import open_series
from byrote.checkpoints.safe_read import FileRefused
from byrote.checkpoints.seal import Seal
from byrote.checkpoints.series import IN_MEMORY
from byrote.interp.axes import head_label
from byrote.probes.attention import stored_metadata, stored_texts
from byrote.probes.own_blocks import kind_shown
from byrote.probes.registry import REGISTRY
from byrote.probes.results import Results
from byrote.probes.results.derived import OBSERVATIONS, observations_of
from byrote.probes.results.parquet_files import open_parquet, parquet_seal, refuse_values
from byrote.probes.results.run_json import imported_from, run_json_seal
from byrote.probes.results.schema import OBSERVATION_SCHEMA, in_order
from byrote.probes.results.series_place import series_place, where_results_are
from byrote.probes.results.unit_files import (
    UNITS_KEY,
    checked_unit,
    set_aside_files,
    step_of,
    units_digest,
    units_of,
)
from byrote.probes.sweep.folder import FINGERPRINTS
from byrote.probes.sweep.prefetch import Fingerprints
from byrote.probes.sweep.units import unit_name
from byrote.probes.wording import clean, counted

MAX_HASHED_BYTES = 500_000_000
N_PLACES = 3  # of a finding that are named
_SETTINGS = ("dtype", "device", "seed", "weight_processing", "intervals", "versions")
_DAMAGE = (ByroteError, OSError, SafetensorError, LookupError, ValueError)
_LINKS = "symbolic links are not followed"
_STALE = "observations.parquet differs from its units; run the same sweep again to rebuild it"


@dataclass(frozen=True)
class Verified:
    """What was looked at and what was found.

    Attributes:
        findings: one line each; empty where everything agrees.
        checked: one line per kind of thing looked at, with how many of them, or why it was not.
    """

    findings: tuple[str, ...]
    checked: tuple[str, ...]


def verify(path: str | Path, *, content: bool = False) -> Verified:
    """Look for damage and disagreement in a results folder.

    Args:
        path: the folder. No sweep should be writing there meanwhile.
        content: hash every checkpoint again, whatever its size, and even where its files look as they did.

    Raises:
        ByroteError: it is not a folder of results.
    """
    root = Path(path)
    if not root.is_dir():
        raise ByroteError(f"{root} is not a folder", help="name a results folder, such as results/run")
    if not any((root / name).exists() for name in ("run.json", "units", "observations.parquet")):
        raise ByroteError(f"{root} is not a results folder (no run.json)", help=where_results_are(root))
    return _Walk(root, content=content).all()


def digest(path: str | Path) -> str:
    """SHA-256 over the names and content hashes of the units: what was measured, under which settings, on which weights.

    Every unit's bytes are compared with its seal, once as long as the file stays as it is. Copies have the same digest,
    and it changes when a unit changes, is added or is removed; of run.json and observations.parquet it says nothing.
    """
    try:
        return units_digest(Path(path), whole=True)
    except ByroteError:
        return "unreadable"


class _Walk:
    """A walk through a results folder: what it has seen, found and checked.

    `meta` is run.json, {} where it cannot be read; `weights` the fingerprint that the units of each step name; `steps`
    those that hold units; `unverified` how many units have no hashes.
    """

    def __init__(self, root: Path, *, content: bool) -> None:
        self.root, self.content = root, content
        self.meta: Mapping[str, Any] = {}
        self.weights: dict[int, str] = {}
        self.steps: list[int] = []
        self.unverified = 0
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
        if aside := set_aside_files(self.root):
            files = counted(len(aside), "damaged file")
            self.checked.append(f"{files} that a sweep set aside, such as {aside[0].relative_to(self.root)}")
        if left := len(leftovers(self.root)):
            self._find(
                f"{counted(left, 'temporary file')} of a sweep that was killed; the next sweep deletes them"
            )
        findings = tuple(what + _places(where) for what, where in self._found.items())
        return Verified(findings, tuple(self.checked))

    def _find(self, what: str, where: str | Path = "") -> None:
        """Something that is not as it should be, and the place it is true of; "" for the whole folder."""
        place = f"{where.parent.name}/{where.name}" if isinstance(where, Path) else where
        self._found.setdefault(what, []).extend([place] if place else [])

    def _run_json(self) -> None:
        try:
            self.meta = Results.open(self.root).meta
            seal = run_json_seal(self.root)
        except (ByroteError, OSError) as error:
            self._find(f"{error.message}; {error.help}" if isinstance(error, ByroteError) else str(error))
            return
        self.checked.append("run.json" + (", unverified (of version 0.1)" if seal is Seal.NONE else ""))
        if seal is Seal.BROKEN:
            self._find("run.json has changed since byrote wrote it; run the same sweep again to rewrite it")
        if (run := self.meta.get("run")) != self.root.name:
            self._find(f"run.json calls the run {run!r}, its folder is called {self.root.name!r}")

    def _units(self) -> None:
        """The units of every step, and the rows of observations.parquet against those they give."""
        observations = self._observations()
        n_files = 0
        for place in sorted((self.root / "units").glob("*")):
            step = step_of(place)
            if place.is_symlink() or (self.root / "units").is_symlink():
                self._find(_LINKS, f"units/{place.name}")
            elif step is None or not place.is_dir():
                self._find("units contains a folder that is not a step", place.name)
            elif files := units_of(self.root, step):
                self.steps.append(step)
                n_files += len(files)
                tables = self._tables(step, files)
                if len(tables) == len(files):
                    self._derived(observations, tables, step)
        unverified = f", {self.unverified:,} of them unverified (of version 0.1)" if self.unverified else ""
        self.checked.append(f"{counted(n_files, 'unit')} of {counted(len(self.steps), 'step')}{unverified}")
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
            facts, table = checked_unit(file)
            if table is None:
                self._find(
                    "units are damaged; run the same sweep again to set them aside and measure them again",
                    file,
                )
                continue
            self.unverified += facts.state == "unverified"
            provenance = facts.provenance
            weights |= {str(provenance["fingerprint"])} if provenance.get("fingerprint") else set()
            own = {(file.name.split(".")[0], name) for name in _mapping(provenance.get("probes"))}
            if own & seen:
                self._find("two units hold the same probe", file)
            seen |= own
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
        file = self.root / OBSERVATIONS
        if not os.path.lexists(file):
            self.checked.append("no observations.parquet: run the same sweep again to write it")
            return None
        try:
            if parquet_seal(file) is Seal.BROKEN:
                raise FileRefused("its contents no longer match their checksum")
            with open_parquet(file, OBSERVATION_SCHEMA) as opened:
                if UNITS_KEY in (opened.metadata.metadata or {}) and parquet_seal(file) is Seal.NONE:
                    raise FileRefused("its seal is lost")
                table = opened.read().select(OBSERVATION_SCHEMA.names)
            refuse_values(file, table)
            return table
        except (OSError, FileRefused, pa.ArrowException) as error:
            message = error.message if isinstance(error, FileRefused) else _first_line(error)
            self._find(f"observations.parquet is damaged ({message}); run the same sweep again to rebuild it")
            return None

    def _derived(self, observations: pa.Table | None, units: Sequence[pa.Table], step: int) -> None:
        """The rows of a step against those its units give."""
        try:
            dtype = str((self.meta.get("provenance") or {}).get("dtype") or "float32")
            derived = in_order(observations_of(pa.concat_tables(units), dtype=dtype))
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
            ("checkpoints without units that are not listed as gaps", unmeasured),
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
        files, unverified = sorted((self.root / "arrays").glob("step_*/*.safetensors")), 0
        for file in files:
            if file.is_symlink() or file.parent.is_symlink() or file.parent.parent.is_symlink():
                self._find(_LINKS, file)
                continue
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
            unverified += not arrays_sealed(file)
            if weights and of and weights != of:
                self._find("saved attention is of other weights than the units", file)
        if files:
            unverified_text = f", {unverified:,} of them unverified (of version 0.1)" if unverified else ""
            self.checked.append(f"attention saved of {counted(len(files), 'step')}{unverified_text}")

    def _texts(self) -> None:
        for file in sorted((self.root / "stimuli").glob("*.safetensors")):
            try:
                with open_arrays(file) as stored:
                    stored.get_tensor("tokens")
            except _DAMAGE:
                self._find("the text that was shown cannot be read; give --text again", file.name)
            else:
                self.checked.append(f"the text that was shown, {file.name}")

    def _checkpoints(self) -> None:
        """By size and time of the files; by content, the costly way, only where these changed."""
        path = series_place(self.root, self.meta)
        if source := imported_from(self.meta):
            self.checked.append(
                f"imported from {clean(source)}, no samples: there are no checkpoints to compare"
            )
            return
        if (self.meta.get("series") or {}).get("format") == IN_MEMORY:
            self.checked.append("measured on a model in memory: there are no checkpoints to compare")
            return
        if path is None or not path.exists():
            self.checked.append("the checkpoints are no longer at their recorded path: not compared")
            return
        try:
            now = {checkpoint.step: checkpoint for checkpoint in open_series(path)}
        except CheckpointError as error:
            self._find(f"the checkpoints cannot be opened: {error.message}")
            return
        cache = Fingerprints(self.root / FINGERPRINTS)
        hashed = unknown = 0
        for step, measured in self.weights.items():
            if step not in now:
                self._find("checkpoints are no longer there", f"step {step:,}")
                continue
            try:
                held = None if self.content else cache.cached(now[step])
                if held is None and not self.content and now[step].size_bytes > MAX_HASHED_BYTES:
                    unknown += 1
                    continue
                if held is None:
                    held, hashed = content_of(now[step]).fingerprint, hashed + 1
            except (CheckpointError, OSError):
                self._find("checkpoints can no longer be read", f"step {step:,}")
                continue
            if held != measured:
                self._find("checkpoints have other weights than those that were measured", f"step {step:,}")
        n = counted(len(self.weights.keys() & now.keys()), "checkpoint")
        if self.content:
            self.checked.append(f"{n} by content")
            return
        text = f"{n} by size and time of their files"
        text += f", {hashed:,} of them by content because these had changed" if hashed else ""
        text += f"; {unknown:,} of them changed in size or time and too large to hash here" if unknown else ""
        self.checked.append(text)


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
        yield "units do not record which weights they are of"
    probes = _mapping(provenance.get("probes"))
    known = {name: version for name, version in probes.items() if name in REGISTRY}
    if known and len(known) == len(probes) and unit_name(file.name.split(".")[0], known) != file.name:
        yield "units are not named after the probes they say they hold"
    if probes and _unique(table, "probe") - set(probes):
        yield "units hold probes they do not name"
    for name, version in known.items():
        if (now := REGISTRY[name].version) != version and not imported_from(meta):
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
        kind = kind_shown(shown)
        if ids.get(kind, shown) != shown:
            yield f"run.json says {kind} was {_short(ids[kind])}, units say {_short(shown)}"


def _fits(file: Path, model: Mapping[str, Any]) -> bool:
    """Whether every pattern is as large as the model has heads and its text has tokens."""
    texts = stored_texts(file)
    with open_arrays(file) as stored:
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
