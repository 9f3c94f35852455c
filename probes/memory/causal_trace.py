"""Causal trace: where does restoring a clean state bring a memorised token back, and does removing that part remove it?

Source: causal tracing: Meng et al. 2022, arXiv:2202.05262 (ROME); exchanged tokens in place of noise: Zhang and Nanda
2024, arXiv:2309.16042; that localisation need not say where an edit works: Hase et al. 2023, arXiv:2301.04213.

1. target: the token after the prompt of a member (BOS and k tokens, k = 32 or half the first block). corrupted: the
   prompt's tokens are those of a twin. Traced are the first 32 members whose target is predicted first in the clean run
   and loses a probability of 0.5 or more in the corrupted one
2. state: probability of the target in the corrupted run with the residual stream after one layer, at one place of the
   prompt, taken from the clean run, minus that without. position counts places back from the prompt's last token, 0
3. token: the same with the embedding at one place restored
4. attn, mlp: the same with what all heads (z), or the MLP, of one layer write at every place of the prompt restored
5. attn_edit, mlp_edit: probability in the clean run minus that with the same part ablated there: its mean over the other
   traced members at the same position is put in its place
6. agreement: per member, the correlation over all layers' attention and MLPs between what restoring brings back (4) and
   what ablating costs (5). 1: what the trace finds is where an edit works. 0: it says nothing of it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byrote.interp.intervene import Edit, edit_problem, losses_under
from byrote.interp.model import HookedModel
from byrote.interp.restoring import Put, has_mlp, losses_with, recorded
from byrote.probes.memory.spans import losses, split
from byrote.probes.rules import TRACED_FALL
from byrote.probes.spec import NotMeasuredError, ProbeScores, probe
from byrote.probes.stimuli import Stimulus

MOST_MEMBERS = 32
_RESTORED_NATS = 1e-2


@dataclass(frozen=True)
class Prompts:
    """Prompts of one batch, and the token that must follow each.

    Attributes:
        clean, corrupted: BOS, the prompt, the target, and what fills the row up.
        k: tokens of each prompt.
    """

    clean: Int[Tensor, "n_seq pos"]
    corrupted: Int[Tensor, "n_seq pos"]
    k: Int[Tensor, " n_seq"]

    @property
    def inside(self) -> Bool[Tensor, "n_seq pos"]:
        """The places of the prompt, BOS not among them."""
        place = torch.arange(self.clean.shape[1])[None]
        return (place >= 1) & (place <= self.k[:, None])

    def probability(self, nll: Float[Tensor, "n_runs n_seq next_pos"]) -> Float[np.ndarray, "n_runs n_seq"]:
        """Of the target, from losses of several runs."""
        at = self.k.expand(len(nll), -1)[..., None]
        return torch.exp(-nll.double().gather(-1, at)[..., 0]).numpy()

    def some(self, rows: Int[np.ndarray, " n"]) -> Prompts:
        """Some of them."""
        return Prompts(self.clean[rows], self.corrupted[rows], self.k[rows])


@probe(
    unit="probability",
    range=(-1.0, 1.0),
    stimulus=("members", "twins"),
    summary="Where does restoring a clean state bring a memorised token back, and does removing that part remove it?",
    chance="0: nothing comes back; for agreement: the trace does not show where an edit works",
    metrics={
        "state": "probability of the member's next token that comes back with the state after a layer, at a place of the "
        "prompt, restored",
        "token": "the same with the embedding at a place restored",
        "attn": "the same with what all heads of a layer write in the prompt restored",
        "mlp": "the same with what a layer's MLP writes in the prompt restored",
        "attn_edit": "probability lost when what all heads of a layer write in the prompt is ablated",
        "mlp_edit": "the same for a layer's MLP",
        "agreement": "correlation between what restoring brings back and what ablating costs, over layers and parts",
        "clean": "probability of the next token after the member's own prompt",
        "corrupted": "that probability after a twin's prompt",
        "traced_frac": "share of the members that are traced or could be",
    },
    main_metric="attn",
    curve_axis="places back from the prompt's last token",
    units={"agreement": "correlation", "traced_frac": "member fraction"},
    undirected=("agreement", "traced_frac"),
    settings=("clean", "corrupted", "traced_frac"),
    reads_as="state near clean early in the prompt and in low layers: the token there is what the memory hangs on; near "
    "the end in high layers is true of any prediction. attn, mlp: the layer that brings it back. agreement near 0 "
    "where attn or mlp is large: other parts carry the memory as well, and an edit there would not remove it. "
    "Of two parts (two layers without MLPs) it only says whether both have the same order",
    not_measured="fewer than 2 members are traced: the model has not memorised them, or twins bring their tokens out too; "
    "removing all heads' outputs does not change the logits; states cannot be replaced",
    undefined="no traced prompt reaches this place; or nothing differs between parts; or there are no MLPs",
    default=False,
    passes="at most 33 x (layers + 1) + 4 x layers + 6, over 32 members",
    order=315,
)
def causal_trace(model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int) -> dict[str, ProbeScores]:
    """Trace the token after the prompt of each memorised member.

    Args:
        model: a loaded checkpoint; it is left as it was.
        stimuli: "members" and "twins".
        seed: of which twin stands in for which member.

    Returns:
        Probabilities: `state` by layer and place, `token` by place, `attn`, `mlp` and their `_edit` by layer; `agreement`,
        a correlation.

    Raises:
        NotMeasuredError: fewer than 2 members are traced, or states of this model cannot be replaced.
    """
    shown, traced_frac = traced(model, prompts(stimuli, seed=seed))
    if problem := edit_problem(model, shown.clean):
        raise NotMeasuredError(problem)
    layers, parts = range(model.shape.n_layers), ["attn"] if has_mlp(model, shown.clean) else ["attn", "mlp"]
    sites = [("embedding", 0), *((name, layer) for layer in layers for name in ("state", *parts))]
    clean = recorded(model, shown.clean, sites)
    ends = [losses_under(model, tokens, [Edit()]) for tokens in (shown.clean, shown.corrupted)]
    p_clean, p_corrupted = (shown.probability(nll)[0] for nll in ends)
    last, everywhere = ("state", layers[-1]), torch.ones_like(shown.inside)
    whole = losses_with(model, shown.corrupted, [Put(last, clean[last], everywhere)])
    if (np.log(shown.probability(whole)[0]) - np.log(p_clean)).max() > _RESTORED_NATS:
        raise NotMeasuredError("putting the last layer's clean state back does not give the clean prediction")
    places = [shown.inside & (torch.arange(shown.clean.shape[1])[None] == (shown.k - back)[:, None])
              for back in range(int(shown.k.max()))]  # fmt: skip

    def restored(site: tuple[str, int], wheres: list[Tensor]) -> Float[np.ndarray, "n_seq n_puts"]:
        nll = losses_with(model, shown.corrupted, [Put(site, clean[site], where) for where in wheres])
        rise = shown.probability(nll) - p_corrupted
        return np.where(torch.stack(wheres).any(-1).numpy(), rise, np.nan).T

    scores = {
        "state": ProbeScores(
            np.stack([restored(("state", layer), places) for layer in layers], axis=1),  # 2.
            axes=("layer", "position"), chance=0.0,
        ),
        "token": ProbeScores(restored(("embedding", 0), places), axes=("position",), chance=0.0),  # 3.
    }  # fmt: skip
    brought, lost = [], []
    for part in parts:
        brought.append(
            np.concatenate([restored((part, layer), [shown.inside]) for layer in layers], axis=1)
        )  # 4.
        edits = [Put((part, layer), _mean_of_others(clean[part, layer]), shown.inside) for layer in layers]
        lost.append((p_clean - shown.probability(losses_with(model, shown.clean, edits))).T)  # 5.
        scores[part] = ProbeScores(brought[-1], axes=("layer",), chance=0.0)
        scores[f"{part}_edit"] = ProbeScores(lost[-1], axes=("layer",), chance=0.0)
    agreement = _correlation(np.concatenate(brought, axis=1), np.concatenate(lost, axis=1))  # 6.
    return scores | {
        "agreement": ProbeScores(agreement, chance=0.0),
        "clean": ProbeScores(p_clean),
        "corrupted": ProbeScores(p_corrupted),
        "traced_frac": ProbeScores(np.full(len(p_clean), traced_frac)),
    }


def prompts(stimuli: Mapping[str, Stimulus], *, seed: int) -> Prompts:
    """Every member's prompt and target, and the same with a twin's tokens for the prompt's."""  # 1.
    members, twins = stimuli["members"], stimuli["twins"]
    start = torch.from_numpy(members.extra["second_block_start"])
    k = split(start, members.tokens.shape[1] - 1).k
    rows = np.resize(np.random.default_rng([seed, 24]).permutation(twins.n), members.n)
    width = min(int(k.max()) + 2, members.tokens.shape[1], twins.tokens.shape[1])
    clean = torch.from_numpy(members.tokens[:, :width])
    k = torch.minimum(k, torch.tensor(width - 2))
    found = Prompts(clean, clean, k)
    other = torch.from_numpy(twins.tokens[rows][:, :width])
    return Prompts(clean, torch.where(found.inside, other, clean), k)


