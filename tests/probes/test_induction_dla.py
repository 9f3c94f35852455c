"""induction_dla: by hand, by loops over another library's tensors, and what its nulls cancel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import tiny_hf_model

from byrote.checkpoints import open_series
from byrote.interp.loading import load_fresh
from byrote.interp.weights import HeadWeights
from byrote.probes.heads.copying_logit import copying_logit
from byrote.probes.heads.induction_dla import induction_dla
from byrote.probes.registry import REGISTRY
from byrote.probes.stimuli import Vocabulary, make
from byrote.probes.sweep.measure import measure_stimulus

ONE_HEAD = torch.eye(4)[None, None]
STRAIGHT = HeadWeights(  # one head that writes what it reads into four logits
    W_E=torch.eye(4), W_U=torch.eye(4), W_Q=ONE_HEAD, W_K=ONE_HEAD, W_V=ONE_HEAD, W_O=ONE_HEAD,
    attn_norm_gain=torch.ones(1, 4), final_norm_gain=torch.ones(4), centred=False, final_centred=False,
    linear_readout=True,
)  # fmt: skip


def scores_of(
    pattern: torch.Tensor, v: torch.Tensor, tokens: torch.Tensor, scale: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Scores of one layer of one head."""
    parts = induction_dla(pattern, v, tokens, tokens, STRAIGHT, 0)
    scale = torch.ones(tokens.shape) if scale is None else scale
    return {
        n: s.squeeze()
        for n, s in induction_dla.finisher({n: p[None] for n, p in parts.items()}, scale).items()
    }


def test_worked_by_hand():
    tokens = torch.tensor([[0, 1, 2, 1], [0, 3, 2, 3]])  # at q = 3 what followed the copy is key 2, token 2
    pattern = torch.zeros(2, 1, 4, 4)
    pattern[:, 0, 3] = torch.tensor([0.1, 0.2, 0.6, 0.1])
    v = torch.zeros(2, 4, 1, 4)
    v[0, 1, 0, 1], v[0, 2, 0, 2], v[0, 2, 0, 1] = 4.0, 5.0, 1.0
    v[1, 2, 0, 2], v[0, 0, 0, 1] = 2.0, 99.0  # position 0 is no source
    found = scores_of(pattern, v, tokens, scale=torch.tensor([[1.0, 1.0, 1.0, 2.0]] * 2))
    # Sequence 0: token 2 against token 1, the only other one. Key 2 raises it by 5 - 1, key 1 raises token 1 by 4.
    assert found["score"].tolist() == pytest.approx([2 * 0.6 * 4, 2 * 0.6 * 2])
    assert found["excess"].tolist() == pytest.approx([2 * 0.35 * (4 - 2), 2 * 0.35 * (2 - 5)])
    assert found["share_frac"].tolist() == pytest.approx([0.6 * 4 / (0.6 * 4 + 0.2 * 4), 1.0])
    assert (found["ids_copied"].tolist(), found["ids_shown"].tolist()) == ([1, 1], [1, 1])
    assert found["copied_frac"].tolist() == [1, 1]


