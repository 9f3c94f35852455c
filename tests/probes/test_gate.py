"""The gate: every kind of rule on results written by hand, where the outcome is known beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planted_series import head_metric, model_metric, rising, write_results

from byrote.checkpoints.errors import ByroteError
from byrote.probes.gate import check, gate_of, read_gate
from byrote.probes.gate.checked import FAIL, PASS, UNDECIDED, enough_of, within
from byrote.probes.registry import lookup
from byrote.probes.results import Results
from byrote.probes.results.schema import from_samples

LOSS = lookup("held_out_loss")


@pytest.fixture(scope="module")
def risen(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Steps 0, 10, 20, 40; head L1H2 is an induction head from 20 on; the later blocks' loss falls there."""
    return Results.open(write_results(tmp_path_factory.mktemp("r"), "risen", verdicts()))


def verdicts(run: str = "risen", *, top: float = 0.9) -> dict[int, list]:
    """`rising` without what no rule here is about."""
    wanted = {"induction", "prefix_matching", "repeat_loss"}
    return {step: [m for m in found if m.probe in wanted] for step, found in rising(run, top=top).items()}


def losses(per_sequence: np.ndarray) -> list:
    return [from_samples(LOSS, "loss", per_sequence, axes=(), chance=4.0, seed=0)]


def outcome(runs, *, finished: bool = True, **rule) -> str:
    runs = runs if isinstance(runs, list) else [runs]
    (one,) = check(gate_of({"expect": [rule]}), runs, finished=finished)
    return one.outcome


def test_an_interval_lies_inside_outside_or_across():
    assert within(1, 2, 1, 2) == PASS  # both ends included
    assert within(1, 2, 2.5, 9) == FAIL and within(1, 2, 0, 0.5) == FAIL
    assert within(1, 2, 1.5, 9) == UNDECIDED and within(1, 2, 0, 1.5) == UNDECIDED
    assert within(float("nan"), float("nan"), 0, 1) == UNDECIDED


def test_enough_of_several_is_known_before_all_are():
    assert enough_of([PASS, UNDECIDED, FAIL], 1) == PASS
    assert enough_of([PASS, UNDECIDED, FAIL], 2) == UNDECIDED
    assert enough_of([PASS, UNDECIDED, FAIL], 3) == FAIL


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"min": 0.2, "step": 40}, PASS),  # 0.30, half of its interval 0.05
        ({"min": 0.3, "step": 40}, UNDECIDED),
        ({"min": 0.4, "step": 40}, FAIL),
        ({"max": 5, "step": "every"}, PASS),
        ({"max": 1, "step": "every"}, FAIL),  # 4.8 at steps 0 and 10
        ({"max": 1, "from_step": 20}, PASS),
        ({"max": 0.3, "from_step": 20}, UNDECIDED),
        ({"max": 1, "from_step": 41}, UNDECIDED),  # nothing is measured there
    ],
)
def test_a_number_at_a_step_and_at_every_step(risen, rule, expected):
    assert outcome(risen, probe="repeat_loss", metric="later_blocks", **rule) == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"onset_before": 20}, PASS),  # not there at 10, there at 20
        ({"onset_before": 15}, UNDECIDED),
        ({"onset_before": 10}, FAIL),
        ({"onset_after": 10}, PASS),
        ({"onset_after": 11}, UNDECIDED),
        ({"onset_after": 20}, FAIL),
        ({"head": "L1H2", "onset_before": 20}, PASS),
        ({"head": "L0H0", "onset_before": 40}, FAIL),  # never called
        ({"head": "L0H0", "onset_before": 41}, UNDECIDED),  # measured up to 40
        ({"head": "L0H0", "onset_after": 40}, PASS),
        ({"head": "all", "onset_before": 40}, FAIL),
    ],
)
def test_the_onset_of_the_verdict_is_decided_by_its_bracket(risen, rule, expected):
    assert outcome(risen, probe="induction", **rule) == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"level": 0.5, "onset_before": 20}, PASS),
        ({"level": 0.5, "onset_before": 10}, FAIL),
        ({"level": 0.5, "onset_before": 15}, UNDECIDED),
        (
            {"level": 0.95, "onset_before": 40},
            FAIL,
        ),  # 0.90, half of its interval 0.02: surely below at every step
        ({"level": 0.95, "onset_before": 50}, UNDECIDED),
        ({"level": 0.91, "onset_before": 40}, UNDECIDED),  # the interval at 40 holds it
        ({"level": 0.95, "onset_after": 20}, PASS),
        ({"onset_before": 20}, PASS),  # half of its own rise
    ],
)
def test_the_onset_of_a_number_is_decided_by_its_interval(risen, rule, expected):
    assert outcome(risen, probe="prefix_matching", head="L1H2", **rule) == expected


