"""Ids that were never trained: planted in matrices of known make, and none where nothing is planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from byrote.checkpoints.series import Checkpoint
from byrote.checkpoints.untrained import stored_embeddings, untrained_ids

RNG = np.random.default_rng(0)
WIDTH = 32


def trained(n: int = 200) -> np.ndarray:
    """Rows whose norms and directions differ as those of frequent and rare words do."""
    common = RNG.normal(size=WIDTH)
    return RNG.lognormal(0, 0.4, (n, 1)) * (RNG.normal(size=(n, WIDTH)) + 0.5 * common)


def with_rows(rows: np.ndarray, at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The same matrix with some rows replaced."""
    found = rows.copy()
    found[at] = values
    return found


@pytest.mark.parametrize("scale", [0.02, 30.0])
@pytest.mark.parametrize("share", [0.02, 0.3])
def test_rows_that_are_still_noise(scale, share):
    at = RNG.permutation(200)[: int(share * 200)]
    rows = with_rows(trained(), at, scale * RNG.normal(size=(len(at), WIDTH)))
    assert untrained_ids([rows]) == set(at.tolist())


def test_rows_that_were_only_ever_pushed_away():
    """What never occurs gets the same gradient everywhere: rows in one direction, of whatever length."""
    at, direction = RNG.permutation(200)[:60], RNG.normal(size=WIDTH)
    pushed = RNG.uniform(2, 3, (60, 1)) * (direction + 0.02 * RNG.normal(size=(60, WIDTH)))
    assert untrained_ids([trained(), with_rows(trained(), at, pushed)]) == set(at.tolist())


def test_rows_of_zeros():
    assert untrained_ids([with_rows(trained(), np.arange(190, 200), np.zeros((10, WIDTH)))]) == set(
        range(190, 200)
    )


@pytest.mark.parametrize("kind", ["random", "trained", "one-hot", "equal", "nan", "zeros", "one direction"])
def test_nothing_is_found_where_nothing_is_planted(kind):
    rows = {
        "random": RNG.normal(0, 0.02, (200, WIDTH)),
        "trained": trained(),
        "one-hot": np.eye(64),
        "equal": np.ones((200, WIDTH)),
        "nan": with_rows(trained(), np.arange(3), np.full((3, WIDTH), np.nan)),
        "zeros": np.zeros((200, WIDTH)),
        "one direction": 10 + RNG.normal(0, 0.1, (200, WIDTH)),  # all alike: no group among others
    }[kind]
    assert untrained_ids([rows]) == set()


def test_a_step_that_cannot_be_read_has_no_embeddings(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    damaged = Checkpoint(0, tmp_path, "hf", files=(tmp_path / "model.safetensors",))
    assert list(stored_embeddings(damaged, 200)) == []
