"""One pass, stopped after the last thing asked for, its patterns checked, each layer's tensors handed over together."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tiny_models import BASIC_PROBES

from byrote.checkpoints import ByroteError, open_series
from byrote.interp.bridge import HookedSeries
from byrote.interp.loading import load_fresh
from byrote.interp.model import HookedModel, counting_passes
from byrote.interp.observe import _HOOK as HOOKS
from byrote.interp.observe import EndView, LayerView, observe, pattern_problem
from byrote.probes.registry import REGISTRY
from byrote.probes.results.schema import unit_table
from byrote.probes.stimuli import Vocabulary, make
from byrote.probes.sweep.measure import measure_stimulus
from byrote.probes.sweep.plan import groups

ARCHITECTURES = (
    "gpt2", "gpt_neox", "llama", "qwen2", "mistral", "opt", "gpt_neo", "gptj", "bloom", "gemma2", "olmo2",
)  # fmt: skip


class Keep:
    """Keeps copies of everything it is shown."""

    def __init__(self, *needs: str) -> None:
        self.needs = frozenset(needs)
        self.layers: list[LayerView] = []
        self.ends: list[EndView] = []

    def see_layer(self, view: LayerView) -> None:
        self.layers.append(view)

    def see_end(self, view: EndView) -> None:
        self.ends.append(view)


def tokens_of(n: int = 4, pos: int = 20, d_vocab: int = 61) -> torch.Tensor:
    return torch.randint(0, d_vocab, (n, pos), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def model(hf_series) -> HookedModel:
    return load_fresh(open_series(hf_series("gpt_neox", 1))[0])


def count_calls(model: HookedModel) -> Counter:
    """How often the unembedding, the MLPs and the first block run from now on."""
    calls: Counter = Counter()
    parts = {"unembed": model.bridge.unembed, "block 0": model.bridge.blocks[0]}
    parts |= {f"mlp {i}": block.mlp for i, block in enumerate(model.bridge.blocks) if hasattr(block, "mlp")}
    for name, module in parts.items():
        module.register_forward_pre_hook(lambda *_, name=name: calls.update([name]))
    return calls


@pytest.mark.parametrize(
    ("needs", "ran"),
    [
        (("pattern",), {"block 0": 1, "mlp 0": 1}),
        (("z",), {"block 0": 1, "mlp 0": 1}),
        (("pattern", "z", "v"), {"block 0": 1, "mlp 0": 1}),
        (("pattern", "final_scale"), {"block 0": 1, "mlp 0": 1, "mlp 1": 1}),
        (("pattern", "token_nll"), {"block 0": 1, "mlp 0": 1, "mlp 1": 1, "unembed": 1}),
        (("top1",), {"block 0": 1, "mlp 0": 1, "mlp 1": 1, "unembed": 1}),
    ],
)
def test_the_pass_stops_after_the_last_thing_anyone_asked_for(hf_series, needs, ran):
    model = load_fresh(open_series(hf_series("llama", 1))[0])
    calls = count_calls(model)
    report = observe(model, tokens_of(), [Keep(*needs)])
    assert dict(calls) == ran
    assert (report.n_passes, report.stopped_early) == (1, "unembed" not in ran)
    assert report.problems == {}


def test_many_observers_share_one_pass(model):
    calls = count_calls(model)
    watchers = [Keep("pattern"), Keep("z"), Keep("token_nll"), Keep("final_scale", "v")]
    report = observe(model, tokens_of(n=32), watchers)
    assert report.n_passes == calls["block 0"] == calls["unembed"] == 1
    assert [len(w.layers) for w in watchers] == [2, 2, 0, 2]
    assert [len(w.ends) for w in watchers] == [0, 0, 1, 1]


def test_a_stimulus_is_run_once_whatever_the_number_of_probes(hf_series):
    hooked = HookedSeries(open_series(hf_series("llama", 2)))
    vocabulary = Vocabulary(torch.arange(1, 61).numpy(), 0)
    list(hooked)  # from the second step on it is one bridge, its weights swapped
    model = hooked.load(hooked.series[0])
    shown: list[int] = []
    model.bridge.blocks[0].register_forward_pre_hook(
        lambda module, args, kwargs=None: shown.append(len(args[0]))
    )
    for checkpoint in hooked.series:
        assert hooked.load(checkpoint).bridge is model.bridge
        for group in groups([REGISTRY[name] for name in BASIC_PROBES]):
            if not group.stimuli:
                continue
            stimulus = make(group.stimuli[0], vocabulary, n_ctx=64, seed=0, n_seq=24)
            shown.clear()
            _, report = measure_stimulus(model, stimulus, group.probes, seed=0)
            assert report.n_passes == 1
            # copying_logit looks at two sequences beforehand: is the direct path readable at all?
            ahead = [2] if any(info.name == "copying_logit" for info in group.probes) else []
            assert shown == [*ahead, stimulus.n]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_layer_hands_over_its_own_pattern_z_and_v(hf_series, arch):
    """z is the pattern applied to v, so a tensor from another layer or batch cannot go unnoticed."""
    model = load_fresh(open_series(hf_series(arch, 1))[0])
    watcher = Keep("pattern", "z", "v")
    report = observe(model, tokens_of(), [watcher], batch=3)
    assert report.problems == {}
    assert [(view.layer, view.rows) for view in watcher.layers] == [
        (layer, rows) for rows in (slice(0, 3), slice(3, 4)) for layer in (0, 1)
    ]
    for view in watcher.layers:
        assert torch.equal(view.tokens, tokens_of()[view.rows])
        assert view.pattern.shape == (len(view.tokens), 4, 20, 20)
        assert view.z.shape == view.v.shape == (len(view.tokens), 20, 4, 8)
        rebuilt = torch.einsum("bhqk,bkhd->bqhd", view.pattern, view.v)
        torch.testing.assert_close(rebuilt, view.z, rtol=0, atol=1e-5)


@pytest.mark.parametrize("arch", ["gpt_neox", "llama", "opt"])
def test_batch_size_does_not_change_what_is_seen(hf_series, arch):
    model = load_fresh(open_series(hf_series(arch, 1))[0])
    tokens = tokens_of(n=32)
    whole = Keep("pattern", "z", "final_scale", "token_nll", "top1")
    single = Keep(*whole.needs)
    assert observe(model, tokens, [whole], batch=32).n_passes == 1
    assert observe(model, tokens, [single], batch=1).n_passes == 32
    for site in ("pattern", "z"):
        for layer in (0, 1):
            a = torch.cat([getattr(v, site) for v in whole.layers if v.layer == layer])
            b = torch.cat([getattr(v, site) for v in single.layers if v.layer == layer])
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    for site in ("final_scale", "token_nll"):
        a, b = (torch.cat([getattr(v, site) for v in k.ends]) for k in (whole, single))
        torch.testing.assert_close(a, b, rtol=1e-6, atol=2e-6)
    assert torch.equal(whole.ends[0].top1, torch.cat([v.top1 for v in single.ends]))


def test_losses_are_those_of_the_next_token(model):
    tokens = tokens_of()
    watcher = Keep("token_nll", "top1")
    observe(model, tokens, [watcher])
    logits = model.logits(tokens).double()
    log_p = logits - logits.exp().sum(-1, keepdim=True).log()
    expected = -log_p[:, :-1].gather(-1, tokens[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(watcher.ends[0].token_nll.double(), expected, rtol=0, atol=1e-5)
    assert torch.equal(watcher.ends[0].top1, logits[:, :-1].argmax(-1) == tokens[:, 1:])


@pytest.mark.parametrize(
    ("arch", "eps", "centred"),
    [
        ("gpt2", {"layer_norm_epsilon": 0.7}, True),
        ("gpt_neox", {"layer_norm_eps": 0.7}, True),
        ("llama", {"rms_norm_eps": 0.7}, False),
        ("olmo2", {"rms_norm_eps": 0.7}, False),
    ],
)
def test_final_norm_scale_is_one_over_the_norms_divisor(hf_series, arch, eps, centred):
    model = load_fresh(open_series(hf_series(arch, 1, **eps))[0])
    tokens, seen = tokens_of(), []
    watcher = Keep("final_scale")
    observe(model, tokens, [watcher])
    with torch.inference_mode():
        model.bridge.run_with_hooks(
            tokens, fwd_hooks=[("blocks.1.hook_out", lambda x, hook: seen.append(x.double()))]
        )
    (x,) = seen
    x = x - x.mean(-1, keepdim=True) if centred else x
    expected = 1 / (x.square().sum(-1) / x.shape[-1] + 0.7).sqrt()
    torch.testing.assert_close(watcher.ends[0].final_scale.double(), expected, rtol=1e-6, atol=0)


def test_without_a_final_norm_the_scale_is_one(lab_series):
    model = load_fresh(open_series(lab_series(1, normalization_type=None))[0])
    watcher = Keep("final_scale")
    observe(model, tokens_of(d_vocab=24), [watcher])
    assert torch.equal(watcher.ends[0].final_scale, torch.ones(4, 20))


def test_pattern_problems_worked_by_hand():
    good = torch.tensor([[1, 0, 0], [0.5, 0.5, 0], [0.2, 0.3, 0.5]])[None, None].repeat(2, 3, 1, 1)
    assert pattern_problem(good) == ""
    assert pattern_problem(good.to(torch.bfloat16)) == ""
    for value, words in (
        (float("nan"), "not finite"),
        (float("inf"), "not finite"),
        (0.6, r"do not sum to 1 (off by 0.1)"),
    ):
        bad = good.clone()
        bad[1, 2, 2, 2] = value
        assert words in pattern_problem(bad)
    leaks = good.clone()
    leaks[0, 1, 0] = torch.tensor([0.9, 0.1, 0.0])
    assert pattern_problem(leaks) == "attention is not causal (weight 0.1 on later tokens)"
    off = good.clone()
    off[0, 0, 0, 0] = 0.999
    assert "sum to 1" in pattern_problem(off)
    off[0, 0, 0, 0] = 0.99999  # rounding
    assert pattern_problem(off) == ""


def corrupt(kind: str):
    def hook(pattern, hook):
        bad = pattern.clone()
        if kind == "future":
            bad[0, 0, 0, 0], bad[0, 0, 0, 1] = 0.5, 0.5
        elif kind == "sum":
            bad = bad * 0.9
        else:
            bad[0, 0, 3, 2] = float("nan")
        return bad

    return hook


@pytest.mark.parametrize(
    ("kind", "words"), [("future", "not causal"), ("sum", "do not sum"), ("nan", "not finite")]
)
def test_a_pattern_that_cannot_be_trusted_is_reported_for_its_layer(model, kind, words):
    hook = corrupt(kind)
    point = dict(model.bridge.hook_dict)["blocks.1.attn.hook_pattern"]
    point.add_hook(hook, is_permanent=True)
    report = observe(model, tokens_of(), [Keep("pattern")])
    assert list(report.problems) == [1]
    assert words in report.problems[1]


def test_scores_of_an_untrustworthy_layer_are_not_valid(model):
    point = dict(model.bridge.hook_dict)["blocks.0.attn.hook_pattern"]
    point.add_hook(corrupt("future"), is_permanent=True)
    stimulus = make("repeated_random", Vocabulary(torch.arange(1, 61).numpy(), 0), n_ctx=64, seed=0, n_seq=4)
    measured, _ = measure_stimulus(model, stimulus, [REGISTRY["prefix_matching"]], seed=0)
    rows = unit_table(measured, run="r", step=0, tokens_seen=None).to_pandas()
    spoilt = rows[rows["layer"] == 0]
    assert not spoilt["valid"].any()
    assert spoilt["reason"].str.contains("not causal").all()
    assert spoilt["value"].isna().all()
    assert rows[rows["layer"] == 1]["valid"].all()


def test_a_hook_that_never_fires_is_reported(model, monkeypatch):
    monkeypatch.setitem(HOOKS, "pattern", "attn.hook_rot_q")  # there, but silent on this architecture
    watcher = Keep("pattern", "token_nll")
    report = observe(model, tokens_of(), [watcher])
    assert watcher.layers == []
    assert report.problems == {layer: f"the pattern hook of layer {layer} never fired" for layer in (0, 1)}
    stimulus = make("repeated_random", Vocabulary(torch.arange(1, 61).numpy(), 0), n_ctx=64, seed=0, n_seq=4)
    infos = [REGISTRY[name] for name in ("prefix_matching", "copying_logit", "offset_profile", "repeat_loss")]
    measured, _ = measure_stimulus(model, stimulus, infos, seed=0)
    rows = unit_table(measured, run="r", step=0, tokens_seen=None).to_pandas()
    heads = rows["probe"] != "repeat_loss"
    assert set(rows["probe"][heads]) == {"prefix_matching", "copying_logit", "offset_profile"}
    assert not rows["valid"][heads].any()
    assert rows["reason"][heads].str.contains("hook of layer 0 never fired").all()
    assert rows["valid"][~heads].all()


def test_half_precision_patterns_get_a_wider_tolerance(hf_series):
    model = load_fresh(open_series(hf_series("llama", 1))[0], dtype=torch.bfloat16)
    assert observe(model, tokens_of(), [Keep("pattern")]).problems == {}


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (torch.full((2, 5), 61), "token id 61 is outside the model's vocabulary of 61"),
        (torch.tensor([[0, -1, 2]]), "token id -1 is outside"),
        (torch.zeros(1, 65, dtype=torch.long), "65 tokens do not fit the model's context of 64"),
        (torch.zeros(0, 5, dtype=torch.long), "no tokens"),
    ],
)
def test_tokens_the_model_cannot_take(model, tokens, words):
    with pytest.raises(ByroteError, match=words):
        observe(model, tokens, [Keep("pattern")])


def test_nothing_is_kept_for_gradients(model):
    watcher = Keep("pattern", "z", "token_nll")
    observe(model, tokens_of(), [watcher])
    seen = [watcher.layers[0].pattern, watcher.layers[1].z, watcher.ends[0].token_nll]
    assert not any(t.requires_grad or t.grad_fn for t in seen)
    assert not any(p.requires_grad for p in model.parameters.values())


def test_observing_leaves_no_hooks_behind(model):
    tokens = tokens_of()
    before = model.logits(tokens)
    observe(model, tokens, [Keep("pattern", "z", "v", "final_scale")])
    calls = [len(point.fwd_hooks) for point in model.bridge.hook_dict.values()]
    assert sum(calls) == 0
    assert torch.equal(model.logits(tokens), before)


def test_passes_are_counted_whoever_makes_them(hf_series):
    model = load_fresh(open_series(hf_series("gpt_neox", 1))[0])
    tokens = torch.randint(1, 60, (5, 8), generator=torch.Generator().manual_seed(0))
    with counting_passes() as shown:
        model.logits(tokens)
        observe(model, tokens, [Keep("z")], batch=2)  # stops before the logits
    assert shown.rows == [5, 2, 2, 1]
    model.logits(tokens)
    assert len(shown.rows) == 4
