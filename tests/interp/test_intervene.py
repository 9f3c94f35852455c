"""Edits at z: against edited weights, against attention written out, on every architecture; nothing stays behind."""

from __future__ import annotations

import pytest
import torch
from test_observe import ARCHITECTURES, Keep, tokens_of
from torch import Tensor

from byrote.checkpoints import ByroteError, open_series
from byrote.interp.intervene import (
    ABLATIONS,
    CleanRun,
    Edit,
    clean_run,
    derangement,
    edit_problem,
    editing,
    losses_under,
    patterns_of,
)
from byrote.interp.loading import load_fresh
from byrote.interp.model import HookedModel
from byrote.interp.observe import observe

HEADS = [(0, 1), (1, 2)]


@pytest.fixture
def load(hf_series, lab_series):
    """`load(arch)`: a tiny random model with two layers of four heads; "lab" has attention only."""

    def load_one(arch: str) -> HookedModel:
        path = lab_series(1) if arch == "lab" else hf_series(arch, 1)
        return load_fresh(open_series(path)[0])

    return load_one


def tokens_for(model: HookedModel, n: int = 4, pos: int = 16) -> Tensor:
    return tokens_of(n, pos, model.shape.d_vocab)


def nll(model: HookedModel, tokens: Tensor) -> Tensor:
    """Losses without any engine of ours."""
    log_p = model.logits(tokens).double().log_softmax(-1)
    return -log_p[:, :-1].gather(-1, tokens[:, 1:, None]).squeeze(-1)


def erase(model: HookedModel, head: tuple[int, int]) -> None:
    """Set a head's rows of W_O to zero, in the live weights."""
    layer, index = head
    d, o = model.shape.d_head, model.bridge.blocks[layer].attn.o.original_component
    part = slice(index * d, (index + 1) * d)
    rows = o.weight[part] if type(o).__name__ == "Conv1D" else o.weight[:, part]
    with torch.no_grad():
        rows.zero_()


def state(model: HookedModel) -> tuple[list[Tensor], int]:
    """Every tensor of the bridge, and how many hooks hang on it."""
    hooks = sum(len(point.fwd_hooks) for point in model.bridge.hook_dict.values())
    return [t.detach().clone() for t in (*model.bridge.parameters(), *model.bridge.buffers())], hooks


def assert_as_found(model: HookedModel, found: tuple[list[Tensor], int]) -> None:
    now = state(model)
    assert now[1] == found[1]
    assert all(torch.equal(a, b) for a, b in zip(now[0], found[0], strict=True))


@pytest.mark.parametrize("arch", [*ARCHITECTURES, "lab"])
def test_zero_ablation_is_a_head_without_output_weights(load, arch):
    model = load(arch)
    tokens = tokens_for(model)
    found = state(model)
    clean = clean_run(model, tokens)
    edits = [Edit(), *(clean.ablation("zero", [head]) for head in HEADS), clean.ablation("zero", HEADS)]
    losses = losses_under(model, tokens, edits)
    assert_as_found(model, found)
    torch.testing.assert_close(losses[0].double(), nll(model, tokens), rtol=0, atol=2e-5)
    for index, heads in enumerate(([HEADS[0]], [HEADS[1]], HEADS), 1):
        other = load_fresh(model.checkpoint)
        for head in heads:
            erase(other, head)
        torch.testing.assert_close(losses[index].double(), nll(other, tokens), rtol=0, atol=2e-5)
        assert (losses[index] - losses[0]).abs().max() > 1e-3


@pytest.mark.parametrize("arch", ["gpt2", "llama", "opt"])
@pytest.mark.parametrize("kind", ABLATIONS)
def test_batching_and_chunks_change_nothing(load, arch, kind):
    model = load(arch)
    tokens = tokens_for(model, n=5)
    clean = clean_run(model, tokens, seed=1)
    edits = [Edit(), *(clean.ablation(kind, [head]) for head in HEADS), clean.ablation(kind, HEADS)]
    whole = losses_under(model, tokens, edits)
    for most_rows in (2, 7):
        parts = losses_under(model, tokens, edits, most_rows=most_rows)
        torch.testing.assert_close(parts, whole, rtol=0, atol=2e-5)


