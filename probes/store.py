"""The results folder: units are the truth, `observations.parquet` is derived from them. No torch, no pickle.

    results/<run>/
        run.json                          what was asked
        units/step_00000512/*.parquet     one file per (checkpoint, stimulus); provenance in the file's metadata
        observations.parquet              rebuilt when a unit is newer

Every file is written under a temporary name and renamed, so a reader never sees half of one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from byrote.checkpoints.atomic import replacing
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.former_name import stored_under
from byrote.probes.observations import OBSERVATION_SCHEMA, SORT_COLUMNS, UNIT_SCHEMA, to_frame

if TYPE_CHECKING:
    from byrote.probes.scores import Scores

SCHEMA_VERSION = 1
_PROVENANCE_KEY = b"byrote.provenance"
_UNITS_KEY = b"byrote.n_units"


class Results:
    """What one run measured, as saved.

    `frame` holds the observations; `samples(step)` the per-sequence values of one step; `meta` is run.json.
    """

    def __init__(self, path: Path, meta: Mapping[str, Any]) -> None:
        self.path = path
        self.meta = meta

    @classmethod
    def open(cls, path: str | Path) -> Results:
        """Open a results folder.

        Raises:
            ByroteError: the folder is not there, is no results folder, or was written by a newer schema.
        """
        path = Path(path)
        file = path / "run.json"
        if not file.is_file():
            raise ByroteError(f"{path} is not a results folder (no run.json)", help=_where_results_are(path))
        try:
            meta = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ByroteError(
                f"{file} cannot be read ({error})", help="run the sweep again: it rewrites run.json"
            ) from None
        if meta.get("schema") != SCHEMA_VERSION:
            raise ByroteError(
                f"{path} has results schema {meta.get('schema')}, this byrote reads {SCHEMA_VERSION}",
                help="run the sweep again with --fresh, or use the byrote version that wrote it",
            )
        return cls(path, meta)

    @property
    def run(self) -> str:
        """The run's name: its folder's name."""
        return str(self.meta["run"])

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """What could not be measured: step, path, reason, help."""
        return list(self.meta.get("gaps", []))

    @property
    def left_out(self) -> dict[int, str]:
        """Steps that `byrote lint` asked to leave out when these results were made, and why: measured, not believed."""
        stored = (self.meta.get("lint") or {}).get("left_out") or {}
        return {int(step): str(why) for step, why in stored.items()}

    @property
    def steps(self) -> list[int]:
        """Steps with observations, ascending."""
        return sorted(int(s) for s in self.frame["step"].unique())

    @property
    def usable_steps(self) -> list[int]:
        """Steps with observations that lint did not ask to leave out, ascending."""
        return [step for step in self.steps if step not in self.left_out]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """All observations, tidy, in a fixed order."""
        file = self.path / "observations.parquet"
        if _is_stale(self.path, file):
            rebuild_observations(self.path)
        return to_frame(pq.read_table(file))

    @cached_property
    def usable_frame(self) -> pd.DataFrame:
        """The observations with those of `left_out` steps marked: not valid, lint's reason, column `left_out` true.

        Their values are kept. Onsets, comparisons, figures and reports read this.
        """
        return mark_left_out(self.frame, self.left_out)

    def select(self, probe: str, metric: str, *, step: int | None = None) -> pd.DataFrame:
        """Observations of one metric, at one step or all."""
        frame = self.frame
        chosen = frame[(frame["probe"] == probe) & (frame["metric"] == metric)]
        return chosen if step is None else chosen[chosen["step"] == step]

    def __getitem__(self, probe: str | tuple[str, str]) -> Scores:
        """One metric over all steps: `results["prefix_matching"]`, `results["prefix_matching", "sink_free"]`.

        Raises:
            ByroteError: it was not measured; the help names the nearest that was.
        """
        from byrote.probes.scores import Scores

        name, metric = (probe, None) if isinstance(probe, str) else probe
        return Scores.of(self, name, metric)

    def samples(self, step: int) -> pd.DataFrame:
        """Observations of one step with their per-sequence values in the column `samples` (empty where not kept)."""
        return to_frame(read_units(self.path, step))

    def __repr__(self) -> str:
        return f"Results({self._coverage()})"

    def _repr_html_(self) -> str:
        """For notebooks: what was measured, the strongest heads at the end, what is missing; offline, escaped."""
        from byrote.probes.overview import overview_html

        return overview_html(self)

    def _coverage(self) -> str:
        steps = self.steps
        span = f"steps {steps[0]:,}-{steps[-1]:,}" if steps else "no steps"
        doubted = f", {len(self.left_out)} steps left out by lint" if self.left_out else ""
        return (
            f"{self.run!r}: {len(steps)} checkpoints, {span}, {len(self.frame):,} observations, "
            f"{len(self.gaps)} gaps{doubted}"
        )


def mark_left_out(rows: pd.DataFrame, left_out: Mapping[int, str]) -> pd.DataFrame:
    """Observations with the column `left_out`: rows of those steps are no longer valid and carry the reason."""
    reasons = rows["step"].map(left_out) if left_out else pd.Series(pd.NA, index=rows.index)
    doubted = reasons.notna() & rows["valid"].astype(bool)
    if not doubted.any():
        return rows.assign(left_out=False)
    return rows.assign(
        valid=rows["valid"].astype(bool) & ~doubted,
        reason=rows["reason"].mask(doubted, "left out by lint: " + reasons.astype(str)),
        left_out=doubted,
    )


def step_folder(root: Path, step: int) -> Path:
    """Where a step's units are."""
    return root / "units" / f"step_{step:08d}"


