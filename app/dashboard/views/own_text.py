"""The form for a text of one's own: what it would cost, the worker at work, and the same lines for a notebook."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import streamlit as st

from byrote.dashboard import jobs, text_requests
from byrote.dashboard.page import View, detail, go, panel
from byrote.dashboard.text_requests import Cost, OverSteps, Request
from byrote.probes.attention import StoredText, unwritten
from byrote.probes.wording import counted, duration, literal, mid_sentence, size, step_number

LOOK_EVERY_S, DRAW_EVERY_S = 1.0, 5.0
_STEP = "own_step"


@dataclass(frozen=True)
class Answer:
    """What a text of one's own gave at the step looked at.

    Attributes:
        request: with the file.
        text: the tokens.
        over: the same text at other steps.
    """

    request: Request
    text: StoredText
    over: OverSteps


def ask(view: View) -> Answer | None:
    """The form, what it would cost, how it is going; the answer once it is there."""
    box = st.expander("Attention on my own text", icon=":material/edit_note:", key="own", on_change="rerun")
    if not box.open and not st.session_state.get("own_text", "").strip():
        return None  # nothing is looked up on disk for a form that nobody opened
    with box, panel("your text"):
        return _ask(view)
    return None  # type: ignore[unreachable]  # a panel shows the error and goes on


def _ask(view: View) -> Answer | None:
    run, step = view.run, view.state.step
    price = text_requests.cost(run, [step])
    hint = "a sentence" if price.has_tokenizer else "token ids, such as 5 17 9 5 17 9"
    text = st.text_area(
        "Text", key="own_text", placeholder=hint, max_chars=text_requests.MAX_CHARS, height=80
    )
    if not text.strip():
        st.caption(literal(cost_words(price, [step]), limit=400))
        return None
    request, over = text_requests.request(run, step, text), text_requests.over_steps(run, step, text)
    texts = request.texts()
    if not texts:
        st.caption(literal(cost_words(price, [step]), limit=400))
    more = any(missing != step for missing in over.missing)
    if more and not over.running:
        several = cost_words(text_requests.cost(run, over.missing), over.missing)
        st.caption(literal(f"Over steps: {mid_sentence(several)}", limit=400))
    with st.container(horizontal=True, key="own_buttons"):
        if not texts and st.button(
            "Run", icon=":material/play_arrow:", key="own_run", disabled=request.running or over.running
        ):
            text_requests.begin(run, step, text)
            st.rerun()
        if more and st.button(
            "Measure over steps", icon=":material/timeline:", key="own_over", disabled=over.running
        ):
            text_requests.begin_over(run, step, text)
            st.rerun()
        if (job := next((one.job for one in (over, request) if one.running), None)) is not None:
            at_once = {"at_once": True}
            st.button("Cancel", key="own_cancel", on_click=jobs.cancel, args=(job,), kwargs=at_once)
        if texts:
            _in_a_notebook(view, request, over, text if price.has_tokenizer else None)
    if over.running:
        _wait_over(over, time.monotonic())
    elif request.running:
        _wait(request, price)
    for line in () if over.running else over.failure() or request.failure():
        st.error(literal(line, limit=500), icon=":material/error:")
    _elsewhere(over, step)
    return Answer(request, texts[0], over) if texts else None


def _elsewhere(over: OverSteps, step: int) -> None:
    """The steps at which this text was measured; choosing one shows it."""
    if not over.files or [*over.files] == [step]:
        return

    def changed() -> None:
        if (chosen := st.session_state[_STEP]) is not None:
            go(step=chosen)

    st.session_state[_STEP] = step if step in over.files else None
    st.pills("Measured at step", [*over.files], format_func=step_number, key=_STEP, on_change=changed)


def cost_words(price: Cost, steps: Sequence[int]) -> str:
    """What running it will take: ``Loads step 512 (2.4 MB) in a separate process, on the CPU: about 10 s; ...``."""
    size_words = "" if price.n_bytes is None else f" ({size(price.n_bytes)})"
    about = "" if price.seconds is None else f": about {duration(price.seconds)}"
    what = f"step {step_number(steps[0])}"
    if len(steps) > 1:
        what = f"{counted(len(steps), 'checkpoint')} from step {step_number(min(steps))} to {step_number(max(steps))}"
    return (
        f"Loads {what}{size_words} in a separate process, on the CPU{about}; "
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


@st.fragment(run_every=LOOK_EVERY_S)
def _wait_over(before: OverSteps, drawn_s: float) -> None:
    """Until the worker has ended; the page is drawn again with the first checkpoint, and then every few seconds with more."""
    assert before.job is not None
    now = replace(before, job=jobs.read_job(before.job.folder))
    done, total = now.progress
    due = not before.files or time.monotonic() - drawn_s > DRAW_EVERY_S
    if not now.running or (due and done > before.progress[0]):
        st.rerun()
    taken = duration(jobs.age_s(before.job))
    sentence = (
        f"{done} of {counted(total, 'checkpoint')} measured in {taken}; it continues if you leave this page."
    )
    st.progress(done / max(1, total), text=sentence)


def _in_a_notebook(view: View, request: Request, over: OverSteps, text: str | None) -> None:
    """The lines that give the same numbers."""
    lines = notebook_lines(
        view, request.texts()[0], text, writes=not unwritten(request.file), steps=[*over.files]
    )
    code = "\n".join(lines)
    detail(
        "The same in a notebook",
        lambda: st.code(code, language="python", wrap_lines=True),
        icon=":material/terminal:",
        key="own_lines",
    )


def notebook_lines(
    view: View, found: StoredText, text: str | None, *, writes: bool, steps: Sequence[int] = ()
) -> list[str]:
    """Python that makes what is shown of the head looked at: what it writes, and last its attention.

    Args:
        view: run, step and head.
        found: the answer.
        text: what was written; None where it was token ids.
        writes: whether the model's heads have a direct path that can be read.
        steps: at which the text was measured.
    """
    layer, head = view.state.layer_head or (0, 0)
    series = str(text_requests.series_path(view.run))
    given = repr(text) if text is not None else f"np.array([{found.tokens.tolist()}])"
    lines = ["import numpy as np"] if text is None else []
    wrote = [
        "wrote = written(model, seen.tokens)",
        f"wrote.ids[0, {layer}, {head}], wrote.logits[0, {layer}, {head}]  # per token: 5 raised, 5 lowered",
    ]
    over = [
        f"over = {{s: capture(load(series.at(s)), {given}).pattern[{layer}, 0, {head}] for s in {[*steps]}}}"
    ]
    return [
        *lines,
        "from byrote.checkpoints import open_series",
        f"from byrote.interp import capture, load{', written' if writes else ''}",
        f"series = open_series({series!r})",
        *(over if len(steps) > 1 else []),
        f"model = load(series.at({view.state.step}))",
        f"seen = capture(model, {given})",
        *(wrote if writes else []),
        f"seen.pattern[{layer}, 0, {head}]",
    ]
