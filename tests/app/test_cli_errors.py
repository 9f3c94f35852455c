"""Errors: their two lines, their object, their exit codes; settings and where each comes from; hostile text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from byrote.checkpoints.errors import ByroteError
from byrote.cli.output import Column, Output, print_data
from byrote.cli.session import MEANING, NothingFoundError, Session, guarded
from byrote.probes.wording import visible

HOSTILE = "evil\x1b[31m\x9b2J\u202e\x07[red]"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ByroteError("no", help="do"), 2),
        (NothingFoundError("none", help="look"), 4),
        (click.UsageError("bad"), 2),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (RuntimeError("broken"), 70),
        (MemoryError(), 70),
        (PermissionError(13, "Permission denied", "x"), 2),
    ],
)
def test_every_error_has_its_exit_code(error, code, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fail():
        raise error

    assert guarded(fail, Session()) == code
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1), (3, 3)])
def test_a_verbs_own_code_is_kept(returned, code):
    assert guarded(lambda: returned, Session()) == code


def test_exit_codes_are_the_documented_ones():
    assert set(MEANING) == {0, 1, 2, 3, 4, 70, 130}


def test_unknown_verb_suggests_the_nearest(byrote):
    done = byrote("repport")
    assert done.exit_code == 2
    assert done.stderr == "error: byrote has no verb 'repport'\nhelp: did you mean 'report'?\n"
    assert done.stdout == ""


def test_unknown_option_suggests_the_nearest(byrote):
    done = byrote("run", "--sed", "3", "x")
    assert done.exit_code == 2
    assert (
        done.stderr
        == "error: no such option '--sed'\nhelp: did you mean --seed? `byrote run -h` lists the options\n"
    )
    assert (
        "did you mean --idle-timeout?" in byrote("watch", "x", "--idle", "1").stderr
    )  # not --quiet: it begins alike


def test_missing_argument(byrote):
    done = byrote("run")
    assert done.exit_code == 2
    assert done.stderr == "error: missing argument 'PATH...'\nhelp: `byrote run -h` lists the options\n"


@pytest.mark.parametrize("form", ["--json", "--jsonl"])
def test_errors_are_objects_when_data_are_json(byrote, form):
    done = byrote("show", "nowhere", form)
    assert done.exit_code == 2
    assert json.loads(done.stderr) == {
        "error": "nowhere is not a results folder (no run.json)",
        "help": "`byrote run PATH -o results` creates one",
        "exit": 2,
    }
    usage = byrote("show", form, "--nope", "x")
    assert json.loads(usage.stderr)["exit"] == 2


def test_internal_error_saves_its_traceback(byrote, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(byrote.folder))
    monkeypatch.setattr("byrote.probes.registry.lookup", lambda name: 1 / 0)
    done = byrote("probes", "induction")
    assert done.exit_code == 70
    first, second = done.stderr.splitlines()
    assert first == "error: internal error: ZeroDivisionError: division by zero"
    saved = Path(re.fullmatch(r"help: the traceback is in (\S+); please report it", second)[1])
    text = saved.read_text()
    assert text.startswith("byrote probes induction\n")
    assert "ZeroDivisionError" in text
    assert saved.stat().st_mode & 0o077 == 0


def test_internal_error_prints_its_traceback_when_asked(byrote, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(byrote.folder))
    monkeypatch.setattr("byrote.probes.registry.lookup", lambda name: 1 / 0)
    done = byrote("probes", "induction", "--traceback")
    assert done.exit_code == 70
    assert "Traceback (most recent call last)" in done.stderr
    assert not list(byrote.folder.glob("byrote-traceback-*"))


def test_closed_pipe_is_no_error(planted_results):
    import subprocess
    import sys

    shown = f"'{sys.executable}' -m byrote show '{planted_results}/planted' --jsonl --top 100"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{shown} | head -n 1"], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert json.loads(done.stdout)["rank"] == 1


# settings


def write_settings(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(text)


def test_settings_give_way_to_variables_and_those_to_options(byrote, planted_results):
    result = planted_results / "planted"

    def rows(*args: str, **env: str) -> int:
        shown = byrote("show", result, "-p", "previous_token", "--csv", *args, **env).stdout
        return len(shown.splitlines()) - 1

    assert rows() == 5
    write_settings(byrote.folder, "[tool.byrote.show]\ntop = 1\n")
    assert rows() == 1
    assert rows(BYROTE_SHOW_TOP="2") == 2
    assert rows("--top", "3", BYROTE_SHOW_TOP="2") == 3


def test_output_form_can_be_set_and_overruled(byrote):
    write_settings(byrote.folder, '[tool.byrote.probes]\noutput = "json"\n')
    assert byrote("probes").stdout.startswith("[")
    assert byrote("probes", "--csv").stdout.startswith("name,")
    assert byrote("probes", BYROTE_PROBES_OUTPUT="jsonl").stdout.startswith("{")


def test_dashes_in_settings(byrote):
    write_settings(byrote.folder, '[tool.byrote.lab.train]\nrepeat-frac = 2.0\narm = "repeated"\n')
    done = byrote("lab", "train", "x")
    assert done.exit_code == 2
    assert "repeat_frac is 2.0" in done.stderr


@pytest.mark.parametrize(
    ("text", "message", "help"),
    [
        (
            "[tool.byrote.run]\ndevise = 1\n",
            "[tool.byrote.run] in pyproject.toml sets 'devise'",
            "did you mean 'device'?",
        ),
        (
            "[tool.byrote.lab.train]\nstep = 1\n",
            "[tool.byrote.lab.train] in pyproject.toml sets 'step'",
            "'steps'?",
        ),
        ("[tool.byrote.rum]\ndevice = 1\n", "sets 'rum'", "did you mean 'run'?"),
        ("[tool.byrote]\nrun = 1\n", "sets 'run'", "write [tool.byrote.VERB]"),
        ("[tool.byrote\n", "cannot be read", "fix the file"),
    ],
)
def test_settings_that_cannot_be_understood_are_refused(byrote, text, message, help):
    write_settings(byrote.folder, text)
    verb = ("lab", "train", "x") if "lab" in text else ("run", "x")
    done = byrote(*verb)
    assert done.exit_code == 2
    assert message in done.stderr
    assert help in done.stderr
    assert byrote("run", "-h").exit_code == 0 or "[tool.byrote" in text


def test_other_tools_settings_are_none_of_ours(byrote):
    write_settings(byrote.folder, "[tool.ruff]\nline-length = 1\n")
    assert byrote("probes").exit_code == 0


# hostile text


def test_clean_leaves_nothing_a_terminal_obeys():
    assert visible(HOSTILE) == "evil\ufffd[31m\ufffd2J\ufffd\ufffd[red]"
    assert visible("L5H1 ψ 日本 a\nb\tc") == "L5H1 ψ 日本 a b c"


@click.command()
@click.option("--form")
def _print(form: str) -> None:
    columns = (Column("name", "name"), Column("value", "value", right=True))
    rows = [{"name": HOSTILE, "value": float("nan")}, {"name": "=1+1", "value": 0.5}]
    Output(Session(), form).rows(columns, rows, title=HOSTILE)


@pytest.mark.parametrize("form", ["table", "csv", "json", "jsonl"])
def test_output_is_safe_and_never_nan(form):
    shown = CliRunner().invoke(_print, ["--form", form]).stdout
    assert "nan" not in shown.lower()
    assert all(c.isprintable() or c == "\n" for c in shown)
    if form in ("json", "jsonl"):
        rows = json.loads(shown) if form == "json" else [json.loads(line) for line in shown.splitlines()]
        assert rows[0] == {"name": HOSTILE, "value": None}
    else:
        assert "[red]" in shown  # markup is text


def test_data_keep_the_columns_asked_for(capsys):
    print_data("csv", ["b", "a"], [{"a": True, "b": ["x", "y"], "c": 3}])
    assert capsys.readouterr().out == "b,a\nx y,true\n"


# the names of version 0.1


def test_a_table_of_the_former_name_is_refused_with_the_new_one(byrote):
    write_settings(byrote.folder, '[tool.rote.run]\ndevice = "cuda"\n')
    done = byrote("probes")
    assert done.exit_code == 2
    assert "[tool.rote]" in done.stderr and "rename it [tool.byrote]" in done.stderr


def test_a_variable_of_the_former_name_is_refused_with_the_new_one(byrote):
    done = byrote("probes", ROTE_RUN_DEVICE="cuda")
    assert done.exit_code == 2
    assert "ROTE_RUN_DEVICE is a variable of version 0.1" in done.stderr
    assert "name it BYROTE_RUN_DEVICE" in done.stderr
    assert byrote("probes", ROTE_OTHERS="somebody else's").exit_code == 0


def test_doctor_lists_what_has_a_former_name(byrote):
    write_settings(byrote.folder, "[tool.rote]\n")
    done = byrote("doctor", "--json", ROTE_RUN_DEVICE="cuda")
    assert done.exit_code == 2
    wrong = [row["fix"] for row in json.loads(done.stdout) if row["status"] == "wrong"]
    assert wrong == ["rename it [tool.byrote]", "name it BYROTE_RUN_DEVICE"]


def test_the_former_command_says_what_to_type(monkeypatch, capsys):
    from importlib import metadata

    (entry,) = metadata.entry_points(group="console_scripts", name="rote")
    monkeypatch.setattr("sys.argv", ["rote", "run", "runs/a"])
    with pytest.raises(SystemExit) as left:
        entry.load()()
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: the command `rote` is now `byrote`\n  run: byrote run runs/a\n"
