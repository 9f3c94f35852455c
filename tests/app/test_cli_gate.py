"""`byrote check` and `byrote watch`: outcomes, what CI systems read of them, and what is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from planted_series import model_metric, write_results
from tiny_models import write_hf_series

from byrote.checkpoints.errors import ByroteError
from byrote.cli.stopping import Process, stop_target

GATE = """
[[expect]]
name = "remembers nothing"
probe = "held_out_loss"
max = 2.5

[[expect]]
probe = "held_out_loss"
max = 2

[[expect]]
probe = "held_out_loss"
max = 1
"""  # the loss is 2.00 [1.95, 2.05]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write_results(tmp_path / "results", "a", {10: [model_metric("held_out_loss", "loss", 2.0)]})


def test_check_says_what_passed_failed_and_was_not_decided(byrote, results):
    Path("gate.toml").write_text(GATE)
    done = byrote("check", "results", "--expect", "gate.toml", "--json")
    assert done.exit_code == 1
    rows = json.loads(done.stdout)
    assert [(row["outcome"], row["passed"]) for row in rows] == [
        ("pass", True),
        ("undecided", False),
        ("fail", False),
    ]
    assert [row["line"] for row in rows] == [2, 7, 11] and rows[0]["name"] == "remembers nothing"
    assert (rows[1]["lo"], rows[1]["hi"]) == pytest.approx((1.95, 2.05))
    assert done.stderr.splitlines()[-1] == "3 checks: 1 failed, 1 undecided (counts as failed)"
    Path("gate.toml").write_text('undecided = "pass"\n' + GATE.rpartition("[[expect]]")[0])
    done = byrote("check", "results/a", "--expect", "gate.toml", "-t", COLUMNS="120")
    assert done.exit_code == 0 and "2 checks: 0 failed, 1 undecided (counts as passed)" in done.stdout
    assert byrote("check", "results", "--expect", "no.toml").exit_code == 2
    assert byrote("check", "nowhere", "--expect", "gate.toml").exit_code == 2


def test_check_writes_junit_and_annotations(byrote, results):
    Path("gate.toml").write_text(GATE.replace("remembers nothing", "a,b: 100% <&>"))
    done = byrote("check", "results", "--expect", "gate.toml", "--junit", "gate.xml", GITHUB_ACTIONS="true")
    assert done.exit_code == 1
    root = ElementTree.parse("gate.xml").getroot()
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("3", "2", "0")
    cases = root.findall("testsuite[@name='a']/testcase")
    assert next(case.get("name") for case in cases) == "a,b: 100% <&>"
    assert [[part.get("type") for part in case.findall("failure")] for case in cases] == [
        [],
        ["undecided"],
        ["fail"],
    ]
    said = [line for line in done.stderr.splitlines() if line.startswith("::")]
    assert len(said) == 2
    assert said[1].startswith(
        "::error file=gate.toml,line=11,title=byrote%3A held_out_loss/loss at step 10%3A at most 1::"
    )
    assert "::" not in byrote("check", "results", "--expect", "gate.toml", "--no-github").stderr
    lenient = GATE.replace("max = 2\n", 'max = 2\nundecided = "pass"\nname = "50%, a:b"\n')
    Path("gate.toml").write_text(lenient)
    done = byrote("check", "results", "--expect", "gate.toml", "--github", "--junit", "gate.xml")
    assert "::warning file=gate.toml,line=7,title=byrote%3A 50%25%2C a%3Ab::" in done.stderr
    assert ElementTree.parse("gate.xml").getroot().get("skipped") == "1"


def test_names_from_files_cannot_write_xml_or_commands(byrote, tmp_path):
    name = 'x"><y/>'
    write_results(tmp_path / "results", name, {10: [model_metric("held_out_loss", "loss", 2.0)]}, folder="b")
    Path("gate.toml").write_text(
        '[[expect]]\nprobe = "held_out_loss"\nmax = 1\nname = "a\\n::error::b\\u0000\\uffff"\n'
    )
    done = byrote("check", "results", "--expect", "gate.toml", "--junit", "gate.xml", "--github")
    assert done.exit_code == 1
    (suite,) = ElementTree.parse("gate.xml").getroot()
    assert suite.get("name") == name
    assert sum(line.startswith("::") for line in done.stderr.splitlines()) == 1


def test_a_working_folder_cannot_have_a_process_stopped_or_a_file_written_elsewhere(byrote, results):
    Path("gate.toml").write_text(GATE)
    Path("pyproject.toml").write_text(
        '[tool.byrote.check]\njunit = "../out.xml"\n[tool.byrote.watch]\nstop-on-fail = "1"\n'
    )
    done = byrote("check", "results", "--expect", "gate.toml")
    assert done.exit_code == 1 and not Path("../out.xml").exists() and "junit" in done.stderr
    done = byrote("watch", "runs", "--idle-timeout", "0.01", "--poll", "0.01")
    assert done.exit_code == 4 and "stop-on-fail" in done.stderr and "no checkpoint appeared" in done.stderr


STOPS = '[[expect]]\nprobe = "previous_token"\nhead = "any"\nmin = 2\nfrom_step = 20\n'  # no score is above 1
QUICK = ("--poll", "0.05", "--settle", "0.05", "-p", "previous_token", "--sequences", "8")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_hf_series(tmp_path / "run", "gpt2", (10, 20), name="checkpoint-{step}", n_layer=1)


def test_watch_writes_the_file_that_training_looks_for(byrote, run):
    Path("gate.toml").write_text(STOPS)
    other = [
        word.replace("previous_token", "duplicate_token") for word in QUICK
    ]  # the gate's probe is measured too
    done = byrote("watch", "run", *other, "--expect", "gate.toml", "--stop-on-fail", "stop")
    assert done.exit_code == 1, done.output
    assert "measured for the gate: previous_token" in done.stderr
    assert "step 20 measured" in done.stderr and "stop was written" in done.stderr
    (line,) = Path("stop").read_text().splitlines()
    assert line.startswith(
        "FAIL  run: previous_token/score any at every step from 20: expected at least 2, found L0H"
    )
    again = byrote("watch", "run", *QUICK, "--expect", "gate.toml", "--stop-on-fail", "stop")
    assert again.exit_code == 2 and "would stop at once" in again.stderr


def test_watch_refuses_a_gate_that_can_stop_nothing(byrote, run):
    Path("gate.toml").write_text(STOPS.replace("from_step = 20\n", ""))
    done = byrote("watch", "run", *QUICK, "--expect", "gate.toml", "--stop-on-fail", "stop")
    assert done.exit_code == 2 and "no rule of gate.toml can stop a run" in done.stderr
    done = byrote("watch", "run", *QUICK, "--expect", "gate.toml", "--until-step", "20")
    assert done.exit_code == 1 and "decided when the run has ended" in done.stderr  # it fails at the end
    assert "1 check: 1 failed" in done.stderr
    assert byrote("watch", "run", *QUICK, "--stop-on-fail", "stop").exit_code == 2


def test_only_a_process_of_ones_own_is_stopped():
    for text in ("0", "1", str(os.getpid()), "99999999999", str((1 << 22) - 1)):
        with pytest.raises(ByroteError) as caught:
            stop_target(text, signal_name="TERM")
        assert caught.value.help


@pytest.mark.processes
def test_a_process_is_stopped_and_no_other_of_its_number(monkeypatch):
    def started() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    first = started()
    target = stop_target(str(first.pid), signal_name="TERM")
    assert not target.ended()
    assert target.stop([]) == f"process {first.pid} was sent SIGTERM"
    assert first.wait() == -signal.SIGTERM
    assert target.ended() and target.stop([]) == f"process {first.pid} had ended already"
    other = started()
    try:  # without descriptors, another process of that number is known by the moment it began
        monkeypatch.delattr(os, "pidfd_open", raising=False)
        named = stop_target(str(other.pid), signal_name="TERM")
        assert isinstance(named, Process) and named.descriptor is None and not named.ended()
        later = Process(named.pid, named.signal, None, "another moment")
        assert later.ended() and later.stop([]) == f"process {other.pid} had ended already"
        assert other.poll() is None
    finally:
        other.kill(), other.wait()


@pytest.mark.processes
def test_watch_stops_a_training_and_ends_with_it(byrote, run):
    Path("gate.toml").write_text(STOPS)
    training = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    try:
        done = byrote("watch", "run", *QUICK, "--expect", "gate.toml", "--stop-on-fail", str(training.pid))
        assert done.exit_code == 1 and f"process {training.pid} was sent SIGTERM" in done.stderr
        assert training.wait(10) == -signal.SIGTERM
    finally:
        training.kill()


def test_the_page_names_every_key_and_its_rules_are_read():
    import tomllib

    from byrote.probes.gate import gate_of
    from byrote.probes.gate.grammar import KEYS

    page = (Path(__file__).parents[2] / "docs" / "gate.md").read_text()
    rules = [
        rule
        for block in page.split("```toml\n")[1:]
        for rule in gate_of(tomllib.loads(block.partition("```")[0])).rules
    ]
    assert {rule.kind for rule in rules} == set(KEYS)
    assert {rule.seeds for rule in rules} >= {4, "mean"} and any(rule.stops for rule in rules)
    assert [
        key for keys in KEYS.values() for key in keys if f"`{key}" not in page and f"{key} =" not in page
    ] == []
    assert "| 1 |" in page and "docs/lint.md" in page
