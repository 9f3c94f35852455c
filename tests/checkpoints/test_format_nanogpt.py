"""nanoGPT's ckpt.pt: found, ordered, and giving the logits nanoGPT itself gives."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from pickled_files import NANOGPT, nanogpt_content, nanogpt_state, write_nanogpt

from byrote.checkpoints import CheckpointError, open_series
from byrote.checkpoints.fingerprint import fingerprint, model_hashes, tensor_hashes
from byrote.checkpoints.formats.nanogpt import LOSS_NOTE
from byrote.interp.bridge import HookedSeries
from byrote.interp.loading import load_fresh


def nanogpt_logits(state, tokens, *, n_head):
    """nanoGPT's forward pass, from its model.py, in plain functions."""
    p = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p.get(f"{name}.bias"), 1e-5)

    def linear(x, name):
        return F.linear(x, p[f"{name}.weight"], p.get(f"{name}.bias"))

    n = tokens.shape[1]
    x = p["wte.weight"][tokens] + p["wpe.weight"][:n]
    for layer in range(sum(name.endswith("ln_1.weight") for name in p)):
        h = f"h.{layer}"
        q, k, v = linear(norm(x, f"{h}.ln_1"), f"{h}.attn.c_attn").split(x.shape[-1], dim=2)
        q, k, v = (t.unflatten(2, (n_head, -1)).transpose(1, 2) for t in (q, k, v))
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(torch.ones(n, n).tril() == 0, -math.inf)
        x = x + linear((scores.softmax(-1) @ v).transpose(1, 2).flatten(2), f"{h}.attn.c_proj")
        x = x + linear(F.gelu(linear(norm(x, f"{h}.ln_2"), f"{h}.mlp.c_fc")), f"{h}.mlp.c_proj")
    return F.linear(norm(x, "ln_f"), p["lm_head.weight"])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_logits_equal_nanogpts_own(tmp_path, bias, legacy):
    write_nanogpt(tmp_path / "ckpt.pt", 7, bias=bias, legacy=legacy, compiled=bias)
    model = load_fresh(open_series(tmp_path)[0])
    tokens = torch.randint(0, NANOGPT["vocab_size"], (3, 20), generator=torch.Generator().manual_seed(0))
    expected = nanogpt_logits(nanogpt_state(7, bias=bias), tokens, n_head=2)
    torch.testing.assert_close(model.logits(tokens), expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.5  # the comparison is about something
    assert (model.shape.architecture, model.shape.n_layers, model.shape.n_heads) == ("GPT2LMHeadModel", 2, 2)
    assert (model.shape.n_ctx, model.shape.d_vocab) == (24, 29)


def test_an_untied_head_stays_untied(tmp_path):
    content = nanogpt_content(3)
    content["model"]["lm_head.weight"] = torch.flip(content["model"]["lm_head.weight"], (0,))
    torch.save(content, tmp_path / "ckpt.pt")
    tokens = torch.arange(20)[None]
    expected = nanogpt_logits(content["model"], tokens, n_head=2)
    torch.testing.assert_close(
        load_fresh(open_series(tmp_path)[0]).logits(tokens), expected, rtol=1e-5, atol=1e-5
    )


def test_masks_of_the_slow_attention_path_are_left_out(tmp_path):
    content = nanogpt_content(3)
    for layer in range(2):
        content["model"][f"transformer.h.{layer}.attn.bias"] = torch.ones(24, 24).tril().view(1, 1, 24, 24)
    torch.save(content, tmp_path / "ckpt.pt")
    assert load_fresh(open_series(tmp_path)[0]).shape.n_layers == 2


def test_steps_tokens_and_loss(tmp_path):
    for step in (250, 0, 1000):
        write_nanogpt(tmp_path / f"ckpt_{step}.pt", step)
    series = open_series(tmp_path)
    assert (series.format, series.steps, series.gaps) == ("nanogpt", (0, 250, 1000), ())
    assert series.notes == (LOSS_NOTE,)
    assert series.tokens_seen == (0, 250 * 12 * 24 * 5, 1000 * 12 * 24 * 5)
    assert series.loss_nats == pytest.approx((4.0, 3.75, 3.0))


def test_layouts(tmp_path):
    write_nanogpt(tmp_path / "out" / "ckpt.pt", 123)
    assert open_series(tmp_path / "out").steps == (123,)  # from iter_num
    for step in (5, 10):
        write_nanogpt(tmp_path / "run" / f"step_{step}" / "ckpt.pt", step)
    assert open_series(tmp_path / "run").steps == (5, 10)
    assert open_series(tmp_path / "run" / "step_10").steps == (10,)


def test_the_latest_copy_beside_numbered_files_is_no_second_step(tmp_path):
    for step in (100, 200):
        write_nanogpt(tmp_path / f"ckpt_{step}.pt", step)
    write_nanogpt(tmp_path / "ckpt.pt", 200)
    series = open_series(tmp_path)
    assert (series.steps, series.gaps) == ((100, 200), ())
    assert series.notes == ("ckpt.pt is step 200 again and was left out", LOSS_NOTE)
    write_nanogpt(tmp_path / "ckpt.pt", 300)
    assert open_series(tmp_path).steps == (100, 200, 300)


def test_before_the_first_validation_there_is_no_loss(tmp_path):
    content = nanogpt_content(0)
    content["best_val_loss"] = 1e9
    del content["config"]["gradient_accumulation_steps"]
    torch.save(content, tmp_path / "ckpt_0.pt")
    (checkpoint,) = open_series(tmp_path)
    assert (checkpoint.loss_nats, checkpoint.tokens_seen) == (None, None)


def test_swapping_in_place_gives_the_bits_of_a_fresh_load(tmp_path):
    for step in (1, 2, 3):
        write_nanogpt(tmp_path / f"ckpt_{step}.pt", step)
    series, tokens = open_series(tmp_path), torch.arange(24)[None]
    walker = HookedSeries(series)
    for checkpoint in series:
        assert torch.equal(walker.load(checkpoint).logits(tokens), load_fresh(checkpoint).logits(tokens))
    assert walker.swap_used == "in place"


def test_the_fingerprint_is_of_the_weights_alone(tmp_path):
    hashes = {}
    for name, changes in {"a": {}, "legacy": {"legacy": True}, "other": {"bias": True}}.items():
        write_nanogpt(tmp_path / name / "ckpt.pt", 5, **changes)
        hashes[name] = tensor_hashes(open_series(tmp_path / name)[0])
    content = nanogpt_content(5) | {"optimizer": {}, "iter_num": 6}
    (tmp_path / "bare").mkdir()
    torch.save(content, tmp_path / "bare" / "ckpt.pt")
    hashes["bare"] = tensor_hashes(open_series(tmp_path / "bare")[0])
    assert hashes["a"] == hashes["legacy"] == hashes["bare"] != hashes["other"]
    assert hashes["a"].keys() == nanogpt_state(5).keys()
    assert len(fingerprint(hashes["a"])) == 32


def test_padding_rows_of_the_vocabulary_are_no_tokens(tmp_path):
    from byrote.checkpoints.vocabulary import usable_ids
    from byrote.interp.loading import read_config

    write_nanogpt(tmp_path / "ckpt.pt", 1, vocab_size=50304, n_embd=2, n_head=1, n_layer=1)
    config = read_config(open_series(tmp_path)[0])
    ids, bos, _ = usable_ids(config, 50304)
    assert (bos, ids[-1], len(ids)) == (50256, 50255, 50256)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_args": {"n_layer": 2}}, "model_args does not say n_head"),
        ({"model_args": {**NANOGPT, "n_head": 3}}, "16, which 3 heads do not divide"),
        ({"model_args": {**NANOGPT, "n_layer": -1}}, "does not say n_layer"),
        ({"model": {"a": 3}}, "lacks model or model_args"),
        ({"iter_num": "soon"}, "the step of ckpt.pt is unknown"),
    ],
)
def test_what_is_no_nanogpt_checkpoint_is_a_gap(tmp_path, change, words):
    write_nanogpt(tmp_path / "ckpt_1.pt", 1)
    torch.save(nanogpt_content(2) | change, tmp_path / "ckpt.pt")
    series = open_series(tmp_path)
    assert (series.steps, [gap.path.name for gap in series.gaps]) == ((1,), ["ckpt.pt"])
    assert words in series.gaps[0].reason


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda m: m.pop("transformer.h.1.mlp.c_fc.weight"), "missing keys .*h.1.mlp.c_fc"),
        (
            lambda m: m.update({"transformer.h.2.ln_1.weight": torch.ones(16)}),
            "not belong to the architecture.*h.2.ln_1",
        ),
        (lambda m: m.update({"transformer.wpe.weight": torch.ones(23, 16)}), "mismatched keys .*wpe"),
        (lambda m: m.update({"transformer.h.0.attn.c_attn.weight": torch.ones(3)}), "is not a matrix"),
    ],
)
def test_tensors_that_do_not_fill_the_model_are_refused(tmp_path, edit, words):
    content = nanogpt_content(1)
    edit(content["model"])
    torch.save(content, tmp_path / "ckpt.pt")
    with pytest.raises(CheckpointError, match=words):
        load_fresh(open_series(tmp_path)[0])


def test_the_same_tensors_with_other_heads_are_another_model(tmp_path):
    found = []
    for n_head in (2, 4):
        content = nanogpt_content(5)
        content["model_args"]["n_head"] = n_head
        (tmp_path / str(n_head)).mkdir()
        torch.save(content, tmp_path / str(n_head) / "ckpt.pt")
        (checkpoint,) = open_series(tmp_path / str(n_head))
        found.append((tensor_hashes(checkpoint), fingerprint(model_hashes(checkpoint))))
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]
