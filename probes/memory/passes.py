"""Losses of any tokens, for probes that run the model themselves."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byrote.interp.model import HookedModel
from byrote.interp.observe import EndView, LayerView, leak_of, observe
from byrote.probes.spec import NotMeasuredError


@dataclass
class _Collector:
    """Keeps losses and hits of every batch, off the device."""

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
