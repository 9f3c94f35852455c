"""Memory: did it learn the rule, or learn by rote?"""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import partial

import numpy as np
import streamlit as st

from byrote.dashboard import export, figure_cache
from byrote.dashboard.components.token_view import MASK, marked
from byrote.dashboard.figure_cache import points
from byrote.dashboard.library import run_cache
from byrote.dashboard.page import Drawing, Page, View, bound, how_computed, measuring, nothing, panel
from byrote.probes.attention import StoredText, attention_file, stored_texts
from byrote.probes.figures.by_position import TAG_WORDS
from byrote.probes.figures.memory_plane import MASS, MEMORY_AXES, RULE_AXES, available
from byrote.probes.figures.theme import TOKENS
from byrote.probes.findings import memory
from byrote.probes.findings_memory import trained_on_members
from byrote.probes.results import Results
from byrote.probes.wording import clean, literal, step_number


def finding(run: Results, *, step: int) -> str:
    """Does the run remember, does it copy: in one sentence."""
    gaps, rules = (
        {p.step: p for p in points(run, *of)} for of in (("mem_gap", "gap"), ("prefix_matching", "score"))
    )
    return memory(run.run, gaps, rules, step=step, trained=trained_on_members(run))


@dataclass(frozen=True)
class Passage:
    """One member classified token by token.

    Attributes:
        index: among the members.
        words: its tokens; None where no token was saved, and only places can be shown.
        tags: place -> recall, copying, both or neither.
    """

    index: int
    words: tuple[str, ...] | None
    tags: dict[int, str]


@run_cache(64)
def passages(run: Results, step: int) -> tuple[Passage, ...]:
    """The members' passages at a step, with the tag of every token; () where they were not measured."""
    if not run.has("recall_vs_copy", "recall_at"):
        return ()
    rows = run.samples(step, probe="recall_vs_copy")
    rows = rows[rows["valid"]]
    tags: dict[int, dict[int, str]] = {}
    for tag in TAG_WORDS:
        for row in rows[rows["metric"] == f"{tag}_at"].itertuples(index=False):
            for i in np.flatnonzero(np.asarray(row.samples, dtype=float) == 1):
                tags.setdefault(int(i), {})[int(row.position)] = tag
    saved = {
        text.index: text
        for text in stored_texts(attention_file(run.path, step))
        if text.stimulus == "members"
    }
    return tuple(Passage(i, _words(saved.get(i)), dict(sorted(tags[i].items()))) for i in sorted(tags))


def _words(text: StoredText | None) -> tuple[str, ...] | None:
    """Tokens of a member's passage, the first after BOS at place 1."""
    if text is None:
        return None
    return tuple(text.words or map(str, text.tokens))


MAX_RUNS = 8
_MARKS = {"recall": "R", "copying": "C", "both": "B", "neither": "–"}
_TOKENS = {"recall": "series1", "copying": "series0", "both": "series2", "neither": ""}


def draw(view: View, page: Drawing) -> None:
    """The plane, what became of the members, and passages classified token by token."""
    run, step = subject_of(view)
    page.title(finding(run, step=step))
    if run is not view.run:
        st.caption(
            literal(f"Memory was not measured in {view.run.run}; this page shows {run.run}.", limit=300)
        )
    with panel("the plane"):
        _plane(view, page)
    left, right = st.columns([1, 1], gap="medium")
    with left, panel("what became of the members"):
        _flow(run, page)
    with right, panel("how each token is known"):
        _shares(run, page, step=step)
    with panel("the passages"):
        _passages(view, run, step=step)


def subject_of(view: View) -> tuple[Results, int]:
    """The run that the page is about, and its step: the one looked at, or its counterpart where that alone has memory measured."""
    run, base, step = view.run, view.base, view.state.step
    if base is None or points(run, "mem_gap", "gap") or not points(base, "mem_gap", "gap"):
        return run, step
    return base, min(base.steps, key=lambda known: (abs(known - step), known))


