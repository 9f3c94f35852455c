"""One row per run and member: how often the run was trained on it, and what it knows of it. No torch.

Members are the sequences whose memory was measured, those that a run was never trained on among them. Runs that declare the same
set (`members`: a lab series' manifest, or byrote.toml) have the same sequences in the same order, so that values can be compared
member by member.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade.runs import common_step, values_of
from byrote.probes.groups import Group
from byrote.probes.results import Results

PROBE, REPEATS = "exact_match", "repeats"
MEMBER_COLUMNS = ("run", "arm", "init_seed", "data_seed", "set", "member", "repeats", "value")


def member_rows(
    groups: Sequence[Group], metric: str = "accuracy", *, step: int | None = None
) -> pd.DataFrame:
    """A table of runs and members for one metric of `exact_match`.

    Args:
        groups: runs under the name of their arm.
        metric: one value per member, such as accuracy (share of its tokens predicted first) or loss.
        step: training step; None is the last that all runs have.

    Returns:
        `MEMBER_COLUMNS`: `set` is what the run declares as `members`, `member` the number within it, `repeats` how often the run
        was trained on it by its last step.

    Raises:
        ByroteError: no run, no step in common, a run that declares no set of members or was not measured on them, or runs of one
            set that were measured on other numbers of members.
    """
    runs: list[tuple[str, Results]] = [(one.name, run) for one in groups for run in one.runs]
    if not runs:
        raise ByroteError("there is no run", help="name results folders: --group ARM=GLOB")
    at = common_step([run for _, run in runs], step)
    tables = [_of_run(run, arm, metric, at) for arm, run in runs]
    table = pd.concat(tables, ignore_index=True)
    sizes = table.groupby(["set", "run"]).size().groupby("set").nunique()
    if (sizes > 1).any():
        raise ByroteError(
            f"runs with the members {sizes.index[sizes > 1][0]!r} were measured on different numbers of them",
            help="measure all with one command and one --sequences",
        )
    return table


def sharing_members(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups of one size that have members in common, together: linked by the sets that their runs name.

    Args:
        groups: whose runs declare their members.
    """
    found: list[tuple[set[Any], list[Group]]] = []
    for one in groups:
        sets, mine = {(run.facts.members, run.facts.parameters) for run in one.runs}, [one]
        for other in [known for known in found if known[0] & sets]:
            found.remove(other)
            sets, mine = sets | other[0], [*other[1], *mine]
        found.append((sets, mine))
    return [mine for _, mine in found]


def _of_run(run: Results, arm: str, metric: str, step: int) -> pd.DataFrame:
    named = run.facts.require("members", run=run.run, what_for="a comparison member by member")
    value, repeats = (values_of(run, PROBE, name, step) for name in (metric, REPEATS))
    if len(value) != len(repeats):
        raise ByroteError(
            f"{PROBE} of {run.run} has no value for every member",
            help=f"measure it again: byrote run ... -p {PROBE}",
        )
    facts = run.facts
    seeds = {
        name: np.nan if (seed := getattr(facts, name)) is None else float(seed)
        for name in ("init_seed", "data_seed")
    }
    columns = {
        "run": run.run,
        "arm": arm,
        **seeds,
        "set": named,
        "member": np.arange(len(value)),
        "repeats": repeats,
    }
    return pd.DataFrame(columns | {"value": value}, columns=list(MEMBER_COLUMNS))
