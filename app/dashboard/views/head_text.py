"""One head on one text, stored by a sweep or of one's own: its tokens, its attention, and what it writes there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.sources import source_of
from byrote.dashboard import figure_cache
from byrote.dashboard.components.base import show
from byrote.dashboard.components.contact_sheet import MAX_HEADS, sheet_data
from byrote.dashboard.components.token_view import MASK, frames_data, marked, token_data, token_text
from byrote.dashboard.export import run_command
from byrote.dashboard.library import run_cache
from byrote.dashboard.page import (
    Drawing,
    View,
    bound,
    chosen,
    detail,
    follow,
    go,
    how_computed,
    nothing,
    panel,
    run_chip,
)
from byrote.dashboard.views.own_text import ask
from byrote.probes.attention import (
    MEMORISED,
    StoredText,
    Writes,
    attention_file,
    patterns_over,
    same_text,
    saved_bytes,
    stored_pattern,
    stored_sheet,
    stored_text,
    stored_texts,
    stored_writes,
    text_words,
    unwritten,
)
from byrote.probes.repeats import Repeats, repeats_of
from byrote.probes.results import Results
from byrote.probes.wording import counted, literal, number, probe_name, sentence_case, size, step_number

TOKENS, SHEET = "tokens", "sheet"
MAX_DRAWN_TOKENS = 256


@dataclass(frozen=True)
class Shown:
    """One text of one run as it is drawn.

    Attributes:
        run, step: whose heads, when.
        text: the sequence.
        file: that holds its attention.
        masked: whether its tokens stay masked: they were memorised, and were not revealed.
        over: of a text of one's own, the files by step.
    """

    run: Results
    step: int
    text: StoredText
    file: Path
    masked: bool
    over: tuple[tuple[int, Path], ...] = ()

    @property
    def tokens(self) -> list[str]:
        """The tokens drawn, as text; token ids by the name that the lab's source has for them."""
        if self.text.words is not None:
            return [*self.text.words[:MAX_DRAWN_TOKENS]]
        source = source_of((self.run.meta.get("series") or {}).get("manifest") or {})
        ids = self.text.tokens[:MAX_DRAWN_TOKENS].tolist()
        return [str(i) if source is None else source.token_name(i) for i in ids]

    @property
    def labels(self) -> list[str]:
        """The same for figures."""
        return [MASK if self.masked else token_text(token) for token in self.tokens]

    @property
    def repeats(self) -> Repeats:
        """Blocks and expected targets of the tokens drawn."""
        return repeats_of(self.text.tokens[:MAX_DRAWN_TOKENS])

    def pattern(self, head: tuple[int, int]) -> Float[np.ndarray, "query_pos key_pos"]:
        """Attention of one head on the tokens drawn."""
        layer, index = head
        found = stored_pattern(self.file, self.text, layer=layer, head=index)
        return found[:MAX_DRAWN_TOKENS, :MAX_DRAWN_TOKENS]


def draw(view: View, page: Drawing) -> None:
    """A text of one's own or a saved one: its tokens, the matrix, and what the head writes."""
    state, run = view.state, view.run
    st.header(f"Attention of {state.head} at step {step_number(state.step)}", anchor=False)
    own = ask(view)
    if own is not None:
        over = tuple(own.over.files.items())
        _one_text(view, page, Shown(run, state.step, own.text, own.request.file, masked=False, over=over))
        return
    texts = stored_texts(attention_file(run.path, state.step))
    if not texts:
        _without_attention(run, state.step)
        return
    text, masked = _text_control(view, texts)
    _one_text(view, page, Shown(run, state.step, text, attention_file(run.path, state.step), masked))


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


