"""What `--save-attention` keeps beside the attention: the tokens each head raises and lowers most, and why where it cannot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tiny_models import write_hf_series, write_lab_series
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from byrote import interp
from byrote.checkpoints import ByroteError, open_series
from byrote.checkpoints.lab.planted import PlantedConfig, expected, write_planted
from byrote.interp import logit_attribution
from byrote.interp.loading import load_fresh
from byrote.probes import attention
from byrote.probes.attention import attention_file, stored_pattern, stored_texts, stored_writes, unwritten
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.gallery import write_attention
from byrote.probes.sweep.run import sweep

STRAIGHT = ("gpt2", "gpt_neox", "llama", "qwen2", "mistral", "opt", "gpt_neo", "gptj", "bloom")
PLANTED = PlantedConfig(d_vocab=40, n_ctx=64)
COPIES, ANTI_COPIES, DEAD, FEEDS = (1, 0), (1, 2), (0, 3), (0, 0)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """(results folder of a sweep that kept its attention, the planted series)."""
    root = tmp_path_factory.mktemp("kept")
    series = open_series(write_planted(root / "planted", PLANTED))
    config = SweepConfig(probes=("prefix_matching",), n_seq=4, save_attention=True)
    return sweep(series, config, out=root / "results").path, series


def tokens_of(n: int = 2, pos: int = 20, d_vocab: int = 61) -> np.ndarray:
    return np.random.default_rng(3).integers(0, d_vocab, size=(n, pos))


def loaded(path, step: int = 0):
    return load_fresh(open_series(path).at(step))


# By hand


def test_a_head_that_copies_raises_what_it_attends_to_and_one_that_anti_copies_lowers_it(planted):
    root, _ = planted
    text = stored_texts(attention_file(root, 0))[1]
    answers = expected(PLANTED, text.tokens[None])
    for (layer, head), gain in ((COPIES, 1.0), (ANTI_COPIES, -0.5)):
        writes = stored_writes(attention_file(root, 0), text, layer=layer, head=head)
        for q in range(26, len(text.tokens)):  # in the second block: each token has stood there before
            attended = answers["pattern"][layer, head, 0, q]
            logits = np.zeros(PLANTED.d_vocab)
            np.add.at(logits, text.tokens[: q + 1], PLANTED.unembed_gain * gain * attended[: q + 1])
            logits -= logits.mean()
            best = int(np.abs(logits).argmax())
            assert best == text.tokens[int(attended.argmax())]
            strongest = (writes.raised if gain > 0 else writes.lowered)(q)[0]
            assert strongest == (best, pytest.approx(logits[best], rel=1e-3))
            # 39 other tokens, all moved as far the other way: 10 spread over them, or 5
            other = (writes.lowered if gain > 0 else writes.raised)(q)
            assert [v for _, v in other] == pytest.approx([-gain * 10 / 40] * 5, rel=1e-3)


@pytest.mark.parametrize("where", (DEAD, FEEDS))
def test_a_head_the_unembedding_does_not_read_raises_and_lowers_nothing(planted, where):
    root, _ = planted
    writes = stored_writes(
        attention_file(root, 0), stored_texts(attention_file(root, 0))[0], layer=where[0], head=where[1]
    )
    assert all(writes.raised(q) == writes.lowered(q) == [] for q in range(len(writes.ids)))
    assert writes.words is None


# By another route


def contributions_by_hand(path, arch: str, tokens: np.ndarray) -> np.ndarray:
    """[batch, n_layers, n_heads, pos, d_vocab] in float64, from transformers' own modules alone."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").double().eval()
    body = model.gpt_neox if arch == "gpt_neox" else model.model
    heads_of = (
        (lambda layer: layer.attention.dense)
        if arch == "gpt_neox"
        else (lambda layer: layer.self_attn.o_proj)
    )
    norm = body.final_layer_norm if arch == "gpt_neox" else body.norm
    unembed = (model.embed_out if hasattr(model, "embed_out") else model.lm_head).weight
    seen: dict = {}
    for place, module in [*((i, heads_of(layer)) for i, layer in enumerate(body.layers)), ("end", norm)]:
        module.register_forward_pre_hook(lambda _, args, place=place: seen.update({place: args[0]}))
    with torch.inference_mode():
        model(torch.from_numpy(tokens))
        end = seen["end"]
        centred = end - end.mean(-1, keepdim=True) if arch == "gpt_neox" else end
        eps = norm.eps if arch == "gpt_neox" else norm.variance_epsilon
        divisor = (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        layers = []
        for place, layer in enumerate(body.layers):
            z, W_O, n_heads = seen[place], heads_of(layer).weight, model.config.num_attention_heads
            parts = zip(z.chunk(n_heads, -1), W_O.chunk(n_heads, -1), strict=True)
            adds = torch.stack([own @ weight.T for own, weight in parts], 1)
            if arch == "gpt_neox":
                adds = adds - adds.mean(-1, keepdim=True)
            layers.append(adds / divisor[:, None] * norm.weight @ unembed.T)
        logits = torch.stack(layers, 1)
        return (logits - logits.mean(-1, keepdim=True)).numpy()


@pytest.mark.parametrize("arch", ("gpt_neox", "llama"))
def test_contributions_equal_those_worked_out_in_float64_from_transformers_own_modules(arch, tmp_path):
    path, tokens = write_hf_series(tmp_path, arch, (0,)), tokens_of()
    found = interp.written(loaded(path), tokens)
    by_hand = contributions_by_hand(path / "step0", arch, tokens)
    assert found.ids.shape == found.logits.shape == (2, 2, 4, 20, 10)
    np.testing.assert_allclose(
        np.take_along_axis(by_hand, found.ids.astype(np.int64), -1), found.logits, atol=1e-5
    )
    order = np.sort(by_hand, -1)
    np.testing.assert_allclose(found.logits[..., :5], order[..., :-6:-1], atol=1e-5)
    np.testing.assert_allclose(found.logits[..., 5:], order[..., :5], atol=1e-5)
    assert by_hand.std() > 0.05  # the heads do write something
    assert (found.ids[..., 0] == by_hand.argmax(-1)).mean() > 0.999  # all but ties


def test_the_file_the_notebook_and_the_python_api_say_the_same(planted):
    root, series = planted
    for text in stored_texts(attention_file(root, 0)):
        found = interp.written(interp.load(series.at(0)), text.tokens)
        for layer in range(2):
            for head in range(4):
                writes = stored_writes(attention_file(root, 0), text, layer=layer, head=head)
                half = found.logits[0, layer, head].astype(np.float16)
                np.testing.assert_array_equal(writes.logits, half.astype(np.float64))
                np.testing.assert_array_equal(writes.ids, found.ids[0, layer, head])


# In parts


def test_parts_of_the_vocabulary_and_of_the_heads_change_nothing(tmp_path, monkeypatch):
    model = loaded(write_hf_series(tmp_path, "llama", (0,), vocab_size=1500))
    tokens = tokens_of(d_vocab=1500)
    whole = interp.written(model, tokens)
    monkeypatch.setattr(logit_attribution, "_PART_BYTES", 70_000)  # some 360 tokens, one head at a time
    parts = interp.written(model, tokens)
    np.testing.assert_allclose(parts.logits, whole.logits, atol=1e-6)
    assert (parts.ids == whole.ids).mean() > 0.999


@pytest.mark.parametrize("n", (3, 5, 64, 319, 320, 384, 2001))
def test_the_extremes_are_those_of_a_full_sort(n):
    x = torch.randn(7, n, generator=torch.Generator().manual_seed(n))
    x[0, n // 2 :] = 0.25  # many alike
    k = min(5, n)
    places, values = logit_attribution._extremes(x, 5, 100)
    expected = torch.cat([x.sort(descending=True).values[..., :k], x.sort().values[..., :k]], -1)
    assert torch.equal(values, expected)
    assert torch.equal(x.gather(-1, places - 100), values)
    assert all(len(set(row[:k])) == k for row in places.tolist())


def test_several_sets_of_sequences_at_once_are_each_their_own(tmp_path):
    model = loaded(write_hf_series(tmp_path, "gpt_neox", (0,)))
    sets = [tokens_of(1, 9), tokens_of(3, 14)]
    keepers = [logit_attribution.WriteKeeper() for _ in sets]
    for keeper, tokens in zip(keepers, sets, strict=True):
        logit_attribution.observe(model, torch.from_numpy(tokens), [keeper], batch=2)
    for tokens, (ids, logits) in zip(sets, logit_attribution.strongest(model, keepers), strict=True):
        alone = interp.written(model, tokens)
        np.testing.assert_allclose(logits, alone.logits, atol=1e-6)
        assert ids.shape == alone.ids.shape == (*tokens.shape[:1], 2, 4, tokens.shape[1], 10)


def test_a_vocabulary_smaller_than_ten(tmp_path):
    model = loaded(write_lab_series(tmp_path / "few", (0,), d_vocab=4, d_vocab_out=4))
    found = interp.written(model, np.array([[0, 3, 1, 2]]))
    assert found.ids.shape[-1] == 8
    assert (
        np.sort(found.ids[..., :4], -1).tolist()
        == np.broadcast_to(range(4), found.ids[..., :4].shape).tolist()
    )
    np.testing.assert_allclose(found.logits[..., :4].sum(-1), 0, atol=1e-5)  # centred


# Where it cannot be read


@pytest.mark.parametrize("arch", STRAIGHT)
def test_families_whose_heads_write_straight_into_the_stream_can_be_read(arch, tmp_path):
    assert logit_attribution.unreadable(loaded(write_hf_series(tmp_path, arch, (0,)))) == ""


def test_lab_models_with_and_without_mlp_can_be_read(tmp_path):
    for name, changes in (
        ("bare", {}),
        ("mlp", {"attn_only": False, "d_mlp": 32}),
        ("none", {"normalization_type": None}),
    ):
        path = write_lab_series(tmp_path / name, (0,), **changes)
        assert logit_attribution.unreadable(loaded(path)) == "", name


@pytest.mark.parametrize("arch", ("gemma2", "olmo2"))
def test_families_with_a_norm_after_attention_are_refused_with_the_reason(arch, tmp_path):
    model = loaded(write_hf_series(tmp_path, arch, (0,)))
    assert logit_attribution.unreadable(model).startswith("a norm after attention")
    with pytest.raises(
        ByroteError, match="the outputs of single heads cannot be read: a norm after attention"
    ):
        interp.written(model, tokens_of())


def granite(folder, **changes):
    """A random Granite: what heads write is multiplied on its way into the stream, and the logits are divided."""
    import transformers

    widths = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.GraniteConfig(
        **widths, num_key_value_heads=2, intermediate_size=64, max_position_embeddings=64, bos_token_id=0, eos_token_id=0, **changes
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.GraniteForCausalLM(config).save_pretrained(folder / "step0")
    return folder


@pytest.mark.parametrize(
    "changes, why",
    (
        ({}, ""),
        ({"residual_multiplier": 0.3}, "altered before they reach the residual stream"),
        ({"logits_scaling": 4.0}, "logits rebuilt from the last residual"),
    ),
)
def test_a_family_nobody_listed_is_tried_before_it_is_believed(changes, why, tmp_path):
    found = logit_attribution.unreadable(loaded(granite(tmp_path, **changes)))
    assert why in found and bool(why) == bool(found)


def test_a_sweep_keeps_the_attention_and_says_why_there_is_no_more(tmp_path):
    series = open_series(write_hf_series(tmp_path / "olmo", "olmo2", (0,)))
    config = SweepConfig(probes=("prefix_matching",), n_seq=4, save_attention=True)
    root = sweep(series, config, out=tmp_path / "results").path
    text = stored_texts(attention_file(root, 0))[0]
    assert stored_pattern(attention_file(root, 0), text, layer=1, head=2).sum() == pytest.approx(
        len(text.tokens), abs=0.5
    )
    file = attention_file(root, 0)
    assert (
        unwritten(file)
        == "a norm after attention makes a head's direct contribution to the logits non-linear"
    )
    assert not any("written" in name for name in load_file(file))
    with pytest.raises(ByroteError, match="a norm after attention"):
        stored_writes(attention_file(root, 0), text, layer=1, head=2)
    before = file.stat().st_mtime_ns
    sweep(series, config, out=tmp_path / "results")
    assert file.stat().st_mtime_ns == before  # nothing is lacking: it was tried


def test_what_does_not_fit_two_bytes_is_left_out_with_the_reason(tmp_path):
    path = write_lab_series(tmp_path / "large", (0,), normalization_type=None)
    model = loaded(path)
    with torch.no_grad():
        model.parameters["head.weight"] *= 1e7
    file = tmp_path / "attention.safetensors"
    write_attention(
        model, file, {"own": tokens_of(1, 9, 24)}, facts={"stimuli": '{"own": "x"}'}, tokenizer=None
    )
    assert unwritten(file) == "what a head writes is not finite, or more than 65,504 logits"
    assert set(load_file(file)) == {"own/pattern", "own/tokens"}


# The file


def kept_with(vocabulary: dict[str, int], folder: Path) -> tuple[Path, Tokenizer]:
    """The file of one text of a small model, made with a tokenizer of these words."""
    tokenizer, file = (
        Tokenizer(WordLevel(vocabulary, unk_token=next(iter(vocabulary)))),
        folder / "kept.safetensors",
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_attention(
        loaded(write_hf_series(folder, "gpt_neox", (0,))),
        file,
        {"own": tokens_of(1)},
        facts={"stimuli": '{"own": "x"}'},
        tokenizer=folder / "tokenizer.json",
    )
    return file, tokenizer


def own_facts(file: Path) -> dict[str, str]:
    """What a file says, without what belongs to its seal."""
    with safe_open(file, framework="numpy") as opened:
        return {k: v for k, v in opened.metadata().items() if not k.startswith("byrote-")}


def test_a_token_has_its_text_beside_it(tmp_path):
    # ids 50 to 60 stand for nothing
    file, tokenizer = kept_with({f"wörd{i}" if i % 2 else f" \n{i}": i for i in range(50)}, tmp_path)
    (text,) = stored_texts(file)
    seen = set()
    for layer, head in ((0, 0), (1, 3)):
        writes = stored_writes(file, text, layer=layer, head=head)
        assert set(writes.words) == set(np.unique(writes.ids))
        for i, word in writes.words.items():
            assert word == tokenizer.decode([i])
        seen |= set(writes.words)
    assert any(i >= 50 for i in seen) and any(i < 50 for i in seen)


def test_it_takes_sixty_bytes_per_head_and_position(planted):
    root, _ = planted
    arrays = load_file(attention_file(root, 0))
    n_seq, n_layers, n_heads, pos, _ = arrays["repeated_random/pattern"].shape
    kept = sum(a.nbytes for name, a in arrays.items() if "written" in name)
    assert (n_layers, n_heads) == (2, 4) and kept == 60 * n_seq * n_layers * n_heads * pos
    told = json.loads((root / "run.json").read_text())["stimuli"]
    about = attention.saved_bytes(told, n_heads=8)
    assert about == kept + arrays["repeated_random/pattern"].nbytes
    assert 1 < attention_file(root, 0).stat().st_size / about < 1.05


def old_version(file) -> None:
    """The file as the version before this one wrote it."""
    facts = own_facts(file)
    del facts["unwritten"]
    arrays = {name: array for name, array in load_file(file).items() if "written" not in name}
    save_file(arrays, file, metadata=facts | {"format": "byrote-attention-1"})


def test_a_file_of_the_first_version_opens_and_is_kept_anew_when_asked_for_again(tmp_path):
    series = open_series(write_planted(tmp_path / "planted", PLANTED))
    config = SweepConfig(probes=("prefix_matching",), n_seq=4, save_attention=True)
    root = sweep(series, config, out=tmp_path / "results").path
    file, text = attention_file(root, 0), stored_texts(attention_file(root, 0))[0]
    pattern = stored_pattern(attention_file(root, 0), text, layer=1, head=0)
    writes = stored_writes(attention_file(root, 0), text, layer=1, head=0)
    old_version(file)
    (again, *_) = stored_texts(attention_file(root, 0))
    assert again.tokens.tolist() == text.tokens.tolist()
    np.testing.assert_array_equal(stored_pattern(attention_file(root, 0), again, layer=1, head=0), pattern)
    assert unwritten(file) == "it was not saved: run the same sweep again with --save-attention"
    with pytest.raises(ByroteError, match="run the same sweep again with --save-attention"):
        stored_writes(attention_file(root, 0), again, layer=1, head=0)
    sweep(series, replace(config, save_attention=False), out=tmp_path / "results")
    assert unwritten(file)  # nobody asked
    outcome = sweep(series, config, out=tmp_path / "results")
    assert outcome.measured == 0 and not unwritten(file)
    np.testing.assert_array_equal(
        stored_writes(attention_file(root, 0), text, layer=1, head=0).logits, writes.logits
    )


@pytest.mark.parametrize("harm", ("gone", "short", "text", "unknown"))
def test_arrays_that_disagree_are_damage_and_not_numbers(harm, tmp_path):
    file, _ = kept_with({f"w{i}": i for i in range(61)}, tmp_path)
    (text,) = stored_texts(file)
    facts, arrays = own_facts(file), load_file(file)
    if harm == "gone":
        del arrays["own/written_ids"]
    elif harm == "short":
        arrays["own/written_logits"] = np.ascontiguousarray(arrays["own/written_logits"][..., :7, :])
    elif harm == "text":
        arrays["vocabulary/text"] = np.full_like(arrays["vocabulary/text"], 0xFF)
    else:
        arrays["vocabulary/ids"] = arrays["vocabulary/ids"] + 100
    save_file(arrays, file, metadata=facts)
    with pytest.raises(ByroteError, match="cannot be read"):
        stored_writes(file, text, layer=0, head=0)
    assert json.loads(facts["stimuli"]) == {"own": "x"}


def test_a_sweep_of_other_stimuli_adds_to_what_was_kept(tmp_path):
    rows = np.random.default_rng(0).integers(1, 40, size=(12, 24))
    members, twins = tmp_path / "members.npy", tmp_path / "twins.npy"
    np.save(members, rows)
    np.save(twins, (rows + 1) % 39 + 1)
    series = open_series(write_planted(tmp_path / "planted", PLANTED))
    first = SweepConfig(probes=("prefix_matching",), n_seq=4, save_attention=True)
    root = sweep(series, first, out=tmp_path / "results").path
    (text, *_) = stored_texts(attention_file(root, 0))
    pattern = stored_pattern(attention_file(root, 0), text, layer=1, head=0)
    more = replace(first, probes=("exact_match",), members=members, twins=twins)
    sweep(series, more, out=tmp_path / "results")
    held = {one.stimulus: one for one in stored_texts(attention_file(root, 0)) if one.index == 0}
    assert set(held) == {"repeated_random", "members"}
    assert held["repeated_random"].stimulus_id == text.stimulus_id
    np.testing.assert_array_equal(
        stored_pattern(attention_file(root, 0), held["repeated_random"], layer=1, head=0), pattern
    )
    assert stored_writes(attention_file(root, 0), held["repeated_random"], layer=1, head=0).ids.size
    before = attention_file(root, 0).stat().st_mtime_ns
    for config in (first, more):
        assert sweep(series, config, out=tmp_path / "results").measured == 0
    assert attention_file(root, 0).stat().st_mtime_ns == before
