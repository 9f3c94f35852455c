"""Head: what does this head do, and how sure are we?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from byrote.dashboard import export, figure_cache
from byrote.dashboard.library import run_cache
from byrote.dashboard.page import (
    Drawing,
    Page,
    View,
    go,
    how_computed,
    measuring,
    nothing,
    page_link,
    panel,
    pin_button,
)
from byrote.dashboard.query_params import State, head_names
from byrote.dashboard.views import head_text
from byrote.interp.axes import parse_head
from byrote.probes.head_roles import introduce, roles, score_and_rank
from byrote.probes.results import Results
from byrote.probes.results.rows import limits_of, strongest_first
from byrote.probes.rules import SMALLEST, smallest_effect
from byrote.probes.spec import ProbeInfo
from byrote.probes.wording import (
    chance_number,
    clean,
    interval,
    literal,
    plain,
    probe_name,
    sentence_case,
    step_number,
)

VALUE = "value [95% interval]"
MAX_BESIDE = 3


def draw(view: View, page: Drawing) -> None:
    """Neighbours, attention on the saved texts, and everything measured about the head."""
    run, state = view.run, view.state
    if not state.head or not state.probe:
        page.title("No head to show")
        nothing("No probe with a value per head was measured.", measuring("prefix_matching"))
        return
    head = parse_head(state.head)
    score = score_and_rank(run, head, state.probe, state.metric, step=state.step)
    if head in roles(run, state.step):
        page.title(introduce(run, head, step=state.step))
        st.caption(literal(score, limit=400))
    else:
        page.title(score)
    _neighbours(view)
    with panel("the attention"):
        head_text.draw(view, page)
    beside = pinned_beside(state)
    # Heads beside one another need the width; the offsets go below them then.
    with st.container(key="head_numbers"):
        left, right = (st.container(), st.container()) if beside else st.columns([3, 2], gap="medium")
    with left, panel("the scores of this head"):
        _scores(view, page, beside)
    with right, panel("how far back it attends"):
        _offsets(view, page)


def _neighbours(view: View) -> None:
    names, state = head_names(view.run), view.state
    at = names.index(state.head)
    with st.container(horizontal=True, vertical_alignment="center", key="neighbours"):
        for key, label, icon, to in (
            ("before", "Previous head", "left", at - 1),
            ("after", "Next head", "right", at + 1),
        ):
            inside = 0 <= to < len(names)
            st.button(
                label, icon=f":material/chevron_{icon}:", disabled=not inside, on_click=go,
                kwargs={"head": names[to] if inside else state.head}, key=key, type="tertiary",
            )  # fmt: skip
        pin_button(state)
        page_link(view, "trajectory", "Over training")
        page_link(view, "circuit", "In the circuit")
        page_link(view, "compare", "Against the baseline")


def pinned_beside(state: State) -> tuple[str, ...]:
    """The pinned heads whose numbers stand beside those of the chosen one."""
    return tuple(pin for pin in state.pin if pin != state.head)[:MAX_BESIDE]


def _scores(view: View, page: Drawing, beside: tuple[str, ...]) -> None:
    st.header("Everything measured about this head", anchor=False)
    state = view.state
    frame = scores_frame(view.run, state.head, step=state.step, beside=beside)
    if frame.empty:
        nothing(f"Nothing was measured about {state.head} at step {step_number(state.step)}.")
        return
    pinned = f" Pinned beside it: {', '.join(beside)}, with their intervals." if beside else ""
    page.table(
        frame.drop(columns="scaled"),
        "scores",
        shown=frame.assign(curve=frame["scaled"]).drop(columns="scaled"),
        caption=f"{state.head} at step {step_number(state.step)}: value with 95% interval, chance, n and rank among all heads.{pinned}",
        column_config={
            # Names stay in sight where the table is wider than the screen.
            "measure": st.column_config.TextColumn(
                "measure", width=220 if beside else 230, pinned=bool(beside)
            ),
            "curve": st.column_config.LineChartColumn(
                "curve",
                width=50 if beside else 60,
                y_min=0,
                y_max=1,
                help="Over the steps, on the full range of the measure: a flat line hardly changed",
            ),
            VALUE: st.column_config.TextColumn(
                f"{state.head} [95% interval]" if beside else VALUE, width=150
            ),
            **{head: st.column_config.TextColumn(f"{head} [95% interval]", width=150) for head in beside},
            "chance": st.column_config.TextColumn("chance", width=60),
            "n": st.column_config.NumberColumn("n", width=44),
            "rank": st.column_config.TextColumn("rank", width=64),
        },
        height=min(38 + 35 * len(frame), 640),
    )
    how_computed(list(dict.fromkeys(view.run.head_probes)), key="how_scores")


@run_cache(8)
def scores_frame(run: Results, label: str, *, step: int, beside: tuple[str, ...] = ()) -> pd.DataFrame:
    """One row per head metric: value, interval, chance, n, rank, the curve, and that curve on the metric's range (`scaled`);
    the reason where not measured.

    Args:
        run: whose heads.
        label: the head the rows are about.
        step: of the run.
        beside: further heads, each a column of values with their intervals, behind the head's own.
    """
    heads = {name: parse_head(name) for name in (label, *beside)}
    measured = rows_by_metric(run, step)
    curves = run.history(heads[label])
    found = []
    for probe, metrics in run.head_probes.items():
        for metric in metrics:
            if (rows := measured.get((probe, metric))) is None:
                continue
            info = run.info(probe)
            values = {name: rows.words(head) for name, head in heads.items()}
            if any(values.values()):
                name = probe_name(probe) if metric in ("score", info.main_metric) else f"{probe_name(probe)}: {probe_name(metric)}"  # fmt: skip
                own = curves.get((probe, metric), {})
                curve = [plain(float(own.get(s, np.nan))) for s in run.all_steps] if values[label] else []
                found.append(
                    {
                        "measure": sentence_case(name),
                        "curve": curve,
                        "scaled": on_its_range(curve, info, metric),
                        VALUE: values[label],
                    }
                    | {name: values[name] or None for name in beside}
                    | rows.rank(heads[label], lower=info.better_of(metric) == "lower")
                    | {"unit": info.unit_of(metric)}
                )
    return pd.DataFrame(found)


def on_its_range(curve: list[float | None], info: ProbeInfo, metric: str) -> list[float | None]:
    """A curve as shares of the metric's range, so that noise is drawn as small as it is.

    Without a declared range, of that of the curve with 0, and of no less than twenty smallest effects.

    Args:
        curve: in the metric's unit, None where not measured.
        info, metric: of the probe.
    """
    known = np.array([value for value in curve if value is not None], dtype=np.float64)
    lo, hi = limits_of(info, metric, known)
    span = max(hi - lo, smallest_effect(info, metric) / SMALLEST)
    return [None if value is None else (value - lo) / span for value in curve]


@dataclass(frozen=True)
class MetricRows:
    """The rows of one metric at one step, and where each head's is; None stands for the whole model.

    Attributes:
        columns: of the rows, by name.
        at: (layer, head) or None -> the first row about it.
    """

    columns: dict[str, np.ndarray]
    at: dict[tuple[int, int] | None, int]

    def words(self, head: tuple[int, int]) -> str:
        """A head's value with its interval, why there is none, or "" where nothing was said about it."""
        i = min((self.at[key] for key in (head, None) if key in self.at), default=None)
        if i is None:
            return ""
        value, lo, hi, valid, reason = (
            self.columns[name][i] for name in ("value", "lo", "hi", "valid", "reason")
        )
        return interval(value, lo, hi) if valid else f"not measured: {clean(reason)}"

    def rank(self, head: tuple[int, int], *, lower: bool) -> dict[str, Any]:
        """Chance, n and rank of a head among all that were measured; blanks where it was not."""
        i, valid = self.at.get(head), self.columns["valid"]
        if i is None or not valid[i]:
            return {"chance": "", "n": None, "rank": ""}
        order = strongest_first(self.columns["value"], valid, lower=lower)
        chance = float(self.columns["chance"][i])
        return {
            "chance": chance_number(chance) if np.isfinite(chance) else "–",
            "n": int(self.columns["n"][i]),
            "rank": f"{int(np.flatnonzero(order == i)[0]) + 1} of {len(order)}",
        }


