"""How far bfloat16 moves the numbers that verdicts rest on: the figures of `ROUNDING` in byrote/probes/rules.py.

    python tests/bench/rounding.py FOLDER... [--sequences 16] [--load]

Every checkpoint of every series is measured in float32 and in bfloat16 on the same sequences; of each number, the largest
difference of an estimate or of its lower end is printed. --load adds load_bearing, which costs many passes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

from byrote.checkpoints import open_series
from byrote.interp import HookedSeries
from byrote.probes.results.derived import observations_of
from byrote.probes.results.schema import unit_table
from byrote.probes.rules import FLOORS
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.measure import measure_group
from byrote.probes.sweep.plan import groups
from byrote.probes.sweep.stimulus_set import StimulusSet

NUMBERS = {
    ("induction", "prefix_excess"): "prefix_excess",
    ("induction", "jitter_excess"): "jitter_excess",
    ("induction", "copying_excess"): "copying_excess",
    ("induction_dla", "score"): "dla",
    ("induction", "dla_excess"): "dla_excess",
    ("induction_dla", "share_frac"): "dla_share",
    ("induction_dla", "copied_frac"): "copied",
    ("mem_gap", "loss_share"): "loss_share",
    **{("load_bearing", m): m for m in ("signature", "joint_signature", "top_change", "excess", "joint_change",
                                        "joint_excess", "gain")},
}  # fmt: skip
DTYPES = (torch.float32, torch.bfloat16)


def measured(path: Path, config: SweepConfig, last: int) -> Iterator[tuple[int, list[pd.DataFrame]]]:
    """Step -> the observations in float32 and in bfloat16."""
    series = open_series(path)
    series = series[-last:] if last else series
    shown = StimulusSet(series, config, Path("nowhere"))
    walkers = [HookedSeries(series, dtype=dtype) for dtype in DTYPES]
    for checkpoint in series:
        found = []
        for walker in walkers:
            model = walker.load(checkpoint)
            if not shown.shape:
                shown.fit(model, checkpoint, first=True)
            units = [m for group in groups(config.infos) for m in measure_group(model, group, shown)]
            table = unit_table(units, run=series.name, step=checkpoint.step, tokens_seen=None)
            found.append(observations_of(table).to_pandas())
        yield checkpoint.step, found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--load", action="store_true")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--last", type=int, default=0, help="checkpoints of each series; 0 is all")
    given = parser.parse_args()
    probes = ("induction", "mem_gap", *(("load_bearing",) if given.load else ()))
    config = SweepConfig(probes, n_seq=given.sequences)
    rows = [row for folder in given.folders for row in differences(folder, config, given.last)]
    table = pd.DataFrame(rows)
    if given.save:
        table.to_pickle(given.save)
    print(summary(table).to_string())


def differences(folder: Path, config: SweepConfig, last: int) -> Iterator[dict[str, object]]:
    """One row for each number of each head, or of the model: its lower end and how far rounding moves it."""
    keys = ["probe", "metric", "layer", "head"]
    for step, (exact, half) in measured(folder, config, last):
        both = exact[exact["valid"]].merge(half[half["valid"]], on=keys, suffixes=("", "_half"))
        for row in both.itertuples():
            if name := NUMBERS.get((row.probe, row.metric)):
                off = max(abs(row.value - row.value_half), abs(row.lo - row.lo_half))
                where = f"{folder.name} {step} L{row.layer}H{row.head}"
                yield {"where": where, "name": name, "lo": max(row.lo, row.lo_half), "off": off}


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Largest differences: of all heads, and of those for which the number can decide.

    It can where every other number of the induction verdict exceeds half of its floor in one of the precisions.
    """
    ends = table.pivot(index="where", columns="name", values="lo")
    met = {name: ends[name] > floor / 2 for name, floor in FLOORS.items() if name in ends}
    found = {}
    for name, part in table.groupby("name"):
        off = part.set_index("where")["off"].dropna()
        others = [flags for other, flags in met.items() if other != name and name in met]
        decides = (
            off[pd.concat(others, axis=1).all(axis=1).reindex(off.index, fill_value=True)] if others else off
        )
        found[name] = {
            "all": off.max(), "n": len(off), "deciding": decides.max(), "n_deciding": len(decides),
            "q90": decides.quantile(0.9), "where": decides.idxmax() if len(decides) else "",
        }  # fmt: skip
    return pd.DataFrame(found).T


if __name__ == "__main__":
    main()
