"""One small run that arms are made from, trained once for all tests."""

from __future__ import annotations

import shutil

import pytest
from small_runs import BASE

from byrote.checkpoints.lab import train


@pytest.fixture(scope="session")
def human(tmp_path_factory):
    """A trained run, to be read only."""
    return train(tmp_path_factory.mktemp("base") / "human", BASE)


@pytest.fixture(scope="module")
def runs(human, tmp_path_factory):
    """A folder with a copy of it, `human`, beside which others are trained."""
    out = tmp_path_factory.mktemp("runs")
    shutil.copytree(human, out / "human")
    return out
