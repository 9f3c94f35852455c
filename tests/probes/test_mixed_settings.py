"""One run has one number of sequences and one seed; what would mix them is refused with the command that goes on."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import write_lab_series

from byrote.checkpoints import ByroteError, CheckpointSeries, open_series
from byrote.probes.results.unit_files import unit_paths
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.dry_run import preview
from byrote.probes.sweep.run import sweep

FIRST = SweepConfig(("prefix_matching", "composition"), n_seq=8)


@pytest.fixture
def series(tmp_path) -> CheckpointSeries:
    return open_series(write_lab_series(tmp_path / "tiny", (0, 8)))


@pytest.fixture
def out(series, tmp_path) -> Path:
    return sweep(series, FIRST, out=tmp_path / "results").path.parent


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (SweepConfig(("sink",), n_seq=12), "--sequences 8"),
        (SweepConfig(("sink",), n_seq=8, seed=3), "--seed 0"),
        (SweepConfig(("prefix_matching",), n_seq=12), ""),
    ],
)
def test_a_second_command_that_would_mix_is_refused_and_one_that_replaces_all_is_not(
    series, out, config, words
):
    before = {file: file.read_bytes() for file in unit_paths(out / "tiny")}
    if not words:
        assert sweep(series, config, out=out).results.frame["n"].max() >= 12
        return
    for call in (sweep, preview):
        with pytest.raises(ByroteError, match="would mix the two") as refusal:
            call(series, config, out=out)
        assert words in refusal.value.help
    assert {file: file.read_bytes() for file in unit_paths(out / "tiny")} == before
    sweep(series, SweepConfig(("sink",), n_seq=8), out=out)  # as the help says
    sweep(series, config, out=out, fresh=True)


def test_a_part_of_the_steps_is_not_measured_otherwise(series, out):
    with pytest.raises(ByroteError, match="sequences 8; this command has sequences 12"):
        sweep(series[1:], SweepConfig(FIRST.probes, n_seq=12), out=out)
    assert sweep(series, SweepConfig(FIRST.probes, n_seq=12), out=out).measured


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_not_utf_8_is_refused_where_results_would_have_to_name_it(tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    series = open_series(write_lab_series(odd / "tiny", (0,)))
    found = sweep(series, FIRST, out=odd / "results").results
    assert found.series_place == series.path
    with pytest.raises(ByroteError, match=r"the name of '.*caf\\udce9/tiny' is not UTF-8"):
        sweep(series, FIRST, out=tmp_path / "results")
    assert not (tmp_path / "results").exists()
    named = replace(series, name=os.fsdecode(b"caf\xe9"))
    with pytest.raises(ByroteError, match=r"the name of '.*caf\\udce9/tiny' is not UTF-8"):
        sweep(named, FIRST, out=tmp_path / "results")


def test_a_path_with_a_colon_is_a_path(tmp_path):
    series = open_series(write_lab_series(tmp_path / "a:b" / "c:d", (0,)))
    found = sweep(series, FIRST, out=tmp_path / "re:sults").results
    assert (found.series_place, found.steps) == (series.path, [0])
