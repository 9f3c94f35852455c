"""Member by member: counterfactual memorisation and whether members planted together interfere, by hand, planted and on results."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from planted_series import write_results

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms.members import Subsets
from byrote.checkpoints.lab.planted_members import included_experiments, included_members
from byrote.cli.main import cli
from byrote.probes import figures
from byrote.probes.degrade import counterfactual, dependence, dependence_matrix, member_rows
from byrote.probes.degrade.dependence import DEPENDENT, INDEPENDENT, OPEN, dependence_word
from byrote.probes.groups import group
from byrote.probes.member_calibration import simulated_experiments, simulated_halves, simulated_subsets
from byrote.probes.results import Results
from byrote.probes.results.schema import Measured


def table(values, repeats, **more):
    runs, members = np.shape(values)
    run, member = np.divmod(np.arange(runs * members), members)
    columns = {"run": run, "member": member, "repeats": np.ravel(repeats), "value": np.ravel(values)}
    return pd.DataFrame(columns | more)


def test_counterfactual_memorisation_by_hand():
    """Member 0: (0.9 + 0.7) / 2 - (0.2 + 0.4) / 2 = 0.5; member 1: 0.3 - 0.1; member 2 has one run without it."""
    values = [[0.9, 0.1, 0.5], [0.7, 0.3, 0.5], [0.2, 0.3, 0.5], [0.4, 0.1, 0.5]]
    repeats = [[8, 0, 8], [8, 8, 8], [0, 8, 8], [0, 0, 0]]
    found = counterfactual(table(values, repeats))
    assert found.rows["member"].tolist() == [0, 1] and (found.runs, found.left_out) == (4, 1)
    assert found.rows["value"].tolist() == pytest.approx([0.5, 0.2])
    assert found.rows[["mean_with", "mean_without"]].iloc[0].tolist() == pytest.approx([0.8, 0.3])
    assert found.mean.value == pytest.approx(0.35)
    # left out in turn: (0.4 + 0.3 - 0.1) / 2 with run 0 away, and so on
    left_out = [
        (0.4 + (0.3 - 0.1)) / 2,
        (0.6 + (0.3 - 0.1)) / 2,
        (0.4 + (0.3 - 0.1)) / 2,
        (0.6 + (0.3 - 0.1)) / 2,
    ]
    error = np.sqrt(3 / 4 * ((np.array(left_out) - np.mean(left_out)) ** 2).sum())
    assert (found.mean.hi - found.mean.lo) / 2 == pytest.approx(3.18245 * error, rel=1e-4)
    assert found.rows["p"].tolist() == pytest.approx(
        [1 / 6, 1 / 6]
    )  # of the six ways to choose two runs, this one alone
    assert not found.rows["memorised"].any()
    losses = counterfactual(table(-np.array(values), repeats), better="lower")
    assert losses.mean.value == pytest.approx(0.35)


def test_a_planted_memory_is_found_and_ease_is_none():
    rng = np.random.default_rng(0)
    memory = np.r_[np.full(8, 0.6), np.zeros(24)]
    found = counterfactual(simulated_subsets(rng, runs=12, memory=memory))
    sure = set(found.rows[found.rows["memorised"]]["member"])
    assert set(range(8)) <= sure and len(sure) <= 10
    assert found.mean.lo < memory.mean() < found.mean.hi and found.mean.p < 0.01


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop(columns="repeats"), "needs run, member, repeats and value"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "each run with each member once"),
        (lambda t: t.iloc[1:], "no value for some members"),
        (lambda t: t[t["run"] < 2], "have no member that two of them"),
        (lambda t: t.assign(repeats=1), "have no member that two of them"),
    ],
)
def test_tables_that_say_nothing_are_refused(change, said):
    whole = table(np.zeros((4, 2)), [[1, 0], [1, 0], [0, 1], [0, 1]])
    with pytest.raises(ByroteError, match=said):
        counterfactual(change(whole))


def halves(shift):
    return simulated_halves(np.random.default_rng(1), seeds=6, shift=shift)


def test_members_that_do_and_do_not_interfere():
    alone, together = (dependence(halves(shift), smallest=0.05) for shift in (0.0, 0.3))
    assert alone.whole == "all" and sorted(alone.halves) == ["even", "odd"]
    assert dependence_word(alone.planted) == INDEPENDENT and dependence_word(together.planted) == DEPENDENT
    assert together.planted.value == pytest.approx(0.3, abs=0.03) and set(together.by_count) == {1, 2, 4}
    assert alone.never is not None and together.never.value == pytest.approx(0.3, abs=0.05)
    assert together.beyond.value == pytest.approx(0, abs=0.05)  # every member is shifted, planted or not
    few = dependence(simulated_halves(np.random.default_rng(1), seeds=3, shift=0.3), smallest=0.05)
    assert dependence_word(few.planted) == OPEN


def test_the_difference_of_a_seed_by_hand():
    """Whole less half of the half's members: member 1 of even (2 - 1), members 0 and 2 of odd ((5 - 1) + (4 - 2)) / 2: mean 2."""
    rows = []
    for arm, repeats, values in (
        ("w", [2, 2, 2, 0], [5, 2, 4, 7]),
        ("a", [0, 2, 0, 0], [9, 1, 9, 6]),
        ("b", [2, 0, 2, 0], [1, 9, 2, 4]),
    ):
        for member in range(4):
            rows.append((arm, "s", 0.0, 0.0, member, repeats[member], float(values[member])))
    one = pd.DataFrame(rows, columns=["arm", "set", "init_seed", "data_seed", "member", "repeats", "value"])
    found = dependence(one, smallest=0.1)
    assert (found.whole, found.halves) == ("w", ("a", "b"))
    assert found.planted.values == (2.0,) and found.never.values == (2.0,)  # (7 - 6 + 7 - 4) / 2
    assert found.beyond.values == (0.0,)


