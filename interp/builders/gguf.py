"""GGUF models of the architecture llama: their weights, dequantised by the `gguf` library, in transformers' LlamaForCausalLM.

The library is given one tensor's bytes at a time, of a size that the header was proved to describe, and does arithmetic on
them; it never sees the file. llama.cpp turns neighbouring pairs of a head's dimensions, transformers its two halves: the rows
of queries and keys are put in that order, as for llama2.c.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.gguf import model_config
from byrote.checkpoints.formats.gguf_header import StoredBlocks, read_header
from byrote.checkpoints.series import Checkpoint
from byrote.checkpoints.stored_bytes import StoredFile
from byrote.interp.builders import Built
from byrote.interp.builders.filling import fill
from byrote.interp.builders.llama2c import halves

_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
_NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The header as transformers' config; steps of other quantisation are not swapped."""
    return model_config(checkpoint)


def build(checkpoint: Checkpoint, dtype: torch.dtype) -> Built:
    """LlamaForCausalLM with this file's weights, dequantised.

    Raises:
        CheckpointError: the gguf library is not installed, or the file is no longer what it was.
    """
    fields = config(checkpoint)
    module = fill(fields, _weights(checkpoint, fields, dtype), dtype=dtype, step=checkpoint.step, exact=True)
    return Built(module, type(module).__name__, hf_config=module.config)


def _weights(checkpoint: Checkpoint, fields: dict[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights by transformers' names. Each is in `dtype` as soon as it is read, so that one at a time is there twice."""
    (path,) = checkpoint.files
    heads = {"attn_q": fields["num_attention_heads"], "attn_k": fields["num_key_value_heads"]}
    named: dict[str, Tensor] = {}
    with StoredFile(path) as file:
        for name, tensor in read_header(path).tensors.items():
            weight = _dequantised(file, tensor).to(dtype)
            stem = name.removesuffix(".weight")
            if not stem.startswith("blk."):
                named[f"{_NAMES[stem]}.weight"] = weight
                continue
            _, layer, part = stem.split(".")
            weight = halves(weight, heads[part]) if part in heads else weight
            named[f"model.layers.{layer}.{_NAMES[part]}.weight"] = weight
    return named


def _dequantised(file: StoredFile, tensor: StoredBlocks) -> Tensor:
    """A tensor's weights: float32, or as they are stored where nothing was rounded."""
    stored = np.frombuffer(file.read(tensor.start, tensor.n_bytes), dtype=np.uint8)
    if tensor.kind.name in _PLAIN:
        return torch.from_numpy(stored).view(_PLAIN[tensor.kind.name]).reshape(tensor.shape)
    quants, kind = _library(tensor)
    rows = stored.reshape(*tensor.shape[:-1], -1)
    with np.errstate(
        all="ignore"
    ):  # scales of a damaged file may be anything; what is not finite is said later
        return torch.from_numpy(np.ascontiguousarray(quants.dequantize(rows, kind)))


def _library(tensor: StoredBlocks) -> tuple[Any, Any]:
    """The gguf library's arithmetic, and what it calls the kind of a tensor.

    Raises:
        CheckpointError: it is not installed, or does not know the kind.
    """
    try:
        from gguf import GGMLQuantizationType, quants
    except ImportError:
        raise CheckpointError(
            f"weights in {tensor.kind.name} are dequantised by the gguf library, which is not installed",
            help="pip install 'byrote[gguf]'",
        ) from None
    try:
        return quants, GGMLQuantizationType(tensor.number)
    except ValueError:
        raise CheckpointError(
            f"the installed gguf library does not know {tensor.kind.name}", help="pip install -U gguf"
        ) from None
