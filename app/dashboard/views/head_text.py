"""One head on one text, stored by a sweep or of one's own: its tokens, its attention, and what it writes there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import streamlit as st

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard import figure_cache, jobs, text_requests
from byrote.dashboard.components.base import show
from byrote.dashboard.components.token_view import MASK, marked, token_data, token_text
from byrote.dashboard.export import run_command
from byrote.dashboard.page import Drawing, View, bound, chosen, go, how_computed, nothing, panel
from byrote.dashboard.text_requests import Cost, Request
from byrote.probes.attention import (
    MEMORISED,
    StoredText,
    Writes,
    attention_file,
    saved_bytes,
    stored_pattern,
    stored_texts,
    stored_writes,
    text_words,
    unwritten,
)
from byrote.probes.results import Results
from byrote.probes.wording import counted, duration, literal, number, size, step_number

TOKENS = "tokens"
MAX_DRAWN_TOKENS = 256


def draw(view: View, page: Drawing) -> None:
    """A text of one's own or a saved one: its tokens, the matrix, and what the head writes."""
    state, run = view.state, view.run
    st.subheader(f"Attention of {state.head} at step {step_number(state.step)}", anchor=False)
    own = ask(view)
    if own is not None:
        request, text = own
        _one_text(view, page, text, request.file, masked=False)
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
        nothing("Scores only: this run saved no attention.", how_to_keep(run))
        return
    nearest = min(steps, key=lambda s: abs(s - step))
    nothing(
        f"Scores only: attention was saved at {counted(len(steps), 'checkpoint')}, not at this one.",
        how_to_keep(run),
    )
    st.button(
        f"Go to step {step_number(nearest)}, which has it", icon=":material/arrow_forward:", key="to_attention",
        on_click=go, kwargs={"step": nearest},
    )  # fmt: skip


def how_to_keep(run: Results) -> str:
    """The command that adds attention to a run, and how much it stores."""
    n_layers, n_heads = run.shape
    n_bytes = saved_bytes(run.meta.get("stimuli") or [], n_heads=n_layers * n_heads)
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
        words = f"token ids: {text.wordless}" if text.words is None else "one box per token, spaces as ·"
        st.caption(literal(f"{text_words(text)}, {text.stimulus_id}; {words}. Saved to 1/255."))
        how_computed([state.probe, "prefix_matching"], key="how_attention")
        with panel("what this head writes"):
            _draw_writes(view, page, text, file, n_drawn=len(tokens), masked=masked)
    with right:
        labels = [MASK if masked else token_text(token) for token in tokens]
        matrix = partial(
            figure_cache.matrix, pattern, labels, head=state.head, query=state.q, where=text_words(text)
        )
        page.figure(matrix, "attention", width="half")


def _text_control(view: View, texts: Sequence[StoredText]) -> tuple[StoredText, bool]:
    """Which saved text, and whether its tokens stay masked."""
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


def _selected() -> None:
    at = chosen(TOKENS, "q")
    if at is not None:
        go(q=int(at) if int(at) >= 0 else None)


def notebook(view: View, layer: int, head: int) -> list[str]:
    """Lines that give the saved attention and what the head writes; none where none was saved."""
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


_HOW = """Direct logit attribution (Elhage et al. 2021): what the head adds to the residual stream at this token, z W_O,
through the final norm with the scale it had in this very pass, times W_U, minus its mean over the vocabulary. In logits:
+1 multiplies a token's odds by 2.7. Heads and MLPs of later layers may read the same write and add to it or undo it; that is
not in these numbers. Saved to three digits, 5 tokens either way."""


def _draw_writes(
    view: View, page: Drawing, text: StoredText, file: Path, *, n_drawn: int, masked: bool
) -> None:
    """The table for the selected token, else the last one.

    Args:
        view: run, step, head and token.
        page: records the table for export.
        text: the sequence.
        file: that holds it.
        n_drawn: tokens that can be selected.
        masked: show no token's text: these were memorised, and were not revealed.
    """
    st.subheader("What it writes", anchor=False)
    if reason := unwritten(file):
        nothing(
            "The tokens this head raises and lowers are not known here.", f"{reason[:1].upper()}{reason[1:]}."
        )
        return
    layer, head = view.state.layer_head or (0, 0)
    at = position(view.state.q, n_drawn)
    writes = stored_writes(file, text, layer=layer, head=head)
    here = MASK if masked else visible((text.words or [str(int(i)) for i in text.tokens])[at])
    frame = writes_frame(writes, at, masked=masked)
    where = f"{view.state.head} at {here} ({at})"
    if frame.empty:
        st.caption(
            literal(
                f"{where} raises and lowers no token: what it writes there, the unembedding does not read."
            )
        )
        return
    hint = "" if view.state.q is not None else " Click a token to look elsewhere."
    page.table(
        frame,
        "writes",
        caption=f"{where}: the tokens it raises and lowers most by itself, in logits against the mean token.{hint}",
        column_config={name: st.column_config.TextColumn(name, width="small") for name in frame.columns},
    )
    with st.popover("How is this computed?", icon=":material/help:", key="how_writes", type="tertiary"):
        st.text(" ".join(_HOW.split()))


def position(selected: int | None, n_drawn: int) -> int:
    """The selected token, where there is one and it is drawn; else the last."""
    return selected if selected is not None and selected < n_drawn else n_drawn - 1


