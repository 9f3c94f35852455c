"""Compare: what differs between two runs, head by head, and between their arms over the seeds?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from byrote.checkpoints.errors import ByroteError
from byrote.cli.settings import flat
from byrote.dashboard import export, figure_cache, findings
from byrote.dashboard.components.base import show
from byrote.dashboard.components.head_grid import grid_data
from byrote.dashboard.figure_cache import comparison_of, pairs_of, points
from byrote.dashboard.page import (
    Drawing,
    Page,
    View,
    bound,
    follow,
    go,
    how_computed,
    measuring,
    nothing,
    panel,
    problem,
    reasons,
    run_chip,
)
from byrote.dashboard.views.trajectory import grids
from byrote.interp.axes import head_label
from byrote.probes.comparable import (
    ALIGNMENTS,
    BEST_HEAD,
    BY_NAME,
    Comparison,
    init_disagreement,
    metric_words,
)
from byrote.probes.figures import Figure, difference_grid
from byrote.probes.figures.memory_plane import RULE_AXES
from byrote.probes.findings_compared import onset_lines, seed_tally, tally
from byrote.probes.group_comparison import GroupComparison
from byrote.probes.registry import REGISTRY
from byrote.probes.results import Results
from byrote.probes.rules import change, is_called
from byrote.probes.wording import (
    clean,
    counted,
    interval,
    literal,
    number,
    p_value,
    probe_name,
    sentence_case,
    shell_line,
    step_number,
)

_COUNTS = frozenset({"pairs", "heads", "sets of heads", "tokens", "members"})
_SAME = ("name", "versions", "status")


def differences_frame(comparison: Comparison, *, head: str) -> pd.DataFrame:
    """Model-level measures, the strongest heads, and the head looked at: both values, the difference, and words."""
    rows = comparison.rows
    rows = rows[rows["position"].isna()]
    mine = rows[
        rows["layer"].isna() | ((rows["head_a"] == head) & (rows["metric"] == rows["probe"].map(_main)))
    ]
    out = []
    for row in mine.itertuples(index=False):
        info = REGISTRY[row.probe]
        if info.unit_of(row.metric) in _COUNTS:
            continue
        name = sentence_case(probe_name(row.probe))
        if row.metric == BEST_HEAD:
            name += f", {metric_words(row.metric)}"
        elif row.metric not in ("score", info.main_metric) or info.kind not in ("head", "weights"):
            name += f": {metric_words(row.metric) or probe_name(row.metric)}"
        where = (
            ""
            if not row.head_a
            else row.head_a
            if row.head_a == row.head_b
            else f"{row.head_a} / {row.head_b}"
        )
        out.append(
            {
                "measure": name,
                "where": where,
                comparison.a: info.word_of(row.metric, row.a) or number(row.a),
                comparison.b: info.word_of(row.metric, row.b) or number(row.b),
                "difference [95% interval]": ""
                if info.word_of(row.metric, row.a)
                else interval(row.difference, row.lo, row.hi, sign=True),
                "in words": change(row),
                "n": int(row.n) or None,
                "q": "" if pd.isna(row.q) else p_value(row.q),
                "unit": info.unit_of("score" if row.metric == BEST_HEAD else row.metric),
            }
        )
    order = {word: i for i, word in enumerate(("worse", "better", "higher", "lower"))}
    out.sort(key=lambda row: order.get(str(row["in words"]), len(order)))
    return pd.DataFrame(out)


def config_frame(run: Results, base: Results) -> pd.DataFrame:
    """Only what differs between the two series and models."""
    sides = [_facts(base), _facts(run)]
    names = [n for n in dict.fromkeys([*sides[0], *sides[1]]) if sides[0].get(n) != sides[1].get(n)]
    rows = [
        {
            "what": n.replace("_", " "),
            base.run: _cell_text(sides[0].get(n)),
            run.run: _cell_text(sides[1].get(n)),
        }
        for n in names
    ]
    return pd.DataFrame(rows, columns=["what", base.run, run.run])


def turnover_frame(run: Results, base: Results, pairs: Mapping[int, int], *, step: int) -> pd.DataFrame:
    """Induction heads of the baseline, of the run, and of both, at a step."""
    called = {}
    for one, at in ((base, pairs.get(step, base.steps[-1])), (run, step)):
        if not one.has("induction", "verdict"):
            return pd.DataFrame()
        cube = one.cube("induction", "verdict")
        i = cube.index(at)
        called[one.run] = {
            head_label(int(l), int(h)) for l, h in np.argwhere(is_called(cube.value[i]) & cube.valid[i])
        }
    a, b = called[base.run], called[run.run]
    kinds = {"in both": a & b, f"only in {base.run}": a - b, f"only in {run.run}": b - a}
    rows = [
        {"induction heads": k, "how many": len(v), "which": ", ".join(sorted(v)[:24])}
        for k, v in kinds.items()
    ]
    return pd.DataFrame(rows)


def mass_words(run: Results, base: Results, pair: tuple[int, int]) -> str:
    """The induction mass of both at a pair of steps, the baseline's first: heads may trade places while it stays."""
    found = []
    for one, step in zip((base, run), pair, strict=True):
        at = {p.step: p for p in points(one, *RULE_AXES["induction mass"][:2])}.get(step)
        text = "not measured" if at is None else f"{interval(at.value, at.lo, at.hi)} {at.where}"
        found.append(f"{clean(one.run, limit=60)} {text}")
    return f"Induction mass (prefix matching above chance, summed over heads): {'; '.join(found)}."


