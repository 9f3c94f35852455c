"""Figures of degradation: what is drawn is what was computed, and the words say it."""

from __future__ import annotations

import numpy as np
import pytest

from byrote.checkpoints.errors import ByroteError
from byrote.probes import figures
from byrote.probes.degrade import dose_response, effective_size
from byrote.probes.degrade.simulated_runs import simulated_rows

SEEDS = np.linspace(-0.02, 0.02, 5)


def doses(**facts):
    means = np.array([2.0, 2.1, 3.5, 2.8])[:, None] + SEEDS
    runs = simulated_rows(means, synthetic_share=np.array([0.0, 0.25, 0.5, 1.0]), **facts)
    return dose_response(runs, "synthetic_share", permutations=200)


def test_the_line_is_the_damage_and_every_seed_is_a_point():
    found = doses()
    fig = figures.dose_response(found, metric="held_out_loss/loss")
    line = next(t for t in fig.data if t.name == "damage")
    assert list(line.y) == found.rows["damage"].tolist()
    assert line.x[1:] == pytest.approx((0.25, 0.5, 1.0)) and line.x[0] == pytest.approx(
        0.125
    )  # a dose of 0 has no logarithm
    seeds = next(t for t in fig.data if t.name == "seeds of damage")
    assert len(seeds.y) == 20 and sorted(seeds.y)[-1] == pytest.approx(1.52)
    half = next(t for t in fig.data if t.name == "half of the largest")
    assert set(half.y) == {found.rows["damage"].max() / 2}
    assert fig.layout.xaxis.ticktext[:2] == ("0", "0.25")
    assert fig.table["damage"].tolist() == found.rows["damage"].tolist() and "size" not in fig.table
    assert (
        "held_out_loss/loss is worst at synthetic share 0.5: +1.50" in fig.alt
        and "Half of that damage" in fig.alt
    )


def test_sizes_have_a_line_each():
    fig = figures.dose_response({1e3: doses(), 4e3: doses()})
    assert {"N = 1,000", "N = 4,000"} <= {t.name for t in fig.data}
    assert fig.table["size"].tolist() == [1e3] * 4 + [4e3] * 4 and "at 4,000 parameters" in fig.alt
    with pytest.raises(ByroteError, match="no dose-response to draw"):
        figures.dose_response({})


def test_arms_stand_beside_the_ladder():
    ladder = simulated_rows(
        np.array([4.0, 3.0, 2.0])[:, None] + SEEDS, parameters=np.array([1e3, 2e3, 4e3]), arm="control"
    )
    arms = simulated_rows(np.array([3.5, 2.5])[:, None] + SEEDS, parameters=4e3, arm=["P=16", "P=4"])
    found = effective_size(ladder, arms, how="interpolate")
    fig = figures.effective_sizes(found)
    drawn = {t.name: (list(t.x), list(t.y)) for t in fig.data if t.mode and "lines" in t.mode}
    assert drawn["baseline"] == ([1e3, 2e3, 4e3], pytest.approx([4, 3, 2]))
    assert drawn["P=16"] == ([4e3], pytest.approx([3.5]))
    assert fig.table["multiplier"].tolist() == found.rows["multiplier"].tolist()
    assert (
        "P=16 is as good as 0.35" in fig.alt
        and "interpolated between 3 sizes" in fig.layout.title.subtitle.text
    )
