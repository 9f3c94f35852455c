"""Our numbers against routes that share no code with ours: transformers alone, TransformerLens's detector, plain torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import LAB_FIELDS, lab_state
from torch import Tensor

from byrote.checkpoints import open_series
from byrote.interp.loading import load_fresh
from byrote.interp.observe import observe
from byrote.probes.heads.matching import earlier_copies
from byrote.probes.registry import REGISTRY
from byrote.probes.stimuli import Stimulus, Vocabulary, make
from byrote.probes.sweep.measure import measure_once, measure_stimulus

SERIES = ("gpt2", "gpt_neox", "llama")
STIMULUS = make("repeated_random", Vocabulary(np.arange(1, 61), 0), n_ctx=64, seed=2, n_seq=5)
TOKENS = torch.from_numpy(STIMULUS.tokens)
HEAD_PROBES = ("prefix_matching", "previous_token", "duplicate_token", "copying_logit")


def our_scores(model, stimulus: Stimulus = STIMULUS) -> dict[str, np.ndarray]:
    """Probe name -> [batch n_layers n_heads] of its main metric."""
    measured, report = measure_stimulus(model, stimulus, [REGISTRY[name] for name in HEAD_PROBES], seed=0)
    assert report.problems == {}
    return {m.probe: m.samples for m in measured if m.metric == "score"}


@pytest.fixture(params=SERIES)
def path(request, hf_series) -> Path:
    return hf_series(request.param, 1) / "step0"


# (a) Patterns taken through transformers' own attention interface, no TransformerLens anywhere.


def patterns_from_transformers(path: Path) -> dict[int, np.ndarray]:
    """Layer -> [batch n_heads query_pos key_pos]. Our function is the model's attention."""
    from transformers import AttentionInterface, AutoModelForCausalLM
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask

    seen: dict[int, np.ndarray] = {}

    def probe(module, query, key, value, attention_mask, scaling=None, **_):
        share = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(share, dim=1) for x in (key, value))
        scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        length = query.shape[2]
        scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -torch.inf)
        pattern = scores.softmax(-1)
        seen[module.layer_idx] = pattern.double().numpy()
        return (pattern @ value).transpose(1, 2).contiguous(), pattern

    AttentionInterface.register("probe", probe)
    ALL_MASK_ATTENTION_FUNCTIONS.register("probe", eager_mask)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="probe")
    with torch.inference_mode():
        model(TOKENS)
    return seen


def test_patterns_and_scores_equal_those_taken_through_transformers(path):
    theirs = patterns_from_transformers(path)
    assert sorted(theirs) == [0, 1]
    model = load_fresh(open_series(path)[0])

    class Collect:
        needs = frozenset({"pattern"})

        def see_layer(self, view) -> None:
            np.testing.assert_allclose(view.pattern.numpy(), theirs[view.layer], rtol=0, atol=1e-5)
            checked.append(view.layer)

        def see_end(self, view) -> None: ...

    checked: list[int] = []
    observe(model, TOKENS, [Collect()])
    assert checked == [0, 1]

    ours, n_pos = our_scores(model), TOKENS.shape[1]
    for b, x in enumerate(STIMULUS.tokens):
        pairs = [(q, j) for q in range(n_pos) for j in range(q) if x[j] == x[q]]
        n_queries = len({q for q, _ in pairs})
        for layer, pattern in theirs.items():
            for head in range(4):
                a = pattern[b, head]
                answers = {
                    "prefix_matching": sum(a[q, j + 1] for q, j in pairs) / n_queries,
                    "duplicate_token": sum(a[q, j] for q, j in pairs) / n_queries,
                    "previous_token": sum(a[q, q - 1] for q in range(1, n_pos)) / (n_pos - 1),
                }
                for name, answer in answers.items():
                    assert ours[name][b, layer, head] == pytest.approx(answer, abs=1e-5)


# (b) TransformerLens's own detector. It takes text only, so its tokenizer is replaced by the ids themselves.


