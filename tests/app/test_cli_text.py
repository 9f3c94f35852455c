"""`byrote text`: rows in every form, exit codes, names made to trick a terminal, and no torch without a model."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from byrote.probes.text.report import COLUMNS

END = "<|endoftext|>"
PRINTED = (*COLUMNS[:-1], "seed", COLUMNS[-1])


def corpus(path: Path, seed: int = 0, documents: int = 12) -> Path:
    rng = np.random.default_rng(seed)
    path.write_text(END.join(" ".join(f"w{i}" for i in rng.integers(40, size=80)) for _ in range(documents)))
    return path


def rows_of(done) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_rows_are_tidy(byrote):
    done = byrote(
        "text", corpus(byrote.folder / "a.txt"), "--reference", corpus(byrote.folder / "human.txt", 1)
    )
    assert done.exit_code == 0, done.stderr
    rows = rows_of(done)
    assert tuple(rows[0]) == PRINTED
    assert {row["seed"] for row in rows} == {"0"}
    assert {row["corpus"] for row in rows} == {"human.txt", "a.txt"}
    assert {row["measure"] for row in rows} == {
        *("inducible", "induction_signal", "repeats", "rep", "concentration", "near_duplicates", "tail_mass")
    }
    for row in rows:
        assert bool(row["reason"]) != bool(row["lo"])
        assert row["reason"] or float(row["lo"]) <= float(row["value"]) <= float(row["hi"])
    assert "a.txt: 960 words, 12 documents, 12 windows" in done.stderr


def test_forms_hold_the_same_numbers(byrote):
    path = corpus(byrote.folder / "a.txt")
    as_csv = rows_of(byrote("text", path))
    as_json = json.loads(byrote("text", path, "--json").stdout)
    as_lines = [json.loads(line) for line in byrote("text", path, "--jsonl").stdout.splitlines()]
    assert as_json == as_lines
    assert [tuple(row) for row in as_json] == [PRINTED] * len(as_csv)
    for one, other in zip(as_csv, as_json, strict=True):
        assert one["value"] == ("" if other["value"] is None else str(other["value"]))
        assert (one["n_gram"] or None) == (None if other["n_gram"] is None else str(other["n_gram"]))


def test_table_puts_corpora_side_by_side(byrote):
    paths = [corpus(byrote.folder / name, i) for i, name in enumerate(("a.txt", "b.txt"))]
    done = byrote("text", *paths, "--reference", corpus(byrote.folder / "human.txt", 9), "-t", COLUMNS="120")
    lines = [line.split() for line in done.stdout.splitlines()]
    at = next(i for i, line in enumerate(lines) if line[:3] == ["human.txt", "share", "n=2"])
    assert [line[0] for line in lines[at : at + 3]] == ["human.txt", "a.txt", "b.txt"]
    heads = [line[0] for line in lines if len(line) == 1 and line[0].isidentifier()]
    assert heads == [
        "inducible",
        "induction_signal",
        "repeats",
        "rep",
        "concentration",
        "near_duplicates",
        "tail_mass",
    ]
    assert "more values: -v shows them" in done.stderr
    everything = byrote("text", paths[0], "-t", "-v", COLUMNS="120").stdout
    assert "hit_rate n=7" in everything
    assert "hit_rate n=7" not in done.stdout


def test_options_reach_the_measures(byrote):
    lines = [json.dumps({"body": f"one two three {i % 2}"}) for i in range(20)]
    (byrote.folder / "a.jsonl").write_text("\n".join(lines))
    done = byrote(
        "text", "a.jsonl", "--text-field", "body", "--measure", "rep", "--units", "bytes", "--context", "16"
    )
    assert done.exit_code == 0, done.stderr
    assert {row["measure"] for row in rows_of(done)} == {"rep"}
    assert "a.jsonl: 300 bytes, 20 documents, 20 windows" in done.stderr
    (byrote.folder / "b.txt").write_text("== 1 ==\none\n== 2 ==\ntwo\nEND\nthree")
    done = byrote("text", "b.txt", "--separator", r"== * ==\n", "--separator", "END", "--measure", "rep")
    assert "b.txt: 3 words, 3 documents, 3 windows" in done.stderr


def test_settings_and_variables_work_as_for_other_verbs(byrote):
    corpus(byrote.folder / "a.txt")
    (byrote.folder / "pyproject.toml").write_text('[tool.byrote.text]\nmeasure = ["rep"]\n')
    assert {row["measure"] for row in rows_of(byrote("text", "a.txt"))} == {"rep"}
    done = byrote("text", "a.txt", BYROTE_TEXT_CONTEXT="40")
    assert "24 windows" in done.stderr


def test_nothing_to_read_is_exit_4(byrote):
    (byrote.folder / "empty.txt").write_text("")
    done = byrote("text", "empty.txt")
    assert done.exit_code == 4
    assert done.stderr == "error: empty.txt holds no text\nhelp: give a file that is not empty\n"


@pytest.mark.parametrize(
    ("args", "error", "help"),
    [
        (("nowhere.txt",), "nowhere.txt does not exist", "check the path"),
        (("a.txt", "--measure", "repeat"), "there is no measure 'repeat'", "did you mean 'repeats'?"),
        (("a.txt", "--reference", "a.txt"), "a.txt is the reference itself", "give a corpus to compare"),
        (("a.txt", "--measure", "tail_mass"), "tail_mass needs a reference", "--reference PATH"),
        (("a.txt", "--measure", "perplexity"), "perplexity needs a model", "--model PATH"),
        (("a.txt", "--units", "tokens"), "units are tokens and there is no tokenizer", "tokenizer.json"),
        (("a.txt", "--tokenizer", "none.json"), "no tokenizer at none.json", "tokenizer.json"),
        (("a.txt", "--context", "3"), "a context of 3 tokens", "give 8 to"),
        (("a.txt", "--device", "tpu"), "there is no device 'tpu'", "cpu, cuda"),
        (("bad.jsonl",), "line 1 has no text in a field 'text'", "did you mean 'content'?"),
        (("a.txt", "--model", "nowhere"), "nowhere", ""),
    ],
)
def test_mistakes_are_exit_2_with_help(byrote, args, error, help):
    corpus(byrote.folder / "a.txt")
    (byrote.folder / "bad.jsonl").write_text('{"content": "one"}\n')
    done = byrote("text", *args)
    assert done.exit_code == 2, done.stderr
    first, second = done.stderr.splitlines()
    assert first.startswith("error: ") and error in first
    assert second.startswith("help: ") and help in second
    assert done.stdout == ""


def test_parts_that_cannot_be_read_are_exit_3(byrote):
    (byrote.folder / "a.jsonl").write_text('{"text": "one two"}\nbroken\n')
    done = byrote("text", "a.jsonl", "--measure", "concentration")
    assert done.exit_code == 3
    assert "a.jsonl: 1 line contains no text: line 2 is not JSON" in done.stderr
    assert len(rows_of(done)) == 2


def test_what_cannot_be_measured_says_why_and_is_exit_3(byrote):
    human = corpus(byrote.folder / "human.txt")
    (byrote.folder / "short.txt").write_text("one two")
    done = byrote("text", "short.txt", "--reference", human, "--json")
    assert done.exit_code == 3
    missing = [row for row in json.loads(done.stdout) if row["value"] is None]
    assert missing
    assert all(row["reason"] for row in missing)


@pytest.mark.parametrize("form", ["--table", "--csv", "--json", "--jsonl"])
def test_names_cannot_command_a_terminal(byrote, form):
    name = "evil\x1b[31m\x9b2J\u202e[red].txt"
    corpus(byrote.folder / name)
    (byrote.folder / "c").mkdir()
    for text in (b"one \xff two", b'{"text": 1}'):
        (byrote.folder / "c" / f"{name[:-4]}{len(text)}.txt").write_bytes(text)
    done = byrote("text", name, "c", form)
    assert done.exit_code == 0, done.stderr
    for stream in (done.stdout, done.stderr):
        assert all(c.isprintable() or c == "\n" for c in stream)
    assert "[red]" in done.stdout
    broken = byrote("text", f"{name}.md")
    assert all(c.isprintable() or c == "\n" for c in broken.stderr)


def test_a_model_adds_perplexities(byrote, hf_series):
    np.save(byrote.folder / "ids.npy", np.random.default_rng(0).integers(1, 61, size=(20, 30)))
    series = hf_series("gpt2", 1)
    done = byrote(
        "text", "ids.npy", "--model", series, "--measure", "perplexity", "--sample", "16", "--threads", "1"
    )
    assert done.exit_code == 0, done.stderr
    rows = rows_of(done)
    assert [row["metric"] for row in rows] == [
        "loss",
        *(f"p{q:02d}" for q in (5, 25, 50, 75, 95, 99)),
        "editable_share",
        *(f"probability_{i}" for i in range(10)),
        "tail_ratio",
    ]
    assert sum(
        float(row["value"]) for row in rows if row["metric"].startswith("probability_")
    ) == pytest.approx(1)
    assert {row["n"] for row in rows} == {"16"}


def test_a_model_that_cannot_read_the_text_is_said(byrote, hf_series):
    corpus(byrote.folder / "a.txt")
    series = hf_series("gpt2", 1)
    done = byrote("text", "a.txt", "--model", series, "--measure", "perplexity")
    assert done.exit_code == 2
    assert "the model has no tokenizer.json beside it" in done.stderr


def test_without_a_model_torch_is_not_imported(run_prepared, tmp_path):
    code = """
import sys
from click.testing import CliRunner
from byrote.cli.main import cli
done = CliRunner().invoke(cli, ["text", sys.argv[1], "--reference", sys.argv[2]])
print(done.exit_code, "torch" in sys.modules, "transformers" in sys.modules)
"""
    paths = [str(corpus(tmp_path / name, i)) for i, name in enumerate(("a.txt", "human.txt"))]
    assert run_prepared(code, *paths) == "0 False False"