def _main(probe: str) -> str:
    return REGISTRY[probe].main_metric if probe in REGISTRY else "score"


def _facts(run: Results) -> dict[str, Any]:
    manifest = (run.meta.get("series") or {}).get("manifest") or {}
    facts = flat({k: v for k, v in manifest.items() if k not in _SAME})
    facts |= flat({"model": run.meta.get("model") or {}})
    last = run.steps[-1] if run.steps else None
    return facts | {"last step": last, "train loss at the last step, nats": run.loss.get(last or 0)}


def _cell_text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else clean(value)


GRID = "compare_grid"


def draw(view: View, page: Drawing) -> None:
    """The grids side by side, what differs in the set-up, head by head, every measure, and which heads changed."""
    base = view.base
    if base is None:
        _one_run(view, page)
        return
    comparison = _compared(view, page)
    _controls(view)
    if comparison is not None:
        _notes(comparison)
    with panel("the arms"):
        _arms(view, base, page)
    with panel("the grids"):
        _grids(view)
    with panel("what differs in the set-up"):
        frame = config_frame(view.run, base)
        label = f"Set-up: {counted(len(frame), 'difference')}"
        page.tables["setup"] = (label, frame)  # exported whether or not it is open
        box = st.expander(label, key="setup", on_change="rerun", expanded=comparison is None)
        if box.open:
            with box:
                page.table(frame, "setup", caption=label, height="content")
    if comparison is None:
        return
    left, right = st.columns([1, 1], gap="medium")
    with left, panel("head by head"):
        if BY_NAME in comparison.heads:
            compared = figure_cache.compared(view.state)
            page.figure(partial(figure_cache.scatter, view.run, base, compared), "scatter", width="half")
    with right, panel("which heads changed"):
        _turnover(view, page, comparison)
    with panel("every measure"):
        _measures(view, base, page, comparison)