def test_what_is_no_whole_and_half_is_refused():
    whole = halves(0.0)
    with pytest.raises(ByroteError, match="no arm was trained on every member") as refused:
        dependence(whole[whole["arm"] != "all"], smallest=0.05)
    assert 'planted = "all", "even" and "odd"' in refused.value.help
    with pytest.raises(ByroteError, match="a run declares none"):
        dependence(whole.assign(init_seed=np.nan), smallest=0.05)


# The matrix of experiments that share runs.


def matrix_of(effects, *, runs=12, seed=0, **more):
    table = simulated_experiments(np.random.default_rng(seed), runs=runs, effects=np.array(effects), **more)
    return dependence_matrix(table, smallest=0.05), table


def test_the_matrix_of_a_whole_and_its_halves_is_what_the_halves_say():
    """Even's outcome with odd beside it less without it is whole less half; both halves, and Student's interval over seeds."""
    for shift in (0.0, 0.3):
        table = halves(shift)
        found, by_halves = dependence_matrix(table, smallest=0.05), dependence(table, smallest=0.05).planted
        assert found.by_seed and found.n == 2 and [len(group) for group in found.members] == [12, 12]
        assert (found.others.value, found.others.lo, found.others.hi) == pytest.approx(
            (by_halves.value, by_halves.lo, by_halves.hi)
        )
    assert (found.word, dependence_word(by_halves)) == (DEPENDENT, DEPENDENT)


def test_the_matrix_by_hand():
    """Experiment 1 is 2 alone, 1 without any, 5 with both: adding up by least squares, by itself 1.5 and by the other 3.5 or so."""
    rows = [
        (run, np.nan, np.nan, member, 4 * int(has[member]), float(value))
        for run, (has, values) in enumerate([((0, 0), (1, 7)), ((1, 0), (2, 7)), ((0, 1), (3, 9)), ((1, 1), (5, 9))] * 2)
        for member, value in enumerate(values)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["run", "init_seed", "data_seed", "member", "repeats", "value"])
    found = dependence_matrix(table, smallest=0.1)
    assert found.values() == pytest.approx(np.array([[1.5, 2.5], [0, 2]])) and found.members == ((0,), (1,))
    x = np.column_stack([np.ones(8), table.pivot(index="run", columns="member", values="repeats") > 0])
    y = table.pivot(index="run", columns="member", values="value").to_numpy()
    left_out = [
        np.linalg.lstsq(np.delete(x, k, 0), np.delete(y, k, 0), rcond=None)[0][2, 0] for k in range(8)
    ]
    error = np.sqrt(7 / 8 * ((left_out - np.mean(left_out)) ** 2).sum())
    effect = found.effects[1].found  # of the first by the second: 8 runs, 3 numbers fitted
    assert (effect.hi - effect.lo) / 2 == pytest.approx(2.570582 * error, rel=1e-5)
    turned = dependence_matrix(table.assign(value=-table["value"]), smallest=0.1, better="lower")
    assert turned.values() == pytest.approx(found.values())


