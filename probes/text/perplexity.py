"""How surprising is each stretch of a corpus to a given model, and how long is the tail?

Source: perplexity distributions of human and synthetic text in Zhu et al. 2024 (arXiv:2412.14689).

1. A sample of stretches of the corpus is tokenised by the model's own tokenizer, cut to the context length, BOS first.
2. The perplexity of a stretch is exp(mean loss per token in nats).
3. `loss` is mean loss per token over all stretches; `p05` ... `p99` are quantiles of the perplexities; `tail_ratio` is
   p99 / p50.
4. `overlap` with the reference is the sum over bins of the smaller of both shares, in 20 bins that hold equal parts of
   both samples together. Chance: the reference's even stretches against its odd ones.
5. `editable_share` is the share of tokens to which the model gives a probability of 0.99 or more, those that ToEdit (same
   paper) resamples; `probability_0` ... `probability_9` are the shares with a probability in each tenth.
6. `below_reference_p25` is the share of stretches below the reference's lower quartile. Chance: 0.25.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.texts import Chunk
from byrote.checkpoints.tokenizing import open_tokenizer
from byrote.probes.rules import EDITABLE_P
from byrote.probes.statistics import linearised_interval, pair_interval, ratio_intervals, sample_interval
from byrote.probes.text.blocks import Reservoir
from byrote.probes.text.report import Number
from byrote.probes.text.windows import Batch

NAME = "perplexity"
QUANTILES = (5, 25, 50, 75, 95, 99)
BINS = 20
TENTHS = 10
_LOGIT_BYTES = 1 << 27
_MAX_ROWS = 16
BYTES_PER_TOKEN = 8  # enough text for a window of any usual tokenizer


class Excerpts:
    """A sample of a corpus for a model to read: stretches of documents, each long enough for one window where the
    document is, or windows of token ids.

    Args:
        size: stretches stored.
        context: tokens of a window.
        seed: of the draw.
    """

    def __init__(self, size: int, *, context: int, seed: int) -> None:
        self._reservoir = Reservoir(size, seed=seed)
        self._bytes = BYTES_PER_TOKEN * context

    @property
    def items(self) -> list[str | np.ndarray]:
        """The sample: text, or token ids."""
        return self._reservoir.items

    def add_chunk(self, chunk: Chunk) -> None:
        """Offer the stretches of a chunk; a short end belongs to the stretch before it."""
        counts = [max(1, (len(part) + self._bytes // 2) // self._bytes) for part in chunk.parts]
        firsts = np.asarray([0, *accumulate(counts)])
        for item, place in self._reservoir.places(int(firsts[-1])):
            part = int(np.searchsorted(firsts, item, side="right")) - 1
            start = (item - int(firsts[part])) * self._bytes
            text = chunk.parts[part][start : start + self._bytes + self._bytes // 2]
            if start:  # not half a word
                text = text[text.find(b" ") + 1 :]
            self._reservoir.keep(place, text.decode("utf-8", "ignore"))

    def add_batch(self, batch: Batch) -> None:
        """Offer the windows of a batch of ids."""
        stops = np.append(batch.windows[1:], len(batch.tokens))
        for item, place in self._reservoir.places(len(batch.windows)):
            ids = batch.tokens[batch.windows[item] : stops[item]]
            self._reservoir.keep(place, ids.astype(np.int64))


class Reader:
    """A model that reads stretches of text; torch is imported when one is made.

    Args:
        path: a checkpoint, or a series whose last step is taken.
        tokenizer: used where the model has none of its own beside it.
        context: most tokens per stretch.
        device, dtype: of the model.
        threads: CPU threads; None means one for a small model, else torch's own choice.

    Raises:
        CheckpointError: the path is no checkpoint that can be read.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        tokenizer: Path | None,
        context: int,
        device: str,
        dtype: str,
        threads: int | None = None,
    ) -> None:
        import torch

        from byrote.checkpoints.opening import open_series
        from byrote.checkpoints.series import at_hand
        from byrote.checkpoints.vocabulary import tokenizer_of
        from byrote.interp.loading import load_fresh
        from byrote.probes.sweep.run import SMALL_MODEL_PARAMETERS

        checkpoint = open_series(path)[-1]
        with at_hand(checkpoint) as ready:
            self._model = load_fresh(ready, device=device, dtype=getattr(torch, dtype))
            self._tokenizer_path = tokenizer_of(ready) or tokenizer
        small = sum(p.numel() for p in self._model.parameters.values()) < SMALL_MODEL_PARAMETERS
        self._threads = threads or (1 if small else None)
        self.n_vocab = self._model.shape.d_vocab
        self.step = checkpoint.step
        bos = self._model.config.get("bos_token_id")
        self._bos = bos if isinstance(bos, int) and 0 <= bos < self.n_vocab else None
        self.context = min(context, self._model.shape.n_ctx - (self._bos is not None))

    def losses(self, items: Sequence[str | np.ndarray]) -> Float[np.ndarray, "n columns"]:
        """Of every stretch with at least one token to predict: summed loss in nats, tokens, those of them that are editable,
        and those whose probability lies in each tenth.

        Raises:
            ByroteError: no tokenizer for text, ids the model does not have, or a loss that is not finite.
        """
        rows = sorted((self._ids(item) for item in self._encoded(items)), key=len)
        rows = [row for row in rows if len(row) > 1]
        with _threads(self._threads):
            found = [self._batch(part) for part in self._parts(rows)]
        losses = np.concatenate(found) if found else np.zeros((0, 3 + TENTHS))
        if not np.isfinite(losses).all():
            raise ByroteError("the model's loss is not finite", help="try --dtype float32")
        return losses

    def _encoded(self, items: Sequence[str | np.ndarray]) -> list[np.ndarray]:
        """Every stretch as ids: texts by the model's tokenizer, ids as they are."""
        texts = [item for item in items if isinstance(item, str)]
        if texts and self._tokenizer_path is None:
            raise ByroteError("the model has no tokenizer.json beside it", help="give one: --tokenizer")
        ids: Iterator[np.ndarray] = iter(())
        if texts:
            with open_tokenizer(self._tokenizer_path) as tokenizer:
                ids = iter(tokenizer.encode(texts))
        return [next(ids).astype(np.int64) if isinstance(item, str) else item for item in items]

    def _ids(self, item: np.ndarray) -> np.ndarray:
        """BOS (where the model has one) and at most `context` ids."""
        if len(item) and int(item.max()) >= self.n_vocab:
            raise ByroteError(
                f"id {int(item.max())} is not in the model's vocabulary of {self.n_vocab}",
                help="the ids or the tokenizer belong to another model",
            )
        if self._bos is None:
            return item[: self.context]
        body = item[1:] if len(item) and item[0] == self._bos else item
        return np.concatenate([[self._bos], body[: self.context]])

    def _parts(self, rows: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """Rows of like length, few enough that their logits fit."""
        part: list[np.ndarray] = []
        for row in rows:
            fit = _LOGIT_BYTES // (4 * self.n_vocab * len(row))
            if part and len(part) >= min(_MAX_ROWS, max(1, fit)):
                yield part
                part = []
            part.append(row)
        if part:
            yield part

    def _batch(self, rows: list[np.ndarray]) -> np.ndarray:
        import torch

        lengths = np.asarray([len(row) for row in rows])
        padded = np.zeros((len(rows), int(lengths.max())), dtype=np.int64)
        for i, row in enumerate(rows):
            padded[i, : len(row)] = row  # padding comes after: a causal model never sees it
        tokens = torch.from_numpy(padded)
        with torch.inference_mode():
            logits = self._model.logits(tokens)[:, :-1].float()
            aim = tokens[:, 1:].to(logits.device)
            nll = logits.logsumexp(-1) - logits.gather(-1, aim[..., None])[..., 0]
        predicted = np.arange(padded.shape[1] - 1)[None] < lengths[:, None] - 1
        nats = nll.double().cpu().numpy()
        p = np.where(predicted, np.exp(-nats), np.nan)
        tenth = np.clip(np.floor(p * TENTHS), 0, TENTHS - 1)
        found = [np.where(predicted, nats, 0.0), predicted, p >= EDITABLE_P]
        return np.stack([part.sum(1) for part in (*found, *(tenth == i for i in range(TENTHS)))], axis=1)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def numbers(
    losses: Float[np.ndarray, "n columns"],
    reference: Float[np.ndarray, "m columns"] | None,
    *,
    n_vocab: int,
    seed: int,
) -> Iterator[Number]:
    """The distribution of one corpus; with the reference's, how far they overlap.

    Args:
        losses: summed loss in nats, tokens, editable ones and those in each tenth, per stretch.
        reference: the same of the reference.
        n_vocab: of the model, for the level of guessing.
        seed: of the bootstrap.
    """
    number = partial(Number, NAME, n=len(losses), resampled="stretches")
    loss, editable, *tenths = ratio_intervals(
        np.delete(losses, 1, axis=1), losses[:, [1]].repeat(2 + TENTHS, 1), seed=seed
    )
    mean = losses[:, 0] / losses[:, 1]
    perplexity = np.exp(mean)
    yield number("loss", loss, "nats", float(np.log(n_vocab)))
    for q in QUANTILES:
        found = sample_interval(perplexity, partial(np.percentile, q=q, axis=-1), seed=seed)
        yield number(f"p{q:02d}", found, "perplexity", float(n_vocab))
    yield number("editable_share", editable, "fraction")
    for i, tenth in enumerate(tenths):
        yield number(f"probability_{i}", tenth, "fraction")
    yield number("tail_ratio", sample_interval(perplexity, tail_ratio, seed=seed), "ratio")
    if reference is None:
        return
    other = reference[:, 0] / reference[:, 1]
    value, *left_out = overlap(mean, other)
    halves = overlap(other[0::2], other[1::2])[0] if len(other) > 3 else np.nan
    yield number("overlap", linearised_interval(value, left_out, seed=seed), "fraction", halves)
    below = pair_interval(mean, other, share_below_p25, seed=seed)
    yield number("below_reference_p25", below, "fraction", 0.25)


def share_below_p25(
    a: Float[np.ndarray, "*draws n"], b: Float[np.ndarray, "*draws m"]
) -> Float[np.ndarray, "*draws"]:
    """Share of the first sample below the lower quartile of the second."""
    return np.asarray((a < np.percentile(b, 25, axis=-1)[..., None]).mean(-1))


def tail_ratio(perplexity: Float[np.ndarray, "*draws n"]) -> Float[np.ndarray, "*draws"]:
    """p99 / p50 over the last axis."""
    p50, p99 = np.percentile(perplexity, (50, 99), axis=-1)
    return np.asarray(p99 / p50)


def overlap(
    a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"]
) -> tuple[float, Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """Overlap of two samples, and its value without each item of the first and of the second."""
    edges = np.quantile(np.concatenate([a, b]), np.linspace(0, 1, BINS + 1)[1:-1])
    bins = [np.searchsorted(edges, sample, side="right") for sample in (a, b)]
    counts = [np.bincount(where, minlength=BINS).astype(np.float64) for where in bins]
    shares = [count / count.sum() for count in counts]
    left_out = []
    for i, where in enumerate(bins):
        without = (counts[i] - np.eye(BINS)) / max(1, len(where) - 1)
        left_out.append(np.minimum(without, shares[1 - i]).sum(1)[where])
    return float(np.minimum(*shares).sum()), left_out[0], left_out[1]
