"""In-context learning score: how much better is a late token of real text predicted than an early one?

Source: Olsson et al. 2022, arXiv:2209.11895: loss at the 500th token of the context minus loss at the 50th, contexts of
512 tokens. Their models: above -0.15 nats before induction heads form, about -0.4 after.

1. next-token loss at every position of `natural_contexts`: windows of up to 512 tokens of the text given with --text, else of
   the lab's held-out split; position t is the t-th token after BOS
2. early and late are 50 and 500 in sequences of 512 tokens or more; in shorter ones of W tokens 50 W / 512 and
   500 W / 512, rounded, at least 1 and at most W - 1. `early_position` and `late_position` say which they were
3. score = loss at late - loss at early, paired by sequence
4. windowed: the same with each loss averaged over `half_window` = W / 64 positions (at most 8, at least 1, rounded) on
   either side, as far as the sequence goes. It measures the same and is steadier
5. how many windows: 32, 64, 128, 256 or 512, the first at which half of the score's 95% interval is at most 0.1 nats at the
   last step of the series (the loss of one token of text varies by several nats: 32 windows leave 0.7). All steps are
   shown the same ones
6. one value per document, the mean over its windows, where there are 16 documents or more; else one per window
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from byrote.probes.contexts import by_document
from byrote.probes.spec import probe

EARLY, LATE, CONTEXT, HALF_WINDOW = 50, 500, 512, 8
MIN_CONTEXT = 16  # in a shorter one early and late are the first tokens


def positions(width: int) -> tuple[int, int, int]:
    """Early position, late position and half window for sequences of `width` tokens, BOS included."""
    scale = min(width, CONTEXT) / CONTEXT
    early, late, half = (max(1, math.floor(n * scale + 0.5)) for n in (EARLY, LATE, HALF_WINDOW))
    return early, min(late, width - 1), half


@probe(
    unit="nats",
    better="lower",
    stimulus="natural_contexts",
    summary="How much better a late token of real text is predicted than an early one: what context is worth.",
    chance="0: late tokens are predicted like early ones",
    chance_levels={"score": 0.0, "windowed": 0.0, "early_nats": "guess_nats", "late_nats": "guess_nats"},
    metrics={
        "score": "loss at late_position minus loss at early_position, on natural text, paired by sequence",
        "windowed": "the same, each loss averaged over half_window positions on either side: steadier",
        "early_nats": "mean loss at early_position",
        "late_nats": "mean loss at late_position",
        "early_position": "the early token after BOS: 50 in sequences of 512 tokens or more, in proportion in "
        "shorter ones",
        "late_position": "the late token after BOS: 500, or in proportion",
        "half_window": "positions on either side that windowed averages over: 8, or in proportion",
    },
    units={"early_position": "tokens", "late_position": "tokens", "half_window": "tokens"},
    undirected=("early_nats", "early_position", "late_position", "half_window"),
    settings=("early_position", "late_position", "half_window"),
    reads_as="0: context beyond the early position is not used. Below 0: it is; published models go from above -0.15 "
    "to about -0.4 as induction heads form. Scores at other positions or on other text are not comparable. On text that "
    "repeats itself by design, such as the lab's, it is the worth of copying. n counts documents where there are 16 or more, "
    "else windows: windows of one text say nothing of another",
    not_measured="sequences of fewer than 16 tokens",
    undefined="sequences of fewer than 16 tokens have no early and late position",
    order=150,
    headline=("score",),
    version=2,
)
def icl_score(
    token_nll: Float[Tensor, "batch next_pos"], document: Int[Tensor, " batch"]
) -> dict[str, Num[Tensor, " batch"]]:
    """Score a batch.

    Args:
        token_nll: loss in nats of predicting tokens 1, 2, ... of every sequence.
        document: of each sequence.

    Returns:
        `score`, `windowed`, `early_nats`, `late_nats` in nats, below 0 where later tokens are predicted better; the
        positions used, in tokens; and `document`. All NaN in contexts of fewer than 16 tokens.
    """
    width = token_nll.shape[1] + 1
    early, late, half = positions(width)
    if width < MIN_CONTEXT:
        token_nll = torch.full_like(token_nll, torch.nan)

    def around(t: int, reach: int) -> Tensor:
        return token_nll[:, max(t - reach, 1) - 1 : t + reach].mean(1)

    used = {"early_position": early, "late_position": late, "half_window": half}
    return {
        "score": around(late, 0) - around(early, 0),  # 3.
        "windowed": around(late, half) - around(early, half),  # 4.
        "early_nats": around(early, 0),
        "late_nats": around(late, 0),
        **{name: torch.full_like(token_nll[:, 0], value) for name, value in used.items()},
        "document": document,
    }


@icl_score.finish
def finish(parts: Mapping[str, Num[Tensor, " n_seq"]]) -> dict[str, Float[Tensor, " n_seq"]]:
    """One value per document, at its first window."""  # 6.
    document = parts["document"].cpu().numpy()
    values = {name: part.cpu().numpy() for name, part in parts.items() if name != "document"}
    return {name: torch.from_numpy(by_document(value, document)).float() for name, value in values.items()}