def test_mean_is_over_the_other_sequences_at_the_same_position_and_resample_is_one_of_them(load):
    z = torch.arange(3 * 2 * 4.0).reshape(3, 2, 1, 4)  # sequences, positions, one head
    clean = CleanRun({0: z}, seed=5)
    mean = clean.stand_in("mean", 0)
    assert torch.equal(mean[0], (z[1] + z[2]) / 2)
    assert torch.equal(mean[2], (z[0] + z[1]) / 2)
    resampled = clean.stand_in("resample", 0)
    assert torch.equal(resampled, z[derangement(3, 5)])
    assert not clean.stand_in("zero", 0).any()


def test_a_stand_in_reaches_w_o(load):
    """What the observers see at z under an edit is what was put there, in every sequence and only in that head."""
    model = load("llama")
    tokens = tokens_for(model, n=3)
    clean = clean_run(model, tokens, seed=2)
    for kind in ("zero", "mean", "resample"):
        watcher = Keep("z")
        with editing(model, [clean.ablation(kind, [(1, 2)])]):
            observe(model, tokens, [watcher], batch=3)
        seen = watcher.layers[1].z
        torch.testing.assert_close(seen[:, :, 2], clean.stand_in(kind, 1)[:, :, 2], rtol=0, atol=0)
        rest = [0, 1, 3]
        torch.testing.assert_close(seen[:, :, rest], clean.z[1][:, :, rest], rtol=0, atol=1e-6)


def test_derangements_leave_nothing_in_its_place():
    for n in (2, 3, 8, 33):
        for seed in range(5):
            order = derangement(n, seed)
            assert sorted(order.tolist()) == list(range(n))
            assert not (order == torch.arange(n)).any()
    assert torch.equal(derangement(16, 3), derangement(16, 3))
    assert not torch.equal(derangement(16, 3), derangement(16, 4))


@pytest.mark.parametrize("arch", ["lab", "gpt2", "llama", "gptj"])
def test_pattern_preserving_removes_the_head_and_moves_no_later_pattern(load, arch):
    """Written out: the second layer's z is the clean pattern times the values of the run without the head."""
    model = load(arch)
    tokens = tokens_for(model)
    clean, patterns = clean_run(model, tokens), patterns_of(model, tokens)
    edit = clean.ablation("pattern_preserving", [(0, 1)])
    watcher = Keep("z", "v")
    with editing(model, [edit], clean_patterns=patterns):
        observe(model, tokens, [watcher], batch=len(tokens))
        kept = nll(model, tokens)
    assert not watcher.layers[0].z[:, :, 1].any()
    other = load_fresh(model.checkpoint)
    erase(other, (0, 1))
    without = Keep("v", "z")
    observe(other, tokens, [without], batch=len(tokens))
    torch.testing.assert_close(watcher.layers[1].v, without.layers[1].v, rtol=0, atol=1e-5)
    answer = torch.einsum("bhqk,bkhd->bqhd", patterns[1], without.layers[1].v)
    torch.testing.assert_close(watcher.layers[1].z, answer, rtol=0, atol=1e-5)
    assert (answer - without.layers[1].z).abs().max() > 1e-3  # its patterns had moved
    losses = losses_under(model, tokens, [edit])
    torch.testing.assert_close(losses[0].double(), kept, rtol=0, atol=1e-6)


