"""What a person does at a terminal: several runs at once, narrow and old terminals, help, completion, settings that nothing reads."""

from __future__ import annotations

import io
import json
import resource
import shutil
import subprocess
import sys

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from byrote.cli.encoding import in_ascii, print_anywhere
from byrote.cli.main import cli
from byrote.cli.run import _pace_of_all
from byrote.cli.session import Session
from byrote.probes.sweep.pace import Pace


def test_help_of_a_verb(byrote):
    for words in (["show"], ["lab", "train"], []):
        done = byrote("help", *words)
        assert done.exit_code == 0 and done.stdout == byrote(*words, "-h").stdout
    assert "did you mean 'compare'" in byrote("help", "compara").stderr
    further = byrote("help", "lab", "plan", "extra")
    assert further.exit_code == 2 and "'extra' was given after lab plan" in further.stderr


def test_show_of_several_runs_has_the_rows_of_each(byrote, planted_results):
    def of(*args):
        return json.loads(byrote("show", *args, "-p", "induction,previous_token", "--json").stdout)

    both = of(planted_results)
    assert both == [row for run in ("planted", "random") for row in of(planted_results / run)]
    assert {row["probe"] for row in both} == {"induction", "previous_token"}
    table = byrote("show", planted_results, "-p", "induction", "-t").stdout
    assert table.index("planted at step 20") < table.index("random at step 20")
    events = json.loads(byrote("show", planted_results, "--events", "--json").stdout)
    assert {row["run"] for row in events} <= {"planted", "random"}


