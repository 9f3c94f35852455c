"""The folder a command is started in may be somebody else's: what its pyproject.toml may not set, and that new options are sorted."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from byrote.cli.command import commands
from byrote.cli.main import cli
from byrote.cli.settings import BY_HAND, WRITTEN, read_settings

# Options that a working folder may set: they choose what is measured, how, and how it is shown. A new option is sorted
# into one of the two by whoever adds it: may a stranger's folder choose it?
HARMLESS = {
    "align",
    "all",
    "all_windows",
    "allow_partial",
    "architecture",
    "arm",
    "arm_set",
    "at",
    "base",
    "base_model",
    "baseline",
    "batch",
    "betas",
    "better",
    "bigram_frac",
    "blocks",
    "checkpoints",
    "content",
    "context",
    "copy",
    "d_model",
    "device",
    "dropout",
    "dry_run",
    "dtype",
    "each",
    "events",
    "every",
    "expect",
    "fail_fast",
    "figures",
    "first_seed",
    "floor",
    "folder",
    "from",
    "full",
    "grid",
    "group",
    "heads",
    "how",
    "init_scale",
    "into",
    "jobs",
    "layers",
    "light",
    "list",
    "long",
    "lr",
    "measure",
    "members",
    "metric",
    "model",
    "no_browser",
    "no_color",
    "norm",
    "open",
    "out",
    "output",
    "over",
    "plan",
    "pool",
    "port",
    "prefetch",
    "probe",
    "progress",
    "quiet",
    "range",
    "recipe",
    "reference",
    "rehash",
    "repeat_frac",
    "results",
    "run",
    "sample",
    "save_attention",
    "seed",
    "separator",
    "shard",
    "sequences",
    "size",
    "smeared_keys",
    "source",
    "source_set",
    "step",
    "step_map",
    "steps",
    "stimulus",
    "swap",
    "synthetic",
    "table",
    "text",
    "text_field",
    "threads",
    "to",
    "tokenizer",
    "top",
    "torch",
    "top_heads",
    "github",
    "idle_timeout",
    "junit",
    "loss_name",
    "losses",
    "poll",
    "settle",
    "stop_signal",
    "until_step",
    "trace",
    "traceback",
    "twins",
    "unit",
    "units",
    "verbose",
    "version",
    "weight_decay",
    "windows",
    "write",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [*os.environ]:
        if name.startswith("BYROTE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_option_is_sorted():
    found = {
        str(param.name)
        for _, command in commands(click.Context(cli, info_name="byrote"))
        for param in command.params
        if isinstance(param, click.Option)
    }
    assert found - HARMLESS - BY_HAND == set()
    assert found >= BY_HAND and not BY_HAND & HARMLESS


@pytest.mark.parametrize(
    ("setting", "option", "variable"),
    (
        ("allow-download = true", "--allow-download", "BYROTE_RUN_ALLOW_DOWNLOAD"),
        ("disk_budget = 0.001", "--disk-budget", "BYROTE_RUN_DISK_BUDGET"),
        ('plugin = ["evil.py"]', "--plugin", "BYROTE_RUN_PLUGIN"),
        ("fresh = true", "--fresh", "BYROTE_RUN_FRESH"),
        ('trace = "../trace.jsonl"', "--trace", "BYROTE_RUN_TRACE"),
    ),
)
def test_a_working_folder_reaches_no_network_runs_no_code_and_throws_nothing_away(
    here, setting, option, variable
):
    (here / "evil.py").write_text("from pathlib import Path; Path('ran').touch()")
    (here / "pyproject.toml").write_text(f"[tool.byrote.run]\nsequences = 8\n{setting}\n")
    done = CliRunner().invoke(cli, ["run", "owner/name"])
    assert done.exit_code == 2, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert f"sets {option}, which is not read from the working folder" in line and line.endswith(
        f"as {variable}"
    )
    assert not (here / "ran").exists()
    assert read_settings(here).table == {"run": {"sequences": 8}}


def test_what_is_given_by_hand_is_taken(here):
    (here / "mine.py").write_text("from pathlib import Path; Path('ran').touch()")
    assert CliRunner().invoke(cli, ["run", "nowhere"], env={"BYROTE_RUN_PLUGIN": "mine.py"}).exit_code == 2
    assert (here / "ran").exists()


def test_a_report_of_a_working_folder_stays_in_it(here):
    outside = ("../x.html", "/tmp/x.html", "~/../../x.html/../../../y", "link/x.html", "", ".")
    (here / "link").symlink_to("/")
    for name in outside:
        (here / "pyproject.toml").write_text(f"[tool.byrote.report]\nout = {name!r}\n")
        assert read_settings(here).ignored == {"report": ("out",)}, name
    for name in ("x.html", "reports/x.html", str(here / "x.html")):
        (here / "pyproject.toml").write_text(f"[tool.byrote.report]\nout = {name!r}\n")
        assert read_settings(here).table == {"report": {"out": name}}
    assert ("report", "out") in WRITTEN


def test_an_address_to_answer_under_is_not_set_by_a_working_folder(here):
    (here / "pyproject.toml").write_text('[tool.byrote.dashboard]\nallow-origin = ["http://evil.example"]\n')
    settings = read_settings(here)
    assert settings.table == {"dashboard": {}} and settings.ignored == {"dashboard": ("allow_origin",)}


@pytest.mark.parametrize("kind", ("deep", "large", "pipe", "device", "binary"))
def test_settings_that_cannot_be_read_are_said_or_left(here, kind):
    file = here / "pyproject.toml"
    if kind == "deep":
        file.write_text("x = " + "[" * 100_000)
    elif kind == "large":
        with file.open("wb") as sparse:
            sparse.truncate(8 << 30)
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    else:
        file.write_bytes(b"\xff\xfe\0")
    done = CliRunner().invoke(cli, ["probes"])
    assert done.exit_code == (0 if kind in ("pipe", "device") else 2)
    assert "Traceback" not in done.output and len(done.stderr.splitlines()) in (0, 2)
