"""Membership inference: can one tell, from the model alone, which sequences it was trained on?

Source: loss: Yeom et al. 2018, arXiv:1709.01604; Min-K%++: Zhang et al. 2024, arXiv:2404.02936; likelihood ratio to a reference:
Carlini et al. 2022, arXiv:2112.03570, whose measure of success, true positives at a false-positive rate of 1%, is taken too.

1. members, and fresh sequences of the same source (`candidates`: the lab's twins and more of the stream, else the twins
   given); all scores are means over the first block (see exact_match), so that nothing can be copied
2. loss: minus the mean loss
3. min_k: z = (log p(x) - mean) / sd at every token, mean and sd of log p(v) over the model's own prediction v ~ p; the mean of
   the lowest 20% of z
4. ratio: loss under the reference minus loss under the model; the reference is the source itself or `reference_nll`
5. auc = share of pairs of a member and a fresh sequence with the higher score at the member, ties half; one value per
   member. The interval resamples members and fresh sequences apart, linearised; where they are parted altogether it is the
   exact one (Clopper-Pearson) of as many pairs as there are sequences on the smaller side
6. tpr = share of members above all but 1% (rounded down) of the fresh sequences; not measured against fewer than 100. Its
   interval is the wider one, at either end, of resampling both sides and of Clopper-Pearson over members
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from byrote.interp.model import HookedModel
from byrote.interp.observe import EndView, Observer, leak_of, observe
from byrote.probes.few import exact_ends
from byrote.probes.memory.spans import first_block, mean_over
from byrote.probes.spec import NotMeasuredError, ProbeScores, probe
from byrote.probes.statistics import LEVEL, linearised_interval, pair_interval
from byrote.probes.stimuli import Stimulus

MIN_K, FPR, MIN_FRESH = 0.2, 0.01, 100
ATTACKS = ("loss", "min_k", "ratio")


@probe(
    unit="AUC",
    range=(0.0, 1.0),
    better="higher",
    stimulus=("members", "candidates"),
    summary="Can members be distinguished from fresh sequences by their loss, by Min-K%++, or by the ratio to a reference?",
    chance="AUC 0.5, and 1% true positives at 1% false ones: members score like fresh sequences",
    metrics={
        "loss_auc": "AUC of the loss: chance that a member's is below that of a fresh sequence",
        "min_k_auc": "AUC of Min-K%++ (the lowest 20% of tokens)",
        "ratio_auc": "AUC of the likelihood ratio to the reference",
        "loss_tpr": "share of members found by the loss at 1% false positives",
        "min_k_tpr": "the same by Min-K%++",
        "ratio_tpr": "the same by the likelihood ratio",
        "fresh": "fresh sequences that the members are compared with",
    },
    main_metric="loss_auc",
    units={
        "loss_tpr": "member fraction",
        "min_k_tpr": "member fraction",
        "ratio_tpr": "member fraction",
        "fresh": "sequences",
    },
    undirected=("fresh",),
    settings=("fresh",),
    reads_as="0.5: members cannot be distinguished. An AUC of 0.6 says that many are a little likelier; tpr says whether any are "
    "identified with certainty, which is what privacy asks. Fresh sequences must be of the members' source and time: other topics or lengths "
    "alone give high AUCs",
    undefined="no reference_nll is known (ratio), or fewer than 100 fresh sequences (tpr), or the loss is not finite",
    default=False,
    passes="2: members, and up to 1,024 fresh sequences",
    order=305,
)
def membership(model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int) -> dict[str, ProbeScores]:
    """Attack the members three ways.

    Args:
        model: a loaded checkpoint.
        stimuli: "members" and "candidates".
        seed: of the resampling.

    Returns:
        `*_auc` and `*_tpr`, fractions with intervals over members and fresh sequences; `fresh`, a count.

    Raises:
        NotMeasuredError: the model's predictions depend on later tokens.
    """
    members, fresh = (attack_scores(model, stimuli[kind]) for kind in ("members", "candidates"))
    found: dict[str, ProbeScores] = {}
    for name in ATTACKS:
        found[f"{name}_auc"] = auc(members[name], fresh[name], seed=seed)
        found[f"{name}_tpr"] = true_positives(members[name], fresh[name], seed=seed)
    n_members, n_fresh = len(members["loss"]), len(fresh["loss"])
    return found | {"fresh": ProbeScores(np.full(n_members, float(n_fresh)))}


def attack_scores(model: HookedModel, stimulus: Stimulus) -> dict[str, Float[np.ndarray, " n"]]:
    """Attack -> score of every sequence, higher for what looks like a member.

    Raises:
        NotMeasuredError: the model's predictions depend on later tokens.
    """
    reader, tokens = _Reader(), torch.from_numpy(stimulus.tokens)
    if leak := leak_of(model, tokens, observe(model, tokens, [reader])):
        raise NotMeasuredError(leak)
    nll, z = torch.cat(reader.nll), torch.cat(reader.z)
    block = first_block(torch.from_numpy(stimulus.extra["second_block_start"]), nll.shape[1])  # 1.
    reference = torch.from_numpy(stimulus.extra["reference_nll"])[:, 1:].double()
    found = {
        "loss": -mean_over(nll, block),
        "min_k": lowest_mean(z, block),
        "ratio": mean_over(reference - nll, block),
    }
    return {name: score.numpy() for name, score in found.items()}


class _Reader(Observer):
    """Loss of every token, and how far its log probability lies from what the model expects of it."""

    needs = frozenset({"logits"})

    def __init__(self) -> None:
        self.nll: list[Tensor] = []
        self.z: list[Tensor] = []

    def see_end(self, view: EndView) -> None:
        """Reduce one batch."""
        assert view.logits is not None
        log_p = view.logits[:, :-1].float().log_softmax(-1)
        own = log_p.gather(-1, view.tokens[:, 1:, None])[..., 0]
        self.nll.append(-own.double().cpu())
        self.z.append(standardised(log_p, own).double().cpu())


def standardised(
    log_p: Float[Tensor, "batch next_pos d_vocab"], own: Float[Tensor, "batch next_pos"]
) -> Float[Tensor, "batch next_pos"]:
    """(log p(x) - mean) / sd under the model's own prediction; 0 where it is even, so that nothing is to be told."""  # 3.
    p = log_p.exp()
    mean = torch.where(p > 0, p * log_p, 0.0).sum(-1)
    variance = torch.where(p > 0, p * (log_p - mean[..., None]) ** 2, 0.0).sum(-1)
    return torch.where(variance > 1e-12, (own - mean) / variance.clamp(min=1e-12).sqrt(), 0.0)


