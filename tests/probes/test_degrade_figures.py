"""Figures of degradation: what is drawn is what was computed, and the words say it."""

from __future__ import annotations

import numpy as np
import pytest
from degrade_runs import descending

from byrote.checkpoints.errors import ByroteError
from byrote.probes import figures
from byrote.probes.degrade import (
    dose_response,
    effective_data,
    effective_size,
    fit_r_star,
    preferential_damage,
    with_unique_tokens,
)
from byrote.probes.degrade.displacement import shares_table
from byrote.probes.degrade.simulated_runs import simulated_rows
from byrote.probes.groups import groups_of

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
        "Held-out loss is worst at synthetic share 0.5: +1.50" in fig.alt and "Half of that damage" in fig.alt
    )


def test_sizes_have_a_line_each():
    fig = figures.dose_response({1e3: doses(), 4e3: doses()})
    assert {"N = 1,000", "N = 4,000"} <= {t.name for t in fig.data}
    assert fig.table["size"].tolist() == [1e3] * 4 + [4e3] * 4 and "at 4,000 parameters" in fig.alt
    with pytest.raises(ByroteError, match="no dose-response was given"):
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


def panel_axes(fig) -> list[str]:
    return [
        fig.layout[name].title.text
        for name in sorted(fig.to_plotly_json()["layout"])
        if name.startswith("xaxis")
    ]


def traces(fig, name: str) -> list:
    return [trace for trace in fig.data if trace.name == name]


def test_multipliers_stand_above_the_difference_of_their_logarithms():
    ladder = simulated_rows(
        np.array([4.0, 3.0, 2.0])[:, None] + SEEDS, parameters=np.array([1e3, 2e3, 4e3]), arm="control"
    )
    arms = {m: simulated_rows(np.array([v, 2.1])[:, None] + SEEDS[::-1], parameters=4e3, arm=["P=16", "P=4"]) for m, v in
            (("copy", 4.5), ("test", 2.5))}  # fmt: skip
    sizes = {m: effective_size(ladder, rows, how="interpolate") for m, rows in arms.items()}
    found = preferential_damage(sizes["copy"], sizes["test"])
    fig = figures.preferential_damage(found)
    over = found[found["size"].isna()]
    (copying,), (test_loss,) = traces(fig, "copying"), traces(fig, "test loss")
    assert copying.x == pytest.approx(np.log(over["multiplier"])) and test_loss.x == pytest.approx(
        np.log(over["reference"])
    )
    (sure,) = traces(fig, "sure")
    assert sure.x[0] == over["difference"].iloc[0] < 0
    reach = sure.x[0] - sure.error_x.arrayminus[0]
    assert over["lo"].iloc[0] == -np.inf and reach == pytest.approx(
        fig.layout.xaxis2.range[0]
    )  # a bound reaches the edge
    assert "copying is hit harder" in fig.alt and "[−∞" in fig.alt
    assert fig.table.equals(found)
    with pytest.raises(ByroteError, match="no table of preferential damage"):
        figures.preferential_damage(found.iloc[:0])


def test_shares_of_both_runs_stand_beside_each_other_by_class():
    def side(share, raised):
        return [
            {"induction": share + d, "previous token": 0.1, "other": 0.9 - share - d, "all heads": raised + d}
            for d in SEEDS
        ]

    table = shares_table(side(0.8, 5.0), side(0.2, 5.0), paired=True)
    fig = figures.displacement(
        {"P=16": table, "P=4": shares_table(side(0.8, 5.0), side(0.8, 5.0), paired=True)}, baseline="control"
    )
    base, arm = traces(fig, "baseline"), traces(fig, "arm")
    assert [t.x[0] for t in base] == pytest.approx([0.8, 0.1, 0.1, 5.0])
    assert [t.x[0] for t in arm] == pytest.approx([0.2, 0.1, 0.7, 5.0])
    width = base[0].error_x.array[0]
    assert width == pytest.approx(2.776 * SEEDS.std(ddof=1) / 5**0.5, rel=1e-3)  # Student's over five seeds
    assert panel_axes(fig)[-1] == "raise of the copied token's logit"
    assert "P=16: displaced, induction heads −0.60" in fig.alt
    assert fig.table["class"].tolist()[:4] == ["induction", "previous token", "other", "all heads"]
    with pytest.raises(ByroteError, match="heads do not raise the copied token in any arm"):
        figures.displacement({"P=16": table.assign(difference=np.nan)})


def test_double_descent_is_drawn_with_the_places_of_its_extrema(tmp_path):
    humps = groups_of(descending(tmp_path, "repeated", [1.0, 1.1, 0.9, 1.2, 1.0]))
    flat = groups_of(descending(tmp_path, "control", [0.0] * 5))
    fig = figures.double_descent([*flat, *humps])
    rows = fig.table[fig.table["arm"] == "repeated f=0.5"]
    at = rows.set_index("step")["value"]
    assert at[100] > at[10] + 0.5 and len(rows) == 9 and (rows["seeds"] == 5).all()
    assert (rows["hi"] > rows["lo"]).all()
    (top,), (dip,) = traces(fig, "top of repeated f=0.5"), traces(fig, "dip of repeated f=0.5")
    assert round(top.x[0]) in (60, 100) and dip.x[0] == pytest.approx(10)
    assert top.y[0] == pytest.approx(at[round(top.x[0])])
    assert not traces(fig, "top of control") and "control: no dip and no top." in fig.alt
    assert "repeated f=0.5: double descent, dip at step 10" in fig.alt
    with pytest.raises(ByroteError, match="no arm has two seeds"):
        figures.double_descent(groups_of(descending(tmp_path, "alone", [1.0])))


def test_the_law_of_effective_data_is_drawn_through_its_points():
    unique, epochs = (x.ravel() for x in np.meshgrid([1e5, 1e6], [1.0, 4.0, 16.0, 64.0]))
    loss = 1.5 + 40 * effective_data(unique, epochs, 6.0) ** -0.3
    rows = simulated_rows(
        loss[:, None] + 0.01 * SEEDS, epochs=epochs, tokens=unique * epochs, repeat_frac=1.0
    )
    found = fit_r_star(with_unique_tokens(rows), n_draws=20)
    fig = figures.effective_data(found)
    lines = {t.name: t for t in fig.data if t.mode == "lines" and t.name.startswith("U = ")}
    assert set(lines) == {"U = 100,000", "U = 1,000,000"}
    law = lines["U = 100,000"]
    assert (law.x[0], law.x[-1]) == (1, 64) and law.y[0] == pytest.approx(loss[0], abs=0.01)
    assert law.y[-1] == pytest.approx(1.5 + 40 * effective_data(1e5, 64.0, found.r_star) ** -0.3, abs=0.01)
    dots = [t for t in fig.data if t.name == "measured"]
    assert sorted(y for t in dots for y in t.y) == pytest.approx(sorted(loss))
    assert fig.table["effective_tokens"].iloc[0] == 1e5 and (fig.table["lo"] < fig.table["hi"]).all()
    assert f"R* is {found.r_star:.1f}" in fig.alt