def traced(model: HookedModel, shown: Prompts) -> tuple[Prompts, float]:
    """The first members that are memorised, and the share of all members that are.

    Raises:
        NotMeasuredError: fewer than two are; or predictions depend on later tokens.
    """
    known, other = (losses(model, tokens.numpy()) for tokens in (shown.clean, shown.corrupted))
    first = known.top1.gather(1, shown.k[:, None])[:, 0].numpy()
    before, after = (shown.probability(run.nll[None])[0] for run in (known, other))
    memorised = first & (before - after >= TRACED_FALL) & (shown.k.numpy() >= 2)
    rows = np.flatnonzero(memorised)[:MOST_MEMBERS]
    if len(rows) < 2:
        raise NotMeasuredError(
            f"{len(rows)} of {len(memorised)} members are predicted from their own prompt and not from a twin's: 2 are "
            "needed for a trace"
        )
    return shown.some(rows), float(memorised.mean())


def _mean_of_others(values: Float[Tensor, "n_seq pos *rest"]) -> Float[Tensor, "n_seq pos *rest"]:
    return (values.sum(0, keepdim=True) - values) / (len(values) - 1)


def _correlation(
    a: Float[np.ndarray, "n_seq parts"], b: Float[np.ndarray, "n_seq parts"]
) -> Float[np.ndarray, " n_seq"]:
    """Pearson's, of each row; NaN where a row does not vary by more than rounding."""
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    size = np.sqrt((a**2).sum(1)), np.sqrt((b**2).sum(1))
    varies = (size[0] > 1e-4) & (size[1] > 1e-4)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(varies, (a * b).sum(1) / (size[0] * size[1]), np.nan)
