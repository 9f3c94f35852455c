"""Loss by place in the context: does the model go on using more of it?

Source: Olsson et al. 2022, arXiv:2209.11895 (2-d plot of d loss / d ln token index over training); per-token-index loss:
Hernandez et al. 2022, arXiv:2205.10487, figure 7, right.

1. next-token loss at every position of `natural`; position t is the t-th token after BOS
2. loss[t] = mean over sequences, in nats
3. slope = weighted least squares of the loss on ln t over all t, weight 1 / t: every octave of the context counts alike,
   and the many late positions do not outweigh the few early ones. One slope per sequence; their mean is the slope of
   the mean curve
4. slope_late = the same from the early position of icl_score on (50 in sequences of 512 tokens or more): there models
   without induction heads stop improving
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from byrote.probes.model.icl_score import positions
from byrote.probes.spec import probe

MIN_POSITIONS = 3


@probe(
    unit="nats",
    better="lower",
    stimulus="natural",
    summary="Loss of real text by place in the context: does more context still help, and how fast?",
    chance="ln(number of usable tokens) at every place: guessing uniformly; a slope of 0",
    chance_levels={"loss": "guess_nats", "slope": 0.0, "slope_late": 0.0},
    metrics={
        "loss": "mean loss of the t-th token after BOS, one value per t",
        "slope": "d loss / d ln t: weighted least squares over all t, weight 1/t",
        "slope_late": "the same from the early position of icl_score on",
    },
    main_metric="slope",
    curve_axis="token after BOS",
    position_start=1,
    units={"slope": "nats per e-fold of the position", "slope_late": "nats per e-fold of the position"},
    smallest={
        "nats per e-fold of the position": (
            0.01,
            "0.05 nats over five e-folds, from the 4th token to the 600th",
        )
    },
    details=("loss",),
    reads_as="slope -0.1: each doubling of the context is worth 0.07 nats. A slope near 0 and a slope_late near 0: "
    "context is hardly used; a slope below 0 and a slope_late near 0: only the nearest tokens are",
    undefined="a slope needs at least three positions",
    order=160,
)
def loss_by_position(
    token_nll: Float[Tensor, "batch next_pos"],
) -> dict[str, Float[Tensor, " batch"] | Float[Tensor, "batch next_pos"]]:
    """Score a batch.

    Args:
        token_nll: loss in nats of predicting tokens 1, 2, ... of every sequence.

    Returns:
        `loss` in nats for positions 1, 2, ...; `slope` and `slope_late` in nats per e-fold of the position, NaN over
        fewer than three positions.
    """
    early, _, _ = positions(token_nll.shape[1] + 1)
    return {
        "loss": token_nll,
        "slope": log_slope(token_nll, first=1),  # 3.
        "slope_late": log_slope(token_nll, first=early),  # 4.
    }


def log_slope(token_nll: Float[Tensor, "batch next_pos"], *, first: int) -> Float[Tensor, " batch"]:
    """Slope of each row on ln t over t = first, first + 1, ..., weights 1 / t."""
    t = torch.arange(first, token_nll.shape[1] + 1, device=token_nll.device, dtype=torch.float64)
    if len(t) < MIN_POSITIONS:
        return torch.full_like(token_nll[:, 0], torch.nan)
    weight, x = 1 / t, t.log()
    x = x - (weight * x).sum() / weight.sum()
    slope = (token_nll[:, first - 1 :].double() * weight * x).sum(1) / (weight * x * x).sum()
    return slope.to(token_nll.dtype)
