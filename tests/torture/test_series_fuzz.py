"""Damaged series of every format, where `make test` stops: each is read cleanly, or refused as a CheckpointError or a gap."""

from __future__ import annotations

import pytest
from damaged_series import CASES, FIRST, FORMATS, refused_cases, write_good


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_good(tmp_path_factory.mktemp("good"))


@pytest.mark.torture(seconds=0)  # in time of its own, beyond what `make torture` is given
@pytest.mark.parametrize("name", FORMATS)
def test_series_fuzz(good, tmp_path, name):
    """These cases are the same whatever the seed."""
    assert refused_cases(good, name, range(FIRST, CASES), tmp_path / "run") > (CASES - FIRST) / 5
