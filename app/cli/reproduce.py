"""`byrote reproduce`: claims of papers, on small runs trained here, with verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from byrote.cli import options
from byrote.cli.command import argument, flag, option, record, verb
from byrote.cli.output import Column, Output, Row
from byrote.cli.progress import Event, Work, interrupted
from byrote.cli.session import Exit, Session
from byrote.probes.wording import bounds, counted, duration, number, p_value, point, shell_line

if TYPE_CHECKING:
    from byrote.checkpoints.engines import Engine
    from byrote.probes.claims.pipeline import GridPlan
    from byrote.probes.claims.record import Claim

LISTED = (
    Column("number", "claim", right=True),
    Column("name", "name"),
    Column("paper", "paper"),
    Column("statement", "statement", fold=True),
    Column("reported", "reported there", fold=True, wide=True),
    Column("metric", "metric", wide=True),
    Column("grids", "runs", wide=True),
    Column("full_only", "judged", lambda row: "in full alone" if row["full_only"] else "quick or in full"),
    Column("untestable"),
)
COLUMNS = (
    Column("number", "", right=True),
    Column("name", "claim"),
    Column("verdict", "verdict", fold=True),
    Column("value", "effect", lambda row: point(row["value"], row["lo"], row["hi"], sign=True), right=True),
    Column(
        "_interval",
        "95% interval",
        lambda row: bounds(row["value"], row["lo"], row["hi"], sign=True),
        right=True,
    ),
    Column("lo"),
    Column("hi"),
    Column("unit", "unit", fold=True, wide=True),
    Column("smallest", "smallest", lambda row: number(row["smallest"]), right=True, wide=True),
    Column("seen", "visible", lambda row: number(row["seen"]), right=True, wide=True),
    Column("q", "q", lambda row: p_value(row["q"]), right=True),
    Column("seeds", "seeds", right=True),
    Column("decided_by"),
    Column("onset", "onset", wide=True, fold=True),
    Column("paper"),
    Column("why", "what is seen", fold=True, wide=True),
)
PLANNED = (
    Column("grid", "grid"),
    Column("what", "what", fold=True, wide=True),
    Column("runs", "runs", right=True),
    Column("checkpoints", "checkpoints", right=True),
    Column("measured", "measured", right=True),
    Column("seconds", "core seconds", lambda row: f"{row['seconds']:.0f}", right=True),
    Column("state", "state"),
)


@verb(
    "byrote reproduce hernandez",
    "byrote reproduce hernandez-inverted-u linear-replace --plan",
    "byrote reproduce --list",
)
def reproduce(
    session: Session,
    *,
    names: tuple[str, ...] = argument("[NAME]...", required=False),
    all_: bool = flag("Every claim.", "--all"),
    list_: bool = flag("List claims with what their papers report, and exit.", "--list"),
    plan: bool = flag("Print what would be trained and measured, and exit.", "--plan"),
    full: bool = option(
        "8 seeds in place of 5 where runs are trained, and also the claims that need full runs.",
        "--full/--quick",
        default=False,
        show_default=False,
    ),
    folder: Path = option(
        "Folder of runs, results, tables and the page.",
        "-o",
        type=options.PATH,
        default=Path("reproduced"),
        metavar="FOLDER",
    ),
    first_seed: int = option(
        "First seed; another one makes fresh runs.", type=click.IntRange(0, 1 << 30), metavar="N", default=0
    ),
    jobs: int | None = option(
        "Processes; if left out, one per core.",
        type=click.IntRange(min=1),
        metavar="N",
        default=None,
    ),
    engines: options.Engines = record(options.Engines),
    progress: str = options.PROGRESS,
    out: Output,
) -> int:
    """Test claims of papers on small runs: train what is missing, measure it, and report what holds.

    NAME is a claim or a paper (all its claims). The rule of each claim, its direction and its smallest effect of interest were
    fixed beforehand. Writes a page (claims.html), claims.json, runs.parquet and a figure per claim. The same command again resumes where it was interrupted, and only judges where nothing is missing.
    """
    from byrote.probes.claims.catalogue import chosen, judged_by

    if not names and not all_ and not list_:
        raise click.UsageError(
            "Missing argument 'NAME...': name claims or papers, or --all; --list lists them"
        )
    claims = chosen(() if all_ else names)
    if list_:
        out.rows(LISTED, [_listed(claim) for claim in claims])
        return Exit.DONE
    from byrote.probes.claims.pipeline import plan_of

    claims, later = judged_by(claims, full=full)
    if later:
        session.note(f"left out, because they need --full: {', '.join(claim.name for claim in later)}")
    planned = plan_of(claims, folder, full=full, first_seed=first_seed)
    if plan:
        out.rows(PLANNED, [_planned(one) for one in planned])
    session.note(_estimate(planned, len(claims)))
    if plan:
        return Exit.DONE
    named = _command(names if not all_ else ("--all",), full=full, first_seed=first_seed)
    engine = engines.chosen(jobs, otherwise=None)
    return _reproduce(
        session,
        out,
        claims,
        folder,
        named,
        full=full,
        first_seed=first_seed,
        engine=engine,
        progress=progress,
    )


def _reproduce(
    session: Session,
    out: Output,
    claims: Sequence[Claim],
    folder: Path,
    named: str,
    *,
    progress: str,
    full: bool,
    first_seed: int,
    engine: Engine,
) -> int:
    from byrote.probes.claims.judging import as_json
    from byrote.probes.claims.pipeline import reproduce as reproduced
    from byrote.report.claim_files import made_now, write_claims

    work = Work(progress, session, folder.name, promise="stopping at the next checkpoint")

    def on_event(event: Event) -> None:
        if event["event"] == "stage":
            work.progress.rename(event["grid"])
            work.progress.note(f"{event['grid']}: {event['what']}")
        elif event["event"] in ("step", "checkpoint", "retried"):
            work.progress.event(event)

    try:
        with work:
            found = reproduced(
                claims,
                folder,
                full=full,
                first_seed=first_seed,
                engine=engine,
                on_event=on_event,
                stopping=lambda: work.stopping,
            )
    except KeyboardInterrupt:
        return interrupted(session, "written steps, measured steps and finished tables are saved")
    files = write_claims(folder, found.judgements, found.table, made_now(named, found.seconds))
    out.rows(COLUMNS, [_row(as_json(judged)) for judged in found.judgements])
    words = [judged.word for judged in found.judgements]
    session.note(", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words)))
    session.note(f"page: {files.page}; data: {files.json} {files.runs}")
    return Exit.DONE


def _command(names: Sequence[str], *, full: bool, first_seed: int) -> str:
    """What makes the same runs anywhere: without folders, processes and forms of output."""
    more = (["--full"] if full else []) + (["--first-seed", str(first_seed)] if first_seed else [])
    return shell_line(["byrote", "reproduce", *names, *more])


def _row(judged: dict[str, Any]) -> Row:
    decided = judged[judged["decided_by"]] if judged["decided_by"] else {}
    numbers = {name: decided.get(name) for name in ("value", "lo", "hi", "smallest", "seen", "q", "seeds")}
    numbers = {name: None if isinstance(value, str) else value for name, value in numbers.items()}
    onset = (judged["onset"] or {}).get("verdict")
    return {
        **{
            name: judged[name] for name in ("number", "name", "paper", "verdict", "unit", "decided_by", "why")
        },
        **numbers,
        "onset": onset,
    }


def _listed(claim: Claim) -> Row:
    words = {
        name: getattr(claim, name)
        for name in ("name", "paper", "statement", "reported", "metric", "full_only", "untestable")
    }
    return {**words, "number": claim.number or None, "grids": " ".join(claim.grids)}


def _planned(plan: GridPlan) -> Row:
    from byrote.probes.claims.catalogue import GRIDS

    return {**vars(plan), "what": GRIDS[plan.grid].what, "state": "there" if plan.done else "to be made"}


def _estimate(planned: Sequence[GridPlan], n_claims: int) -> str:
    from byrote.checkpoints.side_by_side import cores

    todo = [one for one in planned if not one.done]
    if not todo:
        return f"{counted(n_claims, 'claim')}: all tables are there, judging only"
    seconds = sum(one.seconds for one in todo)
    return (
        f"{counted(n_claims, 'claim')}: {counted(sum(one.runs for one in todo), 'run')} to make, about "
        f"{duration(seconds / cores())} on {counted(cores(), 'core')}"
    )
