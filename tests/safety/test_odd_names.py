"""Names and numbers that nobody chooses on purpose: they work, or are refused in two lines."""

from __future__ import annotations

import os
import sys

import pytest
from click.testing import CliRunner
from tiny_models import write_hf_series, write_lab_series

from byrote.checkpoints import CheckpointError, open_series
from byrote.checkpoints.formats.weight_files import file_step
from byrote.checkpoints.step_names import MAX_COUNT, parse_name
from byrote.checkpoints.steps import parse_steps
from byrote.cli.main import cli

QUICK = ("-p", "previous_token", "--sequences", "8", "--progress", "none")
not_utf8 = pytest.mark.skipif(
    sys.platform in ("darwin", "win32"), reason="file systems there take UTF-8 alone"
)


def done(*words: str) -> None:
    result = CliRunner().invoke(cli, list(words))
    assert result.exit_code == 0, result.stderr


def test_every_verb_takes_a_path_with_colons(tmp_path):
    name = "x@y:z"
    path, out = str(write_lab_series(tmp_path / name, (0, 1))), str(tmp_path / "out:put")
    done("scan", path)
    done("lint", path)
    done("run", path, "-o", out, *QUICK)
    done("run", path, "-o", out, *QUICK)  # nothing to do
    results = os.path.join(out, name)  # noqa: PTH118
    done("show", results)
    done("verify", results)
    done("compare", results, results)
    done("report", results, "-o", str(tmp_path / f"{name}.html"))
    done("lab", "train", str(tmp_path / f"lab{name}"), "--steps", "1", "--progress", "none")


@not_utf8
def test_a_name_that_is_not_utf8_works_or_is_refused(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    path, plain = (
        str(write_lab_series(tmp_path / name, (0, 1))),
        str(write_lab_series(tmp_path / "plain", (0, 1))),
    )
    done("scan", path)
    done("lint", path)
    done("run", plain, "-o", str(tmp_path / f"to{name}"), *QUICK)
    done("report", str(tmp_path / f"to{name}" / "plain"), "-o", str(tmp_path / f"{name}.html"))
    done("lab", "train", str(tmp_path / f"lab{name}"), "--steps", "1", "--progress", "none")
    result = CliRunner().invoke(cli, ["run", path, "-o", str(tmp_path / "out"), *QUICK])
    assert result.exit_code == 2
    assert "is not UTF-8" in result.stderr
    assert open_series(path).name == "caf\N{REPLACEMENT CHARACTER}"


def test_a_vocabulary_of_one_token_is_refused(tmp_path):
    path = write_lab_series(tmp_path / "v", (0, 1), d_vocab=1, d_vocab_out=1)
    result = CliRunner().invoke(cli, ["run", str(path), "-o", str(tmp_path / "out"), *QUICK])
    assert result.exit_code == 2
    assert "vocabulary has 1 token" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "spec", ["{}", "nearest:{}", "log:{}", "every:{}", "0..{}", "{}..", "{}k", "1.5", "٣"]
)
@pytest.mark.parametrize("digits", [16, 200, 400, 5000])
def test_a_step_of_many_digits_is_no_step(spec, digits):
    with pytest.raises(CheckpointError, match="is not a step specification") as refused:
        parse_steps(spec.format("9" * digits), (0, 1, 512), where="x")
    assert len(refused.value.message) < 200


def test_steps_are_whole_however_they_are_written():
    assert parse_steps("1.5k,0.512k,2.0", (2, 512, 1500), where="x") == {2, 512, 1500}


@pytest.mark.parametrize(
    "name",
    [
        "step{}",
        "checkpoint-{}",
        "iter_{}",
        "{}",
        "model_step{}",
        "stage1-step{}",
        "step={}",
    ],
)
def test_a_name_of_many_digits_is_never_read_as_its_first_ones(name):
    for digits in (16, 200):
        assert parse_name(name.format("1" * digits)) is None
        assert file_step(name.format("1" * digits) + ".pt") is None


def test_a_name_beyond_what_tables_count_is_no_step():
    assert parse_name("step999999999999999b") is None
    assert parse_name("step9b").step < MAX_COUNT


def test_a_folder_of_such_a_name_is_a_gap(tmp_path):
    write_hf_series(tmp_path / "run", "gpt2", (1, 2))
    (tmp_path / "run" / "step2").rename(tmp_path / "run" / f"step{'1' * 200}")
    series = open_series(tmp_path / "run")
    assert series.steps == (1,)
    assert [gap.reason for gap in series.gaps] == ["its step number is implausibly large"]
