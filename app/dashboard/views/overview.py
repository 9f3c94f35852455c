"""Overview: what is there, what happened, what is missing and what measures it?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from byrote.dashboard import export, figure_cache, findings
from byrote.dashboard.export import run_command
from byrote.dashboard.library import run_cache
from byrote.dashboard.page import (
    Drawing,
    Page,
    View,
    bound,
    chosen,
    go,
    how_computed,
    measuring,
    nothing,
    page_link,
    panel,
    problem,
)
from byrote.dashboard.query_params import MAX_ALSO, State, drawable, words_of
from byrote.interp.axes import head_label
from byrote.probes.figures.coverage import COVERED, coverage_grid
from byrote.probes.figures.select import main_metric
from byrote.probes.findings import arm_words
from byrote.probes.registry import REGISTRY, resolve
from byrote.probes.results import Results
from byrote.probes.wording import (
    clean,
    counted,
    interval,
    literal,
    probe_name,
    sentence_case,
    step_number,
    steps_in_words,
)

NOT_RUN, FAILED, PARTIAL, DONE = range(len(COVERED))
N_STEPS_NAMED, N_REASONS = 8, 3
_FILES = re.compile(r"--(?:text|members|twins) FILE")  # what a reason requests


@dataclass(frozen=True)
class Missing:
    """One thing that is not there.

    Attributes:
        what: which probe, at which steps; or which file.
        why: the reason.
        help: what to do about it, in words.
        command: what measures it; "" where running again would say the same.
    """

    what: str
    why: str
    help: str = ""
    command: str = ""


@run_cache(1)
def missing(run: Results) -> tuple[Missing, ...]:
    """Checkpoints not reached or not readable, probes measured at some steps only, and those of the default set never run."""
    if run.imported:  # nobody here could measure more of it
        return ()
    return (*_not_reached(run), *_gaps(run), *_in_part(run), *_never_run(run))


def _gaps(run: Results) -> list[Missing]:
    """One entry per reason: a hundred files cut short are one story."""
    stories: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for gap in run.gaps:
        stories.setdefault((str(gap.get("reason", "")), str(gap.get("help") or "")), []).append(gap)
    found = []
    for (why, help), gaps in stories.items():
        steps = [int(g["step"]) for g in gaps if g.get("step") is not None]
        files = [str(g.get("path") or "a file") for g in gaps if g.get("step") is None]
        what = [steps_in_words(sorted(steps), most=N_STEPS_NAMED)] if steps else []
        what += files[:3] + ([f"{len(files) - 3:,} more"] if len(files) > 3 else [])
        found.append(Missing(sentence_case(", ".join(what)), why, help, run_command(run)))
    return found


def _not_reached(run: Results) -> list[Missing]:
    """Checkpoints of the series that no sweep has come to."""
    known = {int(step) for step in (run.meta.get("series") or {}).get("steps") or []}
    if not (ahead := sorted(known - set(run.all_steps))):
        return []
    status = str(run.meta.get("status", ""))
    why = (
        f"not measured yet, the sweep is {status}" if status in ("running", "interrupted") else "not measured"
    )
    return [
        Missing(
            sentence_case(steps_in_words(sorted(ahead), most=N_STEPS_NAMED)), why, command=run_command(run)
        )
    ]


def _in_part(run: Results) -> list[Missing]:
    """Probes that hold a number at some steps and none, or not all, at others; those with one story are listed together.

    What follows from other probes' numbers is not listed where these are missing: measuring them brings it back.
    """
    probes, steps, grid = coverage_grid(run)
    unread = {int(g["step"]) for g in run.gaps if g.get("step") is not None}
    reasons = _reasons(run)
    stories: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    lacking = {
        probe: {s for s, v in zip(steps, row, strict=True) if v in (NOT_RUN, FAILED, PARTIAL)}
        for probe, row in zip(probes, grid, strict=True)
    }
    for probe, row in zip(probes, grid, strict=True):
        follows = {s for need in run.info(probe).needs for s in lacking.get(need, ())}
        for kind, state in ((NOT_RUN, ""), (FAILED, "not measured"), (PARTIAL, "measured in part")):
            here = tuple(
                s for s, v in zip(steps, row, strict=True) if v == kind and s not in unread | follows
            )
            if not here:
                continue
            known = dict.fromkeys(why for s in here for why in reasons.get(probe, {}).get(s, ()))
            why = (
                f"{state}: {'; '.join(list(known)[:N_REASONS]) or 'no reason was recorded'}" if state else ""
            )
            stories.setdefault((why, here), []).append(probe)
    return [_story(run, why, here, names) for (why, here), names in stories.items()]


def _story(run: Results, why: str, here: Sequence[int], names: Sequence[str]) -> Missing:
    """Probes that lack the same steps for the same reason."""
    at = "every step" if len(here) == len(run.all_steps) else steps_in_words(sorted(here), most=N_STEPS_NAMED)
    what = f"{_names(names)}, {at}"
    if not why:
        return Missing(what, "not run there", command=_asking_for(run, names))
    if wanted := [word for option in dict.fromkeys(_FILES.findall(why)) for word in option.split()]:
        return Missing(what, why, command=_asking_for(run, names, *wanted))
    return Missing(what, why, REGISTRY[names[0]].not_measured if len(names) == 1 else "")


def _reasons(run: Results) -> dict[str, dict[int, list[str]]]:
    """Probe -> step -> why there are values that are not there."""
    outcomes = run.outcomes
    bare = outcomes[~outcomes["valid"] & (outcomes["reason"] != "")]
    found: dict[str, dict[int, list[str]]] = {}
    for row in bare.drop_duplicates(["probe", "step", "reason"]).itertuples(index=False):
        found.setdefault(row.probe, {}).setdefault(row.step, []).append(row.reason)
    return found


def _never_run(run: Results) -> list[Missing]:
    """Probes that `byrote run` measures by default, and of which nothing is there."""
    here = {probe for probe, _ in run.kinds}
    names = [info.name for info in resolve(None) if info.name not in here]
    if not names:
        return []
    why = f"never run here, though a sweep measures {'it' if len(names) == 1 else 'them'} by default"
    return [Missing(_names(names), why, command=_asking_for(run, names))]


def _asking_for(run: Results, names: Sequence[str], *more: str) -> str:
    return run_command(run, *(word for name in names for word in ("-p", name)), *more)


def _names(probes: Sequence[str]) -> str:
    """``Prefix matching, ICL score``."""
    return sentence_case(", ".join(probe_name(p) for p in probes))


MAX_RUNS_DRAWN = 8
MAX_MISSING = 30
TIMELINE = "timeline"


def draw(view: View, page: Drawing) -> None:
    """Key figures, the timeline, losses, coverage and the table of runs."""
    runs = view.beside(MAX_RUNS_DRAWN)
    titled = runs if len(runs) == len(view.library.runs) else list(view.library.runs.values())
    page.title(findings.happened(*titled))
    for broken in view.library.broken:
        problem(f"{broken.path}: {broken.reason}", broken.help)
    _key_figures(view)
    with panel("the timeline"):
        _timeline(view, page, runs)
    left, right = st.columns([1, 1], gap="medium")
    with left, panel("the losses"):
        _losses(view, page, runs)
    if logged := [run for run in runs if len(run.loss) > 1][:3]:
        with right, panel("the training loss"):
            _training(view, page, logged)
    with st.container() if logged else right, panel("the coverage"):
        page.figure(partial(figure_cache.covered, view.run), "coverage", width="page" if logged else "half")
        _missing(view)
    with panel("the table of runs"):
        _runs_table(view, page)


def _key_figures(view: View) -> None:
    run, state = view.run, view.state
    n_layers, n_heads = run.shape
    steps = run.steps
    probes = {probe for probe, _ in run.kinds}
    found = findings.run_onset(run)
    when = "none" if found.bracket is None else step_number(found.bracket[1])
    at_end = ", ".join(found.heads_at_end[:3]) + ("…" if len(found.heads_at_end) > 3 else "")
    words = f"at the end: {at_end or 'none'}"
    if not run.has("induction", "verdict"):
        when, words = "–", "verdict not measured"
    facts = [
        ("Checkpoints", f"{len(steps):,}", steps_span(steps)),
        ("Heads", f"{n_layers * n_heads:,}", f"{counted(n_layers, 'layer')} of {n_heads}"),
        ("Probes", f"{len(probes)}", f"{run.n_rows:,} numbers"),
        *_strongest_fact(run, state),
        ("Induction heads since step", when, words),
    ]  # fmt: skip
    with st.container(horizontal=True, key="key_figures"):
        for label, value, below in facts:
            st.metric(label, value, below, delta_color="off", delta_arrow="off", border=True)


def steps_span(steps: Sequence[int]) -> str:
    """``steps 0 to 2,400``, ``step 900``, nothing where there is none."""
    if len(steps) < 2:
        return f"step {step_number(steps[0])}" if steps else ""
    return f"steps {step_number(steps[0])} to {step_number(steps[-1])}"


def _strongest_fact(run: Results, state: State) -> list[tuple[str, str, str]]:
    """The strongest head at the step looked at, as a key figure; nothing where no probe has heads."""
    if not state.probe:
        return []
    label, at = f"Strongest, {probe_name(state.probe)}", f"at step {step_number(state.step)}"
    cube = run.cube(state.probe, state.metric)
    best = cube.strongest(state.step)
    if best is None:
        return [(label, "–", f"not measured {at}")]
    return [(label, head_label(*best), f"{interval(*cube.interval(state.step, best))} {at}")]


def _timeline(view: View, page: Drawing, runs: list[Results]) -> None:
    state = view.state
    drawn = [run for run in runs if run.has(state.probe, state.metric)]
    if not state.probe or not drawn:
        nothing("No probe with a value per head was measured.", measuring("prefix_matching"))
        return
    _timeline_controls(view)
    pairs = ((state.probe, state.metric), *((name, main_metric(name)) for name in state.also))
    if arms := _arms_drawn(view, pairs):
        base = view.base.facts.arm if view.base is not None and view.base in arms else None
        of_arms = partial(
            figure_cache.arm_timeline, *arms, step=state.step, pairs=pairs, base=base, log=state.scale == "log", band=state.band == "on"
        )  # fmt: skip
        page.figure(of_arms, TIMELINE, on_select=to_clicked_step, selection_mode="points")
        _below_timeline(view)
        return
    if state.also:  # several strips are read for one run, against its baseline
        drawn = [run for run in drawn if run.run in (state.run, state.base)]
    base = state.base if any(run.run == state.base for run in drawn) else None
    draw = partial(
        figure_cache.timeline, *drawn, step=state.step, pairs=pairs, base=base, shown=state.run, log=state.scale == "log", band=state.band == "on"
    )  # fmt: skip
    page.figure(draw, TIMELINE, on_select=to_clicked_step, selection_mode="points")
    _below_timeline(view)


def _arms_drawn(view: View, pairs: Sequence[tuple[str, str]]) -> list[Results]:
    """The runs of all arms, where arms have several seeds, the arm looked at first; [] where runs are drawn by themselves."""
    runs = list(view.library.runs.values())
    groups = figure_cache.arms_shown(*runs)
    first = [run.facts.arm for run in (view.run, view.base) if run is not None]
    ordered = sorted(groups, key=lambda one: first.index(one.name) if one.name in first else len(first))
    kept = [run for one in ordered[:MAX_RUNS_DRAWN] for run in one.runs]
    return kept if all(run.has(*pair) for run in kept for pair in pairs) else []


def _below_timeline(view: View) -> None:
    state = view.state
    with st.container(horizontal=True, vertical_alignment="center", key="below_timeline"):
        page_link(view, "trajectory", "Watch every head form", icon=":material/play_circle:")
        how_computed(
            [state.probe, *state.also, "previous_token", "induction", "copying_logit"], key="how_timeline"
        )
        st.caption("Click a point to go to its step.", width="content")


def _timeline_controls(view: View) -> None:
    """Which probes stand below the first, the axis of steps, and the intervals: all of it in the address."""
    state = view.state
    others = [name for name in drawable(view.run) if name != state.probe]
    with st.container(horizontal=True, vertical_alignment="bottom", key="timeline_controls"):
        st.multiselect(
            "More probes on the timeline", others, max_selections=MAX_ALSO, width=440, placeholder="none",
            format_func=lambda name: sentence_case(probe_name(name)), **bound("also", list(state.also), to=tuple),
        )  # fmt: skip
        st.segmented_control("Steps", words_of("scale"), required=True, **bound("scale", state.scale))
        st.toggle("95% band", **bound("band", state.band == "on", to=lambda on: "on" if on else "off"))


def to_clicked_step() -> None:
    """A callback: the step that the point clicked on the timeline says it is of; clicked again it stays."""
    points = (chosen(f"figure_{TIMELINE}", "selection") or {}).get("points") or []
    customdata = points[0].get("customdata") if points else None
    step = customdata[0] if isinstance(customdata, list) and customdata else customdata
    if isinstance(step, int | float):
        go(step=int(step))


def _missing(view: View) -> None:
    """Everything that is not there, why, and what would measure it."""
    found = missing(view.run)
    if not found:
        st.caption("Nothing is missing: every checkpoint has every probe that is measured by default.")
        return
    label = f"What is missing: {counted(len(found), 'thing')}"
    box = st.expander(label, icon=":material/help_center:", key="missing", on_change="rerun")
    if not box.open:
        return  # commands are what takes a browser longest to show, and few look
    with box:
        for one in found[:MAX_MISSING]:
            st.markdown(f"**{literal(one.what, limit=400)}**: {literal(one.why, limit=400)}")
            if one.help:
                st.caption(literal(one.help, limit=400))
            if one.command:
                st.code(one.command, language="sh", wrap_lines=True)
        if len(found) > MAX_MISSING:
            st.caption(f"And {counted(len(found) - MAX_MISSING, 'thing')} more: fix these first.")


def _losses(view: View, page: Drawing, runs: list[Results]) -> None:
    pairs = (("repeat_loss", "first_block"), ("repeat_loss", "later_blocks"))
    drawn = [run for run in runs if all(run.has(*pair) for pair in pairs)][:3]
    if not drawn:
        nothing("The loss on repeated tokens was not measured.", measuring("repeat_loss"))
        return
    base = view.state.base if any(run.run == view.state.base for run in drawn) else None
    page.figure(partial(figure_cache.losses, *drawn, base=base), "losses", width="half")
    how_computed(["repeat_loss"], key="how_losses")


def _training(view: View, page: Drawing, runs: list[Results]) -> None:
    """What training logged itself, of runs with such a log."""
    base = view.state.base if any(run.run == view.state.base for run in runs) else None
    page.figure(partial(figure_cache.training, *runs, base=base), "training", width="half")


def _runs_table(view: View, page: Drawing) -> None:
    names = list(view.library.runs)
    caption = "All runs; select a row to show one."
    page.choices(
        runs_frame(view),
        "runs",
        lambda row: go(run=names[row]) if row < len(names) else None,
        caption=caption,
        column_config={
            "last step": st.column_config.NumberColumn(format="localized"),
            "train loss, nats": st.column_config.NumberColumn(format="%.2f"),
        },
    )


def runs_frame(view: View) -> pd.DataFrame:
    """One row per run: what it was trained on, where it ended, when its induction heads appeared."""
    rows = []
    for run in view.library.runs.values():
        found = findings.run_onset(run)
        last = run.steps[-1] if run.steps else None
        strongest = f"strongest, {probe_name(view.state.probe)}, last step"
        rows.append(
            {
                "run": run.run,
                "trained on": arm_words(run),
                "checkpoints": len(run.steps),
                "last step": last,
                "train loss, nats": run.loss.get(last) if last is not None else None,
                strongest: _strongest_words(run, view.state.probe, view.state.metric, last),
                "gaps": len(run.gaps),
                "role": "baseline"
                if run.run == view.state.base
                else "shown"
                if run.run == view.state.run
                else "",
                "induction heads": found.text if run.has("induction", "verdict") else "not measured",
            }
        )
    for broken in view.library.broken:
        rows.append(
            {
                "run": broken.name,
                "trained on": "cannot be read",
                "induction heads": clean(broken.reason, limit=300),
            }
        )
    return pd.DataFrame(rows)


def _strongest_words(run: Results, probe: str, metric: str, step: int | None) -> str:
    """``L1H2 0.90 [0.88, 0.92]``."""
    if step is None or run.kinds.get((probe, metric)) != "head":
        return "not measured"
    cube = run.cube(probe, metric)
    best = cube.strongest(step)
    if best is None:
        return "left out by lint" if step in run.left_out else "not measured"
    return f"{head_label(*best)} {interval(*cube.interval(step, best))}"


def _commands(view: View) -> list[str]:
    runs = [view.run] if view.base is None else [view.base, view.run]
    events = [
        export.show(run, "--events", "--probe", "induction")
        for run in runs
        if run.has("induction", "verdict")
    ]
    return [export.strongest(view), *events, export.report(view)]


def _notebook(view: View) -> list[str]:
    runs, base = export.runs_and_base(view)
    lines = [f"figures.trajectory({runs}, {export.metric(view.state)}{base})"] if view.state.probe else []
    for name in view.state.also:
        lines.append(f"figures.trajectory({runs}, probe={name!r}, metric={main_metric(name)!r}{base})")
    drawn = [view.run] if view.base is None else [view.base, view.run]
    if all(run.has("repeat_loss", "later_blocks") for run in drawn):
        lines.append(f"figures.loss_curves({runs}{base})")
    if all(len(run.loss) > 1 for run in drawn):
        lines.append(f"figures.training_loss({runs}{base})")
    return [*lines, "run"]


PAGE = Page(
    name="overview",
    first=True,
    title="Overview",
    icon=":material/dashboard:",
    question="what is there, what happened and when, what is missing and the command that measures it; "
    "a click on the timeline goes to that step",
    draw=draw,
    commands=_commands,
    notebook=_notebook,
    needs=("prefix_matching", "induction", "repeat_loss"),
    state=("also", "scale", "band"),
    figures=("timeline", "losses", "training", "coverage"),
)
