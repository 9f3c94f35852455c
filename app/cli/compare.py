"""`byrote compare`: runs, or arms of several seeds, against a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from byrote.checkpoints.errors import ByroteError
from byrote.cli import options
from byrote.cli.command import argument, option, verb
from byrote.cli.expect import expected, say_checks
from byrote.cli.group_options import COLUMNS as ARM_COLUMNS
from byrote.cli.group_options import (
    GROUP,
    arms_to_compare,
    baseline_first,
    print_groups,
    refuse_both,
    two_groups,
)
from byrote.cli.output import Column, Output, Row, columns
from byrote.cli.session import Session
from byrote.probes.wording import MISSING, count, number, p_value, plain

if TYPE_CHECKING:
    from byrote.probes.comparable import Comparison
    from byrote.probes.groups import Group
    from byrote.probes.results import Results

EXACT, IMPORTED = "weights only: exact, no sampling error", "imported, no samples: not tested"
_KINDS = ("verdict", "model", "direct", "head", "weights")  # order of the table
_IN_WORDS = {"no clear change": "unclear"}  # the table's narrow column; data keep the full words


def _shown(row: Row, name: str, *, sign: bool = True) -> str:
    """A number with two decimals, three where the difference is small: the table has to fit 80 columns."""
    small = row["difference"] is not None and abs(row["difference"]) < 0.01
    return number(row[name], places=3 if small else 2, sign=sign)


COLUMNS = (
    *columns("run_a run_b probe"),
    Column("metric", "metric", lambda row: row["metric"].removesuffix("_repeat")),  # of @jittered_repeat
    *columns("head_a head_b"),
    Column("_head", "head", lambda row: _both(row["head_a"], row["head_b"])),
    *columns("position step_a step_b tokens_a tokens_b"),
    Column("_step", "step", lambda row: _both(count(row["step_a"]), count(row["step_b"])), right=True),
    Column("a", "A", lambda row: _shown(row, "a", sign=False), right=True),
    Column("b", "B", lambda row: _shown(row, "b", sign=False), right=True),
    Column("difference", "B - A", lambda row: _shown(row, "difference"), right=True),
    Column(
        "_interval",
        "95% interval",
        lambda row: MISSING if row["lo"] is None else f"[{_shown(row, 'lo')}, {_shown(row, 'hi')}]",
        right=True,
    ),
    *columns("lo hi"),
    Column("n", "n", lambda row: count(row["n"]) if row["n"] else MISSING, right=True, wide=True),
    Column("p"),
    Column("q", "q", lambda row: p_value(row["q"]), right=True, wide=True),
    *columns("family smallest seed training_seed_a training_seed_b"),
    Column("change", "change", lambda row: _IN_WORDS.get(row["change"], row["change"])),
    Column("reason"),
)


@verb(
    "byrote compare results/unique results/repeated",
    "byrote compare results/a results/b --align tokens --csv",
    "byrote compare results",
    "byrote compare --group unique='results/unique-*' --group repeated='results/repeated-*'",
)
def compare(
    session: Session,
    *,
    results: tuple[str, ...] = argument("[RESULT]...", required=False),
    group: tuple[str, ...] = GROUP,
    align: str = option(
        "Match checkpoints by optimiser step, tokens seen, or held-out loss.",
        type=click.Choice(("step", "tokens", "loss")),
        default="step",
    ),
    at: str = option("last, all, or a step of A that B matches.", default="last", metavar="STEP"),
    heads: str = option(
        "How heads are matched. name: by name, which needs runs of the same init. sorted: the strongest with the strongest. mass: their sum above chance. matched: one to one within layers, by their other scores. auto: by name where inits agree, else sorted and "
        "mass.",
        type=click.Choice(("auto", "name", "sorted", "mass", "matched")),
        default="auto",
    ),
    top: int = option(
        "Heads in the table; --csv and --json have all.", metavar="N", type=options.NATURAL, default=3
    ),
    expect: Path | None = options.EXPECT,
    out: Output,
) -> int:
    """Compare run B with run A, the baseline, or two arms of several seeds: what differs, and how certain that is.

    RESULT is a results folder, a folder of several, or a quoted glob; the first run is the baseline A, and every other one is
    compared with it. More than two runs that declare arms of several seeds are compared as arms, with the first run's arm as the
    baseline. In a folder of several, the baseline is the control or, failing that, the run on unique data.

    Of two runs: differences are B - A on the same sequences, with 95% intervals over sequences. Two seeds of one arm differ just as
    significantly, so nothing is called better or worse: every statement is about these two runs. The table has the numbers about
    the whole model, the strongest head of each kind, and the heads whose main number clearly changed; CSV and JSON have every
    number. Heads are compared by name only where both runs started from the same weights.

    Of two groups (--group twice): intervals cover training seeds and sequences, paired by seed where init and unique data are
    shared; onsets are compared as ranks, with "never" after every step, and counts of seeds exactly. Better and worse are used only
    with 5 seeds or more per arm. One row per number; CSV and JSON have the values of every seed.

    A change is reported when its whole interval lies beyond the metric's smallest effect (`byrote probes NAME`) and q is below
    0.05: one primary metric, the copying gain; eight secondary ones corrected together (Holm); heads, and all else, by
    Benjamini-Hochberg, steps counted. Runs that were not measured alike are refused with the command that fixes it.
    """
    checks_of = expected(expect)
    refuse_both(results, group)
    if group:
        runs, groups = [], list(two_groups(group))
    else:
        runs = _runs(session, results)
        groups = arms_to_compare(runs)
    checks = checks_of(runs or [run for one in groups for run in one.runs])
    if len(runs) > 2:
        first = groups[0].name if groups else runs[0].run
        session.note(f"{first} is the baseline; name another run first to compare with that")
    rows: list[dict[str, Any]] = []
    for i, arm in enumerate(groups[1:]):
        _between(session, out, first=i == 0)
        rows += _compare_groups(session, groups[0], arm, align, at, out)
    for i, run in enumerate(runs[1:] if not groups else ()):
        _between(session, out, first=i == 0)
        rows += _compare_runs(session, (runs[0], run), align, at, heads, top, out)
    if out.machine:
        out.rows(ARM_COLUMNS if groups else COLUMNS, rows)
    return say_checks(session, checks, out=out)


def _runs(session: Session, results: Sequence[str]) -> list[Results]:
    """The runs that are compared, the baseline first.

    Raises:
        click.UsageError: there is one.
    """
    runs = options.open_results(results)
    if not (Path(results[0]) / "run.json").is_file():
        runs = baseline_first(runs)
    if len(runs) == 1 and len(results) > 1:
        runs = runs * 2
    if len(runs) == 1:
        raise click.UsageError("Missing argument 'B': name a second run to compare with the first")
    where = [run.path.resolve() for run in runs]
    if where[0] in where[1:]:
        from byrote.probes.degradation import with_itself

        session.warn(f"warning: {with_itself(str(runs[0].path))}")
    return runs


def _compare_runs(
    session: Session,
    runs: tuple[Results, Results],
    align: str,
    at: str,
    heads: str,
    top: int,
    out: Output,
) -> list[dict[str, Any]]:
    """Say what two runs differ in; the rows."""
    from byrote.checkpoints.lab.arms import unequal_data
    from byrote.probes import findings, findings_compared
    from byrote.probes.degradation import compare as compare_results

    comparison = compare_results(*runs, align=align, at=_at(at), heads=heads)
    out.headline(comparison.sentence)
    out.headline(f"{findings_compared.tally(comparison)}.")
    out.headline(f"A {findings.first_head(comparison.a, comparison.onset_a)}")
    out.headline(f"B {findings.first_head(comparison.b, comparison.onset_b)}")
    rows = _rows(comparison, runs)
    if not out.machine:
        _print_table(session, comparison, rows, top=top, out=out)
        out.prose(_seeds(runs))
    if text := unequal_data(runs[0].arm, runs[1].arm):
        session.note(f"note: {text}")
    for note in comparison.notes:
        session.note(f"note: {note}")
    return rows


def _between(session: Session, out: Output, *, first: bool) -> None:
    """An empty line between two comparisons on a terminal."""
    if not out.machine and not first:
        session.data("")


def _compare_groups(
    session: Session, a: Group, b: Group, align: str, at: str, out: Output
) -> list[dict[str, Any]]:
    """Say what two arms differ in; the rows."""
    from byrote.probes.group_comparison import compare_groups

    found = compare_groups(a, b, align=align, at=_at(at))
    rows = print_groups(found, out)
    for note in found.notes:
        session.note(f"note: {note}")
    return rows


def _at(at: str) -> Literal["last", "all"] | int:
    if at in ("last", "all"):
        return "all" if at == "all" else "last"
    if not at.isdigit():
        raise ByroteError(f"--at {at!r} is not a step", help="use last, all, or a step of A such as --at 512")
    return int(at)


def _rows(comparison: Comparison, runs: Sequence[Results]) -> list[dict[str, Any]]:
    from byrote.probes.rules import NOT_TESTED

    seeds = dict(
        zip(("training_seed_a", "training_seed_b"), (run.training_seed for run in runs), strict=True)
    )
    seeds["seed"] = runs[0].sequence_seed
    rows = []
    for row in comparison.rows.to_dict("records"):
        reason = IMPORTED if row["change"] == NOT_TESTED else EXACT if row["n"] == 0 else None
        extra = {"run_a": comparison.a, "run_b": comparison.b, "reason": reason} | seeds
        rows.append({name: plain(value) for name, value in row.items()} | extra)
    return rows


def _print_table(
    session: Session, comparison: Comparison, rows: Sequence[Row], *, top: int, out: Output
) -> None:
    """Verdicts, the whole model, then the heads that clearly changed most; how many rows are left out."""
    at = [[row for row in rows if (row["step_a"], row["step_b"]) == pair] for pair in comparison.pairs]
    shown = [row for part in at for row in _chosen(part, top)]
    session.data("")
    several = len(comparison.pairs) > 1
    out.rows(
        [c for c in COLUMNS if several or c.name != "_step"], shown, title=_title(comparison), group="probe"
    )
    if len(rows) > len(shown):
        session.note(
            f"{len(rows) - len(shown):,} more values: --top shows more heads, --csv and --json have all"
        )


def _title(comparison: Comparison) -> str:
    step_a, step_b = comparison.pairs[-1]
    where = f"step {step_a:,}" if step_a == step_b else f"step {step_a:,} of A, {step_b:,} of B"
    if len(comparison.pairs) > 1:
        where = f"{len(comparison.pairs)} matched steps"
    return f"A = {comparison.a}, B = {comparison.b}, {where}"


def _seeds(runs: Sequence[Results]) -> str:
    """Seeds behind the numbers, and what one run per arm leaves unknown; of imported scores, that they are."""
    from byrote.probes import findings

    if any(run.imported for run in runs):
        return "; ".join(f"{run.run} is {findings.imported(run)}" for run in runs if run.imported)
    trained = [run.training_seed for run in runs]
    known = "" if None in trained else f", training seeds {trained[0]} (A) and {trained[1]} (B)"
    return f"sequence seed {runs[0].sequence_seed}{known}: one run each, the spread between training seeds is not in the intervals"


def _chosen(rows: Sequence[Row], top: int) -> list[Row]:
    """Rows of one pair of steps for the table: curves and details stay out, heads only where the main metric clearly changed."""
    from byrote.probes.registry import REGISTRY

    order = sorted(REGISTRY.values(), key=lambda info: _KINDS.index(info.kind))
    chosen: list[Row] = []
    for info in order:
        own = [row for row in rows if row["probe"] == info.name and row["position"] is None]
        chosen += [row for row in own if row["layer"] is None and row["metric"] not in info.details]
        heads = [row for row in own if row["layer"] is not None and row["metric"] == info.main_metric]
        changed = [row for row in heads if row["change"] not in ("no clear change", "no change")]
        chosen += sorted(changed, key=lambda row: -abs(row["difference"]))[:top]
    return chosen


def _both(a: str | None, b: str | None) -> str:
    """What belongs to both runs; once where it is the same."""
    return (a or "") if a == b else f"{a or ''}, {b or ''}"
