"""Offset profile: how far back a head looks, all diagonals of its pattern.

Source: all diagonals of the attention pattern; previous-token attention (Olsson et al. 2022, arXiv:2209.11895) is the
one at offset 1.

A circuit that copies with a gap scores near 0 on prefix_matching and still solves the task; its profile shows the
distance it uses.

1. profile[d] = mean of A[q, q-d] over the queries q >= d that can look d back
2. the head's strongest offset is the largest entry of the profile averaged over sequences, offset 0 (the token
   itself) and the column of position 0 excluded: a sink is not a distance
3. peak_mass = the profile at that offset, one value per sequence
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from byrote.probes.heads.matching import uniform_attention
from byrote.probes.spec import probe
from byrote.probes.statistics import bootstrap_of_means


@probe(
    unit="attention fraction",
    range=(0.0, 1.0),
    stimulus="repeated_random",
    summary="Mean attention by how far back the head looks.",
    chance="uniform causal attention",
    metrics={
        "profile": "mean attention at offset q-k, one value per offset",
        "peak_mass": "mean attention at the head's strongest offset",
        "peak_offset": "the strongest offset",
    },
    main_metric="peak_mass",
    curve_axis="offset",
    units={"peak_offset": "tokens back"},
    uncompared=("profile", "peak_offset"),
    reads_as="A peak away from 0 on blocks of equal length may be induction or a fixed distance; prefix_matching on jittered blocks distinguishes them. High peak_mass with low prefix_matching: copies, but not by the standard "
    "pattern",
    order=80,
    version=2,
)
def offset_profile(
    pattern: Float[Tensor, "batch n_heads query_pos key_pos"],
) -> dict[str, Float[Tensor, "batch n_heads"] | Float[Tensor, "batch n_heads pos"]]:
    """Score one layer.

    Args:
        pattern: post-softmax causal attention; each row sums to 1.

    Returns:
        `profile` (batch, n_heads, pos): attention fraction at offsets 0 .. pos-1, position 0 excluded as a key
        (NaN at the last offset, which only position 0 could give). It is reduced further over all sequences by
        `finish`.
    """
    pattern = pattern.float()
    pos = pattern.shape[-1]
    query, key = torch.tril_indices(pos, pos, device=pattern.device).unbind()
    query, key = query[key > 0], key[key > 0]
    sums = pattern.new_zeros(*pattern.shape[:2], pos)
    sums.index_add_(-1, query - key, pattern[..., query, key])  # 1.
    counts = (pos - 1 - torch.arange(pos, device=pattern.device)).float()
    return {"profile": sums / counts.where(counts > 0, torch.nan)}


@offset_profile.finish
def finish(
    parts: dict[str, Float[Tensor, "n_layers batch n_heads pos"]],
    *,
    seed: int = 0,
) -> dict[str, Float[Tensor, ...]]:
    """Strongest offset per head, and the attention there in every sequence.

    Args:
        parts: `profile` of all layers and sequences.
        seed: of the resampling.

    Returns:
        `profile`, `peak_mass` and `peak_offset` per sequence (the offset is chosen once per head), the interval of
        the offset over resampled sequences (`lo:peak_offset`, `hi:peak_offset`), and uniform attention at that
        offset (`chance:peak_mass`).
    """
    profile = parts["profile"].movedim(0, 1)
    peak = _peak(profile.mean(0))  # 2.
    index = peak[None, ..., None].expand(profile.shape[0], -1, -1, 1)
    uniform = offset_profile(uniform_attention(profile.shape[-1]))["profile"][0, 0].to(profile.device)
    lo, hi = (torch.from_numpy(end).reshape(peak.shape) for end in _peak_interval(profile, seed))
    return {
        "profile": profile[..., :-1],  # the last offset could only be position 0
        "chance:profile": uniform[:-1],
        "peak_mass": profile.gather(-1, index).squeeze(-1),  # 3.
        "chance:peak_mass": uniform[peak],
        "peak_offset": peak[None].expand(profile.shape[0], -1, -1).float(),
        "chance:peak_offset": torch.full_like(peak, torch.nan, dtype=torch.float32),
        "lo:peak_offset": lo,
        "hi:peak_offset": hi,
    }


def _peak(profile: Float[Tensor, "*heads pos"]) -> Int[Tensor, "*heads"]:
    return profile[..., 1:-1].argmax(-1) + 1


def _peak_interval(
    profile: Float[Tensor, "batch n_layers n_heads pos"], seed: int
) -> tuple[Float[np.ndarray, " heads"], Float[np.ndarray, " heads"]]:
    inner = profile[..., 1:-1].flatten(1, 2).double().cpu().numpy()
    return bootstrap_of_means(inner, lambda means: means.argmax(-1) + 1, seed=seed)