def writes_frame(writes: Writes, at: int, *, masked: bool) -> pd.DataFrame:
    """A row per rank: the token raised and by how much, the token lowered and by how much; empty where there is neither."""
    raised, lowered = writes.raised(at), writes.lowered(at)
    rows = max(len(raised), len(lowered))
    columns = {}
    for what, unit, found in (("raises", "raised by", raised), ("lowers", "lowered by", lowered)):
        blank = [""] * (rows - len(found))
        columns[what] = [MASK if masked else token_words(i, writes.words) for i, _ in found] + blank
        columns[unit] = [number(value, sign=True) for _, value in found] + blank
    return pd.DataFrame(columns)


def token_words(i: int, words: Mapping[int, str] | None) -> str:
    """A token as text with its spaces marked; its id where there is no tokenizer, and where it stands for no text."""
    if words is None:
        return str(i)
    return visible(words[i]) if words.get(i) else f"id {i}"


def visible(token: str) -> str:
    """One token with spaces, line ends and tabs marked, other controls replaced."""
    return marked(token) or "∅"


LOOK_EVERY_S = 1.0


def ask(view: View) -> tuple[Request, StoredText] | None:
    """The form, what it would cost, how it is going; the answer once it is there."""
    box = st.expander("Attention on my own text", icon=":material/edit_note:", key="own", on_change="rerun")
    if not box.open and not st.session_state.get("own_text", "").strip():
        return None  # nothing is looked up on disk for a form that nobody opened
    with box, panel("your text"):
        return _ask(view)
    return None  # type: ignore[unreachable]  # a panel shows the error and goes on


def _ask(view: View) -> tuple[Request, StoredText] | None:
    run, step = view.run, view.state.step
    price = text_requests.cost(run, step)
    hint = "a sentence" if price.has_tokenizer else "token ids, such as 5 17 9 5 17 9"
    text = st.text_area(
        "Text", key="own_text", placeholder=hint, max_chars=text_requests.MAX_CHARS, height=80
    )
    st.caption(literal(cost_words(price, step), limit=400))
    if not text.strip():
        return None
    request = text_requests.request(run, step, text)
    texts = request.texts()
    if texts:
        _in_a_notebook(view, request, text if price.has_tokenizer else None)
        return request, texts[0]
    with st.container(horizontal=True):
        if st.button("Run", icon=":material/play_arrow:", key="own_run", disabled=request.running):
            text_requests.begin(run, step, text)
            st.rerun()
        if request.running and request.job is not None:
            st.button(
                "Cancel",
                key="own_cancel",
                on_click=jobs.cancel,
                args=(request.job,),
                kwargs={"at_once": True},
            )
    if request.running:
        _wait(request, price)
    for line in request.failure():
        st.error(literal(line, limit=500), icon=":material/error:")
    return None


def cost_words(price: Cost, step: int) -> str:
    """What running it will take: ``Loads step 512 (2.4 MB) in a process of its own, on the CPU: about 10 s; ...``."""
    size_words = "" if price.n_bytes is None else f" ({size(price.n_bytes)})"
    about = "" if price.seconds is None else f": about {duration(price.seconds)}"
    return (
        f"Loads step {step_number(step)}{size_words} in a process of its own, on the CPU{about}; "
        f"at most {price.most_tokens} tokens, the first of them BOS."
    )


@st.fragment(run_every=LOOK_EVERY_S)
def _wait(request: Request, price: Cost) -> None:
    """Until the worker has answered."""
    now = text_requests.again(request)
    if now.file.is_file() or not now.running:
        st.rerun()
    assert now.job is not None
    taken = jobs.age_s(now.job)
    about = "" if price.seconds is None else f" of about {duration(price.seconds)}"
    st.caption(f"Running for {duration(taken)}{about}; it continues if you look elsewhere.")


def _in_a_notebook(view: View, request: Request, text: str | None) -> None:
    """The lines that give the same numbers."""
    lines = notebook_lines(view, request.texts()[0], text, writes=not unwritten(request.file))
    with st.popover("The same in a notebook", icon=":material/terminal:", key="own_lines", type="tertiary"):
        st.code("\n".join(lines), language="python", wrap_lines=True)


def notebook_lines(view: View, found: StoredText, text: str | None, *, writes: bool) -> list[str]:
    """Python that makes what is shown of the head looked at: what it writes, and last its attention.

    Args:
        view: run, step and head.
        found: the answer.
        text: what was written; None where it was token ids.
        writes: whether the model's heads have a direct path that can be read.
    """
    layer, head = view.state.layer_head or (0, 0)
    series = str(text_requests.series_path(view.run))
    given = repr(text) if text is not None else f"np.array([{found.tokens.tolist()}])"
    lines = ["import numpy as np"] if text is None else []
    wrote = [
        "wrote = written(model, seen.tokens)",
        f"wrote.ids[0, {layer}, {head}], wrote.logits[0, {layer}, {head}]  # per token: 5 raised, 5 lowered",
    ]
    return [
        *lines,
        "from byrote.checkpoints import open_series",
        f"from byrote.interp import capture, load{', written' if writes else ''}",
        f"model = load(open_series({series!r}).at({view.state.step}))",
        f"seen = capture(model, {given})",
        *(wrote if writes else []),
        f"seen.pattern[{layer}, 0, {head}]",
    ]
