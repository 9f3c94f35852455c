"""What a bare address opens on: the run in which something happens, at its step, its counterpart beside it; arms as groups."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from planted_series import flat, rising, write_results
from streamlit_client import heading

from byrote.dashboard.library import open_library
from byrote.dashboard.query_params import read
from byrote.dashboard.views.head import on_its_range
from byrote.probes.findings import memory
from byrote.probes.registry import REGISTRY

UNIQUE = {"kind": "unique", "repeat_frac": 0.0, "pool_size": 0}
REPEATED = {"kind": "repeated", "repeat_frac": 0.5, "pool_size": 64}
CONTROL = {"kind": "control", "repeat_frac": 0.5, "pool_size": 64}


def opened(root, **params):
    state = read(params, open_library([root])).state
    return state.run, state.base, state.step


def test_it_opens_where_induction_heads_appear_beside_the_run_of_the_same_seed_in_which_none_do(tmp_path):
    for seed in (0, 1):
        write_results(tmp_path, f"a-repeated{seed}", flat(), arm=REPEATED, seed=seed)
        write_results(tmp_path, f"b-control{seed}", rising(at=40) if seed else flat(), arm=CONTROL, seed=seed)
        write_results(tmp_path, f"c-unique{seed}", rising(at=10 + 10 * seed), arm=UNIQUE, seed=seed)
    assert opened(tmp_path) == ("c-unique0", "a-repeated0", 10)
    assert opened(tmp_path, run="c-unique1") == ("c-unique1", "a-repeated1", 20)
    assert opened(tmp_path, run="a-repeated1") == (
        "a-repeated1",
        "c-unique1",
        40,
    )  # nothing happens: its last step
    assert opened(tmp_path, run="c-unique1", base="", step="40") == ("c-unique1", "", 40)


def test_an_arm_in_which_more_seeds_have_them_comes_first(tmp_path):
    for seed in (0, 1):
        write_results(tmp_path, f"a{seed}", rising() if seed else flat(), arm=UNIQUE, seed=seed)
        write_results(tmp_path, f"b{seed}", rising(at=10), arm=REPEATED, seed=seed)
    assert opened(tmp_path)[0] == "b0"


def test_where_nothing_happens_the_damaged_run_comes_before_its_control(tmp_path):
    write_results(tmp_path, "a", flat(), arm=UNIQUE)
    write_results(tmp_path, "b", flat(), arm=REPEATED)
    assert opened(tmp_path) == ("b", "a", 40)


def test_arms_of_several_seeds_are_drawn_as_groups(tmp_path, open_page):
    for seed in range(3):
        write_results(
            tmp_path,
            f"uni-{seed}",
            rising(at=10 + 10 * (seed > 0), top=0.8 + 0.05 * seed),
            arm=UNIQUE,
            seed=seed,
        )
        write_results(tmp_path, f"rep-{seed}", flat(), arm=REPEATED, seed=seed)
    at = open_page("overview", tmp_path)
    assert not at.exception
    assert heading(at) == ("Lasting induction heads in all 3 seeds of unique, 0 of 3 of repeated f=0.5 P=64")
    (chart,) = (c for c in at.get("plotly_chart") if c.proto.id.endswith("figure_timeline"))
    data = json.loads(chart.proto.spec)["data"]
    thin = [t for t in data if t.get("name", "").startswith("seed ")]
    assert len(thin) == 6 and {t["line"]["width"] for t in thin} == {1}
    median = next(t for t in data if t.get("name") == "unique, median of 3")
    assert list(median["y"]) == pytest.approx([0.06, 0.06, 0.85, 0.85])  # of 0.06 / 0.8 / ... by step
    assert list(median["customdata"]) == [0, 10, 20, 40]  # a click goes to its step
    words = [a["text"] for a in json.loads(chart.proto.spec)["layout"]["annotations"]]
    assert any(w.startswith("unique: induction in 3/3 seeds") and "20" in w for w in words)
    assert not any(w.startswith("repeated: induction") for w in words)


def test_memory_shows_the_counterpart_where_that_alone_has_any(open_page, full_runs):
    at = open_page("memory", full_runs, run="unique", base="repeated", step=40)
    assert not at.exception
    assert heading(at).startswith("Training sequences are remembered in repeated")
    assert any("Memory was not measured in unique" in one.value for one in at.caption)


def test_a_control_is_not_said_to_remember_what_it_never_saw():
    gap = SimpleNamespace(value=0.3, lo=0.1, hi=0.5)  # by chance, in one case of forty
    assert memory("control", {10: gap}, {}, step=10, trained=False) == (
        "The pool of its counterpart, on which control was never trained, changes its loss by −0.30 [−0.50, −0.10] nats relative to fresh "
        "sequences at step 10"
    )


def test_a_curve_of_noise_is_drawn_as_noise():
    """0.048 to 0.054 of a measure between 0 and 1: in version 0.1 the height of the cell, now a hundredth of it."""
    curve = [0.048, None, 0.054, 0.05]
    drawn = on_its_range(curve, REGISTRY["prefix_matching"], "score")
    assert drawn == curve  # shares of the range from 0 to 1
    logits = on_its_range([0.0, 0.02], REGISTRY["induction_dla"], "score")
    assert np.ptp([v for v in logits if v is not None]) == pytest.approx(
        0.02 / 2
    )  # of twenty smallest effects, 0.1 each
    assert max(on_its_range([0.0, 4.0], REGISTRY["induction_dla"], "score")) == 1.0


def test_many_runs_without_verdicts_are_summed_up_by_arm(tmp_path, open_page):
    for seed in range(3):
        for name, top, arm in (("uni", 0.8, UNIQUE), ("rep", 0.2, REPEATED)):
            units = {
                step: [one for one in some if one.probe != "induction"]
                for step, some in rising(top=top + 0.05 * seed).items()
            }
            write_results(tmp_path, f"{name}-{seed}", units, arm=arm, seed=seed)
    assert heading(open_page("overview", tmp_path)) == (
        "Strongest prefix matching, median of the seeds: unique 0.85 (0.80 to 0.90 over 3 seeds); "
        "repeated f=0.5 P=64 0.25 (0.20 to 0.30 over 3 seeds)"
    )
