"""Recall or copying: is a token predicted from the weights, from the context, from either, or from neither?

Source: none printed; the contrast of in-weights and in-context knowledge is that of Singh et al. 2023,
arXiv:2311.08360, token by token. The rule and its margin are byrote's own.

1. passage: a member's first block, cut to what fits the context twice: P. pi: one random bijection per sequence over
   the ids of the members and twins, so that the weights cannot know pi(P)
2. two passes, BOS P P and BOS pi(P) pi(P), give the loss of every token of the passage four ways:
   weights alone (P, first time), context alone (pi(P), second time), both (P, second time), neither (pi(P), first time)
3. floor = the lower of the loss under neither and ln(number of usable ids): a model that is wrong and sure of it on
   permuted tokens must not make everything else look known
4. recalled: weights alone is below the floor by more than MARGIN_NATS; copied: context alone is, likewise
5. recall = share of tokens recalled and not copied; copying = copied and not recalled; both; neither. The passage's
   first token is left out: nothing comes before it that could be recalled from or copied by
6. chance = the same shares on twins, which the weights cannot know either
7. recall_at, copying_at, both_at, neither_at: the tags themselves, position = place in the passage
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from byrote.interp.model import HookedModel
from byrote.probes.memory.spans import losses
from byrote.probes.spec import NotMeasuredError, ProbeScores, probe
from byrote.probes.stimuli import Stimulus

MARGIN_NATS = 1.0
WAYS = ("weights", "context", "both", "neither")
TAGS = ("recall", "copying", "both", "neither")
MIN_PASSAGE_TOKENS = 4


@dataclass(frozen=True)
class Passages:
    """Passages as they are shown.

    Attributes:
        doubled: BOS, the passage, the passage again; what lies beyond is filling.
        length: tokens of each passage.
    """

    doubled: Int[np.ndarray, "batch pos"]
    length: Int[np.ndarray, " batch"]


@probe(
    unit="token fraction",
    range=(0.0, 1.0),
    stimulus=("members", "twins"),
    summary="Is a member's token predicted from the weights, from a copy in the context, from either, or from neither?",
    chance="the same shares on twins, which the weights cannot know",
    metrics={
        "recall": "share of tokens known from the weights alone and not from the context alone (margin 1 nat)",
        "copying": "share known from the context alone and not from the weights alone",
        "both": "share known from either alone",
        "neither": "share known from neither alone",
        "recall_at": "recall by place in the passage",
        "copying_at": "copying by place",
        "both_at": "both by place",
        "neither_at": "neither by place",
        "weights_nats": "loss of the passage's first occurrence",
        "context_nats": "loss of its second occurrence, ids renamed so that the weights cannot know it",
        "both_nats": "loss of its second occurrence",
        "neither_nats": "loss of its first occurrence, ids renamed",
    },
    main_metric="recall",
    curve_axis="place in the passage",
    units={"weights_nats": "nats", "context_nats": "nats", "both_nats": "nats", "neither_nats": "nats"},
    reads_as="copying and neither on a model that learned the rule, recall on one that learned by rote, both where "
    "it does either. Subtract the twins' recall: a lucky guess, or knowing the language, counts as recall",
    not_measured="the context holds no passage of 4 tokens twice",
    undefined="no passage reaches this place",
    default=False,
    passes="4: members and twins, as they are and renamed",
    sampled_chance=True,
    order=310,
)
def recall_vs_copy(
    model: HookedModel,
    stimuli: Mapping[str, Stimulus],
    *,
    seed: int,
    margin_nats: float = MARGIN_NATS,
) -> dict[str, ProbeScores]:
    """Tag every token of the members' passages.

    Args:
        model: a loaded checkpoint.
        stimuli: "members" and "twins".
        seed: of the bijections.
        margin_nats: how far below the floor a loss must be.

    Returns:
        `recall`, `copying`, `both`, `neither` as shares of the passage, with the twins' as chance; `*_at` the tags by
        place, from 2; `*_nats` the mean loss of the four ways.

    Raises:
        NotMeasuredError: the context holds no passage of 4 tokens twice.
    """
    ids = np.unique(np.concatenate([s.tokens[:, 1:].ravel() for s in stimuli.values()]))
    by_kind = {}
    for stream, kind in enumerate(("members", "twins")):
        shown = passages(stimuli[kind], n_ctx=model.shape.n_ctx)
        rng = np.random.default_rng([seed, 10, stream])
        by_kind[kind] = four_ways(model, shown, ids=ids, rng=rng)
    ceiling = math.log(stimuli["members"].params["n_ids"])
    tags, null = (tag(by_kind[kind], ceiling, margin_nats=margin_nats) for kind in ("members", "twins"))
    shares = {
        name: ProbeScores(_mean(tags[name]), chance=float(np.nanmean(_mean(null[name])))) for name in TAGS
    }
    places = {f"{name}_at": ProbeScores(tags[name], axes=("position",), position_start=2) for name in TAGS}
    nats = {f"{way}_nats": ProbeScores(_mean(by_kind["members"][way])) for way in WAYS}
    return shares | places | nats


def passages(stimulus: Stimulus, *, n_ctx: int) -> Passages:
    """Each sequence's first block, as far as it fits the context twice, and once more behind itself."""
    fits = (n_ctx - 1) // 2
    length = np.minimum(stimulus.extra["second_block_start"] - 1, fits)
    if length.max() < MIN_PASSAGE_TOKENS:
        raise NotMeasuredError(
            f"a context of {n_ctx} tokens holds no passage of {MIN_PASSAGE_TOKENS} tokens twice"
        )
    offset = np.arange(2 * length.max())[None] % length[:, None]
    body = np.take_along_axis(stimulus.tokens[:, 1:], offset, axis=1)
    return Passages(np.concatenate([stimulus.tokens[:, :1], body], axis=1), length)


