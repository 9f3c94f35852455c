"""Dose: what did more of it do? Damage against the dose, and the heads of one seed along it, which play."""

from __future__ import annotations

from collections.abc import Sequence
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
    arms_sentence,
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
        nothing(f"{sentence_case(found.message)}.", sentence_case(_in_words_of_the_page(found.help)))
        return
    lines = _sentences(found)
    page.title(lines[0].removesuffix("."))
    for line in lines[1:]:
        st.markdown(literal(line, limit=600))
    if found.why:
        st.caption(literal(_only(view, found), limit=600))
    st.selectbox(
        "Damage measured by", _choices(view), format_func=lambda name: sentence_case(measured_words(name)), width=440, **bound("damage", found.metric)
    )  # fmt: skip
    if found.over in _LETTERS:
        st.caption(_LETTERS[found.over])
    runs, settings = _runs_and_settings(view)
    drawn = partial(figure_cache.dose_figure, *runs, **settings)
    if found.by_arm:
        with panel("the damage of the arms"):
            page.figure(drawn, "doses")
    else:
        left, right = st.columns([1, 1], gap="medium")
        with left, panel("the dose-response"):
            page.figure(drawn, "doses", width="half")
        with right, panel("the heads along the dose"):
            _grids(view, found)
    _others(view, page, found)
    table = page.figures["doses"]().table if found.by_arm else dose_table(found.by_size)
    page.table(
        table, "doses", shown=_in_words(table),
        caption=f"{sentence_case(measured_words(found.metric))} against {found.baseline}: damage is the mean over seeds minus the baseline's; intervals are over "
        "seeds, and over sequences where runs share them.",
        column_config={"size": st.column_config.NumberColumn(format="localized")},
    )  # fmt: skip


def _sentences(found: Doses) -> list[str]:
    """What the doses say, or the arms; a sentence for each size."""
    if found.by_arm:
        of = {"metric": found.metric, "baseline": found.baseline, "unit": found.unit}
        return [arms_sentence(rows, **of) for rows in found.by_arm.values()]
    several = len(found.by_size) > 1
    return [
        dose_sentence(one, size, several=several, metric=found.metric) for size, one in found.by_size.items()
    ]


def _only(view: View, found: Doses) -> str:
    """Why this is not a dose-response of everything, and what it is."""
    if found.by_arm:
        return f"Arm by arm, because the arms are not doses of one another: {found.why}."
    arm = clean(view.run.facts.arm_of_all_sizes, limit=80)
    return f"Shown: {arm} against {found.baseline}. All arms together do not form a series: {found.why}. To see another arm, choose one of its runs."


def _in_words_of_the_page(help: str) -> str:
    """Advice as this page can be followed, where an option of the command line is named."""
    return "choose a run of the undamaged arm under Baseline" if "--baseline" in help else help or _HELP


def _others(view: View, page: Drawing, found: Doses) -> None:
    """The other figures that these runs have numbers for."""
    runs = [run for run in _declared(view) if run.run in found.runs]
    with panel("the other findings"):
        study = figure_cache.degradation_of(*runs, baseline=found.baseline, metric=found.metric)
        for line in degradation_sentences(study)[len(study.doses) :]:
            st.markdown(literal(line, limit=600))
        for name in degradation_figures(study):
            if name != "doses":
                draw = partial(
                    figure_cache.degradation_figure, *runs, baseline=found.baseline, metric=found.metric, name=name
                )  # fmt: skip
                page.figure(draw, name)


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


def _baselines(view: View) -> tuple[str, ...]:
    """Undamaged arms to try in turn: the baseline's where it is none of the damaged, what the arms say, the baseline's."""
    if view.base is None or not (arm := view.base.facts.arm_of_all_sizes):
        return ("",)
    facts = view.base.facts
    damaged = any((facts.repeat_frac, facts.synthetic_share, facts.generation))
    return ("", arm) if damaged else (arm,)


def _doses(view: View) -> Doses | ByroteError:
    """The dose-response of everything opened, or why there is none."""
    runs, settings = _runs_and_settings(view)
    if len(runs) < 3:
        return ByroteError("fewer than three runs declare an arm", help=_HELP)
    if not settings["metric"]:
        why = "no whole-model measure with a better direction was recorded in all of these runs"
        return ByroteError(why, help=f"measure one in all: {PAGE.command}")
    return figure_cache.doses_of(*runs, **settings)


def _runs_and_settings(view: View) -> tuple[tuple[Results, ...], dict[str, Any]]:
    """The runs that declare their arm, and what the measures are made with."""
    choices = _choices(view)
    first = (view.state.damage, TEST_LOSS, COPY_LOSS, *choices)
    metric = next((name for name in first if name in choices), view.state.damage)
    own = view.run.facts.arm_of_all_sizes or ""
    return _declared(view), {"baselines": _baselines(view), "own": own, "metric": metric}


def along(view: View, over: str, names: Sequence[str] | None = None) -> list[tuple[str, Results]]:
    """Runs of the seed and size of the run looked at, by dose: heads of one seed are the same weights at step 0 at every dose.

    Args:
        view: what is looked at.
        over: the dose.
        names: of the runs that are doses of one another; None for all.

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
        mine_too = names is None or run.run in names
        if dose is not None and alike and mine_too and run.has(view.state.probe, view.state.metric):
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
    runs = along(view, found.over, found.runs)
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
    st.caption("Plays over the doses, one run of this seed at each; the run at which it stops is selected.")
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
    declared = _declared(view)
    all_of_them = len(found.runs) == len(declared)
    folders = dict.fromkeys(
        str(run.path.parent if all_of_them else run.path) for run in declared if run.run in found.runs
    )
    base = ["--baseline", found.baseline]
    return [shell_line(["byrote", "degrade", *folders, "--metric", found.metric, *base])]


def _notebook(view: View) -> list[str]:
    if isinstance(found := _doses(view), ByroteError):
        return ["run.facts"]
    folders = [str(run.path) for run in _declared(view) if run.run in found.runs]
    base = f", baseline={found.baseline!r}"
    return [
        "from byrote.probes import degrade",
        f"runs = [Results.open(path) for path in {folders!r}]",
        f"settings = degrade.DegradeSettings(metric={found.metric!r}{base})",
        "found = degrade.degradation(degrade.by_arm(runs), settings)",
        *(["figures.dose_response(found.doses, metric=found.metric)"] if found.by_size else []),
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
