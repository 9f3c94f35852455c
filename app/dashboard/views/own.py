"""A text of one's own on the Head page: size and time first, then a worker process; the page loads no model."""

from __future__ import annotations

import streamlit as st

from app.cli.text import size
from app.dashboard import jobs, own_text
from app.dashboard.own_text import Request
from app.dashboard.session import View
from app.dashboard.show import panel
from app.dashboard.words import literal
from checkpoints.errors import RoteError
from probes.attention import StoredText
from probes.figures.words import step_number

LOOK_EVERY_S = 1.0
BYTES_PER_S = (
    150e6  # reading and placing weights; the libraries themselves take about as long as a small model
)
LIBRARIES_S = 10


def ask(view: View) -> tuple[Request, StoredText] | None:
    """The form, what it would cost, how it is going; the answer once it is there."""
    with st.expander("Attention on my own text", icon=":material/edit_note:", key="own"), panel("your text"):
        return _ask(view)
    return None


def _ask(view: View) -> tuple[Request, StoredText] | None:
    run, step = view.run, view.state.step
    words = "token ids, such as 5 17 9 5 17 9" if not _has_tokenizer(view) else "a sentence"
    text = st.text_area("Text", key="own_text", placeholder=words, max_chars=own_text.MAX_CHARS, height=80)
    st.caption(literal(cost_words(own_text.model_bytes(run, step), step)))
    if not text.strip():
        return None
    asked = own_text.request(run, step, text)
    texts = asked.texts()
    if texts:
        return asked, texts[0]
    running = asked.job is not None and asked.job.running
    with st.container(horizontal=True):
        if st.button("Run", icon=":material/play_arrow:", key="own_run", disabled=running):
            own_text.begin(run, step, text)
            st.rerun()
        if running and st.button("Cancel", key="own_cancel") and asked.job is not None:
            jobs.cancel(asked.job)
    if running:
        _wait(asked)
    elif asked.job is not None:
        for line in asked.job.errors or ("The worker ended without an answer.",):
            st.error(literal(line, limit=500), icon=":material/error:")
    return None


def cost_words(n_bytes: int | None, step: int) -> str:
    """What running it will take: ``loads step 512 (2.4 MB) in a process of its own, about 10 s``."""
    if n_bytes is None:
        return f"Loads step {step_number(step)} in a process of its own, on the CPU; at most 512 tokens."
    seconds = LIBRARIES_S + n_bytes / BYTES_PER_S
    return f"Loads step {step_number(step)} ({size(n_bytes)}) in a process of its own, on the CPU: about {seconds:.0f} s; at most 512 tokens."


@st.fragment(run_every=LOOK_EVERY_S)
def _wait(asked: Request) -> None:
    """Until the worker has answered."""
    if asked.file.is_file() or (asked.job is not None and not _still(asked)):
        st.rerun()
    st.caption("Running; this goes on if you look elsewhere.")


def _still(asked: Request) -> bool:
    if asked.job is None:
        return False
    job = jobs.read_job(asked.job.folder)
    return job is not None and job.running


def _has_tokenizer(view: View) -> bool:
    try:
        path = own_text.series_path(view.run)
    except RoteError:
        return True
    return next(path.rglob("tokenizer.json"), None) is not None