def test_planted_effects_are_found_where_they_are():
    effects = np.diag([0.4, 0.5, 0.3, 0.6])
    alone, _ = matrix_of(effects, runs=16, luck=0.0)
    assert alone.word == INDEPENDENT and not alone.by_seed
    assert np.diag(alone.values()) == pytest.approx(np.diag(effects), abs=0.05)
    effects[2, 0] = -0.3
    found, table = matrix_of(effects, runs=16, luck=0.0)
    said = {(one.measured, one.trained) for one in found.effects if one.word == DEPENDENT}
    assert found.word == DEPENDENT and said == {(2, 0)}
    few = dependence_matrix(table[table["run"].isin((0, 1, 2, 4, 6, 8, 10))], smallest=0.05)
    assert few.runs == 7 and few.effects[8].found.lo < -0.3 < few.effects[8].found.hi
    with pytest.raises(
        ByroteError, match="4 experiments cannot be distinguished by 6 runs: that takes 7 runs"
    ):
        dependence_matrix(table[table["run"].isin((0, 2, 4, 6, 8, 10))], smallest=0.05)
    with pytest.raises(ByroteError, match="have 1 experiments"):
        dependence_matrix(table[table["member"] < 4], smallest=0.05)
    with pytest.raises(ByroteError, match="needs run, init_seed"):
        dependence_matrix(table.drop(columns="repeats"), smallest=0.05)
    twins = table.assign(member=table["member"] + 16, repeats=8 - table["repeats"])
    with pytest.raises(ByroteError, match="cannot be distinguished by 16 runs: some are in and out together"):
        dependence_matrix(pd.concat([table, twins]), smallest=0.05)


def test_experiments_are_balanced_and_told_apart_by_twelve_seeds():
    part = Subsets(16, 2, experiments=4)
    has = np.stack([included_experiments(part, seed) for seed in range(16)])
    assert (has.sum(0) == 8).all() and (has[::2] != has[1::2]).all()
    spread = np.where(has, 1, -1)
    assert (
        spread.T @ spread == 16 * np.eye(4)
    ).all()  # over all 16 seeds any two are together in half of the runs
    for table in range(20):
        rows = np.stack([included_experiments(replace(part, table=table), seed) for seed in range(12)])
        for k in range(12):
            assert np.linalg.matrix_rank(np.column_stack([np.ones(11), np.delete(rows, k, 0)])) == 5
    assert included_members(part, 1).tolist() == np.flatnonzero(np.repeat(has[1], 4)).tolist()
    assert "experiments" not in Subsets(16, 2).definition() and part.definition()["experiments"] == 4
    for wrong in ({"experiments": 3}, {"experiments": 4, "included": 0.25}):
        with pytest.raises(ByroteError, match=r"experiments|included"):
            Subsets(16, 2, **wrong)


def test_the_matrix_is_drawn_with_its_words():
    effects = np.diag([0.4, 0.5, 0.3, 0.6])
    effects[2, 0] = -0.3
    found, _ = matrix_of(effects, runs=16, luck=0.0)
    fig = figures.dependence_matrix(found)
    (heat,) = fig.data
    assert np.array(heat.z, float) == pytest.approx(found.values())
    assert "dependent" in heat.hovertext[2][0] and heat.text[0][0].startswith("0.38<br>[0.35, ")
    assert fig.alt.startswith(
        "Of 4 experiments some change others by 0.05 of accuracy or more (1 of 12 pairs), over 16 runs"
    )
    assert "that of 1 on 3, " in fig.alt and len(fig.table) == 16
    with pytest.raises(ByroteError, match="no dependence matrix was given"):
        figures.dependence_matrix({})


# On results.


