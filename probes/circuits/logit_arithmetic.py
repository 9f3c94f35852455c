"""Logit arithmetic: what does a later step add to an earlier step's logits, on members, on repeats and on fresh text?

Source: differences of logits between models as something that can be scaled and added: Mitchell et al. 2023,
arXiv:2310.12962 (emulated fine-tuning), and Liu et al. 2024, arXiv:2401.08565 (proxy tuning); here the two models are two steps
of one series, and the difference is what training between them did. The measures and the texts compared are byrote's own.

1. texts: `members` and `fresh` (twins), scored on the first block, where nothing can be copied; `repeats`: random tokens
   repeated, scored on later blocks but their first tokens, where
   everything can; `natural`: held-out text, all of it
2. d = logits of the step `to` minus logits of the step `from` at the same place, minus the mean of that over the vocabulary
3. raised = d of the right token; size = root mean square of d over the vocabulary; both in logits, mean over the places scored,
   one value per sequence
4. loss = mean loss of logits_from + scale * d at scale 0 (the step `from`), 0.5, 1 (the step `to`), 1.5 and 2: half of what was
   added, and more of it than there was
5. raised_excess = raised of a text minus raised of `fresh`: paired where a text's sequences are those of fresh, which no text's
   are, so both are resampled apart
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.series import CheckpointSeries, at_hand
from byrote.checkpoints.token_sets import token_sets_of
from byrote.checkpoints.vocabulary import tokenizer_of, usable_ids
from byrote.interp.loading import load_fresh
from byrote.interp.model import HookedModel
from byrote.probes.memory.spans import first_block, mean_over
from byrote.probes.model.repeat_loss import can_be_copied
from byrote.probes.statistics import bootstrap_mean, two_sample_interval
from byrote.probes.stimuli import Stimulus, Vocabulary, make

TEXTS: Mapping[str, str] = {
    "members": "members", "fresh": "twins", "repeats": "repeated_random", "natural": "natural"
}  # fmt: skip
SCALES = (0.0, 0.5, 1.0, 1.5, 2.0)
COLUMNS = ("from_step", "to_step", "text", "metric", "scale", "value", "lo", "hi", "n", "valid", "reason")
_BATCH_BYTES = 1 << 28
_SMALLEST_BATCH = 1


def logit_arithmetic(
    series: CheckpointSeries,
    *,
    from_step: int,
    to_step: int,
    seed: int = 0,
    n_seq: int = 32,
    device: str = "cpu",
    dtype: str = "float32",
) -> pd.DataFrame:
    """What one step's logits have that another's have not, on every text the series carries.

    Args:
        series: holds both steps; both models are in memory at once.
        from_step, to_step: steps of it.
        seed: of the tokens and bootstraps.
        n_seq: sequences, as of a sweep.
        device, dtype: where and how the models run.

    Returns:
        One row per text, metric and scale, in `COLUMNS`: `raised`, `size` and `raised_excess` in logits, `loss` in nats for each
        of `SCALES` (NaN scale for the others). Where valid is False, reason says why.

    Raises:
        ByroteError: a step there is not, or two steps of other shapes.
        CheckpointError: a step that cannot be loaded.
    """
    before, after = (_load(series, step, device, dtype) for step in (from_step, to_step))
    if before.shape != after.shape:
        raise ByroteError(
            f"steps {from_step:,} and {to_step:,} have models of different shapes",
            help="take two steps of one series",
        )
    stimuli, refused = _texts(series, before, seed=seed, n_seq=n_seq)
    found = {text: added(before, after, shown) for text, shown in stimuli.items()}
    fresh = found.get("fresh", {}).get("raised")
    rows: list[dict[str, object]] = []
    for text in TEXTS:
        rows += _rows(text, found.get(text), refused.get(text, ""), fresh=fresh, seed=seed)
    frame = pd.DataFrame(rows)
    frame["from_step"], frame["to_step"] = from_step, to_step
    return frame[list(COLUMNS)]


def _load(series: CheckpointSeries, step: int, device: str, dtype: str) -> HookedModel:
    checkpoint = series.at(step)
    with at_hand(checkpoint) as ready:
        return load_fresh(ready, device=device, dtype=getattr(torch, dtype))


def _texts(
    series: CheckpointSeries, model: HookedModel, *, seed: int, n_seq: int
) -> tuple[dict[str, Stimulus], dict[str, str]]:
    """The texts a sweep with the same seed would show, and why the others cannot be shown."""
    ids, bos, note = usable_ids(model.config, model.shape.d_vocab, tokenizer=tokenizer_of(series[0]))
    vocabulary, sets = Vocabulary(np.asarray(ids, dtype=np.int64), bos, note), token_sets_of(series)
    found: dict[str, Stimulus] = {}
    refused: dict[str, str] = {}
    for text, kind in TEXTS.items():
        try:
            found[text] = make(
                kind, vocabulary, n_ctx=model.shape.n_ctx, seed=seed, n_seq=n_seq, token_sets=sets
            )
        except ByroteError as error:
            refused[text] = error.message
    return found, refused


def added(before: HookedModel, after: HookedModel, shown: Stimulus) -> dict[str, Float[np.ndarray, n * k]]:
    """`raised` and `size` in logits and `loss` [n, scales] in nats, per sequence.

    Args:
        before, after: two models of one shape.
        shown: the sequences; see `scored` for which of their places count.
    """
    tokens, where = torch.from_numpy(shown.tokens), scored(shown)
    parts: dict[str, list[Tensor]] = {"raised": [], "size": [], "loss": []}
    for rows in _batches(len(tokens), tokens.shape[1], before.shape.d_vocab):
        own, mask = tokens[rows], where[rows]
        start = before.logits(own)[:, :-1].double().cpu()
        d = after.logits(own)[:, :-1].double().cpu() - start
        d -= d.mean(-1, keepdim=True)  # 2.
        right = own[:, 1:, None]
        parts["raised"].append(mean_over(d.gather(-1, right)[..., 0], mask))  # 3.
        parts["size"].append(mean_over(d.pow(2).mean(-1).sqrt(), mask))
        losses = [mean_over(_nll(start + scale * d, right), mask) for scale in SCALES]  # 4.
        parts["loss"].append(torch.stack(losses, dim=1))
    return {name: torch.cat(own).numpy() for name, own in parts.items()}


def scored(shown: Stimulus) -> Bool[Tensor, "n next_pos"]:
    """Which predicted tokens count: later copies of what repeats itself, first blocks of members and twins, all of a text."""
    if shown.kind == "repeated_random":
        return can_be_copied(torch.from_numpy(shown.copy_index))
    if shown.kind in ("members", "twins"):
        start = torch.from_numpy(shown.extra["second_block_start"])
        return first_block(start, shown.tokens.shape[1] - 1)
    return torch.ones(shown.n, shown.tokens.shape[1] - 1, dtype=torch.bool)


def _batches(n: int, pos: int, d_vocab: int) -> Iterator[slice]:
    size = max(_SMALLEST_BATCH, _BATCH_BYTES // (8 * pos * d_vocab))
    return (slice(start, start + size) for start in range(0, n, size))


def _nll(logits: Tensor, right: Tensor) -> Tensor:
    return logits.logsumexp(-1) - logits.gather(-1, right)[..., 0]


def _rows(
    text: str, found: Mapping[str, np.ndarray] | None, refused: str, *, fresh: np.ndarray | None, seed: int
) -> Iterator[dict[str, object]]:
    metrics = [("raised", np.nan), ("size", np.nan), *(("loss", scale) for scale in SCALES)]
    metrics += [("raised_excess", np.nan)] if text != "fresh" else []
    for metric, scale in metrics:
        ends, n, reason = (np.nan, np.nan, np.nan), 0, refused
        if found is not None and metric == "raised_excess":
            reason = "there is no fresh text to compare it with"
            if fresh is not None:
                ends = two_sample_interval(found["raised"], fresh, lambda a, b: a - b, seed=seed)  # 5.
                n = len(found["raised"])
        elif found is not None:
            samples = found[metric] if metric != "loss" else found["loss"][:, SCALES.index(scale)]
            interval = bootstrap_mean(samples[:, None], seed=seed)
            ends, n = (interval.value.item(), interval.lo.item(), interval.hi.item()), int(interval.n[0])
        value, lo, hi = ends
        valid = bool(np.isfinite(value))
        why = "" if valid else reason or "the logits are not finite"
        yield {
            "text": text, "metric": metric, "scale": scale, "value": value, "lo": lo, "hi": hi, "n": n,
            "valid": valid, "reason": why,
        }  # fmt: skip
