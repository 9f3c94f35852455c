"""`byrote report`: results to one file a person opens, with its data beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from byrote.cli import options
from byrote.cli.command import argument, flag, option, verb
from byrote.cli.expect import expected, say_checks
from byrote.cli.group_options import GROUP, named_groups
from byrote.cli.output import open_page
from byrote.cli.session import Session

if TYPE_CHECKING:
    from byrote.probes.results import Results

_NAMES_SHOWN = 3


@verb(
    "byrote report results/a",
    "byrote report results/unique results/repeated --base unique -o reports/arms.html --open",
    "byrote report --group unique='results/unique-*' --group repeated='results/repeated-*'",
    "byrote report results/* --each -o reports",
    "byrote report reports/before reports/after",
)
def report(
    session: Session,
    *,
    paths: tuple[str, ...] = argument("[RESULT]...", required=False),
    group: tuple[str, ...] = GROUP,
    out: Path | None = option(
        "A .html file or a folder; reports/NAMES if left out. Existing files are replaced.",
        "-o",
        type=options.PATH,
    ),
    base: str | None = option("The baseline: name of a run or an arm, or a results folder.", metavar="RUN"),
    light: bool = flag("No JavaScript: static figures, a small file that prints well."),
    figures: bool = flag("Write every figure as an SVG file too, into the folder figures beside the page."),
    each: bool = flag("A report of every run, in a folder of its own, and an index.html over them."),
    open_: bool = flag("Open the report in the browser.", "--open"),
    expect: Path | None = options.EXPECT,
) -> int:
    """Write one self-contained HTML file about RESULT..., and the same content as JSON and CSV.

    RESULT is a results folder, a folder of several, or a quoted glob. With --base, every other run is compared with
    that one. Arms of several seeds, given with --group or declared by the runs, are compared as groups: with the first
    --group, or with the arm that --base names. The file opens anywhere, offline.

    In place of results, two reports can be given, each by the folder or page that this command wrote: every value, sentence and
    alert that changed from the first to the second is printed.
    """
    from byrote.report.changes import is_report

    if len(paths) == 2 and all(is_report(Path(path)) for path in paths):
        return _print_changes(session, Path(paths[0]), Path(paths[1]))
    checks_of = expected(expect)
    groups = named_groups(group)
    if not paths and not groups:
        raise click.UsageError("Missing argument 'RESULT...': name results folders")
    runs = options.open_results(paths)
    here = {run.path.resolve() for run in runs}
    runs += [run for one in groups for run in one.runs if run.path.resolve() not in here]
    runs, base_name = _with_base(runs, base)
    checks = checks_of(runs)
    if each:
        return _every_run(
            session, runs, out or _default_place(runs), base_name, light=light, open_=open_
        ) or say_checks(session, checks)
    from byrote.report import build_report

    files = build_report(
        runs,
        out=out or _default_place(runs),
        base=base_name,
        groups=groups or None,
        light=light,
        figures=figures,
    )
    session.data(str(files.html))
    session.note(f"data: {files.json} {files.csv}")
    if files.figures:
        session.note(f"{len(files.figures)} figures: {files.figures[0].parent}")
    for warning in files.warnings:
        session.warn(f"warning: {warning}")
    open_page(session, files.html, wanted=open_)
    return say_checks(session, checks)


def _every_run(
    session: Session, runs: list[Results], out: Path, base: str | None, *, light: bool, open_: bool
) -> int:
    """A report for each run, compared with the baseline where one is named, and the page that lists them; the exit code."""
    from byrote.report.index import build_reports

    files = build_reports(runs, out=out, base=base, light=light)
    session.data(str(files.html))
    session.note(f"{len(runs)} reports beside it, a folder each")
    for warning in files.warnings:
        session.warn(f"warning: {warning}")
    open_page(session, files.html, wanted=open_)
    return 0


def _print_changes(session: Session, old: Path, new: Path) -> int:
    """What changed between two reports, a line each; the exit code."""
    from byrote.report.changes import changes_sentence, read_report, report_changes

    found = report_changes(read_report(old), read_report(new))
    session.data(f"{changes_sentence(found)}.")
    for one in found:
        words = {None: "", True: ", beyond both intervals", False: ""}[one.beyond]
        session.data(f"{one.kind}: {one.where}: {one.old or '–'} → {one.new or '–'}{words}")
    return 0


def _with_base(runs: list[Results], base: str | None) -> tuple[list[Results], str | None]:
    """The runs with the baseline among them, and its name."""
    if base is None or base in [run.run for run in runs] or not (Path(base) / "run.json").is_file():
        return runs, base  # an unknown name is refused with the names there are
    from byrote.probes.results import Results

    baseline = Results.open(base)
    here = {run.path.resolve() for run in runs}
    return (runs if baseline.path.resolve() in here else [baseline, *runs]), baseline.run


def _default_place(runs: Sequence[Results]) -> Path:
    """``reports/unique-repeated``: another set of runs does not overwrite it."""
    from byrote.report.files import OTHER_ENDINGS, PAGE_ENDINGS

    names = [run.path.resolve().name for run in runs]
    more = f"-and-{len(names) - _NAMES_SHOWN}-more" if len(names) > _NAMES_SHOWN else ""
    place = Path("reports") / ("-".join(names[:_NAMES_SHOWN]) + more)
    ends_as_file = place.suffix.lower() in (*PAGE_ENDINGS, *OTHER_ENDINGS)  # and is to be a folder
    return place.with_name(f"{place.name}-report") if ends_as_file else place
