"""What probes say of their passes, read by a machine and held against the passes that they make."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from byrote.checkpoints import open_series
from byrote.checkpoints.lab.planted import HeadSpec, PlantedConfig, write_planted
from byrote.cli.main import cli
from byrote.interp.loading import load_fresh
from byrote.interp.model import counting_passes
from byrote.probes.registry import REGISTRY
from byrote.probes.stimuli import Vocabulary, make
from byrote.probes.sweep.measure import measure_once
from byrote.probes.sweep.pass_counts import count_passes

N_SEQ = 8
OFTEN = [info for info in REGISTRY.values() if info.kind == "direct"]


@pytest.mark.parametrize(
    ("words", "n"),
    [
        ("1", 1),
        ("none: weights alone", 0),
        ("3 x layers + heads + 1", 3 * 30 + 270 + 1),
        ("at most 33 x (layers + 1) + 4 x layers + 6, over 32 members", 33 * 31 + 126),
        ("up to 1,070: sets of heads", 1070),
        ("about 3 x (3 x layers + heads + 1) + 1: as many for each task", 3 * 361 + 1),
        ("many", None),
        ("4 x", None),
        ("4 x (layers", None),
        ("per task: 3", None),
    ],
)
def test_words_as_numbers(words, n):
    assert count_passes(words, layers=30, heads=270) == n


def test_every_probe_of_byrotes_own_says_a_number():
    assert OFTEN
    for info in OFTEN:
        assert count_passes(info.passes, layers=2, heads=8) is not None, info.name


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    other = HeadSpec("previous", writes="previous")
    heads = (
        (other, HeadSpec("duplicate")),
        (HeadSpec("prefix", writes="output"), HeadSpec("uniform", strength_nats=0.0)),
    )
    config = PlantedConfig(d_vocab=48, n_ctx=64, offset=14, heads=heads)
    return write_planted(tmp_path_factory.mktemp("planted") / "planted", config)


@pytest.mark.parametrize(
    "name", ["ablation", "token_copying", "clamp", "heads_only", "pruned_heads", "load_bearing"]
)
def test_they_are_about_the_passes_that_it_makes(planted, name):
    info, model = REGISTRY[name], load_fresh(open_series(planted)[0])
    ids = Vocabulary(np.arange(1, 48), 0)
    stimuli = {kind: make(kind, ids, n_ctx=64, seed=0, n_seq=N_SEQ) for kind in info.stimuli}
    with counting_passes() as shown:
        measure_once(model, info, stimuli=stimuli, seed=0)
    made = sum(shown.rows) / N_SEQ
    said = count_passes(info.passes, layers=2, heads=4)
    at_most = info.passes.startswith(("at most", "up to"))
    assert made <= said * 1.5 + 2 and (at_most or made >= said / 2), (made, said)


def test_a_dry_run_counts_them_and_measures_none(planted, tmp_path, monkeypatch):
    measured = []

    def measure(model, group, shown):
        measured.append(group.key)
        return real(model, group, shown)

    from byrote.probes.sweep import measure as module

    real = module.measure_group
    monkeypatch.setattr(module, "measure_group", measure)
    words = ["run", str(planted), "-p", "ablation", "-p", "previous_token", "--sequences", "8", "--dry-run"]
    done = CliRunner().invoke(cli, [*words, "-o", str(tmp_path / "r")])
    assert done.exit_code == 0
    assert set(measured) == {"repeated_random", "shuffled_repeat"} or set(measured) == {"repeated_random"}
    n = count_passes(REGISTRY["ablation"].passes, layers=2, heads=4)
    assert f"counted and not tried: ablation {n} passes" in done.output
    assert not (tmp_path / "r").exists()


def test_a_trace_is_on_disk_while_the_sweep_goes_on(planted, tmp_path, monkeypatch):
    """At the second measurement the file has the first; what was interrupted has its lines too."""
    from byrote.probes.sweep import measure as module

    real, file, seen = module.measure_group, tmp_path / "trace.jsonl", []

    def measure(model, group, shown):
        if seen:
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            assert lines[-1]["what"] == f"measure {seen[-1]}" and lines[-1]["run"] == "planted"
            raise KeyboardInterrupt
        seen.append(group.key)
        return real(model, group, shown)

    monkeypatch.setattr(module, "measure_group", measure)
    words = ["run", str(planted), "-p", "repeat_loss", "--sequences", "8", "-o", str(tmp_path / "r")]
    done = CliRunner().invoke(cli, [*words, "--trace", str(file), "--progress", "none"])
    assert done.exit_code == 130
    assert {"read", "load"} <= {json.loads(line)["what"] for line in file.read_text().splitlines()}
