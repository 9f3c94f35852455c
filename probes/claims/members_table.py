"""Planted members as rows of the table of runs: by how often each was planted, by length of prompt, and over training. No torch.

1. members of one run that were planted equally often are a place of their own, "ARM x16": they differ from those of "ARM x32" in
   nothing but how often they were seen, since where each stands is drawn at random
2. so is each length of prompt, "ARM after_half": what comes out of planted members, less what comes out of those never planted
3. the run's own rows have the share extracted of all that were planted, and how well those extracted at a step say which are
   extracted at the last measured one: precision, the share of them that still are; recall, the share of the last ones already among
   them (Biderman et al. 2023). Precision of none, and recall where none are extracted at last, are not defined
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Bool

from byrote.checkpoints.errors import ByroteError
from byrote.probes.claims.record import Row
from byrote.probes.claims.runs_table import FACTS, NAMES, SEEDS
from byrote.probes.degrade.capacity import member_values
from byrote.probes.results import Results

PROMPTS = ("after_quarter", "after_half", "after_three_quarters")
MEMBER_METRICS = (
    "extracted", "exposure_bits", "n_members", "next_extracted", "precision_for_final", "recall_of_final",
)  # fmt: skip
_REPEATS = ("exact_match", "repeats")
_READ = {
    "extracted": ("extraction", "score"),
    "exposure_bits": ("exposure", "bits"),
    **{name: ("extraction", name) for name in PROMPTS},
}


def counted(arm: str, times: int) -> str:
    """What members of an arm that were planted so often are called as an arm."""
    return f"{arm} x{times}"


def prompted(arm: str, prompt: str) -> str:
    """What a length of prompt of `PROMPTS` is called as an arm."""
    return f"{arm} {prompt}"


def members_of(results: Results) -> dict[int, pd.DataFrame]:
    """What is stored of the members of one run, by step.

    Args:
        results: of the run, with `exact_match`, `extraction` and `exposure`.

    Returns:
        Step -> a row per member, in the order they were stored in: repeats (times planted), extracted and what comes out after each
        of `PROMPTS` (1 or 0), exposure_bits. Empty where the run has no members.

    Raises:
        ByroteError: its members are not the same at every step.
    """
    found = {step: members for step in results.steps if (members := _members(results, step)) is not None}
    if len({len(members) for members in found.values()}) > 1:
        raise ByroteError(
            f"{results.run}: its steps were measured on different numbers of members",
            help="remove its grid's folder and start again",
        )
    return found


def with_members(table: pd.DataFrame, found: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """The rows of one run, and what its members say; a run without members as it is.

    Args:
        table: of the run, one row per written step.
        found: of `members_of`.
    """
    if not found:
        return table
    last = found[max(found)]["extracted"].to_numpy(np.float64) > 0
    own, more = dict[int, Row](), list[Row]()
    for step, members in found.items():
        planted = members["repeats"] > 0
        out = members["extracted"].to_numpy(np.float64) > 0
        own[step] = {
            "extracted": float(members["extracted"][planted].mean()),
            "exposure_bits": float(members["exposure_bits"][planted].mean()),
            **_foretold(out, last),
        }
        more += _by_count(_known(table, step), members) + _by_prompt(_known(table, step), members)
    added = pd.DataFrame.from_dict(own, orient="index").reindex(table["step"]).reset_index(drop=True)
    return pd.concat(
        [pd.concat([table.reset_index(drop=True), added], axis=1), pd.DataFrame(more)], ignore_index=True
    )


def _known(table: pd.DataFrame, step: int) -> Row:
    """What is known of the run itself: its names, seeds and size."""
    columns = [name for name in (*NAMES, *SEEDS, "step", *FACTS) if name in table]
    return dict(table.loc[table["step"] == step, columns].iloc[0].to_dict())


def _by_count(known: Row, members: pd.DataFrame) -> list[Row]:
    return [
        known
        | {"arm": counted(known["arm"], int(times)), "epochs": float(times), "n_members": float(len(mine))}
        | {name: float(mine[name].mean()) for name in ("extracted", "exposure_bits")}
        for times, mine in members.groupby("repeats")
    ]


def _by_prompt(known: Row, members: pd.DataFrame) -> list[Row]:
    planted = members["repeats"] > 0
    return [
        known
        | {"arm": prompted(known["arm"], name)}
        | {"next_extracted": float(members[name][planted].mean() - members[name][~planted].mean())}
        for name in PROMPTS
    ]


def _foretold(out: Bool[np.ndarray, " n"], last: Bool[np.ndarray, " n"]) -> dict[str, float]:
    """Precision and recall of what is extracted now for what is at last."""
    both = float((out & last).sum())
    return {
        "precision_for_final": both / out.sum() if out.any() else np.nan,
        "recall_of_final": both / last.sum() if last.any() else np.nan,
    }


def _members(results: Results, step: int) -> pd.DataFrame | None:
    """A row per member, in the order they were stored in; None where a run has none."""
    rows = results.samples(step)
    columns = {name: member_values(rows, *at) for name, at in {"repeats": _REPEATS, **_READ}.items()}
    lengths = {len(values) for values in columns.values()}
    return pd.DataFrame(columns) if len(lengths) == 1 and 0 not in lengths else None
