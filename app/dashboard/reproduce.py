"""The parts of the commands and the notebook lines that make a page's numbers again. No Streamlit."""

from __future__ import annotations

import shlex

from byrote.dashboard.page import View
from byrote.dashboard.query_params import State
from byrote.probes.results import Results

N_TOP = 10


def shell_lines(view: View) -> list[str]:
    """Commands that print the numbers of the page, and the one that opens it."""
    roots = dict.fromkeys(str(path) for path in view.library.paths)
    return [*view.page.commands(view), shlex.join(["byrote", "dashboard", *roots])]


def notebook_lines(view: View) -> list[str]:
    """Python that makes the figures and numbers of the page."""
    lines = [
        "from byrote.probes import figures",
        "from byrote.probes.results import Results",
        opened("run", view.run),
    ]
    if view.base is not None:
        lines.append(opened("base", view.base))
    return [*lines, *view.page.notebook(view)]


def opened(name: str, run: Results) -> str:
    """The line that opens a run's results under a name."""
    return f"{name} = Results.open({str(run.path)!r})"


def show(run: Results, *more: str) -> str:
    """`byrote show` of a run."""
    return shlex.join(["byrote", "show", str(run.path), *more])


def report(view: View) -> str:
    """`byrote report` of the run, against the baseline where there is one."""
    if view.base is None:
        return shlex.join(["byrote", "report", str(view.run.path)])
    return shlex.join(["byrote", "report", str(view.base.path), str(view.run.path), "--base", view.base.run])


def strongest(view: View, *, top: int = N_TOP) -> str:
    """`byrote show` of the strongest heads on the probe at the step looked at."""
    state = view.state
    chosen = ["--probe", state.probe, "--metric", state.metric] if state.probe else []
    return show(view.run, *chosen, "--step", str(state.step), "--top", str(top))


def runs_and_base(view: View) -> tuple[str, str]:
    """How the runs and the baseline are written as arguments of a figure."""
    return ("[base, run]", f", base={view.base.run!r}") if view.base is not None else ("run", "")


def metric(state: State) -> str:
    """Probe and metric as keyword arguments."""
    return f"probe={state.probe!r}, metric={state.metric!r}"
