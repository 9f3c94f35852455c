"""What HookedTransformer of TransformerLens 3.9 computed, stored by tests/checkpoints/fixtures/make_tl_legacy.py."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FOLDER = Path(__file__).parent / "checkpoints" / "fixtures" / "tl_legacy"
VARIANTS: tuple[str, ...] = tuple(json.loads((FOLDER / "configs.json").read_text())["variants"])


def config(variant: str) -> dict[str, Any]:
    """The HookedTransformerConfig as JSON."""
    described = _described()
    return described["base"] | described["variants"][variant]["changes"]


def state(variant: str) -> dict[str, Tensor]:
    """The whole state dict, buffers included."""
    digests = _described()["variants"][variant]["state"]
    return {key: _weights()[f"{key}#{digest}"].clone() for key, digest in digests.items()}


def golden(variant: str) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [1, pos], logits [1, pos, d_vocab], patterns [layer, 1, head, query, key]."""
    tokens, logits, patterns = (_golden()[f"{variant}.{part}"] for part in ("tokens", "logits", "patterns"))
    return tokens, logits, patterns


def write_series(
    folder: Path,
    variant: str,
    *,
    names: tuple[str, ...] = ("model_000512.pth",),
    changes: dict[str, Any] | None = None,
    config_name: str = "config.json",
) -> Path:
    """A folder of one variant: the first file holds its golden weights, further ones drawn weights of those shapes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / config_name).write_text(json.dumps(config(variant) | (changes or {})), encoding="utf-8")
    for seed, name in enumerate(names):
        save(state(variant) if seed == 0 else redrawn(state(variant), seed), folder / name)
    return folder


def save(content: Any, file: Path) -> None:
    """As people save: by the ending."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".safetensors":
        save_file(content, file)
    else:
        torch.save(content, file)


def redrawn(tensors: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Other parameters of the same shapes; buffers as they are."""
    generator = torch.Generator().manual_seed(seed)
    buffers = (".mask", ".IGNORE", ".rotary_sin", ".rotary_cos")
    return {
        key: tensor if key.endswith(buffers) else 0.4 * torch.randn(tensor.shape, generator=generator)
        for key, tensor in tensors.items()
    }


@cache
def _described() -> dict[str, Any]:
    return json.loads((FOLDER / "configs.json").read_text(encoding="utf-8"))


@cache
def _weights() -> dict[str, Tensor]:
    return load_file(FOLDER / "weights.safetensors")


@cache
def _golden() -> dict[str, Tensor]:
    return load_file(FOLDER / "golden.safetensors")
