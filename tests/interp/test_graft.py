"""Grafted heads: against checkpoints spliced by hand, and taken out again to the bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_intervene import assert_as_found, state, tokens_for
from tiny_models import lab_state, tiny_hf_model
from torch import Tensor
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources.native.model import NativeModel

from byrote.checkpoints import ByroteError, open_series
from byrote.interp.bridge import HookedSeries
from byrote.interp.graft import grafted, take

D = 8  # d_head of the tiny Hugging Face models
States = dict[str, Tensor]


def splice_gpt2(into: States, donor: States, layer: int, head: int) -> None:
    part = slice(head * D, (head + 1) * D)
    for third in range(3):
        columns = slice(third * 32 + part.start, third * 32 + part.stop)
        into[f"transformer.h.{layer}.attn.c_attn.weight"][:, columns] = donor[
            f"transformer.h.{layer}.attn.c_attn.weight"
        ][:, columns]
        into[f"transformer.h.{layer}.attn.c_attn.bias"][columns] = donor[
            f"transformer.h.{layer}.attn.c_attn.bias"
        ][columns]
    name = f"transformer.h.{layer}.attn.c_proj.weight"
    into[name][part] = donor[name][part]


def splice_gpt_neox(into: States, donor: States, layer: int, head: int) -> None:
    prefix, rows = f"gpt_neox.layers.{layer}.attention", slice(head * 3 * D, (head + 1) * 3 * D)
    for name in ("query_key_value.weight", "query_key_value.bias"):
        into[f"{prefix}.{name}"][rows] = donor[f"{prefix}.{name}"][rows]
    part = slice(head * D, (head + 1) * D)
    into[f"{prefix}.dense.weight"][:, part] = donor[f"{prefix}.dense.weight"][:, part]


def splice_llama(into: States, donor: States, layer: int, head: int) -> None:
    prefix = f"model.layers.{layer}.self_attn"
    for name, index in (("q", head), ("k", head // 2), ("v", head // 2)):
        rows = slice(index * D, (index + 1) * D)
        into[f"{prefix}.{name}_proj.weight"][rows] = donor[f"{prefix}.{name}_proj.weight"][rows]
    part = slice(head * D, (head + 1) * D)
    into[f"{prefix}.o_proj.weight"][:, part] = donor[f"{prefix}.o_proj.weight"][:, part]


@pytest.mark.parametrize(
    ("arch", "splice", "heads"),
    [
        ("gpt2", splice_gpt2, [(0, 2), (1, 0)]),
        ("gpt_neox", splice_gpt_neox, [(0, 2), (1, 0)]),
        ("llama", splice_llama, [(1, 2), (1, 3)]),
    ],
)
def test_a_graft_is_the_checkpoint_spliced_by_hand(hf_series, arch, splice: Callable[..., None], heads):
    series = open_series(hf_series(arch, 3))
    hooked = HookedSeries(series)
    graft = take(hooked.load(series[1]), heads)
    model = hooked.load(series[0])
    tokens = tokens_for(model)
    before, found = model.logits(tokens), state(model)
    by_hand, donor = tiny_hf_model(arch, seed=0), tiny_hf_model(arch, seed=1)
    spliced = {name: tensor.clone() for name, tensor in by_hand.state_dict().items()}
    for head in heads:
        splice(spliced, donor.state_dict(), *head)
    by_hand.load_state_dict(spliced)
    with grafted(model, graft), torch.inference_mode():
        after = model.logits(tokens)
        torch.testing.assert_close(after, by_hand(tokens).logits, rtol=0, atol=2e-5)
    assert (after - before).abs().max() > 1e-2
    assert_as_found(model, found)
    assert torch.equal(model.logits(tokens), before)
    assert graft.step == 1
    # Swapping weights in place goes on working afterwards.
    torch.testing.assert_close(hooked.load(series[2]).logits(tokens), fresh_logits(series[2], tokens))


def fresh_logits(checkpoint, tokens: Tensor) -> Tensor:
    from byrote.interp.loading import load_fresh

    return load_fresh(checkpoint).logits(tokens)


def test_biases_of_the_lab_model_come_along(lab_series):
    series = open_series(lab_series(2))
    hooked = HookedSeries(series)
    graft = take(hooked.load(series[1]), [(0, 1)])
    model = hooked.load(series[0])
    tokens = tokens_for(model)
    spliced, donor = lab_state(0), lab_state(1)
    for name in "qkv":
        for kind in ("weight", "bias"):
            key = f"layers.0.attn.{name}.{kind}"
            spliced[key][4:8] = donor[key][4:8]
    spliced["layers.0.attn.o.weight"][:, 4:8] = donor["layers.0.attn.o.weight"][:, 4:8]
    fields = {k: v for k, v in model.config.items() if k not in ("model_type", "bos_token_id")}
    plain = NativeModel(TransformerBridgeConfig(**fields))
    plain.load_state_dict(spliced)
    with grafted(model, graft), torch.inference_mode():
        torch.testing.assert_close(model.logits(tokens), plain(tokens), rtol=0, atol=1e-5)


def test_weights_read_while_grafted_are_the_grafts_and_afterwards_the_models(lab_series):
    series = open_series(lab_series(2))
    hooked = HookedSeries(series)
    donor = hooked.load(series[1])
    theirs, graft = donor.weights.W_O[1, 2].clone(), take(donor, [(1, 2)])
    model = hooked.load(series[0])
    own = model.weights.W_O[1, 2].clone()
    with grafted(model, graft):
        assert torch.equal(model.weights.W_O[1, 2], theirs)
    assert torch.equal(model.weights.W_O[1, 2], own)
    assert not torch.equal(own, theirs)


def test_an_error_inside_leaves_the_model_as_it_was(hf_series):
    series = open_series(hf_series("gpt_neox", 2))
    hooked = HookedSeries(series)
    graft = take(hooked.load(series[1]), [(0, 0)])
    model = hooked.load(series[0])
    found = state(model)
    with pytest.raises(ZeroDivisionError), grafted(model, graft):
        raise ZeroDivisionError
    assert_as_found(model, found)


def test_what_cannot_be_grafted_is_said(hf_series, lab_series):
    llama = HookedSeries(open_series(hf_series("llama", 1)))
    model = llama.load(llama.series[0])
    with pytest.raises(
        ByroteError, match=r"L1H2 shares its keys and values with L1H3\. graft them together: add L1H3"
    ):
        take(model, [(1, 2)])
    with pytest.raises(ByroteError, match="there is no L2H0: the model has 2 layers of 4 heads"):
        take(model, [(2, 0)])
    with pytest.raises(ByroteError, match="no heads"):
        take(model, [])
    lab = HookedSeries(open_series(lab_series(1)))
    other = take(lab.load(lab.series[0]), [(0, 0)])
    with pytest.raises(ByroteError, match="another model"), grafted(model, other):
        pass
