"""Sequences sampled from a trained lab series: seeded by their number, the same bytes however many are drawn. Torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens.model_bridge.sources.native.model import NativeModel

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms.synthetic import Sampled, Synthetic
from byrote.checkpoints.lab.batches import Places
from byrote.checkpoints.lab.inputs import Made, Runs
from byrote.checkpoints.lab.model import build_model
from byrote.checkpoints.lab.other_run import OtherRun, weights_of
from byrote.checkpoints.lab.sequences import random_words, uniform

CHUNK = 512  # sequences drawn at once, always: products of other sizes may round otherwise
_CACHED_CHUNKS, _CACHED_MODELS = 512, 16
NextLogits = Callable[[Int[Tensor, "n width"], int], Float[Tensor, "n d_vocab"]]


@dataclass(frozen=True)
class Drawn:
    """Sequences sampled from a model.

    Attributes:
        wide: BOS, then `n_ctx` sampled tokens.
        log_probability: of each, under the model at temperature 1 without BOS among the tokens, nats.
    """

    wide: Int[np.ndarray, "n width"]
    log_probability: Float[np.ndarray, " n"]


@dataclass(frozen=True)
class _Settings:
    """What decides a sequence beside the weights and its number."""

    seed: int
    purpose: str
    n_ctx: int
    temperature: float
    top_k: int


def inputs(part: Synthetic, places: Places, runs: Runs) -> Made:
    """As many samples as the corpus has."""
    run = runs(part.generator, part.step)
    return Made({"tokens": sampled(part, places, run, part.size(places)).wide}, run.facts())


def sampled(part: Sampled, places: Places, run: OtherRun, n: int) -> Drawn:
    """`n` sequences for a part, as it says."""
    return sample(
        run,
        seed=places.seed,
        purpose=part.name,
        n=n,
        n_ctx=places.source.n_ctx,
        temperature=part.temperature,
        top_k=part.top_k,
    )


def sample(
    run: OtherRun, *, seed: int, purpose: str, n: int, n_ctx: int, temperature: float = 1.0, top_k: int = 0
) -> Drawn:
    """Sequences 0 to n - 1 that a model writes after BOS.

    Args:
        run: whose model.
        seed: other seeds give other sequences.
        purpose: of the random words; other purposes give other sequences.
        n: how many.
        n_ctx: tokens of each, BOS apart.
        temperature: above 0.
        top_k: likeliest tokens that may be drawn at each position; 0 for all.

    Raises:
        ByroteError: the weights are not what was written.
    """
    settings = _Settings(seed, f"sampled/{purpose}/{run.generation}", n_ctx, temperature, top_k)
    model = _model_of(run)
    chunks = [_chunk_of(model, settings, run.config.source.bos_token_id, k) for k in range(-(-n // CHUNK))]
    return Drawn(
        np.concatenate([wide for wide, _ in chunks])[:n].astype(np.int64),
        np.concatenate([log_probs for _, log_probs in chunks])[:n],
    )


def loaded(run: OtherRun) -> nn.Module:
    """The model of a run on the CPU, in evaluation mode.

    Raises:
        ByroteError: the weights are not what was written, or not those of its model.
    """
    model, weights = build_model(run.config), weights_of(run)
    try:
        model.load_state_dict(load(weights), strict=True)
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise ByroteError(
            f"{run.file} does not hold the weights of its model", help="train that run again"
        ) from error
    return model.eval().requires_grad_(False)


@lru_cache(maxsize=_CACHED_MODELS)
def _model_of(run: OtherRun) -> nn.Module:
    return loaded(run)


@lru_cache(maxsize=_CACHED_CHUNKS)
def _chunk_of(
    model: nn.Module, settings: _Settings, bos: int, number: int
) -> tuple[Int[np.ndarray, "n width"], Float[np.ndarray, " n"]]:
    """Sequences `number * CHUNK` onwards, and their log-probabilities."""
    words = random_words(
        settings.purpose, seed=settings.seed, index=number * CHUNK, shape=(CHUNK, settings.n_ctx)
    )
    return sampled_with(
        next_logits_of(model), uniform(words), bos=bos, temperature=settings.temperature, top_k=settings.top_k
    )


@torch.inference_mode()
def sampled_with(
    next_logits: NextLogits,
    uniforms: Float[np.ndarray, "n n_ctx"],
    *,
    bos: int,
    temperature: float,
    top_k: int,
) -> tuple[Int[np.ndarray, "n width"], Float[np.ndarray, " n"]]:
    """Sequences by inversion: the token into whose share of the unit interval the uniform number falls, in double precision.

    Args:
        next_logits: (token ids so far, how many) -> logits of the next.
        uniforms: one per token, in [0, 1).
        bos: the first token, which is never drawn.
        temperature: above 0.
        top_k: likeliest tokens that may be drawn; 0 for all. Ties with the last of them may be drawn too.
    """
    n, n_ctx = uniforms.shape
    numbers = torch.from_numpy(np.ascontiguousarray(uniforms))
    wide = torch.full((n, n_ctx + 1), bos, dtype=torch.int64)
    log_probs = torch.zeros(n, dtype=torch.float64)
    for t in range(n_ctx):
        logits = next_logits(wide, t + 1).double()
        logits[:, bos] = -torch.inf
        allowed = logits / temperature
        if 0 < top_k < logits.shape[1] - 1:
            least = allowed.topk(top_k, dim=-1).values[:, -1:]
            allowed = allowed.masked_fill(allowed < least, -torch.inf)
        cumulative = allowed.softmax(-1).cumsum(-1)
        cumulative /= cumulative[:, -1:].clone()
        chosen = (numbers[:, t, None] >= cumulative).sum(-1)
        wide[:, t + 1] = chosen
        log_probs += F.log_softmax(logits, dim=-1).gather(1, chosen[:, None])[:, 0]
    return wide.numpy(), log_probs.numpy()


def next_logits_of(model: nn.Module) -> NextLogits:
    """What predicts the next token: with stored keys and values where the lab knows the model's parts, else from the whole prefix."""
    if isinstance(model, NativeModel) and all(isinstance(block.attn.k, nn.Linear) for block in model.layers):
        return _Stepwise(model)
    return lambda wide, n_read: model(wide[:, :n_read])[:, -1]