def test_compare_takes_a_folder_or_several_runs(byrote, planted_results, tmp_path):
    pair = [planted_results / name for name in ("planted", "random")]
    rows = byrote("compare", *pair, "--json").stdout
    assert byrote("compare", planted_results, "--json").stdout == rows
    third = shutil.copytree(planted_results / "random", tmp_path / "more" / "third")
    meta = json.loads((third / "run.json").read_text())
    del meta["series"]["manifest"]["arm"]  # else it would be a second training of the arm of "random"
    (third / "run.json").write_text(json.dumps(meta | {"run": "third"}))
    done = byrote("compare", *pair, third, "--json")
    assert done.exit_code == 0, done.stderr
    three = json.loads(done.stdout)
    assert three[: len(three) // 2] == json.loads(rows)
    assert [row["run_b"] for row in three] == ["random"] * (len(three) // 2) + ["third"] * (len(three) // 2)
    assert "planted is the baseline" in done.stderr


def test_compare_of_a_run_with_itself_says_so(byrote, planted_results):
    run = planted_results / "planted"
    done = byrote("compare", run, planted_results / "random" / ".." / "planted", "--json")
    assert "is compared with itself: every difference is exactly 0" in done.stderr
    assert {row["difference"] for row in json.loads(done.stdout) if row["difference"] is not None} == {0.0}
    assert byrote("compare", run).exit_code == 2


def test_results_and_checkpoints_are_told_apart(byrote, planted_runs, planted_results):
    for verb in ("show", "report"):
        assert "holds checkpoints, not results" in byrote(verb, planted_runs / "planted").stderr
    assert f"byrote run {planted_runs} -o results" in byrote("show", planted_runs).stderr
    for place in (planted_results, planted_results / "planted", planted_results / "planted" / "units"):
        done = byrote("run", place)
        assert done.exit_code in (2, 4) and "holds results, not checkpoints" in done.stderr
    assert f"name {planted_results}" in byrote("show", planted_results.parent).stderr
    assert (
        f"did you mean {planted_results / 'planted'}?" in byrote("show", planted_results / "plantet").stderr
    )


def test_what_is_refused_leaves_nothing_and_names_the_nearest_choice(byrote, planted_runs, tmp_path):
    (tmp_path / "mine.txt").write_text("text")
    run = ("run", planted_runs / "planted", "-o", tmp_path / "out")
    for options, words in (
        (("--seed", str(10**30)), "not in the range 0<=x<=2^53"),
        (("--trace", tmp_path / "nowhere" / "trace"), "no such file or directory"),
        (("--dtype", "float23"), "did you mean float32?"),
        (("--text", tmp_path / "mine.tx"), f"did you mean {tmp_path / 'mine.txt'}?"),
    ):
        done = byrote(*run, *options)
        assert done.exit_code == 2 and words in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_no_table_is_cut_in_forty_columns(byrote, planted_results):
    done = byrote("show", planted_results / "planted", "-t", COLUMNS="40")
    wide = byrote("show", planted_results / "planted", "-t", COLUMNS="200")
    assert max(map(len, done.stdout.splitlines())) <= 40
    assert "…" not in done.stdout and "too narrow" not in done.stderr
    words = set(wide.stdout.replace("─", " ").split()) - {"metric"}
    assert words - set(done.stdout.replace("·", " ").split()) == set()


@pytest.mark.parametrize("charset", ["ascii", "latin-1", "cp437"])
def test_any_encoding_of_the_terminal(byrote, planted_results, charset):
    done = CliRunner(charset=charset).invoke(
        cli, ["compare", *(str(planted_results / run) for run in ("planted", "random")), "-t"]
    )
    assert done.exit_code == 0, done.output
    assert "B - A" in done.stdout and "-0." in done.stdout


def test_signs_are_spelled_in_ascii():
    assert in_ascii("−0.5 → L1H0 … é ≤ 字") == "-0.5 -> L1H0 ... e <= ?"


@pytest.mark.parametrize(("encoding", "written"), [("ascii", b"-0.5 e"), ("cp1252", b"-0.5 \xe9")])
def test_a_terminal_gets_its_own_encoding(encoding, written, monkeypatch):
    """Of click too, which writes UTF-8 where it thinks that ASCII is a mistake."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    print_anywhere(stream)
    click.echo("−0.5 é")
    stream.flush()
    assert stream.buffer.getvalue().splitlines() == [written]


def test_help_fits_forty_columns(byrote):
    said = byrote("help", "check", COLUMNS="40").stdout
    body = [line for line in said.splitlines() if not line.startswith("  byrote check")]
    assert max(map(len, body)) <= 40 and "\n  --expect FILE\n        The gate" in said


def test_settings_that_nothing_reads_are_said(byrote, planted_results):
    run = planted_results / "planted"
    done = byrote("show", run, BYROTE_SHOW_TOPP="3", BYROTE_SHWO_TOP="3", BYROTE_RUN_SEED="1")
    assert done.exit_code == 0
    assert "BYROTE_SHOW_TOPP is set, but no option reads it; did you mean 'BYROTE_SHOW_TOP'?" in done.stderr
    assert "BYROTE_SHWO_TOP is set, but nothing reads it" in done.stderr
    assert "BYROTE_RUN_SEED" not in done.stderr and "BYROTE_STATE" not in done.stderr


def test_progress_as_json_is_json_alone(byrote, planted_runs):
    words = ["run", planted_runs, "-p", "previous_token", "--sequences", "16", "-o", "new", "--progress"]
    for args in ([*words, "jsonl"], [*words, "jsonl", "-v"], [*words, "jsonl", "--device", "nope"]):
        done = byrote(*args, BYROTE_NOTHING="1")
        lines = [json.loads(line) for line in done.stderr.splitlines()]
        assert all("event" in line for line in lines)
        assert {"event": "warning", "text": lines[0]["text"]} == lines[0]
    assert lines[-1] == {"event": "error", "error": lines[-1]["error"], "help": lines[-1]["help"], "exit": 2}
    refused = byrote("run", "nowhere", BYROTE_RUN_PROGRESS="jsonl")
    assert json.loads(refused.stderr)["event"] == "error"
    assert Session(("run", "--progress=jsonl", "--typo")).says_json


def test_an_estimate_counts_work_alone():
    pace = Pace(range(10), stored=range(4))
    for step in range(4):
        pace.done(step, 0.01, worked=False)
        assert pace.eta_s is None and pace.s_per_checkpoint == 0
    for left, step in enumerate(range(4, 10)):
        pace.done(step, 2.0, worked=True)
        assert pace.eta_s == pytest.approx(2.0 * (5 - left)) and pace.s_per_checkpoint == 2.0
    more = Pace(range(4), stored=range(4))  # a probe more: stored steps take what the first of them took
    more.done(0, 3.0, worked=True)
    assert more.eta_s == pytest.approx(9.0)


def test_an_estimate_of_sweeps_side_by_side():
    under_way = {0: {"s_per_checkpoint": 2.0, "eta_s": 8.0}, 1: {"s_per_checkpoint": 4.0, "eta_s": 4.0}}
    assert _pace_of_all(under_way, [5, 5, 10], n_at_once=2) == {
        "s_per_checkpoint": 3.0,
        "eta_s": (12 + 30) / 2,
    }
    under_way[1]["eta_s"] = None
    assert _pace_of_all(under_way, [5, 5, 10], n_at_once=2)["eta_s"] is None


def test_a_resumed_sweep_estimates_from_what_it_measures(byrote, planted_runs):
    words = ["run", planted_runs / "planted", "-p", "previous_token", "--sequences", "16", "-o", "eta"]
    assert byrote(*words, "--steps", "0,10").exit_code == 0
    done = byrote(*words, "--progress", "jsonl")
    events = [line for line in map(json.loads, done.stderr.splitlines()) if line["event"] == "checkpoint"]
    assert [event["measured"] for event in events] == [0, 0, 1]
    assert [event["eta_s"] for event in events] == [None, None, 0]


@pytest.mark.parametrize(
    ("shell", "place"),
    [
        ("bash", "data/bash-completion/completions/byrote"),
        ("zsh", "data/zsh/site-functions/_byrote"),
        ("fish", "config/fish/completions/byrote.fish"),
    ],
)
def test_completion_is_installed_where_the_shell_looks(byrote, tmp_path, monkeypatch, shell, place):
    monkeypatch.setattr(BashComplete, "_check_version", staticmethod(lambda: None))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    printed = byrote("completion", shell).stdout
    assert "_BYROTE_COMPLETE" in printed
    done = byrote("completion", "--install", SHELL=f"/bin/{shell}")
    assert done.exit_code == 0 and done.stdout.strip() == str(tmp_path / place)
    assert (tmp_path / place).read_text().strip() == printed.strip()
    assert ("fpath+=" in done.stderr) == (shell == "zsh")


def test_completion_after_help_lists_verbs():
    for words, incomplete, found in ((["help"], "compl", ["completion"]), (["rnu"], "compa", ["compare"])):
        completed = BashComplete(cli, {}, "byrote", "_BYROTE_COMPLETE").get_completions(words, incomplete)
        assert [item.value for item in completed] == found


def test_completion_of_an_unknown_shell(byrote):
    assert "there is no completion for 'tcsh'" in byrote("completion", SHELL="/bin/tcsh").stderr


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("byrote sh", "show"),
        ("byrote lab tr", "train"),
        ("byrote run -p prefix_m", "prefix_matching"),
        ("byrote show results -p induction,prefix_m", "induction,prefix_matching"),
        ("byrote compare --al", "--align"),
        ("byrote show results/mi", "results/mi"),
        ("byrote run runs/", "runs/"),
    ],
)
def test_the_shell_completes(line, found):
    words = line.split()
    env = {
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_BYROTE_COMPLETE": "bash_complete",
        "BYROTE_X": "1",
    }
    done = CliRunner().invoke(cli, [], env=env)
    kind = "file" if "/" in found else "plain"  # of files, the shell finds the names
    assert f"{kind},{found}" in done.output.splitlines()


def cpu_s(*command: str) -> float:
    """Processor seconds of a command, the least of three."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds)


@pytest.mark.processes
def test_a_verb_without_torch_costs_little_more_than_its_libraries(planted_results):
    libraries = cpu_s("-c", "import pandas, pyarrow.parquet")
    run = str(planted_results / "planted")
    assert cpu_s("-m", "byrote", "show", run) < 2 * libraries + 0.2
    assert cpu_s("-m", "byrote", "doctor") < 1.2 * libraries
    assert cpu_s("-m", "byrote", "completion", "zsh") < 0.8 * libraries


START_UP = {  # what a verb imports before it works -> processor time, in that of pandas and pyarrow, and what stays out
    "byrote.cli.main": (0.8, ["pandas", "numpy"]),  # help, completion, doctor, probes
    "byrote.report.changes": (1.0, ["pandas", "plotly"]),  # report OLD NEW
    "byrote.probes.results.table": (2.0, ["plotly"]),  # show, check
    "byrote.probes.degradation": (2.4, ["plotly"]),  # compare
    "byrote.probes.verify": (2.6, ["plotly"]),
    "byrote.report.files": (3.2, ["byrote.probes.claims"]),
    "byrote.dashboard.play": (3.4, ["byrote.probes.claims"]),  # export
}


@pytest.mark.processes
@pytest.mark.parametrize("module", START_UP)
def test_what_needs_no_torch_starts_without_what_only_work_needs(run_python, module):
    never = ["torch", "transformer_lens", "transformers", "scipy", "streamlit", *START_UP[module][1]]
    code = f"import sys, {module}; print([name for name in {never} if name in sys.modules])"
    assert run_python(code) == "[]"


@pytest.mark.processes
@pytest.mark.parametrize("module", START_UP)
def test_start_up_takes_less_than_a_second_of_the_processor(module):
    libraries = cpu_s("-c", "import pandas, pyarrow.parquet")  # 0.4 s where the others were measured
    assert cpu_s("-c", f"import {module}") < START_UP[module][0] * libraries


def test_show_imports_what_it_shows_alone(run_python, planted_results):
    code = """
import sys
from click.testing import CliRunner
from byrote.cli.main import cli
assert CliRunner().invoke(cli, ["show", sys.argv[1]]).exit_code == 0
print([m for m in ("torch", "scipy", "plotly", "transformers", "streamlit") if m in sys.modules])
assert CliRunner().invoke(cli, ["doctor"]).exit_code == 0
print([m for m in ("torch", "scipy", "plotly", "transformers", "streamlit") if m in sys.modules])
"""
    assert run_python(code, str(planted_results / "planted")) == "[]\n[]"
