"""Sentences on what differs between two runs, or between two groups of runs: command line, report and pages. No torch.

Plain text, like `byrote.probes.findings`. Two runs, and groups of fewer than `MIN_SEEDS` seeds a side, are spoken of as
these runs; better and worse are said of arms alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from byrote.probes.comparable import BEST_HEAD, Comparison, measure_name
from byrote.probes.findings import induction, run_name
from byrote.probes.findings_arms import formed_in_arms, named_arms
from byrote.probes.registry import REGISTRY
from byrote.probes.rules import MIN_SEEDS, PRIMARY, UNCLEAR, change
from byrote.probes.wording import (
    all_of,
    between_steps,
    counted,
    interval,
    listed,
    number,
    p_value,
    sentence_case,
    step_number,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from byrote.probes.group_comparison import GroupComparison

THESE_TWO = "In these two runs"


def comparison_sentence(found: Comparison) -> str:
    """What differs between two runs, with intervals; "no clear change" where a difference is not sure or too small."""
    a, b = run_name(found.a), run_name(found.b)
    step_a, step_b = found.pairs[-1]
    where = f"{THESE_TWO}, at step {step_number(step_a)}"
    if step_a != step_b:
        where = f"{THESE_TWO}, at steps {step_number(step_a)} and {step_number(step_b)} (matched by {found.align})"
    loss, best = found.row("repeat_loss", "later_blocks"), found.row("prefix_matching", BEST_HEAD)
    parts = [] if loss is None else [_loss_difference(loss, a, b)]
    parts += [] if best is None else [_strongest_difference(best)]
    compared = f" {where}, {'; '.join(parts)}." if parts else ""
    return f"{induction(found.a, found.onset_a)}; {induction(found.b, found.onset_b)}.{compared}"


def _loss_difference(row: pd.Series, a: str, b: str) -> str:
    by = f"{interval(row['difference'], row['lo'], row['hi'], sign=True)} nats, n={row['n']}"
    if row["change"] == UNCLEAR:
        return f"loss on repeated random tokens shows no clear change ({by})"
    word = "higher" if row["difference"] > 0 else "lower"
    return f"{b}'s loss on repeated random tokens is {word} than {a}'s: {by}"


def _strongest_difference(row: pd.Series) -> str:
    heads = (
        f"{row['head_b']} {number(row['b'], places=2)} against {row['head_a']} {number(row['a'], places=2)}"
    )
    by = f"({heads}; {interval(row['difference'], row['lo'], row['hi'], sign=True)})"
    if row["change"] == UNCLEAR:
        return f"the strongest prefix-matching heads do not clearly differ {by}"
    return f"the strongest prefix-matching head is {'stronger' if row['difference'] > 0 else 'weaker'} {by}"


def tally(found: Comparison) -> str:
    """What two runs differ in first: the primary measure, and when induction heads appear; never which of them is better.

    Where the primary measure was not measured in both: on how many measures that have a better direction they differ.
    """
    a, b = run_name(found.a), run_name(found.b)
    if found.untested:
        return f"{counted(len(found.rows), 'number')} of {a} and {b} side by side, none of them tested"
    words = [change(row) for row in directed(found.rows).itertuples(index=False)]
    where = f"at step {step_number(found.pairs[-1][1])}"
    primary = next((row for one in PRIMARY if (row := found.row(*one)) is not None), None)
    if primary is not None:
        by = interval(primary["difference"], primary["lo"], primary["hi"], sign=True)
        word = primary["change"]
        of_loss = f"{word} of the loss" if word == UNCLEAR else f"the loss is {word}"
        text = (
            f"{_copying(a, primary['a'], b, primary['b'])} {where} ({of_loss}: {by} nats, n={primary['n']})"
        )
    elif not words:
        text = f"{b} and {a} have no measure with a better direction in common"
    else:
        ways = [f"{way} on {n}" for way in ("higher", "lower") if (n := words.count(way))]
        clear = f"is {' and '.join(ways)} of" if ways else "shows no clear change on any of"
        text = f"{b} {clear} {counted(len(words), 'measure')} against {a} {where}"
    return "; ".join(filter(None, (f"{THESE_TWO}, {text}", _onset_shift(found, a, b))))


def _copying(a: str, gain_a: float, b: str, gain_b: float) -> str:
    """``copying lowers the loss by 2.37 nats in unique and 0.50 in repeated``; of the loss on repeats minus that on the first block."""
    return f"copying lowers the loss by {number(-gain_a, places=2)} nats in {a} and {number(-gain_b, places=2)} in {b}"


def _onset_shift(found: Comparison, a: str, b: str) -> str:
    """When induction heads appear in one run and in the other; "" where one of them was not judged at several steps."""
    if any(not one.measured or one.only_step is not None for one in (found.onset_a, found.onset_b)):
        return ""
    when = {
        name: one.bracket
        for name, one in ((a, found.onset_a), (b, found.onset_b))
        if one.found and one.bracket
    }
    if len(when) < 2:
        where = (
            f"in {next(iter(when))} alone, {between_steps(*next(iter(when.values())))}"
            if when
            else "in neither"
        )
        return f"induction heads appear {where}"
    first, second = when.values()
    if first == second:
        return f"induction heads appear {between_steps(*first)} in both"
    return f"induction heads appear {between_steps(*first)} in {a}, {between_steps(*second)} in {b}"


def seed_tally(found: GroupComparison) -> str:
    """What two arms differ in by the primary measure: said of the arms where there are seeds enough, else of these runs.

    Where it was not measured: on how many measures that have a better direction they clearly differ.
    """
    these = "" if found.speaks_of_arms else f"{_these_runs(found)}, "
    primary = found.rows[found.rows["family"] == "primary"]
    if not primary.empty:
        row = primary.iloc[-1]
        sentence = _copying(found.a.name, row["a"], found.b.name, row["b"])
        sentence = sentence if these else sentence_case(sentence)
        return f"{these}{sentence} at step {step_number(int(row['step']))} ({row['change']})"
    words = [
        row.change for row in directed(found.rows.assign(layer=pd.NA, position=pd.NA)).itertuples(index=False)
    ]
    a, b = found.a.name, found.b.name
    where = (
        f"at step {step_number(found.steps[-1])}" if len(found.steps) == 1 else f"at {len(found.steps)} steps"
    )
    if not words:
        return f"{b} and {a} have no measure with a better direction in common"
    ways = ("worse", "better") if found.speaks_of_arms else ("lower", "higher")
    counts = [words.count(way) for way in ways]
    if not any(counts):
        return f"{these}{b} and {a} show no clear change on any of {len(words)} measures {where}"
    parts = [f"{way} on {count}" for way, count in zip(ways, counts, strict=True) if count]
    return f"{these}{b} is {' and '.join(parts)} of {len(words)} measures than {a} {where}"


def _these_runs(found: GroupComparison) -> str:
    return f"In these runs ({len(found.a)} and {len(found.b)} seeds)"


def group_sentence(found: GroupComparison) -> str:
    """What two arms differ in: counts of seeds, the primary measure, and how far seeds alone spread."""
    parts = [formed_sentence(found)]
    primary = found.rows[found.rows["family"] == "primary"]
    if not primary.empty:
        parts.append(_primary_sentence(found, primary.iloc[-1]))
    return ". ".join(part for part in parts if part) + "."


def arms_headline(found: Sequence[GroupComparison]) -> str:
    """What arms differ in, as a title: in how many seeds of each induction heads form, else what copying is worth in them.

    Args:
        found: comparisons with one arm A.
    """
    return formed_headline(found) or copying_sentence(found, by_word=True)


def formed_headline(found: Sequence[GroupComparison]) -> str:
    """In how many seeds of each arm induction heads form; "" where that was not measured in all runs, or nothing was compared.

    Args:
        found: comparisons with one arm A.
    """
    formed = [one.formed for one in found if one.formed is not None]
    if not formed or len(formed) < len(found):
        return ""
    of_others = {one.b.name: each[2:] for one, each in zip(found, formed, strict=True)}
    return formed_in_arms({found[0].a.name: formed[0][:2]} | of_others)


def copying_sentence(found: Sequence[GroupComparison], *, by_word: bool = False) -> str:
    """What copying is worth in each arm, and which arms clearly differ from the baseline; "" where it was not measured in all.

    Args:
        found: comparisons with one arm A.
        by_word: say it once of all arms that are better, worse, or show no clear change; else of each with the difference
            and its interval.
    """
    rows = [one.rows[one.rows["family"] == "primary"] for one in found]
    if not rows or any(mine.empty for mine in rows):
        return ""
    last = [mine.iloc[-1] for mine in rows]  # of repeats minus the first block: a gain is negative
    values = [f"{number(-last[0]['a'], places=2)} nats in {found[0].a.name}"]
    alike: dict[str, list[tuple[float, str]]] = {}
    for one, row in zip(found, last, strict=True):
        alike.setdefault(row["change"] if by_word else one.b.name, []).append((-row["b"], one.b.name))
    in_words = {
        one.b.name: row["change"] if by_word else _gain_against(row)
        for one, row in zip(found, last, strict=True)
    }
    for arms in alike.values():
        ends = dict.fromkeys(number(end(arms)[0], places=2) for end in (min, max))
        values.append(
            f"{' to '.join(ends)} in {named_arms([name for _, name in arms])} ({in_words[arms[0][1]]})"
        )
    return f"Copying lowers the loss by {', '.join(values)}"


def _gain_against(row: pd.Series) -> str:
    """``worse, −0.43 [−0.63, −0.24]``: how much less or more copying is worth in an arm than in the baseline arm."""
    by = interval(-row["difference"], -row["hi"], -row["lo"], sign=True)
    return f"{row['change']}, {by}"


def formed_sentence(found: GroupComparison) -> str:
    """``5 of 5 seeds of unique form induction heads, 1 of 5 of repeated (p = 0.048); onsets ... (p = 0.02)``."""
    if found.formed is None:
        return "The induction verdict was not measured in all runs"
    yes_a, n_a, yes_b, n_b = found.formed
    counts = (
        f"{yes_a} of {n_a} {'seed' if n_a == 1 else 'seeds'} of {found.a.name} and {yes_b} of {n_b} of {found.b.name} "
        "form lasting induction heads"
    )
    exact = f"Holm-corrected: Fisher's exact test, p = {p_value(found.p_formed)}; order of onsets, p = {p_value(found.p_onset)}"
    few = (
        ""
        if found.speaks_of_arms
        else f", too few for a conclusion about the arms: {MIN_SEEDS} a side are needed"
    )
    return f"{counts} ({exact}){few}"


def onset_lines(found: GroupComparison) -> list[str]:
    """When the first lasting induction head of each seed appeared, one line per arm; "never" where none did."""
    lines = []
    for one in (found.a, found.b):
        mine = found.onsets[found.onsets["arm"] == one.name]
        if not mine["formed"].isna().any():
            alike: dict[str, list[Any]] = {}
            for row in mine.itertuples(index=False):
                alike.setdefault(_when(row), []).append(row)
            each = [f"{when} ({_seeds(rows, len(mine))})" for when, rows in alike.items()]
            lines.append(f"{one.name}, first lasting induction head: {listed(each, most=20)}")
    return lines


def _seeds(rows: Sequence[Any], n_seeds: int) -> str:
    """``seeds 0 and 4``, ``all 5 seeds``, or runs by name where no seed is declared."""
    if len(rows) == n_seeds > 1:
        return "both seeds" if n_seeds == 2 else f"all {n_seeds} seeds"
    if any(pd.isna(row.seed) for row in rows):
        return all_of([run_name(row.run) for row in rows])
    return f"{'seed' if len(rows) == 1 else 'seeds'} {all_of([str(row.seed) for row in rows])}"


def _when(row: Any) -> str:
    if pd.isna(row.step_at):
        return "never"
    return between_steps(None if pd.isna(row.step_before) else int(row.step_before), int(row.step_at))


def _primary_sentence(found: GroupComparison, row: pd.Series) -> str:
    unit = REGISTRY[row["probe"]].unit_of(row["metric"]) if row["probe"] in REGISTRY else ""
    a, b = found.a.name, found.b.name
    values = f"{number(row['a'])} {unit} in {a}, {number(row['b'])} in {b}"
    by = interval(row["difference"], row["lo"], row["hi"], sign=True)
    if pd.isna(row["lo"]):
        by = f"{number(row['difference'], sign=True)}, no interval,"
    times = row["seed_to_sequence"]
    spread = (
        "" if pd.isna(times) else f" (seeds spread {number(times, places=1)} times as far as sequences do)"
    )
    opening = f"{_these_runs(found)}, the" if not found.speaks_of_arms else "The"
    is_what = "does not clearly change" if row["change"] == UNCLEAR else f"is clearly {row['change']} in {b}"
    name = measure_name(row["probe"], row["metric"])
    return f"{opening} primary measure, {name}, {is_what}: {values}; difference {by} {unit}, {row['how']}{spread}"


def directed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows about the whole model, or the strongest head, that have a better direction."""
    if rows.empty:
        return rows
    rows = rows[rows["layer"].isna() & rows["position"].isna()]
    known = [
        p in REGISTRY and REGISTRY[p].better_of(m.partition(":")[0]) is not None
        for p, m in zip(rows["probe"], rows["metric"], strict=True)
    ]
    return rows[known]
