"""What the probes of planted pairs share: log odds of a token, and the conditions of an item side by side."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from byrote.probes.stimuli import CONDITIONS


def log_odds(
    logits: Float[Tensor, "batch pos d_vocab"], target: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """ln(p / (1 - p)) of a token after the last position of each sequence; NaN where the target is negative.

    Not by way of p, which rounds to 1 where a model is sure.
    """
    last = logits[:, -1].double()
    at = target.clamp(min=0)[:, None]
    odds = last.gather(1, at)[:, 0] - last.scatter(1, at, -torch.inf).logsumexp(1)
    return torch.where(target >= 0, odds, torch.nan)


def by_condition(rows: Float[Tensor, " n_rows"]) -> dict[str, Float[Tensor, " n_items"]]:
    """Values per row as values per item under each of `CONDITIONS`; the rows of an item follow one another."""
    return dict(zip(CONDITIONS, rows.view(-1, len(CONDITIONS)).T, strict=True))