class _Stepwise:
    """A native model, read one token at a time: keys and values of earlier tokens are stored."""

    def __init__(self, model: NativeModel) -> None:
        self.model = model
        self.stored: list[tuple[Tensor, Tensor]] = []

    def __call__(self, wide: Int[Tensor, "n width"], n_read: int) -> Float[Tensor, "n d_vocab"]:
        position = n_read - 1
        if position == 0:
            self.stored = []
        model = self.model
        places = torch.full((len(wide), 1), position)
        hidden = model.tok_embed(wide[:, position : position + 1])
        if model.pos is not None:
            hidden = hidden + model.pos(places)
        for layer, block in enumerate(model.layers):
            hidden = hidden + self._attended(layer, block.attn, block.ln1(hidden), places)
            if not block.cfg.attn_only:
                hidden = hidden + block.mlp(block.ln2(hidden))
        logits: Float[Tensor, "n d_vocab"] = model.head(model.ln_out(hidden))[:, 0]
        return logits

    def _attended(
        self,
        layer: int,
        attention: Any,
        hidden: Float[Tensor, "n 1 d_model"],
        places: Int[Tensor, "n 1"],
    ) -> Float[Tensor, "n 1 d_model"]:
        n, heads = len(hidden), (-1, attention.d_head)
        q, k, v = (
            part(hidden).unflatten(-1, heads).transpose(1, 2)
            for part in (attention.q, attention.k, attention.v)
        )
        if attention.rotary is not None:
            q, k = attention.rotary.apply_rope(q, k, position_ids=places)
        if layer == len(self.stored):
            self.stored.append((k, v))
        else:
            before = self.stored[layer]
            self.stored[layer] = (torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2))
        keys, values = self.stored[layer]
        pattern = (q @ keys.mT / attention.scale).softmax(-1)
        attended: Float[Tensor, "n 1 d_model"] = attention.o(
            (pattern @ values).transpose(1, 2).reshape(n, 1, -1)
        )
        return attended
