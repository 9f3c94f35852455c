"""The command line and the notebook lines that make a page's numbers again. No Streamlit."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard import comparing
from byrote.dashboard.circuits import WAY_NAMES
from byrote.dashboard.remembering import MASS, MEMORY_AXES, RULE_AXES, points
from byrote.dashboard.saved import SavedRun
from byrote.dashboard.session import View
from byrote.probes.attention import attention_file, stored_texts, unwritten
from byrote.probes.figures.rows import main_metric

N_TOP = 10
Lines = list[str]


def shell_lines(view: View) -> Lines:
    """Commands that print the numbers of the page, and the one that opens it."""
    roots = dict.fromkeys(str(path) for path in view.library.paths)
    return [*_SHELL[view.page](view), shlex.join(["byrote", "dashboard", *roots])]


def notebook_lines(view: View) -> Lines:
    """Python that makes the figures and numbers of the page."""
    lines = [
        "from byrote.probes import figures",
        "from byrote.probes.store import Results",
        _opened("run", view.run),
    ]
    if view.base is not None:
        lines.append(_opened("base", view.base))
    return [*lines, *_NOTEBOOK[view.page](view)]


def _opened(name: str, run: SavedRun) -> str:
    return f"{name} = Results.open({str(run.path)!r})"


def _show(run: SavedRun, *more: str) -> str:
    return shlex.join(["byrote", "show", str(run.path), *more])


def _report(view: View) -> str:
    if view.base is None:
        return shlex.join(["byrote", "report", str(view.run.path)])
    return shlex.join(["byrote", "report", str(view.base.path), str(view.run.path), "--base", view.base.name])


def _at(view: View, *, top: int = N_TOP) -> str:
    """The strongest heads on the probe at the step."""
    state = view.state
    chosen = ["--probe", state.probe, "--metric", state.metric] if state.probe else []
    return _show(view.run, *chosen, "--step", str(state.step), "--top", str(top))


def _runs(view: View) -> tuple[str, str]:
    """How the runs and the baseline are written as arguments of a figure."""
    return ("[base, run]", f", base={view.base.name!r}") if view.base is not None else ("run", "")


def _metric(view: View) -> str:
    return f"probe={view.state.probe!r}, metric={view.state.metric!r}"


def _overview_shell(view: View) -> Lines:
    runs = [view.run] if view.base is None else [view.base, view.run]
    told = [_show(run, "--events", "--probe", "induction") for run in runs if run.has("induction", "verdict")]
    return [_at(view), *told, _report(view)]


def _overview_notebook(view: View) -> Lines:
    runs, base = _runs(view)
    lines = [f"figures.trajectory({runs}, {_metric(view)}{base})"] if view.state.probe else []
    for name in view.state.also:
        lines.append(f"figures.trajectory({runs}, probe={name!r}, metric={main_metric(name)!r}{base})")
    drawn = [view.run] if view.base is None else [view.base, view.run]
    if all(run.has("repeat_loss", "later_blocks") for run in drawn):
        lines.append(f"figures.loss_curves({runs}{base})")
    return [*lines, "run"]


def _trajectory_notebook(view: View) -> Lines:
    state = view.state
    if not state.probe:
        return ["run"]
    runs, base = _runs(view)
    heads = [state.head, *state.pin]
    return [
        f"figures.head_grid(run, {_metric(view)}, step={state.step})",
        f"figures.trajectory({runs}, {_metric(view)}, heads={heads!r}{base})",
        f"run[{state.probe!r}, {state.metric!r}].at({state.step}).top({N_TOP})",
    ]


def _head_shell(view: View) -> Lines:
    n_layers, n_heads = view.run.shape
    return [_at(view, top=max(1, n_layers * n_heads))]


def _head_notebook(view: View) -> Lines:
    state, run = view.state, view.run
    if state.layer_head is None:
        return ["run"]
    layer, head = state.layer_head
    lines = []
    if run.kinds.get(("offset_profile", "profile")) == "head curve":
        lines.append(
            f"figures.offset_profile(run, heads={[state.head, *state.pin][:3]!r}, step={state.step})"
        )
    if _has_attention(run, state.step):
        lines += [
            "from byrote.probes.attention import stored_pattern, stored_texts, stored_writes",
            f"text = stored_texts(run.path, {state.step})[{state.text}]",
            f"stored_pattern(run.path, {state.step}, text, layer={layer}, head={head})",
        ]
        if not unwritten(attention_file(run.path, state.step)):
            lines.append(f"stored_writes(run.path, {state.step}, text, layer={layer}, head={head})")
    rows = "run.usable_frame"
    where = f"step == {state.step} and layer == {layer} and head == {head} and position.isna() and src_layer.isna()"
    return [*lines, f"{rows}.query({where!r})"]


def _circuit_shell(view: View) -> Lines:
    metric = f"{view.state.way}_z"
    if not view.run.has("composition", metric):
        return [_at(view)]
    wanted = ["--probe", "composition", "--metric", metric]
    return [_show(view.run, *wanted, "--step", str(view.state.step), "--top", "12")]


def _circuit_notebook(view: View) -> Lines:
    metric = f"{view.state.way}_z"
    if not view.run.has("composition", metric):
        return ["run"]
    return [
        f"edges = run.select('composition', {metric!r}, step={view.state.step})  # {WAY_NAMES[view.state.way]}",
        "edges[edges['valid']].nlargest(12, 'value')",
    ]


def _compare_shell(view: View) -> Lines:
    if view.base is None:
        return [_at(view)]
    words = ["byrote", "compare", str(view.base.path), str(view.run.path), "--align", view.state.align]
    return [shlex.join([*words, "--at", _base_step(view)]), _report(view)]


def _compare_notebook(view: View) -> Lines:
    state = view.state
    if view.base is None:
        if not state.probe:
            return ["run"]
        name = f"run[{state.probe!r}, {state.metric!r}]"
        return [f"scores = {name}", f"scores.at({state.step}).rows", "scores.at(scores.steps[0]).rows"]
    at = _base_step(view)
    return [
        "from byrote.probes.degradation import compare",
        f"comparison = compare(base, run, align={state.align!r}, at={at if at.isdigit() else repr(at)})",
        "figures.differences(comparison)",
        "comparison.rows",
    ]


def _base_step(view: View) -> str:
    """The step of the baseline that stands beside the one looked at; the last pair where there is none."""
    assert view.base is not None
    try:
        pairs = comparing.pairs_of(view.run, view.base, view.state.align)
    except ByroteError:
        return "last"
    return str(pairs.get(view.state.step, "last"))


def _memory_metrics(view: View) -> list[tuple[str, str]]:
    """What the axes of the plane and the curves below it are made of, as far as it was measured."""
    axes = [axis[:2] for axis in (*MEMORY_AXES.values(), *RULE_AXES.values())]
    return [pair for pair in axes if pair[1] != MASS and points(view.run, *pair)]


def _memory_shell(view: View) -> Lines:
    step = str(view.state.step)
    found = [
        _show(view.run, "--probe", probe, "--metric", metric, "--step", step, "--top", "1")
        for probe, metric in _memory_metrics(view)
    ]
    return found or [_at(view)]


def _memory_notebook(view: View) -> Lines:
    lines = [f"run[{probe!r}, {metric!r}].rows" for probe, metric in _memory_metrics(view)]
    if points(view.run, "prefix_matching", MASS):
        lines += ["from byrote.probes.trajectory import total_mass", "total_mass(run)"]
    if points(view.run, "exact_match", "completed"):
        lines += ["from byrote.probes.memory.member_flow import member_flow", "member_flow(run)"]
    return lines or ["run"]


def _runs_shell(view: View) -> Lines:
    return [*(_show(run) for run in list(view.library.runs.values())[:8]), _report(view)]


def _runs_notebook(view: View) -> Lines:
    paths = [str(run.path) for run in view.library.runs.values()]
    return [
        f"runs = [Results.open(path) for path in {paths!r}]",
        "[(one.run, len(one.steps)) for one in runs]",
    ]


def _has_attention(run: SavedRun, step: int) -> bool:
    try:
        return bool(stored_texts(run.path, step))
    except ByroteError:
        return False


_SHELL: dict[str, Callable[[View], Lines]] = {
    "overview": _overview_shell,
    "trajectory": lambda view: [_at(view)],
    "head": _head_shell,
    "circuit": _circuit_shell,
    "compare": _compare_shell,
    "memory": _memory_shell,
    "runs": _runs_shell,
}
_NOTEBOOK: dict[str, Callable[[View], Lines]] = {
    "overview": _overview_notebook,
    "trajectory": _trajectory_notebook,
    "head": _head_notebook,
    "circuit": _circuit_notebook,
    "compare": _compare_notebook,
    "memory": _memory_notebook,
    "runs": _runs_notebook,
}