def _one_text(view: View, page: Drawing, shown: Shown) -> None:
    """The tokens and the matrix of one text, the baseline's beside them; what the head writes, over the steps, and all other heads."""
    _reading_controls(view)
    base = _beside(view, shown)
    at = position(view.state.q, shown.repeats, shown.pattern(view.state.layer_head or (0, 0)))
    left, right = st.columns(2, gap="medium")
    with left:
        if base:
            run_chip(shown.run.run, f"step {step_number(shown.step)}")
        _strip(view, shown, at, key=TOKENS)
        if base:
            _matrix(view, page, shown, at, "attention")
        else:
            _about(view, shown)
            with panel("what this head writes"):
                _draw_writes(view, page, shown, at)
    with right:
        if base:
            with panel("the baseline's attention"):
                run_chip(base.run.run, f"baseline, step {step_number(base.step)}", base=True)
                _strip(view, base, at, key=f"{TOKENS}_base")
                _matrix(view, page, base, at, "attention_base")
                if base.step != _paired_step(view):
                    st.caption("The nearest step of the baseline at which attention is stored.")
        else:
            _matrix(view, page, shown, at, "attention")
            with panel("attention over training"):
                _over_steps(view, page, shown, at, None)
    if base:
        _about(view, shown)
        left, right = st.columns(2, gap="medium")
        with left, panel("what this head writes"):
            _draw_writes(view, page, shown, at)
        with right, panel("attention over training"):
            _over_steps(view, page, shown, at, base)
    with panel("the attention of all heads"):
        _sheet(view, shown)


def _strip(view: View, shown: Shown, at: int, *, key: str) -> None:
    head = view.state.layer_head or (0, 0)
    data = token_data(
        shown.tokens, shown.pattern(head), state=view.state, masked=shown.masked, repeats=shown.repeats, rest=at,
        over=_frames(shown.run, shown.over, head, shown.step) if shown.over else None,
    )  # fmt: skip
    show("token_view", data, key=key, q=partial(_selected, key), step=follow(key, "step", int))


@run_cache(2)
def _frames(
    run: Results, files: tuple[tuple[int, Path], ...], head: tuple[int, int], step: int
) -> dict[str, Any] | None:
    """A head's attention on a text of one's own at every step at which that was measured."""
    text = stored_texts(dict(files)[step])[0]
    found = patterns_over(dict(files), text, layer=head[0], head=head[1])
    drawn = {at: pattern[:MAX_DRAWN_TOKENS, :MAX_DRAWN_TOKENS] for at, pattern in found.items()}
    return frames_data(drawn, step) if len(drawn) > 1 else None


def _about(view: View, shown: Shown) -> None:
    """Which text it is, and how it is measured."""
    text = shown.text
    if len(text.tokens) > MAX_DRAWN_TOKENS:
        st.caption(f"The first {MAX_DRAWN_TOKENS} of {len(text.tokens):,} tokens.")
    words = f"token ids: {text.wordless}" if text.words is None else "one box per token, spaces as ·"
    which = ", ".join(dict.fromkeys((text_words(text), text.stimulus_id)))
    st.caption(literal(f"{which}; {words}. Stored in steps of 1/255."))
    how_computed([view.state.probe, "prefix_matching"], key="how_attention")


def _matrix(view: View, page: Drawing, shown: Shown, at: int, name: str) -> None:
    pattern = shown.pattern(view.state.layer_head or (0, 0))
    where = f"{shown.run.run}, step {step_number(shown.step)}, {text_words(shown.text)}"
    draw = partial(
        figure_cache.matrix, pattern, shown.labels, head=view.state.head, where=where,
        ids=tuple(shown.text.tokens[:MAX_DRAWN_TOKENS].tolist()), query=at,
    )  # fmt: skip
    page.figure(draw, name, width="half")


def _paired_step(view: View) -> int | None:
    """The step of the baseline that stands beside the one looked at; None where there is none."""
    if view.base is None:
        return None
    try:
        return figure_cache.pairs_of(view.run, view.base, view.state.align).get(view.state.step)
    except ByroteError:
        return None


def _beside(view: View, shown: Shown) -> Shown | None:
    """The same head of the baseline on the same tokens, at the paired step or the nearest that has it; None where none has."""
    base = view.base
    if (
        base is None
        or base.shape != view.run.shape
        or shown.file != attention_file(view.run.path, shown.step)
    ):
        return None
    at = _paired_step(view)
    for step in sorted(base.all_steps, key=lambda s: abs(s - (shown.step if at is None else at))):
        file = attention_file(base.path, step)
        if file.is_file() and (text := same_text(file, shown.text)):
            return Shown(base, step, text, file, shown.masked)
    return None


