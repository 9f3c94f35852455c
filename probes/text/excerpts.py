"""A sample of a corpus for a model to read: stretches of text, or windows of token ids."""

from __future__ import annotations

from itertools import accumulate

import numpy as np

from byrote.probes.text.chunk import Chunk
from byrote.probes.text.reservoir import Reservoir
from byrote.probes.text.windows import Batch

BYTES_PER_TOKEN = 8  # enough text for a window of any usual tokenizer


class Excerpts:
    """Stretches of documents, each long enough for one window where the document is.

    Args:
        size: stretches kept.
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
