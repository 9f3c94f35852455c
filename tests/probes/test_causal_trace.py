"""Causal trace: memories planted in one head, and in two of which either suffices; the patch by another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lookup_models import CONFIG, D_VOCAB, write_series
from torch import Tensor

from byrote.checkpoints import open_series
from byrote.checkpoints.lab.planted import planted_model
from byrote.checkpoints.token_sets import TokenSets
from byrote.interp.loading import load_fresh
from byrote.interp.model import HookedModel
from byrote.interp.restoring import Put, has_mlp, losses_with, recorded
from byrote.probes.memory.causal_trace import MOST_MEMBERS, prompts
from byrote.probes.registry import REGISTRY
from byrote.probes.results.schema import Measured
from byrote.probes.stimuli import Stimulus, Vocabulary, make
from byrote.probes.sweep.measure import measure_once

K, TARGET_NATS = 6, 12.0
_RNG = np.random.default_rng(3)
MEMBERS = np.array([[0, *_RNG.permutation(np.arange(1, 33))[: 2 * K]] for _ in range(12)])
MEMBERS[:, K - 1] = np.arange(1, 13)  # what each hangs on: its last token but one
TWINS = np.array([[0, *_RNG.permutation(np.arange(40, 60))[: 2 * K]] for _ in range(12)])


def memory_model(*, twice: bool = False) -> tuple[dict, dict[str, Tensor]]:
    """L0H0 writes the token one back; the logits know by heart what follows two later. With `twice`, L1H0 does so too."""
    fields, state = planted_model(CONFIG)
    read = state["layers.0.attn.o.weight"].abs().sum(1).nonzero()[:, 0].min()  # where L0H0 writes
    state["head.weight"].zero_()
    for row in MEMBERS:
        state["head.weight"][row[K + 1], read + row[K - 1]] = TARGET_NATS
    state["layers.1.attn.o.weight"].zero_()
    if twice:
        for name in "qkvo":
            state[f"layers.1.attn.{name}.weight"] = state[f"layers.0.attn.{name}.weight"].clone()
    return fields, state


def shown(members: np.ndarray = MEMBERS, twins: np.ndarray = TWINS) -> dict[str, Stimulus]:
    sets = TokenSets(members=members, repeat_count=np.full(len(members), 9), twins=twins)
    ids = Vocabulary(np.arange(1, D_VOCAB), 0)
    return {k: make(k, ids, n_ctx=32, seed=0, n_seq=8, token_sets=sets) for k in ("members", "twins")}


def measured(model: HookedModel, stimuli: dict[str, Stimulus]) -> dict[str, Measured]:
    return {m.metric: m for m in measure_once(model, REGISTRY["causal_trace"], stimuli=stimuli, seed=0)}


@pytest.fixture
def load(tmp_path):
    def load_one(**planted: bool) -> HookedModel:
        return load_fresh(open_series(write_series(tmp_path / "s", {0: memory_model(**planted)}))[0])

    return load_one


def test_a_memory_in_one_head_is_traced_to_it_and_goes_with_it(load):
    found = measured(load(), shown())
    there = found["clean"].values - found["corrupted"].values
    assert there > 0.9
    one = {0: there}  # places back from the prompt's last token
    for metric, layer, where in (
        ("token", None, {1: there}),  # it hangs on the last token but one
        ("state", 0, one),  # after the first layer it stands at the last place,
        ("state", 1, one),  # and stays there
    ):
        values = found[metric].values if layer is None else found[metric].values[layer]
        answer = np.zeros(K)
        answer[list(where)] = list(where.values())
        np.testing.assert_allclose(values, answer, atol=1e-3)
    np.testing.assert_allclose(found["attn"].values, [there, 0], atol=1e-3)
    np.testing.assert_allclose(found["attn_edit"].values, [there, 0], atol=0.1)
    assert found["agreement"].values == pytest.approx(1, abs=1e-6)
    assert found["traced_frac"].values == 1
    assert "mlp" not in found


def test_a_memory_that_two_heads_hold_is_traced_to_both_and_goes_with_neither(load):
    """Hase et al. 2023: where a memory is found is not where an edit removes it."""
    found = measured(load(twice=True), shown())
    assert found["attn"].values.min() > 0.9
    assert np.abs(found["attn_edit"].values).max() < 0.01
    assert not found["agreement"].values > 0.5  # one never differs enough from the other to agree


def test_what_is_not_memorised_is_not_traced(load):
    model = load()
    known = MEMBERS.copy()
    known[1:, K + 1] = 39  # another next token than the model's
    (reason,) = {m.undefined for m in measured(model, shown(known)).values()}
    assert reason.startswith("1 of 12 members are predicted from their own prompt")
    half = measured(model, shown(np.concatenate([known[1:7], MEMBERS[:6]])))
    assert half["traced_frac"].values == pytest.approx(0.5)
    assert half["attn"].n[0] == 6


def test_what_is_put_is_what_a_hook_by_hand_puts(hf_series):
    model = load_fresh(open_series(hf_series("gpt_neox", 1))[0])
    generator = torch.Generator().manual_seed(0)
    clean, other = (torch.randint(1, 60, (3, 9), generator=generator) for _ in range(2))
    sites = [("embedding", 0), ("state", 0), ("attn", 1), ("mlp", 1)]
    seen = recorded(model, clean, sites)
    where = torch.rand(3, 9, generator=generator) < 0.5
    found = losses_with(model, other, [Put(site, seen[site], where) for site in sites])
    hooks = ("blocks.0.hook_in", "blocks.0.hook_out", "blocks.1.attn.o.hook_in", "blocks.1.mlp.hook_out")
    plain = model.logits(other)
    for name, answer in zip(hooks, found, strict=True):
        stored: list[Tensor] = []
        with model.bridge.hooks(fwd_hooks=[(name, lambda x, hook, stored=stored: stored.append(x.clone()))]):
            model.logits(clean)

        def put(x: Tensor, hook: object, stored: list[Tensor] = stored) -> Tensor:
            mask = where.view(3, 9, *[1] * (x.ndim - 2))
            return torch.where(mask, stored[0], x)

        with model.bridge.hooks(fwd_hooks=[(name, put)]):
            logits = model.logits(other)
        nll = torch.nn.functional.cross_entropy(
            logits[:, :-1].transpose(1, 2), other[:, 1:], reduction="none"
        )
        torch.testing.assert_close(answer, nll, rtol=0, atol=1e-5)
        assert (logits - plain).abs().max() > 1e-3
    assert torch.equal(model.logits(other), plain)
    assert has_mlp(model, clean) == ""


def test_mlps_that_show_the_residual_stream_are_left_out(hf_series):
    model = load_fresh(open_series(hf_series("bloom", 1))[0])
    assert "include the residual stream" in has_mlp(model, torch.tensor([[1, 2, 3]]))


def test_prompts_worked_by_hand():
    rows = np.array([[0, 11, 12, 13, 14, 15, 16], [0, 21, 22, 23, 24, 25, 26]])
    found = prompts(shown(rows, TWINS[:, :7]), seed=0)
    assert found.k.tolist() == [3, 3]
    assert found.clean[0].tolist() == [0, 11, 12, 13, 14]
    assert found.corrupted[0, 4] == 14 and found.corrupted[0, 0] == 0
    assert set(found.corrupted[0, 1:4].tolist()) <= set(range(40, 60))
    assert found.inside[0].tolist() == [False, True, True, True, False]
    nll = torch.arange(8.0).view(1, 2, 4)
    np.testing.assert_allclose(found.probability(nll)[0], np.exp([-3.0, -7.0]))
    assert MOST_MEMBERS == 32