def _arms(view: View, base: Results, page: Drawing) -> None:
    """Every seed of the two runs' arms, where one has several; nothing where none does, or neither says its arm."""
    runs = tuple(view.library.runs.values())
    try:
        if not figure_cache.arms_of(view.run, base, runs):
            return
        st.header("Arm against arm, over the seeds", anchor=False)
        with st.spinner("Comparing every seed…", show_time=False):
            found = figure_cache.group_comparison_of(view.run, base, runs, align=view.state.align)
    except ByroteError as error:
        problem(error.message, error.help)
        return
    st.markdown(f"**{literal(seed_tally(found), limit=400)}.**")
    st.markdown(literal(found.sentence, limit=1500))
    st.markdown("\n".join(f"- {literal(line, limit=1000)}" for line in onset_lines(found)))
    primary = found.rows[found.rows["family"] == "primary"]
    if not primary.empty:
        probe, metric = primary.iloc[-1][["probe", "metric"]]
        page.figure(
            partial(figure_cache.seed_curves, view.run, base, runs, probe=probe, metric=metric), "seeds"
        )
    page.table(
        arms_frame(found), "arms",
        caption=f"{found.b.name} minus {found.a.name}, over {len(found.a)} and {len(found.b)} seeds; intervals cover seeds and "
        "sequences. seeds / sequences: the spread over seeds as a multiple of the spread over sequences.",
    )  # fmt: skip


def arms_frame(found: GroupComparison) -> pd.DataFrame:
    """The metrics of two arms at the last step compared, the primary one first."""
    rows = found.rows[(found.rows["step"] == found.steps[-1])]
    order = {"primary": 0, "secondary": 1}
    rows = rows.assign(_order=rows["family"].map(lambda f: order.get(f, 2))).sort_values(
        "_order", kind="stable"
    )
    return pd.DataFrame(
        {
            "family": row.family,
            "measure": ": ".join(
                filter(None, (sentence_case(probe_name(row.probe)), metric_words(row.metric)))
            ),
            found.a.name: number(row.a),
            f"{found.b.name} ": number(row.b),
            "difference [95% interval]": interval(row.difference, row.lo, row.hi, sign=True),
            "in words": row.change,
            "q": "" if pd.isna(row.q) else p_value(row.q),
            "seeds / sequences": ""
            if pd.isna(row.seed_to_sequence)
            else number(row.seed_to_sequence, places=1),
        }
        for row in rows.itertuples(index=False)
        if REGISTRY[row.probe].unit_of(row.metric) not in _COUNTS
    )


def _notes(comparison: Comparison) -> None:
    """What could not be compared, one click away."""
    label = f"{counted(len(comparison.notes), 'measure')} not compared, or only in part: why?"
    reasons(label, comparison.notes, key="notes")


def _compared(view: View, page: Drawing) -> Comparison | None:
    """The comparison; where it is refused, the reason and what to do."""
    base = view.base
    assert base is not None
    try:
        with st.spinner("Comparing, with intervals…", show_time=False):
            comparison = comparison_of(view.run, base, view.state.align, view.state.step)
    except ByroteError as error:
        page.title(f"{view.run.run} and {base.run} cannot be compared")
        problem(error.message, error.help)
        return None
    page.title(tally(comparison))
    st.caption(literal(comparison.sentence, limit=1000))
    pair = comparison.pairs[-1]
    if pair[1] != view.state.step:
        st.caption(
            literal(
                f"Step {step_number(view.state.step)} has no counterpart; compared at {step_number(pair[1])} and {step_number(pair[0])}."
            )
        )
    return comparison


def _controls(view: View) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", key="compare_controls"):
        st.button(
            "Swap run and baseline",
            icon=":material/swap_horiz:",
            on_click=go,
            kwargs={"run": view.state.base, "base": view.state.run},
            key="swap",
            type="tertiary",
        )
        st.segmented_control("Aligned by", ALIGNMENTS, required=True, **bound("align", view.state.align))


def _grids(view: View) -> None:
    run, base, state = view.run, view.base, view.state
    if base is None or not state.probe:
        return
    if why := init_disagreement(base, run):
        nothing(f"Heads of the same name do not correspond, so none is compared by name: {why}.")
        return
    try:
        pairs = pairs_of(run, base, state.align)
    except ByroteError as error:
        nothing(error.message, error.help)
        return
    data = grid_data(run, state, base=base, pairs=pairs, events=findings.events(run), difference=True)
    show(
        "head_grid", data, key=GRID, head=follow(GRID, "head"), open=follow(GRID, "open", part="head"),
        step=follow(GRID, "step", int), show=lambda: None,  # always values and their difference
    )  # fmt: skip
    how_computed([state.probe], key="how_compare")