def test_a_run_that_goes_on_breaks_only_by_what_cannot_change(risen):
    loss = {"probe": "repeat_loss", "metric": "later_blocks"}
    assert (
        outcome(risen, finished=False, **loss, max=0.1) == UNDECIDED
    )  # of the last step, which is not known
    assert outcome(risen, finished=False, **loss, max=0.1, step=50) == UNDECIDED  # not measured yet
    assert outcome(risen, finished=False, **loss, max=1, step=10) == FAIL
    assert outcome(risen, finished=False, **loss, max=1, step="every") == FAIL
    assert outcome(risen, finished=False, **loss, max=5, step="every") == UNDECIDED  # so far
    assert outcome(risen, finished=False, probe="induction", onset_before=10) == FAIL
    assert outcome(risen, finished=False, probe="prefix_matching", head="any", onset_before=5) == UNDECIDED
    rules = gate_of({"expect": [{**loss, "max": 1}, {**loss, "max": 1, "from_step": 5}]}).rules
    assert [rule.stops for rule in rules] == [False, True]


def test_every_broken_rule_of_a_run_that_goes_on_is_broken_at_its_end(tmp_path):
    units = verdicts()
    rules = [{"probe": "induction", "onset_before": 15}, {"probe": "induction", "onset_after": 15}]
    rules += [{"probe": "repeat_loss", "metric": "later_blocks", "max": 4, "from_step": 10}]
    rules += [{"probe": "prefix_matching", "head": "L1H2", "level": 0.5, "onset_before": 10}]
    at_end, early = set(), set()
    for n in range(1, 5):
        part = {step: units[step] for step in list(units)[:n]}
        run = Results.open(write_results(tmp_path / str(n), "risen", part))
        for finished, found in ((n == 4, at_end), (False, early)):
            checks = check(gate_of({"expect": rules}), [run], finished=finished)
            found |= {i for i, one in enumerate(checks) if one.broken and (finished or found is early)}
    assert early == at_end == {2, 3}


@pytest.fixture
def against(tmp_path):
    """`against(factor)`: a baseline with losses around 2 nats, and a run with so many times them, on 32 sequences."""
    a = 2 + 0.5 * np.random.default_rng(0).normal(size=32)

    def make(factor: float = 1.1, offset: float = 0.0) -> list[Results]:
        both = {"base": a, "other": factor * a + offset}
        return [
            Results.open(write_results(tmp_path, n, {0: losses(a), 10: losses(x)})) for n, x in both.items()
        ]

    return make


def test_a_change_is_of_paired_sequences(against):
    runs, rule = against(1.1), {"probe": "held_out_loss", "baseline": "base", "run": "other"}
    # Every sequence is 10% worse: the quotient of the means is 1.1 without any spread, whatever sequences are drawn.
    assert outcome(runs, **rule, change="percent", max=10.001) == PASS
    assert outcome(runs, **rule, change="percent", max=9.999) == FAIL
    assert outcome(runs, **rule, change="percent", min=9.999) == PASS
    by_nats = 0.1 * float(runs[0].select("held_out_loss", "loss", step=10)["value"].iloc[0])
    assert outcome(runs, **rule, change="nats", max=by_nats) == UNDECIDED  # its spread is that of the losses
    assert outcome(runs, **rule, change="nats", max=2 * by_nats) == PASS
    assert outcome(runs, **rule, change="nats", max=by_nats / 2) == FAIL
    assert outcome(runs, **rule, change="nats", max=1e-9, step=0) == PASS  # the same weights
    assert outcome(runs, **rule, change="percent", max=5, from_step=0) == FAIL
    (shifted,) = check(gate_of({"expect": [{**rule, "change": "nats", "max": 0.3}]}), against(1.0, 0.25))
    assert shifted.outcome == PASS and shifted.found == "+0.250 [+0.250, +0.250] nats"


