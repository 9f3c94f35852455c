"""Pruned memory: which members are still known when the smallest weights are taken away?

Source: magnitude pruning: Han et al. 2015, arXiv:1506.02626; that recalled facts go at shares of pruning which reading from
context outlasts: Jin et al. 2023, arXiv:2310.04680. See pruned_heads for the other side, and for how weights are pruned.

1. pruned as in pruned_heads: 30, 40, ... 90% of every block's weight matrices, one share at a time, then put back
2. loss and accuracy of the first block (see exact_match) of members at each share; loss of twins beside them
3. completed: share of members whose second half of the block is predicted without an error (see exact_match)
4. survives: largest share up to which a member is completed, at every smaller share too; 0 where it is not at 30%. Only of
   members that are completed unpruned
5. by_repeats: survives of the members with floor(log2 of the repeat count) = position
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float

from byrote.interp.model import HookedModel
from byrote.interp.pruning import pruned
from byrote.probes.circuits.pruned_heads import TENTHS, survived
from byrote.probes.memory.mem_gap import bucket_of
from byrote.probes.memory.spans import all_right, first_block, losses, mean_over, split
from byrote.probes.spec import ProbeScores, probe
from byrote.probes.stimuli import Stimulus

METRICS = ("completed", "accuracy", "loss")


@probe(
    unit="share of weights",
    range=(0.0, 1.0),
    better="higher",
    stimulus=("members", "twins"),
    summary="Up to which share of pruned weights are training sequences still known, and which go first?",
    chance="losses and accuracy: guessing uniformly; the twins are the null that counts",
    metrics={
        "survives": "largest share pruned at which a member is still completed; 0: not even at 30%",
        "by_repeats": "survives of the members with floor(log2 of the repeat count) = position",
        "completed": "share of members completed with position tenths of the weights pruned",
        "accuracy": "accuracy on members' first block with position tenths pruned",
        "loss": "loss on members' first block with position tenths pruned",
        "loss@twins": "loss on twins' first block with position tenths pruned",
    },
    main_metric="survives",
    curve_axis="tenths pruned",
    position_start=3,
    units={"completed": "member fraction", "accuracy": "token fraction", "loss": "nats"},
    directions={"loss": None},
    details=("by_repeats",),
    binary=("completed",),
    shares=("accuracy",),
    version=3,
    reads_as="Memory that goes at 0.3 while pruned_heads keeps its heads: it depends on more, and smaller, weights than copying "
    "does. by_repeats says whether what was seen more often lasts longer",
    not_measured="predictions depend on later tokens",
    undefined="no member is completed with nothing pruned, so that there is nothing to survive",
    default=False,
    passes="16: members and twins, unpruned and at seven shares",
    order=315,
)
def pruned_memory(
    model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int
) -> dict[str, ProbeScores]:
    """Prune, score and put back.

    Args:
        model: a loaded checkpoint; it is left as it was.
        stimuli: "members" and "twins".
        seed: not used: nothing is drawn.

    Returns:
        `survives` and `by_repeats` as shares of weights; `completed` and `accuracy` as fractions, `loss` and `loss@twins` in
        nats, per tenth pruned from 3.

    Raises:
        NotMeasuredError: predictions depend on later tokens.
    """
    members, twins = stimuli["members"], stimuli["twins"]
    known = _scores(model, members)["completed"]
    levels: list[dict[str, np.ndarray]] = []
    for tenth in TENTHS:
        with pruned(model, tenth / 10):
            levels.append(_scores(model, members) | {"loss@twins": _scores(model, twins)["loss"]})
    curves = {name: np.stack([level[name] for level in levels], axis=1) for name in (*METRICS, "loss@twins")}
    lasting = np.where(known == 1, survived(curves["completed"] == 1), np.nan)
    guess = {
        "loss": math.log(members.params["n_ids"]),
        "accuracy": 1 / members.params["n_ids"],
        "completed": 0.0,
    }
    scores = {
        name: ProbeScores(own, axes=("position",), chance=guess[name.split("@")[0]], position_start=TENTHS[0])
        for name, own in curves.items()
    }
    bucket = bucket_of(members.extra["repeat_count"].astype(np.float64))
    first, last = int(bucket.min()), int(bucket.max())
    by_repeats = np.where(bucket[:, None] == np.arange(first, last + 1), lasting[:, None], np.nan)
    return {
        "survives": ProbeScores(lasting),
        "by_repeats": ProbeScores(by_repeats, axes=("position",), position_start=first),
        **scores,
    }


def _scores(model: HookedModel, stimulus: Stimulus) -> dict[str, Float[np.ndarray, " n"]]:
    """Each sequence's first block: completed (1.0 or 0.0), accuracy, loss in nats."""
    found = losses(model, stimulus.tokens)
    start, width = torch.from_numpy(stimulus.extra["second_block_start"]), found.nll.shape[1]
    block = first_block(start, width)
    each = {
        "completed": all_right(found.top1, split(start, width).suffix),
        "accuracy": mean_over(found.top1.float(), block),
        "loss": mean_over(found.nll, block),
    }
    return {name: own.double().numpy() for name, own in each.items()}
