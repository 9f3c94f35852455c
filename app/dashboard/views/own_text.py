"""The form for a text of one's own: what it would cost, the worker at work, and the same lines for a notebook."""

from __future__ import annotations

import streamlit as st

from byrote.dashboard import jobs, text_requests
from byrote.dashboard.page import View, panel
from byrote.dashboard.text_requests import Cost, Request
from byrote.probes.attention import StoredText, unwritten
from byrote.probes.wording import duration, literal, size, step_number

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
    """What running it will take: ``Loads step 512 (2.4 MB) in a separate process, on the CPU: about 10 s; ...``."""
    size_words = "" if price.n_bytes is None else f" ({size(price.n_bytes)})"
    about = "" if price.seconds is None else f": about {duration(price.seconds)}"
    return (
        f"Loads step {step_number(step)}{size_words} in a separate process, on the CPU{about}; "
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
    st.caption(f"Running for {duration(taken)}{about}; it continues if you leave this page.")


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
