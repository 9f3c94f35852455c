"""Groups of runs on the command line: `--group ARM=GLOB`, and how a comparison of two groups is printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from byrote.checkpoints.errors import ByroteError
from byrote.cli import options
from byrote.cli.command import option
from byrote.cli.output import Column, Output, Row, columns
from byrote.probes.wording import MISSING, clean, count, counted, number, p_value, plain

if TYPE_CHECKING:
    from byrote.probes.group_comparison import GroupComparison
    from byrote.probes.groups import Group
    from byrote.probes.results import Results

GROUP = option(
    "Runs that differ only in their seeds, under the name of their arm: results folders by a quoted glob. Repeat for each "
    "arm, the baseline first. A report without it groups runs by the arm that they declare: a lab series' manifest does, and "
    "so does byrote.toml beside results.",
    multiple=True,
    metavar="ARM=GLOB",
)


def _shown(row: Row, name: str, *, sign: bool = True) -> str:
    return number(row[name], places=3 if abs(row["difference"]) < 0.01 else 2, sign=sign)


def _interval(row: Row) -> str:
    if row["lo"] is None:
        return MISSING
    return f"[{_shown(row, 'lo')}, {_shown(row, 'hi')}]"


COLUMNS = (
    *columns("arm_a arm_b probe"),
    Column("metric", "metric"),
    Column("step", "step", lambda row: count(row["step"]), right=True, wide=True),
    Column("a", "A", lambda row: _shown(row, "a", sign=False), right=True),
    Column("b", "B", lambda row: _shown(row, "b", sign=False), right=True),
    Column("difference", "B - A", lambda row: _shown(row, "difference"), right=True),
    Column("_interval", "95% interval", _interval, right=True),
    *columns("lo hi"),
    Column("seeds_a"),
    Column("seeds_b"),
    Column("n", "n", lambda row: count(row["n"]) if row["n"] else MISSING, right=True, wide=True),
    Column("p"),
    Column("q", "q", lambda row: p_value(row["q"]), right=True),
    Column("family", "family", wide=True),
    *columns("smallest sd_a sd_b sequence_se"),
    Column(
        "seed_to_sequence",
        "seeds/seq",
        lambda row: number(row["seed_to_sequence"], places=1),
        right=True,
        wide=True,
    ),
    *columns("how values_a values_b runs_a runs_b"),
    Column("change", "change"),
)


def named_runs(given: Sequence[str]) -> list[tuple[str, list[Results]]]:
    """The runs of `--group` under the names of their arms, in the order given.

    Raises:
        ByroteError: no name, no runs, or a name twice.
    """
    found: dict[str, list[Results]] = {}
    for text in given:
        name, equals, places = text.partition("=")
        if not (name.strip() and equals and places):
            raise ByroteError(
                f"--group {text!r} is not ARM=GLOB", help="write it like --group unique='results/unique-*'"
            )
        if name in found:
            raise ByroteError(
                f"two groups are called {name!r}", help="put all runs of an arm into one --group"
            )
        found[name] = options.open_results([places])
    return list(found.items())


def named_groups(given: Sequence[str]) -> list[Group]:
    """The groups of `--group`, in the order given.

    Raises:
        ByroteError: no name, no runs, a name twice, or runs that are no group.
    """
    from byrote.probes.groups import group

    return [group(name, runs) for name, runs in named_runs(given)]


def two_groups(given: Sequence[str]) -> tuple[Group, Group]:
    """Baseline and the other, of `--group` given twice.

    Raises:
        ByroteError: not two.
    """
    found = named_groups(given)
    if len(found) != 2:
        raise ByroteError(
            f"{counted(len(found), 'group')} given; a comparison takes two",
            help="give two, the baseline first: --group unique='results/unique-*' --group repeated='results/repeated-*'",
        )
    return found[0], found[1]


def group_rows(found: GroupComparison) -> list[dict[str, Any]]:
    """The rows as CSV and JSON have them."""
    arms = {
        "arm_a": found.a.name,
        "arm_b": found.b.name,
        "runs_a": list(found.a.runs),
        "runs_b": list(found.b.runs),
    }
    lists = ("values_a", "values_b")
    return [
        {name: value if name in lists else plain(value) for name, value in row.items()} | arms
        for row in found.rows.to_dict("records")
    ]


def print_groups(found: GroupComparison, out: Output) -> list[dict[str, Any]]:
    """What two arms differ in: the sentences, every seed's onset, then in a table the metrics, the primary one first.

    Returns:
        All rows, for data.
    """
    from byrote.probes.findings_compared import onset_lines, seed_tally

    out.headline(found.sentence)
    out.headline(f"{seed_tally(found)}.")
    for line in onset_lines(found):
        out.headline(line)
    rows = group_rows(found)
    if out.machine:
        return rows
    order = ("primary", "secondary", "further")
    shown = sorted(
        (row for row in rows if row["family"] in order), key=lambda row: order.index(row["family"])
    )
    title = f"A = {clean(found.a.name)} ({len(found.a)} seeds), B = {clean(found.b.name)} ({len(found.b)})"
    out.session.data("")
    out.rows(COLUMNS, shown, title=title, group="probe")
    out.prose(
        "Intervals cover training seeds and test sequences. seeds/seq: how many times as far as the choice of sequences "
        "moves one run's number the seeds move it. The primary metric decides; secondary ones are corrected together (Holm), "
        "further ones by Benjamini-Hochberg."
    )
    return rows


def arms_to_compare(runs: Sequence[Results]) -> list[Group]:
    """Arms of several seeds among runs, in the order of their first runs; none where runs are to be compared one by one.

    Args:
        runs: results of one run each.
    """
    from byrote.probes.groups import groups_of

    arms = {run.facts.arm for run in runs}
    return groups_of(runs) if len(runs) > 2 and None not in arms and 1 < len(arms) < len(runs) else []


def baseline_first(runs: Sequence[Results]) -> list[Results]:
    """Runs of a folder with the control first, or else those on unique data; as they are where neither is among them."""
    kinds = [run.arm.get("kind") for run in runs]
    wanted = next((kind for kind in ("control", "unique") if kind in kinds), None)
    return sorted(runs, key=lambda run: run.arm.get("kind") != wanted) if wanted else list(runs)


def refuse_both(paths: Sequence[Any], groups: Sequence[str]) -> None:
    """Runs are named one way or the other.

    Raises:
        click.UsageError: neither, or both.
    """
    if bool(groups) == bool(paths):
        raise click.UsageError("give results folders, the baseline first, or two groups with --group")
