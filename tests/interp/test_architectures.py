"""Every architecture byrote says it reads, measured on small random models, and the table in the docs made from that.

After a change that is meant, write the table again: `python tests/interp/test_architectures.py`.
"""

from __future__ import annotations

import functools
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from byrote.checkpoints import open_series
from byrote.checkpoints.series import Checkpoint
from byrote.interp.bridge import SWAP_PROVED
from byrote.interp.loading import copy_into, load_fresh
from byrote.interp.model import HookedModel
from byrote.interp.observe import LayerView, observe, read_out_error

DOC = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"
D_VOCAB, N_CTX, D_MODEL, N_LAYERS, N_HEADS = 61, 64, 32, 2, 4
LOGIT_TOLERANCE = 1e-5  # of logits whose standard deviation is about 1
READ_OUT_TOLERANCE = 1e-4

_WIDTHS = {
    "vocab_size": D_VOCAB,
    "hidden_size": D_MODEL,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": N_HEADS,
    "intermediate_size": 2 * D_MODEL,
    "max_position_embeddings": N_CTX,
}
_ALL = {**_WIDTHS, "num_key_value_heads": N_HEADS}
_GROUPED = {**_WIDTHS, "num_key_value_heads": N_HEADS // 2}
_GPT2 = {"vocab_size": D_VOCAB, "n_embd": D_MODEL, "n_layer": N_LAYERS, "n_head": N_HEADS}
_NEO = {
    "num_layers": N_LAYERS,
    "num_heads": N_HEADS,
    "attention_types": [[["global", "local"], 1]],
    "window_size": 8,
}
_OPT = {"ffn_dim": 2 * D_MODEL, "word_embed_proj_dim": D_MODEL}

# What people call it -> its config in transformers. Windows are shorter than the test's sequences.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": ("GPT2Config", {**_GPT2, "n_positions": N_CTX}),
    "GPT-NeoX, Pythia": ("GPTNeoXConfig", _WIDTHS),
    "GPT-J": ("GPTJConfig", {**_GPT2, "n_positions": N_CTX, "rotary_dim": 4}),
    "GPT-Neo": ("GPTNeoConfig", {**_WIDTHS, **_NEO}),
    "Llama": ("LlamaConfig", _ALL),
    "Llama, grouped": ("LlamaConfig", _GROUPED),
    "Mistral, sliding window": ("MistralConfig", {**_GROUPED, "sliding_window": 8}),
    "Qwen2": ("Qwen2Config", _GROUPED),
    "Qwen3": ("Qwen3Config", {**_GROUPED, "head_dim": 8}),
    "OLMo": ("OlmoConfig", _ALL),
    "OLMo 2": ("Olmo2Config", _ALL),
    "OLMo 3, sliding window": ("Olmo3Config", {**_ALL, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "Gemma": ("GemmaConfig", {**_GROUPED, "head_dim": 8}),
    "Gemma 2, sliding window": ("Gemma2Config", {**_GROUPED, "head_dim": 8, "sliding_window": 8}),
    "Gemma 3, sliding window": (
        "Gemma3TextConfig",
        {**_GROUPED, "head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "Phi": ("PhiConfig", _ALL),
    "OPT": ("OPTConfig", {**_WIDTHS, **_OPT}),
    "BLOOM": ("BloomConfig", {"vocab_size": D_VOCAB, "hidden_size": D_MODEL, "n_layer": N_LAYERS, "n_head": N_HEADS}),
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What was found of one architecture.

    Attributes:
        name, architecture: what people and transformers call it.
        key_value_heads: of 4 query heads.
        logit_error: largest difference to transformers' eager logits, in units of the logits' deviation.
        pattern_error: the same for attention weights.
        pattern_problem: why patterns cannot be scored, or "".
        read_out: `read_out_error`.
        swap: whether a swap in place gave the bits of a fresh load: logits, patterns and weights per head.
        half: float16 and bfloat16 files load as float32, with transformers' own float32 logits.
        linear_readout: whether a head's output reaches the residual stream without a norm between.
    """

    name: str
    architecture: str
    key_value_heads: int
    logit_error: float
    pattern_error: float
    pattern_problem: str
    read_out: float
    linear_readout: bool
    swap: bool
    half: bool

    def row(self) -> str:
        """As the docs show it: facts that do not depend on the machine."""

        def yes(fact: object) -> str:
            return "yes" if fact else "**no**"

        read_out = "exact" if self.read_out < READ_OUT_TOLERANCE else "bent (soft cap)"
        cells = (
            self.name,
            f"`{self.architecture}`",
            "all" if self.key_value_heads == N_HEADS else f"{N_HEADS // self.key_value_heads} share one",
            yes(self.logit_error < LOGIT_TOLERANCE),
            yes(not self.pattern_problem and self.pattern_error < LOGIT_TOLERANCE),
            read_out,
            "straight" if self.linear_readout else "through a norm",
            "yes" if self.swap else "fresh load",
            yes(self.half),
        )
        return f"| {' | '.join(cells)} |"


class _Patterns:
    needs = frozenset({"pattern"})

    def __init__(self) -> None:
        self.layers: list[torch.Tensor] = []

    def see_layer(self, view: LayerView) -> None:
        assert view.pattern is not None
        self.layers.append(view.pattern.clone())

    def see_end(self, view: Any) -> None: ...


def write_model(folder: Path, name: str, *, seed: int) -> None:
    """A random model, biases and gains too, as transformers saves it."""
    import transformers

    class_name, fields = MODELS[name]
    config = getattr(transformers, class_name)(**fields, bos_token_id=0, eos_token_id=0, pad_token_id=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.15 * torch.randn_like(parameter))
    model.save_pretrained(folder)


def transformers_own(folder: Path, tokens: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits and attention of transformers alone, in float32."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.inference_mode():
        out = model(tokens, output_attentions=True)
    return out.logits, list(out.attentions)


def swap_equals_fresh(first: Checkpoint, second: Checkpoint, tokens: torch.Tensor) -> bool:
    """Poison a live model, swap the other step in, and compare every bit with a fresh load of that step."""
    live, fresh = load_fresh(first), load_fresh(second)
    with torch.no_grad():
        for parameter in live.bridge.parameters():
            parameter.fill_(torch.nan)
    copy_into(live, second)
    return all(torch.equal(a, b) for a, b in zip(_bits(live, tokens), _bits(fresh, tokens), strict=True))


def _bits(model: HookedModel, tokens: torch.Tensor) -> list[torch.Tensor]:
    patterns = _Patterns()
    observe(model, tokens, [patterns])
    weights = [
        getattr(model.weights, w)
        for w in ("W_E", "W_Q", "W_K", "W_V", "W_O", "W_U", "attn_norm_gain", "final_norm_gain")
    ]
    return [model.logits(tokens), *patterns.layers, *weights]


def halves_load_as_float32(folder: Path, tokens: torch.Tensor) -> bool:
    """Rewrite the files in half precision, twice, and load them as float32."""
    config = json.loads((folder / "config.json").read_text())
    for dtype in (torch.float16, torch.bfloat16):
        file = folder / "model.safetensors"
        save_file({k: v.to(dtype) for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
        (folder / "config.json").write_text(
            json.dumps({**config, "dtype": str(dtype).removeprefix("torch.")})
        )
        model = load_fresh(open_series(folder)[0], dtype=torch.float32)
        if {p.dtype for p in model.parameters.values()} != {torch.float32}:
            return False
        own, _ = transformers_own(folder, tokens)
        if (model.logits(tokens) - own).abs().max() > LOGIT_TOLERANCE * own.std():
            return False
    return True


@functools.cache
def measure(name: str) -> Measured:
    """Everything the table says of one architecture."""
    tokens = torch.randint(2, D_VOCAB, (2, 24), generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as place:
        for step in (0, 1):
            write_model(Path(place) / f"step{step}", name, seed=step)
        first, second = open_series(place)
        model, patterns = load_fresh(first), _Patterns()
        report = observe(model, tokens, [patterns])
        logits, attention = transformers_own(first.path, tokens)
        return Measured(
            name=name,
            architecture=model.shape.architecture,
            key_value_heads=model.shape.n_key_value_heads,
            logit_error=((model.logits(tokens) - logits).abs().max() / logits.std()).item(),
            pattern_error=max(
                (a - b).abs().max().item() for a, b in zip(patterns.layers, attention, strict=True)
            ),
            pattern_problem="; ".join(report.problems.values()),
            read_out=read_out_error(model, tokens),
            linear_readout=model.weights.linear_readout,
            swap=swap_equals_fresh(first, second, tokens),
            half=halves_load_as_float32(second.path, tokens),
        )


HEADER = """# Supported architectures

Measured, not promised: the test suite makes a small random model of each, saves it as transformers does, opens the
folder with `open_series`, and compares. `python tests/interp/test_architectures.py` writes this page again.

- **key/value heads**: whether every query head has its own, or several share one.
- **logits**: equal to transformers' own eager float32 logits, within 1e-5 of their standard deviation.
- **patterns**: attention of every layer fired, is finite, causal, sums to 1 and equals transformers' own within 1e-5.
- **read-out**: the logits can be rebuilt from the last residual, the final norm and the unembedding. Where they are
  bent by a soft cap, probes of direct contributions say "not measured" when the bend is too large.
- **head output**: what a head writes reaches the residual stream straight, or through a norm that bends it; there,
  `copying_logit` and other direct-contribution probes say "not measured".
- **swap**: copying the next step's weights into a live model gives every bit of a fresh load (logits, patterns and
  weights per head). Others are loaded afresh at each step: slower, and right by construction.
- **half files**: float16 and bfloat16 files run in float32 when float32 is requested (the default).

| model | class in transformers | key/value heads | logits | patterns | read-out | head output | swap | half files |
|---|---|---|---|---|---|---|---|---|
"""

FOOTER = """
An architecture that is not in the table may load as well: byrote reads what transformers can build and TransformerLens
can hook with attention in every layer, and checks patterns and read-out on every model before it believes a number.
Models without attention heads in every layer (Mamba, hybrids) are refused.
"""


@pytest.mark.parametrize("name", MODELS)
def test_architecture(name):
    found = measure(name)
    assert found.logit_error < LOGIT_TOLERANCE
    assert found.pattern_problem == ""
    assert found.pattern_error < LOGIT_TOLERANCE
    assert found.half
    assert found.row() in DOC.read_text(encoding="utf-8").splitlines(), found.row()
    if found.architecture in SWAP_PROVED:
        assert found.swap


def test_the_page_is_what_was_measured():
    assert DOC.read_text(encoding="utf-8") == page()


def page() -> str:
    """docs/architectures.md, measured now."""
    return HEADER + "".join(measure(name).row() + "\n" for name in MODELS) + FOOTER


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in MODELS:
        print(measure(each))
    DOC.write_text(page(), encoding="utf-8")