@pytest.fixture
def detect(path, monkeypatch) -> tuple[dict[str, np.ndarray], Callable[..., Tensor]]:
    from transformer_lens.head_detector import detect_head

    model = load_fresh(open_series(path)[0])
    _, cache = model.bridge.run_with_cache(TOKENS[:1], remove_batch_dim=True)
    monkeypatch.setattr(type(model.bridge), "to_tokens", lambda self, text: TOKENS[:1])

    def run(pattern: str, **options) -> np.ndarray:
        return (
            detect_head(model.bridge, "ids stand in for text", pattern, cache=cache, **options)
            .double()
            .numpy()
        )

    return {name: scores[0] for name, scores in our_scores(model).items()}, run


N_POS = TOKENS.shape[1]
N_QUERIES = int(earlier_copies(TOKENS[:1]).any(-1).sum())


def test_previous_token_equals_detect_head(detect):
    """Theirs divides by all queries, the first included, which has no previous token: ours by the others."""
    ours, theirs = detect
    found = theirs("previous_token_head", error_measure="mul")
    np.testing.assert_allclose(ours["previous_token"], found * N_POS / (N_POS - 1), rtol=0, atol=1e-5)


def test_previous_token_equals_detect_heads_absolute_error(detect):
    """A row of a pattern that gives its target a share s is 2 (1 - s) away from the target; the first row is 1 away."""
    ours, theirs = detect
    found = theirs("previous_token_head", error_measure="abs")  # rounded to three digits there
    away = 2 * (N_POS - 1) * (1 - ours["previous_token"]) + 1
    np.testing.assert_allclose(1 - away / N_POS, found, rtol=0, atol=5.1e-4)


@pytest.mark.parametrize(
    ("probe", "pattern"), [("duplicate_token", "duplicate_token_head"), ("prefix_matching", "induction_head")]
)
def test_scores_on_copies_are_detect_heads_up_to_the_number_of_queries(detect, probe, pattern):
    """Same positions, another divisor: theirs counts queries without any copy too, so a perfect head stays below 1.

    With `exclude_bos` theirs is one ratio of sums over all queries, ours a mean of ratios per query: no fixed relation.
    """
    ours, theirs = detect
    found = theirs(pattern, error_measure="mul")
    np.testing.assert_allclose(ours[probe] * N_QUERIES / N_POS, found, rtol=0, atol=1e-5)
    assert 0.5 < N_QUERIES / N_POS < 1  # the correction is not idle


# (c) Copying from the model's own forward pass: remove one head and look at the logits.


def copying_by_loops(pattern: np.ndarray, contribution: np.ndarray, x: np.ndarray) -> float:
    """4a / (a + S) - 1 of one head and sequence from its contribution to the logits [pos d_vocab]."""
    raised = np.maximum(contribution - contribution.mean(-1, keepdims=True), 0)
    sample = sorted(set(x.tolist()))
    a = sum(pattern[q, k] * raised[q, x[k]] for q in range(1, len(x)) for k in range(q + 1))
    total = sum(raised[q, v] for q in range(1, len(x)) for v in sample)
    return 4 * a / (a + total) - 1


