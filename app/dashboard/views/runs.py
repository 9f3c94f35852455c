"""Runs and export: compute, watch, hand over."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard import export, jobs
from byrote.dashboard.jobs import Job
from byrote.dashboard.library import Library, is_run_folder
from byrote.dashboard.page import Drawing, Page, View, nothing, panel, problem
from byrote.dashboard.state import FORMER
from byrote.dashboard.tasks import Task, run_task
from byrote.dashboard.views import folders
from byrote.probes.registry import REGISTRY
from byrote.probes.results import Results
from byrote.probes.wording import clean, counted, duration, file_stem, literal, shell_line, step_number
from byrote.report import build_report

WATCH_EVERY_S = 1.0
_MARK = {
    "running": ":material/progress_activity:",
    "done": ":material/check_circle:",
    "failed": ":material/error:",
    "lost": ":material/error:",
}
N_SHOWN = 8


def draw(view: View, page: Drawing) -> None:
    """A new job, the jobs there are, the results there are, and the report."""
    n = len(view.library.runs)
    measured = sum(len(run.steps) for run in view.library.runs.values())
    page.title(f"{counted(n, 'run')}, {counted(measured, 'checkpoint')} measured")
    _new_and_old_jobs(view.library)
    with panel("the results"):
        folders.results(view, page)
    with panel("the report"):
        _report(view)


def without_results(library: Library) -> None:
    """The same where no run can be looked at: nothing has been measured yet, or none of it can be read."""
    _new_and_old_jobs(library)
    with panel("the folder"):
        folders.one_folder(library)


def results_root(library: Library) -> Path:
    """Where new results go: the folder opened, or the one around the run that was."""
    path = library.paths[0]
    return path.parent if is_run_folder(path) else path


def _new_and_old_jobs(library: Library) -> None:
    root = results_root(library)
    st.header("Measure", anchor=False)
    with panel("the new job"):
        _new(root)
    _watch(root)


def _new(root: Path) -> None:
    with st.form("new_job", border=True):
        path = st.text_input(
            "Checkpoints", key="job_path", placeholder="a folder of checkpoints, or of several runs"
        )
        left, right = st.columns([3, 1], vertical_alignment="bottom")
        probes = left.multiselect(
            "Probes", list(REGISTRY), key="job_probes", placeholder="all except those that need many passes"
        )
        keep = right.checkbox(
            "Store attention",
            key="job_attention",
            help="Every head's attention on two sequences per stimulus, for the Head page",
        )
        with st.container(horizontal=True):
            plan = st.form_submit_button("What would it do?", icon=":material/preview:")
            go = st.form_submit_button("Start", icon=":material/play_arrow:", type="primary")
    if not (plan or go):
        return
    if not path.strip():
        problem("Name a folder of checkpoints first.")
        return
    task = measuring_task(path.strip(), probes, keep_attention=keep, out=root)
    if go:
        jobs.start(root, task)
        st.toast("Started; it continues if you close this page.")
    else:
        jobs.start(root, task.dry())


def measuring_task(path: str, probes: list[str], *, keep_attention: bool, out: Path) -> Task:
    """What the form describes. A path that begins with a dash is a path, and ~ is the home folder.

    Raises:
        ByroteError: a path no file can have, or a probe there is not.
    """
    if clean(path, limit=len(path)) != path:
        raise ByroteError(
            "the path contains characters that cannot be shown", help="type it instead of pasting it"
        )
    named = os.path.expanduser(path)  # noqa: PTH111  (a glob or a hub name stays as it is)
    named = f"./{named}" if named.startswith("-") else named
    return run_task((named,), probes, keep_attention=keep_attention, out=out)


@st.fragment(run_every=WATCH_EVERY_S)
def _watch(root: Path) -> None:
    """The jobs, looked at again every second."""
    st.header("Jobs", anchor=False)
    with panel("the jobs"):
        _jobs(root)


def _jobs(root: Path) -> None:
    found = jobs.all_jobs(root, most=N_SHOWN)
    if (root / FORMER).is_dir():
        st.caption(
            f"The folder {literal(FORMER)} in these results is from version 0.1: jobs are now stored elsewhere, and it is ignored."
        )
    if not found:
        st.caption(
            "None yet. A job is the command line in a process of its own: it continues when this page is closed."
        )
        return
    for job in found:
        with st.container(border=True):
            _one_job(job, root)


def _one_job(job: Job, root: Path) -> None:
    words = clean(shell_line(["byrote", *job.arguments]), limit=400)
    left, right = st.columns([5, 1], vertical_alignment="center")
    left.markdown(f"{_MARK.get(job.state, ':material/info:')} **{job.state}** · {literal(words, limit=500)}")
    with right, panel("the job"):
        _job_button(job, root)
    event = job.current
    if event is not None:
        done, total = int(event["done"]), int(event["total"])
        st.progress(
            min(1.0, done / max(1, total)),
            text=literal(progress_words(event, running=job.running), limit=300),
        )
    elif job.running:
        st.caption("Starting: the model's libraries are being loaded.")
    if (ending := ending_words(job)) is not None:
        (st.error if job.death else st.caption)(literal(ending, limit=400))
    if job.errors:
        st.markdown("\n".join(f"- {literal(line, limit=400)}" for line in job.errors[:10]))
    if job.lines:
        with st.expander("Output of the job", expanded=bool(job.death or job.task.dry_run)):
            st.text("\n".join(clean(line, limit=300) for line in job.lines))


def _job_button(job: Job, root: Path) -> None:
    """Stop what runs; resume what stopped."""
    name = job.folder.name
    if job.running and not job.stop_requests:
        hint = "Stops after the current checkpoint; finished work is not lost"
        st.button("Cancel", key=f"cancel_{name}", help=hint, on_click=jobs.cancel, args=(job,))
    elif job.running:
        hint = "Does not wait for the current checkpoint; finished work is not lost"
        st.button("Stop now", key=f"stop_{name}", help=hint, on_click=jobs.cancel, args=(job,))
    elif job.state in ("cancelled", "lost", "failed") and not job.task.dry_run:
        hint = "The same command, for what is missing"
        if st.button("Resume", key=f"resume_{name}", help=hint):
            jobs.start(root, job.task)


def ending_words(job: Job) -> str | None:
    """How a job that did not finish ended, and what is saved; None for the others."""
    event = job.current
    saved = f", {event['done']} of {event['total']} checkpoints saved" if event is not None else ""
    if job.running:
        return "Stopping after the current checkpoint." if job.stop_requests else None
    if job.death:
        return f"The job {job.death}{saved}."
    if job.state == "cancelled":
        at = f"Stopped at step {step_number(event.get('step') or 0)}" if event is not None else "Stopped"
        return f"{at}{saved}; Resume measures the rest."
    return None


def progress_words(event: Mapping[str, Any], *, running: bool) -> str:
    """``run: 37 of 154 · step 1,000 · 1.9 s each · 3:41 to go``."""
    parts = [
        f"{event.get('run', '')}: {event['done']} of {event['total']}",
        f"step {step_number(event.get('step') or 0)}",
    ]
    if running and event["done"] < event["total"]:
        if each := event.get("s_per_checkpoint"):
            parts.append(f"{each:.1f} s each")
        if (left := event.get("eta_s")) is not None:
            parts.append(f"{duration(left)} to go")
    if event.get("errors"):
        parts.append(counted(int(event["errors"]), "gap"))
    return " · ".join(parts)


def _report(view: View) -> None:
    st.header("Report", anchor=False)
    names = list(view.library.runs)
    with st.container(horizontal=True, vertical_alignment="bottom", key="report_controls"):
        chosen = st.multiselect(
            "Runs",
            names,
            default=[n for n in (view.state.base, view.state.run) if n],
            key="report_runs",
            format_func=lambda n: clean(n, limit=60),
        )
        light = st.toggle(
            "without scripts", key="report_light", help="Still figures: a small file that prints well"
        )
    if not chosen:
        nothing("Choose at least one run.")
        return
    base = view.state.base if view.state.base in chosen else None
    st.download_button(
        "Build the report, HTML", data=lambda: report_bytes(view, chosen, base=base, light=light), key="build_report",
        file_name=f"{file_stem('byrote', *chosen)}.html", mime="text/html", on_click="ignore", icon=":material/description:",
    )  # fmt: skip
    paths = (str(view.library.runs[name].path) for name in chosen)
    options = [*(["--base", base] if base else []), *(["--light"] if light else [])]
    command = ["byrote", "report", *paths, *options]
    st.code(shell_line(command), language="sh", wrap_lines=True)


def report_bytes(view: View, names: list[str], *, base: str | None, light: bool) -> bytes:
    """The report `byrote report` writes, made when chosen for."""
    runs = [Results.open(view.library.runs[name].path) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        files = build_report(runs, out=Path(folder) / "report.html", base=base, light=light)
        return files.html.read_bytes()


def _commands(view: View) -> list[str]:
    return [
        *(export.show(run) for run in list(view.library.runs.values())[:N_SHOWN]),
        export.report(view),
    ]


def _notebook(view: View) -> list[str]:
    paths = [str(run.path) for run in view.library.runs.values()]
    return [
        f"runs = [Results.open(path) for path in {paths!r}]",
        "[(one.run, len(one.steps)) for one in runs]",
    ]


PAGE = Page(
    name="runs",
    title="Runs and export",
    icon=":material/inventory_2:",
    question="start, watch and cancel sweeps; what each folder holds; the report",
    draw=draw,
    commands=_commands,
    notebook=_notebook,
    exports_figures=False,
    without_results=without_results,
)
