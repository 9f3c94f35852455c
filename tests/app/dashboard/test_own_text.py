"""A text of one's own: the same answer as the Python API, from a process of its own; and every way to get none."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from planted_series import head_metric, write_results

from byrote.checkpoints import open_series
from byrote.checkpoints.errors import ByroteError
from byrote.dashboard import jobs, text_requests, text_worker
from byrote.dashboard.library import open_library
from byrote.dashboard.state import place_of
from byrote.dashboard.tasks import TEXT as TEXT_TASK
from byrote.dashboard.tasks import Task
from byrote.dashboard.text_requests import Request
from byrote.dashboard.text_worker import attend
from byrote.dashboard.views.own_text import cost_words
from byrote.interp import capture, load
from byrote.probes.attention import SCALE, StoredText, stored_pattern, stored_texts
from byrote.probes.results import Results

IDS = "0 5 17 9 5 17 9"
TEXT = "the cat sat on the mat"


def results_of(series: Path, root: Path, *, n_ctx: int = 32, steps: tuple[int, ...] = (0, 1, 2)) -> Results:
    """Results that name a series of two layers of four heads."""
    values = np.linspace(0.1, 0.8, 8).reshape(2, 4)
    units = {step: [head_metric("prefix_matching", values)] for step in steps}
    model = {"n_layers": 2, "n_heads": 4, "n_ctx": n_ctx}
    held = {"name": series.name, "path": str(series), "n_checkpoints": len(steps), "steps": list(steps)}
    write_results(root, "own", units, shape=(2, 4), model=model, series=held)
    return open_library([root]).runs["own"]


def answered(asked: Request, *, within_s: float = 90) -> Request:
    """The request when its worker has ended."""
    end = time.monotonic() + within_s
    while asked.running and time.monotonic() < end:
        time.sleep(0.05)
        asked = text_requests.again(asked)
    assert not asked.running
    return asked


def with_tokenizer(series: Path) -> Path:
    """Words apart by spaces as tokens, in every step's folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<bos>", *TEXT.split(), "dog"]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(dict.fromkeys(words))}, unk_token="dog"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    for step in series.iterdir():
        made.save(str(step / "tokenizer.json"))
    return series


def worker(series: Path, step: int, text: str, place: Path) -> tuple[int, Path]:
    """The worker's own main function in this process: its exit code, and the file of its answer."""
    folder = place / "job"
    folder.mkdir()
    task = Task(TEXT_TASK, (str(series),), {"step": step, "text": text, "most_tokens": 32})
    (folder / "job.json").write_text(json.dumps({"task": task.facts}))
    return text_worker.main([str(folder)]), place / text_requests.ANSWER


def assert_answer_of_the_python_api(file: Path, series: Path, given: np.ndarray | str) -> StoredText:
    """Every head's attention at step 2 is what `capture` gives, in steps of a 255th."""
    (text,) = stored_texts(file)
    expected = capture(load(open_series(series).at(2)), given)
    assert text.tokens.tolist() == expected.tokens[0].tolist()
    for layer in range(2):
        for head in range(4):
            shown = stored_pattern(file, text, layer=layer, head=head)
            kept = np.rint(expected.pattern[layer, 0, head] * np.float32(SCALE)).astype(np.float64) / SCALE
            np.testing.assert_array_equal(shown, kept)
    return text


def test_the_answer_on_words_is_that_of_the_python_api(hf_series, tmp_path):
    series = with_tokenizer(hf_series("gpt2", 3))
    code, file = worker(series, 2, TEXT, tmp_path)
    assert code == 0
    text = assert_answer_of_the_python_api(file, series, TEXT)
    assert text.words == ("<bos>", *TEXT.split())


def test_size_and_time_are_known_before(lab_series, hf_series, tmp_path):
    series = lab_series(3)
    price = text_requests.cost(results_of(series, tmp_path / "results"), 1)
    assert price.n_bytes == (series / "step_00000001" / "model.safetensors").stat().st_size
    assert (price.most_tokens, price.has_tokenizer) == (32, False)
    words = cost_words(price, 1)
    assert words.startswith("Loads step 1 (") and "about 0:10" in words and "at most 32 tokens" in words
    named = with_tokenizer(hf_series("gpt2", 2))
    assert text_requests.cost(results_of(named, tmp_path / "more"), 1).has_tokenizer