def unit_paths(root: Path) -> list[Path]:
    """All finished units, in step and name order."""
    return sorted((root / "units").glob("step_*/*.parquet"))


def write_unit(path: Path, table: pa.Table, provenance: Mapping[str, Any]) -> None:
    """Write one unit whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_parquet(path, table, {_PROVENANCE_KEY: json.dumps(provenance, sort_keys=True).encode()})


def unit_provenance(path: Path) -> dict[str, Any]:
    """Provenance of a unit; {} for a file that cannot be read, which then is measured again."""
    try:
        return json.loads(stored_under(pq.read_schema(path).metadata, _PROVENANCE_KEY, b"{}"))
    except (OSError, ValueError, pa.ArrowException):
        return {}


def read_units(root: Path, step: int) -> pa.Table:
    """All rows of one step, with samples, in the fixed order.

    Raises:
        ByroteError: a unit is damaged.
    """
    tables = []
    for file in sorted(step_folder(root, step).glob("*.parquet")):
        try:
            tables.append(pq.read_table(file, schema=UNIT_SCHEMA))
        except (OSError, pa.ArrowException) as error:
            raise ByroteError(
                f"the unit {file} is damaged", help="run the same sweep again: it measures that unit anew"
            ) from error
    return pa.concat_tables(tables) if tables else UNIT_SCHEMA.empty_table()


def rebuild_observations(root: Path) -> Path:
    """Derive observations.parquet from the units and the verdicts that follow from them."""
    tables = [observations_of(read_units(root, step)) for step in _steps_on_disk(root)]
    table = pa.concat_tables(tables) if tables else OBSERVATION_SCHEMA.empty_table()
    table = in_order(table)
    file = root / "observations.parquet"
    _write_parquet(file, table, {_UNITS_KEY: str(len(unit_paths(root))).encode()})
    return file


def observations_of(units: pa.Table) -> pa.Table:
    """What observations.parquet says of one step: its units without samples, and the verdicts that follow from them."""
    from byrote.probes.verdicts import derive

    return pa.concat_tables([units.drop_columns(["samples"]), derive(units)])


def in_order(table: pa.Table) -> pa.Table:
    """Observations in the order they are stored in."""
    return table.sort_by([(name, "ascending") for name in SORT_COLUMNS]).combine_chunks()


def _write_parquet(path: Path, table: pa.Table, metadata: Mapping[bytes, bytes]) -> None:
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata})
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _steps_on_disk(root: Path) -> Iterator[int]:
    for folder in sorted((root / "units").glob("step_*")):
        if folder.name[5:].isdigit():
            yield int(folder.name[5:])


def _is_stale(root: Path, file: Path) -> bool:
    if not file.is_file():
        return True
    units = unit_paths(root)
    try:
        counted = stored_under(pq.read_schema(file).metadata, _UNITS_KEY, b"-1")
    except (OSError, pa.ArrowException):
        return True
    if int(counted) != len(units):
        return True
    built = file.stat().st_mtime_ns
    return any(unit.stat().st_mtime_ns > built for unit in units)


def _where_results_are(path: Path) -> str:
    runs = sorted(p.parent.name for p in path.glob("*/run.json")) if path.is_dir() else []
    if runs:
        return f"it holds runs: {', '.join(runs[:5])}; name one, such as {path / runs[0]}"
    return "`byrote run PATH -o results` makes one"
