"""Every verb does its work with no network at all, and asks for nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import measured, series_of
from limited import limited, quiet
from looking import command_line
from network import leave_the_network, refuse_others

from byrote.cli.main import VERBS

pytestmark = pytest.mark.torture(seconds=5)
DONE = (0, 1, 3)
LAB = "lab train {top}/lab --arm repeated --repeat-frac 0.5 --steps 2 --pool 4 --progress none"
LINES = {
    "lab": LAB,
    "scan": "scan {top}/runs/tiny",
    "lint": "lint {top}/runs/tiny --no-write",
    "probes": "probes",
    "run": "run {top}/runs/tiny -p prefix_matching --sequences 8 -o {top}/again --progress none",
    "show": "show {top}/results/tiny",
    "compare": "compare {top}/results/tiny {top}/results/other",
    "degrade": "degrade --group control={top}/results/tiny --group repeated={top}/results/other --metric repeat_loss/difference",
    "reproduce": "reproduce linear-accumulate -o {top}/reproduced --jobs 1 --progress none",
    "report": "report {top}/results/tiny -o {top}/report --light",
    "export": "export {top}/results/tiny -o {top}/play.html",
    "graft": "graft {top}/runs/tiny --heads L0H0 --from 1 --into 0 --sequences 8",
    "logits": "logits {top}/runs/tiny --from 0 --to 1 --sequences 8",
    "text": "text {top}/words.txt",
    "import": "import {top}/scores.csv -o {top}/published",
    "verify": "verify {top}/results/tiny",
    "watch": "watch {top}/runs/tiny -p prefix_matching --sequences 8 -o {top}/watched --until-step 1 --settle 0 --poll 0.1 --progress none",
    "check": "check {top}/results/tiny --expect {top}/gate.toml",
    "completion": "completion bash",
    "help": "help show",
    "doctor": "doctor",
}
SERVED = {"dashboard"}  # by the test below
LONG = {"selftest"}  # measures planted models and reads no argument that could name a place


@pytest.fixture(scope="module")
def top(tmp_path_factory) -> Path:
    top = tmp_path_factory.mktemp("no_network")
    for name in ("tiny", "other"):
        measured(series_of(top, name), name=name)
    (top / "scores.csv").write_text("step,layer,head,value\n1,0,0,0.5\n2,0,0,0.6\n")
    (top / "gate.toml").write_text('[[expect]]\nprobe = "prefix_matching"\nhead = "any"\nmin = 0.0\n')
    (top / "words.txt").write_text("one two three four five six seven eight nine ten " * 50)
    return top


def call(note: Any, line: str) -> tuple[int, str, list[str]]:
    """One verb in a process without a network: exit code, what it said, and whom it asked for."""
    quiet()
    for name in list(os.environ):
        if name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") or name.startswith("TORTURE"):
            del os.environ[name]  # nothing but the verb itself keeps it from asking
    leave_the_network()
    asked = refuse_others()
    code, out, said = command_line(*line.split())
    return code, said + out, asked


def test_every_verb_is_tried():
    assert set(VERBS) - SERVED - LONG <= set(LINES)


@pytest.mark.parametrize("name", sorted(set(LINES) & set(VERBS)))
def test_no_network(name, top):
    ended = limited(call, LINES[name].format(top=top), memory=8 << 30, files=256, seconds=120)
    assert not ended.problem, ended.problem
    code, said, asked = ended.answer
    assert asked == []
    assert code in DONE, said


SERVER = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from network import leave_the_network
sys.exit(3) if not leave_the_network() else None
import os, signal, subprocess, time, urllib.error, urllib.request
server = subprocess.Popen([sys.executable, "-m", "byrote", "dashboard", *sys.argv[1:]], stdout=2, start_new_session=True)
port, answer = sys.argv[sys.argv.index("--port") + 1], "none"
for _ in range(600):
    time.sleep(0.1)
    try:
        answer = str(urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5).status)
        break
    except urllib.error.HTTPError as error:
        answer = str(error.code)  # it wants the key, which is another test's
        break
    except OSError:
        if server.poll() is not None:
            answer = f"ended with {server.poll()}"
            break
os.killpg(server.pid, signal.SIGTERM) if server.poll() is None else None
server.wait(20)
print(answer)
"""


def test_the_dashboard_is_served_without_a_network(top):
    """In a network namespace that has the loopback alone."""
    words = [str(top / "results"), "--no-browser", "--port", "8765"]
    done = subprocess.run(
        [sys.executable, "-c", SERVER, str(Path(__file__).parent), *words],
        capture_output=True, text=True, cwd=top, timeout=120, check=False,
    )  # fmt: skip
    if done.returncode == 3:
        pytest.skip("this system lets nobody leave the network")
    assert done.stdout.strip() in ("200", "403"), done.stderr[-2000:]
