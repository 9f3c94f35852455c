"""Tokens of a sequence that only memory can predict, their split into prompt and continuation, and their losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byrote.interp.model import HookedModel
from byrote.interp.observe import EndView, LayerView, leak_of, observe
from byrote.probes.spec import NotMeasuredError

PROMPT_TOKENS = 32  # k = m = 32, Biderman et al. 2023, where the block is long enough


class Split(NamedTuple):
    """A prompt after BOS, and as many tokens that must follow it.

    Attributes:
        k: tokens of each sequence's prompt, BOS not counted.
        suffix: which predicted tokens must follow it.
    """

    k: Int[Tensor, " batch"]
    suffix: Bool[Tensor, "batch next_pos"]


def first_block(second_block_start: Int[Tensor, " batch"], next_pos: int) -> Bool[Tensor, "batch next_pos"]:
    """Which predicted tokens (1, 2, ...) lie in the first block."""
    position = torch.arange(1, next_pos + 1, device=second_block_start.device)
    return position[None] < second_block_start[:, None]


def split(
    second_block_start: Int[Tensor, " batch"], next_pos: int, *, k: int = PROMPT_TOKENS, parts: int = 2
) -> Split:
    """Prompt and suffix of equal length at the start of the first block: `k` each, or half the block.

    Args:
        second_block_start: index of the first token after the first block.
        next_pos: predicted tokens per sequence.
        k: longest prompt.
        parts: at most how large a share of the block a prompt is, as 1 / parts.
    """
    length = second_block_start.clamp(max=next_pos + 1) - 1
    size = (length // parts).clamp(max=k)
    position = torch.arange(1, next_pos + 1, device=size.device)[None]
    return Split(size, (position > size[:, None]) & (position <= 2 * size[:, None]))


def mean_over(
    values: Float[Tensor, "batch next_pos"], where: Bool[Tensor, "batch next_pos"]
) -> Float[Tensor, " batch"]:
    """Mean of the selected values; NaN where there are none."""
    return torch.where(where, values, 0.0).sum(1) / where.sum(1)


def all_right(
    top1: Bool[Tensor, "batch next_pos"], where: Bool[Tensor, "batch next_pos"]
) -> Float[Tensor, " batch"]:
    """1.0 where every selected token is predicted first, else 0.0; NaN where none is selected.

    Predicted with the true tokens before it, and yet the same as greedy continuation reproducing them: as long as
    every token so far was predicted right, what the model reads is the true sequence either way.
    """
    return if_any((top1 | ~where).all(1), where)


def if_any(found: Bool[Tensor, " batch"], where: Bool[Tensor, "batch next_pos"]) -> Float[Tensor, " batch"]:
    """What was found as 1.0 or 0.0; NaN where no token is selected: a block of one token has nothing to complete."""
    return torch.where(where.any(1), found.float(), torch.nan)


@dataclass
class _Collector:
    """Collects losses and hits of every batch, off the device."""

    needs: frozenset[str] = frozenset({"token_nll", "top1"})
    nll: list[Tensor] = field(default_factory=list)
    top1: list[Tensor] = field(default_factory=list)

    def see_layer(self, view: LayerView) -> None:
        """Never called: no layer site is needed."""

    def see_end(self, view: EndView) -> None:
        assert view.token_nll is not None and view.top1 is not None
        self.nll.append(view.token_nll.cpu())
        self.top1.append(view.top1.cpu())


@dataclass(frozen=True)
class Losses:
    """What one pass over some sequences gave, on the CPU.

    Attributes:
        nll: loss in nats of tokens 1, 2, ... given the true tokens before them.
        top1: whether each of them was predicted first.
    """

    nll: Float[Tensor, "batch next_pos"]
    top1: Bool[Tensor, "batch next_pos"]


def losses(model: HookedModel, tokens: Int[np.ndarray, "batch pos"]) -> Losses:
    """Run the model once over the tokens.

    Raises:
        ByroteError: token ids or length the model cannot take.
        NotMeasuredError: the model's predictions depend on later tokens.
    """
    collector = _Collector()
    ids = torch.from_numpy(np.ascontiguousarray(tokens))
    report = observe(model, ids, [collector])
    if leak := leak_of(model, ids, report):
        raise NotMeasuredError(leak)
    return Losses(torch.cat(collector.nll), torch.cat(collector.top1))
