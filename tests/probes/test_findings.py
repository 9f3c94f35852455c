"""Byrote's own findings as claims: effects worked by hand, in every setting or not at all, and in full runs alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from byrote.checkpoints.lab.run_grid import grid_file, read_grid
from byrote.cli.main import cli
from byrote.probes import figures
from byrote.probes.claims.catalogue import CLAIMS, GRIDS, chosen, judged_by
from byrote.probes.claims.finding_repeats import SEQUENCES, per_parameter, worst_pool
from byrote.probes.claims.finding_signal import ARMS
from byrote.probes.claims.judging import UNTESTABLE, judge_claims
from byrote.probes.claims.null_runs import places_of, simulated_runs
from byrote.probes.claims.pipeline import plan_of, table_file
from byrote.probes.claims.runs_table import Place, Runs
from byrote.probes.rules import NOT_REPRODUCED, REPRODUCED, UNDECIDED
from byrote.probes.seed_statistics import partial_spearman, spearman

FINDINGS = chosen(["findings"])
STEPS = np.array((0, 50, 100, 200, 400, 600, 800, 1000, 1200, 1400))


def falls_at(step: float, *, to: float = 0.3) -> np.ndarray:
    """A loss of 3.4 nats before a step, and a low one from it on."""
    return np.where(step <= STEPS, to, 3.4)


def runs_of(name: str, curves, *, seeds: int = 8):
    """A table of runs of a claim: curves(place, metric, generator)."""
    return simulated_runs(places_of(CLAIMS[name]), curves, seeds=seeds)


def word_of(name: str, curves, *, seeds: int = 8) -> str:
    return judge_claims([CLAIMS[name]], runs_of(name, curves, seeds=seeds))[0].word


@pytest.mark.parametrize("name", ["finding-synthetic-delay", "finding-curation-table"])
def test_an_effect_has_to_show_in_every_table_and_size(name):
    control, arm = CLAIMS[name].exchange[:2]

    def curves(place: Place, metric: str, rng: np.random.Generator, *, flat: str = "") -> np.ndarray:
        late = place.arm == arm.arm and place.size != flat
        return falls_at(
            800 if late else 200, to=(0.9 if name.endswith("table") and late else 0.3)
        ) + rng.normal(0, 0.02, 10)

    assert control.arm != arm.arm
    assert word_of(name, curves) == REPRODUCED
    assert word_of(name, lambda p, m, r: curves(p, m, r, flat="d32-t1")) == NOT_REPRODUCED
    assert word_of(name, curves, seeds=4) == UNDECIDED


def test_no_change_has_to_hold_where_most_changes():
    def curves(place: Place, metric: str, rng: np.random.Generator, *, by: float = 0.0) -> np.ndarray:
        moved = by if (place.arm, place.size) == ("spared", "d32-t1") else 0.0
        return np.full(10, 1.0 + moved) + rng.normal(0, 0.01, 10)

    assert word_of("finding-editing-spared", curves) == REPRODUCED
    assert word_of("finding-editing-spared", lambda p, m, r: curves(p, m, r, by=-0.2)) == NOT_REPRODUCED


def test_rank_correlations_are_scipys_and_those_of_residuals():
    rng = np.random.default_rng(0)
    x, y, z = rng.normal(size=(3, 12)) + 0.8 * rng.normal(size=12)
    y[[2, 5]] = np.inf
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    ranks = [stats.rankdata(one) for one in (x, y, z)]
    residuals = [one - np.polyval(np.polyfit(ranks[2], one, 1), ranks[2]) for one in ranks[:2]]
    assert partial_spearman(x, y, z) == pytest.approx(stats.pearsonr(*residuals).statistic)
    assert spearman(x, np.full(12, np.inf)) == partial_spearman(x, y, x) == 0


def test_the_signal_is_compared_with_the_onset_arm_by_arm():
    """Onsets in the reverse order of the signal, repeats in an order of their own; then onsets in the order of repeats alone."""
    signal = {arm: 0.05 + 0.02 * k for k, arm in enumerate(ARMS)}
    repeats = dict(zip(ARMS, (3, 7, 1, 0, 5, 8, 2, 6, 4), strict=True))

    def curves(
        place: Place, metric: str, rng: np.random.Generator, *, by_repeats: bool = False
    ) -> np.ndarray:
        if metric.startswith("data_"):
            value = signal[place.arm] if "signal" in metric else repeats[place.arm]
            return np.full(10, float(value))
        rank = 8 - repeats[place.arm] if by_repeats else 8 - ARMS.index(place.arm)
        return falls_at(STEPS[rank]) if rank else np.full(10, 0.3)

    table = runs_of("finding-signal-onset", curves, seeds=6)
    for name in ("finding-signal-onset", "finding-signal-beyond-repeats"):
        (found,) = judge_claims([CLAIMS[name]], table)
        assert found.word == REPRODUCED and found.verdict.value < -0.95
        assert "over the 9 arms' means" in found.final_words
    other = lambda p, m, r: curves(p, m, r, by_repeats=True)  # noqa: E731
    (found,) = judge_claims(
        [CLAIMS["finding-signal-beyond-repeats"]], runs_of("finding-signal-onset", other, seeds=6)
    )
    assert found.word == NOT_REPRODUCED


def test_the_worst_pool_lies_between_pools():
    x = np.log(SEQUENCES)
    assert worst_pool(3 - (x - np.log(23)) ** 2) == pytest.approx(np.log(23))
    assert worst_pool(x) == np.log(128) and worst_pool(-x) == 0


def test_the_worst_pool_is_divided_by_the_weights():
    """Worst at 8 sequences and at 128, with four times as many weights: four times as many per weight."""
    at = {"d16": 8, "d32": 128}

    def curves(place: Place, metric: str, rng: np.random.Generator) -> np.ndarray:
        pool = 1 if place.arm == "none" else int(place.arm[1:])
        return np.full(10, 3.0 - (np.log(pool) - np.log(at.get(place.size, 8))) ** 2)

    found = per_parameter(Runs(runs_of("finding-repeats-pool", curves)))
    assert found.values == pytest.approx(np.log(4)) and "8 sequences at 5,120 weights and 128" in found.words
    assert word_of("finding-repeats-pool", curves) == NOT_REPRODUCED


@pytest.mark.parametrize(
    ("attention", "word"), [(800, REPRODUCED), (200, NOT_REPRODUCED), (np.inf, UNTESTABLE)]
)
def test_weights_lead_only_to_what_attention_comes_to_show(attention, word):
    def curves(place: Place, metric: str, rng: np.random.Generator) -> np.ndarray:
        if metric == "qk_trace_z":
            return np.where(STEPS >= 200, 8.0, 0.0)
        return np.where(attention <= STEPS, 0.7, 0.05)

    assert word_of("finding-weights-first", curves) == word


def test_onsets_are_drawn_against_the_signal_and_never_is_said():
    def curves(place: Place, metric: str, rng: np.random.Generator) -> np.ndarray:
        if metric.startswith("data_"):
            return np.full(10, 0.1 + 0.01 * ARMS.index(place.arm))
        return np.full(10, 3.4) if place.arm == "by-table" else falls_at(400)

    table = runs_of("finding-signal-onset", curves)
    figure = figures.claim(table, judge_claims([CLAIMS["finding-signal-onset"]], table)[0])
    rows = figure.table.set_index("arm")
    assert list(rows.index) == list(ARMS)
    assert rows.loc["human", "value"] == 400 and rows.loc["by-table", "value"] == 1400
    assert "8 runs never copy and stand at the last step" in figure.alt


def test_findings_have_eight_seeds_other_tables_and_widths_and_are_for_full_runs():
    assert len(FINDINGS) == 15 and all(claim.full_only and not claim.number for claim in FINDINGS)
    grids = {grid for claim in FINDINGS for grid in claim.grids}
    assert all(GRIDS[name].n_seeds(full=True) == 8 for name in grids)
    for first in (name for name in grids if not name.endswith("-again")):
        declared = read_grid(grid_file(GRIDS[first].file)).sizes
        mine = [declared[size] for name in (first, f"{first}-again") for size in GRIDS[name].sizes]
        assert len({config.d_model for config in mine}) == len({config.source for config in mine}) == 2, first
    now, later = judged_by(chosen([]), full=False)
    assert later == FINDINGS and not set(later) & set(now)
    assert judged_by(chosen([]), full=True) == (chosen([]), [])


def test_a_grid_takes_its_own_sizes_of_a_file(tmp_path):
    names = ("findings", "findings-again", "findings-pools", "findings-pools-again")
    planned = {one.grid: one.runs for one in plan_of(FINDINGS, tmp_path, full=True) if one.grid in names}
    assert planned == {
        "findings": 88,
        "findings-again": 88,
        "findings-pools": 128,
        "findings-pools-again": 64,
    }
    assert len({table_file(GRIDS[name], tmp_path, range(8)).name.rsplit("-", 1)[1] for name in names}) == 4


def byrote(*words: object):
    return CliRunner().invoke(cli, ["reproduce", *map(str, words)])


def test_a_quick_run_leaves_them_out_and_says_so(tmp_path):
    listed = {row["name"]: row["full_only"] for row in json.loads(byrote("--list", "--json").stdout)}
    assert {name for name, full_only in listed.items() if full_only} == {claim.name for claim in FINDINGS}
    quick = byrote("hapax", "finding-signal-onset", "--plan", "--json", "-o", tmp_path)
    assert [row["grid"] for row in json.loads(quick.stdout)] == ["masked"]
    assert quick.stderr.count("left out, because they need --full: finding-signal-onset") == 1
    full = byrote("hapax", "finding-signal-onset", "--plan", "--json", "--full", "-o", tmp_path)
    grids = [row["grid"] for row in json.loads(full.stdout)]
    assert grids == ["masked", "findings", "findings-again"] and "left out" not in full.stderr
    refused = byrote("findings", "--plan", "-o", tmp_path)
    assert (
        refused.exit_code == 2
        and "judged by full runs alone" in refused.stderr
        and "--full" in refused.stderr
    )
