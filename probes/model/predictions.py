"""Predictions: which token is predicted first, at fixed places of held-out text, for seeds to be held against each other.

Source: prediction churn, Milani Fard et al. 2016, Launch and iterate: the share of cases on which two models trained alike predict
otherwise. Which is a fact about pairs of runs: `byrote degrade` makes it of these predictions.

1. 32 places of every window of `natural`, spread evenly over it, the first and the last among them; all where there are fewer
2. token = the id with the highest logit after each place, one per window and place; of several alike the lowest id
3. right = share of a window's places at which it is the token that follows
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from byrote.interp.model import HookedModel
from byrote.interp.observe import EndView, Observer, observe
from byrote.probes.spec import ProbeScores, probe
from byrote.probes.stimuli import Stimulus

MOST_PLACES = 32  # of 32 windows: 1,024 predictions, a few kilobytes a checkpoint


@probe(
    unit="token fraction",
    range=(0, 1),
    better="higher",
    stimulus="natural",
    summary="Which token is predicted first at up to 32 places of every window of held-out text: what seeds may disagree on.",
    chance="1 / number of usable tokens: guessing uniformly",
    metrics={
        "right": "share of the places at which the token predicted first is the one that follows",
        "token": "id predicted first, by place: of each window in the stored samples; their mean says nothing",
    },
    main_metric="right",
    curve_axis="place",
    units={"token": "token id"},
    undirected=("token",),
    settings=("token",),
    details=("token",),
    reads_as="right is top1 of held_out_loss on fewer tokens. The ids are for `byrote degrade`, which says on which share of "
    "places two seeds disagree: two runs may be right equally often, and on other tokens",
    undefined="the logits are not finite",
    default=False,
    passes="1",
    order=147,
)
def predictions(model: HookedModel, stimuli: Mapping[str, Stimulus]) -> dict[str, ProbeScores]:
    """Read what is predicted first.

    Args:
        model: a loaded checkpoint.
        stimuli: "natural".

    Returns:
        `right` as a fraction per window; `token`, ids by place as floating-point numbers, exact up to 16,777,216.
    """
    text, watcher = stimuli["natural"], _FirstChoice()
    observe(model, torch.from_numpy(text.tokens), [watcher])
    first, following = torch.cat(watcher.first), torch.cat(watcher.following)
    right = (first == following).double() + 0 * first  # NaN stays NaN
    return {
        "right": ProbeScores(right.mean(1).numpy(), chance=1 / text.params["n_ids"]),
        "token": ProbeScores(first.numpy(), axes=("position",)),
    }


class _FirstChoice(Observer):
    """The likeliest id after each place, and the one that follows there."""

    needs = frozenset({"logits"})

    def __init__(self) -> None:
        self.first: list[Tensor] = []
        self.following: list[Tensor] = []

    def see_end(self, view: EndView) -> None:
        assert view.logits is not None
        at = places(view.tokens.shape[1] - 1).to(view.tokens.device)
        self.first.append(first_choice(view.logits[:, at]).cpu())
        self.following.append(view.tokens[:, at + 1].double().cpu())


def first_choice(logits: Float[Tensor, "batch places d_vocab"]) -> Float[Tensor, "batch places"]:
    """The id with the highest logit, of several alike the lowest; NaN where a logit is not finite."""
    return torch.where(logits.isfinite().all(-1), logits.argmax(-1).double(), torch.nan)  # 2.


def places(n: int) -> Int[Tensor, " places"]:
    """Positions, from 0, of the tokens after which predictions are read.

    Args:
        n: tokens that are followed by another.
    """
    return torch.linspace(0, n - 1, min(n, MOST_PLACES)).round().long()
