"""What a run is trained on, in numbers: n-gram statistics of its first batches, as `byrote text` computes them. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from byrote.checkpoints.lab.as_written import hash_of
from byrote.checkpoints.lab.batches import Batches
from byrote.checkpoints.lab.source import ArmStream
from byrote.checkpoints.ngrams import entropy_nats, repeats, top_mass, unexpected_repeats

N_AUDITED = 1024  # sequences of the first steps
ORDERS = (2, 3, 4)


def data_facts(stream: ArmStream, *, steps: int) -> dict[str, Any]:
    """What the manifest says of the sequences of an arm's first steps, about 1,024 of them.

    Args:
        stream: the arm's batches.
        steps: of the run.

    Returns:
        `n_sequences` and `n_steps` they are of; `hash` of their token ids; `distinct_frac`, different sequences over
        sequences; `counted_frac` of tokens that count in the loss; where some are not, `read_frac` and `attended_frac` of
        tokens that the model reads as they are, and that anything attends to; and those of `ngram_facts`.
    """
    n_steps = min(steps, -(-N_AUDITED // stream.arm.n_trained(stream.batch)))
    drawn = stream.drawn(0, n_steps)
    wide = drawn.wide.reshape(-1, drawn.wide.shape[-1])
    return {
        "n_sequences": len(wide),
        "n_steps": n_steps,
        "hash": hash_of(np.ascontiguousarray(wide, dtype="<i8").tobytes()),
        "distinct_frac": len(np.unique(wide, axis=0)) / len(wide),
        "counted_frac": 1.0 if drawn.counted is None else float(drawn.counted.mean()),
        **_left_out(drawn),
        **ngram_facts(wide),
    }


def _left_out(drawn: Batches) -> dict[str, float]:
    """Shares of the tokens of these batches that the model reads or attends to, where that is not all of them."""
    found = {}
    if drawn.read is not None:
        found["read_frac"] = float((drawn.read == drawn.wide[..., :-1]).mean())
    if drawn.attended is not None:
        found["attended_frac"] = float(drawn.attended.mean())
    return found


def ngram_facts(wide: Int[np.ndarray, "n width"]) -> dict[str, float]:
    """n-gram statistics of sequences, BOS apart.

    Returns:
        `unigram_entropy_nats`, `bigram_entropy_nats`; `bigram_top_1pct_mass`, share of the 1% most frequent of the bigrams
        that occur; `inducible_frac`, tokens that end a bigram that stood earlier in their sequence, over tokens (`inducible`
        of `byrote text` at n = 2); `induction_signal_frac`, those of them that the bigrams of all other sequences do not predict
        (its `induction_signal` at n = 2); `rep_n_frac` for n 2 to 4, n-grams that stood earlier in their sequence, over n-grams
        (its `rep_n`, Li et al. 2023).
    """
    tokens = np.ascontiguousarray(wide[:, 1:])
    n, length = tokens.shape
    _, unigrams = np.unique(tokens, return_counts=True)
    _, bigrams = np.unique(tokens[:, :-1] * (int(tokens.max()) + 1) + tokens[:, 1:], return_counts=True)
    starts = np.arange(0, tokens.size, length)
    codes = tokens.astype(np.uint64).ravel()
    seen = {one.n: int(one.seen.sum()) for one in repeats(codes, starts, (1, *ORDERS))}
    ((_, unexpected, _),) = unexpected_repeats(codes, starts, np.arange(n), (2,))
    return {
        "unigram_entropy_nats": float(entropy_nats(unigrams)),
        "bigram_entropy_nats": float(entropy_nats(bigrams)),
        "bigram_top_1pct_mass": float(top_mass(bigrams)),
        "inducible_frac": seen[2] / tokens.size,
        "induction_signal_frac": float(unexpected.mean()),
        **{f"rep_{k}_frac": seen[k] / (n * (length - k + 1)) for k in ORDERS if length >= k},
    }
