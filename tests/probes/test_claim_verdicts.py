"""Verdicts on claims: worked by hand, held against scipy, and never said where labels mean nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade import (
    Claimed,
    Rule,
    corrected,
    judge,
    judge_effects,
    judge_everywhere,
    onset_effects,
    relabelled_rate,
)
from byrote.probes.degrade_calibration import verdict_calibrations
from byrote.probes.findings_degrade import claim_sentence, verdict_sentence
from byrote.probes.seed_statistics import (
    detectable,
    label_p,
    shift_interval,
    sign_flip_p,
    signed_rank_interval,
)

RISE = Rule("rises", 0.05)
CONTROL = np.array([1.0, 1.1, 0.9, 1.05, 0.95])
EFFECTS = np.array([0.4, 0.5, 0.45, 0.55, 0.5])


@pytest.mark.parametrize(
    ("effects", "word"),
    [
        ([0.4, 0.5, 0.45, 0.55, 0.5], "reproduced"),
        ([0.09, 0.04, 0.06, 0.08, 0.03], "reproduced in direction"),
        ([-0.4, -0.5, -0.45, -0.55, -0.5], "not reproduced"),
        ([0.01, -0.02, 0.0, 0.02, -0.01], "not reproduced"),
        ([0.4, -0.5, 0.45, -0.3, 0.5], "undecided"),
        ([0.4, 0.5, 0.45, 0.55], "undecided"),
    ],
)
def test_the_four_words(effects, word):
    found = judge(CONTROL[: len(effects)], CONTROL[: len(effects)] + effects, RISE)
    assert found.word == word
    falls = judge_effects(-np.array(effects), Rule("falls", 0.05))
    assert (falls.word, falls.p, falls.p_exact) == (
        word,
        pytest.approx(found.p),
        pytest.approx(found.p_exact),
    )


def test_p_and_interval_are_students_and_the_exact_p_counts_signs():
    effects = np.array([0.4, 0.5, -0.1, 0.55, 0.3])
    found = judge_effects(effects, RISE)
    student = stats.ttest_1samp(effects, 0, alternative="greater")
    assert found.p == pytest.approx(student.pvalue)
    assert (found.lo, found.hi) == pytest.approx(tuple(stats.ttest_1samp(effects, 0).confidence_interval()))
    sums = [np.dot(signs, effects) for signs in itertools.product((1, -1), repeat=5)]
    assert found.p_exact == sum(s >= effects.sum() - 1e-9 for s in sums) / 32 == 2 / 32


def test_unpaired_runs_are_welchs_and_their_labels_are_permuted():
    a, b = np.array([1.0, 1.2, 0.8, 1.1, 0.9]), np.array([1.5, 2.2, 1.1, 1.9, 1.0])
    found = judge(a, b, Rule("rises", 0.0, paired=False))
    welch = stats.ttest_ind(b, a, equal_var=False, alternative="greater")
    exact = stats.permutation_test(
        (b, a), lambda x, y: x.mean() - y.mean(), alternative="greater", n_resamples=np.inf
    )
    assert found.p == pytest.approx(welch.pvalue)
    assert found.p_exact == pytest.approx(exact.pvalue)


def test_ranks_agree_with_scipy():
    d = np.array([0.3, -0.1, 0.8, 0.5, 0.45, 0.2, -0.25, 1.4])
    assert sign_flip_p(d, ranks=True) == pytest.approx(
        stats.wilcoxon(d, alternative="greater", method="exact").pvalue
    )
    a, b = d[:4], d[4:] + 0.013
    assert label_p(a, b, ranks=True) == pytest.approx(
        stats.mannwhitneyu(b, a, alternative="greater", method="exact").pvalue
    )
    found = signed_rank_interval(d)  # 3 of 256 assignments of signs leave a rank sum of 3 or less: 5 in all
    walsh = sorted((x + y) / 2 for i, x in enumerate(d) for y in d[i:])
    assert (found.lo, found.hi) == (walsh[3], walsh[-4])
    assert found.level == pytest.approx(1 - 2 * 5 / 256)
    pairs = sorted(y - x for x in a for y in b)
    two = shift_interval(a, b)
    assert (two.lo, two.hi, two.level) == (pairs[0], pairs[-1], pytest.approx(1 - 2 / 70))


def test_onsets_that_never_come_count_after_every_step():
    late = onset_effects([100, 150, 100, 200, 100, 120], [200, np.inf, np.inf, 500, np.inf, 360])
    assert late[1] == np.inf and late[0] == pytest.approx(np.log(2))
    assert list(onset_effects([np.inf, np.inf], [np.inf, 100])) == [0.0, -np.inf]
    found = judge_effects(late, Rule("rises", 0.1, kind="ranks"))
    assert (found.word, found.p, found.hi) == ("reproduced", 1 / 64, np.inf)
    assert "only the control gets there" in verdict_sentence(found, "e-folds of steps")
    with pytest.raises(ByroteError, match="a mean cannot be taken of an infinite value"):
        judge_effects(late, RISE)


def test_no_change_takes_two_tests_and_a_size():
    stays = Rule("stays", 0.1)
    near, far = np.array([0.01, -0.02, 0.0, 0.02, -0.01]), np.array([0.4, 0.5, 0.45, 0.55, 0.5])
    found = judge_effects(near, stays)
    one_sided = max(
        stats.ttest_1samp(near, -0.1, alternative="greater").pvalue,
        stats.ttest_1samp(near, 0.1, alternative="less").pvalue,
    )
    assert (found.word, found.p) == ("reproduced", pytest.approx(one_sided))
    assert judge_effects(far, stays).word == judge_effects(-far, stays).word == "not reproduced"
    unsure = judge_effects(10 * near, stays)
    assert unsure.word == "undecided" and unsure.seen > 0.1
    assert judge(CONTROL, CONTROL[::-1].copy(), Rule("stays", 0.5, paired=False)).word == "reproduced"
    with pytest.raises(ByroteError, match="no change needs means and a smallest effect"):
        Rule("stays", 0.0)


def test_power_is_what_it_says():
    """At the effect that would have been seen, four in five simulated claims are called."""
    rng = np.random.default_rng(0)
    shift = detectable(0.2 / np.sqrt(8), 7, smallest=0.05, power=0.8)
    words = [judge_effects(rng.normal(shift, 0.2, 8), RISE).word for _ in range(600)]
    assert 0.76 < words.count("reproduced") / 600 < 0.84


def test_claims_of_one_paper_are_corrected_together():
    weak = judge_effects([0.4, 0.5, 0.3, 0.1, 0.2, 0.35], Rule("rises", 0.0))
    claims = [Claimed(f"claim {i}", "final", final=weak, onset=weak) for i in range(8)]
    one, many = corrected(claims[:1])[0], corrected(claims)[0]
    assert one.verdict.word == "reproduced" and one.verdict.q == weak.p
    assert many.verdict.q == pytest.approx(8 * weak.p) and many.verdict.claims == 8
    ranks = judge_effects([0.4, 0.5, 0.3, 0.1, 0.2], Rule("rises", 0.0, kind="ranks"))
    assert ranks.word == "reproduced" and np.isfinite(ranks.seen)
    (late, _) = corrected([Claimed("late", "onset", onset=ranks), Claimed("later", "onset", onset=ranks)])
    assert late.verdict.word == "undecided" and late.verdict.seen == np.inf
    assert "so few seeds cannot decide it" in claim_sentence(late, "nats")
    with pytest.raises(ByroteError, match="has no verdict on its final value"):
        Claimed("empty", "final")


def test_what_is_said():
    text = verdict_sentence(judge(CONTROL, CONTROL + EFFECTS, RISE), "nats")
    assert text.startswith(
        "reproduced: +0.48 [+0.41, +0.55] nats over 5 seeds (expected a rise of more than 0.05, q"
    )
    unsure = verdict_sentence(judge_effects([0.4, -0.5, 0.45, -0.3, 0.5], RISE), "nats")
    assert "would have been detected in 80% of repetitions" in unsure
    assert "4 seeds a side cannot decide" in verdict_sentence(
        judge_effects([0.4, 0.5, 0.45, 0.6], RISE), "nats"
    )


@pytest.mark.parametrize("control", [[], [1.0, np.nan]])
def test_what_is_no_number_per_seed_is_refused(control):
    with pytest.raises(ByroteError, match="one number per seed"):
        judge(control, control, RISE)


def test_pairs_need_as_many_runs():
    with pytest.raises(ByroteError, match="5 runs of the control and 4 of the arm cannot be paired"):
        judge(CONTROL, CONTROL[:4], RISE)


def test_relabelled_runs_are_not_reproduced_but_for_the_labelling_as_it_was():
    arm = CONTROL + EFFECTS
    assert relabelled_rate(CONTROL, arm, RISE) == 1 / 32
    assert relabelled_rate(CONTROL, arm, Rule("rises", 0.05, paired=False), n=200) <= 0.05


@pytest.mark.parametrize("calibration", verdict_calibrations(), ids=lambda c: c.name)
def test_false_claims_are_seldom_reproduced(calibration):
    found = calibration.check(30, seed=2)
    assert found.passed, found.found


def test_a_rule_without_its_interval_is_noticed(monkeypatch):
    """One-sided p alone at 20%: the calibration must say no."""
    monkeypatch.setattr(
        "byrote.probes.degrade.verdicts.claim_word",
        lambda lo, hi, *, q, **_: "reproduced" if q < 0.2 else "undecided",
    )
    found = verdict_calibrations()[2].check(100, seed=0)
    assert not found.passed, found.found


def test_over_settings_the_weakest_effect_is_covered_from_the_lowest_lower_end_to_the_lowest_wide_upper_end():
    strong, weak = np.array([2.0, 2.2, 2.4, 2.6, 2.8]), np.array([0.2, 0.5, 0.6, 0.9, 1.3])
    found = judge_everywhere([strong, weak], Rule("rises", 0.05))
    alone = judge_effects(weak, Rule("rises", 0.05))
    wide = stats.t.interval(0.975, 4, weak.mean(), stats.sem(weak))
    assert (found.value, found.lo, found.p, found.values) == (alone.value, alone.lo, alone.p, tuple(weak))
    assert found.hi == pytest.approx(wide[1]) and found.hi > alone.hi
    assert found.word == "reproduced" and found.how.endswith("weakest of 2 settings")
    falls = judge_everywhere([-strong, -weak], Rule("falls", 0.05))
    assert (falls.value, falls.lo, falls.hi, falls.word) == (-found.value, -found.hi, -found.lo, found.word)
    assert judge_everywhere([weak], Rule("rises", 0.05)) == alone


def test_over_settings_a_noisy_one_that_is_not_the_weakest_still_has_to_pass():
    steady, noisy = np.full(6, 1.0) + 0.01 * np.arange(6), np.array([-4.0, -1.0, 2.0, 3.0, 5.0, 9.0])
    assert judge_effects(steady, Rule("rises", 0.05)).word == "reproduced"
    found = judge_everywhere([steady, noisy], Rule("rises", 0.05))
    assert found.value == pytest.approx(steady.mean()) and found.word == "undecided"
    assert found.p == judge_effects(noisy, Rule("rises", 0.05)).p


def test_no_change_over_settings_is_that_of_the_one_that_changes_most():
    still, moved = 0.01 * np.arange(-3, 4), 0.2 + 0.01 * np.arange(-3, 4)
    found = judge_everywhere([still, moved], Rule("stays", 0.3))
    assert found.value == pytest.approx(0.2) and found.word == "reproduced"
    assert judge_everywhere([still, moved], Rule("stays", 0.1)).word == "not reproduced"


def test_over_settings_never_is_a_rank():
    never = np.array([np.inf, np.inf, 0.7, 0.9, 1.2, 0.8])
    found = judge_everywhere([never, np.full(6, np.inf)], Rule("rises", 0.1, kind="ranks"))
    assert found.value == judge_effects(never, found.rule).value and found.word == "reproduced"
    with pytest.raises(ByroteError, match="needs one"):
        judge_everywhere([], found.rule)


@pytest.mark.parametrize("kind", ["mean", "ranks"])
@pytest.mark.parametrize("truth", [(0.3, 0.3, 0.3), (0.3, 0.6, 3.0)])
def test_over_settings_the_weakest_effect_is_in_its_interval(kind, truth):
    """Whether the settings tie or not; and effects at the smallest of interest are rarely called either way."""
    rule, rng, n = Rule("rises", 0.3, kind=kind), np.random.default_rng(5), 400
    found = [judge_everywhere([*rng.normal(np.array(truth)[:, None], 1, (3, 8))], rule) for _ in range(n)]
    assert np.mean([one.lo <= 0.3 <= one.hi for one in found]) >= 0.93
    for word in ("reproduced", "not reproduced"):
        assert np.mean([one.word == word for one in found]) <= 0.05
