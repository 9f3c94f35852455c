"""Do experiments that share one training run interfere? Members planted together against the same ones planted in two halves. No torch.

Source: Bordt and Pawelczyk 2025, arXiv:2509.23383 (Train once, answer all): experiment i is independent of the others T where its outcome
in a run with i alone is distributed as in a run with i and T. The halves, the pairs of seeds and the smallest effect are byrote's own.

1. a whole and its half: an arm that was trained on every member that the other one was trained on, as often, and on more (the lab's
   `planted = "all"` and "even", "odd"); runs of one seed have the same members, weights at step 0 and fresh data
2. per seed: the mean over the half's members of whole minus half; over halves their mean. By count: the same for the members that
   were planted that often
3. never planted: the same of members that neither run was trained on: what planting does to every sequence of their kind, such as
   canaries of uniform tokens among other text. Beyond it: the first less this, seed by seed, what is of the members themselves
4. independent: the difference is significantly within the smallest effect on either side (two one-sided tests, MIN_SEEDS seeds);
   dependent: it is significantly beyond; otherwise not decided, with the margin that could have been shown
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade.verdicts import Rule, Verdict, judge_effects
from byrote.probes.rules import NOT_REPRODUCED, REPRODUCED, UNDECIDED

PLANTED, NEVER, BEYOND = "planted", "never planted", "planted beyond never planted"
INDEPENDENT, DEPENDENT, OPEN = "independent", "dependent", "not decided"
WORDS = {REPRODUCED: INDEPENDENT, NOT_REPRODUCED: DEPENDENT, UNDECIDED: OPEN}


@dataclass(frozen=True)
class Dependence:
    """What planting members together does to each of them.

    Attributes:
        whole, halves: names of the arms.
        planted: verdict on the members that the halves were trained on.
        by_count: number of times planted -> the same of these members alone.
        never: of members that were trained on in neither; None where there are none.
        beyond: planted less never, seed by seed; None where there are none.
    """

    whole: str
    halves: tuple[str, ...]
    planted: Verdict
    by_count: dict[int, Verdict]
    never: Verdict | None
    beyond: Verdict | None


def dependence_word(verdict: Verdict) -> str:
    """Independent, dependent, or not decided."""
    return WORDS[verdict.word]


def dependence(members: pd.DataFrame, *, smallest: float) -> Dependence:
    """Whether members that were planted together interfere.

    Args:
        members: columns arm, set, init_seed, data_seed, member, repeats and value; each run with each member once.
        smallest: smallest effect of interest on the value, above 0.

    Raises:
        ByroteError: missing columns, or no arm that was trained on all that another one was trained on, and on more.
    """
    missing = {"arm", "set", "init_seed", "data_seed", "member", "repeats", "value"} - set(members)
    if missing:
        raise ByroteError(
            f"the dependence check needs {', '.join(sorted(missing))}", help="make one row per run and member"
        )
    if members[["init_seed", "data_seed"]].isna().to_numpy().any():
        raise ByroteError(
            "the dependence check pairs runs by seed, and a run declares none",
            help="declare it in byrote.toml beside the results: seed = ...",
        )
    whole, halves = _nested(members)
    both = [_paired(members, whole, half) for half in halves]
    rule = Rule("stays", smallest)
    pairs = pd.concat(both, ignore_index=True)
    planted = pairs[pairs["repeats"] > 0]
    counts = sorted({int(count) for count in planted["repeats"]})
    never = pairs[(pairs["repeats"] == 0) & (pairs["repeats_whole"] == 0)]
    effect, apart = _by_seed(planted), _by_seed(never)
    of_both = effect.index.intersection(apart.index)
    return Dependence(
        whole,
        tuple(halves),
        judge_effects(effect.to_numpy(), rule),
        {
            count: judge_effects(_by_seed(planted[planted["repeats"] == count]).to_numpy(), rule)
            for count in counts
        },
        judge_effects(apart.to_numpy(), rule) if len(apart) else None,
        judge_effects((effect[of_both] - apart[of_both]).to_numpy(), rule) if len(of_both) else None,
    )


def _keyed(members: pd.DataFrame, arm: str) -> pd.DataFrame:
    """The rows of an arm by seed and member."""
    mine = members[members["arm"] == arm]
    return mine.set_index(["set", "init_seed", "data_seed", "member"])[["repeats", "value"]]


def _nested(members: pd.DataFrame) -> tuple[str, list[str]]:
    """The arm that was trained on all that others were trained on, as often, and these others."""
    names = list(dict.fromkeys(members["arm"]))
    found: dict[str, list[str]] = {}
    for whole in names:
        of = _keyed(members, whole)["repeats"]
        for half in names:
            shared = pd.concat([of, _keyed(members, half)["repeats"]], axis=1, join="inner")
            if half == whole or shared.empty:
                continue
            all_of, part = (shared.iloc[:, k].to_numpy(np.float64) for k in (0, 1))
            inside = (part == 0) | (part == all_of)
            if inside.all() and (part > 0).any() and (all_of > part).any():
                found.setdefault(whole, []).append(half)
    if not found:
        raise ByroteError(
            "no arm was trained on every member that another one was trained on, as often, and on more",
            help='train the lab arm planted three times: planted = "all", "even" and "odd", the same seeds of each',
        )
    whole = max(found, key=lambda name: len(found[name]))
    return whole, found[whole]


def _paired(members: pd.DataFrame, whole: str, half: str) -> pd.DataFrame:
    """Whole minus half by seed and member, with how often either was trained on it."""
    one, other = _keyed(members, whole), _keyed(members, half)
    both = other.join(one.add_suffix("_whole"), how="inner")
    both = both.assign(half=half, difference=both["value_whole"] - both["value"])
    return both.reset_index()


def _by_seed(pairs: pd.DataFrame) -> pd.Series:
    """The mean difference of each seed: over the members of each half, then over halves."""
    seeds = ["init_seed", "data_seed"]
    halves = pairs.groupby([*seeds, "half"], dropna=False)["difference"].mean()
    return halves.groupby(level=seeds, dropna=False).mean().astype(np.float64)
