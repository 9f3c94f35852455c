"""Copies of natural paragraphs: losses that follow from a closed form, and what differs between text and noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from lookup_models import BLOCK, N_CTX, RIGHT_NATS, WRONG_NATS, lookup_state, members, write_series

from byrote.checkpoints import open_series
from byrote.checkpoints.lab.planted import HeadSpec, PlantedConfig, expected_logits, planted_model
from byrote.checkpoints.token_sets import TokenSets
from byrote.interp import HookedSeries
from byrote.probes.model.natural_copies import copies_that_fit, natural_copies, tiled
from byrote.probes.registry import REGISTRY
from byrote.probes.spec import NotMeasuredError
from byrote.probes.stimuli import Vocabulary, make
from byrote.probes.sweep.measure import measure_once

NOTHING = HeadSpec("uniform", strength_nats=0.0, writes="nothing")
INDUCES = PlantedConfig(
    n_ctx=136, unembed_gain=10.0, heads=((HeadSpec("previous", writes="previous"), NOTHING), (HeadSpec("prefix", writes="output"), NOTHING))
)  # fmt: skip


def loaded(folder, state):
    walker = HookedSeries(open_series(write_series(folder / "one", {0: state})))
    return walker.load(walker.series[0])


def shown(text: np.ndarray, *, n_ctx: int):
    vocabulary = Vocabulary(np.arange(1, 64), 0)
    sets = TokenSets(natural=text)
    kinds = ("natural", "paragraph_copies")
    return {kind: make(kind, vocabulary, n_ctx=n_ctx, seed=0, n_seq=16, token_sets=sets) for kind in kinds}


@pytest.mark.parametrize(
    ("n_ctx", "longest", "fits"),
    [
        (8192, 365, (11, 365)),
        (1024, 365, (11, 93)),
        (1024, 31, (11, 31)),
        (64, 31, (5, 12)),
        (17, 31, (2, 8)),
    ],
)
def test_copies_give_way_before_the_paragraph_does(n_ctx, longest, fits):
    assert copies_that_fit(n_ctx, longest=longest) == fits


def test_a_context_without_two_copies_is_refused():
    with pytest.raises(NotMeasuredError, match="4 tokens holds no two copies"):
        copies_that_fit(4, longest=31)


def test_a_paragraph_ends_where_its_window_repeats_itself():
    windows = np.array([[0, 5, 6, 7, 5], [0, 1, 2, 3, 4]])
    tokens, copy = tiled(windows, np.array([3, 4]), m=2)
    assert tokens.tolist() == [[0, 5, 6, 7, 5, 6, 7, 5, 6], [0, 1, 2, 3, 4, 1, 2, 3, 4]]
    assert copy.tolist() == [[1, 1, 1, 2, 2, 2, 0, 0], [1, 1, 1, 1, 2, 2, 2, 2]]


def test_losses_of_a_planted_copier_follow_from_its_closed_form(tmp_path):
    rng = np.random.default_rng(3)
    text = np.concatenate([np.zeros((16, 1), dtype=np.int64), rng.integers(1, 60, size=(16, 135))], axis=1)
    stimuli = shown(text, n_ctx=136)
    found = natural_copies(loaded(tmp_path, planted_model(INDUCES)), stimuli, seed=0)
    tokens, copy = tiled(stimuli["natural"].tokens, np.full(16, 12), m=11)
    logits = expected_logits(INDUCES, tokens)[:, :-1]
    nll = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, tokens[:, 1:, None], -1)[..., 0]
    within = np.arange(132) % 12 > 0
    by_copy = np.stack([nll[:, (copy[0] == x) & within].mean(1) for x in range(1, 12)], axis=1)
    for prefix in ("", "short_"):
        np.testing.assert_allclose(found[f"{prefix}mean"].samples, nll.mean(1), atol=1e-4)
        np.testing.assert_allclose(found[f"{prefix}by_copy"].samples, by_copy, atol=1e-4)
        np.testing.assert_allclose(found[f"{prefix}later"].samples, by_copy[:, 1:].mean(1), atol=1e-4)
    assert found["by_copy"].position_start == 1 and found["mean"].chance == pytest.approx(math.log(63))
    assert set(found["copies"].samples) == {11.0} and set(found["tokens"].samples) == {12.0}
    assert (found["random_later"].samples < 0.5 * found["random_first"].samples).all()


def test_text_that_is_known_gains_nothing_from_copies_and_noise_does_neither(tmp_path):
    """A table of next tokens: the text is known from its first copy on, random tokens never are."""
    model = loaded(tmp_path, lookup_state())
    measured = measure_once(model, REGISTRY["natural_copies"], seed=0, stimuli=shown(members(), n_ctx=N_CTX))
    found = {one.metric: one for one in measured}
    assert set(found) == set(REGISTRY["natural_copies"].metrics)
    copies, tokens = 2, BLOCK
    assert set(found["copies"].samples) == {copies} and set(found["tokens"].samples) == {tokens}
    np.testing.assert_allclose(found["by_copy"].values, RIGHT_NATS, rtol=1e-4)
    # The table knows neither the first token nor that the paragraph starts over.
    mean = (math.log(64) + WRONG_NATS + 22 * RIGHT_NATS) / 24
    assert float(found["mean"].values) == pytest.approx(mean, rel=1e-4)
    assert float(found["random_later"].values) > 5 > 2 > float(found["later"].values)
