"""What `make real-training` measured as one table, and what is read off it: values, and differences pair by pair."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.atomic import write_text
from byrote.probes.results import Results
from byrote.probes.seed_statistics import mean_over_seeds
from byrote.probes.statistics import Triple, bootstrap_mean, two_sample_interval

TABLE, FACTS = "training.parquet", "training.json"
ARMS = {
    "unique": "windows of the text, each once",
    "repeated": "a tenth as many windows, ten times over",
    "synthetic": "the same windows as the unique arm, all but the first tokens of each written by the starting model",
}
CALLED = ("prefix_matching", "score@called")  # mean over the heads called induction heads at the start


@dataclass(frozen=True)
class Shown:
    """A number of the page.

    Attributes:
        name: what it is called in tables.
        probe, metric: of byrote.
        unit: of differences.
    """

    name: str
    probe: str
    metric: str
    unit: str = "nats"


HELD_OUT = Shown("loss on held-out text", "held_out_loss", "loss")
GAP = Shown("memory gap: twins' loss minus members'", "mem_gap", "gap")
MEMBERS = Shown("loss on members of the pool", "exact_match", "loss")
TWINS = Shown("loss on their twins", "exact_match", "loss@twins")
KNOWN = Shown("tokens of members predicted first", "exact_match", "accuracy", "of the tokens")
COMPLETED = Shown("members reproduced from their first half", "exact_match", "completed", "of the members")
COPYING = Shown("copying: loss on repeats of random tokens", "repeat_loss", "later_blocks")
WORTH = Shown("copying: that minus the loss on first appearances", "repeat_loss", "difference")
COPIED = Shown("loss on tokens of text that can be copied", "inducible_loss", "inducible")
CONTEXT = Shown(
    "in-context learning: slope of the loss", "loss_by_position", "slope", "nats per e-fold of the position"
)
LATE = Shown(
    "the same from a tenth of the window on",
    "loss_by_position",
    "slope_late",
    "nats per e-fold of the position",
)
MATCHING = Shown("prefix matching of the heads called at the start", *CALLED, unit="of the attention")
NUMBERS = (HELD_OUT, MEMBERS, TWINS, GAP, KNOWN, COMPLETED, COPYING, WORTH, COPIED, CONTEXT, LATE, MATCHING)
MEMORY = (MEMBERS, TWINS, GAP, KNOWN, COMPLETED)


def take_over(runs: Path, folder: Path) -> None:
    """Write the table and the facts.

    Args:
        runs: folder that train_smollm2.py was given.
        folder: where both are written.
    """
    place = runs / "training"
    facts = json.loads((place / "facts.json").read_text(encoding="utf-8"))
    names = [name for name in facts if name.partition("-seed")[0] in ARMS]
    opened = {name: Results.open(place / "results" / name) for name in names}
    facts["versions"] = next(iter(opened.values())).meta["provenance"]["versions"]
    facts["n_heads"] = int(np.prod(next(iter(opened.values())).shape))
    parts = []
    for name, results in opened.items():
        arm, _, seed = name.partition("-seed")
        first = next(
            one for other, one in opened.items() if other.endswith(name[len(arm) :]) and 0 in one.steps
        )
        verdict = first.select("induction", "verdict", step=0).query("value == 1")
        called = [(int(row.layer), int(row.head)) for row in verdict.itertuples()]
        parts.append(rows_of(results, called).assign(arm=arm, seed=int(seed)))
    folder.mkdir(parents=True, exist_ok=True)
    pd.concat(parts, ignore_index=True).to_parquet(folder / TABLE, index=False)
    write_text(folder / FACTS, json.dumps(facts, indent=1) + "\n")


def rows_of(results: Results, called: Sequence[tuple[int, int]]) -> pd.DataFrame:
    """The numbers of one run at all steps, with the values of every sequence; and which heads are called at each.

    Args:
        results: of the run.
        called: heads whose mean prefix matching is followed.
    """
    wanted = {(one.probe, one.metric) for one in NUMBERS} | {("mem_gap", "loss_share")}
    keys = [
        "step",
        "tokens_seen",
        "probe",
        "metric",
        "layer",
        "head",
        "value",
        "lo",
        "hi",
        "n",
        "valid",
        "reason",
        "samples",
    ]
    parts = []
    for step in results.steps:
        rows = results.samples(step)
        which = pd.MultiIndex.from_frame(rows[["probe", "metric"]])
        parts.append(rows.loc[which.isin(wanted) & rows["position"].isna(), keys])
        derived = [results.select("mem_gap", metric, step=step) for metric in ("gap", "loss_share")]
        verdict = results.select("induction", "verdict", step=step).query("value == 1")
        parts += [rows.reindex(columns=keys) for rows in (*derived, verdict)]
        heads = rows.query("probe == 'prefix_matching' and metric == 'score'").set_index(["layer", "head"])[
            "samples"
        ]
        if called:
            mean = np.mean([heads.loc[head] for head in called], axis=0, dtype=np.float64)
            found = bootstrap_mean(mean[:, None])
            value, lo, hi = (float(one[0]) for one in (found.value, found.lo, found.hi))
            row = {"step": step, "probe": CALLED[0], "metric": CALLED[1], "value": value, "lo": lo, "hi": hi}
            parts.append(pd.DataFrame([row | {"n": len(mean), "valid": True, "reason": "", "samples": mean}]))
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)
    table["samples"] = [np.asarray(one if np.ndim(one) else [], dtype=np.float32) for one in table["samples"]]
    kinds = {"layer": "Int16", "head": "Int16", "tokens_seen": "Int64", "n": "Int32"}
    return table.drop_duplicates(["step", "probe", "metric", "layer", "head"]).astype(kinds)


@dataclass(frozen=True)
class Runs:
    """The table, and what is read off it.

    Attributes:
        rows: the table.
        facts: plan, versions and seconds.
    """

    rows: pd.DataFrame
    facts: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Runs:
        """What the folder holds."""
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        return cls(pd.read_parquet(folder / TABLE), facts)

    @property
    def seeds(self) -> list[int]:
        """Seeds of which every arm is there."""
        found = self.rows.groupby("seed")["arm"].nunique()
        return sorted(found[found == len(ARMS)].index.tolist())

    @property
    def numbers(self) -> list[Shown]:
        """The numbers that there are: without induction heads at the start nothing follows them."""
        there = set(self.rows["probe"] + " " + self.rows["metric"])
        return [one for one in NUMBERS if f"{one.probe} {one.metric}" in there]

    @property
    def compared(self) -> list[Shown]:
        """Those of which differences are shown: of yes and no there are only rates."""
        return [one for one in self.numbers if one is not COMPLETED]

    @property
    def turn(self) -> int:
        """The last step before fresh data returns."""
        return int(self.facts["plan"]["steps"])

    @property
    def steps(self) -> list[int]:
        """Measured steps."""
        return sorted(self.rows["step"].unique().tolist())

    @property
    def spread(self) -> str:
        """What intervals of differences are over."""
        n = len(self.seeds)
        return "95% intervals over sequences" if n == 1 else f"means of {n} seeds, 95% intervals over seeds"

    def n_of(self, arm: str, step: int, one: Shown) -> int:
        """How many values a difference is the mean of: seeds, or the sequences of the only one."""
        n = len(self.seeds)
        return n if n > 1 else int(self.row(arm, step, one, self.seeds[0])["n"])

    def row(self, arm: str, step: int, one: Shown, seed: int) -> pd.Series:
        """A number with its interval; the start is measured in one arm, for all."""
        arm = arm if step else str(self.rows.query("step == 0 and seed == @seed")["arm"].iloc[0])
        rows = self.rows.query("arm == @arm and seed == @seed and step == @step")
        return rows[(rows["probe"] == one.probe) & (rows["metric"] == one.metric)].iloc[0]

    def samples(self, arm: str, step: int, one: Shown, seed: int) -> np.ndarray:
        """Its value on every sequence."""
        return np.asarray(self.row(arm, step, one, seed)["samples"], dtype=np.float64)

    def each(self, one: Shown, now: tuple[str, int], before: tuple[str, int]) -> list[float]:
        """A number at one (arm, step) minus that at another, in every seed."""
        return [self.difference(one, now, before, seed)[0] for seed in self.seeds]

    def difference(
        self, one: Shown, now: tuple[str, int], before: tuple[str, int], seed: int | None = None
    ) -> Triple:
        """(value, lo, hi) of a number at one (arm, step) minus that at another, over the same sequences.

        Without a seed it is the mean over seeds with an interval over seeds, where there are several. In one seed the interval is
        over sequences. Members and twins are no pairs: of the memory gap both are resampled, each with its own change.
        """
        if seed is None and len(self.seeds) > 1:
            found = mean_over_seeds(np.array(self.each(one, now, before)))
            return found.value, found.lo, found.hi
        seed = self.seeds[0] if seed is None else seed

        def change(of: Shown) -> np.ndarray:
            return self.samples(*now, of, seed) - self.samples(*before, of, seed)

        if one is GAP:
            return two_sample_interval(change(MEMBERS), change(TWINS), lambda m, t: t - m, seed=0)
        over = bootstrap_mean(change(one)[:, None])
        return tuple(float(part[0]) for part in (over.value, over.lo, over.hi))  # type: ignore[return-value]

    def called(self, arm: str, step: int, seed: int) -> set[tuple[int, int]]:
        """Heads that are called induction heads."""
        arm = arm if step else str(self.rows.query("step == 0 and seed == @seed")["arm"].iloc[0])
        rows = self.rows.query("arm == @arm and seed == @seed and step == @step and probe == 'induction'")
        return {(int(row.layer), int(row.head)) for row in rows.itertuples()}
