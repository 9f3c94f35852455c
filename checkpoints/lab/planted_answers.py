"""Known values of every head probe on the planted model.

Nothing here runs a model or imports torch. Patterns come from the closed form of each planted head, scores
from plain loops over the probes' definitions, so a probe can be checked against something that shares no
code with it.

Every planted head weighs a key that matches e^c times a key that does not, so with m matching keys among the
q + 1 visible ones a match gets e^c / (m e^c + q + 1 - m) of the attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from byrote.checkpoints.errors import CheckpointError, did_you_mean

HARD_STRENGTH_NATS = 64.0
"""Logit of a match in a hard head: what leaks to other keys, e^-64 each, is lost in float32."""

MIN_REST_FRAC = 1e-6
"""A row with less attention than this outside position 0 has no sink-free form and is left out."""

MATCHES = ("uniform", "previous", "offset", "duplicate", "prefix")
WRITES = ("nothing", "unread", "previous", "output")


@dataclass(frozen=True)
class HeadSpec:
    """One planted head: which keys match a query, how strongly, and where the attended token goes.

    Attributes:
        match: "uniform" (nothing matches); "previous" (k = q - 1); "offset" (k = q - config.offset, never
            position 0); "duplicate" (x_k = x_q, the query itself included); "prefix" (x_{k-1} = x_q, where
            position 0 stands for its own predecessor).
        strength_nats: c, the attention logit of a matching key; any other key has 0.
        writes: subspace that receives the attended token: "nothing" (a dead head: zero W_V and W_O), "unread"
            (a subspace nothing reads), "previous" (read by prefix heads), "output" (read by the unembedding).
        gain: factor on what is written; negative in "output" is anti-copying.
    """

    match: str
    strength_nats: float = HARD_STRENGTH_NATS
    writes: str = "unread"
    gain: float = 1.0

    def __post_init__(self) -> None:
        for value, choices in ((self.match, MATCHES), (self.writes, WRITES)):
            if value not in choices:
                raise CheckpointError(f"a planted head has no {value!r}", help=did_you_mean(value, choices))


PLANTED_HEADS: tuple[tuple[HeadSpec, ...], ...] = (
    (
        HeadSpec("previous", writes="previous"),
        HeadSpec("previous", strength_nats=math.log(32)),
        HeadSpec("duplicate", strength_nats=math.log(16)),
        HeadSpec("uniform", strength_nats=0.0, writes="nothing"),
    ),
    (
        HeadSpec("prefix", writes="output"),
        HeadSpec("prefix", strength_nats=math.log(32), writes="output"),
        HeadSpec("prefix", writes="output", gain=-0.5),
        HeadSpec("offset", writes="output"),
    ),
)
"""[layer][head]: L0H0 and L0H1 hard and soft previous-token, L0H2 duplicate-token, L0H3 uniform and dead;
L1H0 and L1H1 hard and soft induction, L1H2 prefix matching that anti-copies, L1H3 fixed offset that copies."""


@dataclass(frozen=True)
class PlantedConfig:
    """The hand-made model: two attention-only layers without norm, learned positions, zero biases.

    Attributes:
        d_vocab: tokens, 0 among them as beginning of sequence.
        n_ctx: positions.
        offset: how far back the "offset" head looks: block length - 1 of the standard repeated stimulus.
        unembed_gain: beta, the logit of a token that one head with gain 1 copies with all its attention.
        heads: what is planted, [layer][head], as many heads in both layers.

    Raises:
        CheckpointError: a combination whose answers would not be the closed form.
    """

    d_vocab: int = 64
    n_ctx: int = 128
    offset: int = 24
    unembed_gain: float = 10.0
    heads: tuple[tuple[HeadSpec, ...], ...] = PLANTED_HEADS

    def __post_init__(self) -> None:
        if self.d_vocab < 2 or self.n_ctx < 2 or not 1 <= self.offset < self.n_ctx:
            raise CheckpointError(
                f"planted model with d_vocab={self.d_vocab}, n_ctx={self.n_ctx}, offset={self.offset}",
                help="needs d_vocab >= 2, n_ctx >= 2 and 1 <= offset < n_ctx",
            )
        if len(self.heads) != 2 or not self.heads[0] or len(self.heads[0]) != len(self.heads[1]):
            raise CheckpointError("a planted model has two layers with as many heads each")
        if any(head.match == "prefix" for head in self.heads[0]):
            raise CheckpointError("a layer-0 head cannot match prefixes: nothing has moved a token yet")
        feeders = [(l, head) for l, layer in enumerate(self.heads) for head in layer if _feeds(head)]
        if feeders != [(0, HeadSpec("previous", writes="previous"))]:
            raise CheckpointError(
                f"{len(feeders)} heads write the previous subspace",
                help="exactly one must: a hard previous-token head of layer 0 with gain 1",
            )

    @property
    def n_layers(self) -> int:
        """Layers, always 2."""
        return len(self.heads)

    @property
    def n_heads(self) -> int:
        """Heads per layer."""
        return len(self.heads[0])


def _feeds(head: HeadSpec) -> bool:
    return head.writes == "previous"


def expected(config: PlantedConfig, tokens: Int[np.ndarray, "batch pos"]) -> dict[str, np.ndarray]:
    """The answers of every head probe on the planted model, without running it.

    Args:
        config: what is planted.
        tokens: ids below `config.d_vocab`, at most `config.n_ctx` positions.

    Returns:
        "pattern" [n_layers n_heads batch query_pos key_pos], rows sum to 1; "logits" [batch pos d_vocab];
        "ov_copying" [n_layers n_heads], 1 or -1; and per sequence [batch n_layers n_heads]:
        "prefix_matching", "prefix_matching_sink_free", "previous_token", "duplicate_token",
        "anti_induction", "sink", "entropy" (all 0 to 1), "copying_logit" and "copying_logit_sink_free"
        (-1 to 1); "offset_profile" [batch n_layers n_heads offset], 0 to 1. NaN where undefined: no query
        with an earlier copy, or copying of a head that writes nothing to the logits.

    Raises:
        CheckpointError: tokens outside the vocabulary or longer than the context.
    """
    pattern = _patterns(config, tokens)
    answers = {
        "pattern": pattern,
        "logits": _logits(config, pattern, tokens),
        "ov_copying": _ov_copying(config),
    }
    answers |= _over_heads(config, lambda b, l, h: _pattern_scores(pattern[l, h, b], tokens[b]), tokens)
    raises = {lh: _raise(_contribution(config, *lh, p=pattern, tokens=tokens)) for lh in _all_heads(config)}
    answers |= _over_heads(
        config, lambda b, l, h: _copying_scores(pattern[l, h, b], raises[l, h][b], tokens[b]), tokens
    )
    return answers


def expected_logits(
    config: PlantedConfig, tokens: Int[np.ndarray, "batch pos"]
) -> Float[np.ndarray, "batch pos d_vocab"]:
    """The "logits" of `expected` alone, in a fraction of the time.

    Raises:
        CheckpointError: tokens outside the vocabulary or longer than the context.
    """
    return _logits(config, _patterns(config, tokens), tokens)


def _logits(
    config: PlantedConfig, pattern: np.ndarray, tokens: Int[np.ndarray, "batch pos"]
) -> Float[np.ndarray, "batch pos d_vocab"]:
    written = [_contribution(config, l, h, p=pattern, tokens=tokens) for l, h in _all_heads(config)]
    return sum(written, np.zeros(()))


def _all_heads(config: PlantedConfig) -> list[tuple[int, int]]:
    return [(l, h) for l in range(config.n_layers) for h in range(config.n_heads)]


def _over_heads(
    config: PlantedConfig,
    score: Callable[[int, int, int], Mapping[str, Any]],
    tokens: Int[np.ndarray, "batch pos"],
) -> dict[str, np.ndarray]:
    """`score(b, l, h)` for every sequence and head, stacked to [batch n_layers n_heads ...] by name."""
    grid = [
        [[score(b, l, h) for h in range(config.n_heads)] for l in range(config.n_layers)]
        for b in range(len(tokens))
    ]
    return {
        name: np.array([[[cell[name] for cell in row] for row in layers] for layers in grid])
        for name in grid[0][0][0]
    }


def _patterns(
    config: PlantedConfig, tokens: Int[np.ndarray, "batch pos"]
) -> Float[np.ndarray, "n_layers n_heads batch query_pos key_pos"]:
    if tokens.shape[1] > config.n_ctx or tokens.min() < 0 or tokens.max() >= config.d_vocab:
        raise CheckpointError(
            f"tokens {tokens.shape} with ids {tokens.min()}-{tokens.max()} do not fit the planted model",
            help=f"it has {config.n_ctx} positions and ids 0-{config.d_vocab - 1}",
        )
    batch, n_pos = tokens.shape
    pattern = np.zeros((config.n_layers, config.n_heads, batch, n_pos, n_pos))
    for l, h in _all_heads(config):
        head = config.heads[l][h]
        for b in range(batch):
            for q in range(n_pos):
                matches = _matches(head.match, tokens[b], q=q, offset=config.offset)
                weight = np.where(matches, math.exp(head.strength_nats), 1.0)
                pattern[l, h, b, q, : q + 1] = weight / weight.sum()
    return pattern


def _matches(match: str, x: Int[np.ndarray, " pos"], *, q: int, offset: int) -> Bool[np.ndarray, " key_pos"]:
    """Which of the visible keys 0..q match query q."""
    keys = np.arange(q + 1)
    if match == "previous":
        return keys == q - 1
    if match == "offset":
        return (keys == q - offset) & (keys > 0)
    if match == "duplicate":
        return x[keys] == x[q]
    if match == "prefix":
        return x[np.maximum(keys - 1, 0)] == x[q]
    return np.zeros(q + 1, dtype=bool)


def _contribution(
    config: PlantedConfig, l: int, h: int, *, p: np.ndarray, tokens: Int[np.ndarray, "batch pos"]
) -> Float[np.ndarray, "batch pos d_vocab"]:
    """What one head adds to the logits: gain times the attention each token id receives."""
    head = config.heads[l][h]
    if head.writes != "output":
        return np.zeros((*tokens.shape, config.d_vocab))
    identity = np.eye(config.d_vocab)[tokens]
    return config.unembed_gain * head.gain * np.einsum("bqk,bkv->bqv", p[l, h], identity)


def _raise(logits: Float[np.ndarray, "batch pos d_vocab"]) -> Float[np.ndarray, "batch pos d_vocab"]:
    return np.maximum(logits - logits.mean(axis=-1, keepdims=True), 0.0)


def _ov_copying(config: PlantedConfig) -> Float[np.ndarray, "n_layers n_heads"]:
    """All non-zero eigenvalues of an output head equal gain * beta; of any other head there are none."""
    sign = math.copysign(1.0, config.unembed_gain)
    return np.array(
        [
            [sign * math.copysign(1.0, s.gain) if s.writes == "output" else math.nan for s in layer]
            for layer in config.heads
        ]
    )


def _pattern_scores(a: Float[np.ndarray, "pos pos"], x: Int[np.ndarray, " pos"]) -> dict[str, object]:
    """Every probe of one pattern that needs no weights."""
    n_pos = len(x)
    later = range(1, n_pos)
    weight, ids = a.tolist(), x.tolist()  # plain numbers: loops over an array's own take many times as long
    copies = {q: [j for j in range(q) if ids[j] == ids[q]] for q in range(n_pos)}
    queries = [q for q in range(n_pos) if copies[q]]
    rest = {q: 1.0 - weight[q][0] for q in queries}
    kept = [q for q in queries if rest[q] > MIN_REST_FRAC]
    return {
        "prefix_matching": _mean([sum(weight[q][j + 1] for j in copies[q]) for q in queries]),
        "prefix_matching_sink_free": _mean(
            [sum(weight[q][j + 1] for j in copies[q]) / rest[q] for q in kept]
        ),
        "previous_token": _mean([weight[q][q - 1] for q in later]),
        "duplicate_token": _mean([sum(weight[q][j] for j in copies[q]) for q in queries]),
        "anti_induction": _mean([sum(weight[q][j - 1] for j in copies[q] if j > 0) for q in queries]),
        "sink": _mean([weight[q][0] for q in later]),
        "entropy": _mean([_entropy_nats(weight[q][: q + 1]) / math.log(q + 1) for q in later]),
        "offset_profile": [_mean([weight[q][q - d] for q in range(d, n_pos)]) for d in range(n_pos)],
    }


def _copying_scores(
    a: Float[np.ndarray, "pos pos"], raised: Float[np.ndarray, "pos d_vocab"], x: Int[np.ndarray, " pos"]
) -> dict[str, float]:
    """4a / (a + S) - 1 of one head and sequence, with and without position 0."""
    at = x.tolist()
    sample = sorted(set(at))
    weight, rises = a.tolist(), raised.tolist()
    scores = {}
    for name, first, ids in (
        ("copying_logit", 0, sample),
        ("copying_logit_sink_free", 1, [v for v in sample if v != at[0]]),
    ):
        attended = total = 0.0
        for q in range(1, len(at)):
            mass = float(a[q, first:].sum())
            if mass > MIN_REST_FRAC:
                attended += sum(weight[q][k] * rises[q][at[k]] for k in range(first, q + 1)) / mass
            total += sum(rises[q][v] for v in ids)
        scores[name] = 4 * attended / (attended + total) - 1 if total > 0 else math.nan
    return scores


def _entropy_nats(row: list[float]) -> float:
    return -sum(p * math.log(p) for p in row if p > 0)


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan
