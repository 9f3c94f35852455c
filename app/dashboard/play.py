"""A view as one file that plays anywhere, offline: the grid, the curves, the circuit, and the attention of pinned heads.

It is made of the dashboard's own components and the data that they get from its server, without the server. No Streamlit.

1. what was found, the runs and the alerts are those of the report about the same runs
2. of a long series of a large model only as many checkpoints are in the file as `MAX_CELLS` allows, those of events among them
3. attention is in it at the checkpoints where it was saved, as many of them as `MAX_PATTERN_BYTES` allows
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.setting import path_of
from byrote.dashboard import figure_cache, findings
from byrote.dashboard.components.base import source
from byrote.dashboard.components.circuit_graph import graph_data
from byrote.dashboard.components.head_grid import grid_data, what
from byrote.dashboard.components.token_view import token_data
from byrote.dashboard.library import Library, run_folders
from byrote.dashboard.query_params import MAX_PINS, State, read
from byrote.interp.axes import head_label, parse_head
from byrote.probes.attention import (
    MEMORISED,
    StoredText,
    attention_file,
    stored_pattern,
    stored_texts,
    text_words,
)
from byrote.probes.figures.circuit import ROLE_TOKENS, WAY_NAMES
from byrote.probes.figures.select import counts_in_words
from byrote.probes.figures.svg import places
from byrote.probes.head_roles import PREVIOUS, ROLES, introduce, roles
from byrote.probes.repeats import repeats_of
from byrote.probes.results import Results
from byrote.probes.wording import clean, counted, listed, sentence_case, step_number
from byrote.report.alerts import alerts_for, status_of
from byrote.report.background import errors_section, provenance_section
from byrote.report.content import run_lines, title_of
from byrote.report.files import now_in_words, page_file_of, write_files
from byrote.report.html import bare, render
from byrote.report.model import Block, Live, Program, Prose, Report, Section, Table
from byrote.report.report_inputs import report_inputs
from byrote.report.tables import estimate_of, picture

COMPONENTS = ("head_grid", "circuit_graph", "token_view")
MAX_CELLS = 600_000  # heads x checkpoints of all runs: two bytes each in the grid, one in the circuit
MAX_PATTERN_BYTES = 600_000  # of saved attention, a byte per pair of tokens
MAX_TOKENS = 128  # of a text that is shown
MAX_HEADS = 8  # in the table of numbers, those that are pinned first
_PREVIOUS = ("previous_token", "score")
_FOOTER = "This file needs no other files and makes no requests: it was made by byrote export"


def export(
    results: Results | str | PathLike[str] | Sequence[Results | str | PathLike[str]],
    out: str | PathLike[str],
    *,
    run: str | None = None,
    base: str | None = None,
    probe: str | None = None,
    metric: str | None = None,
    heads: str | Sequence[str] = (),
    step: int | None = None,
    date: str | None = None,
) -> Path:
    """Write one HTML file in which a run plays beside its baseline: head grid, curves, circuit and attention.

    Args:
        results: one run or more, their folders, or a folder of several.
        out: the file, replaced if it exists; a folder gets `play.html`.
        run: which of the runs plays; None takes one in which induction heads appear.
        base: the run beside it, "" for none; None takes its counterpart on other data.
        probe: a probe with a value per head; None takes prefix matching, or the first that was measured.
        metric: of the probe; None takes its main one.
        heads: pinned heads, such as `"L1H0"`: their curves and attention are shown, of at most six. The strongest head and the
            strongest previous-token head where there are none.
        step: where it opens; None opens at the first event.
        date: printed date; None takes the current one.

    Returns:
        The file.

    Raises:
        ByroteError: no run, two runs of one name, a name, probe, head or step there is not, or a place that cannot be written
            or ends as a file of another kind.
    """
    place = page_file_of(path_of(out, "out"), "play.html")
    given: list[Any] = [*results] if isinstance(results, list | tuple) else [results]
    opened: list[Results] = []
    for one in given:
        if isinstance(one, Results):
            opened.append(one)
        else:
            folder = path_of(one, "results")
            opened += [Results.open(place) for place in run_folders([folder]) or [folder]]
    report_inputs(opened[:1])
    library = Library({one.run: one for one in opened})
    if len(library.runs) < len(opened):
        report_inputs(opened)  # says which name two of them share
    pins = ",".join([heads] if isinstance(heads, str) else heads)
    requested = {
        "run": run,
        "base": base,
        "probe": probe,
        "metric": metric,
        "pin": pins or None,
        "step": step,
    }
    given_words = {name: str(value) for name, value in requested.items() if value is not None}
    reading = read(given_words, library, called={"pin": "heads"})
    if reading.complaints:
        found, _, shown = reading.complaints[0].partition("; ")
        advice = shown if shown.startswith("write ") else shown and f"without it: {shown}"
        raise ByroteError(found, help=advice)
    state = reading.state
    if (
        base is None and not state.base and len(opened) == 2
    ):  # runs that declare no arm: the one beside the other
        state = replace(state, base=next(name for name in library.runs if name != state.run))
    page = play_html(library, state, date=date)
    write_files({place: page})
    return place


def play_html(library: Library, state: State, *, date: str | None = None) -> str:
    """The page.

    Args:
        library: where the state's run and baseline are.
        state: what is looked at.
        date: printed date; None takes the current one.

    Raises:
        ByroteError: the run has no value per head.
    """
    run, base = library.runs[state.run], library.runs.get(state.base)
    if not state.probe:
        raise ByroteError(
            f"no probe with a value per head was measured in {run.run}",
            help="byrote run PATH -p prefix_matching",
        )
    state = replace(state, pin=pinned(run, state))
    runs = [one for one in (base, run) if one is not None]
    inputs = report_inputs(runs, base=base.run if base else None)
    movie = _Movie(run, base, state)
    sections = (
        _training_section(movie, runs),
        *_circuit_section(movie),
        *_attention_section(movie),
        _numbers_section(movie, runs),
        provenance_section(inputs),
        errors_section(inputs),
    )
    alerts = alerts_for(inputs, [section.name for section in sections])
    report = Report(
        title_of(inputs), run_lines(inputs), date if date is not None else now_in_words(), status_of(inputs, alerts), alerts, sections
    )  # fmt: skip
    return render(report, light=True, program=_program(movie), footer=_FOOTER)[0]


def pinned(run: Results, state: State) -> tuple[str, ...]:
    """The heads whose curves and attention are shown: the chosen one and the pinned ones; of none, also the strongest
    previous-token head there is then or at the end, which an induction head reads."""
    pins = list(state.pin)
    steps = (state.step, int(run.steps[-1])) if run.steps and not pins and run.has(*_PREVIOUS) else ()
    for step in steps:
        found = {head for head, role in roles(run, step).items() if role == PREVIOUS}
        pins += [head_label(*head) for head in run.cube(*_PREVIOUS).ranked(step) if head in found][
            : 1 - len(pins)
        ]
    return tuple(dict.fromkeys(filter(None, (state.head, *pins))))[:MAX_PINS]


@dataclass
class _Movie:
    """What is shown, and what the browser gets of it.

    Attributes:
        run, base: the run, and the baseline beside it.
        state: what is looked at.
        parts: components in the page: where, of which template, with which data.
        cursors: rules that move through still figures.
    """

    run: Results
    base: Results | None
    state: State
    parts: list[dict[str, Any]] = field(default_factory=list)
    cursors: list[dict[str, Any]] = field(default_factory=list)
    unaligned: str = ""

    def __post_init__(self) -> None:
        self.pairs: Mapping[int, int] = {}
        if self.base is not None:
            try:
                self.pairs = figure_cache.pairs_of(self.run, self.base, self.state.align)
            except ByroteError as error:
                self.unaligned = f"The baseline cannot be aligned: {error.message}."
        self.in_file = _shown_steps(
            self.run, self.base, (s for s, _ in self.events()), self.pairs, self.state
        )

    def events(self) -> list[tuple[int, str]]:
        """Steps worth jumping to, of both runs."""
        return findings.events_of_both(self.run, self.base, self.pairs)

    def steps(self, run: Results) -> list[int]:
        """The checkpoints of a run that are in the file."""
        return self.in_file[run is not self.run]

    def at(self) -> list[int]:
        """Which of the baseline's checkpoints stands beside each of the run's; -1 for none."""
        if self.base is None:
            return []
        place = {step: i for i, step in enumerate(self.steps(self.base))}
        return [place.get(self.pairs.get(step, -1), -1) for step in self.steps(self.run)]

    def runs(self) -> list[tuple[Results, State, bool]]:
        """The run and the baseline, each with what is looked at in it, and whether it is the baseline."""
        found = [(self.run, self.state, False)]
        if self.base is not None and len(self.steps(self.base)):
            step = self.pairs.get(self.state.step, self.steps(self.base)[-1])
            found.append((self.base, replace(self.state, run=self.base.run, base="", step=step), True))
        return found

    def add(
        self, name: str, component: str, data: Mapping[str, Any], *, of_base: bool = False, **more: Any
    ) -> None:
        """One component; that of the baseline follows the run by `at`."""
        at = {"at": self.at()} if of_base else {}
        self.parts.append({"name": name, "component": component, "data": data, **at, **more})


def _shown_steps(
    run: Results, base: Results | None, events: Iterable[int], pairs: Mapping[int, int], state: State
) -> tuple[list[int], list[int]]:
    """The checkpoints of the run and of the baseline that the file has room for: spread evenly, events among them."""
    heads = run.shape[0] * run.shape[1]
    most = max(12, MAX_CELLS // max(1, heads * (1 + (base is not None))))
    mine = list(run.all_steps)
    if len(mine) > most:
        spread = np.unique(np.linspace(0, len(mine) - 1, most).astype(int))
        wanted = {*(mine[i] for i in spread), *events, state.step}
        mine = [step for step in mine if step in wanted]
    if base is None:
        return mine, []
    theirs = list(base.all_steps)
    if len(theirs) > most:
        wanted = {*(pairs[step] for step in mine if step in pairs), theirs[0], theirs[-1]}
        theirs = [step for step in theirs if step in wanted]
    return mine, theirs


def _training_section(movie: _Movie, runs: Sequence[Results]) -> Section:
    """The grid that plays, and the curves of the pinned heads with a rule that moves along."""
    run, base, state = movie.run, movie.base, movie.state
    data = grid_data(run, state, base=base, pairs=movie.pairs, events=movie.events())
    data = _fewer(data, run, movie.steps(run)) | {"key": "grid"}
    for panel, (one, _, of_base) in zip(data["panels"], movie.runs(), strict=False):
        panel["codes"] = _cut(panel["codes"], one, movie.steps(one), "<u2")
        panel["at"] = movie.at() if of_base else None
    movie.add("grid", "head_grid", data)
    left_out = len(run.all_steps) - len(movie.steps(run))
    rows = pd.concat(
        [one.rows(state.probe, state.metric) for one in runs if one.has(state.probe, state.metric)]
    )
    facts = [
        f"{sentence_case(what(state))} of every head over training. {_counts(rows)}",
        f"{counted(left_out, 'checkpoint')} of {len(run.all_steps)} are left out to limit the size of this file." if left_out else "",
        movie.unaligned,
    ]  # fmt: skip
    blocks: list[Block] = [Prose(" ".join(filter(None, facts)))]
    blocks.append(
        Live("grid", "head_grid", "Layer by head. Choose a head to follow it everywhere on this page.")
    )
    if len(run.steps) > 1:
        figure = figure_cache.curves(run, base, state, rule=False)
        zero = min(
            (x for trace in figure.data for x in trace.x if x is not None), default=1
        )  # where step 0 is drawn
        x, top, bottom = places(bare(figure), [step or zero for step in movie.steps(run)])
        movie.cursors.append(
            {"name": "curves", "x": [round(at, 1) for at in x], "top": top, "bottom": bottom}
        )
        blocks.append(picture("curves", figure, runs))
    return Section("training", "Over training", tuple(blocks))


def _counts(rows: pd.DataFrame) -> str:
    return counts_in_words(rows.assign(value=rows["value"].where(rows["valid"].astype(bool))))


def _circuit_section(movie: _Movie) -> list[Section]:
    """The graph of every run in which composition was measured."""
    blocks: list[Block] = []
    n_panels = len(movie.parts[0]["data"]["panels"])  # of the grid, whose codes the nodes share
    for panel, (one, state, of_base) in enumerate(movie.runs()):
        if not one.has("composition", f"{state.way}_z") or one.shape[0] < 2:
            continue
        found, steps = figure_cache.wiring(one, state.way), movie.steps(one)
        least = state.z if state.z is not None else found.default_least(state.step)
        if not any(found.edges.values()):
            continue
        if not one.has(state.probe, state.metric):
            state = replace(state, probe="", metric="")
        data = graph_data(one, state, found, least=least, theme="light", events=findings.events(one))
        data = _fewer(data, one, steps)
        at = [one.all_steps.index(step) for step in steps]
        data |= {name: [data[name][i] for i in at] for name in ("edges", "totals")}
        data |= {
            "key": "circuit",
            "scores": "" if panel < n_panels else _cut(data["scores"], one, steps, "<u2"),
            "panel": panel if panel < n_panels else None,
            "role_of": _cut(data["role_of"], one, steps, "u1"),
            "path_color": "var(--series1)",
            "role_colors": [f"var(--{ROLE_TOKENS[role]})" for role in ROLES],
        }
        name = "circuit-base" if of_base else "circuit"
        movie.add(name, "circuit_graph", data, of_base=of_base)
        role = ", the baseline" if of_base else ""
        blocks.append(
            Live(
                name,
                "circuit_graph",
                f"{WAY_NAMES[state.way]} in {clean(one.run, limit=60)}{role}",
                half=one.shape[1] <= 4,
            )
        )
    if not blocks:
        return []
    words = (
        f"Node size: {what(movie.state)}. z shows which pairs stand out among the pairs of their two layers, not what they do; "
        "an orange edge is a path whose ablation lowers prefix matching."
    )
    return [Section("circuits", "Circuit", (Prose(words), *blocks))]


def _attention_section(movie: _Movie) -> list[Section]:
    """Attention of the pinned heads on one saved text of each run, at the checkpoints where it was saved."""
    shown = [(one, state, of_base, _saved(one, movie.steps(one))) for one, state, of_base in movie.runs()]
    wanted = next(
        (_text(texts, movie.state.text) for *_, saved in shown for texts in saved.values() if texts), None
    )
    if wanted is None:
        return []
    room = MAX_PATTERN_BYTES // max(1, len(movie.state.pin) * sum(bool(saved) for *_, saved in shown))
    blocks: list[Live] = []
    for one, state, of_base, saved in shown:
        same = {step: _same(texts, wanted) for step, texts in saved.items()}
        texts = {step: text for step, text in same.items() if text is not None}
        if not texts:
            continue
        n_pos = min(MAX_TOKENS, max(len(text.tokens) for text in texts.values()))
        nearest = min(texts, key=lambda step: abs(step - state.step))
        some = findings.spread(sorted(texts), max(1, room // n_pos**2), [nearest])
        texts = {step: texts[step] for step in some}
        for label in state.pin:
            layer, head = parse_head(label)
            if layer >= one.shape[0] or head >= one.shape[1]:
                continue
            name = f"attention-{label}{'-base' if of_base else ''}"
            _add_attention(movie, name, one, state, texts, (layer, head), of_base=of_base)
            role = ", the baseline" if of_base else ""
            caption = f"{label} in {clean(one.run, limit=60)}{role}, on {text_words(wanted)}"
            blocks.append(Live(name, "token_view", caption, half=True))
    if not blocks:
        return []
    blocks.sort(
        key=lambda block: movie.state.pin.index(block.name.split("-")[1])
    )  # a head's two runs side by side
    masked = (
        " The tokens are masked: they are training data that may be memorised."
        if wanted.stimulus in MEMORISED
        else ""
    )
    words = f"Attention of {listed(list(movie.state.pin))} on one sequence, stored in steps of 1/255: hover over a token, or select it.{masked}"
    return [Section("attention", "Attention", (Prose(words), *blocks))]


def _add_attention(
    movie: _Movie,
    name: str,
    run: Results,
    state: State,
    texts: Mapping[int, StoredText],
    head: tuple[int, int],
    *,
    of_base: bool,
) -> None:
    """The strip of tokens, and one pattern for each step at which it was saved."""
    frames, data = [], {}
    for step, text in texts.items():
        pattern = stored_pattern(attention_file(run.path, step), text, layer=head[0], head=head[1])[
            :MAX_TOKENS, :MAX_TOKENS
        ]
        tokens = [*(text.words or map(str, text.tokens))][:MAX_TOKENS]
        data = token_data(
            tokens, pattern, state=state, masked=text.stimulus in MEMORISED, repeats=repeats_of(text.tokens[:MAX_TOKENS])
        )  # fmt: skip
        label = f"saved at step {step_number(step)}. {introduce(run, head, step=step)}."
        frames.append({"index": movie.steps(run).index(step), "label": label, "codes": data["codes"]})
    data |= {"index": movie.steps(run).index(state.step) if state.step in movie.steps(run) else 0}
    movie.add(name, "token_view", data, of_base=of_base, frames=frames)


def _saved(run: Results, steps: Iterable[int]) -> dict[int, list[StoredText]]:
    """The texts whose attention was saved, by step."""
    files = {step: attention_file(run.path, step) for step in steps}
    return {step: stored_texts(file) for step, file in files.items() if file.is_file()}


def _text(texts: Sequence[StoredText], index: int) -> StoredText:
    return texts[min(index, len(texts) - 1)]


def _same(texts: Iterable[StoredText], wanted: StoredText) -> StoredText | None:
    """The same text, or what stands in its place in another run."""
    return next((t for t in texts if (t.stimulus, t.index) == (wanted.stimulus, wanted.index)), None)


def _numbers_section(movie: _Movie, runs: Sequence[Results]) -> Section:
    """The numbers of the pinned and the strongest heads with their intervals, where the page opens and at the end."""
    state, run = movie.state, movie.run
    ranked = [head_label(*head) for head in run.cube(state.probe, state.metric).ranked(state.step)]
    heads = list(dict.fromkeys([*state.pin, *ranked]))[:MAX_HEADS]
    columns, cells, used = [], [], []
    for one, mine, _ in movie.runs():
        for step in dict.fromkeys((mine.step, one.last_step)):
            rows = one.rows(state.probe, state.metric, step=step)
            if rows.empty:
                continue
            found = {head_label(int(row.layer), int(row.head)): row for row in rows.itertuples(index=False)}
            columns.append(f"{clean(one.run, limit=60)}, step {step_number(step)}")
            cells.append([estimate_of(found[head]) if head in found else None for head in heads])
            used.append(rows)
    caption = f"{sentence_case(what(state))} of the pinned and the strongest heads. {_counts(pd.concat(used)) if used else ''}"
    rows = (
        tuple((head, *column) for head, column in zip(heads, zip(*cells, strict=True), strict=True))
        if cells
        else ()
    )
    table = Table("numbers-table", caption.strip(), ("Head", *columns), rows)
    return Section("numbers", "Numbers", (table,))


def _fewer(data: dict[str, Any], run: Results, steps: Sequence[int]) -> dict[str, Any]:
    """The data of a player cut to some steps of its run."""
    if len(steps) == len(run.all_steps):
        return data
    at = [run.all_steps.index(step) for step in steps]
    place = {old: new for new, old in enumerate(at)}
    return data | {
        "steps": list(steps),
        "labels": [data["labels"][i] for i in at],
        "marks": [mark | {"index": place[mark["index"]]} for mark in data["marks"] if mark["index"] in place],
        "index": place[data["index"]],
    }


def _cut(text: str, run: Results, steps: Sequence[int], kind: str) -> str:
    """Packed codes cut to some steps of their run."""
    if len(steps) == len(run.all_steps):
        return text
    codes = np.frombuffer(base64.b64decode(text), dtype=kind).reshape(len(run.all_steps), -1)
    chosen = codes[[run.all_steps.index(step) for step in steps]]
    return base64.b64encode(chosen.tobytes()).decode("ascii")


def _program(movie: _Movie) -> Program:
    """The components' own files, and what starts them."""
    shared = source("shared.css")
    templates = {name: (shared + source(f"{name}.css"), source(f"{name}.html")) for name in COMPONENTS}
    made = ",\n".join(
        f"{name}: (() => {{\n{_as_function(source(f'{name}.js'))}\n}})()" for name in COMPONENTS
    )
    script = f"{source('player.js')}\nconst COMPONENTS = {{\n{made}\n}};\n{source('play.js')}"
    data = {"parts": movie.parts, "cursors": movie.cursors}
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return Program(templates, source("play.css"), script, gzip.compress(text.encode(), mtime=0))


def _as_function(module: str) -> str:
    """A component's module as the body of a function that returns what the module exports."""
    start = "export default "
    if module.count(start) != 1:
        raise ValueError("a component exports one function")
    return module.replace(start, "return ")
