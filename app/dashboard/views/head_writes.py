"""What one head writes at one token: the tokens it raises and lowers most by its direct path. From saved arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import streamlit as st

from byrote.dashboard.components.token_view import MASK, marked
from byrote.dashboard.page import Drawing, View, nothing
from byrote.probes.attention import StoredText, Writes, stored_writes, unwritten
from byrote.probes.wording import literal, number

_HOW = """Direct logit attribution (Elhage et al. 2021): what the head adds to the residual stream at this token, z W_O,
through the final norm with the scale it had in this very pass, times W_U, minus its mean over the vocabulary. In logits:
+1 multiplies a token's odds by 2.7. Heads and MLPs of later layers may read the same write and add to it or undo it; that is
not in these numbers. Kept to three digits, 5 tokens either way."""


def draw(view: View, page: Drawing, text: StoredText, file: Path, *, n_drawn: int, masked: bool) -> None:
    """The table for the selected token, else the last one.

    Args:
        view: run, step, head and token.
        page: where the table is kept for export.
        text: the sequence.
        file: that holds it.
        n_drawn: tokens that can be selected.
        masked: show no token's text: these were memorised, and nobody asked to see them.
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
