"""Loss on the X-th copy of one paragraph: a healthy model gains from every further copy.

Source: Hernandez et al. 2022, arXiv:2205.10487, section 1 and figure 7: models at the worst repetition do not improve
from copy to copy at all. The paper's text is a book's first paragraph, eleven times; here it is a random paragraph
(no text is shipped), eleven times where the context allows.

1. next-token loss at every position of BOS + one paragraph, m times
2. loss[X] = mean over the tokens of copy X but its first, one value per sequence: nothing before the second copy's first
   token says what it is, and from the third on the copy before does
3. slope = least-squares change of loss per copy over X = 3 .. m
4. second_minus_last = loss[2] - loss[m]: what all further copies are worth to a model that has seen one
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from byrote.probes.model.repeat_loss import within_copy
from byrote.probes.spec import probe


@probe(
    unit="nats",
    better="lower",
    stimulus="paragraph_copies",
    summary="Loss on the first, second, ... copy of one paragraph: does another copy still help?",
    chance="ln(number of usable tokens): guessing uniformly",
    chance_levels={"loss": "guess_nats", "slope": 0.0, "second_minus_last": 0.0},
    metrics={
        "loss": "mean loss on the X-th copy, its first token left out",
        "slope": "change in loss per further copy, over copies 3 and later",
        "second_minus_last": "loss on the second copy minus loss on the last",
    },
    version=2,
    main_metric="slope",
    curve_axis="copy",
    position_start=1,
    units={"slope": "nats per copy"},
    directions={"second_minus_last": "higher"},
    smallest={"slope": (0.005, "0.05 nats over ten further copies")},
    details=("loss",),
    reads_as="Falling: every further copy still helps. Flat at a high loss: no use is made of copies, as at the "
    "worst point of repeated-data training; flat near 0: the first copy was enough",
    not_measured="a slope needs four copies, second_minus_last three",
    undefined="a slope needs at least four copies, second_minus_last three, and fewer fit the context",
    order=140,
    headline=("slope", "second_minus_last"),
)
def copy_curve(
    token_nll: Float[Tensor, "batch next_pos"], copy_index: Int[Tensor, "batch pos"]
) -> dict[str, Float[Tensor, " batch"] | Float[Tensor, "batch n_copies"]]:
    """Score a batch.

    Args:
        token_nll: loss in nats of predicting tokens 1, 2, ... of every sequence.
        copy_index: which copy each position belongs to, 0 for BOS.

    Returns:
        `loss` in nats for copies 1 .. m; `slope` in nats per copy, NaN with fewer than four copies; `second_minus_last`
        in nats, NaN with fewer than three.
    """
    copy = copy_index[:, 1:]
    n_copies = int(copy.max())
    member = torch.nn.functional.one_hot(copy * within_copy(copy_index), n_copies + 1)[..., 1:].float()
    loss = (token_nll[..., None] * member).sum(1) / member.sum(1)  # 2.
    undefined = torch.full_like(loss[:, 0], torch.nan)
    x = torch.arange(3, n_copies + 1, device=loss.device).float()
    x = x - x.mean()
    return {
        "loss": loss,
        "slope": (loss[:, 2:] * x).sum(1) / x.pow(2).sum() if n_copies > 3 else undefined,  # 3.
        "second_minus_last": loss[:, 1] - loss[:, -1] if n_copies > 2 else undefined,  # 4.
    }
