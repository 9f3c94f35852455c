"""Claims: effects worked by hand, verdicts on runs of known truth, the table of runs, and rules on arms that mean nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from byrote.checkpoints.errors import ByroteError
from byrote.probes.claims.catalogue import CLAIMS, GRIDS, PAPERS, chosen
from byrote.probes.claims.gather import series_rows
from byrote.probes.claims.judging import UNTESTABLE, as_json, judge_claims, null_rate
from byrote.probes.claims.linear_models import (
    COPIES,
    SEEN,
    SHARE,
    TOTAL,
    duplicate_risks,
    generation_risks,
)
from byrote.probes.claims.null_runs import METRICS, null_table, simulated_runs
from byrote.probes.claims.runs_table import Place, Runs, read_runs, tidy, write_runs
from byrote.probes.claims.seed_effects import copying_onset, inner_peak, rise_and_fall, worst_inside
from byrote.probes.claims_calibration import called
from byrote.probes.degrade.dose_response import peak
from byrote.probes.rules import NOT_REPRODUCED, REPRODUCED, UNDECIDED

COMPARATIVE = [claim for claim in CLAIMS.values() if claim.exchange]
PEAK = CLAIMS["hernandez-inverted-u"]


def curve(place: Place, metric: str, rng: np.random.Generator, level: float) -> np.ndarray:
    return np.linspace(3.5, level, 10) + rng.normal(0, 0.02, 10)


def doses(levels: dict[str, float], *, seeds: int = 5, seed: int = 0) -> pd.DataFrame:
    """Runs of the doses of claim 1 that end at these losses."""
    return simulated_runs(
        PEAK.exchange, lambda p, m, rng: curve(p, m, rng, levels[p.arm]), seeds=seeds, seed=seed
    )


def test_a_peak_is_chosen_on_the_other_seeds():
    values = np.array([[1.0, 2.0, 5.0, 1.5], [1.0, 4.0, 3.0, 1.5], [1.0, 4.0, 3.0, 2.5]])
    # Sums of the others, inside: seed 0: 8, 6; seed 1: 6, 8; seed 2: 6, 8.
    assert worst_inside(values).tolist() == [1, 2, 2]
    assert inner_peak(values).tolist() == [0.5, 1.5, 0.5]


def test_the_worst_dose_is_the_one_that_doses_are_judged_by_elsewhere():
    values = np.random.default_rng(3).normal(2.0, 0.3, (6, 7))
    found = peak(list(range(7)), list(values.T), paired=True, smallest=0.0, permutations=0)
    at = worst_inside(values)
    assert found.chosen == {dose: pytest.approx((at == dose).mean()) for dose in range(1, 6)}
    read = values[np.arange(6), at]
    assert found.over_smallest.value == pytest.approx((read - values[:, 0]).mean())
    assert inner_peak(values).mean() <= min(found.over_smallest.value, found.over_largest.value) + 1e-12


def test_a_second_fall_counts_only_after_a_first():
    assert rise_and_fall(np.array([3.0, 3.0, 1.0, 1.0, 4.0, 4.0, 2.0, 2.0])) == 2.0
    assert rise_and_fall(np.array([1.0, 1.0, 4.0, 4.0, 4.0, 2.0, 2.0, 2.0])) == 0.0
    assert rise_and_fall(np.array([3.0, 3.0, 1.0, 1.0, 9.0, 1.0, 1.0])) == 0.0  # one step alone
    assert rise_and_fall(np.linspace(3, 1, 8)) == 0.0


def test_an_onset_has_to_last_and_never_is_infinite():
    place = Place("g", "a")
    rows = [
        {
            "grid": "g",
            "arm": "a",
            "init_seed": seed,
            "data_seed": seed,
            "step": step,
            "guess_nats": 2.0,
            "copy_loss": loss,
        }
        for seed, losses in enumerate(
            [(2.0, 0.5, 2.0, 0.9, 0.9), (2.0, 2.0, 2.0, 2.0, 0.9), (2.0, 2.0, 2.0, 2.0, 1.0)]
        )
        for step, loss in zip((0, 10, 20, 30, 40), losses, strict=True)
    ]
    runs = Runs(tidy(rows))
    assert copying_onset(runs, place, runs.seeds(place)).tolist() == [30.0, 40.0, np.inf]


def test_a_planted_inverted_u_is_reproduced_and_a_slope_is_not():
    arms = [place.arm for place in PEAK.exchange]
    hill = dict(zip(arms, (1.5, 1.6, 1.8, 2.5, 3.0, 2.6, 2.2, 2.0, 1.9), strict=True))
    slope = dict(zip(arms, np.linspace(1.5, 3.0, len(arms)), strict=True))
    (found,) = judge_claims([PEAK], doses(hill))
    assert found.word == REPRODUCED and found.verdict is not None
    assert found.verdict.value == pytest.approx(3.0 - 1.9, abs=0.05)
    assert "a pool of 16 in 5 of 5 seeds" in found.final_words
    (found,) = judge_claims([PEAK], doses(slope))
    assert found.word == NOT_REPRODUCED
    (found,) = judge_claims([PEAK], doses(hill, seeds=4))
    assert found.word == UNDECIDED  # never of fewer than five seeds


def test_labels_that_are_exchanged_seldom_show_a_true_peak():
    arms = [place.arm for place in PEAK.exchange]
    table = doses(dict(zip(arms, (1.5, 1.6, 1.8, 2.5, 3.0, 2.6, 2.2, 2.0, 1.9), strict=True)))
    assert null_rate(PEAK, table, n=40) <= 0.05
    two = CLAIMS["olsson-two-layers"]
    table = simulated_runs(
        two.exchange, lambda p, m, rng: curve(p, m, rng, 0.3 if p.size == "two" else 2.6), seeds=5
    )
    assert judge_claims([two], table)[0].word == REPRODUCED
    assert null_rate(two, table) == 1 / 32  # all 2^5 ways to exchange pairs, one of them as it was


@pytest.mark.parametrize("claim", COMPARATIVE, ids=lambda claim: claim.name)
def test_arms_that_mean_nothing_are_not_called(claim):
    assert sum(called(claim, seed=i) for i in range(2)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("claim", COMPARATIVE, ids=lambda claim: claim.name)
def test_arms_that_mean_nothing_are_called_in_at_most_a_twentieth(claim):
    assert sum(called(claim, seed=i) for i in range(200)) <= 18  # 99% of binomial(200, 5%)


def test_claims_of_a_paper_are_corrected_together():
    claims = [CLAIMS["olsson-two-layers"], CLAIMS["olsson-smeared-keys"]]
    levels = {"one": 2.6, "two": 0.6, "smeared": 2.5}
    places = dict.fromkeys(place for claim in claims for place in claim.exchange)
    table = simulated_runs(
        [*places], lambda p, m, rng: curve(p, m, rng, levels[p.size] + rng.normal(0, 0.1)), seeds=5
    )
    alone = [judge_claims([claim], table)[0].verdict for claim in claims]
    both = [judged.verdict for judged in judge_claims(claims, table)]
    assert [verdict.claims for verdict in (*alone, *both)] == [1, 1, 2, 2]
    assert both[0].q == pytest.approx(2 * alone[0].p) and both[1].q >= alone[1].p


def test_every_claim_can_be_judged_or_says_why_not():
    for claim in CLAIMS.values():
        assert claim.paper in PAPERS and set(claim.grids) <= set(GRIDS), claim.name
        if claim.untestable:
            assert judge_claims([claim], tidy([]))[0].word == UNTESTABLE
            continue
        table = null_table(claim, seeds=3, seed=0)
        data = as_json(judge_claims([claim], table)[0])
        if data["verdict"] == UNTESTABLE:  # nothing forms in this table, so that nothing is compared
            assert claim.primary == "onset" and data["why"].startswith(("most runs end", "in most seeds")), (
                claim.name
            )
            continue
        assert data["verdict"] == UNDECIDED and data[claim.primary]["seeds"] == 3, claim.name


def test_a_claim_without_a_rule_is_refused():
    with pytest.raises(ByroteError, match="cannot be judged"):
        replace(PEAK, rule=None)


def test_names_of_claims_and_papers():
    assert {claim.paper for claim in chosen(["hernandez"])} == {"hernandez"}
    assert [claim.name for claim in chosen(["linear-edit", "linear-edit"])] == ["linear-edit"]
    assert len(chosen([])) == len(CLAIMS)
    with pytest.raises(ByroteError) as caught:
        chosen(["hernandes"])
    assert "hernandez" in caught.value.help


# The table.


def test_a_table_is_read_as_it_was_written(tmp_path):
    table = null_table(PEAK, seeds=2, seed=1)
    write_runs(tmp_path / "runs.parquet", table)
    pd.testing.assert_frame_equal(read_runs(tmp_path / "runs.parquet"), table)
    assert set(METRICS) <= set(table.columns)


def _damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _unsealed(path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"grid": ["g"], "../../x": [1.0]}), path)


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("damage", [_damaged, _unsealed, _link, Path.unlink])
def test_a_table_of_a_stranger_is_refused(tmp_path, damage):
    path = tmp_path / "runs.parquet"
    write_runs(path, null_table(PEAK, seeds=1, seed=1))
    damage(path)
    with pytest.raises(ByroteError):
        read_runs(path)


def test_rows_that_stand_there_twice_or_have_odd_columns_are_refused():
    row = {"grid": "g", "arm": "a", "init_seed": 0, "data_seed": 0, "step": 0}
    with pytest.raises(ByroteError, match="twice"):
        tidy([row, row])
    with pytest.raises(ByroteError, match="not a valid metric name"):
        tidy([row | {"Bad name": 1.0}])


def test_what_is_missing_is_named():
    runs = Runs(null_table(PEAK, seeds=2, seed=1))
    with pytest.raises(ByroteError, match="no runs of 'P3'") as caught:
        runs.seeds(Place("hernandez", "P3", "d16"))
    assert "P32" in caught.value.help
    with pytest.raises(ByroteError, match="nonsense was not measured"):
        runs.final(PEAK.exchange[0], "nonsense", runs.seeds(PEAK.exchange[0]))


# Two linear models.


def test_risks_of_duplicates_are_those_of_the_closed_form():
    """Noise averaged out by algebra: E |w|^2 = tr((X'WX)^-1 X'W^2X (X'WX)^-1)."""
    found = np.mean([duplicate_risks(seed, repeats=8) for seed in range(3)], axis=0)
    expected = np.zeros(len(COPIES))
    n_copied = int(SHARE * TOTAL)
    for i in range(24):
        x = np.random.default_rng(1000 + i).normal(size=(TOTAL, SEEN))
        for k, copies in enumerate(COPIES):
            heavy = n_copied // copies
            rows = np.r_[:heavy, n_copied:TOTAL]
            weight = np.r_[np.full(heavy, n_copied / heavy), np.ones(TOTAL - n_copied)]
            inverse = np.linalg.inv(x[rows].T @ (x[rows] * weight[:, None]))
            expected[k] += np.trace(inverse @ (x[rows].T @ (x[rows] * weight[:, None] ** 2)) @ inverse) / 24
    assert found == pytest.approx(expected, rel=0.35)
    assert 0 < expected.argmax() < len(COPIES) - 1


def test_a_generation_that_replaces_adds_one_fits_risk():
    risks = generation_risks(5)
    assert risks["replace"] == pytest.approx(np.arange(1, 9), rel=0.1)
    weights = [1.0]
    for n in range(2, 9):  # a fit to n equal parts of data: the risk grows by about 1 / n^2
        weights.append(weights[-1] + 1 / n**2)
    assert risks["accumulate"] == pytest.approx(np.array(weights), rel=0.1)


# What manifests log.


def _manifest(folder: Path, **changes: object) -> Path:
    manifest = {
        "name": "a",
        "status": "complete",
        "seed": 3,
        "arm": {"kind": "repeated", "repeat_frac": 0.5, "pool_size": 4, "repeats_per_sequence": 12},
        "model": {"d_model": 8, "d_head": 8, "n_layers": 1, "n_heads": 1, "n_ctx": 6, "d_vocab": 11, "attn_only": True},
        "data_facts": {"hash": "ab", "bigram_entropy_nats": 3.5, "Odd name": 1.0},
        "checkpoints": [
            {"step": 0, "test_loss_nats": 2.5, "pool_loss_nats": None, "mechanism_loss_nats": {"copy": 2.0, "rare_table": 3.0}},
            {"step": 9, "test_loss_nats": 1.5, "pool_loss_nats": 0.5, "mechanism_loss_nats": "none"},
        ],
        **changes,
    }  # fmt: skip
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_rows_of_a_series_are_what_its_manifest_says(tmp_path):
    rows = tidy(series_rows(_manifest(tmp_path / "a"), grid="g", arm="P4", size="d8"))
    assert rows["step"].tolist() == [0, 9] and rows["init_seed"].unique() == [3]
    assert rows["test_loss"].tolist() == [2.5, 1.5] and rows["pool_loss"].iloc[1] == 0.5
    assert np.isnan(rows["pool_loss"].iloc[0]) and rows["rare_table_part_loss"].iloc[0] == 3.0
    assert rows["guess_nats"].unique() == [pytest.approx(np.log(10))]
    assert rows["parameters"].unique() == [(2 * 11 + 6) * 8 + 4 * 8 * 8]
    assert rows["parameters_without_embeddings"].unique() == [4 * 8 * 8]
    assert rows["data_bigram_entropy"].unique() == [3.5]
    assert {"pool", "epochs"} <= set(rows.columns) and rows["pool"].unique() == [4]


@pytest.mark.parametrize(
    "changes", [{"status": "running"}, {"seed": None}, {"seed": "3"}, {"checkpoints": [{}]}]
)
def test_a_series_that_cannot_be_used_is_refused(tmp_path, changes):
    with pytest.raises(ByroteError):
        list(series_rows(_manifest(tmp_path / "a", **changes), grid="g", arm="P4", size="d8"))
    with pytest.raises(ByroteError, match="holds no series"):
        list(series_rows(tmp_path / "nowhere", grid="g", arm="P4", size="d8"))
