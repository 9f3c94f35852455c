"""Membership inference: its scores by hand, its AUC and rates on samples of known answers, and on models of known memory."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from lookup_models import D_VOCAB, N_CTX, N_IDS, lookup_state, members, random_state, twins, write_series

from byrote.checkpoints import open_series
from byrote.checkpoints.token_sets import TokenSets
from byrote.interp import HookedSeries
from byrote.probes.memory.membership import auc, lowest_mean, standardised, true_positives
from byrote.probes.registry import REGISTRY
from byrote.probes.stimuli import Vocabulary, make
from byrote.probes.sweep.measure import measure_once


def test_tokens_are_standardised_by_the_models_own_prediction():
    p = torch.tensor([0.5, 0.25, 0.25])
    log_p = p.log()[None, None]
    mean = (p * p.log()).sum()
    sd = (p * (p.log() - mean) ** 2).sum().sqrt()
    found = standardised(log_p, log_p[..., 0])
    torch.testing.assert_close(found, ((p[0].log() - mean) / sd)[None, None])
    even = torch.full((1, 1, 4), 0.25).log()
    assert standardised(even, even[..., 0]).item() == 0


def test_the_lowest_fifth_rounds_up_and_stays_inside_the_block():
    z = torch.tensor([[3.0, -1.0, 2.0, 1.0, 0.0, 5.0, -9.0], [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    where = torch.tensor([[True] * 6 + [False], [False] * 7])
    found = lowest_mean(z, where)
    assert found[0].item() == -0.5 and found[1].isnan()  # 2 of 6


def test_auc_is_the_share_of_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 40).astype(float), rng.integers(0, 7, 150).astype(float)
    pairs = np.mean((a[:, None] > b) + 0.5 * (a[:, None] == b))
    found = auc(a, b, seed=0)
    assert found.samples.mean() == pytest.approx(pairs)
    lo, hi = found.interval
    assert lo < pairs < hi and found.chance == 0.5


def test_true_positives_at_one_percent():
    fresh = np.arange(200.0)
    members_ = np.array([197.5, 198.5, 100.0, 300.0])  # above all but two: above 197
    found = true_positives(members_, fresh, seed=0)
    assert found.samples.tolist() == [1, 1, 0, 1]
    assert np.isnan(true_positives(members_, fresh[:99], seed=0).samples).all()


def test_parted_samples_have_no_interval_of_a_point():
    lo, hi = auc(np.arange(50.0) + 1000, np.arange(300.0), seed=0).interval
    assert lo == pytest.approx(0.025 ** (1 / 50)) and hi == 1
    lo, hi = true_positives(np.arange(50.0) - 1000, np.arange(300.0), seed=0).interval
    assert lo == 0 and hi == pytest.approx(1 - 0.025 ** (1 / 50))


def test_intervals_hold_the_truth_of_two_normals():
    """Members one sd above fresh sequences: AUC = Phi(1 / sqrt 2), TPR = Phi(1 - z_99) in an infinite sample."""
    normal, rng = NormalDist(), np.random.default_rng(1)
    truth = normal.cdf(1 / math.sqrt(2)), normal.cdf(1 - normal.inv_cdf(0.99))
    held = np.zeros(2)
    for _ in range(100):
        a, b = rng.normal(1, 1, 64), rng.normal(0, 1, 256)
        ends = [one.interval for one in (auc(a, b, seed=0), true_positives(a, b, seed=0))]
        held += [float(lo <= t <= hi) for t, (lo, hi) in zip(truth, ends, strict=True)]
    assert (held >= 90).all() and held[0] < 100


def attacked(tmp_path, state, *, reference: bool = True) -> dict:
    sets = TokenSets(
        members=members(), repeat_count=np.ones(16, dtype=np.int64), twins=twins(), candidates=np.tile(twins(), (6, 1)),
        reference=(lambda tokens: np.full(tokens.shape, math.log(N_IDS))) if reference else None,
    )  # fmt: skip
    vocabulary = Vocabulary(np.arange(1, D_VOCAB), 0)
    shown = {k: make(k, vocabulary, n_ctx=N_CTX, seed=0, token_sets=sets) for k in ("members", "candidates")}
    walker = HookedSeries(open_series(write_series(tmp_path / "one", {0: state})))
    measured = measure_once(walker.load(walker.series[0]), REGISTRY["membership"], seed=0, stimuli=shown)
    assert {one.metric for one in measured} == set(REGISTRY["membership"].metrics)
    return {one.metric: one for one in measured}


def test_members_of_a_model_that_knows_them_are_found(tmp_path):
    found = attacked(tmp_path, lookup_state())
    for attack in ("loss", "min_k", "ratio"):
        assert float(found[f"{attack}_auc"].values) == float(found[f"{attack}_tpr"].values) == 1
        assert 0.7 < float(found[f"{attack}_auc"].lo) < 1 and float(found[f"{attack}_tpr"].lo) < 0.9
    assert float(found["fresh"].values) == 120


def test_members_of_a_model_that_knows_nothing_are_not(tmp_path):
    found = attacked(tmp_path, random_state(3), reference=False)
    for attack in ("loss", "min_k"):
        own = found[f"{attack}_auc"]
        assert float(own.lo) < 0.5 < float(own.hi)
        assert float(found[f"{attack}_tpr"].values) < 0.2
    assert np.isnan(found["ratio_auc"].values) and np.isnan(found["ratio_tpr"].lo)