def test_a_baseline_is_a_run_or_a_folder_beside_the_file(against, tmp_path):
    other = against(2.0)[1]
    text = '[[expect]]\nprobe = "held_out_loss"\nbaseline = "base"\nchange = "percent"\nmax = 5\n'
    (tmp_path / "gate.toml").write_text(text)
    (one,) = check(read_gate(tmp_path / "gate.toml"), [other])
    assert one.broken and one.run == "other" and one.found == "+100 [exact] percent"
    (tmp_path / "gate.toml").write_text(text.replace('"base"', '"bse"'))
    with pytest.raises(ByroteError, match="neither a run given here nor a results folder"):
        check(read_gate(tmp_path / "gate.toml"), [other])


def test_no_lint_errors(tmp_path):
    def run(name: str, *facts: dict, lint: bool = True) -> Results:
        meta = {"lint": {"facts": list(facts), "left_out": {}}} if lint else {}
        return Results.open(
            write_results(tmp_path, name, {10: [model_metric("held_out_loss", "loss", 2.0)]}, **meta)
        )

    error = {"kind": "identical_steps", "severity": "error", "steps": [10, 20]}
    warning = {"kind": "missing_steps", "severity": "warning", "steps": [30]}
    assert outcome(run("clean"), lint="error") == PASS
    assert outcome(run("warned", warning), lint="error") == PASS
    assert outcome(run("warned", warning), lint="warning") == FAIL
    assert outcome(run("warned", warning), lint="warning", allow=["missing_steps"]) == PASS
    (one,) = check(gate_of({"expect": [{"lint": "error"}]}), [run("doubled", error, warning)])
    assert one.broken and one.found == "1 fact: error identical steps (steps 10 and 20)"
    assert outcome(run("unknown", lint=False), lint="error") == UNDECIDED


def test_an_arm_is_judged_by_how_many_of_its_seeds_pass(tmp_path):
    def runs(*tops: float) -> list[Results]:
        arm = {"kind": "repeated", "repeat_frac": 0.5}
        return [
            Results.open(
                write_results(tmp_path / str(tops), f"r{i}", verdicts(f"r{i}", top=top), arm=arm, seed=i)
            )
            for i, top in enumerate(tops)
        ]

    rule = {"group": "repeated f=0.5", "probe": "induction", "head": "any", "min": 1}
    both = runs(0.9, 0.9, 0.3)  # the third forms no induction head
    assert outcome(both, **rule) == FAIL
    assert outcome(both, **rule, seeds=2) == PASS
    assert outcome(both, **rule, seeds="any") == PASS
    assert outcome(both, **rule, seeds=4) == UNDECIDED
    assert outcome(both, **rule | {"group": "r[01]"}) == PASS  # by their names
    (one,) = check(gate_of({"expect": [rule]}), both)
    assert one.run == "repeated f=0.5 (3 runs)" and "1 of 3 fail (r2)" in one.found
    with pytest.raises(ByroteError, match="no run here has the arm or the name 'repeatd'") as caught:
        outcome(both, **rule | {"group": "repeatd"})
    assert "repeated f=0.5" in caught.value.help or "choose from" in caught.value.help