def _plane(view: View, page: Drawing) -> None:
    runs = view.beside(MAX_RUNS)  # in this order, so that a run has the colour that it has on the other pages
    ys, xs = available(MEMORY_AXES, runs), available(RULE_AXES, runs)
    if ys and not xs:
        nothing(
            "Memory was measured, but no measure of the rule to plot it against.",
            measuring("prefix_matching"),
        )
        return
    if not ys:
        nothing("No measure of memory in any run.", view.page.command)
        return
    with st.container(horizontal=True, key="plane_controls"):
        x = _axis_choice("Horizontal axis: rule", "rule", xs, view.state.rule)
        y = _axis_choice("Vertical axis: memory", "memory", ys, view.state.memory)
    for wanted, shown in ((view.state.rule, x), (view.state.memory, y)):
        if wanted not in ("", shown):
            st.caption(literal(f"{wanted} was not measured in any of these runs; showing {shown}."))
    plane = partial(
        figure_cache.memory_plane, *runs, rule=x, memory=y, base=view.state.base or None, step=view.state.step, shown=view.run.run
    )  # fmt: skip
    page.figure(plane, "plane")
    probe, metric, _ = MEMORY_AXES[y]
    without = [clean(r.run) for r in runs if not points(r, probe, metric)]
    if without:
        st.caption(
            literal(
                f"Drawn as a line, because memory was not measured: {', '.join(without)}",
                limit=400,
            )
        )
    how_computed([probe, RULE_AXES[x][0]], key="how_plane")


def _measuring(run: Results, probe: str) -> str:
    """The command that measures a probe of members; a run that brings its own needs none to be named."""
    own = any(stimulus.get("kind") == "members" for stimulus in run.meta.get("stimuli") or [])
    return export.run_command(run, "-p", probe, *(() if own else ("--members", "FILE")))


def _axis_choice(label: str, word: str, axes: list[str], wanted: str) -> str:
    """One axis of the plane, from the link; one that no run holds gives way to the first that some run does."""
    chosen = wanted if wanted in axes else axes[0]
    st.selectbox(label, axes, width=240, **bound(word, chosen))
    return chosen


def _flow(run: Results, page: Drawing) -> None:
    st.header("Memorised, retained, forgotten", anchor=False)
    if not run.has("exact_match", "completed") or not points(run, "exact_match", "completed"):
        nothing("Members were not measured in this run.", _measuring(run, "exact_match"))
        return
    if len(points(run, "exact_match", "completed")) < 2:
        nothing("Members were measured at one step; what is memorised and forgotten over training needs two.")
        return
    page.figure(partial(figure_cache.member_flow, run), "flow", width="half")
    page.table(
        figure_cache.member_flow(run).table, "flow", caption="Members that changed between measured steps.", height=240,
        column_order=("step_to", "memorised", "new", "again", "kept", "forgotten", "twins"),
        column_config={"step_to": st.column_config.NumberColumn("step", format="localized")},
    )  # fmt: skip
    how_computed(["exact_match"], key="how_flow")


def _shares(run: Results, page: Drawing, *, step: int) -> None:
    st.header("Recalled or copied, by place", anchor=False)
    rows = run.rows("recall_vs_copy", "recall_at")
    if rows.empty or not rows[(rows["step"] == step)]["valid"].any():
        nothing("Recall and copying were not distinguished here.", _measuring(run, "recall_vs_copy"))
        return
    page.figure(partial(figure_cache.recall_shares, run, step), "shares", width="half")
    how_computed(["recall_vs_copy"], key="how_shares")


