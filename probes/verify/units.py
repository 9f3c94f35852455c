"""Each unit against its place, its own words, run.json, and the catalogue of this byrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from byrote.probes.registry import REGISTRY
from byrote.probes.results.schema import UNIT_SCHEMA
from byrote.probes.results.units import step_folder, unit_provenance
from byrote.probes.sweep.plan import unit_name
from byrote.probes.verify.notes import Notes, mapping, short

_SETTINGS = ("dtype", "device", "seed", "weight_processing", "intervals", "versions")


class Units:
    """The units of a results folder.

    Attributes:
        steps: that hold units, as far as walked.
        weights: step -> fingerprint that its units name.
        n_files: units seen.

    Args:
        root: the results folder.
        meta: run.json, {} where it cannot be read.
        notes: gets what is found.
    """

    def __init__(self, root: Path, meta: Mapping[str, Any], notes: Notes) -> None:
        self.root, self.meta, self.notes = root, meta, notes
        self.steps: list[int] = []
        self.weights: dict[int, str] = {}
        self.n_files = 0

    def by_step(self) -> Iterator[tuple[int, list[Path]]]:
        """(step, its units), ascending."""
        for folder in sorted((self.root / "units").glob("*")):
            number = folder.name.removeprefix("step_")
            if not (folder.is_dir() and number.isdigit() and step_folder(self.root, int(number)) == folder):
                self.notes.add("units holds what is no step", folder.name)
            elif files := sorted(folder.glob("*.parquet")):
                self.steps.append(int(number))
                self.n_files += len(files)
                yield int(number), files

    def check(self, step: int, files: list[Path]) -> list[pa.Table] | None:
        """The rows of a step's units; None where one of them cannot be read."""
        held = [unit_provenance(file) for file in files]
        tables = [self._one(file, said, step) for file, said in zip(files, held, strict=True)]
        weights = {str(said["fingerprint"]) for said in held if said.get("fingerprint")}
        if len(weights) > 1:
            self.notes.add("units of one step are of different weights", f"step {step:,}")
        elif weights:
            self.weights[step] = weights.pop()
        seen: set[tuple[str, str]] = set()
        for file, said in zip(files, held, strict=True):
            mine = {(file.name.split(".")[0], name) for name in mapping(said.get("probes"))}
            if mine & seen:
                self.notes.add("two units hold the same probe", _where(file))
            seen |= mine
        return None if any(table is None for table in tables) else [t for t in tables if t is not None]

    def _one(self, file: Path, said: Mapping[str, Any], step: int) -> pa.Table | None:
        where = _where(file)
        try:
            if pq.read_schema(file).names != UNIT_SCHEMA.names:
                self.notes.add("units have other columns than this byrote writes", where)
            table = pq.read_table(file, schema=UNIT_SCHEMA)
        except (OSError, pa.ArrowException):
            self.notes.add("units cannot be read; the same sweep again measures them anew", where)
            return None
        if _unique(table, "step") - {step}:
            self.notes.add("units hold rows of another step", where)
        if self.meta and _unique(table, "run") - {self.meta.get("run")}:
            self.notes.add(f"units hold rows of another run than run.json's {self.meta.get('run')!r}", where)
        self._shape(table, where)
        self._own_words(said, table, file)
        self._settings(said, where)
        return table

    def _shape(self, table: pa.Table, where: str) -> None:
        model = mapping(self.meta.get("model"))
        for axis, name in (("layer", "n_layers"), ("head", "n_heads")):
            highest, there = pc.max(table[axis]).as_py(), model.get(name)
            if isinstance(there, int) and highest is not None and highest >= there:
                self.notes.add(f"units hold {axis} {highest}, run.json's model has {name} = {there}", where)

    def _own_words(self, said: Mapping[str, Any], table: pa.Table, file: Path) -> None:
        """What a unit says of itself, against its rows, its name and the catalogue."""
        where, probes = _where(file), mapping(said.get("probes"))
        if not said.get("fingerprint"):
            self.notes.add("units do not say of which weights they are", where)
        if not probes:
            return
        infos = [
            replace(REGISTRY[name], version=version) for name, version in probes.items() if name in REGISTRY
        ]
        if len(infos) == len(probes) and unit_name(file.name.split(".")[0], infos) != file.name:
            self.notes.add("units are not named after the probes they say they hold", where)
        if _unique(table, "probe") - set(probes):
            self.notes.add("units hold probes they do not name", where)
        for name, version in probes.items():
            now = REGISTRY[name].version if name in REGISTRY else version
            if now != version:
                self.notes.add(
                    f"{name} was measured by its version {short(version)}, this byrote has {now}", where
                )

    def _settings(self, said: Mapping[str, Any], where: str) -> None:
        """What run.json says of all units, against what this one says of itself."""
        given = mapping(self.meta.get("provenance"))
        for name in _SETTINGS:
            told = str(given[name]).split(":")[0] if name == "device" and name in given else given.get(name)
            if name in said and name in given and said[name] != told:
                self.notes.add(f"run.json says {name} {short(told)}, units say {short(said[name])}", where)
        listed = self.meta.get("stimuli")
        stimuli = [mapping(one) for one in listed] if isinstance(listed, list) else []
        drawn = {str(one.get("kind")): str(one.get("id")) for one in stimuli}
        for shown in str(said.get("stimulus", "")).split():
            kind = shown.split("-")[0]
            if drawn.get(kind, shown) != shown:
                self.notes.add(
                    f"run.json says {kind} was {short(drawn[kind])}, units say {short(shown)}", where
                )


def _where(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"


def _unique(table: pa.Table, column: str) -> set[Any]:
    return set(pc.unique(table[column]).to_pylist())
