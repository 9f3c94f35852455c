"""nanoGPT is GPT-2 with optional biases: its tensors in transformers' GPT2LMHeadModel give the same logits.

Linear weights are stored transposed in GPT-2 (Conv1D); where nanoGPT trained without biases they are zero here, which
adds nothing. The activation is the exact GELU, as in nanoGPT since May 2023; a file of before
then was trained with the tanh form, and nothing in it says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.inert_pickle import shown
from byrote.checkpoints.formats.nanogpt import STATE, model_args
from byrote.checkpoints.formats.torch_zip import read_torch_file
from byrote.checkpoints.series import Checkpoint
from byrote.interp.builders import Built
from byrote.interp.builders.files import read_tensors
from byrote.interp.builders.filling import fill

_TRANSPOSED = re.compile(r"\.(?:c_attn|c_proj|c_fc)\.weight$")
_MASK = re.compile(r"(?:^|\.)attn\.bias$")  # the causal mask of the slow attention path
_PREFIX = re.compile(r"^(?:module\.|_orig_mod\.)+")
_END_OF_TEXT, _GPT2_VOCAB, _PADDED_VOCAB = 50256, 50257, 50304


def config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The file's `model_args` as a GPT-2 config."""
    content = read_torch_file(checkpoint.files[0]).content
    args = model_args(content)
    state = {_PREFIX.sub("", name): tensor for name, tensor in content[STATE].items()}
    head = state.get("lm_head.weight")
    fields = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": args["n_layer"],
        "n_head": args["n_head"],
        "n_embd": args["n_embd"],
        "n_positions": args["block_size"],
        "vocab_size": args["vocab_size"],
        "activation_function": "gelu",
        "layer_norm_epsilon": 1e-5,
        # Tied weights are one tensor, which the file holds once under two names.
        "tie_word_embeddings": head is None or head == state.get("transformer.wte.weight"),
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if args["vocab_size"] in (_GPT2_VOCAB, _PADDED_VOCAB):
        fields |= {"bos_token_id": _END_OF_TEXT, "eos_token_id": _END_OF_TEXT}
    if args["vocab_size"] == _PADDED_VOCAB:  # rows that only round the matrix up: no text ever trained them
        fields["pad_token_id"] = list(range(_GPT2_VOCAB, _PADDED_VOCAB))
    return fields


def build(checkpoint: Checkpoint, dtype: torch.dtype) -> Built:
    """GPT2LMHeadModel with this step's weights.

    Raises:
        CheckpointError: tensors that are not those of the model `model_args` describes.
    """
    tensors = _as_gpt2(read_tensors(checkpoint))
    fields = config(checkpoint) | {"pad_token_id": None}
    module = fill(fields, tensors, dtype=dtype, step=checkpoint.step, exact=True)
    return Built(module, type(module).__name__, hf_config=module.config)


def _as_gpt2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Prefixes off, masks left out, linear weights transposed, missing biases zero."""
    plain = {_PREFIX.sub("", name): t for name, t in tensors.items() if not _MASK.search(name)}
    flat = [shown(name) for name, t in plain.items() if _TRANSPOSED.search(name) and t.ndim != 2]
    if flat:
        raise CheckpointError(f"{flat[0]} is not a matrix", help="is this file nanoGPT's own ckpt.pt?")
    mapped = {name: t.t() if _TRANSPOSED.search(name) else t for name, t in plain.items()}
    for name, tensor in list(mapped.items()):
        bias = f"{name.removesuffix('weight')}bias"
        if (
            name.endswith(".weight")
            and bias not in mapped
            and re.search(r"\.(?:ln_\w+|c_\w+)\.weight$", name)
        ):
            mapped[bias] = torch.zeros(tensor.shape[-1], dtype=tensor.dtype)
    return mapped