def four_ways(
    model: HookedModel, shown: Passages, *, ids: Int[np.ndarray, " n_ids"], rng: np.random.Generator
) -> dict[str, Float[np.ndarray, "batch place"]]:
    """Loss in nats of tokens 2, 3, ... of each passage, four ways; NaN beyond its end."""
    renamed = _renamed(shown.doubled, ids, rng)
    known, unknown = (losses(model, tokens).nll.numpy() for tokens in (shown.doubled, renamed))
    place = np.arange(1, shown.length.max())[None]  # 0-based, without the first token
    inside = place < shown.length[:, None]
    second = np.where(inside, place + shown.length[:, None], 0)
    first = np.broadcast_to(place, second.shape)
    read = {
        "weights": (known, first),
        "context": (unknown, second),
        "both": (known, second),
        "neither": (unknown, first),
    }
    return {
        way: np.where(inside, np.take_along_axis(nll, at, axis=1), np.nan).astype(np.float64)
        for way, (nll, at) in read.items()
    }  # 2.


def tag(
    nll: Mapping[str, Float[np.ndarray, "batch place"]], ceiling: float, *, margin_nats: float = MARGIN_NATS
) -> dict[str, Float[np.ndarray, "batch place"]]:
    """1.0 where a token has the tag, 0.0 where another, NaN beyond the passage.

    Args:
        nll: the four losses.
        ceiling: ln of the number of usable ids.
        margin_nats: how far below the floor a loss must be.
    """
    floor = np.minimum(nll["neither"], ceiling)  # 3.
    recalled, copied = (nll[way] < floor - margin_nats for way in ("weights", "context"))  # 4.
    tags: dict[str, Bool[np.ndarray, "batch place"]] = {
        "recall": recalled & ~copied,
        "copying": copied & ~recalled,
        "both": recalled & copied,
        "neither": ~recalled & ~copied,
    }  # 5.
    return {name: np.where(np.isfinite(floor), found, np.nan) for name, found in tags.items()}


def _renamed(
    tokens: Int[np.ndarray, "batch pos"], ids: Int[np.ndarray, " n_ids"], rng: np.random.Generator
) -> Int[np.ndarray, "batch pos"]:
    """Every sequence under a bijection of the ids of its own; BOS stays."""
    out = tokens.copy()
    for row in range(len(tokens)):
        out[row, 1:] = rng.permutation(ids)[np.searchsorted(ids, tokens[row, 1:])]
    return out


def _mean(rows: Float[np.ndarray, "batch place"]) -> Float[np.ndarray, " batch"]:
    """Mean over the places of each passage; NaN for one of a single token, which has none."""
    n = np.isfinite(rows).sum(1)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(rows), rows, 0.0).sum(1) / n
