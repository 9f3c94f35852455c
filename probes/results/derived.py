"""What follows from units: verdicts, and observations.parquet. No forward pass, no torch, the same for the same units."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from byrote.checkpoints.former_name import stored_under
from byrote.probes.heads.induction import InductionTests, induction
from byrote.probes.memory.mem_gap import Estimate, mem_gap
from byrote.probes.registry import lookup
from byrote.probes.results.schema import (
    OBSERVATION_SCHEMA,
    STORED_ORDER,
    Measured,
    in_order,
    not_measured,
    to_frame,
    unit_table,
)
from byrote.probes.results.source import Source, encoded
from byrote.probes.results.units import N_UNITS_KEY, read_units, unit_paths, unit_stamps, write_parquet
from byrote.probes.spec import ProbeInfo

_INPUTS = {
    "prefix": ("prefix_matching", "score"),
    "prefix_shuffled": ("prefix_matching", "score@shuffled_repeat"),
    "prefix_jittered": ("prefix_matching", "score@jittered_repeat"),
    "copying": ("copying_logit", "score"),
}
_GAP_INPUTS = {"members": "loss", "twins": "loss@twins", "repeats": "repeats"}


_ROWS_PER_GROUP = 65536


def open_source(root: Path, *, write: bool) -> Source:
    """The observations of a results folder: from observations.parquet where it is current, else from the units.

    Args:
        root: the folder.
        write: whether observations.parquet may be made anew; where that is not possible, the rows are held in memory.

    Raises:
        ByroteError: a unit is damaged.
    """
    file = root / "observations.parquet"
    if _is_current(root, file):
        source = Source(file)
        with suppress(OSError, pa.ArrowException):  # damaged: the units are the truth
            if source.index:
                return source
    if write:
        try:
            return Source(rebuild_observations(root))
        except OSError:  # a folder that is only read
            pass
    steps = [(int(stamp[0][5:]), stamp) for stamp in unit_stamps(root) if stamp[0][5:].isdigit()]
    tables = [_one_step(root, step, stamp) for step, stamp in steps]
    return Source(pa.concat_tables(tables) if tables else OBSERVATION_SCHEMA.empty_table())


@lru_cache(maxsize=1024)
def _one_step(root: Path, step: int, stamp: tuple[str, int, int]) -> pa.Table:
    """A step's observations; `stamp` makes a changed step another key, so that a running sweep's are read once."""
    return encoded(observations_of(read_units(root, step)))


def _is_current(root: Path, file: Path) -> bool:
    """Whether observations.parquet holds what the units give; a folder without units holds nothing else."""
    try:
        built = file.stat().st_mtime_ns
        counted = int(stored_under(pq.read_schema(file).metadata, N_UNITS_KEY, b"-1"))
    except (OSError, ValueError, pa.ArrowException):
        return False
    units = unit_paths(root)
    return not units or (len(units) == counted and all(unit.stat().st_mtime_ns <= built for unit in units))


def rebuild_observations(root: Path) -> Path:
    """Derive observations.parquet from the units and the verdicts that follow from them; a metric's rows lie together."""
    steps = [int(folder.name[5:]) for folder in (root / "units").glob("step_*") if folder.name[5:].isdigit()]
    tables = [observations_of(read_units(root, step)) for step in sorted(steps)]
    table = pa.concat_tables(tables) if tables else OBSERVATION_SCHEMA.empty_table()
    file, n_units = root / "observations.parquet", str(len(unit_paths(root))).encode()
    write_parquet(file, in_order(table, STORED_ORDER), {N_UNITS_KEY: n_units}, rows_per_group=_ROWS_PER_GROUP)
    return file


def observations_of(units: pa.Table) -> pa.Table:
    """What observations.parquet says of one step: its units without samples, and the verdicts that follow from them."""
    return pa.concat_tables([units.drop_columns(["samples"]), derive(units)])


def derive(units: pa.Table) -> pa.Table:
    """Verdict rows of one step from its units; none when the probes a verdict reads were not asked for.

    Args:
        units: all rows of one step, with samples.

    Returns:
        A table in `OBSERVATION_SCHEMA`.
    """
    if not units.num_rows:
        return OBSERVATION_SCHEMA.empty_table()
    frame = to_frame(units)
    measured = [*_induction(frame), *_mem_gap(frame)]
    first = frame.iloc[0]
    tokens_seen = None if pd.isna(first["tokens_seen"]) else int(first["tokens_seen"])
    table = unit_table(measured, run=first["run"], step=int(first["step"]), tokens_seen=tokens_seen)
    return table.drop_columns(["samples"])


