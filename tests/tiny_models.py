"""Small random checkpoint series on disk: Hugging Face folders of several architectures, and lab series."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file

D_VOCAB, N_CTX, D_MODEL, N_LAYERS, N_HEADS = 61, 64, 32, 2, 4
SPREAD = 0.15  # of what is added to every parameter: fresh initialisations hide swapped biases and gains

_WIDTHS = {
    "vocab_size": D_VOCAB,
    "hidden_size": D_MODEL,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": N_HEADS,
    "intermediate_size": 2 * D_MODEL,
    "max_position_embeddings": N_CTX,
}
_GROUPED = {"num_key_value_heads": N_HEADS // 2}
_IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
_GPT2 = {"vocab_size": D_VOCAB, "n_embd": D_MODEL, "n_layer": N_LAYERS, "n_head": N_HEADS}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {**_GPT2, "n_positions": N_CTX}),
    "gpt_neox": ("GPTNeoXConfig", _WIDTHS),
    "llama": ("LlamaConfig", {**_WIDTHS, **_GROUPED}),
    "qwen2": ("Qwen2Config", {**_WIDTHS, **_GROUPED}),
    "mistral": ("MistralConfig", {**_WIDTHS, **_GROUPED}),
    "gemma2": ("Gemma2Config", {**_WIDTHS, **_GROUPED, "head_dim": 8, "pad_token_id": 0}),
    "olmo2": ("Olmo2Config", _WIDTHS),
    "opt": ("OPTConfig", {**_WIDTHS, "ffn_dim": 64, "word_embed_proj_dim": D_MODEL, "pad_token_id": 1}),
    "gpt_neo": (
        "GPTNeoConfig",
        {
            **_WIDTHS,
            "num_layers": N_LAYERS,
            "num_heads": N_HEADS,
            "attention_types": [[["global"], N_LAYERS]],
        },
    ),
    "gptj": ("GPTJConfig", {**_GPT2, "n_positions": N_CTX, "rotary_dim": 4}),
    "bloom": (
        "BloomConfig",
        {"vocab_size": D_VOCAB, "hidden_size": D_MODEL, "n_layer": N_LAYERS, "n_head": N_HEADS},
    ),
    "mamba": ("MambaConfig", {"vocab_size": D_VOCAB, "hidden_size": D_MODEL, "num_hidden_layers": N_LAYERS}),
}


def tiny_hf_model(arch: str, *, seed: int, **changes: Any) -> torch.nn.Module:
    """A random model of transformers' own class, every parameter (biases and gains too) drawn from the seed."""
    import transformers

    class_name, fields = CONFIGS[arch]
    fields = {**_IDS, **fields, **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(
            getattr(transformers, class_name)(**fields), attn_implementation="eager"
        )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(SPREAD * torch.randn_like(parameter))
    return model.eval()


def write_hf_series(
    folder: Path,
    arch: str,
    steps: Sequence[int] = (0, 1, 2),
    *,
    name: str = "step{step}",
    shard_size: str | None = None,
    trainer_state: bool = False,
    **changes: Any,
) -> Path:
    """One folder per step, as `save_pretrained` writes it; the weights of a step depend on the step alone.

    Args:
        folder: made if missing.
        arch: key of `CONFIGS`.
        steps: which steps.
        name: how step folders are called.
        shard_size: such as "20KB", to save each step in several files.
        trainer_state: write the Trainer's `trainer_state.json` beside the weights: loss 5 - step / 1000 nats, 640
            tokens a step.
        changes: fields of the config to set otherwise.
    """
    for step in steps:
        path = folder / name.format(step=step)
        path.mkdir(parents=True, exist_ok=True)
        for file, data in _saved(arch, step, shard_size, **changes).items():
            (path / file).write_bytes(data)
        if trainer_state:
            history = [{"step": s, "loss": 5 - s / 1000} for s in (1, step // 2, step)] + [
                {"step": step + 1, "loss": 99}
            ]
            state = {"global_step": step, "num_input_tokens_seen": 640 * step, "log_history": history}
            (path / "trainer_state.json").write_text(json.dumps(state))
    return folder


_SAVED: dict[str, dict[str, bytes]] = {}


def _saved(arch: str, step: int, shard_size: str | None, **changes: Any) -> dict[str, bytes]:
    """The files of one step, made once in a process."""
    key = repr((arch, step, shard_size, sorted(changes.items())))
    if key not in _SAVED:
        shards = {"max_shard_size": shard_size} if shard_size else {}
        with TemporaryDirectory() as place:
            tiny_hf_model(arch, seed=step, **changes).save_pretrained(place, **shards)
            _SAVED[key] = {file.name: file.read_bytes() for file in Path(place).iterdir()}
    return _SAVED[key]


# Probes of every kind of unit: three repeated stimuli, the copied paragraph, the weights. The catalogue may grow.
BASIC_PROBES = (
    "prefix_matching", "previous_token", "duplicate_token", "offset_profile", "sink", "copying_logit",
    "induction_dla", "ov_copying", "repeat_loss", "copy_curve", "induction",
)  # fmt: skip

LAB_FIELDS: dict[str, Any] = {
    "model_type": "transformer_lens_native",
    "bos_token_id": 0,
    "d_model": 16,
    "d_head": 4,
    "n_layers": 2,
    "n_heads": 4,
    "n_ctx": 32,
    "d_vocab": 24,
    "d_vocab_out": 24,
    "attn_only": True,
    "normalization_type": "LN",
    "positional_embedding_type": "standard",
    "act_fn": "gelu",
}


def lab_state(seed: int, **changes: Any) -> dict[str, torch.Tensor]:
    """A random state dict of TransformerLens's native model, biases included."""
    generator = torch.Generator().manual_seed(seed)
    shapes = _lab_shapes(tuple(sorted(changes.items())))
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@cache
def _lab_shapes(changes: tuple[tuple[str, Any], ...]) -> dict[str, torch.Size]:
    """Shapes by name, in the model's own order."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources.native.model import NativeModel

    fields = {
        k: v for k, v in {**LAB_FIELDS, **dict(changes)}.items() if k not in ("model_type", "bos_token_id")
    }
    return {k: v.shape for k, v in NativeModel(TransformerBridgeConfig(**fields)).state_dict().items()}


def write_lab_series(folder: Path, steps: Sequence[int] = (0, 1, 2), **changes: Any) -> Path:
    """A lab series of tiny random models; the weights of a step depend on the step alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**LAB_FIELDS, **changes}))
    listed = []
    for step in steps:
        name = f"step_{step:08d}"
        (folder / name).mkdir()
        save_file(lab_state(step, **changes), folder / name / "model.safetensors")
        listed.append({"step": step, "folder": name, "tokens_seen": 100 * step, "train_loss_nats": 3.0})
    manifest = {
        "format": "byrote-lab",
        "version": 1,
        "name": folder.name,
        "status": "complete",
        "checkpoints": listed,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