def _turnover(view: View, page: Drawing, comparison: Comparison) -> None:
    st.header("Heads lost, gained and retained", anchor=False)
    assert view.base is not None
    frame = turnover_frame(
        view.run,
        view.base,
        pairs_of(view.run, view.base, view.state.align),
        step=comparison.pairs[-1][1],
    )
    if frame.empty:
        nothing("The induction verdict was not measured in both runs.", measuring("induction"))
    else:
        page.table(frame, "turnover", caption="Induction heads at this step.", height="content")
        st.caption(literal(mass_words(view.run, view.base, comparison.pairs[-1]), limit=400))
    run_chip(comparison.a, comparison.onset_a.text, base=True)
    run_chip(comparison.b, comparison.onset_b.text)
    how_computed(["induction"], key="how_turnover")


def _measures(view: View, base: Results, page: Drawing, comparison: Comparison) -> None:
    st.header("Every measure", anchor=False)
    page.table(
        differences_frame(comparison, head=view.state.head), "differences",
        caption=f"{comparison.b} minus {comparison.a}, not tested: imported scores have no samples." if comparison.untested else
        f"{comparison.b} minus {comparison.a}, paired on the same sequences; intervals cover the choice of sequences, not the training seed: "
        "the statements are about these two runs. A change is clear when its whole interval lies beyond the metric's smallest effect.",
        column_config={"q": st.column_config.TextColumn("q", help="p-value corrected within the metric's family, over all steps compared")},
    )  # fmt: skip
    page.figure(
        partial(figure_cache.measures, view.run, base, view.state.align, view.state.step), "differences"
    )
    how_computed(list(dict.fromkeys(comparison.rows["probe"])), key="how_measures")


def _one_run(view: View, page: Drawing) -> None:
    """Nothing to compare with: the run against its own beginning."""
    run, state = view.run, view.state
    others = len(view.library.runs) > 1
    page.title(f"{run.run} against its own first checkpoint")
    st.caption(
        "Choose a baseline in the sidebar to compare two runs."
        if others
        else "There is only one run. Measure a control with the same command and it appears here: byrote run runs/control -o results"
    )
    if not state.probe:
        return
    cube = run.cube(state.probe, state.metric)
    usable = [s for s in cube.steps if cube.valid[cube.index(s)].any()]
    if len(usable) < 2 or not np.isfinite(cube.value[cube.index(state.step)]).any():
        nothing(
            f"{sentence_case(probe_name(state.probe))} was measured at {counted(len(usable), 'checkpoint')}; a change needs two."
        )
        return
    with panel("the change"):
        drawn = partial(figure_cache.change, run, state.probe, state.metric, usable[0], state.step)
        page.figure(drawn, "change")
        how_computed([state.probe], key="how_change")


def _commands(view: View) -> list[str]:
    if view.base is None:
        return [export.strongest(view)]
    words = ["byrote", "compare", str(view.base.path), str(view.run.path), "--align", view.state.align]
    return [shell_line([*words, "--at", _base_step(view)]), export.report(view)]


def _notebook(view: View) -> list[str]:
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
        pairs = pairs_of(view.run, view.base, view.state.align)
    except ByroteError:
        return "last"
    return str(pairs.get(view.state.step, "last"))


def static_figures(view: View) -> dict[str, Figure]:
    """The same, and the run minus the baseline."""
    state, found = view.state, grids(view)
    if view.base is None or not state.probe or init_disagreement(view.base, view.run):
        return found
    try:
        comparison = comparison_of(view.run, view.base, state.align, state.step)
        return found | {
            "difference_grid": difference_grid(comparison, probe=state.probe, metric=state.metric)
        }
    except ByroteError:
        return found  # the page says why the two cannot be compared


PAGE = Page(
    name="compare",
    title="Compare",
    icon=":material/compare_arrows:",
    question="what differs between two runs, and between their arms",
    draw=draw,
    commands=_commands,
    notebook=_notebook,
    state=("align",),
    figures=("scatter", "differences"),
    component=True,
    static_figures=static_figures,
)
