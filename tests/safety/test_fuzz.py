"""Damaged copies of good checkpoints, in every format: each is read cleanly, or refused as a CheckpointError or a gap.

`make torture` goes on where this stops, see tests/torture/test_series_fuzz.py.
"""

from __future__ import annotations

import pytest
from damaged_series import CASES, FIRST, FORMATS, refused_case, refused_cases, write_good

from byrote.checkpoints import open_series
from byrote.checkpoints.fingerprint import fingerprint, tensor_hashes
from byrote.interp.loading import load_fresh


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """One good series of every format."""
    return write_good(tmp_path_factory.mktemp("good"))


@pytest.mark.parametrize("name", FORMATS)
def test_the_undamaged_series_is_read(good, name):
    series = open_series(good / name)
    assert (series.steps, series.gaps) == ((1, 2), ())
    for checkpoint in series:
        assert len(fingerprint(tensor_hashes(checkpoint))) == 32
        load_fresh(checkpoint)


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_series_is_read_or_refused(good, tmp_path, name):
    assert refused_cases(good, name, range(FIRST), tmp_path / "run") > FIRST / 5  # the damage was real


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_series_is_read_or_refused_many_times(good, tmp_path, name):
    refused = (
        refused_case(good, name, n, tmp_path / "run", build=n % 3 == 0) for n in range(CASES, 30 * CASES)
    )
    assert sum(refused) > 29 * CASES / 5
