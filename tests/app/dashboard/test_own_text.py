"""A text of one's own: the same answer as the Python API, from a process of its own; and every way to get none."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

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
from byrote.dashboard.text_requests import Request, answer_name
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


def worker(series: Path, steps: list[int], text: str, place: Path) -> tuple[int, list[Path]]:
    """The worker's own main function in this process: its exit code, and the files of its answers."""
    folder = place / "own_text" / "request" / "job"
    folder.mkdir(parents=True)
    task = Task(TEXT_TASK, (str(series),), {"steps": steps, "text": text, "most_tokens": 32})
    (folder / "job.json").write_text(json.dumps({"task": task.facts}))
    code = text_worker.main([str(folder)])
    there = {one.step: answer_name(one, text) for one in open_series(series).checkpoints}
    names = [there.get(step, "gap") for step in steps]
    return code, [place / "own_text" / name / text_requests.ANSWER for name in names]


def assert_answer_of_the_python_api(
    file: Path, series: Path, given: np.ndarray | str, step: int = 2
) -> StoredText:
    """Every head's attention at a step is what `capture` gives, in steps of a 255th."""
    (text,) = stored_texts(file)
    expected = capture(load(open_series(series).at(step)), given)
    assert text.tokens.tolist() == expected.tokens[0].tolist()
    for layer in range(2):
        for head in range(4):
            shown = stored_pattern(file, text, layer=layer, head=head)
            kept = np.rint(expected.pattern[layer, 0, head] * np.float32(SCALE)).astype(np.float64) / SCALE
            np.testing.assert_array_equal(shown, kept)
    return text


def test_the_answer_on_words_is_that_of_the_python_api(hf_series, tmp_path):
    series = with_tokenizer(hf_series("gpt2", 3))
    code, (file, other) = worker(series, [2, 0], TEXT, tmp_path)
    assert code == 0 and stored_texts(other)[0].words == ("<bos>", *TEXT.split())
    text = assert_answer_of_the_python_api(file, series, TEXT)
    assert text.words == ("<bos>", *TEXT.split())


def test_size_and_time_are_known_before(lab_series, hf_series, tmp_path):
    series = lab_series(3)
    price = text_requests.cost(results_of(series, tmp_path / "results"), [1])
    assert price.n_bytes == (series / "step_00000001" / "model.safetensors").stat().st_size
    assert (price.most_tokens, price.has_tokenizer) == (32, False)
    words = cost_words(price, [1])
    assert words.startswith("Loads step 1 (") and "about 0:10" in words and "at most 32 tokens" in words
    named = with_tokenizer(hf_series("gpt2", 2))
    assert text_requests.cost(results_of(named, tmp_path / "more"), [1]).has_tokenizer


@pytest.mark.parametrize(
    "said, message",
    (
        ("words", "this series has no tokenizer, so it cannot read words (write token ids"),
        ("-1 5", "this series has no tokenizer"),
        ("99999999999999999999999", "this series has no tokenizer"),
        (" ".join(["5"] * 40), "the text is 40 tokens long (at most 31 fit after BOS)"),
        (",,, ,", "the text contains no tokens"),
    ),
)
def test_a_text_that_cannot_be_read_is_answered_with_why(said, message, lab_series, tmp_path, capsys):
    code, (file,) = worker(lab_series(3), [1], said, tmp_path)
    printed = json.loads(capsys.readouterr().out)
    assert (code, stored_texts(file)) == (2, [])
    assert f"{printed['error']} ({printed['help']})".startswith(message)


def test_what_the_worker_answers_is_shown(lab_series, tmp_path):
    asked = answered(text_requests.begin(results_of(lab_series(3), tmp_path / "results"), 1, "words"))
    assert asked.texts() == []
    assert asked.failure()[0].startswith("this series has no tokenizer, so it cannot read words (write token")


def test_an_id_outside_the_vocabulary_is_refused_by_the_model(lab_series, tmp_path):
    with pytest.raises(ByroteError, match="token id 999 is outside the model's vocabulary of 24"):
        attend(open_series(lab_series(3)).at(1), "5 999", out=tmp_path / "out.safetensors", most=32)


def test_what_is_wrong_before_the_worker_starts(lab_series, tmp_path):
    series = lab_series(3)
    run = results_of(series, tmp_path / "results", steps=(0, 1, 2, 7))
    for text, message in (
        ("5 " * 3000, "the text has 6,000 characters"),
        ("\ud800", "half of a surrogate pair"),
    ):
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


def test_answers_over_steps_are_those_at_single_steps(lab_series, tmp_path):
    series = lab_series(4)
    one, several = tmp_path / "one", tmp_path / "several"
    assert worker(series, [2], IDS, one)[0] == 0
    code, files = worker(series, [2, 0, 3], IDS, several)
    assert code == 0
    (alone,) = worker_files(one)
    assert files[0].read_bytes() == alone.read_bytes()
    for step, file in zip((2, 0, 3), files, strict=True):
        assert_answer_of_the_python_api(file, series, np.array([[int(i) for i in IDS.split()]]), step)


def worker_files(place: Path) -> list[Path]:
    """Every answer under a place."""
    return sorted(place.glob(f"own_text/*/{text_requests.ANSWER}"))


def test_a_checkpoint_that_cannot_be_read_is_a_gap_among_others(lab_series, tmp_path, capsys):
    series = lab_series(3)
    (series / "step_00000001" / "model.safetensors").write_bytes(b"\0" * 64)
    code, files = worker(series, [1, 0, 2], IDS, tmp_path)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 3 and [file.is_file() for file in files] == [False, True, True]
    (gap,) = (e for e in events if e["event"] == "gap")
    assert gap["step"] == 1 and "model.safetensors" in gap["reason"]
    assert [(e["done"], e["total"]) for e in events if e["event"] == "checkpoint"] == [(1, 3), (2, 3), (3, 3)]


def test_a_text_the_model_cannot_take_ends_the_measurement_at_once(lab_series, tmp_path, capsys):
    code, _ = worker(lab_series(3), [2, 0, 1], "5 999", tmp_path)
    (said,) = capsys.readouterr().out.splitlines()
    assert code == 2 and "token id 999 is outside" in json.loads(said)["error"]


def test_steps_are_spread_and_hold_the_event_and_the_one_looked_at(lab_series, tmp_path, monkeypatch):
    series = lab_series(30)
    run = results_of(
        series, tmp_path / "results", steps=tuple(range(31))
    )  # the last has no checkpoint any more
    monkeypatch.setattr(text_requests.findings, "events", lambda run: [(11, "induction heads"), (20, "more")])
    wanted = text_requests.over_steps(run, 14, IDS).missing
    assert wanted[0] == 14 and {0, 11, 29} < set(wanted) and len(wanted) == text_requests.MAX_STEPS
    assert list(wanted[1:]) == sorted(wanted[1:])
    even = sorted(set(wanted) - {11, 14})
    assert set(np.diff(even)) <= {3, 4}  # ten of thirty
    file = text_requests.request(run, 11, IDS).file
    file.parent.mkdir(parents=True)
    file.touch()
    later = text_requests.over_steps(run, 14, IDS)
    assert [*later.files] == [11] and set(later.missing) == set(wanted) - {11}


def test_what_is_stored_over_steps_is_bounded():
    def most(n_layers: int, n_heads: int, n_steps: int) -> int:
        run = SimpleNamespace(meta={"model": {"n_ctx": 2048}}, shape=(n_layers, n_heads))
        return text_requests.most_tokens(run, n_steps)

    assert (most(2, 4, 12), most(32, 32, 1)) == (512, 512)
    n = most(32, 32, 12)
    stored, one_more = (12 * 1024 * (k * k + 60 * k) for k in (n, n + 1))
    assert stored <= 500e6 < one_more


def test_progress_gaps_and_cancel_over_steps(lab_series, tmp_path, script):
    run = results_of(lab_series(3), tmp_path / "results")
    script.write_text(
        """
import json, time
for line in ({"event": "gap", "run": "t", "step": 2, "reason": "torn"},
             {"event": "checkpoint", "run": "t", "step": 2, "done": 1, "total": 3}):
    print(json.dumps(line), flush=True)
time.sleep(60)
"""
    )
    asked = text_requests.begin_over(run, 2, IDS)
    assert asked.running and asked.missing == (2, 0, 1)
    assert text_requests.begin_over(run, 2, IDS).job.folder == asked.job.folder  # on its way
    end = time.monotonic() + 30
    while text_requests.over_steps(run, 2, IDS).progress != (1, 3) and time.monotonic() < end:
        time.sleep(0.02)
    assert text_requests.over_steps(run, 2, IDS).progress == (1, 3)
    jobs.cancel(asked.job, at_once=True)
    while text_requests.over_steps(run, 2, IDS).running and time.monotonic() < end:
        time.sleep(0.02)
    assert text_requests.over_steps(run, 2, IDS).failure() == ["Cancelled."]
    script.write_text(
        "import json, sys; print(json.dumps({'event': 'gap', 'run': 't', 'step': 2, 'reason': 'torn'})); sys.exit(3)"
    )
    text_requests.begin_over(run, 2, IDS)
    while text_requests.over_steps(run, 2, IDS).running and time.monotonic() < end:
        time.sleep(0.02)
    assert text_requests.over_steps(run, 2, IDS).failure() == ["t: step 2: torn"]


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
    at.button(key="own_lines").click().run()
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
    if place != "here":
        return
    assert not at.get("pills")
    at.button(key="own_over").click().run()
    assert not at.exception and not at.error
    over = text_requests.over_steps(run, 2, IDS)
    assert text_worker.main([str(over.job.folder)]) == 0
    at.run()
    assert not at.exception and not at.error and not [b for b in at.button if b.key == "own_over"]
    assert [b for b in at.get("button_group") if b.options == ["0", "1", "2"]]
    assert [c for c in at.get("plotly_chart") if "Attention of L1H3 from position" in c.proto.alt]
    shown = json.loads(next(c.proto.json for c in at.get("bidi_component") if "codes" in c.proto.json))
    assert (shown["over"]["steps"], shown["over"]["index"]) == ([0, 1, 2], 2)
    assert shown["over"]["codes"][2] == shown["codes"] != shown["over"]["codes"][0]
    (curves,) = [c.value for c in at.code if "over = " in c.value]
    assert "for s in [0, 1, 2]" in curves


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
    attend(open_series(lab_series(3)).at(2), "5, 17 9", out=out, most=32)
    (text,) = stored_texts(out)
    assert text.tokens.tolist() == [0, 5, 17, 9]
