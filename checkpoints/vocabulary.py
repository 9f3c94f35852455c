"""Which token ids a model really uses, read from its config and tokenizer files without running either."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checkpoints.series import Checkpoint

_SPECIAL_FIELDS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "unk_token_id",
    "sep_token_id",
    "cls_token_id",
)


def usable_ids(checkpoint: Checkpoint, d_vocab: int) -> tuple[list[int], int, str]:
    """Ids a random stimulus may use, the id to put first, and a note on how they were found.

    Args:
        checkpoint: its folder holds config.json and perhaps tokenizer.json.
        d_vocab: rows of the embedding; may exceed the tokenizer's ids (padding rows, never trained).

    Returns:
        (ids ascending, BOS id, note).
    """
    assert checkpoint.config_path is not None, "formats always record the config they found"
    config = json.loads(checkpoint.config_path.read_text(encoding="utf-8"))
    special = {i for name in _SPECIAL_FIELDS for i in _ints(config.get(name))}
    known, added, note = set(range(d_vocab)), set(), ""
    tokenizer = checkpoint.path / "tokenizer.json"
    if tokenizer.is_file():
        read = _tokenizer_ids(tokenizer)
        known, added = read or (known, added)
        note = (
            ""
            if read
            else "tokenizer.json cannot be read: every id below the vocabulary size was taken as usable"
        )
    elif checkpoint.format != "lab":
        note = "no tokenizer.json beside the weights: every id below the vocabulary size was taken as usable"
    bos = next((i for i in _ints(config.get("bos_token_id")) if 0 <= i < d_vocab), None)
    if bos is None:
        bos = next((i for i in _ints(config.get("eos_token_id")) if 0 <= i < d_vocab), 0)
        lacking = f"config.json names no BOS token below the vocabulary size: id {bos} was used"
        note = "; ".join(filter(None, [note, lacking]))
    ids = sorted(i for i in known - special - added - {bos} if 0 <= i < d_vocab)
    return ids, bos, note


def _ints(value: Any) -> Iterator[int]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, int) and not isinstance(item, bool):
            yield item


def _tokenizer_ids(path: Path) -> tuple[set[int], set[int]] | None:
    """All ids and the special ones, or None for a file that is not a tokenizer's."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        vocab = data["model"]["vocab"]
        known = set(vocab.values()) if isinstance(vocab, dict) else set(range(len(vocab)))
        added = {t["id"] for t in data.get("added_tokens") or []}
        special = {t["id"] for t in data.get("added_tokens") or [] if t.get("special")}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return known | added, special
