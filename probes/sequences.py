"""What models are shown: token sequences with an id, and the ids that they may be made of. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Int

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.setting import is_whole
from byrote.checkpoints.vocabulary import MAX_IDS, as_ranges, from_ranges
from byrote.probes.results.run_json import MAX_CONTEXT


@dataclass(frozen=True, eq=False, repr=False)
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

    @classmethod
    def from_tokens(
        cls, tokens: Any, *, bos: int | None = None, copies: int = 1, name: str = "own"
    ) -> Stimulus:
        """Sequences of one's own.

        Args:
            tokens: ids [n_seq, pos], one sequence a row, all of one length; or one sequence.
            bos: the id put in front of each; None where position 0 holds it already.
            copies: how often each row is shown, one copy after the other.
            name: begins the id, which ends in a digest of the tokens.

        Returns:
            Where every row is a block that comes again and again, to its end and with one length for all, `copy_index` says
            which copy each position is of; else it is 0 throughout, and nothing counts as copied.

        Raises:
            ByroteError: no whole numbers from 0 on, rows of unequal lengths, or no row; copies or an id that cannot be.
        """
        ids = _whole(tokens)
        if not (is_whole(copies) and 1 <= copies <= MAX_CONTEXT // ids.shape[1]):
            raise ByroteError(
                f"copies={copies!r} is not a number of copies", help="give 1 or more that fit a context"
            )
        if not (bos is None or (is_whole(bos) and bos >= 0)):
            raise ByroteError(f"bos={bos!r} is not a token id", help="give a whole number from 0 on, or None")
        body = np.tile(ids if bos is not None else ids[:, 1:], (1, copies))
        first = np.full((len(ids), 1), bos) if bos is not None else ids[:, :1]
        shown = np.concatenate([first, body], axis=1).astype(np.int64)
        r = period(body)
        copy = np.zeros(shown.shape, dtype=np.int64)
        copy[:, 1:] = np.arange(body.shape[1]) // r + 1 if r else 0
        digest = hashlib.blake2b(shown.tobytes(), digest_size=4).hexdigest()
        sizes = {"pos": shown.shape[1]} | ({"r": r, "m": body.shape[1] // r} if r else {})
        block = f"r{r}m{sizes['m']}" if r else f"l{shown.shape[1]}"
        return cls(f"{name}-{block}-n{len(shown)}-{digest}", name, 0, shown, copy, shown, params=sizes)

    @property
    def n(self) -> int:
        """Number of sequences."""
        return self.tokens.shape[0]

    def __repr__(self) -> str:
        repeats = f", blocks of {self.params['r']} tokens" if "r" in self.params else ""
        return f"Stimulus({self.id!r}: {self.n} sequences of {self.tokens.shape[1]} tokens{repeats})"

    def to_json(self) -> dict[str, Any]:
        """For run.json."""
        return {"id": self.id, "kind": self.kind, "seed": self.seed, "n": self.n, **self.params}


def period(body: Int[np.ndarray, "n_seq pos"]) -> int:
    """Length of the block that every row repeats to its end, at least twice; 0 where there is none."""
    n = body.shape[1]
    return next((r for r in range(1, n // 2 + 1) if (body[:, r:] == body[:, :-r]).all()), 0)


def _kind_of(given: Any, ids: np.ndarray) -> str:
    if given is None or isinstance(given, str) or not ids.size:
        return f"{given!r:.40}"
    return f"{ids.dtype} of shape {list(ids.shape)}" + (
        f", the lowest {ids.min()}" if ids.dtype.kind == "i" else ""
    )


def _whole(tokens: Any) -> Int[np.ndarray, "n_seq pos"]:
    try:
        ids = np.atleast_2d(np.asarray(tokens))
    except ValueError:  # rows of unequal lengths
        ids = np.zeros(0)
    if (
        ids.size == 0
        or ids.ndim != 2
        or ids.shape[1] < 2
        or not np.issubdtype(ids.dtype, np.integer)
        or ids.min() < 0
    ):
        raise ByroteError(
            "own sequences are token ids: whole numbers from 0 on, rows of one length, at least 2 tokens; "
            f"this is {_kind_of(tokens, ids)}",
            help="such as Stimulus.from_tokens([[5, 9, 7], [4, 8, 6]], bos=0, copies=2)",
        )
    return ids.astype(np.int64)


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
        record = {"ids": as_ranges(self.ids.tolist()), "bos": self.bos, "note": self.note, "variants": pairs}
        return record if self.trained else record | {"trained": False}

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
