"""`byrote run` with members, twins and text given, and without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from lookup_models import lookup_state, members, random_state, twins, write_series

from byrote.probes.results import Results

PROBES = ("-p", "exact_match", "-p", "mem_gap", "-p", "repeat_loss")


@pytest.fixture
def series(byrote) -> Path:
    return write_series(Path("runs/learns"), {0: random_state(), 30: lookup_state()})


@pytest.fixture
def files(byrote) -> tuple[str, ...]:
    np.save("m.npy", members())
    np.save("t.npy", twins())
    return ("--members", "m.npy", "--twins", "t.npy")


def test_given_members_and_twins_are_measured(byrote, series, files):
    done = byrote("run", series, *PROBES, *files, "--sequences", "8")
    assert done.exit_code == 0, done.output
    results = Results.open("results/learns")
    assert results.select("exact_match", "completed", step=30)["value"].tolist() == [1.0]
    assert results.select("mem_gap", "gap", step=30)["lo"].iloc[0] > 4
    assert "not measured" not in done.stderr
    shown = byrote("show", "results/learns", "--csv")
    assert "exact_match" in shown.stdout and "mem_gap" in shown.stdout


def test_a_check_may_name_a_probe_that_runs_the_model_itself(byrote, series, files):
    """`mem_gap` and `extraction` are about the whole model, `ablation` is not: the results say which, not the kind."""
    byrote("run", series, *PROBES, *files, "--sequences", "8", "--steps", "last")
    gap = '[[expect]]\nprobe = "mem_gap"\nmetric = "gap"\nmin = 4\n'
    Path("holds.toml").write_text(gap)
    done = byrote("report", "results/learns", "-o", "report", "--light", "--expect", "holds.toml")
    assert done.exit_code == 0, done.output
    assert "1 check: all passed" in done.stderr
    Path("heads.toml").write_text(gap + 'head = "any"\n')
    refused = byrote("report", "results/learns", "-o", "report", "--light", "--expect", "heads.toml")
    assert refused.exit_code == 2
    assert "check 1 of heads.toml: mem_gap/gap is about the whole model" in refused.stderr


def test_without_members_one_line_says_so_and_the_exit_code_is_0(byrote, series):
    done = byrote("run", series, *PROBES, "--sequences", "8")
    assert done.exit_code == 0
    lines = [line for line in done.stderr.splitlines() if "members" in line or "not measured" in line]
    assert len(lines) == 1 and "not measured: exact_match, mem_gap: no training members" in lines[0]
    shown = byrote("show", "results/learns")
    assert shown.exit_code == 0 and "exact_match" not in shown.output
    named = byrote("show", "results/learns", "-p", "exact_match")
    assert "no training members" in named.output


def test_the_report_says_it_once(byrote, series):
    byrote("run", series, *PROBES, "--sequences", "8")
    done = byrote("report", "results/learns", "-o", "report", "--light")
    assert done.exit_code == 0, done.output
    (file,) = Path("report").glob("*.json")
    report = json.loads(file.read_text())
    assert report["status"] == "complete"
    said = [alert for alert in report["alerts"] if "members" in alert["text"]]
    assert len(said) == 1 and said[0]["level"] == "note"


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("--members", "the cat sat on the mat", "no tokenizer.json"),
        ("--text", "the cat sat on the mat", "no tokenizer.json"),
        ("--members", None, "does not exist"),
    ],
)
def test_files_that_cannot_be_used_are_a_usage_error(byrote, series, option, content, message):
    if content is not None:
        Path("x.txt").write_text(content)
    done = byrote("run", series, *PROBES, option, "x.txt")
    assert done.exit_code == 2, done.output
    assert message in done.stderr and "Traceback" not in done.output


@pytest.fixture
def with_tokenizer(byrote, hf_series) -> Path:
    """A GPT-2 of 61 ids whose tokenizer has a word for each."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    path = hf_series("gpt2", 2)
    made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(61)}, unk_token="w60"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    for folder in path.iterdir():
        made.save(str(folder / "tokenizer.json"))
    return path


def sentences(n: int, words: int, seed: int) -> list[str]:
    drawn = np.random.default_rng(seed).integers(1, 60, size=(n, words))
    return [" ".join(f"w{i}" for i in row) for row in drawn]


def test_members_and_twins_may_be_text(byrote, with_tokenizer):
    """Members as .jsonl with their counts, twins one per line and shorter: all are cut to the length of the twins."""
    lines = [
        json.dumps({"text": text, "repeat_count": count})
        for text, count in zip(sentences(12, 40, 0), [3, 20] * 6, strict=True)
    ]
    Path("m.jsonl").write_text("\n".join(lines))
    Path("t.txt").write_text("\n".join(sentences(9, 30, 1)))
    done = byrote(
        "run", with_tokenizer, "-p", "exact_match", "-p", "mem_gap", "-p", "extraction", "--members", "m.jsonl",
        "--twins", "t.txt", "--sequences", "8",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    results = Results.open(next(Path("results").iterdir()))
    by_repeats = results.select("extraction", "by_repeats", step=results.steps[0])
    counted = by_repeats[by_repeats["valid"]]
    assert dict(zip(counted["position"], counted["n"], strict=True)) == {1: 6, 4: 6}
    gap = results.select("mem_gap", "gap", step=results.steps[0]).iloc[0]
    assert gap["lo"] < 0 < gap["hi"]  # a model that was never trained knows neither
    Path("checks.toml").write_text('[[expect]]\nprobe = "extraction"\nmax = 1\n')
    checked = byrote("report", results.path, "-o", "report", "--light", "--expect", "checks.toml")
    assert checked.exit_code == 0 and "extraction/score at step" in checked.stderr
    assert {s["id"].split("-")[1] for s in results.meta["stimuli"]} == {"l31"}
    assert any("cut to 30 tokens after BOS" in note for note in results.meta["notes"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.jsonl", b'{"txt": "w1 w2"}', "m.jsonl: line 1 has no text in a field 'text'"),
        ("m.txt", b"w1 \x00 w2", "it holds NUL bytes"),
        ("m.txt", b"w1 w2\n", "the shortest line of m.txt has 2 tokens"),
        ("m.txt", b"\n \n", "holds no sequence"),
        ("m.npy", b"half", "is not a .npy file"),
    ],
)
def test_a_file_of_members_that_is_wrong_is_one_error(byrote, with_tokenizer, name, content, message):
    Path(name).write_bytes(content)
    done = byrote("run", with_tokenizer, "-p", "exact_match", "--members", name)
    assert done.exit_code == 2, done.output
    first, second = done.stderr.splitlines()
    assert first.startswith("error: ") and message in first and second.startswith("help: ")
    assert not Path("results").exists() or not list(Path("results").rglob("*.parquet"))


def test_members_of_another_vocabulary_are_a_usage_error(byrote, series):
    np.save("m.npy", members() + 1000)
    np.save("t.npy", twins())
    done = byrote("run", series, *PROBES, "--members", "m.npy", "--twins", "t.npy")
    assert done.exit_code == 2
    assert "outside the model's vocabulary of 64" in done.stderr
