"""What a state dict without a config.json looks like, and the lines that make it readable.

Names and shapes say which family of architectures a state dict may be of, and most of its sizes; how many heads share a
matrix they never say, so that nothing is opened on a guess: the lines to run are given, with a "?" for what only the training code
knows. Tests run these lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from byrote.checkpoints.formats.inert_pickle import shown

Shapes = Mapping[str, tuple[int, ...]]
OWN = (
    "byrote knows architectures of transformers, HookedTransformer, nanoGPT and llama2.c; convert the weights to one that computes "
    "the same, or add a format for your own (docs/formats.md, 'Adding a format')"
)
EXPORT = "llama2.c converts its own, and the result is read: python export.py ckpt_STEP.bin --checkpoint FILE --version 1"


@dataclass(frozen=True)
class _Weights:
    """Shapes by the end of a name: what stands before it, and the layer, are not looked at."""

    shapes: Shapes

    def shape(self, ending: str) -> tuple[int, ...]:
        """The shape of the first tensor whose name ends like this; () where there is none."""
        found = (s for name, s in self.shapes.items() if name == ending or name.endswith(f".{ending}"))
        return next(found, ())

    def size(self, ending: str, axis: int) -> int:
        """One size of it, 0 where there is none."""
        shape = self.shape(ending)
        return shape[axis] if len(shape) > axis else 0

    def layers(self, stem: str) -> int:
        """How many layers there are: one more than the highest number behind a stem such as ``h``."""
        found = (re.search(rf"(?:^|\.){stem}\.(\d{{1,6}})\.", name) for name in self.shapes)
        return 1 + max((int(one[1]) for one in found if one), default=-1)


def advice(shapes: Shapes, *, folder: Path) -> tuple[str, str]:
    """What the names look like, and what to do.

    Args:
        shapes: of all tensors, by name.
        folder: where a config.json would be looked for.

    Returns:
        The family, "" for none that is known here; and a help line.
    """
    found = _Weights(shapes)
    for family, ending, help in _FAMILIES:
        if found.shape(ending):
            return family, help(found, folder)
    return "", OWN


def first_names(shapes: Shapes) -> str:
    """``148 tensors such as a, b``."""
    names = ", ".join(shown(name) for name in list(shapes)[:2])
    return f"{len(shapes)} tensor{'s' * (len(shapes) != 1)} such as {names}"


def _config(kind: str, folder: Path, **sizes: object) -> str:
    settings_text = ", ".join(f"{name}={value}" for name, value in sizes.items())
    return (
        "write its config.json, with the training code's numbers for each ?: "
        f"from transformers import {kind}; {kind}({settings_text}).save_pretrained({str(folder)!r})"
    )


def _gpt2(w: _Weights, folder: Path) -> str:
    rows, columns = w.shape("attn.c_attn.weight")[:2]
    d_model, sizes = min(rows, columns), (w.layers("h"), w.size("wpe.weight", 0), w.size("wte.weight", 0))
    if columns == 3 * rows:
        names = dict(zip(("n_layer", "n_positions", "vocab_size"), sizes, strict=True))
        return _config("GPT2Config", folder, n_embd=d_model, n_head="?", **names)
    args = f'"n_layer": {sizes[0]}, "n_head": ?, "n_embd": {d_model}, "block_size": {sizes[1]}, "vocab_size": {sizes[2]}'
    return (
        "its linear weights are nanoGPT's, the transpose of GPT-2's; save it as nanoGPT does, with the number of heads: "
        f'torch.save({{"model": state, "model_args": {{{args}}}, "iter_num": step}}, f"ckpt_{{step}}.pt")'
    )


def _llama(w: _Weights, folder: Path) -> str:
    kind = "Qwen3Config" if w.shape("self_attn.q_norm.weight") else "LlamaConfig"
    kind = "Qwen2Config" if w.shape("self_attn.q_proj.bias") else kind
    return _config(
        kind,
        folder,
        hidden_size=w.size("embed_tokens.weight", 1),
        intermediate_size=w.size("mlp.gate_proj.weight", 0),
        num_hidden_layers=w.layers("layers"),
        num_attention_heads="?",
        num_key_value_heads="?",
        vocab_size=w.size("embed_tokens.weight", 0),
        max_position_embeddings="?",
        tie_word_embeddings=not w.shape("lm_head.weight"),
    )


def _neox(w: _Weights, folder: Path) -> str:
    return _config(
        "GPTNeoXConfig",
        folder,
        hidden_size=w.size("embed_in.weight", 1),
        intermediate_size=w.size("mlp.dense_h_to_4h.weight", 0),
        num_hidden_layers=w.layers("layers"),
        num_attention_heads="?",
        vocab_size=w.size("embed_in.weight", 0),
        max_position_embeddings="?",
    )


_FAMILIES: tuple[tuple[str, str, Callable[[_Weights, Path], str]], ...] = (
    ("GPT-2 or nanoGPT", "attn.c_attn.weight", _gpt2),
    ("Llama, Mistral or Qwen", "mlp.gate_proj.weight", _llama),
    ("GPT-NeoX or Pythia", "attention.query_key_value.weight", _neox),
    ("llama2.c or Meta's Llama", "attention.wq.weight", lambda w, folder: EXPORT),
)
