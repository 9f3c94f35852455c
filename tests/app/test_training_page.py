"""docs/training.md: its code runs as it stands there, and does what the page says."""

from __future__ import annotations

import re
from importlib import util
from pathlib import Path

import pytest
from click.testing import CliRunner

import byrote as br
from byrote.cli.main import cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
CODE = [code for language, code in BLOCKS if language == "python"]
TRAINER, LIGHTNING, LOOP, GATE = CODE
(RULES,) = (code for language, code in BLOCKS if language == "toml")
QUIET = [
    "ignore:'pin_memory' argument is set as true but no accelerator:UserWarning",
    "ignore:IProgress not found",
]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a block in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    return lambda code: exec(compile(code, PAGE.name, "exec"), {"__name__": "__main__"})


@pytest.mark.slow
@pytest.mark.filterwarnings(*QUIET)
def test_a_trainer_script_of_twenty_lines(run, capsys):
    assert len([line for line in TRAINER.splitlines() if line.strip()]) <= 20
    run(TRAINER.replace("save_steps=10)", 'save_steps=10, report_to="none")'))
    results = br.Results.open("results/model")
    assert {0, 30} <= set(results.steps) and results.meta["status"] == "complete"
    assert "'byrote/induction/verdict/n_heads'" in capsys.readouterr().out


@pytest.mark.slow
def test_a_loop_of_ones_own(run):
    run(LOOP)
    assert {0, 30} <= set(br.Results.open("results/loop").steps)
    made = CliRunner().invoke(cli, ["report", "results/loop", "-o", "report.html"])
    assert made.exit_code == 0, made.output
    assert "induction" in Path("report.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.filterwarnings(*QUIET)
def test_a_run_that_memorises_is_stopped(run, capsys):
    Path("gate.toml").write_text(RULES)
    run(GATE)
    steps, lines = capsys.readouterr().out.splitlines()[-1].split(" ", 1)
    assert 0 < int(steps) < 400 and "FAIL  model: no text is memorised" in lines


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Lightning's, of loggers and workers
@pytest.mark.skipif(util.find_spec("lightning") is None, reason="lightning is not installed")
def test_a_lightning_script(run):
    run(LIGHTNING)
    assert {0, 30} <= set(br.Results.open("results/copying").steps)


def test_every_name_of_the_page_is_there():
    import byrote.integrations as integrations

    named = set(re.findall(r"`(\w+_log)\(", PAGE.read_text(encoding="utf-8")))
    assert named == {name for name in dir(integrations) if name.endswith("_log")}
