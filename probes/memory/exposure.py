"""Exposure: among sequences that could as well have been trained on, how early does the loss rank one that was?

Source: Carlini et al. 2019, arXiv:1802.08232: exposure = log2 |R| - log2 rank, the rank of a canary's loss in the
space R of possible canaries. R is far too large to go through, so it is sampled, as in their section 4.3.

1. loss = mean over the first block (see exact_match), of members and of candidates: sequences of the same source that
   were never trained on (the lab's twins and more of the same stream; elsewhere the twins given)
2. rank = 1 + candidates with a lower loss; a candidate of equal loss counts half
3. bits = log2(candidates + 1) - log2 rank, per member: the canary space is the sample and the member itself
4. first = share of members below every candidate: there the sample ends, and bits is only a lower bound
5. extrapolated = -log2 of the share of a skew-normal distribution that lies below the member's loss, fitted to the
   candidates' by their moments (section 4.3 there): it has no upper end. Beyond bits it is the fit's word, not a count;
   fit_gap, the largest distance between the fit's and the candidates' own distribution, says what that is worth
6. chance: a member like any candidate has every rank equally often: mean of log2((N + 1) / r) over r = 1 .. N + 1

Members are used in place of canaries, which are inserted on purpose. The interval covers the choice of members, not of
candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from byrote.interp.model import HookedModel
from byrote.probes.memory.spans import first_block, losses, mean_over
from byrote.probes.spec import ProbeScores, probe
from byrote.probes.stimuli import Stimulus

_POINTS = 1000  # of the sum over a tail


@probe(
    unit="bits",
    stimulus=("members", "candidates"),
    summary="How early a member's loss ranks among sequences that could as well have been trained on.",
    chance="mean of log2((N + 1) / r) over all ranks r: about 1.44 bits",
    metrics={
        "bits": "log2(candidates + 1) - log2 rank",
        "first": "share of members below every candidate, for which bits is only a lower bound",
        "extrapolated": "exposure by a skew-normal distribution fitted to the candidates' losses: an extrapolation for the "
        "members that first counts",
        "fit_gap": "largest distance between that distribution and the candidates' own, as a share of them",
    },
    main_metric="bits",
    units={"first": "member fraction", "fit_gap": "share of candidates"},
    settings=("fit_gap",),
    undirected=("fit_gap",),
    reads_as="1.44: ranked like the rest. The highest value possible is log2(candidates + 1), about 10 with 1,024; "
    "where first nears 1 it no longer separates strong from stronger memory: extrapolated continues, as long as fit_gap is small "
    "(0.04 is noise among 1,024)",
    undefined="the loss is not finite",
    binary=("first",),
    version=2,
    default=False,
    passes="2: members, and up to 1,024 candidates",
    order=300,
)
def exposure(model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int) -> dict[str, ProbeScores]:
    """Rank members among candidates.

    Args:
        model: a loaded checkpoint.
        stimuli: "members" and "candidates".
        seed: not used: nothing is drawn.

    Returns:
        `bits` from 0 to log2(candidates + 1), `first`, 1.0 where no candidate is below, and `extrapolated` in bits, without
        upper end; per member. `fit_gap` from 0 to 1.
    """
    members, candidates = (_block_loss(model, stimuli[kind]) for kind in ("members", "candidates"))
    rank = ranks(members, candidates)
    n = len(candidates) + 1
    fit = SkewNormal.of(candidates[np.isfinite(candidates)])
    return {
        "bits": ProbeScores(np.log2(n / rank), chance=chance_bits(n)),  # 3.
        "first": ProbeScores((rank == 1).astype(np.float64), chance=1 / n),  # 4.
        "extrapolated": ProbeScores(-fit.log_share_below(members) / np.log(2), chance=1 / np.log(2)),  # 5.
        "fit_gap": ProbeScores(np.full(len(members), fit.gap(candidates[np.isfinite(candidates)]))),
    }


@dataclass(frozen=True)
class SkewNormal:
    """Density 2 / scale phi(t) Phi(shape t) at t = (x - place) / scale (Azzalini 1985).

    Attributes:
        place, scale, shape: its three parameters.
    """

    place: float
    scale: float
    shape: float

    @classmethod
    def of(cls, losses: Float[np.ndarray, " n"]) -> SkewNormal:
        """The one with the mean, variance and skewness of a sample; skewness beyond its reach (0.995) is cut to it."""
        spread = max(float(losses.std()), 1e-12)
        skewness = float(np.clip(((losses - losses.mean()) ** 3).mean() / spread**3, -0.99, 0.99))
        part = abs(skewness) ** (2 / 3)
        delta = np.sign(skewness) * np.sqrt(np.pi / 2 * part / (part + (2 - np.pi / 2) ** (2 / 3)))
        scale = spread / np.sqrt(1 - 2 * delta**2 / np.pi)
        place = float(losses.mean()) - scale * delta * np.sqrt(2 / np.pi)
        return cls(place, float(scale), float(delta / np.sqrt(1 - delta**2)))

    def log_share_below(self, losses: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """ln of the share below each loss, summed in logarithms: no tail is too thin."""
        from scipy import special

        z = (losses - self.place) / self.scale
        depth = np.linspace(0, 1, _POINTS)[None] * (12 / np.sqrt(1 + np.minimum(z, 0) ** 2))[:, None]
        depth = depth + np.maximum(z, 0)[:, None] * np.linspace(0, 1, _POINTS)[None]
        t = z[:, None] - depth
        log_density = np.log(2) - t**2 / 2 - np.log(2 * np.pi) / 2 + special.log_ndtr(self.shape * t)
        ends = np.zeros(_POINTS)
        ends[[0, -1]] = np.log(0.5)  # the trapezoid rule
        steps = np.log(depth[:, -1:] / (_POINTS - 1))
        return np.minimum(special.logsumexp(log_density + ends + steps, axis=1), 0.0)

    def gap(self, losses: Float[np.ndarray, " n"]) -> float:
        """Largest distance between its cumulative distribution and that of a sample."""
        ordered = np.sort(losses)
        below = np.exp(self.log_share_below(ordered))
        seen = np.arange(len(ordered) + 1) / len(ordered)
        return float(np.maximum(np.abs(below - seen[:-1]), np.abs(below - seen[1:])).max())


def ranks(members: Float[np.ndarray, " n"], candidates: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
    """Rank of each member's loss among the candidates', from 1 (lowest) to m + 1."""
    ordered = np.sort(candidates)
    lower, not_higher = (np.searchsorted(ordered, members, side=side) for side in ("left", "right"))
    rank = 1 + (lower + not_higher) / 2  # 2.
    return np.where(np.isfinite(members), rank, np.nan)


def chance_bits(n: int) -> float:
    """Mean of log2(n / r) over r = 1 .. n."""
    return float(np.log2(n / np.arange(1, n + 1)).mean())  # 6.


def _block_loss(model: HookedModel, stimulus: Stimulus) -> Float[np.ndarray, " n"]:
    found = losses(model, stimulus.tokens)
    start = torch.from_numpy(stimulus.extra["second_block_start"])
    return mean_over(found.nll, first_block(start, found.nll.shape[1])).double().numpy()  # 1.
