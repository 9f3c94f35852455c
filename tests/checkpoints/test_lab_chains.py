"""Chains of arms in a grid, ReST-EM, members that runs share, and runs whose generator was trained again."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file
from small_runs import BASE, SOURCE

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab import Arm, train
from byrote.checkpoints.lab.arms.members import Subsets
from byrote.checkpoints.lab.arms.rest_em import RestEM
from byrote.checkpoints.lab.arms.synthetic import Synthetic, chain
from byrote.checkpoints.lab.as_written import hash_of
from byrote.checkpoints.lab.batches import places_of
from byrote.checkpoints.lab.expectation_maximisation import chosen_rows, reward_from
from byrote.checkpoints.lab.grid_chains import unchained
from byrote.checkpoints.lab.grid_training import GRID, status, train_grid
from byrote.checkpoints.lab.inputs import make_inputs
from byrote.checkpoints.lab.other_run import open_run
from byrote.checkpoints.lab.run_grid import grid_from
from byrote.checkpoints.lab.selection import scores_of
from byrote.checkpoints.lab.source import ArmStream, draw
from byrote.cli.main import cli

# Chains.


def test_a_chain_is_written_out_and_compared_iteration_by_iteration():
    tables = {
        "human": {"kind": "unique"},
        "rest": {
            "kind": "rest_em", "base": "human", "generator": "human", "iterations": 3, "control": "random", "corpus": 8,
        },
        "random": {
            "kind": "rest_em", "base": "human", "generator": "human", "iterations": 2, "control": "human", "corpus": 8,
            "accepted": "random",
        },
        "student": {"kind": "synthetic", "generator": "rest", "control": "human"},
        "mixed": {
            "parts": [
                {"kind": "generation", "share": 0.5, "corpus": 8, "generator": "human"},
                {"kind": "epochs", "share": 0.5, "corpus": 8},
            ],
            "iterations": 2, "control": "human",
        },
    }  # fmt: skip
    found = unchained(tables)
    assert list(found) == [
        "human", "rest-g1", "rest-g2", "rest-g3", "random-g1", "random-g2", "student", "mixed-g1", "mixed-g2",
    ]  # fmt: skip
    said = {
        name: (table.get("generator"), table.get("generation"), table.get("control"))
        for name, table in found.items()
    }
    assert said["rest-g1"] == ("human", 1, "random-g1")
    assert said["rest-g2"] == ("rest-g1", 2, "random-g2")
    assert said["rest-g3"] == ("rest-g2", 3, "random-g2")  # its control has no third
    assert said["student"] == ("rest-g3", None, "human")
    assert [part.get("generator") for part in found["mixed-g2"]["parts"]] == ["mixed-g1", None]
    assert [part.get("generation") for part in found["mixed-g2"]["parts"]] == [2, None]

    named = {"kind": "generation", "generator": "human", "regime": "accumulate", "corpus": 8, "iterations": 3}
    by_hand = chain("accumulate", first="human", n=3, corpus=8)
    assert unchained({"accumulate": named}) == by_hand

    grid = grid_from({"recipe": "tiled-small", "seeds": 2, "settings": {"steps": 40}, "arms": tables})
    waves = [
        sorted({grid.plan().runs[k].arm for stack in wave for k in stack}) for wave in grid.plan().waves()
    ]
    assert (
        waves[0] == ["human"]
        and waves[-1] == ["student"]
        and waves[2] == ["mixed-g2", "random-g2", "rest-g2"]
    )


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ({"a": {"kind": "generation", "generator": "b", "iterations": 0}}, "iterations of [arms.a] is '0'. write 1 to 100"),
        ({"a": {"kind": "generation", "generator": "b", "iterations": True}}, "is 'True'"),
        ({"a": {"kind": "noisy", "iterations": 2}}, "made from the iteration before. these are: generation, rest_em"),
        ({"a": {"parts": "all", "iterations": 2}}, "made from the iteration before"),
        (
            {"a": {"kind": "generation", "generator": "b", "iterations": 2}, "a-g2": {"kind": "unique"}},
            "makes an arm 'a-g2', which the grid has already",
        ),
    ],
)  # fmt: skip
def test_what_is_no_chain_is_refused(arms, said):
    with pytest.raises(ByroteError) as refused:
        grid_from({"recipe": "tiled-small", "arms": {"b": {"kind": "unique"}, **arms}})
    assert said in str(refused.value)


# ReST-EM.


def test_an_iteration_begins_with_the_base_and_is_trained_on_what_the_reward_accepts(runs):
    first = RestEM(
        0.5,
        6,
        base="../human",
        generator="../human",
        candidates=8,
        quantile=0.1,
        score="table",
        reference="real",
    )
    config = replace(BASE, arm=Arm.of(first), name="rest")
    path = train(runs / "rest", config)
    base, manifest = (json.loads((one / "manifest.json").read_text()) for one in (runs / "human", path))
    assert manifest["checkpoints"][0]["weights"] == base["checkpoints"][-1]["weights"]
    (said,) = manifest["inputs"]
    assert said["base"] == said["generator"] and said["base"]["weights"] == base["checkpoints"][-1]["weights"]
    tokens = load_file(path / "data/inputs.safetensors")["0.tokens"].astype(np.int64)
    scores = scores_of("table", tokens, source=SOURCE, seed=0)
    assert (scores >= said["reward_from"]).all() and len(tokens) <= 6
    (places,) = places_of(SOURCE, config.arm, seed=0, batch=4, steps=12)
    assert said["reward_from"] == reward_from(first, places, open_run(runs / "human", like=SOURCE))
    real = np.sort(
        scores_of("table", draw(SOURCE, seed=0, stream="pool", index=0, n=4096).wide, source=SOURCE, seed=0)
    )
    assert said["reward_from"] == real[409]
    assert 0 < said["accepted_frac"] < 1 and manifest["arm"]["generation"] == 1
    shown = ArmStream(
        SOURCE, config.arm, seed=0, batch=4, steps=12, inputs=lambda: {"0.tokens": tokens}
    ).batches(0, 12)
    assert {row.tobytes() for row in shown[:, 2:].reshape(-1, 9)} == {row.tobytes() for row in tokens}

    again = replace(BASE, arm=Arm.of(replace(first, generator="../rest", generation=2)), name="rest-2")
    second = json.loads((train(runs / "rest-2", again) / "manifest.json").read_text())
    assert second["checkpoints"][0]["weights"] == base["checkpoints"][-1]["weights"]  # anew from the base
    assert second["inputs"][0]["generator"]["weights"] == manifest["checkpoints"][-1]["weights"]
    with pytest.raises(ByroteError, match="is iteration 1, but this arm is declared as iteration 1"):
        train(runs / "no", replace(again, arm=Arm.of(replace(first, generator="../rest")), name="no"))


def test_the_reward_accepts_what_is_as_good_as_half_of_what_the_base_writes(runs):
    part = RestEM(0.5, 24, base="../human", generator="../human", candidates=40, score="table")
    arm = Arm.of(part)
    arrays, (said,) = make_inputs(replace(BASE, arm=arm), runs / "rest")
    assert said["accepted_frac"] == pytest.approx(0.5, abs=0.08)  # of other samples of the same model
    assert len(arrays["0.tokens"]) == 24 and said["mean_score_chosen"] > said["mean_score_drawn"]
    strict = replace(BASE, arm=Arm.of(replace(part, quantile=0.9)))
    assert make_inputs(strict, runs / "rest")[1][0]["accepted_frac"] == pytest.approx(0.1, abs=0.05)


def test_the_control_has_as_many_samples_whatever_the_reward_says():
    accepted = np.array([False, True, True, False, True, False])
    assert chosen_rows(accepted, size=9, how="reward", seed=0, iteration=1).tolist() == [1, 2, 4]
    assert chosen_rows(accepted, size=2, how="reward", seed=0, iteration=1).tolist() == [1, 2]
    at_random = [tuple(chosen_rows(accepted, size=9, how="random", seed=0, iteration=k)) for k in range(30)]
    assert all(len(set(one)) == 3 for one in at_random) and len(set(at_random)) > 10


# Members that runs share.


@pytest.mark.parametrize("tokens", ["random", "source"])
def test_runs_share_members_and_each_is_trained_on_its_own_part_of_them(tokens):
    large = replace(SOURCE, d_vocab=512, n_ctx=16)
    part = Subsets(8, 3, 0.25, tokens)
    pools, parts = [], []
    for seed in range(4):
        stream = ArmStream(large, Arm.of(part), seed=seed, batch=4, steps=20)
        shown = stream.batches(0, 20)
        found = [int((shown == member).all(-1).sum()) for member in stream.pool.wide]
        assert found == stream.repeat_counts(20).tolist() and sorted(found) == [0] * 6 + [3] * 2
        early = [int((shown[:9] == member).all(-1).sum()) for member in stream.pool.wide]
        assert early == stream.repeat_counts(9).tolist()
        pools.append(stream.pool.wide)
        parts.append(tuple(found))
    assert all((one == pools[0]).all() for one in pools) and len(set(parts)) > 1
    (places,) = places_of(large, Arm.of(replace(part, table=1)), seed=0, batch=4, steps=20)
    assert not (places.pool.wide == pools[0]).all(-1).any()
    with pytest.raises(ByroteError, match="more than half of the 16"):
        ArmStream(large, Arm.of(Subsets(8, 3)), seed=0, batch=4, steps=4)


# Stale runs.

GRIDS = """
recipe = "tiled-small"
seeds = [3]
checkpoints = 2
[settings]
steps = 12
batch = 4
d_model = 8
n_held_out = 8
[settings.source]
d_vocab = 10
n_ctx = 8
block_min = 2
block_max = 3
[arms.human]
kind = "unique"
[arms.syn]
kind = "synthetic"
generator = "human"
control = "human"
[arms.old]
kind = "replay"
of = "human"
control = "human"
[arms.after]
kind = "continued"
initial = "syn"
control = "human"
"""


@pytest.fixture
def trained(tmp_path):
    file = tmp_path / "grid.toml"
    file.write_text(GRIDS)
    train_grid(file, tmp_path / "out", jobs=1)
    return tmp_path / "out"


def retrained(run, *, by=1e-3):
    """As if the run had been trained again elsewhere: its last weights are others, and its manifest says so."""
    manifest = json.loads((run / "manifest.json").read_text())
    last = manifest["checkpoints"][-1]
    file = run / last["folder"] / "model.safetensors"
    save_file({name: weight + np.float32(by) for name, weight in load_file(file).items()}, file)
    last["weights"] = hash_of(file.read_bytes())
    (run / "manifest.json").write_text(json.dumps(manifest))


def states(out):
    return {run.arm: state for run, state, _ in status(out)}


def used(out, arm, key="weights"):
    return json.loads((out / arm / "d8/seed3/manifest.json").read_text())["inputs"][0][key]


def test_runs_made_from_a_run_that_was_trained_again_are_seen_and_never_called_complete(trained):
    assert set(states(trained).values()) == {"complete"}
    before = used(trained, "syn")
    retrained(trained / "human/d8/seed3")
    assert states(trained) == {"human": "complete", "syn": "stale", "old": "complete", "after": "stale"}
    with pytest.raises(
        ByroteError,
        match=r"syn/d8/seed3 was made from weights of human-d8-seed3, which was retrained",
    ) as refused:
        train_grid(trained / GRID, trained, jobs=1)
    assert "(and 1 more runs" in str(refused.value) and "--retrain-stale" in refused.value.help
    assert used(trained, "syn") == before  # nothing was touched

    events = []
    train_grid(trained / GRID, trained, jobs=1, retrain_stale=True, on_event=events.append)
    assert set(states(trained).values()) == {"complete"}
    assert used(trained, "syn") != before
    last = json.loads((trained / "syn/d8/seed3/manifest.json").read_text())["checkpoints"][-1]["weights"]
    assert used(trained, "after") == last  # made from what was just trained
    done = [(event["done"], event["total"]) for event in events if event["event"] == "runs"]
    assert done == [(3, 4), (4, 4)]


def test_a_generator_that_is_gone_makes_nothing_stale(trained):
    manifest = trained / "human/d8/seed3/manifest.json"
    kept = manifest.read_text()
    manifest.write_text(kept.replace('"status": "complete"', '"status": "running"'))
    assert states(trained) == {"human": "stopped", "syn": "complete", "old": "complete", "after": "complete"}
    manifest.write_text(kept.replace('"weights"', '"weight"'))  # no hashes: nothing that could be the same
    assert states(trained)["syn"] == "stale"


def test_one_run_is_refused_as_those_of_a_grid_are(runs, tmp_path):
    config = replace(BASE, arm=Arm.of(Synthetic(0.5, generator="../other")), name="syn")
    other = replace(BASE, seed=1)
    train(tmp_path / "other", other)
    path = train(tmp_path / "syn", config)
    retrained(tmp_path / "other")
    with pytest.raises(ByroteError, match="was made from weights of other, which was retrained") as refused:
        train(path, config)
    assert "--fresh" in refused.value.help
    train(path, config, fresh=True)
    train(path, config)


def test_the_command_line_says_what_to_do(trained):
    retrained(trained / "human/d8/seed3")
    said = CliRunner().invoke(cli, ["lab", "status", str(trained)])
    assert "2 complete, 2 stale" in said.output and "--retrain-stale" in said.output
    words = ["lab", "train", str(trained), "--grid", str(trained / GRID), "--jobs", "1", "--progress", "none"]
    assert CliRunner().invoke(cli, words).exit_code != 0
    assert CliRunner().invoke(cli, [*words, "--retrain-stale"]).exit_code == 0
    assert "4 complete" in CliRunner().invoke(cli, ["lab", "status", str(trained)]).output
    alone = CliRunner().invoke(cli, ["lab", "train", str(trained / "x"), "--retrain-stale"])
    assert alone.exit_code != 0 and "applies only to grids" in alone.output


def test_a_hostile_manifest_is_no_reason(trained):
    file = trained / "syn/d8/seed3/manifest.json"
    manifest = json.loads(file.read_text())
    for inputs in (
        7,
        [7],
        [{"part": 0}],
        [{"part": [], "weights": "x"}],
        [{"part": 0, "generator": 3, "weights": {}}],
    ):
        file.write_text(json.dumps({**manifest, "inputs": inputs}))
        assert states(trained)["syn"] == "complete"