@run_cache(2)
def rows_by_metric(run: Results, step: int) -> dict[tuple[str, str], MetricRows]:
    """What was measured about single heads at a step, by probe and metric."""
    found = {}
    for name, rows in run.rows(step=step, single=True).groupby(["probe", "metric"]):
        columns = {c: rows[c].to_numpy() for c in ("value", "lo", "hi", "chance", "n", "valid", "reason")}
        heads = [
            None if layer is pd.NA else (layer, head)
            for layer, head in zip(rows["layer"].tolist(), rows["head"].tolist(), strict=True)
        ]
        at = {head: i for i, head in reversed([*enumerate(heads)])}
        found[name] = MetricRows(columns, at)
    return found


def _offsets(view: View, page: Drawing) -> None:
    st.header("How far back it attends", anchor=False)
    run, state = view.run, view.state
    if run.kinds.get(("offset_profile", "profile")) != "head curve":
        nothing("The offset profile was not measured.", measuring("offset_profile"))
        return
    heads = tuple(dict.fromkeys([state.head, *state.pin]))[:3]
    page.figure(partial(figure_cache.offsets, run, heads, state.step), "offsets", width="half")
    how_computed(["offset_profile"], key="how_offsets")


def _commands(view: View) -> list[str]:
    n_layers, n_heads = view.run.shape
    return [export.strongest(view, top=max(1, n_layers * n_heads))]


def _notebook(view: View) -> list[str]:
    state, run = view.state, view.run
    if state.layer_head is None:
        return ["run"]
    layer, head = state.layer_head
    lines = [
        "from byrote.probes.head_roles import introduce",
        f"introduce(run, {(layer, head)}, step={state.step})",
    ]
    if run.kinds.get(("offset_profile", "profile")) == "head curve":
        heads = [state.head, *state.pin][:3]
        lines.append(f"figures.offset_profile(run, heads={heads!r}, step={state.step})")
    where = f"step == {state.step} and layer == {layer} and head == {head} and position.isna() and src_layer.isna()"
    return [*lines, *head_text.notebook(view, layer, head), f"run.usable_frame.query({where!r})"]


PAGE = Page(
    name="head",
    title="Head",
    icon=":material/target:",
    question="what one head does: attention on saved texts or on your own, the tokens it raises and lowers, everything measured about it",
    draw=draw,
    commands=_commands,
    notebook=_notebook,
    needs=("prefix_matching", "offset_profile"),
    state=("text", "q", "shade", "sink"),
    figures=("attention", "offsets"),
    component=True,
)
