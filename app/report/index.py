"""Reports of many runs, one each, and a page that lists them by what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from byrote.checkpoints.atomic import explained_writes, make_folder
from byrote.checkpoints.errors import ByroteError
from byrote.probes.figures.theme import run_styles
from byrote.probes.findings import arm_words, primary_of, runs
from byrote.probes.findings_memory import completed_members
from byrote.probes.results import Results
from byrote.probes.trajectory import onset
from byrote.probes.wording import MISSING, counted, file_stem, step_number
from byrote.report.alerts import alerts_for, status_of
from byrote.report.files import (
    ReportFiles,
    build_report,
    json_text,
    now_in_words,
    page_file_of,
    write_files,
)
from byrote.report.html import render
from byrote.report.model import Estimate, Link, Report, RunLine, Section, Table, Value
from byrote.report.report_inputs import report_inputs


def build_reports(
    results: Sequence[Results],
    *,
    out: Path,
    base: str | None = None,
    light: bool = False,
    date: str | None = None,
) -> ReportFiles:
    """Write a report for every run, and `index.html` over them.

    Args:
        results: the runs, of different names.
        out: folder; every report has a folder in it, named like its run.
        base: name of the baseline run, with which the report of every other run compares it.
        light: no JavaScript in any of them; the index has none in any case.
        date: printed date; None takes the current one.

    Returns:
        The index with its JSON, the CSV of the first run, and the warnings of all.

    Raises:
        ByroteError: no run, two runs whose folders would have one name, or a place that cannot be written.
    """
    date = date if date is not None else now_in_words()
    index = page_file_of(out, "index.html")
    if index == out:
        raise ByroteError(
            f"{out} would be one file, and a folder with a report for each run is written",
            help=f"name a folder, such as {out.with_suffix('')}",
        )
    folders = {run.run: file_stem(run.run) for run in results}
    if not results or len(set(folders.values())) < len(results):
        what = (
            "two runs would be written into one folder"
            if results
            else "a report needs at least one results folder"
        )
        raise ByroteError(
            what, help="give each run its own name" if results else "name one: byrote report results/RUN"
        )
    baseline = next((run for run in results if run.run == base), None)
    written = []
    for run in results:
        compared = [baseline, run] if baseline is not None and run is not baseline else [run]
        named = base if len(compared) > 1 else None
        with explained_writes(out):
            make_folder(out / folders[run.run])  # whatever its name ends on
        written.append(build_report(compared, out=out / folders[run.run], base=named, light=light, date=date))
    report = _index(results, {run.run: f"{folders[run.run]}/report.html" for run in results}, date, base)
    page, _ = render(report, light=True, footer="The same table is in index.json beside this page")
    write_files({index: page, index.with_suffix(".json"): json_text(report)})
    return ReportFiles(
        index,
        index.with_suffix(".json"),
        written[0].csv,
        warnings=tuple(w for files in written for w in files.warnings),
    )


def _index(results: Sequence[Results], links: dict[str, str], date: str, base: str | None) -> Report:
    """One row a run: its report, arm, last step and what was found."""
    onsets = {run.run: onset(run) for run in results if run.n_rows}
    rows: list[tuple[Value, ...]] = []
    for run in results:
        found = onsets[run.run].text if run.run in onsets else "nothing was measured"
        memory = next(iter(completed_members([run]).values()), MISSING)
        last = step_number(run.last_step) if run.steps else MISSING
        worth = primary_of(run)
        gain = MISSING if worth is None else Estimate(-worth.value, -worth.hi, -worth.lo, n=int(worth.n))
        link, arm = Link(run.run, links[run.run]), arm_words(run) or MISSING
        rows.append((link, arm, last, len(run.steps), found, gain, memory))
    columns = ("Report", "Arm", "Last step", "Steps", "Induction heads", "Copying gain, nats", "Members completed")  # fmt: skip
    caption = (
        "Every run with its report. Copying gain: by how much the loss falls where random tokens are repeated, with its 95% interval "
        "over sequences; 0 without copying. Members completed: sequences of the training data that the model completes without an error."
    )
    table = Table("runs", caption, columns, tuple(rows), group_columns=0)
    styles = run_styles([run.run for run in results], base=base)
    one = results[0]
    line = RunLine(
        counted(len(results), "run"), "", styles[one.run].token, styles[one.run].dash, is_base=False
    )
    inputs = report_inputs(results)
    alerts = alerts_for(inputs, ["runs"])
    sections = (Section("runs", "Runs", (table,)),)
    return Report(runs(results, onsets), (line,), date, status_of(inputs, alerts), alerts, sections)
