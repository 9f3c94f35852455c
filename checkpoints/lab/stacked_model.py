"""Lab models of one shape as one: every weight is [runs, ...], every product one bmm.

A model of a few thousand weights spends most of a step on the overhead of small operations; a dozen of them together
take less than half the time of one after another. The arithmetic of a run is that of `build_model`'s module, in another
order of rounding: weights agree to 1e-5 after 50 steps in float32, to 1e-8 at the end in float64 (tests).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from byrote.checkpoints.lab.config import LabConfig
from byrote.checkpoints.lab.model import SMEAR, build_model

_EPS = 1e-5  # of the native model's norms
_EVAL_TOKENS = 1 << 15  # tokens of all runs in one forward pass without gradients


class StackedModel:
    """The models at step 0 of runs of one shape.

    Attributes:
        weights: name -> [runs, ...], the trained weights; names are the native model's, `layers.0.attn.qkv` for its three.

    Args:
        configs: of the runs; they differ in seed, arm and name alone.
        dtype: of weights and activations.
    """

    def __init__(self, configs: Sequence[LabConfig], *, dtype: torch.dtype = torch.float32) -> None:
        self.config, self.n_runs = configs[0], len(configs)
        models = [build_model(config) for config in configs]
        states = [model.state_dict() for model in models]
        self._names = list(states[0])
        trained = [name for name, weight in models[0].named_parameters() if weight.requires_grad]
        self._constant = {name: tensor for name, tensor in states[0].items() if name not in trained}
        self._parts: dict[str, tuple[str, ...]] = {}
        for name in trained:
            whole = _fused(name)
            self._parts[whole] = (*self._parts.get(whole, ()), name)
        self._rows = {name: len(states[0][name]) for name in trained}
        self.weights = {
            whole: torch.stack([torch.cat([state[name] for name in names]) for state in states])
            .to(dtype)
            .requires_grad_()
            for whole, names in self._parts.items()
        }
        device, n_ctx = self.config.device, self.config.source.n_ctx
        self._first_row = (torch.arange(self.n_runs, device=device) * self.config.source.d_vocab)[
            :, None, None
        ]
        self._mask = torch.full((n_ctx, n_ctx), -math.inf, dtype=dtype, device=device).triu(1)

    def token_nll(
        self,
        wide: Int[Tensor, "runs batch width"],
        *,
        read: Int[Tensor, "runs batch pos"] | None = None,
        attended: Bool[Tensor, "runs batch pos"] | None = None,
    ) -> Float[Tensor, "runs batch pos"]:
        """Next-token loss, nats, at every position but the last of each run's own sequences.

        Args:
            wide: token ids; at most one more per sequence than the context holds.
            read: what the models read; None for all tokens but the last.
            attended: positions that may be attended to; None for all.
        """
        read = wide[..., :-1] if read is None else read
        logits = self._logits(read, self._causal(attended, read.shape[-1]))
        return logits.logsumexp(-1) - logits.gather(-1, wide[..., 1:, None])[..., 0]

    @torch.inference_mode()
    def measured_nll(self, wide: Int[Tensor, "n width"]) -> Float[Tensor, "runs n pos"]:
        """The same for sequences that every run is shown, in parts that stay small."""
        size = max(1, _EVAL_TOKENS // (self.n_runs * wide.shape[1]))
        parts = [self.token_nll(part.expand(self.n_runs, -1, -1)) for part in wide.split(size)]
        return torch.cat(parts, dim=1)

    @torch.inference_mode()
    def nll_of_run(self, run: int, wide: Int[Tensor, "n width"]) -> Float[Tensor, "n pos"]:
        """The same for sequences of one run alone."""
        weights, n_runs = self.weights, self.n_runs
        try:
            self.weights, self.n_runs = {name: w[run : run + 1] for name, w in weights.items()}, 1
            return self.measured_nll(wide)[0]
        finally:
            self.weights, self.n_runs = weights, n_runs

    def state_dict(self, run: int) -> dict[str, Tensor]:
        """One run's weights under the native model's names, in its order, biases included."""
        own = self.parts_of(self.weights, run) | self._constant
        return {name: own[name].detach() for name in self._names}

    def parts_of(self, tensors: Mapping[str, Tensor], run: int) -> dict[str, Tensor]:
        """One run's share of tensors that are stacked as the weights are, under the native model's names."""
        return {
            name: part.contiguous()
            for whole, names in self._parts.items()
            for name, part in zip(
                names, tensors[whole][run].split([self._rows[name] for name in names]), strict=True
            )
        }

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Take over the weights of every run, by the native model's names.

        Raises:
            LookupError: one is missing.
            RuntimeError: one has another shape.
        """
        with torch.no_grad():
            for whole, names in self._parts.items():
                stacked = torch.stack([torch.cat([state[name] for name in names]) for state in states])
                self.weights[whole].copy_(stacked)

    def _causal(
        self, attended: Bool[Tensor, "runs batch pos"] | None, pos: int
    ) -> Float[Tensor, "*sequences query_pos key_pos"]:
        """What is added to the scores of each query and key: -inf where the key comes later, or is not attended to."""
        causal = self._mask[:pos, :pos]
        if attended is None:
            return causal
        left_out = torch.zeros(attended.shape, dtype=causal.dtype, device=causal.device)
        left_out.masked_fill_(~attended, -math.inf)
        by_head = left_out.flatten(0, 1).repeat_interleave(self.config.n_heads, dim=0)
        return causal + by_head[:, None, :]

    def _logits(
        self, tokens: Int[Tensor, "runs batch pos"], mask: Float[Tensor, "*sequences query_pos key_pos"]
    ) -> Float[Tensor, "runs batch pos d_vocab"]:
        config, weights = self.config, self.weights
        runs, batch, pos = tokens.shape
        table = weights["tok_embed.weight"]
        embedded = F.embedding(tokens + self._first_row[:runs], table.flatten(0, 1))
        x = (embedded + weights["pos.weight"][:, None, :pos]).flatten(1, 2)
        for layer in range(config.n_layers):
            name = f"layers.{layer}"
            x = x + self._attended(self._normed(x, f"{name}.ln1"), f"{name}.attn", (runs, batch, pos), mask)
            if not config.attn_only:
                inner = F.gelu(self._linear(self._normed(x, f"{name}.ln2"), f"{name}.mlp.fc_in.weight"))
                x = x + self._linear(inner, f"{name}.mlp.fc_out.weight")
        return self._linear(self._normed(x, "ln_out"), "head.weight").view(runs, batch, pos, -1)

    def _linear(self, x: Float[Tensor, "runs rows d_in"], name: str) -> Float[Tensor, "runs rows d_out"]:
        return torch.bmm(x, self.weights[name].mT)

    def _normed(self, x: Float[Tensor, "runs rows d_model"], name: str) -> Float[Tensor, "runs rows d_model"]:
        norm = self.config.normalization_type
        if norm is None:
            return x
        gain = self.weights[f"{name}.weight"][:, None]
        return (F.layer_norm if norm == "LN" else F.rms_norm)(x, (x.shape[-1],), eps=_EPS) * gain

    def _attended(
        self,
        x: Float[Tensor, "runs rows d_model"],
        name: str,
        size: tuple[int, int, int],
        mask: Float[Tensor, "*sequences query_pos key_pos"],
    ) -> Float[Tensor, "runs rows d_model"]:
        runs, batch, pos = size
        config, heads, d_head = self.config, self.config.n_heads, self.config.d_head
        qkv = self._linear(x, f"{name}.qkv").view(runs * batch, pos, 3, heads, d_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).flatten(1, 2)
        if config.smeared_keys:
            k = self._smeared(k.unflatten(0, (runs, batch, heads)), name).flatten(0, 2)
        scores = torch.baddbmm(mask, q, k.mT, alpha=1 / math.sqrt(d_head))
        z = torch.bmm(scores.softmax(-1), v).view(runs * batch, heads, pos, d_head)
        z = z.transpose(1, 2).reshape(runs, batch * pos, heads * d_head)
        return self._linear(z, f"{name}.o.weight")

    def _smeared(
        self, k: Float[Tensor, "runs batch heads pos d_head"], name: str
    ) -> Float[Tensor, "runs batch heads pos d_head"]:
        """Each key mixed with the one before it, see `SmearedKeys`."""
        own = torch.sigmoid(self.weights[f"{name}.k{SMEAR}"])[:, None, :, None, None]
        return torch.cat([k[..., :1, :], own * k[..., 1:, :] + (1 - own) * k[..., :-1, :]], dim=-2)


def _fused(name: str) -> str:
    """The stacked tensor that a weight is part of: queries, keys and values are one product."""
    for part in "qkv":
        if name.endswith(f".attn.{part}.weight"):
            return name.removesuffix(f"{part}.weight") + "qkv"
    return name
