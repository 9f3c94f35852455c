"""Function vectors: a planted head that says whether the examples hold a rule, and prompts and patches made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from lookup_models import write_series
from torch import Tensor

from byrote.checkpoints import open_series
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.token_sets import TokenSets
from byrote.interp.intervene import clean_run
from byrote.interp.loading import load_fresh
from byrote.probes.circuits.function_vector import effects_on, head_effects, prompts, unambiguous
from byrote.probes.registry import REGISTRY
from byrote.probes.stimuli import Stimulus, Vocabulary, make
from byrote.probes.sweep.measure import measure_once

V, N_CTX = 41, 32
RULE = np.stack([np.arange(1, 21), 1 + np.random.default_rng(0).permutation(np.arange(20, 40))], axis=1)


def rule_model() -> tuple[dict, dict[str, Tensor]]:
    """Three layers. L1H0 carries the task: how many of the examples follow the rule; L2H0 applies the rule where it says so.

    L0H0 attends from a token to the one before it if the rule leads from that to this, else to BOS, and marks the former.
    L1H0 attends evenly and writes the mean of the marks. L2H0 attends to its own token, which it maps by the rule into the
    logits, if there are marks, else to BOS, which it maps to nothing. The second head of each layer does nothing.
    """
    d_head, d_model = V + N_CTX + 1, 2 * V + N_CTX + 2
    token, out, place = slice(0, V), slice(V, 2 * V), slice(2 * V, 2 * V + N_CTX)
    mark, flag, bos = d_model - 2, d_model - 1, d_head - 1
    fields = {
        "model_type": "transformer_lens_native", "bos_token_id": 0, "d_model": d_model, "d_head": d_head,
        "n_layers": 3, "n_heads": 2, "n_ctx": N_CTX, "d_vocab": V, "d_vocab_out": V, "attn_only": True,
        "normalization_type": None, "positional_embedding_type": "standard", "act_fn": "relu",
    }  # fmt: skip
    state = {"tok_embed.weight": torch.zeros(V, d_model), "pos.weight": torch.zeros(N_CTX, d_model)}
    state["tok_embed.weight"][:, token], state["pos.weight"][:, place] = torch.eye(V), torch.eye(N_CTX)
    state["head.weight"] = torch.zeros(V, d_model)
    state["head.weight"][:, out] = 10 * torch.eye(V)
    for l in range(3):
        for name in "qkv":
            state[f"layers.{l}.attn.{name}.weight"] = torch.zeros(2 * d_head, d_model)
            state[f"layers.{l}.attn.{name}.bias"] = torch.zeros(2 * d_head)
        state[f"layers.{l}.attn.o.weight"] = torch.zeros(d_model, 2 * d_head)
        state[f"layers.{l}.attn.o.bias"] = torch.zeros(d_model)

    def part(l: int, name: str) -> Tensor:
        return state[f"layers.{l}.attn.{name}.weight"]

    scale, at = 3 * d_head**0.5, torch.arange(N_CTX)
    x, y = torch.from_numpy(RULE).T
    for l in (0, 2):  # queries and keys by place, and BOS
        back = 1 - l // 2
        part(l, "q")[V + at[: N_CTX - back], place.start + at[back:]] = 10 * scale
        part(l, "k")[V + at, place.start + at] = 1
        part(l, "k")[bos, 0] = 1
        state[f"layers.{l}.attn.q.bias"][bos] = (15 if l == 0 else 20) * scale
    part(0, "q")[y, y] = 10 * scale
    part(0, "k")[y, x] = 1
    part(0, "v")[0, 1:V] = 1
    part(0, "o")[mark, 0] = 1
    part(1, "v")[0, mark] = 1
    part(1, "o")[flag, 0] = 1
    part(2, "q")[bos, flag] = -60 * scale
    part(2, "v")[x, x] = 1
    part(2, "o")[V + y, x] = 1
    return fields, state


def shown(
    words: np.ndarray | None, variants: tuple[tuple[int, int], ...] = (), n_seq: int = 8
) -> dict[str, Stimulus]:
    ids = Vocabulary(np.arange(1, V), 0, variants=variants)
    sets = TokenSets(words=words)
    return {
        kind: make(kind, ids, n_ctx=N_CTX, seed=0, n_seq=n_seq, token_sets=sets)
        for kind in ("words", "repeated_random")
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_fresh(open_series(write_series(tmp_path_factory.mktemp("rule") / "s", {0: rule_model()}))[0])


def test_the_head_that_carries_the_task_is_found_and_no_other(model):
    found = {
        m.metric: m
        for m in measure_once(model, REGISTRY["function_vector"], stimuli=shown(RULE, n_seq=24), seed=0)
    }
    assert found["clean"].values > 0.99 and found["corrupted"].values < 0.05
    answer = np.zeros((3, 2))
    answer[1, 0] = 1
    # L2H0's mean output names the answers of the other prompts, a few of them the right one.
    np.testing.assert_allclose(found["effect"].values, answer, atol=0.05)
    assert found["effect_nats"].values[1, 0] == pytest.approx(np.log(V), abs=0.1)  # from a guess to certainty
    assert (found["n_tasks"].values, found["n_examples"].values) == (1, 8)
    # One head of six is on top on either side: the two agree wholly or not at all.
    assert found["overlap"].values in (0, 1)
    assert found["overlap"].chance == pytest.approx(1 / 6)


def test_tasks_are_averaged_and_what_has_too_few_pairs_is_none(model):
    same = measure_once(
        model, REGISTRY["function_vector"], stimuli=shown(RULE[:10], ((1, 2), (3, 4))), seed=0
    )
    assert {m.metric: m for m in same}["n_tasks"].values == 1  # two variants are no task
    other = tuple((int(a), int(b)) for a, b in np.roll(RULE, 1, axis=1))  # against the rule: nothing works
    both = {
        m.metric: m
        for m in measure_once(model, REGISTRY["function_vector"], stimuli=shown(RULE, other), seed=0)
    }
    assert both["n_tasks"].values == 2
    assert both["effect"].values[1, 0] == pytest.approx(0.5, abs=0.05)
    none = measure_once(model, REGISTRY["function_vector"], stimuli=shown(RULE[:8]), seed=0)
    assert {m.undefined for m in none} == {"no task has the 9 pairs that a prompt of 8 examples needs"}


def test_tasks_of_ones_own(model):
    other = np.roll(RULE, 1, axis=1)  # against the rule
    found = effects_on(model, {"rule": RULE, "other": other, "short": RULE[:4]}, bos=0, n_seq=6).set_index(
        "task"
    )
    at = (found["layer"] == 1) & (found["head"] == 0)
    rise = found[at]["value"]
    assert rise["rule"] > 0.9 and abs(rise["other"]) < 0.05
    assert found.loc["rule", "clean"].min() > 0.99
    assert (found["lo"] <= found["value"] + 1e-9).all() and (found["n"] == 6).all()
    with pytest.raises(ByroteError, match="'none' has 3 pairs"):
        effects_on(model, {"none": np.concatenate([RULE[:3], RULE[:3]])}, bos=0)


def test_the_patch_is_the_one_made_by_hand(hf_series):
    model = load_fresh(open_series(hf_series("llama", 1))[0])
    pairs = np.stack([np.arange(1, 20), np.arange(20, 39)], axis=1)
    clean, corrupted = prompts(pairs, k=4, n_seq=3, bos=0, seed=[0, 1])
    plain, base, patched = head_effects(model, clean, corrupted)
    at = clean.shape[1] - 2
    z = clean_run(model, clean, layers=[1]).z[1][:, at, 2]

    def put(tensor: Tensor, hook: object) -> Tensor:
        tensor = tensor.clone()
        tensor[:, at, 2] = (z.sum(0) - z) / 2
        return tensor

    def loss(tokens: Tensor) -> np.ndarray:
        logits = model.logits(tokens)[:, at].log_softmax(-1)
        return -logits[torch.arange(3), tokens[:, -1]].double().numpy()

    np.testing.assert_allclose(plain, loss(clean), atol=1e-5)
    np.testing.assert_allclose(base, loss(corrupted), atol=1e-5)
    with model.bridge.hooks(fwd_hooks=[("blocks.1.attn.o.hook_in", put)]):
        np.testing.assert_allclose(patched[:, 1, 2], loss(corrupted), atol=1e-5)
    assert np.abs(patched[:, 1, 2] - base).max() > 1e-4


def test_prompts_worked_by_hand():
    clean, corrupted = prompts(RULE, k=5, n_seq=4, bos=0, seed=[0, 1])
    rule = dict(RULE.tolist())
    for right, exchanged in zip(clean.tolist(), corrupted.tolist(), strict=True):
        assert right[0] == exchanged[0] == 0
        assert all(rule[a] == b for a, b in zip(right[1::2], right[2::2], strict=True))
        assert right[1::2] == exchanged[1::2] and right[-2:] == exchanged[-2:]
        assert sorted(right) == sorted(exchanged)
        assert not any(rule[a] == b for a, b in zip(exchanged[1:-2:2], exchanged[2:-2:2], strict=True))
        assert len(set(right)) == len(right)
    pairs = unambiguous(np.array([[1, 2], [1, 3], [4, 2], [5, 6]]))
    assert pairs.tolist() == [[1, 2], [5, 6]]


def test_words_are_tasks_by_where_they_are_from():
    stimulus = shown(RULE[:4], ((7, 8), (9, 10)))["words"]
    assert stimulus.extra["task"].tolist() == [0, 0, 0, 0, 1, 1]
    assert stimulus.tokens[4:, 1:].tolist() == [[7, 8], [9, 10]]
    alone = replace(Vocabulary(np.arange(1, V), 0), variants=((7, 8),))
    assert make("words", alone, n_ctx=N_CTX, seed=0, n_seq=4).extra["task"].tolist() == [1]
