"""Models of the lab: each opens behind hooks as it was trained, resumes to the same bytes, or is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from byrote.checkpoints import open_series
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab import Arm, LabConfig, train
from byrote.checkpoints.lab.config import SMEARED
from byrote.checkpoints.lab.model import SmearedKeys, build_model, dropping, mean_loss
from byrote.checkpoints.lab.source import draw
from byrote.checkpoints.lab.sources import Names, Text
from byrote.checkpoints.lab.sources.text_windows import encoded
from byrote.checkpoints.token_sets import N_CANDIDATES, token_sets_of
from byrote.interp.bridge import HookedSeries
from byrote.interp.loading import load_fresh
from byrote.interp.observe import Keeper, observe
from byrote.probes.notebook import measure

SMALL = LabConfig(
    source=Names(n_ctx=12),
    d_model=16,
    n_heads=2,
    d_head=8,
    steps=4,
    every=2,
    batch=4,
    n_held_out=8,
    init_scale=0.8,
)
SHAPES = {
    "rms": {"normalization_type": "RMS"},
    "full": {"attn_only": False, "normalization_type": "LN", "n_layers": 6},
    "llama": {"architecture": "llama"},
    "gpt_neox": {"architecture": "gpt_neox"},
    "smeared": {"smeared_keys": True, "normalization_type": "RMS"},
    "smeared llama": {"smeared_keys": True, "architecture": "llama"},
}
DROPPING = {
    "native": {"attn_only": False, "dropout": 0.2},
    "gpt_neox": {"architecture": "gpt_neox", "dropout": 0.2},
    "smeared": {"smeared_keys": True, "dropout": 0.1, "architecture": "llama"},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_it_opens_behind_hooks_as_it_was_trained(tmp_path, shape):
    """The bridge's logits give the held-out loss that training wrote, at every written step."""
    config = replace(SMALL, **SHAPES[shape])
    series = open_series(train(tmp_path / shape, config))
    held_out = draw(config.source, seed=0, stream="held_out", index=0, n=8)
    tokens = torch.tensor(held_out.tokens)
    by_step = {entry["step"]: entry for entry in series.manifest["checkpoints"]}
    hooked = HookedSeries(series)
    for model in hooked:
        losses = F.cross_entropy(model.logits(tokens)[:, :-1].transpose(1, 2), tokens[:, 1:])
        expected = by_step[model.checkpoint.step]["test_loss_nats"]
        assert losses.item() == pytest.approx(expected, abs=1e-5)
    assert hooked.swap_used == "in place"
    assert model.shape.n_layers == config.n_layers and model.shape.attn_only == (shape in ("rms", "smeared"))


@pytest.mark.parametrize("shape", DROPPING)
def test_dropout_is_drawn_by_step_and_resumes_to_the_same_bytes(tmp_path, shape, monkeypatch):
    config = replace(SMALL, **DROPPING[shape], steps=6)
    whole = train(tmp_path / "whole", config)

    def stop(event):
        if event["event"] == "checkpoint" and event["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", config, on_event=stop)
    torch.manual_seed(5)  # the caller's random state plays no part
    parts = train(tmp_path / "parts", config)
    weights = [(path / "step_00000006/model.safetensors").read_bytes() for path in (whole, parts)]
    assert weights[0] == weights[1]
    plain = train(tmp_path / "plain", replace(config, dropout=0.0))
    assert (plain / "step_00000006/model.safetensors").read_bytes() != weights[0]


def test_dropout_leaves_out_its_share_and_scales_the_rest():
    config = replace(SMALL, dropout=0.25)
    model = build_model(config)
    seen = []
    model.layers[0].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    tokens = torch.arange(1, 13)[None].repeat(40, 1)
    state = torch.random.get_rng_state()
    for step in (3, 3, 4):
        with dropping(model, config, step=step):
            model(tokens)
    model(tokens)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])
    both = model.tok_embed(tokens), model.pos(torch.arange(12))[None].expand(40, -1, -1)
    assert torch.allclose(seen[3], both[0] + both[1])
    left_out = (seen[0] == 0).float().mean().item()
    assert left_out == pytest.approx(0.25**2, abs=0.02)  # both embeddings of a place are left out


