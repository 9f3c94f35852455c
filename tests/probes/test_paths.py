"""The circuit as ablated paths say it: order of edges, headline, and what weights may only suggest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted_series import head_metric, pair_metric, rising, write_results

from byrote.probes import figures, findings_circuit
from byrote.probes.figures.circuit import CHANGE, wiring
from byrote.probes.paths import paths
from byrote.probes.results import Results
from byrote.probes.results.schema import Measured
from byrote.probes.rules import path_carries, stands_out

SHAPE = (2, 3)
LAST = 40


def ablated(metric: str, changes: dict[tuple[int, int], float], half: float = 0.02) -> Measured:
    """Rows of `induction_circuit`: (head of layer 0, head of layer 1) -> change of prefix matching."""
    grid, exists = np.full((*SHAPE, *SHAPE), np.nan), np.zeros((*SHAPE, *SHAPE), dtype=bool)
    for (source, target), change in changes.items():
        grid[0, source, 1, target], exists[0, source, 1, target] = change, True
    made = pair_metric(metric, grid)
    return replace(made, probe="induction_circuit", lo=grid - half, hi=grid + half, exists=exists)


@pytest.fixture
def results(tmp_path):
    """`results(*measured)`: L0H1 -> L1H2 has by far the highest z (7.5), and these rows at the last step."""

    def make(*measured: Measured) -> Results:
        units = rising()
        units[LAST] += measured
        return Results.open(write_results(tmp_path, "run", units))

    return make


def title(run: Results, way: str = "k") -> str:
    return findings_circuit.circuit(run, way=way, step=LAST)


def test_the_headline_names_the_source_that_does_the_work_and_not_the_one_with_the_highest_z(results):
    """Until now: "L1H2, an induction head, reads L0H1, a previous-token head: K-composition z 7.50"."""
    run = results(ablated("change", {(0, 2): -0.57, (1, 2): -0.07, (0, 1): 0.01}))
    assert title(run) == (
        "L1H2 needs what L0H0 writes into its keys: without it prefix matching falls by 0.57 [0.55, 0.59] at step 40"
    )
    edges = wiring(run, "k").edges[LAST]
    assert [edge.ends for edge in edges[:3]] == [((0, 0), (1, 2)), ((0, 1), (1, 2)), ((0, 0), (1, 1))]
    assert [edge.carries for edge in edges[:4]] == [True, False, False, False]
    assert edges[0].z < edges[1].z == 7.5
    figure = figures.circuit(run, step=LAST, least=7.0)  # the path that carries is drawn whatever its z
    assert [trace.name for trace in figure.data][:3] == ["L0H1 → L1H2", "L0H0 → L1H2", "induction head"]
    assert "L1H2 needs what L0H0 writes" in figure.alt
    table = figure.table
    assert table["from"].tolist() == ["L0H0", "L0H1"] and table["carries"].tolist() == ["yes", "no"]
    np.testing.assert_allclose(table[CHANGE], [-0.57, -0.07])


def test_a_path_into_queries_is_named_on_both_pages(results):
    run = results(
        ablated("change", {(0, 2): -0.01, (2, 2): 0.0}), ablated("q_change", {(0, 2): 0.0, (2, 2): -0.9})
    )
    for way in ("k", "q"):
        assert title(run, way).startswith("L1H2 needs what L0H2 writes into its queries: without it")


def test_paths_that_change_little_are_said_to(results):
    run = results(ablated("change", {(0, 2): -0.06, (1, 2): 0.0}))
    assert title(run) == (
        "None of 2 ablated paths carries prefix matching at step 40; L0H0 → L1H2 changes it most, by −0.06 [−0.08, −0.04]"
    )
    assert not any(edge.carries for edge in wiring(run, "k").edges[LAST])


def test_without_ablation_no_source_is_named_however_high_its_z(results):
    assert title(results()) == (
        "L1H2 is an induction head at step 40; which earlier head it reads was not tested by ablation"
    )
    assert paths(results(), LAST) == []
    assert (
        "no path into the keys was ablated"
        in figures.circuit(results(), step=LAST).layout.title.subtitle.text
    )


def test_without_ablation_the_qk_trace_says_whose_weights_match(results):
    trace = np.full(SHAPE, np.nan)
    trace[1] = (3.0, 30.0, 25.0)  # L1H1 has the most; L1H2 is the one called an induction head
    run = results(head_metric("qk_matching", trace, metric="trace_z", chance=0.0))
    assert title(run) == (
        "The weights of L1H2 match prefixes through previous-token heads (QK trace z 25.0, step 40); "
        "which of them it needs was not tested by ablation"
    )


def test_weights_that_match_are_not_named_where_no_head_is_called(tmp_path):
    """A run that never forms induction heads may have a QK trace all the same: a small previous-token head is enough."""
    units = rising(top=0.06, at=10_000)
    units[LAST] += [head_metric("qk_matching", np.full(SHAPE, 9.7), metric="trace_z", chance=0.0)]
    run = Results.open(write_results(tmp_path, "flat", units))
    assert title(run) == "No head is called an induction head at step 40, and no path was ablated"


def test_the_rules_worked_by_hand():
    assert path_carries(-0.2, -0.06, among=1) and not path_carries(-0.2, -0.04, among=1)
    # 16 paths: the half width of 0.14 is stretched by 2.955 / 1.960, to 0.211
    assert path_carries(-0.27, -0.13, among=16) and not path_carries(-0.25, -0.11, among=16)
    assert stands_out(1.65, among=1) and not stands_out(2.4, among=8) and stands_out(2.6, among=8)
