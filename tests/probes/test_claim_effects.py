"""Effects of single claims: worked by hand, against closed forms, and on runs of known truth."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from byrote.probes.claims.catalogue import CLAIMS
from byrote.probes.claims.judging import UNTESTABLE, as_json, judge_claims
from byrote.probes.claims.linear_mixtures import DIMENSIONS, GENERATOR_SAMPLES, grams, mixture_risks
from byrote.probes.claims.null_runs import simulated_runs
from byrote.probes.claims.record import NotTestable
from byrote.probes.claims.runs_table import Place, tidy
from byrote.probes.claims.seed_effects import delay, order
from byrote.probes.degrade.effective_data import effective_data
from byrote.probes.rules import NOT_REPRODUCED, REPRODUCED


def verdict_of(name: str, table: pd.DataFrame):
    (found,) = judge_claims([CLAIMS[name]], table)
    return found


# Mixtures of real and synthetic labels.


def test_gram_matrices_have_the_moments_of_sums_of_squares():
    found = grams(np.random.default_rng(0), 50, d=3, repeats=10_000)
    assert found.mean(0) == pytest.approx(50 * np.eye(3), abs=0.5)
    assert found[:, 0, 0].var() == pytest.approx(2 * 50, rel=0.05)  # chi squared
    assert found[:, 0, 1].var() == pytest.approx(50, rel=0.05)


def test_risks_of_mixtures_are_those_of_the_closed_forms():
    rng = np.random.default_rng(1)
    real = mixture_risks(rng, 0.0, samples=(400, 4000), repeats=2000)
    assert real == pytest.approx([DIMENSIONS / (n - DIMENSIONS - 1) for n in (400, 4000)], rel=0.05)
    # One dimension: the generator's pull is a beta variable, S_p / S ~ B(n_p / 2, n_r / 2), independent of S.
    n, share, m = 200, 0.3, GENERATOR_SAMPLES
    a, b = share * n / 2, (1 - share) * n / 2
    squared = a * (a + 1) / ((a + b) * (a + b + 1))
    (found,) = mixture_risks(rng, share, samples=(n,), d=1, repeats=60_000)
    assert found == pytest.approx(squared / (m - 2) + 1 / (n - 2), rel=0.03)
    # Many samples: nothing but the pull is left.
    (last,) = mixture_risks(rng, 0.1, samples=(1 << 30,), repeats=4000)
    assert last == pytest.approx(0.01 * DIMENSIONS / (m - DIMENSIONS - 1), rel=0.05)


def _risks(slopes: dict[str, float]) -> pd.DataFrame:
    rows = [
        {"grid": "linear-mixtures", "arm": arm, "init_seed": seed, "data_seed": seed, "step": n, "excess_risk": n**slope * (1 + seed / 100)}
        for arm, slope in slopes.items()
        for seed in range(6)
        for n in (1_000, 4_000, 16_000, 64_000, 256_000)
    ]  # fmt: skip
    return tidy(rows)


def test_a_plateau_is_a_slope_of_nothing_and_a_slower_fall_is_none():
    arms = ("real", "synthetic 1%", "synthetic 10%", "synthetic 50%")
    flat = _risks(dict(zip(arms, (-1.0, -0.2, -0.05, 0.0), strict=True)))
    found = [verdict_of(name, flat) for name in ("dohmatob-plateau", "dohmatob-one-percent")]
    assert [one.word for one in found] == [REPRODUCED, REPRODUCED]
    assert [one.verdict.value for one in found] == pytest.approx([-0.05, 0.8])
    assert "-1.00 with 0%" in found[0].final_words
    slow = _risks(dict(zip(arms, (-1.0, -0.9, -0.5, 0.0), strict=True)))
    for name in ("dohmatob-plateau", "dohmatob-one-percent"):
        assert verdict_of(name, slow).word == NOT_REPRODUCED


# Epochs.


def _epochs(r_star: float, *, seeds: int = 5) -> pd.DataFrame:
    rng, rows = np.random.default_rng(0), []
    for size, total in (("long", 32_000), ("short", 16_000)):
        for arm, unique in (("unique", total), *((f"c{n}", n) for n in (16_000, 8_000, 4_000, 2_000, 500))):
            loss = 1.6 + 30 * float(effective_data(unique, total / unique, r_star)) ** -0.4
            rows += [
                {"grid": "epochs", "arm": arm, "size": size, "init_seed": seed, "data_seed": seed, "step": step, "guess_nats": 3.4,
                 "epochs": total / unique, "test_loss": loss + rng.normal(0, 0.004), "copy_loss": loss - 1}
                for seed in range(seeds) for step in (10, 20)
            ]  # fmt: skip
    return tidy(rows)


def test_four_epochs_are_free_where_repeats_are_worth_much_and_not_where_little():
    free, dear = _epochs(15.4), _epochs(0.8)
    assert verdict_of("muennighoff-four-epochs", free).word == REPRODUCED
    assert verdict_of("muennighoff-four-epochs", dear).word == NOT_REPRODUCED
    found = verdict_of("muennighoff-decay", free)
    assert found.word == REPRODUCED and "R* refitted 1" in found.final_words  # 15, or nearly
    assert verdict_of("muennighoff-decay", _epochs(1e6)).word == NOT_REPRODUCED


def test_a_loss_that_rises_with_epochs_leaves_r_star_out():
    table = _epochs(15.4)
    table.loc[(table["arm"] == "c500") & (table["size"] == "long"), "test_loss"] = 9.0
    assert (
        "R* is not fitted: with 500 unique tokens the loss rises"
        in verdict_of("muennighoff-decay", table).final_words
    )


# Orders, clamps, frequencies.


def _steps(at: dict[str, dict[str, float]], claim: str, *, seeds: int = 8) -> pd.DataFrame:
    """Curves that pass from low to high (of losses: from high to low) at a step of each arm or size and metric."""
    steps = np.array((0, 50, 100, 200, 400, 600, 800, 1000, 1200, 1400))

    def curves(place: Place, metric: str, rng: np.random.Generator) -> np.ndarray:
        past = steps >= at.get(place.arm, at.get(place.size, {})).get(metric, 600)
        return (np.where(past, 0.2, 3.0) if metric.endswith("loss") else past.astype(float)) + rng.normal(
            0, 0.01, 10
        )

    return simulated_runs(CLAIMS[claim].picture.places, curves, seeds=seeds)


def test_memories_are_ordered_by_when_they_recall_half():
    order = {"output_recall": 100, "key_recall": 400, "position_recall": 200}
    table = _steps({"unique": order}, "bietti-output-first")
    first, last = (verdict_of(name, table) for name in ("bietti-output-first", "bietti-positions-last"))
    assert first.word == REPRODUCED and first.verdict.value == pytest.approx(np.log(4))
    assert last.word == NOT_REPRODUCED and last.verdict.value == pytest.approx(-np.log(2))
    assert "positions at step 200 (median)" in last.onset_words


def test_a_memory_that_never_forms_has_no_place_in_the_order():
    order = {"output_recall": 100, "key_recall": 400, "position_recall": math.inf}
    table = _steps({"unique": order}, "bietti-output-first")
    first, last = (verdict_of(name, table) for name in ("bietti-output-first", "bietti-positions-last"))
    assert first.word == REPRODUCED and last.word == UNTESTABLE
    assert (
        "most runs end without one of the two" in last.words
        and "(0.00 of positions at the end)" in last.words
    )


ORDERS = ("bietti-output-first", "bietti-positions-last", "composition-leads", "finding-weights-first")
BY_ONSET = [one for one in CLAIMS.values() if one.primary == "onset"]


@pytest.mark.parametrize("claim", BY_ONSET, ids=[one.name for one in BY_ONSET])
def test_what_never_appears_is_neither_early_nor_late(claim):
    def nothing(place: Place, metric: str, rng: np.random.Generator) -> np.ndarray:
        return np.full(10, 3.0 if metric.endswith("loss") else 0.0)

    table = simulated_runs((*claim.exchange, *claim.picture.places), nothing, seeds=6)
    found = verdict_of(claim.name, table)
    assert found.word == UNTESTABLE
    assert ("without one of the two" if claim.name in ORDERS else "on neither side") in found.words


def test_an_onset_beside_what_decides_takes_no_verdict_away():
    table = _steps({"unique": {"copy_loss": math.inf}}, "olsson-two-layers")
    found = verdict_of("olsson-two-layers", table)
    assert found.word == NOT_REPRODUCED and found.verdicts.onset is None
    assert "on neither side" in found.onset_words
    assert as_json(found)["onset"] == {"verdict": UNTESTABLE, "words": found.onset_words}


def test_late_in_half_of_the_seeds_is_late():
    before, after = np.full(6, 200.0), np.array([400.0, 400, 400, np.inf, np.inf, np.inf])
    assert delay(before, after, "").values == pytest.approx([np.log(2)] * 3 + [np.inf] * 3)
    assert order(before, after, "").values[-1] == np.inf
    with pytest.raises(NotTestable, match="never heard of"):
        order(before, np.append(after[1:], np.inf), "never heard of")
    assert delay(before, np.full(6, np.inf), "").values.tolist() == [np.inf] * 6


def test_a_clamp_that_brings_copying_forward_is_told_from_one_that_does_not():
    table = _steps({"previous-token": {"copy_loss": 200}, "match": {"copy_loss": 800}}, "singh-match")
    sooner, later = (verdict_of(name, table) for name in ("singh-previous-token", "singh-match"))
    assert sooner.word == REPRODUCED and sooner.verdict.value == pytest.approx(np.log(200 / 600))
    assert later.word == NOT_REPRODUCED and "clamped to attend evenly at step 600" in later.onset_words


@pytest.mark.parametrize(("strongest", "word"), [(0.1, REPRODUCED), (0.9, NOT_REPRODUCED)])
def test_heads_are_redundant_where_the_strongest_can_be_spared(strongest, word):
    rows = [
        {"grid": "induction-heads", "arm": "unique", "size": "d32", "init_seed": seed, "data_seed": seed, "step": 9,
         "joint_change": 3.0, "top_change": 3 * strongest + seed / 50}
        for seed in range(6)
    ]  # fmt: skip
    assert verdict_of("singh-redundant", tidy(rows)).word == word


@pytest.mark.parametrize(("alone", "word"), [(2.9, NOT_REPRODUCED), (1.5, REPRODUCED), (0.0, NOT_REPRODUCED)])
def test_heads_add_up_where_neither_one_nor_the_rest_does_it_all(alone, word):
    rows = [
        {"grid": "induction-heads", "arm": "unique", "size": "d32", "init_seed": seed, "data_seed": seed, "step": 9,
         "first_gain": alone + seed / 500, "rest_gain": 2.9 - alone}
        for seed in range(6)
    ]  # fmt: skip
    assert verdict_of("singh-additive", tidy(rows)).word == word


def test_frequency_and_reliability_are_told_apart():
    levels = {"none": 0.03, "tenth-quarter": 0.3, "tenth": 0.3, "every-quarter": 0.8, "every": 0.8}
    places = CLAIMS["aoyama-frequency"].picture.places
    table = simulated_runs(
        places, lambda place, metric, rng: np.full(10, levels[place.arm]) + rng.normal(0, 0.01, 10), seeds=5
    )
    found = {name: verdict_of(f"aoyama-{name}", table) for name in ("frequency", "reliability", "a-tenth")}
    assert [one.word for one in found.values()] == [REPRODUCED, NOT_REPRODUCED, REPRODUCED]
    assert found["frequency"].verdict.value == pytest.approx(0.5, abs=0.02)


def test_composition_through_keys_stands_beside_the_stronger_of_the_others():
    rows = [
        {"grid": "induction-heads", "arm": "unique", "size": "d32", "init_seed": seed, "data_seed": seed, "step": 9,
         "k_composition": 0.5 + seed / 100, "q_composition": 0.1, "v_composition": 0.2}
        for seed in range(6)
    ]  # fmt: skip
    found = verdict_of("elhage-k-composition", tidy(rows))
    assert found.word == REPRODUCED and found.verdict.value == pytest.approx(0.3 + 0.025)