def test_smeared_keys_by_hand():
    keys = SmearedKeys(torch.nn.Linear(2, 2), n_heads=2)
    with torch.no_grad():
        keys.weight.copy_(torch.eye(2))
        keys.bias.zero_()
        keys.smear.copy_(torch.tensor([0.0, 100.0]))
    found = keys(torch.tensor([[[1.0, 1.0], [3.0, 3.0], [7.0, 7.0]]]))
    assert found.tolist() == [[[1.0, 1.0], [2.0, 3.0], [5.0, 7.0]]]


@pytest.fixture(scope="module")
def smeared(tmp_path_factory):
    """A series with smeared keys, and its last checkpoint behind hooks."""
    series = open_series(train(tmp_path_factory.mktemp("lab") / "smeared", replace(SMALL, smeared_keys=True)))
    return series, load_fresh(series.at(4))


def test_smeared_keys_are_learned_and_stand_where_the_hook_on_keys_reads(smeared):
    """Logits are those of the lab's own module, and the attention that is shown is that of the mixed keys."""
    series, model = smeared
    assert json.loads((series.path / "config.json").read_text())["model_type"] == SMEARED
    state = load_file(series.path / "step_00000004/model.safetensors")
    smear = state["layers.0.attn.k.smear"]
    assert smear.shape == (2,) and smear.abs().min() > 0
    own = build_model(replace(SMALL, smeared_keys=True))
    own.load_state_dict(state)
    tokens = torch.tensor(draw(SMALL.source, seed=0, stream="held_out", index=0, n=8).tokens)
    assert torch.equal(model.logits(tokens), own(tokens))
    x = own.tok_embed(tokens) + own.pos(torch.arange(12))
    q, k = (F.linear(x, state[f"layers.0.attn.{name}.weight"]).unflatten(-1, (2, 8)) for name in "qk")
    share = torch.sigmoid(smear)[:, None]
    mixed = torch.cat([k[:, :1], share * k[:, 1:] + (1 - share) * k[:, :-1]], dim=1)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, mixed) / 8**0.5
    expected = scores.masked_fill(torch.ones(12, 12, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)
    shown = Keeper("pattern", layers=[0])
    observe(model, tokens, [shown])
    torch.testing.assert_close(shown.of("pattern")[0], expected, atol=1e-6, rtol=1e-5)


def test_what_is_read_off_smeared_keys_as_if_they_were_plain_is_refused_by_name(smeared, tmp_path):
    series, model = smeared
    assert (
        model.weights.smeared_keys
        and not load_fresh(open_series(train(tmp_path / "plain", SMALL)).at(4)).weights.smeared_keys
    )
    names = ("prefix_matching", "qk_matching", "composition", "edge_attribution", "ov_copying")
    found = measure(series[-1:], names, out=tmp_path / "out", n_seq=8, progress=False)
    frame = found.frame
    reasons = {name: frame[(frame["probe"] == name)]["reason"].iloc[0] for name in names}
    assert not reasons["prefix_matching"] and not reasons["ov_copying"]
    assert all(
        "keys are smeared" in reasons[name] for name in ("qk_matching", "composition", "edge_attribution")
    ), reasons


def test_one_smeared_layer_attends_to_what_followed():
    """With a key that is all of the token before, one layer copies (Olsson et al. 2022); with its own it cannot."""
    config = replace(
        SMALL, smeared_keys=True, n_layers=1, n_heads=1, d_head=16, source=Names(d_vocab=8, n_ctx=12)
    )
    model = build_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.tok_embed.weight[:, :8] = torch.eye(8)
        attention = model.layers[0].attn
        for part in (attention.q, attention.k):
            part.weight[:8, :8] = 40 * torch.eye(8)
        attention.v.weight[:8, :8] = attention.o.weight[:8, :8] = torch.eye(8)
        model.head.weight[:, :8] = 40 * torch.eye(8)
    wide = torch.tensor([[0, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2]])
    losses = {}
    for smear in (-100.0, 100.0):
        with torch.no_grad():
            attention.k.smear.fill_(smear)
        logits = model(wide[:, :-1])
        losses[smear] = F.cross_entropy(logits[0, 6:], wide[0, 7:]).item()
    assert losses[-100.0] < 1 < losses[100.0]
    assert mean_loss(model, wide).isfinite()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "lama"}, "native or llama or gpt_neox"),
        ({"architecture": "gpt_neox", "normalization_type": "RMS"}, "the norm of gpt_neox"),
        ({"architecture": "gpt_neox", "d_head": 4}, "a multiple of 2 for llama and of 8 for gpt_neox"),
        ({"architecture": "gpt_neox", "smeared_keys": True}, "one matrix"),
        ({"architecture": "llama", "d_head": 5}, "a multiple of 2"),
        ({"dropout": 1.0}, "below 1"),
        ({"betas": (0.9, 1.0)}, "below 1"),
        ({"init_scale": -1.0}, "0 or more"),
    ],
)
def test_a_model_that_cannot_be_is_refused(changes, said):
    with pytest.raises(ByroteError) as refused:
        replace(SMALL, **changes)
    assert said in f"{refused.value.message} {refused.value.help}"


