"""Attention that a sweep was asked to keep: a few sequences per stimulus, one byte per weight. No torch.

arrays/step_00000512/attention.safetensors
    <stimulus>/pattern   uint8  [sequence, layer, head, query, key], 255 = all of the query's attention
    <stimulus>/tokens    int64  [sequence, pos]
    metadata             fingerprint of the weights, ids of the stimuli, and the tokens as text where there is a tokenizer
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open

from checkpoints.errors import RoteError
from probes.stimuli import Stimulus

KINDS = ("repeated_random", "natural", "members")
SCALE = 255
FORMAT = "rote-attention-1"


@dataclass(frozen=True)
class StoredText:
    """One sequence whose attention is kept.

    Attributes:
        stimulus: its kind, such as "repeated_random" or "members".
        stimulus_id: which draw of it.
        index: among the kept sequences of that stimulus.
        tokens: ids.
        words: the same as text; None where the series has no tokenizer.
    """

    stimulus: str
    stimulus_id: str
    index: int
    tokens: Int[np.ndarray, " pos"]
    words: tuple[str, ...] | None


def attention_file(root: Path, step: int) -> Path:
    """Where a step's attention is kept."""
    return root / "arrays" / f"step_{step:08d}" / "attention.safetensors"


def stored_metadata(path: Path) -> dict[str, str]:
    """What the file says of itself; {} where there is none, or none that can be read."""
    try:
        with safe_open(path, framework="numpy") as held:
            found = dict(held.metadata() or {})
    except (OSError, SafetensorError):
        return {}
    return found if found.get("format") == FORMAT else {}


def lacks_attention(root: Path, step: int, *, fingerprint: str, stimuli: Mapping[str, Stimulus]) -> bool:
    """Whether a step's attention is still to be kept, for these weights and these stimuli."""
    found = stored_metadata(attention_file(root, step))
    return found.get("fingerprint") != fingerprint or found.get("stimuli") != stimulus_ids(stimuli)


def kept_kinds(stimuli: Mapping[str, Stimulus]) -> list[str]:
    """The stimuli among these whose attention is kept."""
    return [kind for kind in KINDS if kind in stimuli]


def stimulus_ids(stimuli: Mapping[str, Stimulus]) -> str:
    """Kind -> id of the stimuli that are kept, as written into the file."""
    return json.dumps({kind: stimuli[kind].id for kind in kept_kinds(stimuli)})


def stored_texts(root: Path, step: int) -> list[StoredText]:
    """The sequences whose attention is kept at a step; [] where none is.

    Raises:
        RoteError: the file is damaged.
    """
    return texts_in(attention_file(root, step))


def texts_in(path: Path) -> list[StoredText]:
    """The sequences a file of attention holds; [] where there is no such file.

    Raises:
        RoteError: the file is damaged.
    """
    if not path.is_file():
        return []
    try:
        with safe_open(path, framework="numpy") as held:
            facts = held.metadata() or {}
            ids, words = json.loads(facts.get("stimuli", "{}")), json.loads(facts.get("words", "{}"))
            texts = []
            for kind in ids:
                for i, row in enumerate(held.get_tensor(f"{kind}/tokens")):
                    said = tuple(words[kind][i]) if kind in words else None
                    texts.append(StoredText(kind, str(ids[kind]), i, row.astype(np.int64), said))
            return texts
    except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
        raise _damaged(path) from error


def stored_pattern(
    root: Path, step: int, text: StoredText, *, layer: int, head: int
) -> Float[np.ndarray, "query_pos key_pos"]:
    """Attention of one head on one kept sequence, 0-1 in steps of 1/255; nothing else is read.

    Raises:
        RoteError: the file is damaged, or holds no such head.
    """
    return pattern_in(attention_file(root, step), text, layer=layer, head=head)


def pattern_in(
    path: Path, text: StoredText, *, layer: int, head: int
) -> Float[np.ndarray, "query_pos key_pos"]:
    """As `stored_pattern`, from a file.

    Raises:
        RoteError: the file is damaged, or holds no such head.
    """
    try:
        with safe_open(path, framework="numpy") as held:
            found = held.get_slice(f"{text.stimulus}/pattern")[text.index, layer, head]
    except (OSError, SafetensorError, IndexError) as error:
        raise _damaged(path) from error
    return np.asarray(found, dtype=np.float64).squeeze() / SCALE


def _damaged(path: Path) -> RoteError:
    return RoteError(
        f"the attention kept in {path} cannot be read",
        help="delete that file and run the same sweep again with --save-attention",
    )