def _over_steps(view: View, page: Drawing, shown: Shown, at: int, base: Shown | None) -> None:
    """How the attention to the expected target changed, where it is stored at several steps."""
    stored = [s for s in shown.run.all_steps if attention_file(shown.run.path, s).is_file()]
    st.header("Over training", anchor=False)
    if shown.over and len(shown.over) < 2:
        nothing("This text was measured at this step only.", "Measure over steps, above, adds others.")
        return
    if not shown.over and len(stored) < 2:
        nothing("The attention is stored at this step only.", how_to_keep(shown.run))
        return
    draw = partial(
        figure_cache.attention_steps, shown.run, base.run if base else None, stimulus=shown.text.stimulus, index=shown.text.index, head=view.state.head,
        query=at, step=shown.step, files=shown.over,
    )  # fmt: skip
    page.figure(draw, "attention_steps", width="half")


def _sheet(view: View, shown: Shown) -> None:
    """Every head's attention on this text, small; of a large model the strongest heads."""
    n_layers, n_heads = view.run.shape
    few = n_layers * n_heads <= MAX_HEADS
    heads = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
    st.header("All heads on this text", anchor=False)
    if not few:
        state = view.state
        ranked = view.run.cube(state.probe, state.metric).ranked(state.step) or heads
        heads = ranked[:MAX_HEADS]
        st.caption(
            literal(f"The {MAX_HEADS} heads with the strongest {probe_name(state.probe)} of {n_layers * n_heads:,}, strongest first.")
        )  # fmt: skip
    data = _sheet_data(
        view.run, shown.file, shown.text.stimulus, shown.text.index, tuple(heads), by_layer=few
    )
    show("contact_sheet", {**data, "selected": view.state.head}, key=SHEET, head=follow(SHEET, "head"))


@run_cache(4)
def _sheet_data(
    run: Results, file: Path, stimulus: str, index: int, heads: tuple[tuple[int, int], ...], *, by_layer: bool
) -> dict[str, Any]:
    text = stored_text(file, stimulus, index)
    patterns = stored_sheet(file, text)[..., :MAX_DRAWN_TOKENS, :MAX_DRAWN_TOKENS]
    return sheet_data(
        patterns, heads=heads, repeats=repeats_of(text.tokens[:MAX_DRAWN_TOKENS]), by_layer=by_layer
    )


def _text_control(view: View, texts: Sequence[StoredText]) -> tuple[StoredText, bool]:
    """Which saved text, and whether its tokens stay masked."""
    at = min(view.state.text, len(texts) - 1)
    with st.container(horizontal=True, vertical_alignment="bottom", key="text_controls"):
        st.selectbox(
            "Stored text", range(len(texts)), format_func=lambda i: text_words(texts[i]), width=320, **bound("text", at, q=None)
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
            "without position 0", help="Leave out attention to the first token, and rescale the rest to sum to 1",
            **bound("sink", view.state.sink == "without", to=lambda on: "without" if on else "with"),
        )  # fmt: skip


def _selected(key: str) -> None:
    at = chosen(key, "q")
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


def _draw_writes(view: View, page: Drawing, shown: Shown, at: int) -> None:
    """The table for the selected token, else for the one that is shown at first."""
    text, file, masked = shown.text, shown.file, shown.masked
    st.header("What it writes", anchor=False)
    if reason := unwritten(file):
        nothing("The tokens this head raises and lowers are not known here.", f"{sentence_case(reason)}.")
        return
    layer, head = view.state.layer_head or (0, 0)
    writes = stored_writes(file, text, layer=layer, head=head)
    here = MASK if masked else visible(shown.tokens[at])
    frame = writes_frame(writes, at, masked=masked)
    where = f"{view.state.head} at {here} ({at})"
    if frame.empty:
        st.caption(
            literal(
                f"{where} raises and lowers no token: the unembedding does not read what it writes there."
            )
        )
        return
    hint = "" if view.state.q is not None else " Select a token to see what the head writes there."
    page.table(
        frame,
        "writes",
        caption=f"{where}: the tokens it raises and lowers most by itself, in logits against the mean token.{hint}",
        column_config={name: st.column_config.TextColumn(name, width="small") for name in frame.columns},
    )
    detail(
        "How is this computed?",
        lambda: st.text(" ".join(_HOW.split())),
        icon=":material/help:",
        key="how_writes",
    )


def position(selected: int | None, repeats: Repeats, pattern: Float[np.ndarray, "query_pos key_pos"]) -> int:
    """The selected token, where there is one and it is drawn; else the one with the most attention on its expected target."""
    return selected if selected is not None and selected < len(pattern) else repeats.telling(pattern)


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