def test_copying_equals_the_logit_difference_of_zeroing_z(lab_series):
    """Without a final norm a last-layer head's contribution is exactly what the logits lose when its z is zeroed."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources.native.model import NativeModel

    changes = {"normalization_type": None, "n_layers": 1, "d_vocab": 61, "d_vocab_out": 61, "n_ctx": 64}
    fields = {k: v for k, v in {**LAB_FIELDS, **changes}.items() if k not in ("model_type", "bos_token_id")}
    plain = NativeModel(TransformerBridgeConfig(**fields))
    state = lab_state(0, **changes)
    plain.load_state_dict(state)

    ours = our_scores(load_fresh(open_series(lab_series(1, **changes))[0]))["copying_logit"]
    x = state["tok_embed.weight"][TOKENS] + state["pos.weight"][:N_POS]
    q, k = (x @ state[f"layers.0.attn.{p}.weight"].T + state[f"layers.0.attn.{p}.bias"] for p in "qk")
    scores = (
        torch.einsum("bqhd,bkhd->bhqk", q.unflatten(-1, (4, 4)), k.unflatten(-1, (4, 4))) / 2
    )  # sqrt of d_head
    pattern = (
        scores.masked_fill(torch.ones(N_POS, N_POS).triu(1).bool(), -torch.inf).softmax(-1).double().numpy()
    )
    with torch.inference_mode():
        whole = plain(TOKENS)
        for head in range(4):
            part = slice(4 * head, 4 * head + 4)

            def zero(module, args, part=part):
                z = args[0].clone()
                z[..., part] = 0
                return (z,)

            handle = plain.layers[0].attn.o.register_forward_pre_hook(zero)
            lost = (whole - plain(TOKENS)).double().numpy()
            handle.remove()
            for b, tokens in enumerate(STIMULUS.tokens):
                answer = copying_by_loops(pattern[b, head], lost[b], tokens)
                assert ours[b, 0, head] == pytest.approx(answer, abs=1e-5)
    assert np.ptp(ours) > 0.01


_PARTS = {  # where each class of transformers keeps its blocks, output projection, final norm and unembedding
    "gpt2": ("transformer.h", "attn.c_proj", "transformer.ln_f"),
    "gpt_neox": ("gpt_neox.layers", "attention.dense", "gpt_neox.final_layer_norm"),
    "llama": ("model.layers", "self_attn.o_proj", "model.norm"),
}


@pytest.mark.parametrize("arch", SERIES)
def test_copying_equals_subtracting_the_head_from_the_last_residual(hf_series, arch):
    """The final norm is held at the divisor it had: logits of the residual, minus logits without the head's write."""
    from transformers import AutoModelForCausalLM

    path = hf_series(arch, 1) / "step0"
    plain = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    blocks, projection, norm = _PARTS[arch]
    seen: dict[object, Tensor] = {}
    projections = [block.get_submodule(projection) for block in plain.get_submodule(blocks)]
    final = plain.get_submodule(norm)
    watched = [*enumerate(projections), ("resid", final)]
    handles = [
        module.register_forward_pre_hook(lambda m, args, name=name: seen.__setitem__(name, args[0]))
        for name, module in watched
    ]
    with torch.inference_mode():
        out = plain(TOKENS, output_attentions=True)
        for handle in handles:
            handle.remove()
        ours = our_scores(load_fresh(open_series(path)[0]))["copying_logit"]
        for layer, module in enumerate(projections):
            for head in range(4):
                z = torch.zeros_like(seen[layer])
                z[..., 8 * head : 8 * head + 8] = seen[layer][..., 8 * head : 8 * head + 8]
                write = module(z) - module(torch.zeros_like(z))  # without the projection's bias
                resid = seen["resid"].double()
                lost = _logits(plain, final, resid, at=resid) - _logits(
                    plain, final, resid - write.double(), at=resid
                )
                for b, tokens in enumerate(STIMULUS.tokens[:2]):
                    pattern = out.attentions[layer][b, head].double().numpy()
                    answer = copying_by_loops(pattern, lost[b].numpy(), tokens)
                    assert ours[b, layer, head] == pytest.approx(answer, abs=1e-5)
    assert np.ptp(ours) > 0.01


def _logits(plain, norm, x: Tensor, *, at: Tensor) -> Tensor:
    """Final norm and unembedding of x, the norm's divisor taken at another residual."""
    eps = next(getattr(norm, name) for name in ("eps", "variance_epsilon") if hasattr(norm, name))
    if isinstance(norm, torch.nn.LayerNorm):
        x, at = x - x.mean(-1, keepdim=True), at - at.mean(-1, keepdim=True)
    x = x / (at.square().mean(-1, keepdim=True) + eps).sqrt() * norm.weight.double()
    return x @ plain.get_output_embeddings().weight.double().T


