"""Head: what does this head do, and how sure are we?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st
from jaxtyping import Float

from app.dashboard import drawn, findings
from app.dashboard.components.token_view import token_text, token_view
from app.dashboard.saved import SavedRun, head_names
from app.dashboard.session import View, chosen, pin_button
from app.dashboard.session import go as move
from app.dashboard.show import Page, how_computed, nothing, panel
from app.dashboard.state import link
from app.dashboard.views import own as own_view
from app.dashboard.words import literal
from probes.attention import StoredText, pattern_in, stored_pattern, stored_texts
from probes.figures.words import chance_number, clean, interval, probe_name, sentence_case, step_number
from probes.registry import REGISTRY

TITLE = "Head"
ICON = ":material/target:"
TOKENS = "tokens"
MEMORISED = frozenset({"members"})
MAX_DRAWN_TOKENS = 256


def draw(view: View, page: Page) -> None:
    """Neighbours, attention on the kept texts, and everything measured about the head."""
    run, state = view.run, view.state
    cube = run.cube(state.probe, state.metric) if state.probe else None
    page.title(findings.head(run, cube, state.head, probe=state.probe, step=state.step))
    if not state.head:
        nothing("No probe with a value per head was measured.", "rote run PATH -p prefix_matching -o results")
        return
    _neighbours(view)
    with panel("the attention"):
        _attention(view, page)
    left, right = st.columns([3, 2], gap="medium")
    with left, panel("the scores of this head"):
        _scores(view, page)
    with right, panel("how far back it looks"):
        _offsets(view, page)


def _neighbours(view: View) -> None:
    names, state = head_names(view.run), view.state
    at = names.index(state.head)
    with st.container(horizontal=True, vertical_alignment="center", key="neighbours"):
        st.button(
            "Previous head",
            icon=":material/chevron_left:",
            disabled=at == 0,
            on_click=move,
            kwargs={"head": names[at - 1]},
            key="before",
            type="tertiary",
        )
        st.button(
            "Next head",
            icon=":material/chevron_right:",
            disabled=at + 1 == len(names),
            on_click=move,
            kwargs={"head": names[(at + 1) % len(names)]},
            key="after",
            type="tertiary",
        )
        pin_button(state)
        for name in ("trajectory", "circuit", "compare"):
            if name in view.pages:
                st.page_link(
                    view.pages[name],
                    label={
                        "trajectory": "Over training",
                        "circuit": "In the circuit",
                        "compare": "Against the baseline",
                    }[name],
                    query_params=link(state),
                )


def _attention(view: View, page: Page) -> None:
    state, run = view.state, view.run
    st.subheader(f"Attention of {state.head} at step {step_number(state.step)}", anchor=False)
    layer, head = state.layer_head or (0, 0)
    own = own_view.ask(view)
    if own is not None:
        asked, text = own
        _one_text(view, page, text, pattern_in(asked.file, text, layer=layer, head=head), masked=False)
        return
    texts = stored_texts(run.path, state.step)
    if not texts:
        series = (run.meta.get("series") or {}).get("path") or "PATH"
        again = f"rote run {clean(series)} -o {clean(run.path.parent)} --save-attention"
        nothing(
            "Scores only: this run kept no attention.",
            f"Run the same sweep again with --save-attention; only the attention is added: {again}",
        )
        return
    text, masked = _text_control(view, texts)
    _one_text(
        view, page, text, stored_pattern(run.path, state.step, text, layer=layer, head=head), masked=masked
    )


def _one_text(
    view: View, page: Page, text: StoredText, pattern: Float[np.ndarray, "q k"], *, masked: bool
) -> None:
    """The tokens and the matrix of one text."""
    state = view.state
    _reading_controls(view)
    pattern = pattern[:MAX_DRAWN_TOKENS, :MAX_DRAWN_TOKENS]
    tokens = [*(text.words or map(str, text.tokens))][:MAX_DRAWN_TOKENS]
    left, right = st.columns([3, 2], gap="medium")
    with left:
        token_view(
            tokens,
            pattern,
            lock=state.q,
            direction=state.shade,
            skip_first=state.sink == "without",
            masked=masked,
            key=TOKENS,
            on_lock=_held,
        )
        if len(text.tokens) > MAX_DRAWN_TOKENS:
            st.caption(f"The first {MAX_DRAWN_TOKENS} of {len(text.tokens):,} tokens.")
        words = (
            "token ids: this series has no tokenizer"
            if text.words is None
            else "one box per token, spaces as ·"
        )
        st.caption(literal(f"{text_words(text)}, {text.stimulus_id}; {words}. Kept to 1/255."))
        how_computed([state.probe, "prefix_matching"], key="how_attention")
    with right:
        labels = ["•••" if masked else token_text(token) for token in tokens]
        fig = drawn.matrix(pattern, labels, head=state.head, held=state.q, what=text_words(text))
        page.figure(fig, "attention")


def _text_control(view: View, texts: Sequence[StoredText]) -> tuple[StoredText, bool]:
    """Which kept text, and whether its tokens stay masked."""
    at = min(view.state.text, len(texts) - 1)
    st.session_state["w_text"] = at
    with st.container(horizontal=True, vertical_alignment="bottom", key="text_controls"):
        st.selectbox(
            "Text", range(len(texts)), key="w_text", format_func=lambda i: text_words(texts[i]), width=320,
            on_change=lambda: move(text=st.session_state["w_text"], q=None),
        )  # fmt: skip
        masked = texts[at].stimulus in MEMORISED
        if masked:
            hint = "These are training sequences, masked because they may be memorised"
            masked = not st.toggle("reveal training text", key="reveal", help=hint)
    return texts[at], masked


def _reading_controls(view: View) -> None:
    """Direction of the shading, and whether attention to position 0 is left out."""
    words = {"to": "what it attends to", "from": "what attends to it"}
    with st.container(horizontal=True, vertical_alignment="center", key="reading_controls"):
        st.session_state["w_shade"] = view.state.shade
        st.segmented_control(
            "Shade", tuple(words), required=True, key="w_shade", format_func=words.get, label_visibility="collapsed",
            on_change=lambda: move(shade=st.session_state["w_shade"] or "to"),
        )  # fmt: skip
        st.session_state["w_sink"] = view.state.sink == "without"
        st.toggle(
            "without position 0", key="w_sink", help="Leave out attention that rests on the first token, and stretch the rest to 1",
            on_change=lambda: move(sink="without" if st.session_state["w_sink"] else "with"),
        )  # fmt: skip


def text_words(text: StoredText) -> str:
    """What a kept text is: ``repeated random tokens 1``."""
    names = {
        "repeated_random": "repeated random tokens",
        "natural": "natural text",
        "members": "training sequence",
    }
    number = "" if text.stimulus == "own" else f" {text.index + 1}"
    return names.get(text.stimulus, probe_name(text.stimulus)) + number


def _scores(view: View, page: Page) -> None:
    st.subheader("Everything measured about this head", anchor=False)
    frame = scores_frame(view.run, view.state.head, step=view.state.step)
    if frame.empty:
        nothing(f"Nothing was measured about {view.state.head} at step {step_number(view.state.step)}.")
        return
    page.table(
        frame,
        "scores",
        caption=f"{view.state.head} at step {step_number(view.state.step)}: value with 95% interval, chance, n and rank among all heads.",
        column_config={
            "measure": st.column_config.TextColumn("measure", width=230),
            "curve": st.column_config.LineChartColumn("curve", width=60),
            "value [95% interval]": st.column_config.TextColumn("value [95% interval]", width=150),
            "chance": st.column_config.TextColumn("chance", width=60),
            "n": st.column_config.NumberColumn("n", width=44),
            "rank": st.column_config.TextColumn("rank", width=64),
        },
        height=min(38 + 35 * len(frame), 640),
    )
    how_computed(list(dict.fromkeys(view.run.head_probes)), key="how_scores")


def scores_frame(run: SavedRun, label: str, *, step: int) -> pd.DataFrame:
    """One row per head metric: value, interval, chance, n, rank, and the curve; the reason where not measured."""
    names = head_names(run)
    n_heads = run.shape[1]
    layer, head = divmod(names.index(label), n_heads)
    rows = []
    for probe, metrics in run.head_probes.items():
        for metric in metrics:
            rows.append(_score_row(run, probe, metric, (layer, head), step))
    return pd.DataFrame([row for row in rows if row is not None])


def _score_row(run: SavedRun, probe: str, metric: str, head: tuple[int, int], step: int) -> dict | None:
    cube = run.cube(probe, metric)
    at = (cube.index(step), *head)
    info = REGISTRY[probe]
    name = (
        probe_name(probe)
        if metric in ("score", info.main_metric)
        else f"{probe_name(probe)}: {probe_name(metric)}"
    )
    curve = [None if not np.isfinite(v) else float(v) for v in cube.value[:, head[0], head[1]]]
    row = {
        "measure": sentence_case(name),
        "curve": curve,
        "value [95% interval]": "",
        "chance": "",
        "n": None,
        "rank": "",
        "unit": info.unit_of(metric),
    }
    if not cube.valid[at]:
        held = run.rows(probe, metric)
        mine = held[
            (held["step"] == step)
            & ((held["layer"] == head[0]) & (held["head"] == head[1]) | held["layer"].isna())
        ]
        if mine.empty:
            return None
        doubt = run.left_out.get(step)
        reason = f"left out by lint: {doubt}" if doubt else str(mine.iloc[0]["reason"])
        return row | {"value [95% interval]": f"not measured: {clean(reason)}"}
    chance = float(cube.chance[at])
    order = cube.ranked(step).index(head) + 1
    return row | {
        "value [95% interval]": interval(*(float(grid[at]) for grid in (cube.value, cube.lo, cube.hi))),
        "chance": chance_number(chance) if np.isfinite(chance) else "–",
        "n": int(cube.n[at]),
        "rank": f"{order} of {int(cube.valid[at[0]].sum())}",
    }


def _offsets(view: View, page: Page) -> None:
    st.subheader("How far back it looks", anchor=False)
    run, state = view.run, view.state
    if run.kinds.get(("offset_profile", "profile")) != "head curve":
        nothing("The offset profile was not measured.", "rote run PATH -p offset_profile -o results")
        return
    heads = tuple(dict.fromkeys([state.head, *state.pin]))[:3]
    page.figure(drawn.offsets(run, heads, state.step), "offsets")
    how_computed(["offset_profile"], key="how_offsets")


def _held() -> None:
    at = chosen(TOKENS, "q")
    if at is not None:
        move(q=int(at) if int(at) >= 0 else None)
