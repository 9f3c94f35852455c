"""Loss on tokens that copying could predict, and on those it could not.

Source: inducible tokens of the Hapax study, arXiv:2511.05743: tokens whose bigram occurred earlier in the context (31.7% of
the Pile's); the rule is that of Olsson et al. 2022, arXiv:2209.11895, with a prefix of one token.

1. next-token loss at every position of `natural`
2. token x_t is inducible when (x_(t-1), x_t) = (x_(s-1), x_s) for an s < t in the same sequence, BOS and what follows it
   included
3. inducible, other = mean loss over a sequence's inducible and other tokens, mean over sequences; difference =
   inducible - other, where a sequence has both
4. share = inducible tokens over all tokens of a sequence

Inducible tokens are frequent ones and occur late: they are easier for a model without any copying too. Compare the
difference between steps or runs on the same text, not with 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byrote.probes.memory.spans import mean_over
from byrote.probes.spec import probe


@probe(
    unit="nats",
    better="lower",
    stimulus="natural",
    summary="Loss on tokens of real text whose bigram occurred earlier in the context, and on the others.",
    chance="ln(number of usable tokens): guessing uniformly; a difference of 0",
    chance_levels={"inducible": "guess_nats", "other": "guess_nats", "difference": 0.0},
    metrics={
        "inducible": "mean loss on tokens whose bigram (token before, token) occurred earlier in the sequence",
        "other": "mean loss on all other tokens",
        "difference": "inducible minus other, paired by sequence",
        "share": "share of tokens that are inducible: a fact about the text",
    },
    main_metric="inducible",
    units={"share": "token fraction"},
    undirected=("difference", "share"),
    reads_as="inducible falls when induction forms, other when anything is learned. Inducible tokens are frequent "
    "ones and stand late, so a difference below 0 does not prove copying: its change over training is what counts",
    undefined="no sequence of the text has such tokens",
    order=170,
    headline=("inducible", "other"),
)
def inducible_loss(
    token_nll: Float[Tensor, "batch next_pos"], tokens: Int[Tensor, "batch pos"]
) -> dict[str, Float[Tensor, " batch"]]:
    """Score a batch.

    Args:
        token_nll: loss in nats of predicting tokens 1, 2, ... of every sequence.
        tokens: ids, BOS first.

    Returns:
        `inducible`, `other`, `difference` in nats, NaN for a sequence without such tokens; `share` from 0 to 1.
    """
    seen = seen_bigrams(tokens)
    inducible, other = mean_over(token_nll, seen), mean_over(token_nll, ~seen)  # 3.
    return {
        "inducible": inducible,
        "other": other,
        "difference": inducible - other,
        "share": seen.to(token_nll.dtype).mean(1),  # 4.
    }


def seen_bigrams(tokens: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch next_pos"]:
    """Whether the bigram that ends at token 1, 2, ... stood earlier in its sequence."""
    code = tokens[:, :-1] * (tokens.max() + 1) + tokens[:, 1:]
    order = code.argsort(dim=1, stable=True)  # equal bigrams side by side, the earliest first
    ordered = code.gather(1, order)
    again = torch.zeros_like(code, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return torch.zeros_like(again).scatter(1, order, again)