@pytest.mark.parametrize(
    "said, message",
    (
        ("words", "this series has no tokenizer, so words mean nothing to it (write token ids"),
        ("-1 5", "this series has no tokenizer"),
        ("99999999999999999999999", "this series has no tokenizer"),
        (" ".join(["5"] * 40), "the text is 40 tokens long (at most 31 fit, and one before them)"),
        (",,, ,", "the text holds no token"),
    ),
)
def test_a_text_that_cannot_be_read_is_answered_with_why(said, message, lab_series, tmp_path, capsys):
    code, file = worker(lab_series(3), 1, said, tmp_path)
    printed = json.loads(capsys.readouterr().out)
    assert (code, stored_texts(file)) == (2, [])
    assert f"{printed['error']} ({printed['help']})".startswith(message)


def test_what_the_worker_answers_is_shown(lab_series, tmp_path):
    asked = answered(text_requests.begin(results_of(lab_series(3), tmp_path / "results"), 1, "words"))
    assert asked.texts() == []
    assert asked.failure()[0].startswith(
        "this series has no tokenizer, so words mean nothing to it (write token"
    )


def test_an_id_outside_the_vocabulary_is_refused_by_the_model(lab_series, tmp_path):
    with pytest.raises(ByroteError, match="token id 999 is outside the model's vocabulary of 24"):
        attend(str(lab_series(3)), 1, "5 999", out=tmp_path / "out.safetensors", most=32)


def test_what_is_wrong_before_the_worker_starts(lab_series, tmp_path):
    series = lab_series(3)
    run = results_of(series, tmp_path / "results", steps=(0, 1, 2, 7))
    for text, message in (("5 " * 3000, "the text has 6,000 characters"), ("\ud800", "half a character")):
        with pytest.raises(ByroteError, match=message):
            text_requests.request(run, 1, text)
    with pytest.raises(ByroteError, match="step 7 is not in"):
        text_requests.begin(run, 7, IDS)
    series.rename(series.with_name("elsewhere"))
    with pytest.raises(ByroteError, match="the checkpoints of own are not at"):
        text_requests.begin(run, 1, IDS)
    assert not place_of(tmp_path / "results").exists()


def test_damaged_weights_are_said(lab_series, tmp_path):
    series = lab_series(3)
    run = results_of(series, tmp_path / "results")
    (series / "step_00000001" / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(ByroteError):
        asked = answered(text_requests.begin(run, 1, IDS))
        raise ByroteError(asked.failure()[0])


@pytest.fixture
def script(tmp_path, monkeypatch) -> Path:
    """What workers run in place of byrote."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(jobs, "command_of", lambda task, folder: ["stuck"])
    return tmp_path / "stuck.py"


def test_a_worker_that_dies_hangs_or_is_cancelled(lab_series, tmp_path, script, monkeypatch):
    run = results_of(lab_series(3), tmp_path / "results")
    script.write_text("import os; print('loading', flush=True); os.kill(os.getpid(), 9)")
    assert answered(text_requests.begin(run, 0, IDS)).failure() == [
        "The worker was killed (SIGKILL), as happens when memory runs out.", "loading",
    ]  # fmt: skip
    script.write_text("raise ValueError('odd')")
    assert "ValueError: odd" in answered(text_requests.begin(run, 1, IDS)).failure()[-1]
    script.write_text("")
    assert answered(text_requests.begin(run, 1, IDS)).failure() == ["The worker ended without an answer."]
    script.write_text("import time; time.sleep(60)")
    asked = text_requests.begin(run, 2, IDS)
    assert asked.running and text_requests.begin(run, 2, IDS).job.folder == asked.job.folder  # on its way
    jobs.cancel(asked.job, at_once=True)
    assert answered(asked).failure() == ["Cancelled."]
    monkeypatch.setattr(text_requests, "LIMIT_S", 0.5)
    assert answered(text_requests.begin(run, 2, IDS)).failure() == ["stopped: no answer within 0 s"]


def test_new_weights_at_a_step_are_asked_anew(lab_series, tmp_path):
    series = lab_series(3)
    run = results_of(series, tmp_path / "results")
    before = text_requests.request(run, 1, IDS)
    weights = series / "step_00000001" / "model.safetensors"
    weights.write_bytes((series / "step_00000002" / "model.safetensors").read_bytes())
    assert text_requests.request(run, 1, IDS).folder != before.folder
    assert text_requests.request(run, 2, IDS).folder != before.folder


def test_old_answers_go(lab_series, tmp_path, script, monkeypatch):
    run = results_of(lab_series(3), tmp_path / "results")
    script.write_text("")
    monkeypatch.setattr(text_requests, "MAX_ANSWERS", 2)
    for text in ("x", "y", "z"):
        asked = answered(text_requests.begin(run, 1, text))
    kept = list(place_of(tmp_path / "results", "own_text").iterdir())
    assert len(kept) == 2 and asked.folder in kept


@pytest.mark.parametrize("place", ["here", pytest.param("a process", marks=pytest.mark.processes)])
def test_the_page_asks_waits_and_shows(place, open_page, lab_series, tmp_path, request):
    """The worker's main function answers in this process; in one of its own, which imports torch, of `test-processes`."""
    series = lab_series(3)
    run = results_of(series, tmp_path / "results")
    answer = text_requests.request(run, 2, IDS).file
    if place == "here":
        waits = f"import os, time\nwhile not os.path.exists({str(answer)!r}):\n    time.sleep(0.02)"
        request.getfixturevalue("script").write_text(waits)
    at = open_page("head", tmp_path / "results", step=2, head="L1H3")
    assert not at.text_area  # nothing is looked up for a form nobody opened
    at.session_state["own"] = True
    at.run()
    assert any("Loads step 2" in c.value.replace("\\", "") for c in at.caption)
    at.text_area(key="own_text").set_value(IDS).run()
    at.button(key="own_run").click().run()
    assert not at.exception
    if place == "here":
        asked = text_requests.request(run, 2, IDS)
        assert asked.running and text_worker.main([str(asked.job.folder)]) == 0
    end = time.monotonic() + 90
    while time.monotonic() < end and not any("codes" in c.proto.json for c in at.get("bidi_component")):
        time.sleep(0.2)
        at.run()
        assert not at.exception and not at.error
    shown = json.loads(next(c.proto.json for c in at.get("bidi_component") if "codes" in c.proto.json))
    assert shown["tokens"] == IDS.split()
    lines = next(c.value for c in at.code if "capture(" in c.value)
    scope: dict = {}
    *before, last = lines.splitlines()
    exec("\n".join(before), scope)
    pattern = eval(last, scope)
    run = open_library([tmp_path / "results"]).runs["own"]
    asked = answered(text_requests.request(run, 2, IDS))
    assert asked.failure() == []
    text = assert_answer_of_the_python_api(
        asked.file, series, np.array([[int(word) for word in IDS.split()]])
    )
    assert text_requests.begin(run, 2, IDS).job == asked.job  # computed once
    assert text.words is None
    np.testing.assert_allclose(
        stored_pattern(asked.file, text, layer=1, head=3), pattern, atol=0.5 / SCALE + 1e-6
    )


def test_the_page_process_starts_a_worker_without_torch(run_prepared, lab_series, tmp_path):
    results_of(lab_series(3), tmp_path / "results")
    code = """
import os, sys
from pathlib import Path
from streamlit.testing.v1 import AppTest
from byrote.dashboard import jobs
from byrote.dashboard.state import place_of
os.environ["BYROTE_DASHBOARD_PATHS"] = sys.argv[1]
at = AppTest.from_string("from byrote.dashboard.layout import main\\nmain(only='head')", default_timeout=60)
at.query_params["step"] = "2"
at.session_state["own"] = True
at.run()
at.text_area(key="own_text").set_value("5, 17 9").run()
at.button(key="own_run").click().run()
assert not at.exception and not at.error, (at.exception, at.error)
results = Path(sys.argv[1])
(folder,) = place_of(results, "own_text").iterdir()
(job,) = jobs.all_jobs(results, within=("own_text", folder.name))
assert job.running
jobs.cancel(job, at_once=True)
print([m for m in ("torch", "transformers", "transformer_lens") if m in sys.modules])
"""
    assert run_prepared(code, str(tmp_path / "results")) == "[]"


def test_ids_get_the_first_token_they_lack(lab_series, tmp_path):
    out = tmp_path / "out.safetensors"
    attend(str(lab_series(3)), 2, "5, 17 9", out=out, most=32)
    (text,) = stored_texts(out)
    assert text.tokens.tolist() == [0, 5, 17, 9]
