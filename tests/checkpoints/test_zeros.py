"""Tensors of nothing but zeros: doubted where the neighbours are not zero, never where training begins with them."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import lab_state

from byrote.checkpoints import open_series
from byrote.checkpoints.fingerprint import content_of
from byrote.checkpoints.lint.run import lint
from byrote.checkpoints.zeros import Zeros, doubtful_zeros, zeros_among
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.dry_run import preview
from byrote.probes.sweep.run import sweep

FEW = SweepConfig(probes=("previous_token",), n_seq=4)
LAYERS = ("layers.0.attn.o.weight", "layers.1.attn.o.weight")


def zeros(*names: str, odd: tuple[str, ...] = (), most: bool = False, every: bool = False) -> Zeros:
    return Zeros(frozenset(names), frozenset(odd), most, every)


NONE = zeros()


@pytest.mark.parametrize(
    ("here", "before", "after", "doubted"),
    [
        # never written, or lost
        (zeros("a"), NONE, NONE, ("a",)),
        (zeros("a", "b"), zeros("b"), zeros("b"), ("a",)),
        (zeros("a"), NONE, None, ("a",)),  # the newest step, still being written
        (zeros("a", odd=("a",)), None, NONE, ("a",)),
        (zeros("a", "b", most=True), None, zeros("b"), ("a",)),
        (zeros("a", every=True, most=True), None, None, ("a",)),
        (zeros("a", every=True, most=True), zeros("a"), zeros("a"), ("a",)),
        # meant
        (NONE, NONE, NONE, ()),
        (zeros("a"), zeros("a"), NONE, ()),  # begins to move late: no gradient before, or warm-up
        (zeros("a"), zeros("a"), zeros("a"), ()),  # frozen
        (zeros("a"), None, NONE, ()),  # starts at zero in every layer
        (zeros("a"), NONE, zeros("a"), ()),  # pruned from here on
        (zeros("a", odd=("a",)), None, zeros("a", odd=("a",)), ()),  # pruned from the start
        (zeros("a", odd=("a",)), None, None, ()),  # alone: nothing to compare with
    ],
)
def test_the_rule(here, before, after, doubted):
    assert doubtful_zeros(here, before=before, after=lambda: after) == doubted


def test_the_next_step_is_only_read_where_it_decides():
    def read():
        pytest.fail("it was read")

    for here, before in (
        (NONE, NONE),
        (zeros("a"), zeros("a")),
        (zeros("a"), None),
        (zeros("a", every=True), None),
    ):
        assert doubtful_zeros(here, before=before, after=read) == (("a",) if here.all else ())


def test_namesakes_and_shares():
    found = zeros_among([("layers.0.w", 40, True), ("layers.1.w", 40, False), ("b", 4, True)])
    assert found == zeros("layers.0.w", "b", odd=("layers.0.w",), most=True)
    assert zeros_among([("a", 1, True), ("b", 1, True)]) == zeros("a", "b", most=True, every=True)
    assert zeros_among([]) == zeros_among([("a", 1, False)]) == NONE
    assert Zeros.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.fixture
def series(lab_series):
    return open_series(lab_series((0, 8, 64)))


def zero(series, step: int, *names: str) -> None:
    (file,) = series.at(step).files
    tensors = load_file(file)
    save_file({n: t.zero_() if n in names or not names else t for n, t in tensors.items()}, file)


def preallocate(series, step: int, share: float) -> None:
    """The file at its full size, written up to a share of it."""
    (file,) = series.at(step).files
    data = file.read_bytes()
    whole = int(len(data) * share)
    file.write_bytes(data[:whole] + bytes(len(data) - whole))


@pytest.mark.parametrize(("step", "share"), [(0, 0.2), (0, 0.5), (8, 0.2), (8, 0.8), (64, 0.8)])
def test_a_preallocated_file_is_a_gap_and_a_fact_until_it_is_written(series, tmp_path, step, share):
    good = series.at(step).files[0].read_bytes()
    preallocate(series, step, share)
    outcome = sweep(series, FEW, out=tmp_path / "out")
    assert [gap["step"] for gap in outcome.gaps] == [step]
    assert "hold nothing but zeros" in outcome.gaps[0]["reason"]
    assert outcome.results.steps == [s for s in (0, 8, 64) if s != step]
    assert [fact.steps for fact in lint(series).of("zero_tensors")] == [(step,)]
    again = sweep(series, FEW, out=tmp_path / "out")  # by what is cached
    assert [gap["step"] for gap in again.gaps] == [step]
    series.at(step).files[0].write_bytes(good)
    assert sweep(series, FEW, out=tmp_path / "out").gaps == []


def test_a_dry_run_names_what_cannot_be_read_now(series, tmp_path):
    sweep(series, FEW, out=tmp_path / "out")
    preallocate(series, 64, 0.8)
    planned = preview(series, FEW, out=tmp_path / "out")
    assert [gap.step for gap in planned.gaps] == [64] and "nothing but zeros" in planned.gaps[0].reason
    assert (planned.to_measure, planned.stored) == (0, 2)


def test_a_series_whose_every_number_is_zero_is_not_scored(series, tmp_path):
    for step in series.steps:
        zero(series, step)
    assert [gap["step"] for gap in sweep(series, FEW, out=tmp_path / "out").gaps] == [0, 8, 64]


def test_what_training_begins_with_is_measured(series, tmp_path):
    biases = [name for name in lab_state(0) if name.endswith("bias")]
    for step in series.steps:
        zero(series, step, *biases, *(LAYERS if step < 64 else ()))  # frozen, and without a gradient at first
    assert content_of(series.at(64)).zeros.names == set(biases)
    assert sweep(series, FEW, out=tmp_path / "out").gaps == []
    assert lint(series).of("zero_tensors") == ()


def test_one_layer_of_zeros_at_the_first_step_is_not_how_training_begins(series, tmp_path):
    zero(series, 0, LAYERS[0])
    assert [gap["step"] for gap in sweep(series, FEW, out=tmp_path / "out").gaps] == [0]


def test_pruned_from_a_step_on(series, tmp_path):
    zero(series, 8, LAYERS[0])
    zero(series, 64, LAYERS[0])
    assert sweep(series, FEW, out=tmp_path / "out").gaps == []


def test_minus_zero_and_masks_are_no_zeros(series):
    (file,) = series[0].files
    save_file(
        {**lab_state(0), "mask": torch.zeros(4, 4, dtype=torch.bool), "x": torch.full((4,), -0.0)}, file
    )
    assert not content_of(series[0]).zeros.names & {"mask", "x"}
