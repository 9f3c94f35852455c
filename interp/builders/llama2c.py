"""llama2.c's models are Llama: their tensors in transformers' LlamaForCausalLM give the same logits.

llama2.c turns neighbouring pairs of a head's dimensions, transformers its two halves: rows of queries and keys are put in that
order, which leaves every product of a query and a key as it was.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from byrote.checkpoints.formats.llama2c import header_of, tensors
from byrote.checkpoints.formats.llama2c import model_config as config
from byrote.checkpoints.series import Checkpoint
from byrote.checkpoints.stored_bytes import windows_of
from byrote.interp.builders import Built
from byrote.interp.builders.filling import fill

_NAMES = {
    "tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head",
    "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj", "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj", "feed_forward.w1": "mlp.gate_proj", "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
}  # fmt: skip


def build(checkpoint: Checkpoint, dtype: torch.dtype) -> Built:
    """LlamaForCausalLM with this step's weights.

    Raises:
        CheckpointError: a file that is no longer what it was when the series was opened.
    """
    header = header_of(checkpoint.files[0])
    heads = {"attention.wq": header.n_heads, "attention.wk": header.n_kv_heads}
    named: dict[str, Tensor] = {}
    for name, info, raw in tensors(checkpoint):
        stored = np.concatenate([window.copy() for window in windows_of(raw)]).view("<f4")
        weight = torch.from_numpy(stored).reshape(info.shape)
        layer, _, part = name.removesuffix(".weight").removeprefix("layers.").partition(".")
        if not name.startswith("layers."):
            named[f"{_NAMES[name.removesuffix('.weight')]}.weight"] = weight
            continue
        weight = halves(weight, heads[part]) if part in heads else weight
        named[f"model.layers.{layer}.{_NAMES[part]}.weight"] = weight
    module = fill(config(checkpoint), named, dtype=dtype, step=checkpoint.step, exact=True)
    return Built(module, type(module).__name__, hf_config=module.config)


def halves(weight: Tensor, n_heads: int) -> Tensor:
    """Rows of every head with the first of each pair in its first half, the second in its second."""
    rows, width = weight.shape
    return weight.reshape(n_heads, rows // n_heads // 2, 2, width).transpose(1, 2).reshape(rows, width)
