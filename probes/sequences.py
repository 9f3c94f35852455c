"""What models are shown: token sequences with an id, and the ids that they may be made of. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Int

from byrote.checkpoints.vocabulary import MAX_IDS, as_ranges, from_ranges


@dataclass(frozen=True, eq=False)
class Stimulus:
    """Sequences that every step of a series, and both sides of a comparison, are measured on.

    Attributes:
        id: kind, sizes, seed and digest of the tokens.
        kind: name in `STIMULI`.
        seed: of the random draws.
        tokens: ids, BOS at position 0.
        copy_index: which copy of the block a position belongs to: 0 for BOS, then 1, 2, ...
        match_tokens: the ids by which "an earlier copy" is decided. Equal to `tokens`, except on the null, where
            they are the repeated ids: the same positions are scored with nothing to match.
        params: sizes, for methods and provenance.
        extra: further arrays, one row per sequence, that probes ask for by name (repeat counts, planted targets).
    """

    id: str
    kind: str
    seed: int
    tokens: Int[np.ndarray, "batch pos"]
    copy_index: Int[np.ndarray, "batch pos"]
    match_tokens: Int[np.ndarray, "batch pos"]
    params: Mapping[str, int] = field(default_factory=dict)
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of sequences."""
        return self.tokens.shape[0]

    def to_json(self) -> dict[str, Any]:
        """For run.json."""
        return {"id": self.id, "kind": self.kind, "seed": self.seed, "n": self.n, **self.params}


@dataclass(frozen=True)
class Vocabulary:
    """Ids that stimuli may use.

    Attributes:
        ids: usable ids: no special tokens, no never-trained padding.
        bos: the id put at position 0.
        note: how they were found, when that needs saying.
        variants: pairs of ids whose texts are variants of one word; empty where ids have no text.
        trained: whether ids that were never trained were looked for.
    """

    ids: Int[np.ndarray, " n_ids"]
    bos: int
    note: str = ""
    variants: tuple[tuple[int, int], ...] = ()
    trained: bool = True

    def to_json(self) -> dict[str, Any]:
        """For run.json, so that the same command again draws the same stimuli without loading a model."""
        pairs = [list(pair) for pair in self.variants]
        said = {"ids": as_ranges(self.ids.tolist()), "bos": self.bos, "note": self.note, "variants": pairs}
        return said if self.trained else said | {"trained": False}

    def fits(self, d_vocab: int) -> bool:
        """Whether all of its ids are among those of a model."""
        ids = [int(self.ids.min()), int(self.ids.max()), self.bos, *chain.from_iterable(self.variants)]
        return all(0 <= i < d_vocab for i in ids)

    @classmethod
    def from_json(cls, data: Any) -> Vocabulary | None:
        """What `to_json` wrote; None for anything else."""
        try:
            ids = np.asarray(from_ranges(data["ids"]), dtype=np.int64)
            variants = tuple((int(first), int(second)) for first, second in data["variants"])
            bos, note = data["bos"], data["note"]
            if not ids.size or type(bos) is not int or not 0 <= bos < MAX_IDS or not isinstance(note, str):
                return None
            return cls(ids, bos, note, variants, data.get("trained") is not False)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
            return None
