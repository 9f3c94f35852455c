"""Associative recall: memories with planted holes, against matrices written out, and where there is nothing to recall."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from byrote.interp.weights import HeadWeights
from byrote.probes.circuits.associative_recall import recalled
from byrote.probes.spec import NotMeasuredError

IDS = torch.arange(4)


def planted() -> HeadWeights:
    """Four ids and five positions, each a direction of its own; one head a layer."""
    ids, places = torch.eye(9)[:4], torch.eye(9)[4:]
    reads_ids = ids.T.contiguous()  # [9, 4]
    W_Q, W_K, W_V, W_O = (torch.zeros(2, 1, *shape) for shape in ((9, 4), (9, 4), (9, 4), (4, 9)))
    W_Q[0, 0, 5:] = torch.eye(4)  # position t asks for t - 1 ...
    W_K[0, 0, 4:8] = torch.eye(4)  # ... and s answers as s
    W_K[0, 0, 7, 3] = -1  # but for s = 3, which t = 4 then does not find
    W_V[:, 0], W_O[:, 0] = reads_ids, ids
    W_Q[1, 0], W_K[1, 0] = reads_ids, reads_ids[:, [1, 0, 2, 3]]  # two ids find each other
    W_O[1, 0, 3] = -ids[3]  # one lowers itself
    return HeadWeights(
        W_E=ids, W_U=reads_ids, W_Q=W_Q, W_K=W_K, W_V=W_V, W_O=W_O, attn_norm_gain=torch.ones(2, 9),
        final_norm_gain=torch.ones(9), centred=False, final_centred=False, linear_readout=True, W_pos=places,
    )  # fmt: skip


def test_what_is_recalled_is_what_was_planted():
    found = recalled(planted(), IDS, 0)
    assert found["output"].samples[:, 1, 0].tolist() == [1, 1, 1, 0]
    assert found["keys"].samples[:, 1, 0].tolist() == [0, 0, 1, 1]
    assert found["positions"].samples[:, 0, 0].tolist() == [1, 1, 1, 0]
    assert found["output"].exists.tolist() == [[False], [True]] == (~found["positions"].exists).tolist()
    assert found["positions"].chance == pytest.approx((1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 4)


def test_recall_is_that_of_matrices_written_out():
    rng = torch.Generator().manual_seed(3)
    shapes = {
        "W_E": (12, 6),
        "W_U": (6, 12),
        "W_Q": (2, 3, 6, 4),
        "W_K": (2, 3, 6, 4),
        "W_V": (2, 3, 6, 4),
        "W_O": (2, 3, 4, 6),
    }
    tensors = {name: torch.randn(*shape, generator=rng) for name, shape in shapes.items()}
    gain = torch.rand(2, 6, generator=rng) + 0.5
    weights = HeadWeights(
        **tensors, attn_norm_gain=gain, final_norm_gain=torch.ones(6), centred=True, final_centred=False, linear_readout=True,
        W_pos=torch.randn(9, 6, generator=rng),
    )  # fmt: skip
    found = recalled(weights, torch.arange(12), 0)
    E, U, Q, K, V, O, P = (
        getattr(weights, name).double().numpy()
        for name in ("W_E", "W_U", "W_Q", "W_K", "W_V", "W_O", "W_pos")
    )
    fold = [(np.eye(6) - 1 / 6) @ np.diag(g) for g in gain.double().numpy()]
    moved = sum(E @ fold[0] @ V[0, h] @ O[0, h] for h in range(3))
    own = np.arange(12)
    for h in range(3):
        raised = E @ fold[1] @ V[1, h] @ O[1, h] @ U
        met = (E @ fold[1] @ Q[1, h]) @ (moved @ fold[1] @ K[1, h]).T
        places = (P @ fold[0] @ Q[0, h]) @ (P @ fold[0] @ K[0, h]).T
        assert found["output"].samples[:, 1, h].tolist() == (raised.argmax(1) == own).tolist()
        assert found["keys"].samples[:, 1, h].tolist() == (met.argmax(1) == own).tolist()
        assert found["positions"].samples[:, 0, h].tolist() == [
            places[t, : t + 1].argmax() == t - 1 for t in range(1, 9)
        ]
    assert 0 < np.nanmean(found["output"].samples) < 1


def test_without_positions_or_a_second_layer_there_is_nothing_to_recall():
    weights = planted()
    found = recalled(replace(weights, W_pos=None), IDS, 0)
    assert np.isnan(found["positions"].samples).all() and np.isfinite(found["keys"].samples[:, 1]).all()
    one = {name: getattr(weights, name)[:1] for name in ("W_Q", "W_K", "W_V", "W_O", "attn_norm_gain")}
    with pytest.raises(NotMeasuredError, match="one layer"):
        recalled(replace(weights, **one), IDS, 0)
    with pytest.raises(NotMeasuredError, match="smeared"):
        recalled(replace(weights, smeared_keys=True), IDS, 0)
    with pytest.raises(NotMeasuredError, match="after attention"):
        recalled(replace(weights, linear_readout=False), IDS, 0)


def test_a_head_that_writes_nothing_recalls_nothing():
    weights = planted()
    found = recalled(replace(weights, W_O=torch.zeros(2, 1, 4, 9)), IDS, 0)
    assert found["output"].samples[:, 1].max() == found["keys"].samples[:, 1].max() == 0
