"""`byrote scan`, `byrote run` and `byrote lab train` as a person calls them: what they print, write and exit with."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from byrote.checkpoints.lab.recipes import RECIPES
from byrote.checkpoints.lab.sources import SOURCES
from byrote.cli.progress import Work, make_progress
from byrote.cli.session import Session

FEW = ("-p", "previous_token", "--sequences", "8")
HOSTILE = "evil\x1b[31mred\x07"


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def cut_short(series: Path, step: int) -> None:
    """A copy that broke off."""
    file = series / f"step_{step:08d}" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def units_of(results: Path) -> dict[str, bytes]:
    """Everything that holds numbers, byte for byte."""
    return {str(p.relative_to(results)): p.read_bytes() for p in sorted(results.rglob("*.parquet"))}


# scan


def test_scan_lists_every_step(byrote, planted_runs):
    done = byrote("scan", planted_runs / "planted")
    assert done.exit_code == 0
    rows = rows_of(done.stdout)
    assert [row["step"] for row in rows] == ["0", "10", "20"]
    assert [row["tokens_seen"] for row in rows] == ["0", "1000", "2000"]
    assert [row["loss_nats"] for row in rows] == ["4.0", "3.0", "2.0"]
    assert {row["run"] for row in rows} == {"planted"}
    assert {row["readable"] for row in rows} == {"true"}
    size = (planted_runs / "planted/step_00000010/model.safetensors").stat().st_size
    assert {row["size_bytes"] for row in rows} == {str(size)}


def test_scan_of_a_folder_of_runs_and_of_a_glob(byrote, planted_runs):
    whole = byrote("scan", planted_runs, "--json")
    assert {row["run"] for row in json.loads(whole.stdout)} == {"planted", "random"}
    assert byrote("scan", f"{planted_runs}/*", "--json").stdout == whole.stdout


def test_scan_shows_what_cannot_be_read(byrote, series_copy):
    series = series_copy()
    cut_short(series, 10)
    done = byrote("scan", series, "--json")
    assert done.exit_code == 0
    broken = [row for row in json.loads(done.stdout) if not row["readable"]]
    assert [(row["step"], row["size_bytes"]) for row in broken] == [(10, None)]
    assert "truncated" in broken[0]["reason"] and broken[0]["help"]
    assert "truncated" in done.stderr
    table = byrote("scan", series, "-t").stdout
    assert "2 checkpoints" in table and "1 gap" in table and "NO" in table


def test_scan_says_when_one_run_of_several_is_broken(byrote, series_copy):
    series_copy("planted", "runs/good")
    bad = series_copy("random", "runs/bad")
    for step in (0, 10, 20):
        cut_short(bad, step)
    done = byrote("scan", "runs")
    assert done.exit_code == 3
    assert {row["run"] for row in rows_of(done.stdout)} == {"planted"}
    assert "bad" in done.stderr and "truncated" in done.stderr


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("empty", 4, "no checkpoints found in empty"),
        ("nothing-*", 4, "matches no folder"),
        ("nowhere", 2, "nowhere does not exist"),
        ("file.txt", 2, "is a file, not a folder"),
        ("unreadable", 4, "none of the 3 checkpoint folders"),
    ],
)
@pytest.mark.parametrize("verb", ["scan", "run"])
def test_nothing_there_and_not_there_differ(byrote, series_copy, verb, path, code, message):
    Path("empty").mkdir()
    Path("file.txt").write_text("x")
    series = series_copy(name="unreadable")
    for step in (0, 10, 20):
        cut_short(series, step)
    done = byrote(verb, path)
    assert done.exit_code == code, done.stderr
    assert message in done.stderr
    assert "help: " in done.stderr
    assert done.stdout == ""


def test_a_hostile_name_is_printed_safely(byrote, series_copy):
    series = series_copy()
    manifest = json.loads((series / "manifest.json").read_text())
    (series / "manifest.json").write_text(json.dumps({**manifest, "name": HOSTILE, "status": "running"}))
    for form in ("-t", "--csv", "--json"):
        done = byrote("scan", series, form)
        assert done.exit_code == 0
        assert "\x1b" not in done.output and "\x07" not in done.output
    assert json.loads(byrote("scan", series, "--json").stdout)[0]["run"] == HOSTILE


# run


def test_run_prints_the_path_and_a_summary(byrote, planted_runs):
    done = byrote("run", planted_runs / "planted", "-p", "induction", "-p", "repeat_loss", "-p", "previous_token",
                "--sequences", "16", "--steps", "last")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "results/planted\n"
    said = done.stderr
    assert "planted: 1/1 · step 20 · " in said and "ETA 0:00" in said
    assert "2 induction heads at step 20: L1H0 1.00 [0.79, 1.00], L1H1 " in said
    assert "previous-token heads: L0H0 1.00 " in said
    assert "nats after the first block" in said
    assert said.splitlines()[-1] == "next: byrote report results/planted"


def test_fewer_than_16_sequences_give_no_verdict_and_the_reason_is_named_once(byrote, planted_runs):
    done = byrote("run", planted_runs / "planted", "-p", "induction", "--sequences", "8", "--steps", "last")
    assert done.exit_code == 0, done.stderr
    reason = "no verdict on fewer than 16 sequences, and there were 8: give --sequences 16 or more"
    assert [line for line in done.stderr.splitlines() if reason in line] == [
        f"planted: not measured: induction (on_sink_free, unmet, verdict): {reason}"
    ]
    assert "induction head" not in done.stderr
    events = byrote("show", "results/planted", "--json")
    rows = [row for row in json.loads(events.stdout) if row["probe"] == "induction"]
    assert {row["metric"] for row in rows if row["value"] is None} <= {"verdict", "unmet", "on_sink_free"}


def test_what_holds_of_several_runs_is_said_once(byrote, planted_runs):
    done = byrote("run", planted_runs, "-p", "induction", "--sequences", "8", "--steps", "last")
    assert done.exit_code == 0, done.stderr
    missing = [line for line in done.stderr.splitlines() if "not measured" in line]
    assert len(missing) == 1 and missing[0].startswith("both runs: not measured: induction (")


def test_a_second_run_measures_nothing_and_says_so(byrote, planted_results, planted_runs, tmp_path):
    import shutil

    out = Path(shutil.copytree(planted_results, tmp_path / "again"))
    before = units_of(out / "planted")
    probes = ("-p", "induction", "-p", "previous_token", "-p", "repeat_loss", "-p", "ov_copying")
    done = byrote(
        "run", planted_runs / "planted", planted_runs / "random", *probes, "--sequences", "16", "-o", out
    )
    assert done.exit_code == 0
    assert "planted: nothing new to measure: 12 units already stored" in done.stderr
    assert "random: no induction heads at step 20" in done.stderr
    assert f"next: byrote compare {out}/planted {out}/random" in done.stderr
    assert f"next: byrote report {out}/planted {out}/random --base planted" in done.stderr
    assert units_of(out / "planted") == before


def test_dry_run_counts_what_a_run_then_does(byrote, planted_runs):
    args = ("run", planted_runs / "planted", *FEW, "-p", "ov_copying")
    planned = byrote(*args, "--dry-run")
    assert planned.exit_code == 0
    counted, cost = planned.stdout.splitlines()
    assert counted == (
        "results/planted: 3 checkpoints (steps 0-20), 6 units to measure, 0 already stored, 3 forward passes"
    )
    assert re.fullmatch(
        r"results/planted: about 0:\d\d and [\d.]+ KB, as steps 10 and 20 took; [\d,]+ sequences shown to the model for each checkpoint",
        cost,
    )
    shown = int(re.search(r"; (\d+) sequences", cost)[1])
    assert 8 <= shown <= 12  # one pass over 8; a few more see to it that swapping weights is exact
    assert not Path("results").exists()
    assert byrote(*args, "--steps", "0").exit_code == 0
    before = units_of(Path("results"))
    assert "4 units to measure, 2 already stored, 2 forward passes" in byrote(*args, "--dry-run").stdout
    assert "6 units to measure, 0 already stored" in byrote(*args, "--dry-run", "--fresh").stdout
    assert "6 units to measure, 0 already stored" in byrote(*args, "--dry-run", "--seed", "1").stdout
    assert units_of(Path("results")) == before
    assert "4 units measured, 2 reused" in byrote(*args, "-v").stderr
    promised = float(re.search(r"and ([\d.]+) KB", cost)[1]) * 1000
    stored = sum(file.stat().st_size for file in Path("results").rglob("*.parquet"))
    assert 0.6 * stored < promised < 1.6 * stored
    assert "0 units to measure, 6 already stored, 0 forward passes" in byrote(*args, "--dry-run").stdout


def test_gaps_are_listed_and_exit_3(byrote, series_copy):
    cut_short(series_copy(), 10)
    done = byrote("run", "copy", *FEW)
    assert done.exit_code == 3
    assert done.stdout == "results/planted\n"
    assert (
        "planted: 1 gap in 3 checkpoints:\n  step 10: half-written: model.safetensors is truncated"
        in done.stderr
    )
    assert json.loads(Path("results/planted/run.json").read_text())["status"] == "partial"
    assert byrote("run", "copy", *FEW, "--allow-partial").exit_code == 0
    assert "truncated" in byrote("run", "copy", *FEW, "-q").stderr


def test_fail_fast_stops_at_a_step_that_cannot_be_measured(byrote, series_copy):
    series = series_copy()
    config = json.loads((series / "config.json").read_text())
    (series / "config.json").write_text(json.dumps({**config, "n_heads": 7}))
    stopped = byrote("run", series, *FEW, "--fail-fast")
    assert stopped.exit_code == 2
    assert stopped.stdout == ""
    assert stopped.stderr.count("error: ") == 1
    assert byrote("run", series, *FEW).exit_code == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-p", "prefix_matchin"), "did you mean 'prefix_matching'?"),
        (("--steps", "5"), "nearest are 0 and 10; or use nearest:5"),
        (("--device", "tpu"), "use cpu, cuda, cuda:N or mps"),
        (("--device", "cuda:99"), "use the device cpu"),
        (("--dtype", "float16"), "byrote run -h"),
        (("--sequences", "0"), "byrote run -h"),
    ],
)
def test_typos_stop_before_any_work(byrote, planted_runs, args, message):
    done = byrote("run", planted_runs, *args)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not Path("results").exists()


def test_progress_as_json_lines(byrote, planted_runs):
    done = byrote("run", planted_runs / "planted", *FEW, "--progress", "jsonl", "-q")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["done"] for event in events if event["event"] == "checkpoint"] == [1, 2, 3]
    assert {event["run"] for event in events} == {"planted"}
    assert {"total", "step", "eta_s"} <= events[0].keys()


def test_quiet_says_nothing(byrote, planted_runs):
    done = byrote("run", planted_runs / "planted", *FEW, "-q")
    assert done.exit_code == 0
    assert done.stderr == ""


# Ctrl-C


def test_ctrl_c_finishes_the_checkpoint_and_the_same_command_goes_on(byrote, planted_runs, monkeypatch):
    whole = byrote("run", planted_runs / "planted", *FEW, "-o", "whole")
    assert whole.exit_code == 0

    def interrupting(mode: str, session: Session, *, label: str):
        progress = make_progress("none", session, label=label)
        monkeypatch.setattr(progress, "event", lambda event: os.kill(os.getpid(), signal.SIGINT))
        return progress

    args = ("run", planted_runs / "planted", planted_runs / "random", *FEW)
    with monkeypatch.context() as patch:
        patch.setattr("byrote.cli.progress.make_progress", interrupting)
        stopped = byrote(*args, "--fresh")
    assert stopped.exit_code == 130
    assert stopped.stdout == ""
    assert "finishing this checkpoint; Ctrl-C again stops at once" in stopped.stderr
    resume = stopped.stderr.splitlines()[-1]
    assert resume.startswith("resume: byrote run ") and "--fresh" not in resume
    assert json.loads(Path("results/planted/run.json").read_text())["status"] == "interrupted"
    assert len(units_of(Path("results/planted"))) == 1 + 1  # the first step's unit, and the observations
    assert not Path("results/random").exists()

    assert byrote(*args).exit_code == 0
    assert units_of(Path("results/planted")) == units_of(Path("whole/planted"))


def test_second_ctrl_c_stops_at_once(capsys):
    before = signal.getsignal(signal.SIGINT)  # a job started in the background ignores it
    with Work("none", Session(), "a run", promise="finishing") as work:
        signal.raise_signal(signal.SIGINT)
        assert work.stopping and capsys.readouterr().err == "finishing; Ctrl-C again stops at once\n"
        with pytest.raises(KeyboardInterrupt):
            work.event({"event": "checkpoint"}, last=False)
        work.event({"event": "checkpoint"}, last=True)  # nothing is left to stop
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


# lab


TINY = ("--steps", "6", "--every", "2", "--batch", "4", "--d-model", "16", "--heads", "2", "--layers", "1")


def test_lab_train_writes_a_series_that_scan_reads(byrote):
    done = byrote("lab", "train", "runs/tiny", *TINY, "--arm", "repeated", "--pool", "4", "--norm", "ln")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "runs/tiny\n"
    assert "tiny: 6/6 steps · train loss " in done.stderr
    assert done.stderr.splitlines()[-1] == "next: byrote run runs/tiny"
    assert [row["step"] for row in rows_of(byrote("scan", "runs/tiny").stdout)] == ["0", "1", "2", "4", "6"]
    manifest = json.loads(Path("runs/tiny/manifest.json").read_text())
    assert manifest["arm"]["kind"] == "repeated" and manifest["arm"]["repeat_frac"] == 0.5
    assert manifest["arm"]["pool_size"] == 4
    assert (manifest["model"]["d_head"], manifest["model"]["normalization_type"]) == (8, "LN")
    again = byrote("lab", "train", "runs/tiny", *TINY, "--arm", "repeated", "--pool", "4", "--norm", "ln")
    assert again.exit_code == 0
    assert "already complete: 6 steps" in again.stderr


def test_lab_train_starts_from_a_recipe_and_what_is_typed_goes_first(byrote):
    words = (
        "--recipe",
        "tiled-small",
        "--size",
        "d24",
        "--steps",
        "2",
        "--lr",
        "0.5",
        "--heads",
        "2",
        "--norm",
        "none",
    )
    assert byrote("lab", "train", "one", *words, "--source-set", "block_max=8").exit_code == 0
    manifest = json.loads(Path("one/manifest.json").read_text())
    recipe = RECIPES["tiled-small"]
    assert {"d_model": 24, "d_head": 12, "n_heads": 2, "n_layers": 2}.items() <= manifest["model"].items()
    assert manifest["model"]["init_std"] == pytest.approx(0.8 / 24**0.5)
    assert {"lr": 0.5, "steps": 2, "batch": recipe.batch, "betas": [0.9, 0.98]}.items() <= manifest[
        "train"
    ].items()
    assert manifest["data"]["block_max"] == 8 and manifest["data"]["block_min"] == recipe.source.block_min
    other = byrote(
        "lab", "train", "two", "--recipe", "tiled-small", "--source", "names", "--steps", "2", "--batch", "4"
    )
    assert other.exit_code == 0, other.stderr
    assert json.loads(Path("two/manifest.json").read_text())["data"]["source"] == "names"


def test_lab_recipes_says_what_each_is_for_and_where_it_misleads(byrote):
    rows = {(row["kind"], row["name"]): row for row in json.loads(byrote("lab", "recipes", "--json").stdout)}
    assert {name for kind, name in rows if kind == "recipe"} == set(RECIPES)
    assert {name for kind, name in rows if kind == "source"} == set(SOURCES)
    assert len([name for kind, name in rows if kind == "size"]) >= 5
    assert all(row["purpose"] for row in rows.values())
    assert "without prefix matching" in rows["recipe", "tiled-small"]["trap"]
    assert json.loads(rows["recipe", "names"]["settings"])["data"]["source"] == "names"


def test_lab_train_stops_at_a_written_step(byrote, monkeypatch):
    def interrupting(mode: str, session: Session, *, label: str):
        progress = make_progress("none", session, label=label)
        monkeypatch.setattr(progress, "event", lambda event: os.kill(os.getpid(), signal.SIGINT))
        return progress

    with monkeypatch.context() as patch:
        patch.setattr("byrote.cli.progress.make_progress", interrupting)
        stopped = byrote("lab", "train", "tiny", *TINY)
    assert stopped.exit_code == 130
    assert "resume: byrote lab train tiny --steps 6" in stopped.stderr
    assert [row["step"] for row in rows_of(byrote("scan", "tiny").stdout)] == ["0"]
    assert byrote("lab", "train", "tiny", *TINY).exit_code == 0
    assert len(rows_of(byrote("scan", "tiny").stdout)) == 5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--heads", "5"), "5 heads do not divide a width of 64"),
        (("--arm", "unique", "--pool", "4"), "the unique arm repeats nothing"),
        (("--arm", "repeated", "--repeat-frac", "2"), "repeat_frac is 2.0"),
        (("--steps", "0"), "steps is 0"),
        (("--arm", "twice"), "byrote lab train -h"),
        (("--recipe", "tiled"), "byrote lab train -h"),
        (("--source", "nmes"), "did you mean 'names'"),
        (("--source", "names", "--bigram-frac", "0.5"), "no setting 'bigram_frac'"),
        (("--source-set", "block_max"), "write NAME=VALUE"),
        (("--source-set", "block_max=many"), "which is not of type int"),
        (("--dropout", "1"), "dropout is 1.0"),
        (("--architecture", "llama", "--norm", "ln"), "use RMS, the norm of llama"),
    ],
)
def test_lab_train_refuses_what_cannot_be(byrote, args, message):
    done = byrote("lab", "train", "x", *args)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not Path("x").exists()


# shards and engines


def test_shards_typed_one_by_one_end_in_the_same_results(byrote, planted_runs, tmp_path):
    words = ("run", planted_runs / "planted", *FEW)
    assert byrote(*words, "-o", tmp_path / "whole").exit_code == 0
    for shard in ("2/2", "1/2"):
        done = byrote(*words, "-o", tmp_path / "parts", "--shard", shard)
        assert (done.exit_code, done.stdout.split()) == (0, [str(tmp_path / "parts" / "planted")])
        assert ("other shards are not measured yet" in done.stderr) == (shard == "2/2")
        assert "next:" not in done.stderr
    assert units_of(tmp_path / "parts") == units_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--shard", "0/2"), "'0/2' is not a shard"),
        (("--shard", "1/2", "--jobs", "2"), "--shard measures one part"),
        (("--shard", "1/2", "--engine", "local"), "--shard measures one part"),
        (("--shard", "1/2", "--fresh"), "leave --fresh out"),
        (("--engine", "local", "--engine-option", "address=x"), "the engine local has no options"),
        (("--engine", "ray", "--engine-option", "address"), "is not NAME=VALUE"),
    ],
)
def test_what_shards_and_engines_refuse(byrote, planted_runs, tmp_path, words, said):
    done = byrote("run", planted_runs / "planted", *FEW, "-o", tmp_path, *words)
    assert done.exit_code == 2 and said in done.stderr and "help:" in done.stderr
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "planted"])


@pytest.mark.parametrize(("engine", "extra"), [("ray", "ray"), ("slurm", "slurm")])
def test_an_engine_that_is_not_installed_says_how_to_install_it(
    byrote, planted_runs, tmp_path, monkeypatch, engine, extra
):
    monkeypatch.setitem(sys.modules, {"ray": "ray", "slurm": "submitit"}[engine], None)
    done = byrote("run", planted_runs / "planted", *FEW, "-o", tmp_path, "--engine", engine)
    assert done.exit_code == 2 and f"pip install 'byrote[{extra}]'" in done.stderr
