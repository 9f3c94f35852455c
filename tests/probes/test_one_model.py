"""A model in memory gives the numbers that its weights on disk give, and is left as it was."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import tiny_hf_model
from transformer_lens.model_bridge.sources import build_bridge_from_module

import byrote as br
from byrote.checkpoints.lab import LabConfig
from byrote.checkpoints.lab.model import build_model
from byrote.probes.verify import verify

PROBES = ("prefix_matching", "copying_logit", "repeat_loss", "ov_copying", "induction")
SIZES = {"n_seq": 4, "progress": False}
NUMBERS = ["probe", "metric", "layer", "head", "value", "lo", "hi", "chance", "n", "valid", "reason"]


def same(one: br.Results, other: br.Results) -> None:
    pd.testing.assert_frame_equal(
        one.frame[NUMBERS].reset_index(drop=True),
        other.frame[NUMBERS].reset_index(drop=True),
        check_exact=True,
    )


def state(model: torch.nn.Module) -> tuple:
    return (
        [(name, module.training, len(module._forward_hooks)) for name, module in model.named_modules()],
        [(n, p.requires_grad, None if p.grad is None else p.grad.clone(), p.clone()) for n, p in model.named_parameters()],
        torch.random.get_rng_state(),
    )  # fmt: skip


def assert_equal(one, other) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


def in_training(model: torch.nn.Module) -> torch.nn.Module:
    """In the middle of a step: training mode, a frozen parameter, gradients of the others."""
    model.train()
    first, *rest = model.parameters()
    first.requires_grad_(False)
    for parameter in rest:
        parameter.grad = torch.ones_like(parameter)
    return model


@pytest.mark.parametrize("arch", ["gpt2", "gpt_neox", "llama"])
def test_a_model_of_transformers_and_its_bridge(arch, tmp_path):
    model = tiny_hf_model(arch, seed=3)
    model.save_pretrained(tmp_path / "series" / "step0")
    disk = br.measure(tmp_path / "series", PROBES, out=tmp_path / "out", **SIZES)
    before = state(in_training(model))
    same(br.measure(model, PROBES, **SIZES), disk)
    assert_equal(state(model), before)
    bridge = build_bridge_from_module(
        model.eval(), type(model).__name__, hf_config=model.config, tokenizer=None
    )
    before = state(in_training(bridge))
    same(br.measure(bridge, PROBES, **SIZES), disk)
    assert_equal(state(bridge), before)


def test_a_native_model_in_training(lab_series, tmp_path):
    config = LabConfig(n_layers=2)
    model = in_training(build_model(config))
    before = state(model)
    results = br.measure(model, PROBES, name="mine", step=7, **SIZES)
    assert_equal(state(model), before)
    assert (results.run, results.steps, list(tmp_path.iterdir())) == ("mine", [7], [])
    assert len(results["prefix_matching"].top(3)) == 3
    assert len(results.samples(7)["samples"].iloc[0]) == 4
    assert "prefix_matching" in results._repr_html_()
    compiled = torch.nn.parallel.DistributedDataParallel.__new__(torch.nn.parallel.DistributedDataParallel)
    torch.nn.Module.__init__(compiled)
    compiled.module = model
    same(br.measure(compiled, PROBES, **SIZES), results)


def test_with_out_the_steps_of_a_model_make_a_series(tmp_path):
    model = tiny_hf_model("gpt2", seed=0)
    for step in (1, 5):
        with torch.no_grad():
            model.lm_head.weight.mul_(1.5)
        results = br.measure(model, ("repeat_loss", "sink"), step=step, out=tmp_path, **SIZES)
    assert results.path == tmp_path / "model"
    assert br.Results.open(results.path).steps == [1, 5]
    assert results.meta["series"]["steps"] == [1, 5]
    losses = results.frame[results.frame["metric"] == "later_blocks"]["value"].to_numpy()
    assert losses[0] != losses[1] and np.isfinite(losses).all()
    assert results.series_shown == "", "no command can measure it again"
    assert (
        verify(results.path).checked[-1]
        == "measured on a model in memory: there are no checkpoints to compare"
    )
    again = br.measure(model, ("repeat_loss", "sink"), step=5, out=tmp_path, **SIZES)
    same(again, results)


def test_a_probe_of_ones_own_on_a_model_in_memory():
    @br.probe(unit="attention fraction", range=(0, 1), stimulus="repeated_random")
    def looks_at_itself(pattern):
        """Mean attention of a token to itself."""
        return pattern.diagonal(dim1=-2, dim2=-1).mean(-1)

    frame = br.measure(tiny_hf_model("llama", seed=1), looks_at_itself, **SIZES).frame
    assert len(frame) == 8 and frame["value"].between(0, 1).all()


def test_loading_and_measuring_leave_the_global_generator_alone(hf_series, tmp_path):
    series = br.open_series(hf_series("gpt_neox", 3))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    br.load(series.at(0))
    assert torch.equal(torch.random.get_rng_state(), before)
    br.measure(series, PROBES, out=tmp_path, **SIZES)
    assert torch.equal(torch.random.get_rng_state(), before)
    br.measure(series, PROBES, out=tmp_path / "fresh", swap="fresh", **SIZES)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: torch.nn.Linear(3, 3), "a Linear cannot be measured: it has no transformers config"),
        (lambda: compatible(), "in compatibility mode"),
    ],
)
def test_what_cannot_be_measured_is_said(made, said):
    with pytest.raises(br.ByroteError, match=said):
        br.measure(made(), "sink", **SIZES)
    with pytest.raises(br.ByroteError, match=r"no tokenizer\.json at"):
        br.measure(tiny_hf_model("gpt2", seed=0), "sink", tokenizer="nowhere.json", **SIZES)


def compatible() -> torch.nn.Module:
    model = torch.nn.Linear(3, 3)
    model.compatibility_mode = True
    return model
