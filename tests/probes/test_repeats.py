"""What repeats in a text: by hand, and against the definition that prefix matching is scored by."""

from __future__ import annotations

import numpy as np
import torch

from byrote.checkpoints.lab.sources import Graded, Names
from byrote.probes.heads.matching import earlier_copies, shifted_keys
from byrote.probes.repeats import repeats_of


def test_blocks_and_targets_by_hand():
    found = repeats_of(np.array([0, 7, 8, 9, 7, 8, 9, 7]))
    assert found.starts == (1, 4, 7)
    assert found.targets == ((), (), (), (), (2,), (3,), (4,), (2, 5))
    assert repeats_of(np.array([0, 7, 8, 9, 7, 9])).starts == ()
    assert repeats_of(np.array([0])).starts == () and repeats_of(np.array([0, 3])).targets == ((), ())


def test_targets_are_those_that_prefix_matching_counts():
    tokens = np.random.default_rng(2).integers(0, 6, size=40)
    masks = shifted_keys(earlier_copies(torch.from_numpy(tokens)[None]), 1)[0]
    assert [tuple(np.flatnonzero(row).tolist()) for row in masks.numpy()] == [*repeats_of(tokens).targets]


def test_the_token_that_tells_has_the_most_attention_on_its_targets():
    found = repeats_of(np.array([0, 7, 8, 7, 8]))
    pattern = np.eye(5)
    assert found.telling(pattern) == 3  # nothing on any target: the first that has one
    pattern[4] = [0, 0, 0.2, 0.7, 0.1]
    assert found.telling(pattern) == 4
    np.testing.assert_allclose(found.on_target(pattern)[3:], [0, 0.7])
    assert np.isnan(found.on_target(pattern)[:3]).all()
    assert repeats_of(np.arange(4)).telling(np.eye(4)) == 3


def test_ids_are_named_by_their_kind():
    assert [Names(d_vocab=32).token_name(i) for i in (0, 5)] == ["BOS", "5"]
    graded = Graded(d_vocab=128, n_phrase_ids=32)
    assert [graded.token_name(i) for i in (0, 95, 96)] == ["BOS", "t95", "p96"]
