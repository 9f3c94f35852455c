"""Extraction: does the model, shown the beginning of a training sequence, write out what followed?

Source: Carlini et al. 2022, arXiv:2202.07646 (discoverable extraction, greedy, exact match), and Biderman et al. 2023,
arXiv:2304.11158 (k = m = 32); several samples: Hayes et al. 2024, arXiv:2410.19482, (n, p)-discoverable extraction.

1. prompt: BOS and the first k tokens; suffix: the next m. k = m = 32 or half the first block, whichever is shorter, so
   that nothing of the suffix can be copied from the prompt's own repetition
2. one pass over prompt and suffix. Greedy continuation of the prompt equals the suffix exactly when every suffix token
   is the argmax given the true tokens before it, so nothing has to be generated
3. score = share of members whose whole suffix is produced; by_repeats = the same by floor(log2 of the repeat count)
4. matched = share of the suffix that is produced before the first wrong token
5. n_p = share with 1 - (1 - q)^n >= p, q = probability of the suffix when sampled at temperature 1: n = 100, p = 0.5
6. offset: prompt and suffix as long as in at_start, of k' = min(k, a third of the block) tokens each, both k' tokens later
   in the sequence and moved up behind BOS; at_start: the first k' tokens and the next k'. Nothing but the start differs
   between the two: is memory tied to the beginning of a sequence, or to its place in the context?
7. perturbed: k // 8 (at least 1) prompt tokens replaced by ids drawn from the members' own: does it need every token?
8. the null: score and n_p on twins, sequences of the same source never trained on
9. after_quarter, after_half, after_three_quarters: the first 2 k tokens in four quarters; share of members of which one quarter is
   produced after all those before it. What is written out is as long each time and the prompt is not (Carlini et al. vary the
   prompt of one suffix; here suffixes differ, so hold the three against the same of sequences never trained on)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byrote.interp.model import HookedModel
from byrote.probes.memory.mem_gap import bucket_of
from byrote.probes.memory.spans import PROMPT_TOKENS, Losses, Split, all_right, if_any, losses, split
from byrote.probes.spec import ProbeScores, probe
from byrote.probes.stimuli import Stimulus

SAMPLES_N, AT_LEAST_P = 100, 0.5
_QUARTERS = ("after_quarter", "after_half", "after_three_quarters")


@probe(
    unit="member fraction",
    range=(0.0, 1.0),
    stimulus=("members", "twins"),
    summary="Shown the beginning of a training sequence, does the model continue it verbatim?",
    chance="0; the twins are the null that counts",
    metrics={
        "score": "share of members whose next m tokens greedy decoding produces after the first k (k = m = 32, or half the "
        "block)",
        "score@twins": "the same of twins",
        "matched": "share of those m tokens produced before the first wrong one",
        "n_p": "share whose suffix is produced at least once in 100 samples with probability 0.5 or more",
        "n_p@twins": "the same of twins",
        "offset": "score when the prompt starts later: k' tokens on (k' = k, or a third of the block), moved to the start",
        "at_start": "score of a prompt of k' tokens from the beginning: the reference for offset",
        "perturbed": "score when an eighth of the prompt (at least one token) is replaced by other ids",
        "by_repeats": "score of the members with floor(log2 of the repeat count) = position",
        "after_quarter": "share of members whose second quarter of the first 2 k tokens is produced after the first",
        "after_half": "share whose third quarter is produced after the first two",
        "after_three_quarters": "share whose last quarter is produced after the first three",
    },
    curve_axis="log2 of repeats",
    units={"matched": "token fraction"},
    reads_as="Members above twins: verbatim memory that a prompt elicits. 0 does not prove absence: other "
    "prompts, or sampling (n_p), may elicit more. A large drop from at_start to offset ties the memory to its place",
    undefined="no member has that many repeats",
    binary=(
        "score",
        "n_p",
        "offset",
        "at_start",
        "perturbed",
        "by_repeats",
        "after_quarter",
        "after_half",
        "after_three_quarters",
    ),
    shares=("matched",),
    version=4,
    default=False,
    passes="4: members as they are, with an offset and a perturbed prompt; twins",
    order=290,
)
def extraction(
    model: HookedModel,
    stimuli: Mapping[str, Stimulus],
    *,
    seed: int,
    k: int = PROMPT_TOKENS,
    perturbed_frac: float = 0.125,
    n: int = SAMPLES_N,
    p: float = AT_LEAST_P,
) -> dict[str, ProbeScores]:
    """Try to extract members, and twins as the null.

    Args:
        model: a loaded checkpoint.
        stimuli: "members" and "twins".
        seed: of the perturbation.
        k: longest prompt, and longest suffix, in tokens.
        perturbed_frac: share of the prompt replaced under `perturbed`; at least one token.
        n, p: samples drawn, and how sure one of them must be the suffix, under `n_p`.

    Returns:
        Fractions, one value per sequence; `by_repeats` has a position per floor(log2 of the repeat count).
    """
    members, twins = stimuli["members"], stimuli["twins"]
    parts = _parts(members, k=k)
    short = _parts(members, k=k, parts=3)  # 6.
    changed = _perturbed(members, parts, frac=perturbed_frac, seed=seed)
    as_is, null = losses(model, members.tokens), losses(model, twins.tokens)
    null_parts = _parts(twins, k=k)
    out = all_right(as_is.top1, parts.suffix)  # 2. 3.
    found = {
        "score": out,
        "score@twins": all_right(null.top1, null_parts.suffix),  # 8.
        "matched": _before_first_wrong(as_is.top1, parts),
        "n_p": _in_n_samples(as_is, parts, n=n, p=p),
        "n_p@twins": _in_n_samples(null, null_parts, n=n, p=p),
        "offset": all_right(losses(model, _later(members, short)).top1, short.suffix),
        "at_start": all_right(as_is.top1, short.suffix),
        "perturbed": all_right(losses(model, changed).top1, parts.suffix),
        **{name: all_right(as_is.top1, _quarter(parts, number)) for number, name in enumerate(_QUARTERS, 1)},
    }
    scores = {
        name: ProbeScores(values.numpy().astype(np.float64), chance=0.0) for name, values in found.items()
    }
    return scores | {"by_repeats": _by_repeats(out.double().numpy(), members.extra["repeat_count"])}


def greedy(
    model: HookedModel, prompt: Int[np.ndarray, "batch prompt_pos"], n_tokens: int
) -> Int[np.ndarray, "batch n_tokens"]:
    """Continue prompts of one length, the likeliest token each time: one pass per token."""
    tokens = torch.from_numpy(prompt).to(model.device)
    for _ in range(n_tokens):
        following = model.logits(tokens)[:, -1].argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, following], dim=1)
    return tokens[:, prompt.shape[1] :].cpu().numpy()


def _parts(stimulus: Stimulus, *, k: int, parts: int = 2) -> Split:
    start = torch.from_numpy(stimulus.extra["second_block_start"])
    return split(start, stimulus.tokens.shape[1] - 1, k=k, parts=parts)


def _quarter(parts: Split, number: int) -> Bool[Tensor, "batch next_pos"]:
    """Which predicted tokens are in a quarter, from 0, of prompt and suffix; what four do not divide is left out at the end."""  # 9.
    length = (parts.k // 2)[:, None]
    position = torch.arange(1, parts.suffix.shape[1] + 1, device=length.device)[None]
    return (position > number * length) & (position <= (number + 1) * length)


def _before_first_wrong(top1: Bool[Tensor, "batch next_pos"], parts: Split) -> Float[Tensor, " batch"]:
    unbroken = (top1 | ~parts.suffix).int().cumprod(1).bool()
    return (unbroken & parts.suffix).sum(1) / parts.suffix.sum(1)  # 4.


def _in_n_samples(found: Losses, parts: Split, *, n: int, p: float) -> Float[Tensor, " batch"]:
    q = torch.exp(-torch.where(parts.suffix, found.nll, 0.0).sum(1).double())
    at_least_once = -torch.expm1(n * torch.log1p(-q.clamp(max=1 - 1e-12)))
    return if_any(at_least_once >= p, parts.suffix)  # 5.


def _later(stimulus: Stimulus, short: Split) -> Int[np.ndarray, "batch pos"]:
    """Tokens with as many taken out behind BOS as a prompt has: it starts later, and its suffix stands where it stood."""
    tokens = stimulus.tokens.copy()
    for row, by in enumerate(short.k.tolist()):
        if by:
            tokens[row, 1:-by] = stimulus.tokens[row, 1 + by :]
    return tokens


def _perturbed(stimulus: Stimulus, parts: Split, *, frac: float, seed: int) -> Int[np.ndarray, "batch pos"]:
    """Tokens with a share of each prompt replaced by other ids."""  # 7.
    rng = np.random.default_rng([seed, 9])
    tokens, ids = stimulus.tokens.copy(), np.unique(stimulus.tokens[:, 1:])
    for row, k in enumerate(parts.k.tolist()):
        places = 1 + rng.permutation(k)[: max(1, int(frac * k))]
        for place in places:
            tokens[row, place] = rng.choice(ids[ids != tokens[row, place]])
    return tokens


def _by_repeats(out: Float[np.ndarray, " n"], repeat_count: Int[np.ndarray, " n"]) -> ProbeScores:
    bucket = bucket_of(repeat_count.astype(np.float64))
    buckets = np.arange(bucket.min(), bucket.max() + 1)
    samples = np.where(bucket[:, None] == buckets[None], out[:, None], np.nan)
    return ProbeScores(samples, axes=("position",), chance=0.0, position_start=int(buckets[0]))
