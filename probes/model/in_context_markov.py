"""In-context Markov chains: does the model predict like a counter of tokens, or like a counter of pairs?

Source: Edelman et al. 2024, arXiv:2402.11004: on new chains for every sequence, training goes from even predictions to
those of the in-context unigram and then to those of the in-context bigram (a statistical induction head); the distance to
each predictor is the measure of progress. They train on this task; any model can be shown it.

1. a sequence: BOS and a chain over 4 ids of its own (drawn from those of `repeated_random`), every row of its transition
   matrix drawn from a flat Dirichlet distribution; as long as the context, at most 128 tokens
2. unigram = (times the id was seen + 1) / (tokens seen + 4); bigram = (times it followed the present one + 1) / (times the
   present one was followed + 4), the best prediction there is under that draw; even = 1/4
3. the model's prediction is restricted to the 4 ids and renormalised; outside = what it gives to all others
4. kl_* = KL(model || predictor), mean over the later half of the sequence, where counts say something; in nats
5. apart = KL(bigram || unigram): what kl_unigram is for a model that counts pairs perfectly; kl_true = KL(model || the chain's
   own row), which a perfect counter of pairs approaches and never reaches
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from byrote.interp.model import HookedModel
from byrote.interp.observe import EndView, Observer, leak_of, observe
from byrote.probes.spec import NotMeasuredError, ProbeScores, probe
from byrote.probes.stimuli import Stimulus

N_STATES, MAX_TOKENS, MIN_TOKENS = 4, 128, 16


@probe(
    unit="nats",
    better="lower",
    stimulus="repeated_random",
    summary="On Markov chains it has never seen: does the model predict like the context's unigrams, or like its bigrams?",
    chance="kl_even 0: even predictions, as before training; for kl_unigram and kl_bigram none is fixed, see apart",
    metrics={
        "kl_bigram": "KL from the model's prediction to the in-context bigram's",
        "kl_unigram": "KL from the model's prediction to the in-context unigram's",
        "kl_even": "KL from the model's prediction to an even one",
        "kl_true": "KL from the model's prediction to the chain's own probabilities",
        "apart": "KL from the bigram's prediction to the unigram's: kl_unigram of a perfect counter of pairs",
        "outside": "probability given to ids that the sequence does not use",
    },
    main_metric="kl_bigram",
    units={"outside": "probability"},
    directions={"kl_unigram": None, "kl_even": None, "apart": None},
    settings=("apart",),
    reads_as="kl_even near 0: no use of the context. kl_unigram the lowest: tokens seen are expected, wherever. kl_bigram the "
    "lowest: pairs are counted, as statistical induction heads do. A high outside says that the model does not attempt the task; the other metrics then describe a small remainder",
    not_measured="a context of fewer than 16 tokens, or fewer than 4 usable ids",
    undefined="the logits are not finite",
    default=False,
    passes="1: as many chains as repeated_random has sequences",
    order=196,
)
def in_context_markov(
    model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int
) -> dict[str, ProbeScores]:
    """Show the model chains, and compare its predictions with three counters.

    Args:
        model: a loaded checkpoint.
        stimuli: "repeated_random", for its ids and its number of sequences.
        seed: of the chains.

    Returns:
        Divergences in nats and `outside` as a probability, one value per chain.

    Raises:
        NotMeasuredError: the context is too short, or the ids are too few; or predictions depend on later tokens.
    """
    source = stimuli["repeated_random"]
    length, ids = min(model.shape.n_ctx, MAX_TOKENS) - 1, np.unique(source.tokens[:, 1:])
    if length + 1 < MIN_TOKENS or len(ids) < N_STATES:
        raise NotMeasuredError(
            f"a context of {length + 1} tokens and {len(ids)} ids hold no chain of {N_STATES}"
        )
    chains = draw_chains(ids, n=source.n, length=length, bos=int(source.tokens[0, 0]), seed=seed)
    reader = _Reader(torch.from_numpy(chains.ids))
    tokens = torch.from_numpy(chains.tokens)
    if leak := leak_of(model, tokens, observe(model, tokens, [reader])):
        raise NotMeasuredError(leak)
    found = divergences(torch.cat(reader.inside).numpy(), chains) | {
        "outside": torch.cat(reader.outside).numpy()
    }
    chance = {"kl_even": 0.0}
    return {name: ProbeScores(own, chance=chance.get(name, float("nan"))) for name, own in found.items()}


class Chains(NamedTuple):
    """Sequences, and what they were drawn from.

    Attributes:
        tokens: BOS first.
        states: which of the sequence's ids each token is, 0 to 3; without BOS.
        ids: of each sequence.
        rows: transition probabilities, from the first state axis to the second.
    """

    tokens: Int[np.ndarray, "n pos"]
    states: Int[np.ndarray, "n length"]
    ids: Int[np.ndarray, "n states"]
    rows: Float[np.ndarray, "n states states"]


def draw_chains(ids: Int[np.ndarray, " n_ids"], *, n: int, length: int, bos: int, seed: int) -> Chains:
    """Draw chains, each over 4 of the ids and with transitions of its own; the first token is even."""  # 1.
    rng = np.random.default_rng([seed, 15])
    own = np.stack([rng.choice(ids, size=N_STATES, replace=False) for _ in range(n)])
    rows = rng.dirichlet(np.ones(N_STATES), size=(n, N_STATES))
    states = np.empty((n, length), dtype=np.int64)
    states[:, 0] = rng.integers(N_STATES, size=n)
    reach = rows.cumsum(-1)
    for t in range(1, length):
        drawn = rng.random(n)[:, None] > reach[np.arange(n), states[:, t - 1]]
        states[:, t] = drawn.sum(1).clip(max=N_STATES - 1)
    body = np.take_along_axis(own, states, axis=1)
    return Chains(np.concatenate([np.full((n, 1), bos), body], axis=1), states, own, rows)


def counters(chains: Chains) -> dict[str, Float[np.ndarray, "n length states"]]:
    """What each predictor says after every token of the chains; each row sums to 1."""  # 2.
    n, length = chains.states.shape
    seen = np.eye(N_STATES)[chains.states]
    unigram = seen.cumsum(1) + 1
    pairs = np.zeros((n, length, N_STATES, N_STATES))
    pairs[:, 1:] = np.einsum("nti,ntj->ntij", seen[:, :-1], seen[:, 1:]).cumsum(1)
    bigram = np.einsum("nti,ntij->ntj", seen, pairs) + 1
    return {
        "bigram": bigram / bigram.sum(-1, keepdims=True),
        "unigram": unigram / unigram.sum(-1, keepdims=True),
        "even": np.full(seen.shape, 1 / N_STATES),
        "true": chains.rows[np.arange(n)[:, None], chains.states],
    }


def divergences(
    log_p: Float[np.ndarray, "n length states"], chains: Chains
) -> dict[str, Float[np.ndarray, " n"]]:
    """KL of the model from each predictor, over the later half, per sequence.

    Args:
        log_p: the model's log probabilities of the sequence's ids after every token but BOS, renormalised over them.
        chains: what it was shown.
    """
    predicted, p = counters(chains), np.exp(log_p)

    def kl(of: np.ndarray, log_of: np.ndarray, other: np.ndarray) -> Float[np.ndarray, " n"]:
        gained = of * (log_of - np.log(np.maximum(other, 1e-300)))
        return np.asarray(gained.sum(-1)[:, of.shape[1] // 2 :].mean(1))  # 4.

    found = {f"kl_{name}": kl(p, log_p, other) for name, other in predicted.items()}
    return found | {"apart": kl(predicted["bigram"], np.log(predicted["bigram"]), predicted["unigram"])}  # 5.


class _Reader(Observer):
    """Log probabilities of each sequence's own ids, renormalised, and what the others get."""

    needs = frozenset({"logits"})

    def __init__(self, ids: Tensor) -> None:
        self.ids = ids
        self.inside: list[Tensor] = []
        self.outside: list[Tensor] = []

    def see_end(self, view: EndView) -> None:
        """Reduce one batch."""
        assert view.logits is not None
        log_p = view.logits[:, 1:].double().log_softmax(-1)
        ids = self.ids[view.rows].to(log_p.device)[:, None].expand(-1, log_p.shape[1], -1)
        own = log_p.gather(-1, ids)
        total = own.logsumexp(-1)
        self.inside.append((own - total[..., None]).cpu())  # 3.
        self.outside.append((1 - total.exp())[:, log_p.shape[1] // 2 :].mean(1).cpu())
