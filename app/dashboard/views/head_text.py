"""One head on one text: its tokens, its attention, and what it writes there. Kept by a sweep, or of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import streamlit as st

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard import figure_cache
from byrote.dashboard.components.base import show
from byrote.dashboard.components.token_view import MASK, token_data, token_text
from byrote.dashboard.missing import run_command
from byrote.dashboard.page import Drawing, View, how_computed, nothing, panel
from byrote.dashboard.session import bound, chosen, go
from byrote.dashboard.views import head_writes
from byrote.dashboard.views import own as own_view
from byrote.probes.attention import (
    StoredText,
    attention_file,
    kept_bytes,
    stored_pattern,
    stored_texts,
    unwritten,
)
from byrote.probes.results import Results
from byrote.probes.wording import counted, literal, probe_name, size, step_number

TOKENS = "tokens"
MEMORISED = frozenset({"members"})
MAX_DRAWN_TOKENS = 256


def draw(view: View, page: Drawing) -> None:
    """A text of one's own or a kept one: its tokens, the matrix, and what the head writes."""
    state, run = view.state, view.run
    st.subheader(f"Attention of {state.head} at step {step_number(state.step)}", anchor=False)
    own = own_view.ask(view)
    if own is not None:
        asked, text = own
        _one_text(view, page, text, asked.file, masked=False)
        return
    texts = stored_texts(attention_file(run.path, state.step))
    if not texts:
        _without_attention(run, state.step)
        return
    text, masked = _text_control(view, texts)
    _one_text(view, page, text, attention_file(run.path, state.step), masked=masked)


def _without_attention(run: Results, step: int) -> None:
    """Scores only, and the nearest step that has more, or how to come by it."""
    steps = [s for s in run.all_steps if attention_file(run.path, s).is_file()]
    if not steps:
        nothing("Scores only: this run kept no attention.", how_to_keep(run))
        return
    nearest = min(steps, key=lambda s: abs(s - step))
    nothing(
        f"Scores only: attention was kept at {counted(len(steps), 'checkpoint')}, not at this one.",
        how_to_keep(run),
    )
    st.button(
        f"Go to step {step_number(nearest)}, which has it", icon=":material/arrow_forward:", key="to_attention",
        on_click=go, kwargs={"step": nearest},
    )  # fmt: skip


def how_to_keep(run: Results) -> str:
    """The command that adds attention to a run, and how much it stores."""
    n_layers, n_heads = run.shape
    n_bytes = kept_bytes(run.meta.get("stimuli") or [], n_heads=n_layers * n_heads)
    adds = f" (about {size(n_bytes)} per checkpoint)" if n_bytes else ""
    return f"Run the same sweep again with --save-attention; only the attention is added{adds}: {run_command(run, '--save-attention')}"


def _one_text(view: View, page: Drawing, text: StoredText, file: Path, *, masked: bool) -> None:
    """The tokens and the matrix of one text, and what the head writes on it."""
    state = view.state
    layer, head = state.layer_head or (0, 0)
    pattern = stored_pattern(file, text, layer=layer, head=head)[:MAX_DRAWN_TOKENS, :MAX_DRAWN_TOKENS]
    _reading_controls(view)
    tokens = [*(text.words or map(str, text.tokens))][:MAX_DRAWN_TOKENS]
    left, right = st.columns([3, 2], gap="medium")
    with left:
        show("token_view", token_data(tokens, pattern, state=state, masked=masked), key=TOKENS, q=_selected)
        if len(text.tokens) > MAX_DRAWN_TOKENS:
            st.caption(f"The first {MAX_DRAWN_TOKENS} of {len(text.tokens):,} tokens.")
        words = (
            "token ids: this series has no tokenizer"
            if text.words is None
            else "one box per token, spaces as ·"
        )
        st.caption(literal(f"{text_words(text)}, {text.stimulus_id}; {words}. Kept to 1/255."))
        how_computed([state.probe, "prefix_matching"], key="how_attention")
        with panel("what this head writes"):
            head_writes.draw(view, page, text, file, n_drawn=len(tokens), masked=masked)
    with right:
        labels = [MASK if masked else token_text(token) for token in tokens]
        matrix = partial(
            figure_cache.matrix, pattern, labels, head=state.head, query=state.q, where=text_words(text)
        )
        page.figure(matrix, "attention", width="half")


def _text_control(view: View, texts: Sequence[StoredText]) -> tuple[StoredText, bool]:
    """Which kept text, and whether its tokens stay masked."""
    at = min(view.state.text, len(texts) - 1)
    with st.container(horizontal=True, vertical_alignment="bottom", key="text_controls"):
        st.selectbox(
            "Text", range(len(texts)), format_func=lambda i: text_words(texts[i]), width=320, **bound("text", at, q=None)
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
        st.segmented_control(
            "Shade", tuple(words), required=True, format_func=words.__getitem__, label_visibility="collapsed", **bound("shade", view.state.shade)
        )  # fmt: skip
        st.toggle(
            "without position 0", help="Leave out attention that rests on the first token, and stretch the rest to 1",
            **bound("sink", view.state.sink == "without", to=lambda on: "without" if on else "with"),
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


def _selected() -> None:
    at = chosen(TOKENS, "q")
    if at is not None:
        go(q=int(at) if int(at) >= 0 else None)


def notebook(view: View, layer: int, head: int) -> list[str]:
    """Lines that give the kept attention and what the head writes; none where none was kept."""
    run, step = view.run, view.state.step
    try:
        if not stored_texts(attention_file(run.path, step)):
            return []
    except ByroteError:
        return []
    lines = [
        "from byrote.probes.attention import attention_file, stored_pattern, stored_texts, stored_writes",
        f"file = attention_file(run.path, {step})",
        f"text = stored_texts(file)[{view.state.text}]",
        f"stored_pattern(file, text, layer={layer}, head={head})",
    ]
    if not unwritten(attention_file(run.path, step)):
        lines.append(f"stored_writes(file, text, layer={layer}, head={head})")
    return lines