def _mem_gap(frame: pd.DataFrame) -> Sequence[Measured]:
    info, own = lookup("mem_gap"), frame[frame["probe"] == "exact_match"]
    rows = {name: own[own["metric"] == metric] for name, metric in _GAP_INPUTS.items()}
    if any(part.empty for part in rows.values()):
        return ()
    missing = [part["reason"].iloc[0] for part in rows.values() if not part["valid"].iloc[0]]
    if missing:
        return [not_measured(info, metric, missing[0]) for metric in info.metrics]
    in_all = own[own["metric"] == "in_all"]  # not in units of the probe's first version
    rows |= {} if in_all.empty else {"in_all": in_all}
    found = mem_gap(**{name: part["samples"].iloc[0].astype(np.float64) for name, part in rows.items()})
    first = min(found.by_repeats)
    span = [found.by_repeats.get(b) for b in range(first, max(found.by_repeats) + 1)]
    flag = Estimate(found.near_zero, found.near_zero, found.near_zero, found.gap.n)
    return [
        _estimated(info, "gap", [found.gap], chance=0.0),
        _estimated(info, "loss_share", [found.loss_share], chance=1.0),
        _estimated(info, "near_zero", [flag], chance=np.nan),
        _estimated(info, "by_repeats", span, chance=0.0, position_start=first),
    ]


def _estimated(
    info: ProbeInfo, metric: str, found: Sequence[Estimate | None], *, chance: float, position_start: int = -1
) -> Measured:
    """One value, or with `position_start` a curve; what is None is no quantity and has no row."""
    curve = position_start >= 0
    nothing = Estimate(np.nan, np.nan, np.nan, 0)
    grids = [
        np.array([getattr(e or nothing, name) for e in found], dtype=np.float64)
        for name in ("value", "lo", "hi", "n")
    ]
    value, lo, hi, n = (grid if curve else grid.reshape(()) for grid in grids)
    return Measured(
        info.name,
        metric,
        value,
        lo,
        hi,
        np.full(value.shape, chance),
        n,
        ("position",) if curve else (),
        position_start=max(position_start, 0),
        undefined=info.undefined,
        exists=np.array([e is not None for e in found]) if curve else None,
    )


def _induction(frame: pd.DataFrame) -> Sequence[Measured]:
    rows = {name: frame[(frame["probe"] == p) & (frame["metric"] == m)] for name, (p, m) in _INPUTS.items()}
    return () if any(part.empty for part in rows.values()) else _judge(rows)


def _judge(rows: dict[str, pd.DataFrame]) -> Sequence[Measured]:
    info = lookup("induction")
    rows = {name: part.sort_values(["layer", "head"]) for name, part in rows.items()}
    prefix_reasons = [
        r for name in ("prefix", "prefix_shuffled", "prefix_jittered") for r in rows[name]["reason"] if r
    ]
    if prefix_reasons or rows["prefix"]["layer"].isna().any():
        reason = f"prefix matching was not measured on every head: {prefix_reasons[0] if prefix_reasons else 'no heads'}"
        return [not_measured(info, metric, reason) for metric in info.metrics]
    if rows["copying"]["layer"].isna().any():
        reason = f"copying was not measured: {rows['copying']['reason'].iloc[0]}"
        return [not_measured(info, metric, reason) for metric in info.metrics]
    samples = {
        name: np.stack(part["samples"].to_list(), axis=1).astype(np.float64) for name, part in rows.items()
    }
    chance = {
        "jitter_chance": rows["prefix_jittered"]["chance"].to_numpy(dtype=np.float64),
        "copying_chance": rows["copying"]["chance"]
        .fillna(0.0)
        .to_numpy(dtype=np.float64),  # NaN where not measured
    }
    tests = induction(**samples, **chance)
    return _as_measured(tests, rows["prefix"])


def _as_measured(tests: InductionTests, heads: pd.DataFrame) -> list[Measured]:
    info = lookup("induction")
    shape = (int(heads["layer"].max()) + 1, int(heads["head"].max()) + 1)

    def measured(metric: str, value: np.ndarray, lo: np.ndarray, hi: np.ndarray, chance: float) -> Measured:
        value, lo, hi = (np.asarray(a, dtype=np.float64).reshape(shape) for a in (value, lo, hi))
        return Measured(
            info.name,
            metric,
            value,
            lo,
            hi,
            np.full(shape, chance),
            np.full(shape, tests.n),
            ("layer", "head"),
            undefined=info.undefined,
        )

    out = [measured("verdict", tests.verdict, tests.verdict, tests.verdict, np.nan)]
    out += [measured(name, *effect, 0.0) for name, effect in tests.excess.items()]
    out += [measured(name, q, q, q, np.nan) for name, q in tests.q.items()]
    return out
