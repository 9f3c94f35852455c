"""Tiny Llamas as GGUF files, written by the gguf library as llama.cpp's converter does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

DIM, MLP, LAYERS, HEADS, KV, VOCAB = 64, 96, 2, 4, 2, 61
SIZE = DIM // HEADS
SHAPES = {
    "attn_norm": (DIM,), "attn_q": (DIM, DIM), "attn_k": (SIZE * KV, DIM), "attn_v": (SIZE * KV, DIM),
    "attn_output": (DIM, DIM), "ffn_norm": (DIM,), "ffn_gate": (MLP, DIM), "ffn_up": (MLP, DIM), "ffn_down": (DIM, MLP),
}  # fmt: skip


def weights(seed: int, *, tied: bool = False) -> dict[str, np.ndarray]:
    """Random weights by GGUF's names, each row of queries and keys where llama.cpp has it."""
    rng = np.random.default_rng(seed)
    shapes = {"token_embd": (VOCAB, DIM), "output_norm": (DIM,)} | ({} if tied else {"output": (VOCAB, DIM)})
    shapes |= {f"blk.{layer}.{part}": shape for layer in range(LAYERS) for part, shape in SHAPES.items()}
    return {
        f"{name}.weight": (rng.normal(size=shape) * 0.2 + (len(shape) == 1)).astype(np.float32)
        for name, shape in shapes.items()
    }


def write_gguf(
    file: Path,
    seed: int,
    *,
    kind: Kind = Kind.Q4_1,
    tied: bool = False,
    architecture: str = "llama",
    fields: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
    left_out: str = "",
) -> Path:
    """A model with matrices of one kind, norms in float32 and the embedding in 8 bits.

    Args:
        file: to write.
        seed: of the weights.
        kind: of the matrices.
        tied: whether the output is the embedding.
        architecture: what the file says it is.
        fields: further numbers and texts of the header.
        tensors: further tensors, in float32.
        left_out: a field that is not written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(file, architecture)
    sizes = {"context_length": 64, "embedding_length": DIM, "feed_forward_length": MLP, "block_count": LAYERS}
    sizes |= {"attention.head_count": HEADS, "attention.head_count_kv": KV, "rope.dimension_count": SIZE}
    for name, value in sizes.items():
        if name != left_out:
            writer.add_uint32(f"{architecture}.{name}", value)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_float32(f"{architecture}.rope.freq_base", 500.0)
    writer.add_array("tokenizer.ggml.tokens", [f"word {i}" for i in range(VOCAB)])
    writer.add_array("tokenizer.ggml.token_type", [1] * VOCAB)
    writer.add_uint32("tokenizer.ggml.bos_token_id", 1)
    writer.add_uint32("tokenizer.ggml.eos_token_id", 2)
    for name, value in (fields or {}).items():
        add = {
            int: writer.add_uint32,
            float: writer.add_float32,
            str: writer.add_string,
            list: writer.add_array,
        }
        add[type(value)](name, value)
    for name, weight in weights(seed, tied=tied).items():
        stored = kind if weight.ndim == 2 else Kind.F32
        stored = Kind.Q8_0 if name == "token_embd.weight" and kind != Kind.F32 else stored
        data = gguf.quants.quantize(weight, stored)
        writer.add_tensor(name, data, raw_dtype=stored)
    for name, weight in (tensors or {}).items():
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
