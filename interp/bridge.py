"""One TransformerBridge reused over a whole series of checkpoints.

Weights are swapped in place where a test proved that exact (see tests/interp/test_swap.py) and a self-check at the
second step confirms it on this very series; everywhere else each step gets a fresh bridge. Fresh bridges are
reference cycles, so they are collected explicitly and memory stays flat.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from typing import Literal

import torch

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.series import Checkpoint, CheckpointSeries
from byrote.interp.builders import NATIVE
from byrote.interp.loading import copy_into, load_fresh, read_config
from byrote.interp.model import HookedModel

# Architectures whose swap is proved bit-equal to a fresh load by tests/interp (docs/architectures.md has the table).
SWAP_PROVED = frozenset(
    {
        NATIVE,
        "BloomForCausalLM",
        "GPT2LMHeadModel",
        "GPTJForCausalLM",
        "GPTNeoForCausalLM",
        "GPTNeoXForCausalLM",
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "GemmaForCausalLM",
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "OPTForCausalLM",
        "Olmo2ForCausalLM",
        "Olmo3ForCausalLM",
        "OlmoForCausalLM",
        "PhiForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
    }
)


class HookedSeries:
    """Load the steps of a series one after another behind the same hooks.

    Args:
        series: what to walk.
        device: torch device of the model.
        dtype: of parameters and activations.
        swap: "auto" swaps in place where proved; "fresh" always builds a new bridge.
    """

    def __init__(
        self,
        series: CheckpointSeries,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        swap: Literal["auto", "fresh"] = "auto",
    ) -> None:
        self.series = series
        self.device = device
        self.dtype = dtype
        self.swap = swap
        self.note = ""
        self._model: HookedModel | None = None
        self._config = ""
        self._swap_checked = False
        self._frozen = False

    def __iter__(self) -> Iterator[HookedModel]:
        for checkpoint in self.series:
            yield self.load(checkpoint)

    def load(self, checkpoint: Checkpoint) -> HookedModel:
        """The model with this checkpoint's weights. The model handed out before is no longer valid.

        Raises:
            CheckpointError: the checkpoint cannot be loaded; the series can go on with another.
        """
        config = json.dumps(read_config(checkpoint), sort_keys=True)
        if self._model is not None and self._may_swap(config) and self._swap_checked:
            try:
                copy_into(self._model, checkpoint)
            except BaseException:
                self._drop()  # half-copied weights must never be measured
                raise
            return self._model
        prove = self._model is not None and self._may_swap(config)
        self._drop()
        self._model = load_fresh(checkpoint, device=self.device, dtype=self.dtype)
        self._config = config
        if prove and not self._swap_equals_fresh(self._model):
            self._drop()
            self._model = load_fresh(checkpoint, device=self.device, dtype=self.dtype)
        return self._model

    @property
    def swap_used(self) -> str:
        """`in place` once a swap was made and proved, else `fresh`."""
        return "in place" if self._swap_checked else "fresh"

    @property
    def method(self) -> str:
        """How steps after the first get their weights, once one was loaded: `in place` where that is proved, else `fresh`.

        Unlike `swap_used` it does not depend on how many were loaded, so that a sweep that is resumed says the same.
        """
        proved = self._model is not None and self._model.shape.architecture in SWAP_PROVED
        return "in place" if proved and self.swap == "auto" else "fresh"

    def _may_swap(self, config: str) -> bool:
        assert self._model is not None
        return (
            self.swap == "auto" and config == self._config and self._model.shape.architecture in SWAP_PROVED
        )

    def _swap_equals_fresh(self, model: HookedModel) -> bool:
        """Once per series, at its second step: does swapping that step in give the bits of the fresh load?

        Every parameter is poisoned before the swap, so that one the swap does not reach cannot pass for right.
        """
        generator = torch.Generator().manual_seed(0)
        shape = (2, min(16, model.shape.n_ctx))
        tokens = torch.randint(0, model.shape.d_vocab, shape, generator=generator)
        fresh = model.logits(tokens)
        with torch.no_grad():
            for parameter in model.bridge.parameters():
                parameter.fill_(torch.nan)
        try:
            copy_into(model, model.checkpoint)
            self._swap_checked = torch.equal(fresh, model.logits(tokens))
        except CheckpointError:
            self._swap_checked = False
        except BaseException:
            self._drop()  # interrupted: the poison must not stay behind
            raise
        if not self._swap_checked:
            self.swap = "fresh"
            self.note = "swapping weights in place did not equal a fresh load on this series: every step was loaded afresh"
        return self._swap_checked

    def _drop(self) -> None:
        if self._model is None:
            return
        self._model = None
        if not self._frozen:
            # Imported modules never become garbage; without freezing, each collection walks all of them.
            gc.collect()
            gc.freeze()
            self._frozen = True
        gc.collect()
