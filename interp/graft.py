"""Graft heads of one checkpoint into another of the same series, by their weights, for the length of a block.

Source: Singh et al. 2024, arXiv:2404.07129 (sub-circuits taken from another point of training).

A head's weights are its rows of W_Q, W_K, W_V with their biases and its rows of W_O. Norms, embeddings and the bias
of the output stay those of the checkpoint it is put into. Heads that share keys and values (grouped queries) can only
be taken together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from byrote.checkpoints.errors import ByroteError
from byrote.interp.axes import head_label
from byrote.interp.intervene import Head
from byrote.interp.model import HookedModel, ModelShape


@dataclass(frozen=True, eq=False)
class Graft:
    """Weights of some heads, copied out of a model.

    Attributes:
        heads: which.
        step: of the checkpoint they are from.
        shape: of the model they are from.
        parts: (layer, tensor name) and rows of it -> what they hold.
    """

    heads: tuple[Head, ...]
    step: int
    shape: ModelShape
    parts: Mapping[tuple[int, str, int], tuple[Tensor, Tensor | None]]


def take(model: HookedModel, heads: Sequence[Head]) -> Graft:
    """Copy the weights of some heads; they stay valid when the model moves on to another step.

    Raises:
        ByroteError: a head the model does not have, heads that share keys and values with others that were not named, or
            an architecture whose projections are not plain linear maps.
    """
    _check(model.shape, heads)
    parts = {
        key: (weight.clone(), None if bias is None else bias.clone())
        for key, (weight, bias) in _views(model, heads).items()
    }
    return Graft(tuple(sorted(set(heads))), model.checkpoint.step, model.shape, parts)


@contextmanager
def grafted(model: HookedModel, graft: Graft) -> Iterator[None]:
    """While this is open the model has the graft's heads; afterwards, and after an error, every bit is as it was.

    Raises:
        ByroteError: the graft is from a model of another shape.
    """
    if graft.shape != model.shape:
        raise ByroteError("the heads are from another model", help="graft between steps of one series")
    views = _views(model, graft.heads)
    own = take(model, graft.heads)
    try:
        _put(model, views, graft.parts)
        yield
    finally:
        _put(model, views, own.parts)


def _put(model: HookedModel, views: Mapping[Any, Any], parts: Mapping[Any, Any]) -> None:
    with torch.no_grad():
        for key, (weight, bias) in views.items():
            new_weight, new_bias = parts[key]
            weight.copy_(new_weight)
            if bias is not None:
                bias.copy_(new_bias)
    model.weights_changed(model.checkpoint)


def _views(
    model: HookedModel, heads: Sequence[Head]
) -> dict[tuple[int, str, int], tuple[Tensor, Tensor | None]]:
    """The live rows of every projection that belong to the heads: weight, and bias where there is one."""
    shape, views = model.shape, {}
    group = shape.n_heads // shape.n_key_value_heads
    for layer, head in heads:
        attn = model.bridge.blocks[layer].attn
        for name, index in (("q", head), ("k", head // group), ("v", head // group), ("o", head)):
            views[layer, name, index] = _rows(
                getattr(attn, name).original_component, name, index, shape.d_head
            )
    return views


def _rows(linear: nn.Module, name: str, index: int, d_head: int) -> tuple[Tensor, Tensor | None]:
    """Rows of a projection; `o` reads heads, the others write them, and Conv1D stores its weight turned round."""
    if not isinstance(linear, nn.Linear) and type(linear).__name__ != "Conv1D":
        raise ByroteError(
            f"heads cannot be taken out of {type(linear).__name__}", help="plain linear projections only"
        )
    weight, bias = linear.get_parameter("weight").data, getattr(linear, "bias", None)
    if type(linear).__name__ == "Conv1D":
        weight = weight.T
    part = slice(index * d_head, (index + 1) * d_head)
    if name == "o":
        return weight[:, part], None
    return weight[part], None if bias is None else bias.data[part]


def _check(shape: ModelShape, heads: Sequence[Head]) -> None:
    if not heads:
        raise ByroteError("no heads to graft", help="name at least one, such as L1H0")
    for layer, head in heads:
        if not (0 <= layer < shape.n_layers and 0 <= head < shape.n_heads):
            raise ByroteError(
                f"there is no {head_label(layer, head)}: the model has {shape.n_layers} layers of {shape.n_heads} heads",
                help=f"the last one is {head_label(shape.n_layers - 1, shape.n_heads - 1)}",
            )
    group, named = shape.n_heads // shape.n_key_value_heads, set(heads)
    for layer, head in heads:
        first = head // group * group
        lacking = [(layer, h) for h in range(first, first + group) if (layer, h) not in named]
        if lacking:
            labels = ", ".join(head_label(*h) for h in lacking)
            raise ByroteError(
                f"{head_label(layer, head)} shares its keys and values with {labels}",
                help=f"graft them together: add {labels}",
            )
