"""What exposure is by chance, and the skew-normal distribution that it is extrapolated by, against scipy's and the normal's closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from byrote.probes.memory.exposure import SkewNormal, chance_bits, ranks


def test_the_share_below_is_scipys_as_far_as_scipy_goes_and_goes_on():
    z = np.array([-30.0, -9.0, -4.0, -1.0, 0.0, 2.0, 6.0])
    for shape in (-3.0, 0.0, 2.0):
        found = SkewNormal(1.0, 2.0, shape).log_share_below(1 + 2 * z)
        known = stats.skewnorm.logcdf(z, shape) if shape else stats.norm.logcdf(z)
        where = np.isfinite(known)  # scipy's furthest tail is lost to cancellation
        np.testing.assert_allclose(found[where], known[where], rtol=1e-3, atol=1e-4)
        assert np.isfinite(found).all() and (np.diff(found) >= 0).all()


def test_exposure_goes_on_beyond_the_sample_and_says_how_well_the_fit_fits():
    """Members 10 standard deviations below normal losses: known in closed form, and 74 bits where counting ends at 10."""
    candidates = np.random.default_rng(0).normal(5.0, 0.1, 1024)
    fit = SkewNormal.of(candidates)
    assert fit.gap(candidates) < 0.03
    bits = -fit.log_share_below(np.array([4.0])) / math.log(2)
    assert bits[0] == pytest.approx(-stats.norm.logcdf(-10) / math.log(2), rel=0.35)
    two = np.concatenate([candidates, candidates + 3])
    assert SkewNormal.of(two).gap(two) > 0.1  # two heaps are no skew-normal


def test_chance_is_what_an_exchangeable_sequence_gets():
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(4000, 21))
    ranked = [ranks(row[:1], row[1:])[0] for row in drawn]
    bits = np.log2(21 / np.array(ranked))
    assert abs(bits.mean() - chance_bits(21)) < 4 * bits.std() / math.sqrt(4000)
    assert chance_bits(100_000) == pytest.approx(1 / math.log(2), abs=1e-3)
