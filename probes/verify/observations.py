"""observations.parquet against what the units give: made again in memory, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool

from byrote.checkpoints.errors import ByroteError
from byrote.interp.axes import head_label
from byrote.probes.results.derived import observations_of
from byrote.probes.results.schema import OBSERVATION_SCHEMA, in_order
from byrote.probes.verify.notes import Notes, first_line

_STALE = "observations.parquet is not what the units give; delete it, it is made again from them"


class Stored:
    """observations.parquet as it was read once.

    Args:
        root: the results folder.
        notes: gets what is found.
    """

    def __init__(self, root: Path, notes: Notes) -> None:
        self.notes, self.table = notes, None
        file = root / "observations.parquet"
        if not file.is_file():
            notes.checked.append("no observations.parquet yet: it is made when the results are next read")
            return
        try:
            self.table = pq.read_table(file, schema=OBSERVATION_SCHEMA)
        except (OSError, pa.ArrowException) as error:
            notes.add(
                f"observations.parquet cannot be read ({first_line(error)}); delete it, it is made again"
            )

    def compare(self, units: Sequence[pa.Table] | None, step: int) -> None:
        """The rows of a step against those its units give; nothing where these cannot be read."""
        if units is None:
            return
        try:
            derived = in_order(observations_of(pa.concat_tables(units)))
        except (ByroteError, LookupError, ValueError, TypeError, pa.ArrowException) as error:
            self.notes.add(f"verdicts cannot be derived ({first_line(error)})", f"step {step:,}")
            return
        if self.table is None:
            return
        held = self.table.filter(pc.equal(self.table["step"], step))
        if held.num_rows != derived.num_rows:
            said = f"{derived.num_rows:,} rows in the units, {held.num_rows:,} in the file"
            self.notes.add(_STALE, f"step {step:,}, {said}")
        elif (differ := differing(held, derived)).any():
            row = derived.slice(int(np.flatnonzero(differ)[0]), 1).to_pylist()[0]
            said = f"{int(differ.sum()):,} of {len(differ):,} rows, the first {_row_words(row)}"
            self.notes.add(_STALE, f"step {step:,}, {said}")

    def close(self, steps: Sequence[int]) -> None:
        """What is left when every step was compared."""
        if self.table is None:
            return
        self.notes.checked.append(
            f"{self.table.num_rows:,} rows of observations.parquet, made again from the units"
        )
        foreign = set(pc.unique(self.table["step"]).to_pylist()) - set(steps)
        if foreign:
            self.notes.add(_STALE, *(f"step {step:,}, no units" for step in sorted(foreign)))


def differing(a: pa.Table, b: pa.Table) -> Bool[np.ndarray, " row"]:
    """Where two tables of as many rows differ in any column; two values that are not there are alike."""
    differ = np.zeros(a.num_rows, dtype=bool)
    for name in OBSERVATION_SCHEMA.names:
        x, y = a[name].to_pandas(), b[name].to_pandas()
        differ |= ~((x == y) | (x.isna() & y.isna())).to_numpy()
    return differ


def _row_words(row: Mapping[str, Any]) -> str:
    """``prefix_matching/score L1H2``."""
    head = "" if row["layer"] is None or row["head"] is None else f" {head_label(row['layer'], row['head'])}"
    return f"{row['probe']}/{row['metric']}{head}"
