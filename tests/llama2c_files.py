"""llama2.c's .bin files, written byte by byte as its export.py does."""

from __future__ import annotations

import struct
from itertools import chain
from pathlib import Path

import numpy as np

DIM, HIDDEN, LAYERS, HEADS, KV, VOCAB, CTX = 16, 24, 2, 4, 2, 31, 12
HALF = DIM // HEADS // 2
PARTS = {
    "attention_norm": (DIM,), "wq": (DIM, DIM), "wk": (DIM // HEADS * KV, DIM), "wv": (DIM // HEADS * KV, DIM),
    "wo": (DIM, DIM), "ffn_norm": (DIM,), "w1": (HIDDEN, DIM), "w2": (DIM, HIDDEN), "w3": (HIDDEN, DIM),
}  # fmt: skip


def weights(seed: int) -> dict[str, np.ndarray]:
    """Random weights by part and layer."""
    rng = np.random.default_rng(seed)
    drawn = {"tok": (VOCAB, DIM), "norm": (DIM,), "output": (VOCAB, DIM)}
    drawn |= {f"{part}.{layer}": shape for part, shape in PARTS.items() for layer in range(LAYERS)}
    return {name: rng.normal(0.3 * (len(s) == 1), 0.4, s).astype("<f4") for name, s in drawn.items()}


def angles(theta: float = 10_000.0) -> np.ndarray:
    """How far each pair turns at each position."""
    return np.outer(np.arange(CTX), theta ** (-np.arange(HALF) / HALF))


def write_llama2c(
    file: Path,
    seed: int,
    *,
    version: int = 0,
    shared: bool = False,
    theta: float = 10_000.0,
    cut: int = 0,
) -> None:
    """One model of random weights; `cut` bytes are left out at the end."""
    w = weights(seed)
    layers = {part: [w[f"{part}.{i}"] for i in range(LAYERS)] for part in PARTS}
    out = [] if shared else [w["output"]]
    if version == 0:
        header = struct.pack("<7i", DIM, HIDDEN, LAYERS, HEADS, KV, VOCAB if shared else -VOCAB, CTX)
        table = angles(theta)
        body = [w["tok"], *chain(*layers.values()), w["norm"], np.cos(table), np.sin(table), *out]
    else:
        header = struct.pack(
            "<Ii7iB", 0x616B3432, version, DIM, HIDDEN, LAYERS, HEADS, KV, VOCAB, CTX, shared
        )
        header = header.ljust(256, b"\0")
        norms = (layers.pop("attention_norm"), layers.pop("ffn_norm"))
        body = [*norms[0], *norms[1], w["norm"], w["tok"], *chain(*layers.values()), *out]
    data = header + b"".join(np.ascontiguousarray(part, "<f4").tobytes() for part in body)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data[: len(data) - cut])
