"""Differences of numbers that have no samples: runs of imported scores against each other, or against a measured run. No torch.

Nothing is tested: a difference without samples has no interval, no p and no direction of "better". Scores of heads stand
against each other by the heads' names; whether a name means the same head in both is for whoever imported them to say.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.probes.findings import run_name
from byrote.probes.results import Results
from byrote.probes.results.rows import row_label
from byrote.probes.results.schema import AXES
from byrote.probes.rules import NOT_TESTED, smallest_effect
from byrote.probes.wording import counted, number, probe_name, step_number

BY_NAME_NOTE = (
    "heads were compared by name, although it is unknown whether both runs started from the same weights"
)


def untested_rows(
    a: Results, b: Results, pairs: list[tuple[int, int]], *, heads: str = "auto"
) -> pd.DataFrame:
    """One row per number that both runs have: a, b and b - a; no interval, no test.

    Args:
        a, b: the runs.
        pairs: (step of A, step of B).
        heads: as `compare` takes it; only "auto" and "name" are possible here.

    Raises:
        ByroteError: they have no metric in common, or call two things by one name; or heads are wanted otherwise.
    """
    if heads not in ("auto", "name"):
        raise ByroteError(
            f"imported scores are matched by the names of heads, not {heads!r}",
            help="leave out --heads",
        )
    common = sorted(a.kinds.keys() & b.kinds.keys())
    if not common:
        theirs = (", ".join(sorted({probe for probe, _ in run.kinds})) or "nothing" for run in (a, b))
        raise ByroteError(
            f"{a.run} and {b.run} have no metric in common ({'; '.join(theirs)})",
            help="import a metric under the name that the other run has: --metric NAME",
        )
    for probe, metric in common:
        units = [_stated_unit(run, probe, metric) for run in (a, b)]
        if units[0] != units[1]:
            raise ByroteError(
                f"{probe}/{metric} of {a.run} is in {units[0]!r}, that of {b.run} in {units[1]!r}",
                help="import one of them under another name: --metric NAME",
            )
    parts = [_pair(a, b, probe, metric, pair) for pair in pairs for probe, metric in common]
    return pd.concat([p for p in parts if not p.empty] or parts[:1], ignore_index=True)


def untested_sentence(a: Results, b: Results, rows: pd.DataFrame) -> str:
    """What differs most, and that nobody tested it."""
    whose = " and ".join(run_name(run.run) for run in (a, b) if run.imported)
    were = "were" if a.imported and b.imported else "was"
    sentence = (
        f"{whose} {were} imported, without samples: differences have no intervals and nothing is tested."
    )
    heads = rows[rows["layer"].notna() & rows["position"].isna()]
    if heads.empty:
        return sentence
    row = heads.loc[heads["difference"].abs().idxmax()]
    where = f"step {step_number(row['step_a'])}"
    return (
        f"{sentence} Of {counted(len(heads), 'value')} of heads at matched steps, {probe_name(row['probe'])} of {row['head_a']} "
        f"differs most, {number(row['difference'], sign=True)} at {where}."
    )


def _pair(a: Results, b: Results, probe: str, metric: str, pair: tuple[int, int]) -> pd.DataFrame:
    left, right = (
        run.rows(probe, metric, step=step, valid=True) for run, step in zip((a, b), pair, strict=True)
    )
    merged = left.merge(right, on=list(AXES), suffixes=("_a", "_b"))
    info = a.info(probe)
    labels = [row_label(row) for row in merged[list(AXES)].itertuples(index=False)]
    table = merged[list(AXES)].assign(
        probe=probe,
        metric=metric,
        step_a=pair[0],
        step_b=pair[1],
        tokens_a=merged["tokens_seen_a"],
        tokens_b=merged["tokens_seen_b"],
        head_a=labels,
        head_b=labels,
        a=merged["value_a"],
        b=merged["value_b"],
        difference=merged["value_b"] - merged["value_a"],
        n=0,
        family=NOT_TESTED,
        smallest=smallest_effect(info, metric),
        change=NOT_TESTED,
    )
    return table.assign(**dict.fromkeys(("lo", "hi", "p", "q"), np.nan))


def _stated_unit(run: Results, probe: str, metric: str) -> str:
    """The unit as this run's own description has it: two runs may import different things under one name."""
    for stored in run.meta.get("plugins") or ():
        if stored.get("name") == probe:
            units = stored.get("units") or {}
            return str(units.get(metric.split("@")[0], stored.get("unit")))
    return run.info(probe).unit_of(metric)
