"""Loss on the X-th copy of one paragraph: a healthy model gains from every further copy.

Source: Hernandez et al. 2022, arXiv:2205.10487, section 1 and figure 7: models at the worst repetition do not improve
from copy to copy at all. The paper's text is a book's first paragraph, eleven times; here it is a random paragraph
(no text is shipped), eleven times where the context allows.

1. next-token loss at every position of BOS + one paragraph, m times
2. loss[X] = mean over the tokens of copy X, one value per sequence
3. slope = least-squares change of loss per copy over X = 2 .. m
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from byrote.probes.spec import probe


@probe(
    unit="nats",
    better="lower",
    stimulus="paragraph_copies",
    summary="Loss on the first, second, ... copy of one paragraph: does another copy still help?",
    chance="ln(number of usable tokens): guessing uniformly",
    chance_levels={"loss": "guess_nats", "slope": 0.0},
    metrics={
        "loss": "mean loss on the X-th copy",
        "slope": "change in loss per further copy, over copies 2 and later",
    },
    main_metric="slope",
    curve_axis="copy",
    position_start=1,
    units={"slope": "nats per copy"},
    details=("loss",),
    reads_as="Falling: every further copy still helps. Flat at a high loss: no use is made of copies, as at the "
    "worst point of repeated-data training; flat near 0: the first copy was enough",
    not_measured="a slope needs three copies",
    undefined="a slope needs at least three copies, and fewer fit the context",
    order=140,
    headline=("slope",),
)
def copy_curve(
    token_nll: Float[Tensor, "batch next_pos"], copy_index: Int[Tensor, "batch pos"]
) -> dict[str, Float[Tensor, " batch"] | Float[Tensor, "batch n_copies"]]:
    """Score a batch.

    Args:
        token_nll: loss in nats of predicting tokens 1, 2, ... of every sequence.
        copy_index: which copy each position belongs to, 0 for BOS.

    Returns:
        `loss` in nats for copies 1 .. m; `slope` in nats per copy, NaN with fewer than three copies.
    """
    copy = copy_index[:, 1:]
    n_copies = int(copy.max())
    member = torch.nn.functional.one_hot(copy, n_copies + 1)[..., 1:].float()
    loss = (token_nll[..., None] * member).sum(1) / member.sum(1)  # 2.
    x = torch.arange(2, n_copies + 1, device=loss.device).float()
    x = x - x.mean()
    slope = (
        (loss[:, 1:] * x).sum(1) / x.pow(2).sum() if n_copies > 2 else torch.full_like(loss[:, 0], torch.nan)
    )  # 3.
    return {"loss": loss, "slope": slope}