def test_the_mean_over_seeds_has_students_interval(tmp_path):
    values = (1.0, 2.0, 3.0)
    runs = [
        Results.open(
            write_results(tmp_path, f"r{i}", {10: [model_metric("held_out_loss", "loss", v, half=0.0)]})
        )
        for i, v in enumerate(values)
    ]
    rule = {"group": "r*", "seeds": "mean", "probe": "held_out_loss"}
    (one,) = check(gate_of({"expect": [{**rule, "max": 5}]}), runs)
    half = 4.3027 / np.sqrt(3)  # t of 2 degrees of freedom, standard deviation 1
    assert one.outcome == PASS
    assert [one.judged.lo, one.judged.hi] == pytest.approx([2 - half, 2 + half], abs=1e-3)
    assert outcome(runs, **rule, max=4) == UNDECIDED and outcome(runs, **rule, min=4.5) == FAIL
    assert outcome(runs[:1], **rule, max=5) == UNDECIDED  # of one seed no spread is known


def test_undecided_counts_as_the_file_says(risen):
    rule = {"probe": "repeat_loss", "metric": "later_blocks", "max": 0.3}
    for said, passed in (({}, False), ({"undecided": "pass"}, True)):
        (one,) = check(gate_of({"expect": [rule], **said}), [risen])
        assert one.outcome == UNDECIDED and one.passed == passed and not one.broken
    (one,) = check(gate_of({"expect": [{**rule, "undecided": "fail"}], "undecided": "pass"}), [risen])
    assert not one.passed


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        ({"probe": "induction", "onset_before": 5, "min": 1}, "a rule with onset_before has no min"),
        ({"probe": "induction", "onset_before": 5, "level": 0.5}, "leave level out"),
        ({"probe": "prefix_matching", "level": 0.5}, "add one: onset_before"),
        ({"probe": "held_out_loss", "change": "nats", "max": 1}, "add baseline"),
        ({"probe": "held_out_loss", "baseline": "a", "change": "bits", "max": 1}, 'change = "nats"'),
        ({"probe": "prefix_matching", "head": "any", "baseline": "a", "change": "percent", "max": 1}, "L1H0"),
        ({"probe": "held_out_loss", "max": 1, "step": 5, "from_step": 3}, "leave out step"),
        ({"probe": "held_out_loss", "max": 1, "seeds": 3}, "add group"),
        ({"probe": "held_out_loss", "max": 1, "min": 2}, "exchange them"),
        ({"probe": "held_out_loss", "max": float("nan")}, "numbers are bare"),
        ({"probe": "held_out_loss", "max": 1, "group": "a", "seeds": 0}, "give a number from 1"),
        ({"probe": "held_out_loss", "max": 1, "run": "a", "group": "b"}, "name one of them"),
        ({"lint": "note"}, "choose from: error, warning"),
        ({"lint": "error", "allow": ["mising_steps"]}, "did you mean 'missing_steps'"),
        ({"lint": "error", "probe": "induction"}, "a rule with lint has no probe"),
        ({"probe": "held_out_loss", "max": 1, "undecided": "maybe"}, "choose from: fail, pass"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_with_what_to_write(rule, match):
    with pytest.raises(ByroteError) as caught:
        gate_of({"expect": [rule]})
    assert match in caught.value.help


def test_rules_know_their_lines(tmp_path):
    path: Path = tmp_path / "gate.toml"
    path.write_text(
        '# rules\n\n[[expect]]\nlint = "error"\n\n [[ expect ]]\nprobe = "induction"\nonset_before = 5\n'
    )
    assert [rule.line for rule in read_gate(path).rules] == [3, 6]


def test_a_head_by_name_needs_runs_of_the_same_weights(tmp_path):
    runs = [
        Results.open(
            write_results(tmp_path, name, {10: [head_metric("prefix_matching", np.full((2, 3), 0.5))]})
        )
        for name in ("a", "b")
    ]
    rule = {
        "probe": "prefix_matching",
        "head": "L0H1",
        "baseline": "a",
        "run": "b",
        "change": "percent",
        "max": 1,
    }
    with pytest.raises(ByroteError, match="heads are not compared by name"):
        outcome(runs, **rule)
