"""Dose: what did more of it do? Damage against the dose, and the heads of one seed along it, which play."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard import export, figure_cache
from byrote.dashboard.components.base import encode, packed, show
from byrote.dashboard.components.head_grid import cell_decimals, cell_px, palette, what
from byrote.dashboard.figure_cache import Doses
from byrote.dashboard.page import (
    Drawing,
    Page,
    View,
    bound,
    chosen,
    follow,
    go,
    how_computed,
    nothing,
    panel,
)
from byrote.dashboard.query_params import State, damageable
from byrote.interp.axes import head_label
from byrote.probes.degrade.study import COPY_LOSS, TEST_LOSS
from byrote.probes.figures.doses import dose_table
from byrote.probes.figures.study_figures import degradation_figures
from byrote.probes.findings_degrade import (
    DOSE_WORDS,
    degradation_sentences,
    dose_sentence,
    measured_words,
)
from byrote.probes.results import Results
from byrote.probes.wording import clean, interval, literal, number, p_value, sentence_case, shell_line

GRID = "dose_grid"
_LETTERS = {
    "epochs": "E: epochs, how often the repeated data was seen.",
    "repeat_frac": "f: share of the training tokens that is repeated.",
    "pool": "P: sequences in the pool that is repeated.",
    "tokens": "T: tokens seen in training.",
}
_HELP = "Measure arms at two or more doses. A run declares its dose in the manifest of a lab series, or in byrote.toml beside its results"


def draw(view: View, page: Drawing) -> None:
    """The dose-response beside the grids along the dose, then the numbers."""
    found = _doses(view)
    if isinstance(found, ByroteError):
        page.title("These runs do not form a dose-response series")
        nothing(f"{sentence_case(found.message)}.", sentence_case(found.help or _HELP))
        return
    several = len(found.by_size) > 1
    lines = [
        dose_sentence(one, size, several=several, metric=found.metric) for size, one in found.by_size.items()
    ]
    page.title(lines[0])
    for line in lines[1:]:
        st.markdown(literal(line, limit=600))
    st.selectbox(
        "Damage is read off", _choices(view), format_func=lambda name: sentence_case(measured_words(name)), width=440, **bound("damage", found.metric)
    )  # fmt: skip
    if found.over in _LETTERS:
        st.caption(_LETTERS[found.over])
    left, right = st.columns([1, 1], gap="medium")
    with left, panel("the dose-response"):
        runs, asked = _runs_and_settings(view)
        page.figure(partial(figure_cache.dose_figure, *runs, **asked), "doses", width="half")
    with right, panel("the heads along the dose"):
        _grids(view, found)
    _others(view, page)
    table = dose_table(found.by_size)
    page.table(
        table, "doses", shown=_in_words(table),
        caption=f"{sentence_case(measured_words(found.metric))} against {found.baseline}: damage is the mean over seeds less the baseline's; intervals are over "
        "seeds, and over sequences where runs share them.",
    )  # fmt: skip


def _others(view: View, page: Drawing) -> None:
    """The other figures that these runs have numbers for."""
    runs, asked = _runs_and_settings(view)
    with panel("what else the runs say"):
        study = figure_cache.degradation_of(*runs, **asked)
        for line in degradation_sentences(study)[len(study.doses) :]:
            st.markdown(literal(line, limit=600))
        for name in degradation_figures(study):
            if name != "doses":
                page.figure(partial(figure_cache.degradation_figure, *runs, **asked, name=name), name)


def _choices(view: View) -> list[str]:
    """What every run that declares its arm has as a number of the whole model, and may be worse."""
    common = [set(damageable(run)) for run in _declared(view)]
    return [name for name in damageable(view.run) if all(name in names for names in common)]


def _in_words(table: pd.DataFrame) -> pd.DataFrame:
    """The table as people read it: the damage with its interval, no more figures than that bears."""
    ends = zip(table["damage"], table["lo"], table["hi"], strict=True)
    shown = {
        "value": map(number, table["value"]),
        "damage [95% interval]": [interval(*row, sign=True) for row in ends],
        "p ": ["" if pd.isna(p) else p_value(p) for p in table["p"]],
    }
    kept = table.drop(columns=["value", "damage", "lo", "hi", "p"])
    return kept.assign(**{name: list(cells) for name, cells in shown.items()}).rename(columns={"p ": "p"})


def _declared(view: View) -> tuple[Results, ...]:
    """The runs that say their arm, the one looked at first."""
    runs = [run for run in view.library.runs.values() if run.n_rows and run.facts.arm is not None]
    return tuple(sorted(runs, key=lambda run: run is not view.run))


def _baseline(view: View) -> str:
    return "" if view.base is None else view.base.facts.arm_of_all_sizes or ""


def _doses(view: View) -> Doses | ByroteError:
    """The dose-response of everything opened, or why there is none."""
    runs, asked = _runs_and_settings(view)
    if len(runs) < 3:
        return ByroteError("fewer than three runs declare an arm", help=_HELP)
    if not asked["metric"]:
        why = "no number of the whole model that can be better or worse was measured in all of these runs"
        return ByroteError(why, help=f"measure one in all: {PAGE.command}")
    try:
        return figure_cache.doses_of(*runs, **asked)
    except ByroteError as error:
        return error


def _runs_and_settings(view: View) -> tuple[tuple[Results, ...], dict[str, Any]]:
    """The runs that declare their arm, and what the measures are made with."""
    choices = _choices(view)
    first = (view.state.damage, TEST_LOSS, COPY_LOSS, *choices)
    metric = next((name for name in first if name in choices), view.state.damage)
    return _declared(view), {"baseline": _baseline(view), "metric": metric}


def along(view: View, over: str) -> list[tuple[str, Results]]:
    """Runs of the seed and size of the run looked at, by dose: heads of one seed are the same weights at step 0 at every dose.

    Args:
        view: what is looked at.
        over: the dose.

    Returns:
        (words for the dose, run), ascending; those without the probe left out.
    """
    mine = view.run.facts
    found = []
    for run in _declared(view):
        dose = getattr(run.facts, over, None)
        alike = (
            run.facts.seeds == mine.seeds
            and run.facts.parameters == mine.parameters
            and run.shape == view.run.shape
        )
        if dose is not None and alike and run.has(view.state.probe, view.state.metric):
            found.append((float(dose), run))
    found.sort(key=lambda pair: pair[0])
    return [(f"{DOSE_WORDS[over]} {dose:g}", run) for dose, run in found]


def dose_grid_data(runs: list[tuple[str, Results]], state: State) -> dict[str, Any]:
    """What the browser needs to play the heads over the dose: a grid for each run at its last step, on one scale.

    Args:
        runs: words and run by dose; see `along`.
        state: probe, metric, head, pins and layer shown.
    """
    cubes = [run.cube(state.probe, state.metric) for _, run in runs]
    values = np.stack([np.where(c.measured[-1], c.value[-1], np.nan) for c in cubes])
    lo, hi = min(c.limits[0] for c in cubes), max(c.limits[1] for c in cubes)
    limits = (-max(-lo, hi), max(-lo, hi)) if lo < 0 else (lo, hi)
    index = next((i for i, (_, run) in enumerate(runs) if run.run == state.run), 0)
    title = f"seed {runs[index][1].facts.init_seed}, each at its last step"
    n_layers, n_heads = runs[0][1].shape
    return {
        "key": str(hash((tuple(run.run for _, run in runs), state.probe, state.metric))),
        "panels": [{"role": "run", "title": title, "codes": packed(encode(values, limits)), "at": None}],
        "layers": n_layers, "heads": n_heads, "steps": list(range(len(runs))),
        "labels": [f"{words} · {clean(run.run, limit=40)}" for words, run in runs],
        "marks": [], "doubts": {}, "index": index, "selected": state.head, "cell": cell_px(n_heads), "pinned": list(state.pin),
        "show": "value" if state.show == "base" else state.show, "what": what(state), "lo": limits[0], "hi": limits[1],
        "decimals": cell_decimals(limits), "chance": "", "chance_frac": None,
        "colors": list(palette("sequential" if limits[0] >= 0 else "diverging")), "differences": list(palette("diverging")),
    }  # fmt: skip


def _grids(view: View, found: Doses) -> None:
    runs = along(view, found.over)
    if len(runs) < 2 or not view.state.probe:
        nothing(
            "No other dose has a run of this seed and size with this probe, so heads cannot be followed along the dose.",
            "Choose another run: heads are followed from dose to dose within one seed",
        )
        return
    names = [run.run for _, run in runs]

    def rested() -> None:
        at = chosen(GRID, "step")
        if at is not None and 0 <= int(at) < len(names):
            go(run=names[int(at)])

    show(
        "head_grid", dose_grid_data(runs, view.state), key=GRID, head=follow(GRID, "head"), step=rested,
        show=follow(GRID, "show"), open=follow(GRID, "open", part="head"),
    )  # fmt: skip
    st.caption("Plays over the dose, one run of this seed at each; where it rests, that run is chosen.")
    st.dataframe(heads_frame(runs, view.state), hide_index=True, key="table_dose_heads")
    how_computed([view.state.probe], key="how_dose_grid")


def heads_frame(runs: list[tuple[str, Results]], state: State) -> pd.DataFrame:
    """The strongest head at each dose, and the one looked at.

    Args:
        runs: words and run by dose.
        state: probe, metric and head.
    """
    rows = []
    for words, run in runs:
        cube = run.cube(state.probe, state.metric)
        best = cube.strongest(cube.steps[-1])
        mine = state.layer_head
        rows.append(
            {
                "dose": words,
                "strongest": "" if best is None else head_label(*best),
                "score": None if best is None else round(float(cube.value[-1][best]), 3),
                state.head or "head": None if mine is None else round(float(cube.value[-1][mine]), 3),
            }
        )
    return pd.DataFrame(rows)


def _commands(view: View) -> list[str]:
    if isinstance(found := _doses(view), ByroteError):
        return [export.show(view.run)]
    folders = dict.fromkeys(str(run.path.parent) for run in _declared(view))
    base = ["--baseline", _baseline(view)] if _baseline(view) else []
    return [shell_line(["byrote", "degrade", *folders, "--metric", found.metric, *base])]


def _notebook(view: View) -> list[str]:
    if isinstance(found := _doses(view), ByroteError):
        return ["run.facts"]
    folders = [str(run.path) for run in _declared(view)]
    base = f", baseline={_baseline(view)!r}" if _baseline(view) else ""
    return [
        "from byrote.probes import degrade",
        f"runs = [Results.open(path) for path in {folders!r}]",
        f"settings = degrade.DegradeSettings(metric={found.metric!r}{base})",
        "found = degrade.degradation(degrade.by_arm(runs), settings)",
        "figures.dose_response(found.doses, metric=found.metric)",
        "found.rows",
    ]


PAGE = Page(
    name="dose",
    title="Dose",
    icon=":material/show_chart:",
    question="how damage grows with the dose of repeated or synthetic data, and what becomes of the heads along it",
    draw=draw,
    commands=_commands,
    notebook=_notebook,
    needs=("held_out_loss", "prefix_matching"),
    state=("show", "damage"),
)
