"""What a step's config and tokenizer files say, reduced to what can be compared between steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import xxhash

from byrote.checkpoints.series import Checkpoint

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
DESCRIBING = frozenset(
    ("special_tokens_map.json", "tokenizer_config.json")
)  # how it is used, not what ids mean
_RUN_TIME = ("truncation", "padding", "version")  # of tokenizer.json: left behind by whoever used it last


def config_fields(checkpoint: Checkpoint) -> dict[str, str]:
    """Top-level fields of the config, each as JSON text; {} where there is no JSON config."""
    data = {} if checkpoint.config_path is None else _json(checkpoint.config_path)
    return {k: json.dumps(v, sort_keys=True) for k, v in data.items()} if isinstance(data, dict) else {}


def tokenizer_digests(checkpoint: Checkpoint, known: dict[str, str]) -> dict[str, str]:
    """Hash of what each tokenizer file in the step's folder says.

    Args:
        checkpoint: with its files on disk.
        known: what files of these bytes were found to say; added to, so that equal files are parsed once.
    """
    digests = {}
    for name in TOKENIZER_FILES:
        path = checkpoint.path / name
        if path.is_file():
            raw = path.read_bytes()
            key = f"{name} {_digest(raw)}"
            if key not in known:
                known[key] = _digest(_essence(path, raw))
            digests[name] = known[key]
    return digests


def _essence(path: Path, raw: bytes) -> bytes:
    """A JSON file without the order of its keys and without what is set anew at each use; others as they are."""
    data = _json(path) if path.suffix == ".json" else None
    if not isinstance(data, dict):
        return raw
    data = {k: v for k, v in data.items() if path.name != "tokenizer.json" or k not in _RUN_TIME}
    return json.dumps(data, sort_keys=True).encode()


def _json(path: Path) -> Any:
    """A JSON file; None where it cannot be read as one, which the format already judged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _digest(raw: bytes) -> str:
    return xxhash.xxh3_64(raw).hexdigest()