def test_in_an_attention_only_model_it_is_the_heads_terms_subtracted(lab_series):
    """Olsson et al. 2022: with patterns frozen an attention-only model without norms is linear in each head."""
    model = load_fresh(open_series(lab_series(1, normalization_type=None))[0])
    tokens = tokens_for(model)
    clean = clean_run(model, tokens)
    patterns = patterns_of(model, tokens)[1].double()
    w, head = model.weights, 1
    write = (clean.z[0][:, :, head] @ w.W_O[0, head]).double()
    through = sum(
        patterns[:, h] @ write @ w.W_V[1, h].double() @ w.W_O[1, h].double()
        for h in range(model.shape.n_heads)
    )
    answer = model.logits(tokens).double() - (write + through) @ w.W_U.double()
    with editing(
        model,
        [clean.ablation("pattern_preserving", [(0, head)])],
        clean_patterns=patterns_of(model, tokens),
    ):
        torch.testing.assert_close(model.logits(tokens).double(), answer, rtol=0, atol=2e-5)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_pattern_is_applied_to_the_runs_own_values(load, arch):
    """Putting a head's own pattern back changes nothing; another one gives z = pattern @ v and moves the logits."""
    model = load(arch)
    tokens = tokens_for(model)
    assert edit_problem(model, tokens) == edit_problem(model, tokens, patterns=True) == ""
    own = {(1, h): patterns_of(model, tokens)[1][:, h] for h in range(4)}
    losses = losses_under(model, tokens, [Edit(), Edit(patterns=own)])
    torch.testing.assert_close(losses[1], losses[0], rtol=0, atol=1e-5)
    forced = torch.zeros(4, 16, 16)
    forced[:, 8:, 3] = 1.0  # every later query looks at position 3; the first eight keep what they do
    watcher = Keep("z", "v")
    with editing(model, [Edit(patterns={(1, 2): forced})]):
        observe(model, tokens, [watcher], batch=4)
    clean = clean_run(model, tokens)
    view = watcher.layers[1]
    torch.testing.assert_close(view.z[:, 8:, 2], view.v[:, 3:4, 2].expand(-1, 8, -1), rtol=0, atol=1e-6)
    torch.testing.assert_close(view.z[:, :8, 2], clean.z[1][:, :8, 2], rtol=0, atol=1e-6)
    torch.testing.assert_close(view.z[:, :, 1], clean.z[1][:, :, 1], rtol=0, atol=1e-6)


def test_the_check_refuses_what_it_must(load):
    model = load("gpt2")
    tokens = tokens_for(model)
    for head in [(layer, h) for layer in (0, 1) for h in range(4)]:
        erase(model, head)
    assert "removing the output of every head does not change the logits" in edit_problem(model, tokens)
    assert "giving every head random attention does not change" in edit_problem(model, tokens, patterns=True)
    model = load("gpt_neox")
    point = dict(model.bridge.hook_dict)["blocks.1.attn.v.hook_out"]
    point.add_hook(lambda v, hook: v.roll(1, 0), is_permanent=True)
    assert edit_problem(model, tokens, patterns=True) == ""  # values were moved before attention reads them
    point = dict(model.bridge.hook_dict)["blocks.1.attn.o.hook_in"]
    point.add_hook(lambda z, hook: z * 1.5, is_permanent=True)
    assert "head outputs are not attention times values" in edit_problem(model, tokens, patterns=True)
    assert edit_problem(model, tokens) == ""
    with torch.no_grad():
        next(iter(model.parameters.values())).fill_(torch.nan)
    assert edit_problem(model, tokens) == "the logits are not finite"


def test_the_model_is_as_it_was_after_an_error(load):
    model = load("llama")
    tokens = tokens_for(model)
    before, found = model.logits(tokens), state(model)
    clean = clean_run(model, tokens)
    with pytest.raises(KeyError), editing(model, [clean.ablation("pattern_preserving", [(0, 0)])]):
        model.logits(tokens)  # no clean patterns were given
    three = [clean.ablation("zero", [(0, 0)])] * 3
    words = "4 rows are not one block for each of 3 edits"
    with pytest.raises(ByroteError, match=words), editing(model, three):
        model.logits(tokens)
    with pytest.raises(ZeroDivisionError), editing(model, [clean.ablation("mean", [(0, 0)])]):
        raise ZeroDivisionError
    assert_as_found(model, found)
    assert torch.equal(model.logits(tokens), before)


def test_what_cannot_be_ablated_is_said(load):
    model = load("lab")
    tokens = tokens_for(model, n=1)
    clean = clean_run(model, tokens, layers=[0])
    with pytest.raises(ByroteError, match="did you mean 'resample'"):
        clean.ablation("resampled", [(0, 0)])
    for kind in ("mean", "resample"):
        with pytest.raises(ByroteError, match="at least two sequences"):
            clean.ablation(kind, [(0, 0)])
    assert list(clean.z) == [0]
    assert clean.ablation("zero", [(0, 0)]).heads == {(0, 0)}