def measured(values, repeats):
    """`exact_match` of members."""
    found = []
    for metric, samples in (("accuracy", values), ("loss", 2 - values), ("repeats", repeats.astype(float))):
        mean = samples.mean()
        numbers = [np.array(one) for one in (mean, mean - 0.05, mean + 0.05, 0.0, float(len(samples)))]
        found.append(Measured("exact_match", metric, *numbers, (), samples=samples))
    return found


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Six seeds of three arms planted together and in halves, and twelve of an arm that shares its members."""
    root = tmp_path_factory.mktemp("members")
    lines = []
    simulated = halves(0.0)
    for (arm, seed), mine in simulated.groupby(["arm", "init_seed"], sort=False):
        part = {"kind": "planted", "most": 4, "per_count": 8, "tokens": "random", "planted": arm}
        one = {"kind": "planted", "repeat_frac": 0.0, "pool_size": 0, "parts": [part]}
        values = measured(mine["value"].to_numpy(), mine["repeats"].to_numpy())
        write_results(root, f"{arm}-{seed:g}", {10: values}, arm=one, seed=int(seed))
        lines += [f'[runs."{arm}-{seed:g}"]', f'arm = "{arm}"']
    shared = simulated_subsets(np.random.default_rng(0), runs=12, memory=np.r_[np.full(8, 0.5), np.zeros(24)])
    for seed, mine in shared.groupby("run"):
        part = {"kind": "subsets", "members": 32, "times": 8, "included": 0.5, "tokens": "random", "table": 0}
        one = {"kind": "subsets", "repeat_frac": 0.0, "pool_size": 0, "parts": [part]}
        values = measured(mine["value"].to_numpy(), mine["repeats"].to_numpy())
        write_results(root, f"shared-{seed}", {10: values}, arm=one, seed=int(seed))
        lines += [f'[runs."shared-{seed}"]', 'arm = "shared"']
    together = simulated_experiments(np.random.default_rng(0), runs=12, effects=np.diag([0.5] * 3))
    for seed, mine in together.groupby("run"):
        part = {
            "kind": "subsets",
            "members": 12,
            "times": 8,
            "included": 0.5,
            "tokens": "random",
            "table": 0,
            "experiments": 3,
        }
        one = {"kind": "subsets", "repeat_frac": 0.0, "pool_size": 0, "parts": [part]}
        values = measured(mine["value"].to_numpy(), mine["repeats"].to_numpy())
        write_results(root, f"three-{seed}", {10: values}, arm=one, seed=int(seed))
        lines += [f'[runs."three-{seed}"]', 'arm = "three"']
    (root / "byrote.toml").write_text("\n".join(lines))
    return root


def test_runs_declare_which_members_they_have(study):
    runs = {name: Results.open(study / name) for name in ("all-0", "even-0", "odd-1", "shared-0", "shared-1")}
    sets = {name: run.facts.members for name, run in runs.items()}
    assert sets["all-0"] == sets["even-0"] != sets["odd-1"]
    assert sets["shared-0"] == sets["shared-1"] and sets["shared-0"].startswith("subsets ")
    rows = member_rows([group("shared", [runs["shared-0"], runs["shared-1"]])])
    assert len(rows) == 64 and rows["set"].nunique() == 1 and rows["repeats"].isin((0, 8)).all()


def test_the_command_line_measures_both(study):
    words = ["--baseline", "all", "--measure", "counterfactual", "--measure", "dependence", "--json"]
    done = CliRunner().invoke(cli, ["degrade", *map(str, sorted(study.glob("[aeos]*-*"))), *words])
    assert done.exit_code == 0, done.output
    rows = {(row["measure"], row["arm"], row["metric"]): row for row in json.loads(done.stdout)}
    mean = rows["counterfactual", "shared", "accuracy"]
    assert mean["lo"] < 0.125 < mean["hi"] and mean["seeds"] == 12
    assert rows["counterfactual", "shared", "accuracy, significantly memorised"]["value"] >= 0.2
    saved = rows["counterfactual", "shared", "loss"]
    assert (saved["value"], saved["unit"]) == (
        pytest.approx(mean["value"]),
        "nats",
    )  # loss is 2 - accuracy here
    together = rows["dependence", "all less even and odd", "accuracy, planted"]
    assert together["how"].startswith("independent") and together["lo"] < 0 < together["hi"]
    assert ("dependence", "all less even and odd", "loss, planted 4 times") in rows
    assert "training on a member raises accuracy on it by" in done.stderr
    assert "Members planted together do not interfere by accuracy" in done.stderr


def test_the_command_line_measures_the_matrix_of_each_set_of_members(study):
    words = ["--baseline", "all", "--measure", "dependence_matrix", "--json"]
    done = CliRunner().invoke(cli, ["degrade", *map(str, sorted(study.glob("[aeot]*-*"))), *words])
    assert done.exit_code == 0, done.output
    rows = {(row["arm"].partition(", N")[0], row["metric"]): row for row in json.loads(done.stdout)}
    assert {arm for arm, _ in rows} == {
        "all, even, odd",
        "three",
    }
    own = rows["three", "accuracy of 2 by 2"]
    assert own["lo"] < 0.5 < own["hi"] and own["how"] == "memory of 4 members" and own["seeds"] == 12
    assert rows["three", "loss of 1 by 3"]["unit"] == "nats"
    assert rows["all, even, odd", "accuracy, by all others"]["how"].startswith(
        "independent (smallest effect 0.05"
    )
    assert "3 experiments" in done.stderr
