"""Token ids that a model uses, read from its config and tokenizer files without running either."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from byrote.checkpoints.safe_read import read_json
from byrote.checkpoints.series import Checkpoint
from byrote.checkpoints.tokenizing import MAX_TOKENIZER_BYTES

MAX_IDS = 10_000_000  # the largest vocabularies in use have 300 thousand
_MAX_VALUES = 1 << 23  # of a tokenizer.json: that many ids, and two words for each merge
MAX_VARIANTS = 256  # pairs; a stimulus draws a few dozen
_SPACE = "\u0120\u2581"  # how byte-level and sentence-piece vocabularies write the space before a word
_BYTE = re.compile(r"<0x[0-9A-F]{2}>", re.ASCII)
MIN_USABLE = 32  # ids that must remain; a random block has 25 different ones
PER_ID = 100  # tokens of text per id: one that is as frequent as a hundredth of the average occurs with 63%
_WORD = re.compile(r"[A-Za-z]{3,}", re.ASCII)
_SPECIAL_FIELDS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "unk_token_id",
    "sep_token_id",
    "cls_token_id",
)


def tokenizer_of(checkpoint: Checkpoint) -> Path | None:
    """The tokenizer.json of a checkpoint: in its folder, beside its file, or beside its config; None where none is."""
    folders = [checkpoint.path, checkpoint.path.parent]
    if checkpoint.config_path is not None:
        folders.append(checkpoint.config_path.parent)
    return next((file for folder in folders if (file := folder / "tokenizer.json").is_file()), None)


def usable_ids(
    config: Mapping[str, Any],
    d_vocab: int,
    *,
    tokenizer: Path | None = None,
    untrained: Iterable[int] = (),
    produced: Mapping[int, int] | None = None,
) -> tuple[list[int], int, str]:
    """Ids a random stimulus may use, the id to put first, and a note on how they were found.

    Left out, where at least `MIN_USABLE` others remain: ids that were never trained; byte fallbacks, which stand for the
    bytes of characters that a tokenizer does not know; ids that do not occur in a text long enough to hold them.

    Args:
        config: the model's config, for its special ids.
        d_vocab: rows of the embedding; may exceed the tokenizer's ids (padding rows, never trained).
        tokenizer: a tokenizer.json, where there is one.
        untrained: ids that were never trained; see `byrote.checkpoints.untrained`.
        produced: id -> how often the tokenizer produced it in a sample of text; used from `PER_ID` tokens per id.

    Returns:
        (ids ascending, BOS id, note).
    """
    special = {i for name in _SPECIAL_FIELDS for i in _ints(config.get(name))}
    known, notes = set(range(d_vocab)), []
    added: set[int] = set()
    if tokenizer is not None and tokenizer.is_file():
        read = _tokenizer_ids(tokenizer)
        known, added = read or (known, added)
        if read is None:
            notes.append(
                "tokenizer.json cannot be read: every id below the vocabulary size was treated as usable"
            )
    elif config.get("model_type") != "transformer_lens_native":
        notes.append(
            "no tokenizer.json beside the weights: every id below the vocabulary size was treated as usable"
        )
    bos = next((i for i in _ints(config.get("bos_token_id")) if 0 <= i < d_vocab), None)
    if bos is None:
        bos = next((i for i in _ints(config.get("eos_token_id")) if 0 <= i < d_vocab), 0)
        notes.append(f"the config names no BOS token below the vocabulary size: id {bos} was used")
    ids = {i for i in known - special - added - {bos} if 0 <= i < d_vocab}
    fallbacks = _byte_fallbacks(tokenizer)
    unseen = set()
    if produced is not None and sum(produced.values()) >= PER_ID * len(ids - fallbacks):
        unseen = {i for i in ids if not produced.get(i)}
    for found, what in (
        (fallbacks, "byte fallbacks"),
        (set(untrained), "never trained, by norms and directions of their embeddings"),
        (unseen, "never produced by the tokenizer on the given text"),
    ):
        apart = found & ids
        if apart and len(ids - apart) >= MIN_USABLE:
            ids -= apart
            notes.append(f"{len(apart):,} ids were left out of random sequences: {what}")
        elif apart:
            notes.append(
                f"{len(apart):,} ids are in random sequences although {what}: too few other ids remain"
            )
    return sorted(ids), bos, "; ".join(notes)


def _byte_fallbacks(tokenizer: Path | None) -> set[int]:
    read = _read(tokenizer) if tokenizer is not None and tokenizer.is_file() else None
    return {i for text, i in read[0].items() if _BYTE.fullmatch(text)} if read else set()


def variant_pairs(tokenizer: Path | None, ids: Sequence[int]) -> list[list[int]]:
    """Pairs of ids whose texts are variants of one English word: known without any weights.

    The second has a plural s more than the first, else is written in other case, else has a space before it more or
    less; words of three letters or more, each word in one pair at most.

    Args:
        tokenizer: a tokenizer.json; None, or one that cannot be read, gives no pairs.
        ids: usable ids; both of a pair are among them.

    Returns:
        Up to `MAX_VARIANTS` pairs, ascending, the same for the same vocabulary.
    """
    texts = _words(tokenizer, set(ids)) if tokenizer is not None and tokenizer.is_file() else {}
    by_word: dict[str, list[tuple[str, str]]] = {}
    for space, word in sorted(texts):
        by_word.setdefault(word.lower(), []).append((space, word))
    pairs: list[list[int]] = []
    taken: set[str] = set()
    for written in by_word.values():
        plural = [((space, text), (space, text + "s")) for space, text in written]
        cased = [(one, other) for one in written for other in written if one[0] == other[0] and one < other]
        spaced = [(one, other) for one in written for other in written if one[0] < other[0]]
        found = next((pair for pair in (*plural, *cased, *spaced) if pair[1] in texts), None)
        if found is None or {part[1].lower() for part in found} & taken:
            continue
        taken |= {part[1].lower() for part in found}
        pairs.append([texts[part] for part in found])
    chosen = random.Random(0).sample(
        pairs, min(len(pairs), MAX_VARIANTS)
    )  # not only the first in the alphabet
    return sorted(chosen)


def _words(tokenizer: Path, usable: set[int]) -> dict[tuple[str, str], int]:
    """(space before it, letters) of every token that is a word -> its id."""
    found = {}
    for text, token in (_read(tokenizer) or ({}, {}))[0].items():
        space, word = ("", text) if text[:1] not in _SPACE else (text[:1], text[1:])
        if token in usable and _WORD.fullmatch(word):
            found[space, word] = token
    return found


def as_ranges(ids: Sequence[int]) -> list[list[int]]:
    """Ascending ids as [first, last] ranges: ``[1, 2, 3, 7]`` is ``[[1, 3], [7, 7]]``."""
    ranges: list[list[int]] = []
    for i in ids:
        if ranges and ranges[-1][1] == i - 1:
            ranges[-1][1] = i
        else:
            ranges.append([i, i])
    return ranges


def from_ranges(ranges: Sequence[Sequence[int]]) -> list[int]:
    """The inverse of `as_ranges`.

    Raises:
        ValueError: more than `MAX_IDS` ids, or no ranges of them.
    """
    total = 0
    for first, last in ranges:
        if type(first) is not int or type(last) is not int or not 0 <= first <= last:
            raise ValueError("ranges of ids are pairs of whole numbers")
        total += last - first + 1
        if total > MAX_IDS or last > MAX_IDS:
            raise ValueError(f"more than {MAX_IDS:,} ids")
    return [i for first, last in ranges for i in range(first, last + 1)]


def _ints(value: Any) -> Iterator[int]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, int) and not isinstance(item, bool):
            yield item


def _tokenizer_ids(path: Path) -> tuple[set[int], set[int]] | None:
    """All ids and the special ones, or None for a file that is not a tokenizer's."""
    read = _read(path)
    if read is None:
        return None
    vocab, added = read
    return set(vocab.values()) | set(added), {i for i, special in added.items() if special}


def _read(path: Path) -> tuple[dict[str, int], dict[int, bool]] | None:
    """Text -> id, and added id -> whether it is special; None for a file that is not a tokenizer's."""
    try:
        data = read_json(path, max_bytes=MAX_TOKENIZER_BYTES, max_values=_MAX_VALUES, follow_links=True)
        vocab = data["model"]["vocab"]
        if not isinstance(vocab, dict):
            vocab = {entry[0]: i for i, entry in enumerate(vocab)}
        added = {t["id"]: bool(t.get("special")) for t in data.get("added_tokens") or []}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    sound = all(type(i) is int for i in (*vocab.values(), *added)) and all(isinstance(t, str) for t in vocab)
    return (vocab, added) if sound else None
