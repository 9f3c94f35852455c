"""Token ids that were never trained, found by what training does to their rows of the embedding. numpy only.

Source: Land and Bartolo 2024, arXiv:2405.05417 (under-trained tokens, by norms of embeddings and by their direction against
ids known to be unused). Which ids are unused is not known here; both indicators look for a group of rows instead.

1. direction: an id that never occurs gets one and the same gradient at every position, as an output. Such rows end up
   parallel: ids whose cosine to a common direction is above 0.98, four or more, where half of the others are below 0.8
2. norm: rows that training never reached are still the noise they were drawn as: of one length but for
   1 / sqrt(2 d_model), in random directions. The ids on one side of the widest gap between sorted norms, a factor of 1.25
   or more, where their spread and their directions are those of noise; of two such sides, one that has at most a third
3. zeros: rows that are exactly 0, where at most half are

A model that was not trained at all has neither gap nor common direction: nothing is found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Bool, Float

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.fingerprint import stored_tensors
from byrote.checkpoints.lint.scan import RESOLUTION, as_floats, words
from byrote.checkpoints.series import Checkpoint, CheckpointSeries
from byrote.checkpoints.stored_bytes import windows_of

PARALLEL, ELSEWHERE = 0.98, 0.8
MIN_GROUP = 4  # fewer parallel rows may be spellings of one word
GAP, SPREAD, MINORITY = 1.25, 1.6, 1 / 3
MIN_WIDTH = 16  # in fewer dimensions directions say little
MAX_NUMBERS = 1 << 30  # of one embedding; a larger one is not looked at
_SEEDS, _PAIRS = 256, 512


def untrained_in(series: CheckpointSeries, d_vocab: int) -> set[int]:
    """Ids that the last step of a series shows to be never trained; none where it is not on this machine.

    Args:
        series: its steps were trained one after the other: what the last has not learned, none has.
        d_vocab: ids.
    """
    last = series[-1]
    return untrained_ids(stored_embeddings(last, d_vocab)) if last.files else set()


def untrained_ids(embeddings: Iterable[Float[np.ndarray, "d_vocab d_model"]]) -> set[int]:
    """Ids that at least one of a model's embeddings shows to be never trained.

    Args:
        embeddings: those that tokens enter by and leave by, one row per id.
    """
    found: set[int] = set()
    for rows in embeddings:
        if rows.shape[1] >= MIN_WIDTH and len(rows) > 2 * MIN_GROUP and np.isfinite(rows).all():
            found |= {int(i) for i in np.flatnonzero(_untrained(rows.astype(np.float32, copy=False)))}
    return found


def _untrained(rows: Float[np.ndarray, "d_vocab d_model"]) -> Bool[np.ndarray, " d_vocab"]:
    norms = np.linalg.norm(rows, axis=1)
    zero = norms == 0
    if zero.mean() > 0.5:
        return np.zeros(len(rows), dtype=bool)
    units = rows / np.where(zero, 1, norms)[:, None]
    return zero | _parallel(units) | _still_noise(units, norms, zero)


def _parallel(units: Float[np.ndarray, "d_vocab d_model"]) -> Bool[np.ndarray, " d_vocab"]:
    """1."""
    rng = np.random.default_rng(0)
    seeds = rng.permutation(len(units))[:_SEEDS]
    close = (units @ units[seeds].T > PARALLEL).sum(0)
    if close.max(initial=0) < MIN_GROUP:
        return np.zeros(len(units), dtype=bool)
    first = units @ units[seeds[int(close.argmax())]] > PARALLEL
    direction = units[first].mean(0)
    cosines = units @ (direction / np.linalg.norm(direction))
    group = cosines > PARALLEL
    others = cosines[~group]
    return group if len(others) and np.median(others) < ELSEWHERE else np.zeros(len(units), dtype=bool)


def _still_noise(
    units: Float[np.ndarray, "d_vocab d_model"],
    norms: Float[np.ndarray, " d_vocab"],
    zero: Bool[np.ndarray, " d_vocab"],
) -> Bool[np.ndarray, " d_vocab"]:
    """2."""
    found = np.zeros(len(units), dtype=bool)
    order = np.argsort(norms)
    order = order[~zero[order]]
    steps = np.diff(np.log(norms[order]))
    at = int(steps.argmax()) + 1
    if steps[at - 1] < np.log(GAP):
        return found
    groups = [group for group in (order[:at], order[at:]) if _is_noise(units[group], norms[group])]
    if (
        len(groups) == 2
    ):  # rows of a small model may look like noise when trained: only a minority is taken then
        groups = [group for group in groups if len(group) <= MINORITY * len(order)]
    for group in groups:
        found[group] = True
    return found


def _is_noise(units: Float[np.ndarray, "n d_model"], norms: Float[np.ndarray, " n"]) -> bool:
    """Whether rows have the spread of norms and the directions of independent normal numbers."""
    n, width = units.shape
    if n < MIN_GROUP or norms.std() > SPREAD * norms.mean() / np.sqrt(2 * width):
        return False
    some = units[np.random.default_rng(0).permutation(n)[:_PAIRS]]
    cosines = (some @ some.T)[~np.eye(len(some), dtype=bool)]
    pairs = len(cosines) / 2
    return bool(
        np.mean(cosines**2) * width < 1 + 4 * np.sqrt(2 / pairs) + 0.1
        and abs(cosines.mean()) < 4 / np.sqrt(width * pairs) + 0.02
    )


def stored_embeddings(checkpoint: Checkpoint, d_vocab: int) -> Iterator[Float[np.ndarray, "d_vocab d_model"]]:
    """The matrices of a checkpoint that have a row, or a column, for every id; none of what cannot be read.

    Args:
        checkpoint: with its files on disk.
        d_vocab: ids.
    """
    try:
        for _, info, raw in stored_tensors(checkpoint):
            if len(info.shape) != 2 or d_vocab not in info.shape or info.dtype not in RESOLUTION:
                continue
            rows, columns = info.shape
            if rows * columns > MAX_NUMBERS or rows == columns:
                continue
            parts = [as_floats(words(window, info.dtype), info.dtype) for window in windows_of(raw)]
            matrix = np.concatenate(parts).reshape(info.shape)
            yield matrix if rows == d_vocab else np.ascontiguousarray(matrix.T)
    except (CheckpointError, OSError, ValueError):
        return  # the sweep says of a step what is wrong with it
