"""Groups of runs: what they declare, what refuses them, and their differences worked by hand."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from paper_runs import planted_run, rebuilt
from planted_series import head_metric, write_results
from scipy import stats

from byrote.checkpoints.errors import ByroteError
from byrote.probes import figures
from byrote.probes import seed_statistics as over_seeds
from byrote.probes.findings_compared import seed_tally
from byrote.probes.group_comparison import PAIRED, WELCH, compare_groups
from byrote.probes.groups import Group, group, groups_of
from byrote.probes.registry import lookup
from byrote.probes.results import Results
from byrote.probes.results.run_facts import facts_of
from byrote.probes.results.schema import Measured, from_samples
from byrote.probes.seed_calibration import seed_calibrations

UNIQUE = {"kind": "unique", "repeat_frac": 0.0, "pool_size": 0, "repeats_per_sequence": 0}
REPEATED = {"kind": "repeated", "repeat_frac": 0.5, "pool_size": 64, "repeats_per_sequence": 100}
SEQUENCES = np.linspace(-0.02, 0.02, 8)
STEPS = (10, 30)


def run(root, name, gain, *, seed, arm=UNIQUE, forms_at=None, steps=STEPS) -> Results:
    """One run: its copying gain in nats, and from which step on L1H2 is an induction head."""
    units = {}
    for step in steps:
        there = forms_at is not None and step >= forms_at
        loss = from_samples(lookup("repeat_loss"), "difference", -gain + SEQUENCES, axes=(), chance=0, seed=0)
        prefix, verdict = np.full((2, 3), 0.05), np.zeros((2, 3))
        prefix[1, 2], verdict[1, 2] = (0.8, 1.0) if there else (0.05, 0.0)
        called = Measured("induction", "verdict", verdict, verdict, verdict,
                          *(np.full((2, 3), v) for v in (np.nan, 32.0)), ("layer", "head"))  # fmt: skip
        units[step] = [loss, head_metric("prefix_matching", prefix), called]
    return Results.open(write_results(root, name, units, arm=arm, seed=seed))


def arm(root, name, gains, *, seeds=None, forms=(), **facts) -> list[Results]:
    forms = dict(enumerate(forms))
    return [
        run(root, f"{name}-s{seed}", gain, seed=seed, forms_at=forms.get(i), **facts)
        for i, (gain, seed) in enumerate(zip(gains, seeds or range(len(gains)), strict=True))
    ]


def test_what_a_lab_series_declares(tmp_path):
    facts = run(tmp_path, "a", 1.0, seed=3, arm=REPEATED).facts
    assert (facts.arm, facts.init_seed, facts.data_seed) == ("repeated f=0.5 P=64", 3, 3)
    assert (facts.repeat_frac, facts.epochs, facts.pool) == (0.5, 100, 64)
    assert (facts.synthetic_share, facts.generation) == (0.0, 0)
    with pytest.raises(
        ByroteError, match="parameters of a is not declared, and a fit over sizes needs it"
    ) as error:
        facts.require("parameters", run="a", what_for="a fit over sizes")
    assert '[runs."a"] parameters' in error.value.help


def test_a_file_beside_the_results_declares_the_rest_and_stands_over_the_manifest(tmp_path):
    found = run(tmp_path, "rep-a", 1.0, seed=None)
    other = run(tmp_path, "uni-a", 1.0, seed=5)
    (tmp_path / "byrote.toml").write_text(
        '[runs."rep-*"]\narm = "mine"\nparameters = 1_000\nsynthetic_share = 0.25\n[runs.rep-a]\nseed = 7\n'
    )
    facts = Results.open(found.path).facts
    assert (facts.arm, facts.seeds, facts.parameters, facts.synthetic_share) == ("mine", (7, 7), 1000, 0.25)
    assert Results.open(other.path).facts.arm == "unique"
    frame = Results.open(found.path).frame
    assert list(frame.columns[:3]) == ["run", "arm", "seed"]
    assert set(frame["arm"]) == {"mine"} and set(frame["seed"]) == {7}
    assert set(Results.open(found.path)["repeat_loss", "difference"].rows["seed"]) == {7}


def test_what_is_not_declared_has_no_column(tmp_path):
    bare = Results.open(write_results(tmp_path, "bare", {0: [head_metric("sink", np.zeros((2, 3)))]}))
    assert not {"arm", "seed"} & set(bare.frame.columns)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[runs.a]\nsede = 1\n", "key 'sede'"),
        ("[runs.a]\nseed = -1\n", "a whole number from 0"),
        ("[runs.a]\nseed = true\n", "a whole number from 0"),
        ("[runs.a]\nrepeat_frac = 1.5\n", "a share from 0 to 1"),
        ("[runs.a]\nepochs = inf\n", "a number from 0"),
        ('[runs.a]\narm = ""\n', "a name of at most"),
        ("[runs]\na = 1\n", "is not a table"),
        ("[run.a]\nseed = 1\n", "holds 'run'"),
        ("runs = [", "cannot be read as TOML"),
        ("a = " + "[" * 5000, "nested|TOML"),
        ("x" * (1 << 21), "at most"),
    ],
)
def test_a_file_that_anybody_may_have_written_is_refused_in_words(tmp_path, text, message):
    found = run(tmp_path, "a", 1.0, seed=0)
    (tmp_path / "byrote.toml").write_text(text)
    with pytest.raises(ByroteError, match=message) as error:
        _ = Results.open(found.path).facts
    assert error.value.help


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_or_a_link_of_that_name_is_not_read(tmp_path):
    found = run(tmp_path, "a", 1.0, seed=0)
    os.mkfifo(tmp_path / "byrote.toml")
    with pytest.raises(ByroteError, match="a pipe"):
        _ = Results.open(found.path).facts
    (tmp_path / "byrote.toml").unlink()
    (tmp_path / "byrote.toml").symlink_to("/etc/hostname")
    with pytest.raises(ByroteError, match="a link"):
        _ = Results.open(found.path).facts


def test_runs_that_are_no_group_are_refused(tmp_path):
    a, b, c = (
        run(tmp_path, "a", 1, seed=0),
        run(tmp_path, "b", 1, seed=0),
        run(tmp_path, "c", 1, seed=1, arm=REPEATED),
    )
    with pytest.raises(ByroteError, match="one training counted twice"):
        group("x", [a, b])
    with pytest.raises(ByroteError, match=r"differ in more than their seeds: repeat_frac"):
        group("x", [a, c])
    with pytest.raises(ByroteError, match="has no run"):
        group("x", [])
    with pytest.raises(ByroteError, match="a is in both groups"):
        compare_groups([a], [a])
    assert [(one.name, len(one)) for one in groups_of([a, c])] == [("unique", 1), ("repeated f=0.5 P=64", 1)]
    bare = Results.open(write_results(tmp_path, "bare", {0: [head_metric("sink", np.zeros((2, 3)))]}))
    with pytest.raises(ByroteError, match="arm of bare is not declared"):
        groups_of([a, bare])


def test_a_paired_interval_is_students_over_seeds_with_the_sequences_added():
    a, b = np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.7, 3.3])
    plain = over_seeds.paired_difference(a, b)
    expected = stats.t.interval(0.95, 2, 0.5, stats.sem([0.5, 0.7, 0.3]))
    assert (plain.lo, plain.hi) == pytest.approx(expected)
    assert plain.p == pytest.approx(stats.ttest_rel(b, a).pvalue)
    added = over_seeds.paired_difference(a, b, sequences=0.01)
    assert added.hi - added.value == pytest.approx(stats.t.isf(0.025, 2) * np.sqrt(0.04 / 3 + 0.01))


def test_an_unpaired_interval_is_welchs():
    a, b = np.array([1.0, 2.0, 4.0, 4.5]), np.array([6.0, 6.1, 9.0])
    found, welch = over_seeds.unpaired_difference(a, b), stats.ttest_ind(b, a, equal_var=False)
    assert found.p == pytest.approx(welch.pvalue)
    assert (found.lo, found.hi) == pytest.approx(tuple(welch.confidence_interval()))
    assert np.isnan(over_seeds.unpaired_difference(a, b[:1]).lo)


def test_ranks_without_ties_are_mann_and_whitneys_and_never_comes_last():
    at = np.array([3, 5, 9, 4, 11, 12, 15.0])
    sign = over_seeds.later([(x - 1, x) for x in at])
    in_b = np.array([0, 0, 0, 0, 1, 1, 1])
    exact = stats.mannwhitneyu(at[:4], at[4:], method="exact").pvalue
    assert over_seeds.rank_test(sign, in_b) == pytest.approx(exact)
    never = over_seeds.later([(100, 200), (200, 300), (300, np.inf), (150, 250)])
    assert never[2].tolist() == [1, 1, 0, 1]
    assert never[0].tolist() == [0, -1, -1, 0]  # (100, 200] and (150, 250] overlap: nobody can tell


def test_three_of_three_against_none_of_three_has_p_of_a_tenth():
    assert over_seeds.fisher_exact(3, 3, 0, 3) == pytest.approx(0.1)
    assert over_seeds.fisher_exact(5, 5, 0, 5) == pytest.approx(2 / 252)
    for table in ((4, 5, 1, 6), (2, 7, 3, 4), (0, 3, 0, 3)):
        (x, n, y, m), other = table, [[table[0], table[1] - table[0]], [table[2], table[3] - table[2]]]
        assert over_seeds.fisher_exact(x, n, y, m) == pytest.approx(stats.fisher_exact(other).pvalue)


GAINS = (2.0, 3.0, 1.0, 2.5, 1.5)


def test_arms_that_share_seeds_are_paired_and_seed_noise_cancels(tmp_path):
    a = group("unique", arm(tmp_path, "a", GAINS))
    b = group("repeated", arm(tmp_path, "b", [g - 1.0 - 0.01 * i for i, g in enumerate(GAINS)], arm=REPEATED))
    found = compare_groups(a, b)
    row = found.row("repeat_loss", "difference")
    assert (row["family"], row["how"], row["seeds_a"], row["n"]) == ("primary", PAIRED, 5, 8)
    assert row["difference"] == pytest.approx(1.02, abs=1e-6) and row["lo"] > 0.9
    assert row["sd_a"] == pytest.approx(np.std(GAINS, ddof=1)) and row["change"] == "worse"
    assert row["sequence_se"] == pytest.approx(SEQUENCES.std(ddof=1) / np.sqrt(8), rel=1e-5)
    assert row["seed_to_sequence"] == pytest.approx(np.std(GAINS, ddof=1) / row["sequence_se"], rel=0.02)
    assert row["values_a"] == pytest.approx([-g for g in GAINS])
    said = "Copying lowers the loss by 2.00 nats in unique and 0.98 in repeated at step 30 (worse)"
    assert seed_tally(found) == said


def test_below_five_seeds_it_is_these_runs_that_differ(tmp_path):
    a = arm(tmp_path, "a", GAINS[:3], forms=(10, 20, 20))
    b = arm(tmp_path, "b", [g - 1.0 - 0.01 * i for i, g in enumerate(GAINS[:3])], arm=REPEATED)
    found = compare_groups(a, b)
    assert found.formed == (3, 3, 0, 3) and found.p_formed == pytest.approx(0.2)  # 0.10, and one of two tests
    row = found.row("repeat_loss", "difference")
    assert row["change"] == "higher"
    for text in (found.sentence, seed_tally(found)):
        assert "n these runs" in text and not {"worse", "better"} & set(text.split())
    assert "3 of 3 seeds of A and 0 of 3 of B form lasting induction heads" in found.sentence


def test_other_seeds_are_compared_by_welch_and_said_to_be(tmp_path):
    a, b = arm(tmp_path, "a", GAINS), arm(tmp_path, "b", GAINS, seeds=range(5, 10), arm=REPEATED)
    found = compare_groups(a, b)
    row = found.row("repeat_loss", "difference")
    assert row["how"] == WELCH and row["change"] == "no clear change"
    assert (row["lo"], row["hi"]) == pytest.approx(
        stats.ttest_ind(GAINS, GAINS, equal_var=False).confidence_interval(), abs=0.02
    )
    assert "other seeds" in found.why_unpaired and found.notes[0].startswith("runs are not paired by seed")


def test_onsets_are_ranked_and_never_is_a_value(tmp_path):
    a = arm(tmp_path, "a", GAINS, forms=(10, 10, 10, 10, 10))
    b = arm(tmp_path, "b", GAINS, forms=(30, None, 30, None, 30), arm=REPEATED)
    found = compare_groups(a, b)
    assert found.formed == (5, 5, 3, 5)
    assert found.p_onset == pytest.approx(
        2 * 2 / 252
    )  # all of B after all of A, either way round; Holm over two
    assert found.onsets["step_at"].isna().sum() == 2 and set(found.onsets["last_step"]) == {30}
    assert found.p_formed == pytest.approx(over_seeds.fisher_exact(5, 5, 3, 5))


def test_runs_measured_otherwise_are_refused(tmp_path):
    a = run(tmp_path, "a", 1.0, seed=0)
    with pytest.raises(ByroteError, match="no checkpoint in common"):
        compare_groups([a], [run(tmp_path, "b", 1.0, seed=1, steps=(7,))])


def test_intervals_over_few_seeds_hold_the_truth_and_the_check_can_fail(monkeypatch):
    (few,) = (c for c in seed_calibrations() if "over 3 seeds, paired, seeds spread 10 times" in c.name)
    assert few.check(40, seed=0).passed
    student = over_seeds.student_interval
    monkeypatch.setattr(
        over_seeds,
        "student_interval",
        lambda value, variance, df, **_: student(value, variance, df, level=0.7),
    )
    found = few.check(40, seed=0)
    assert not found.passed, found.found


def test_generations_that_replace_and_accumulate_are_arms_of_their_own(tmp_path):
    names = []
    for regime in ("replace", "accumulate"):
        part = {"kind": "generation", "regime": regime, "generation": 1, "share": 1.0}
        arm = {"kind": "generation", "parts": [part], "synthetic_share": 1.0, "generation": 1}
        meta = {"series": {"manifest": {"arm": arm, "seed": 3}}}
        names.append(facts_of("one", tmp_path / "one", meta).arm)
    assert names == ["generation replace synthetic 1", "generation accumulate synthetic 1"]


def test_the_plane_of_arms_draws_medians_and_where_each_seed_ends() -> None:
    """Of three seeds that complete 0, a quarter and three quarters of their members, and of an arm that has none."""
    unique = planted_run()
    model = unique.rows("repeat_loss", "later_blocks")
    runs = []
    for seed, share in enumerate((0.75, 0.0, 0.25)):
        members = model.assign(probe="exact_match", metric="completed", value=share, lo=share, hi=share)
        frame = pd.concat([unique.frame, members.assign(run=f"a-{seed}")], ignore_index=True)
        runs.append(rebuilt(unique, frame=frame.assign(run=f"a-{seed}"), run=f"a-{seed}"))
    others = [rebuilt(unique, frame=unique.frame.assign(run=f"b-{i}"), run=f"b-{i}") for i in range(2)]
    arms = [Group("a", tuple(runs)), Group("b", tuple(others))]
    plane = figures.memory_plane(arms, rule="prefix matching", memory="completed", base="a")
    drawn = {trace.name: trace for trace in reversed(plane.data)}
    assert drawn["a"].line.width and drawn["a"].y[-1] == 0.25
    assert sorted(drawn["a, each seed"].y) == [0.0, 0.25, 0.75] and "b, its seeds" in drawn
    assert (
        "a ends at prefix matching" in plane.alt and "completed 0.25 (0.00 to 0.75 over 3 seeds)" in plane.alt
    )
    assert "2 to 3 seeds an arm" in plane.counts and set(plane.table["arm"]) == {"a", "b"}