def lowest_mean(
    z: Float[Tensor, "batch next_pos"], where: Tensor, *, share: float = MIN_K
) -> Float[Tensor, " batch"]:
    """Mean of the lowest share (at least one) of the selected values; NaN where none is selected."""
    ordered = torch.where(where, z, torch.inf).sort(dim=1).values
    taken = (share * where.sum(1)).ceil()
    first = torch.arange(z.shape[1])[None] < taken[:, None]
    return torch.where(first, ordered, 0.0).sum(1) / taken


def auc(members: Float[np.ndarray, " n"], fresh: Float[np.ndarray, " m"], *, seed: int) -> ProbeScores:
    """Area under the ROC curve, one value per member, with its interval; NaN where a score is not finite."""  # 5.
    if not (np.isfinite(members).all() and np.isfinite(fresh).all()):
        return _unknown(len(members), chance=0.5)
    n, m = len(members), len(fresh)
    below, rivals = _share_below(members, fresh), 1 - _share_below(fresh, members)
    value = float(below.mean())
    left_out = [(k * value - own) / max(1, k - 1) for k, own in ((n, below), (m, rivals))]
    _, lo, hi = linearised_interval(value, left_out, seed=seed)
    if value in (0.0, 1.0):
        lo, hi = _exact(round(value * min(n, m)), min(n, m))
    return ProbeScores(below, chance=0.5, interval=(np.asarray(max(lo, 0.0)), np.asarray(min(hi, 1.0))))


def true_positives(
    members: Float[np.ndarray, " n"], fresh: Float[np.ndarray, " m"], *, seed: int
) -> ProbeScores:
    """Share of members above all but 1% of the fresh sequences, with its interval; NaN for fewer than 100 of these."""  # 6.
    if not (np.isfinite(members).all() and np.isfinite(fresh).all()) or len(fresh) < MIN_FRESH:
        return _unknown(len(members), chance=FPR)

    def share_found(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        at = b.shape[-1] - 1 - int(FPR * b.shape[-1])
        return np.asarray((a > np.partition(b, at, axis=-1)[..., at, None]).mean(-1))

    value, lo, hi = pair_interval(members, fresh, share_found, seed=seed)
    exact = _exact(round(value * len(members)), len(members))
    threshold = np.sort(fresh)[len(fresh) - 1 - int(FPR * len(fresh))]
    ends = np.asarray(min(lo, exact[0])), np.asarray(max(hi, exact[1]))
    return ProbeScores((members > threshold).astype(np.float64), chance=FPR, interval=ends)


def _share_below(of: Float[np.ndarray, " n"], among: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
    """Share of one sample that lies below each value of the other, ties half."""
    ordered = np.sort(among)
    sides = (np.searchsorted(ordered, of, side=side) for side in ("left", "right"))
    return np.asarray(sum(sides) / (2 * len(among)))


def _exact(count: int, n: int) -> tuple[float, float]:
    level = (1 + LEVEL) / 2
    lo, hi = exact_ends(np.array(count), np.array(n), level=2 * level - 1)
    return float(lo), float(hi)


def _unknown(n: int, *, chance: float) -> ProbeScores:
    return ProbeScores(np.full(n, np.nan), chance=chance)
