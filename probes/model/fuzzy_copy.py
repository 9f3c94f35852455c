"""Fuzzy copying: after a pair was seen, is a variant of its second token expected too?

Source: Hernandez et al. 2022, arXiv:2205.10487, section on one-layer models: [a][b] ... [a] -> [b'], as in
[Pot][ter] ... [Pot] -> [ters], which models trained on repeated data lose. The choice of b' is byrote's own.

What is alike must not depend on weights, or each step would be shown other tokens. b' is the token whose text is that of b
with or without a plural s, else in other case, else with or without the space before it: English spelling, read from
tokenizer.json, words of three letters or more, each word once. Ids without a tokenizer (the lab's) have no spelling;
there is nothing they are like, and nothing is measured.

1. rows `pair` and `null` of `planted_pairs` (see skip_trigram): ... [a][b] ... [a], and neither of them before the query
2. log odds of b' after the query, ln(p / (1 - p))
3. log_odds = log odds in the pair row - in the null row, paired by item: the logarithm of the odds ratio
4. excess_over_exact = log_odds - the same of b itself: below 0 where the model copies the token more than its kind
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from byrote.probes.model.skip_trigram import by_condition, log_odds
from byrote.probes.spec import probe


@probe(
    unit="nats of log odds",
    better="higher",
    stimulus="planted_pairs",
    summary="After a pair was seen, is a variant of its second token (plural, case, space) expected too?",
    chance="0: an odds ratio of 1 against the same sequence without the pair; probabilities: guessing uniformly",
    chance_levels={"log_odds": 0.0, "excess_over_exact": 0.0, "p_variant": "guess", "p_null": "guess"},
    metrics={
        "log_odds": "ln odds ratio of b' after [a][b] ... [a], against the null row",
        "excess_over_exact": "log_odds minus the same of b itself",
        "p_variant": "mean P(b') after [a][b] ... [a]",
        "p_null": "mean P(b') where neither a nor b occurred before",
    },
    main_metric="log_odds",
    units={"p_variant": "probability", "p_null": "probability"},
    undirected=("p_null", "excess_over_exact"),
    reads_as="Above 0: what is like the copied token is raised with it. Even far below the exact token's it can be "
    "strong: read excess_over_exact. English spelling decides what is alike: other languages are judged on what "
    "English there is",
    not_measured="no tokenizer.json says which tokens are alike, as with the lab's ids",
    undefined="which tokens are alike is not known without a tokenizer.json of English words",
    order=190,
)
def fuzzy_copy(
    logits: Float[Tensor, "batch pos d_vocab"], target: Int[Tensor, " batch"], variant: Int[Tensor, " batch"]
) -> dict[str, Float[Tensor, " batch"]]:
    """Score a batch.

    Args:
        logits: raw logits.
        target: b of every row.
        variant: b' of every row, -1 where there is none.

    Returns:
        `variant` and `exact`, the log odds of b' and b after the last token, per row; NaN without a variant.
    """
    variant_odds = log_odds(logits, variant)
    return {"variant": variant_odds, "exact": log_odds(logits, target) + 0 * variant_odds}


@fuzzy_copy.finish
def finish(rows: dict[str, Float[Tensor, " n_rows"]]) -> dict[str, Float[Tensor, " n_items"]]:
    """Odds ratios per item, in nats."""
    variant, exact = by_condition(rows["variant"]), by_condition(rows["exact"])
    ratio = variant["pair"] - variant["null"]  # 3.
    return {
        "log_odds": ratio,
        "excess_over_exact": ratio - (exact["pair"] - exact["null"]),  # 4.
        "p_variant": variant["pair"].sigmoid(),
        "p_null": variant["null"].sigmoid(),
    }