# (d) The OV circuit written out over the whole vocabulary.


def ov_matrices(path: Path, arch: str) -> np.ndarray:
    """[n_layers n_heads d_vocab d_vocab] float64, from the file's tensors: row t is what attending to t adds."""
    w = {name: t.double().numpy() for name, t in load_file(path / "model.safetensors").items()}

    def get(ending: str) -> np.ndarray:
        (found,) = [t for name, t in w.items() if name.endswith(ending)]
        return found

    centre = np.eye(32) - 1 / 32 if arch != "llama" else np.eye(32)
    heads = np.zeros((2, 4, 32, 32))
    for l in range(2):
        if arch == "gpt2":
            W_V, W_O = get(f"h.{l}.attn.c_attn.weight")[:, 64:], get(f"h.{l}.attn.c_proj.weight")
            gain, gain_f = get(f"h.{l}.ln_1.weight"), get("ln_f.weight")
            W_E = W_U = get("wte.weight")
        elif arch == "gpt_neox":  # rows per head: q, k, v of that head one after another
            W_V = (
                get(f"layers.{l}.attention.query_key_value.weight")
                .reshape(4, 3, 8, 32)[:, 2]
                .reshape(32, 32)
                .T
            )
            W_O, gain = get(f"layers.{l}.attention.dense.weight").T, get(f"layers.{l}.input_layernorm.weight")
            W_E, W_U, gain_f = get("embed_in.weight"), get("embed_out.weight"), get("final_layer_norm.weight")
        else:  # two query heads share each value head
            shared = get(f"layers.{l}.self_attn.v_proj.weight").reshape(2, 8, 32)
            W_V, W_O = (
                np.repeat(shared, 2, axis=0).reshape(32, 32).T,
                get(f"layers.{l}.self_attn.o_proj.weight").T,
            )
            gain, gain_f = get(f"layers.{l}.input_layernorm.weight"), get("model.norm.weight")
            W_E, W_U = get("embed_tokens.weight"), get("lm_head.weight")
        for h in range(4):
            part = slice(8 * h, 8 * h + 8)
            heads[l, h] = centre @ np.diag(gain) @ W_V[:, part] @ W_O[part] @ centre @ np.diag(gain_f)
    return np.einsum("td,lhde,ue->lhtu", W_E, heads, W_U)


@pytest.mark.parametrize("arch", SERIES)
def test_ov_copying_equals_the_eigenvalues_of_the_whole_circuit(hf_series, arch):
    path = hf_series(arch, 1) / "step0"
    full = ov_matrices(path, arch)
    eigenvalues = np.linalg.eigvals(full)
    answer = eigenvalues.real.sum(-1) / np.abs(eigenvalues).sum(-1)
    model = load_fresh(open_series(path)[0])
    found = {m.metric: m for m in measure_once(model, REGISTRY["ov_copying"], ids=np.arange(61), seed=0)}
    np.testing.assert_allclose(found["score"].values, answer, rtol=0, atol=1e-4)
    assert np.ptp(answer) > 0.1
    own_is_highest = full.argmax(-1) == np.arange(61)
    np.testing.assert_allclose(found["self_rank"].values, own_is_highest.mean(-1), rtol=0, atol=1e-6)


def test_ov_copying_of_some_ids_is_that_of_their_rows_and_columns(hf_series):
    path, ids = hf_series("llama", 1) / "step0", np.arange(5, 50)
    full = ov_matrices(path, "llama")[:, :, ids][..., ids]
    eigenvalues = np.linalg.eigvals(full)
    model = load_fresh(open_series(path)[0])
    found = {m.metric: m for m in measure_once(model, REGISTRY["ov_copying"], ids=ids, seed=0)}
    answer = eigenvalues.real.sum(-1) / np.abs(eigenvalues).sum(-1)
    np.testing.assert_allclose(found["score"].values, answer, rtol=0, atol=1e-4)
