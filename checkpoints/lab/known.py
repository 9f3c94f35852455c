"""What the lab knows of its sequences without any model: how surprising they are, and more of the same. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.source import SourceConfig, bigram_table, draw

_FIELDS = tuple(SourceConfig.__dataclass_fields__)


def source_of(manifest: Mapping[str, Any]) -> SourceConfig | None:
    """The source a lab series' manifest names; None where it names none this version draws."""
    data = manifest.get("data") or {}
    if data.get("source") != "tiled_blocks" or not set(_FIELDS) <= data.keys():
        return None
    try:
        return SourceConfig(**{name: data[name] for name in _FIELDS})
    except (ByroteError, TypeError):
        return None


def source_nll(
    source: SourceConfig, tokens: Int[np.ndarray, "n width"], second_block_start: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n width"]:
    """Loss of each token under the source itself: the best any model can do that never saw the sequence.

    Args:
        source: what the sequences were drawn from.
        tokens: BOS first.
        second_block_start: index of the first token of the second block.

    Returns:
        Nats; NaN at BOS, and from the second block on, where copying and not the source predicts the token; all NaN
        where an id is none of the source's.
    """
    n_ids = source.d_vocab - 1
    if tokens.min() < 0 or tokens.max() > n_ids:
        return np.full(tokens.shape, math.nan)
    probability = np.full(tokens.shape, 1 / n_ids)
    if source.bigram_frac > 0:
        successors = bigram_table(source)[tokens[:, :-1]]
        listed = (successors == tokens[:, 1:, None]).any(-1)
        share = listed * (source.bigram_frac / source.bigram_successors)
        probability[:, 1:] = share + (1 - source.bigram_frac) / n_ids
        probability[:, 1] = 1 / n_ids
    position = np.arange(tokens.shape[1])[None]
    known = (position >= 1) & (position < second_block_start[:, None])
    with np.errstate(divide="ignore"):  # a source of bigrams alone gives other tokens no probability
        return np.where(known, -np.log(probability), math.nan)


def fresh_sequences(source: SourceConfig, *, seed: int, after: int, n: int) -> Int[np.ndarray, "n n_ctx"]:
    """More sequences of the twins' stream, which is never trained on.

    Args:
        source: of the series.
        seed: of the series.
        after: how many sequences of the stream the series' own twins take.
        n: how many to draw.
    """
    return draw(source, seed=seed, stream="twins", index=after, n=n).tokens
