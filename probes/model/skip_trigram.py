"""Copying that is less than induction, and more: a pair seen before, a pair with a gap, a token merely seen.

Source: Elhage et al. 2021 (skip-trigrams [b] ... [a] -> [b] of one-layer models); Hernandez et al. 2022, arXiv:2205.10487
(copying form [a][b] ... [a] -> [b], odds of the model trained on repeated data against the control).

Every item of `planted_pairs` shows one sequence of random, distinct tokens four times: BOS, filler, three planted tokens,
a gap of filler, and the query q r. P(b) is read after r. `apart` differs from the other rows in one token each:

1. null:  d x c ... q r      neither b nor the query stood in the context
2. apart: d x b ... q r      b did, beside strangers: what [b] ... [a] -> [b] raises
3. pair:  d r b ... q r      b followed r: [a][b] ... [a] -> [b], what induction heads raise, and skip-trigrams too
4. skip:  q x b ... q r      b stood two after q, and again two after q is to be predicted: [a][x][b] ... [a][y] -> [b]; heads
   that look for exactly the token before do not see it
5. log_odds = ln odds of b under skip - ln odds under null, paired by item: the logarithm of the odds ratio; pair_log_odds
   and apart_log_odds likewise. p_* are the mean probabilities themselves
6. pair_by_gap: pair_log_odds of the items whose gap is 2^position tokens (4, 8, 16, 32, as far as the context goes)
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from byrote.probes.spec import probe
from byrote.probes.stimuli import CONDITIONS

_FIRST_GAP_LOG2 = 2


@probe(
    unit="nats of log odds",
    better="higher",
    stimulus="planted_pairs",
    summary="Copying looser than induction: is b expected where only its surroundings, or only b itself, were seen "
    "before?",
    chance="0: an odds ratio of 1 against the same sequence without b; probabilities: guessing uniformly",
    chance_levels={
        "log_odds": 0.0,
        "pair_log_odds": 0.0,
        "apart_log_odds": 0.0,
        "pair_by_gap": 0.0,
        "p_skip": "guess",
        "p_pair": "guess",
        "p_apart": "guess",
        "p_null": "guess",
    },
    metrics={
        "log_odds": "ln odds ratio of b after [a][x][b] ... [a][y], against the null row",
        "pair_log_odds": "the same after [a][b] ... [a]: what induction heads raise",
        "apart_log_odds": "the same after [b] ... [a]: b was seen, a was not",
        "p_skip": "mean P(b) after [a][x][b] ... [a][y]",
        "p_pair": "mean P(b) after [a][b] ... [a]",
        "p_apart": "mean P(b) after [b] ... [a]",
        "p_null": "mean P(b) where neither occurred before",
        "pair_by_gap": "pair_log_odds of items with 2^position tokens between pair and query",
    },
    main_metric="log_odds",
    curve_axis="log2 of the gap",
    position_start=2,
    units={
        "p_skip": "probability",
        "p_pair": "probability",
        "p_apart": "probability",
        "p_null": "probability",
    },
    undirected=("p_null",),
    reads_as="pair_log_odds alone: induction. apart_log_odds as high: tokens are raised because they were seen, "
    "wherever (skip-trigrams, bags of tokens). log_odds above apart_log_odds: matching with a gap. All at 0: nothing "
    "is copied. One query per sequence, no block repeats: a model that copies only once a block has started to "
    "repeat shows less here",
    undefined="no item has this gap",
    order=180,
)
def skip_trigram(
    logits: Float[Tensor, "batch pos d_vocab"], target: Int[Tensor, " batch"], gap: Int[Tensor, " batch"]
) -> dict[str, Float[Tensor, " batch"]]:
    """Score a batch.

    Args:
        logits: raw logits.
        target: b of every row.
        gap: tokens of filler between what is planted and the query.

    Returns:
        `odds`, the log odds of b after the last token, and `gap`, per row.
    """
    odds = log_odds(logits, target)
    return {"odds": odds, "gap": gap.to(odds.dtype)}


@skip_trigram.finish
def finish(
    rows: dict[str, Float[Tensor, " n_rows"]],
) -> dict[str, Float[Tensor, " n_items"] | Float[Tensor, "n_items n_gaps"]]:
    """Odds ratios per item, in nats."""
    odds, gap = by_condition(rows["odds"]), by_condition(rows["gap"])["pair"]
    pair = odds["pair"] - odds["null"]
    levels = torch.arange(_FIRST_GAP_LOG2, int(gap.max().log2()) + 1, device=gap.device)
    return {
        "log_odds": odds["skip"] - odds["null"],
        "pair_log_odds": pair,
        "apart_log_odds": odds["apart"] - odds["null"],
        **{f"p_{name}": odds[name].sigmoid() for name in CONDITIONS},
        "pair_by_gap": torch.where(gap[:, None] == 2.0**levels, pair[:, None], torch.nan),
    }


def log_odds(
    logits: Float[Tensor, "batch pos d_vocab"], target: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """ln(p / (1 - p)) of a token after the last position of each sequence; NaN where the target is negative.

    Not by way of p, which rounds to 1 where a model is sure.
    """
    last = logits[:, -1].double()
    at = target.clamp(min=0)[:, None]
    odds = last.gather(1, at)[:, 0] - last.scatter(1, at, -torch.inf).logsumexp(1)
    return torch.where(target >= 0, odds, torch.nan)


def by_condition(rows: Float[Tensor, " n_rows"]) -> dict[str, Float[Tensor, " n_items"]]:
    """Values per row as values per item under each of `CONDITIONS`; the rows of an item follow one another."""
    return dict(zip(CONDITIONS, rows.view(-1, len(CONDITIONS)).T, strict=True))