def _passages(view: View, run: Results, *, step: int) -> None:
    found = passages(run, step)
    if not found:
        return
    st.header("A training sequence, token by token", anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom", key="passage_controls"):
        at = min(view.state.passage, len(found) - 1)
        st.selectbox(
            "Training sequence", range(len(found)), width=240, **bound("passage", at),
            format_func=lambda i: f"{found[i].index + 1} of {len(found)}" + ("" if found[i].words else ", positions only"),
        )  # fmt: skip
        reveal = st.toggle(
            "reveal its text", key="reveal_passage", help="Masked, because it may be memorised"
        )
    passage = found[at]
    if reveal and passage.words is None:
        st.caption(
            "Its tokens were not saved: run the same sweep with --save-attention for the first two sequences."
        )
    st.html(passage_html(passage, theme=view.theme, reveal=reveal))
    st.caption(literal(f"How each token is predicted at step {step_number(step)}; the first has no context."))


def passage_html(passage: Passage, *, theme: str, reveal: bool) -> str:
    """Tokens tinted by how they are known, with a letter beside the colour. Token text is escaped.

    Args:
        passage: what to draw.
        theme: "light" or "dark".
        reveal: show the text; otherwise every token is three dots.
    """
    side = 0 if theme == "light" else 1
    ink, rule = TOKENS["ink"][side], TOKENS["context"][side]
    boxes = []
    for place in range(1, max(passage.tags, default=0) + 1):
        tag = passage.tags.get(place)
        words = TAG_WORDS[tag] if tag else "not judged"
        text = MASK
        if reveal and passage.words is not None and place < len(passage.words):
            text = html.escape(marked(passage.words[place]))
        token = _TOKENS.get(tag or "", "")
        color = f"color-mix(in srgb,{TOKENS[token][side]} 34%,transparent)" if token else "transparent"
        mark = _MARKS.get(tag or "", " ")
        boxes.append(
            f'<li title="token {place}: {words}" style="background:{color};border:1px solid {rule};border-radius:4px;padding:3px 6px;'
            f'display:flex;gap:5px;align-items:baseline"><code style="color:{ink};background:none;padding:0">{text}</code>'
            f'<span role="img" style="font-size:12px" aria-label="{words}">{mark}</span></li>'
        )
    key = " · ".join(f"{_MARKS[t]} {TAG_WORDS[t]}" for t in TAG_WORDS)
    style = f"color:{ink};list-style:none;display:flex;flex-wrap:wrap;gap:4px;padding:0;margin:0"
    return f'<ol aria-label="Passage" style="{style}">{"".join(boxes)}</ol><p style="color:{ink};font-size:13px;margin:8px 0 0">{key}</p>'


def _metrics(view: View) -> list[tuple[str, str]]:
    """What the axes of the plane and the curves below it are made of, as far as it was measured."""
    axes = [axis[:2] for axis in (*MEMORY_AXES.values(), *RULE_AXES.values())]
    return [pair for pair in axes if pair[1] != MASS and points(view.run, *pair)]


def _commands(view: View) -> list[str]:
    step = str(view.state.step)
    found = [
        export.show(view.run, "--probe", probe, "--metric", metric, "--step", step, "--top", "1")
        for probe, metric in _metrics(view)
    ]
    return found or [export.strongest(view)]


def _notebook(view: View) -> list[str]:
    lines = [f"run[{probe!r}, {metric!r}].rows" for probe, metric in _metrics(view)]
    if points(view.run, "prefix_matching", MASS):
        lines += ["from byrote.probes.trajectory import total_mass", "total_mass(run)"]
    if points(view.run, "exact_match", "completed"):
        lines += ["from byrote.probes.memory.member_flow import member_flow", "member_flow(run)"]
    return lines or ["run"]


PAGE = Page(
    name="memory",
    title="Memory",
    icon=":material/psychology:",
    question="the rule against rote: memorisation against induction, members, passages token by token",
    draw=draw,
    commands=_commands,
    notebook=_notebook,
    needs=("mem_gap", "extraction", "recall_vs_copy"),
    measure="--members FILE",
    state=("rule", "memory", "passage"),
    figures=("plane", "flow", "shares"),
)