def test_the_spread_at_step_0_goes_by_the_width():
    assert replace(SMALL, d_model=64, d_head=32).init_std == pytest.approx(0.1)
    assert SMALL.init_std == 0.2 and LabConfig().init_std == 0.1


def test_a_setting_that_the_folder_has_and_the_command_has_not_is_refused(tmp_path):
    path = train(tmp_path / "run", replace(SMALL, betas=(0.9, 0.98)))
    with pytest.raises(ByroteError, match=r"train\.betas \(there \[0\.9, 0\.98\], requested None\)"):
        train(path, SMALL)


def test_a_series_of_names_is_measured_with_its_members_and_floor(tmp_path):
    """Members, twins, more of the twins' stream, the table's pairs and the exact floor of each token come with it."""
    config = replace(SMALL, arm=Arm("repeated", 0.5, 4), steps=2)
    series = open_series(train(tmp_path / "names", config))
    found = token_sets_of(series)
    pool = draw(config.source, seed=0, stream="pool", index=0, n=4)
    assert found.members.tolist() == pool.tokens.tolist() and found.repeat_count.tolist() == [1, 1, 1, 1]
    twins = draw(config.source, seed=0, stream="twins", index=0, n=N_CANDIDATES).tokens
    assert found.twins.tolist() == twins[:4].tolist() and found.candidates.tolist() == twins.tolist()
    assert found.words.tolist() == config.source.words.tolist()
    floor = config.source.floor_nll(pool)[:, :-1]
    np.testing.assert_allclose(found.reference(pool.tokens), floor, rtol=1e-12)
    stored = load_file(series.path / "data" / "held_out.safetensors")
    held_out = draw(config.source, seed=0, stream="held_out", index=0, n=8)
    assert stored["mechanism"].tolist() == held_out.mechanism[:, :-1].tolist()
    facts = series.manifest["source_facts"]
    assert facts["floor_nats"] == pytest.approx(config.source.floor_nll(held_out)[:, 1:-1].mean())
    assert facts["inducible_frac"] == config.source.inducible_frac
    entry = series.manifest["checkpoints"][-1]["mechanism_loss_nats"]
    assert entry.keys() == facts["mechanism_floor_nats"].keys() == facts["mechanism_frac"].keys()
    weights = facts["mechanism_frac"]
    total = sum(entry[name] * weights[name] for name in weights)
    assert total == pytest.approx(series.manifest["checkpoints"][-1]["test_loss_nats"], abs=1e-5)


def test_a_series_of_text_has_no_floor_and_says_why(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"a small text, of which there is a lot. " * 200)
    source = Text(path=str(tmp_path / "t.txt"), n_ctx=12)
    config = replace(SMALL, source=source, arm=Arm("repeated", 0.5, 4), steps=2)
    series = open_series(train(tmp_path / "text", config))
    facts, found = series.manifest["source_facts"], token_sets_of(series)
    assert facts["floor_nats"] is None and "is unknown" in facts["no_floor"]
    assert (found.reference, found.candidates, found.words) == (None, None, None)
    assert found.members.shape == found.twins.shape == (4, 12)
    assert series.manifest["data"]["path"] == "t.txt" and len(series.manifest["data"]["digest"]) == 32
    (tmp_path / "t.txt").write_bytes(b"another text, of which there is a lot too. " * 200)
    encoded.cache_clear()
    with pytest.raises(ByroteError, match="digest"):
        train(series.path, config)