def test_writing_the_same_whatever_is_read_cancels_in_both_nulls():
    rng = np.random.default_rng(0)
    blocks = torch.from_numpy(np.stack([rng.permutation(3) + 1 for _ in range(6)]))
    tokens = torch.cat([torch.zeros(6, 1, dtype=torch.long), blocks, blocks], dim=1)
    noise = torch.randn(6, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    pattern = torch.softmax(torch.where(torch.ones(7, 7).tril() > 0, noise, -torch.inf), -1)
    pattern = torch.where((tokens == 1)[:, None, None, :], 4 * pattern, pattern)  # prefers token 1 ...
    pattern = pattern / pattern.sum(-1, keepdim=True)
    constant = torch.zeros(6, 7, 1, 4)
    constant[..., 1] = 3.0  # ... and raises token 1 whatever it reads
    found = scores_of(pattern, constant, tokens)
    assert found["score"].mean() > 0.1
    torch.testing.assert_close(found["excess"], torch.zeros(6))
    z = torch.einsum("bhqk,bkhd->bqhd", pattern, constant)
    parts = copying_logit(pattern, z, tokens, STRAIGHT, 0)
    copying = copying_logit.finisher({n: p[None] for n, p in parts.items()}, torch.ones(6, 7))
    assert copying["score"].mean() > 4 / (4 + 1) - 1 + 0.1  # above the permuted level
    torch.testing.assert_close(copying["exchanged"], copying["score"])


def test_even_attention_is_no_induction_however_well_it_copies():
    tokens = torch.tensor([[0, 1, 2, 3, 1, 2, 3], [0, 2, 3, 1, 2, 3, 1]])
    even = (torch.ones(7, 7).tril() / torch.arange(1, 8)[:, None]).expand(2, 1, 7, 7)
    found = scores_of(even, 5 * torch.eye(4)[tokens][:, :, None], tokens)
    assert found["score"].min() > 0.5
    torch.testing.assert_close(found["excess"], torch.zeros(2))


def test_few_ids_are_counted():
    tokens = torch.tensor([[0, 1, 2, 3, 1, 2, 3], [0, 2, 3, 1, 2, 3, 1]])
    perfect = torch.zeros(2, 1, 7, 7)
    for q in range(4, 7):
        perfect[:, 0, q, q - 2] = 1.0
    values = torch.eye(4)[tokens] * (tokens == 2)[..., None]  # copies token 2 alone
    found = scores_of(perfect, 5 * values[:, :, None], tokens)
    assert (found["ids_copied"].tolist(), found["ids_shown"].tolist()) == ([1, 1], [3, 3])
    assert found["copied_frac"].tolist() == pytest.approx([1 / 3, 1 / 3])


def test_one_sequence_has_no_other_to_exchange_with():
    tokens = torch.tensor([[0, 1, 2, 1]])
    found = scores_of(torch.full((1, 1, 4, 4), 0.25), torch.ones(1, 4, 1, 4), tokens)
    assert found["excess"].isnan() and not found["score"].isnan()


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_it_agrees_with_loops_over_what_transformers_computed(tmp_path, hf_series, arch):
    """Grouped keys and RMS norm; LN, biases and tied weights. Everything from the library's own forward pass, in float64."""
    series = open_series(hf_series(arch, 1))
    stimulus = make("repeated_random", Vocabulary(np.arange(3, 40), 1), n_ctx=25, seed=0, n_seq=3)
    infos = [REGISTRY["induction_dla"]]
    found = {m.metric: m for m in measure_stimulus(load_fresh(series[0]), stimulus, infos, seed=0)[0]}
    answers = _by_loops(tiny_hf_model(arch, seed=0), arch, stimulus.tokens)
    for metric in ("score", "excess", "share_frac"):
        np.testing.assert_allclose(found[metric].samples, answers[metric], rtol=2e-3, atol=2e-5)
    assert np.abs(answers["score"]).max() > 1e-3


def _by_loops(model: torch.nn.Module, arch: str, tokens: np.ndarray) -> dict[str, np.ndarray]:
    model = model.double()
    config, seen = model.config, {}
    layers = model.model.layers if arch == "llama" else model.transformer.h
    norm = model.model.norm if arch == "llama" else model.transformer.ln_f
    norm.register_forward_hook(lambda m, args, out: seen.__setitem__("resid", args[0].detach()))
    for l, layer in enumerate(layers):
        values = layer.self_attn.v_proj if arch == "llama" else layer.attn.c_attn
        values.register_forward_hook(lambda m, args, out, l=l: seen.__setitem__(l, out.detach()))
    with torch.no_grad():
        attention = model(torch.from_numpy(tokens), output_attentions=True).attentions
    x = seen["resid"] if arch == "llama" else seen["resid"] - seen["resid"].mean(-1, keepdim=True)
    eps = config.rms_norm_eps if arch == "llama" else config.layer_norm_epsilon
    scale = ((x**2).mean(-1) + eps).rsqrt().numpy()
    unembed = model.lm_head.weight.detach().numpy() * norm.weight.detach().numpy()  # [vocab, d_model]
    if arch == "gpt2":
        unembed = unembed - unembed.mean(1, keepdims=True)
    n_heads, d_model = config.num_attention_heads, config.hidden_size
    d_head = d_model // n_heads
    n_seq, n_pos = tokens.shape
    shape = (n_seq, len(layers), n_heads)
    found = {name: np.full(shape, np.nan) for name in ("score", "excess", "share_frac")}
    for b, l, h in np.ndindex(shape):
        if arch == "llama":
            group = h // (n_heads // config.num_key_value_heads)
            v = seen[l][..., group * d_head : (group + 1) * d_head].numpy()
            out = layers[l].self_attn.o_proj.weight.detach().numpy()[:, h * d_head : (h + 1) * d_head]
        else:
            v = seen[l][..., 2 * d_model + h * d_head : 2 * d_model + (h + 1) * d_head].numpy()
            out = layers[l].attn.c_proj.weight.detach().numpy()[h * d_head : (h + 1) * d_head].T
        A, ids = attention[l][b, h].numpy(), sorted(set(tokens[b].tolist()) - {tokens[b, 0]})

        def rise(sequence: int, k: int, b: int = b, v=v, out=out, ids=ids) -> float:
            logits = unembed @ (out @ v[sequence, k])
            return logits[tokens[b, k]] - np.mean([logits[i] for i in ids if i != tokens[b, k]])

        own = [0.0] + [rise(b, k) for k in range(1, n_pos)]
        other = [0.0] + [rise((b - 1) % n_seq, k) for k in range(1, n_pos)]
        sums = []
        for q in range(n_pos):
            targets = [j + 1 for j in range(q) if tokens[b, j] == tokens[b, q]]
            if targets:
                sums.append(scale[b, q] * np.array([
                    sum(A[q, t] * own[t] for t in targets),
                    sum((A[q, t] - 1 / (q + 1)) * (own[t] - other[t]) for t in targets),
                    sum(A[q, k] * abs(own[k]) for k in range(q + 1)),
                ]))  # fmt: skip
        on_target, excess, total = np.sum(sums, axis=0)
        found["score"][b, l, h], found["excess"][b, l, h] = on_target / len(sums), excess / len(sums)
        found["share_frac"][b, l, h] = on_target / total
    return found
