"""Are the observations of two results folders equal bit for bit? Run before and after a change that may not move a number.

    python tests/same_observations.py OLD NEW [--except offset_profile:lo,hi]

Reads nothing but the two `observations.parquet` with pyarrow, so that no code of byrote stands between the files and the
answer. Exit 0 when every value, interval, chance level, n, validity and reason is the same, else 1 with what differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

KEYS = ["step", "probe", "metric", "layer", "head", "src_layer", "src_head", "position"]
FLOATS, EXACT = ["value", "lo", "hi", "chance"], ["tokens_seen", "n", "valid", "reason"]


def observations(folder: Path) -> pd.DataFrame:
    """The rows of a results folder by what they are about, in one order; missing keys are -1."""
    frame = pq.read_table(folder / "observations.parquet").to_pandas()
    for key in KEYS[3:]:
        frame[key] = frame[key].astype("float64").fillna(-1).astype("int64")
    for word in ("probe", "metric", "reason"):
        frame[word] = frame[word].astype(object)
    frame = frame.set_index(KEYS).sort_index()
    assert frame.index.is_unique, f"{folder} holds a row twice"
    return frame


def differences(
    old: pd.DataFrame, new: pd.DataFrame, excepted: Mapping[str, Sequence[str]] | None = None
) -> Iterator[str]:
    """What differs, a line per probe, metric and column; nothing where all is equal.

    Args:
        old, new: from `observations`.
        excepted: probe -> columns that may differ.
    """
    for missing, which in (
        (old.index.difference(new.index), "new"),
        (new.index.difference(old.index), "old"),
    ):
        for (probe, metric), n in missing.to_frame(index=False).groupby(["probe", "metric"]).size().items():
            yield f"{probe} {metric}: {n:,} rows are not in the {which} results"
    both = old.index.intersection(new.index)
    old, new = old.loc[both], new.loc[both]
    for column in (*FLOATS, *EXACT):
        if column in FLOATS:
            left, right = (f[column].to_numpy("float64").view("int64") for f in (old, new))
            nan = np.isnan(old[column].to_numpy("float64")) & np.isnan(new[column].to_numpy("float64"))
            wrong = (left != right) & ~nan
        else:
            left, right = old[column], new[column]
            wrong = ~((left == right) | (left.isna() & right.isna())).to_numpy(dtype=bool)
        where = both[wrong].to_frame(index=False)
        for (probe, metric), rows in where.groupby(["probe", "metric"]):
            if column not in (excepted or {}).get(probe, ()):
                first = rows.iloc[0]
                yield f"{probe} {metric}: {column} differs in {len(rows):,} rows, first at step {first['step']}"


def main() -> int:
    """The command line above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument(
        "--except", dest="excepted", action="append", default=[], metavar="PROBE:COLUMN,COLUMN"
    )
    given = parser.parse_args()
    excepted = {probe: columns.split(",") for probe, _, columns in (e.partition(":") for e in given.excepted)}
    old, new = observations(given.old), observations(given.new)
    found = list(differences(old, new, excepted))
    print("\n".join(found) or f"equal bit for bit: {len(old):,} observations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
