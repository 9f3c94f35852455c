"""Stored attention patterns of a sweep: a few sequences per stimulus, one byte per weight. No torch.

arrays/step_00000512/attention.safetensors
    <stimulus>/pattern         uint8    [sequence, layer, head, query, key], 255 = all of the query's attention
    <stimulus>/tokens          int64    [sequence, pos]
    <stimulus>/written_ids     int32    [sequence, layer, head, pos, 10], see `Writes`
    <stimulus>/written_logits  float16  the same
    vocabulary/ids, /ends, /text        text of the ids written: where each ends in one stretch of UTF-8
    metadata                   fingerprint of the weights, ids of the stimuli, the tokens as text where there is a
                               tokenizer, "unwritten": why there is no written_ids, "" where there is, and "wordless":
                               why a tokenizer gave no texts, left out where it did

A file of the first version has neither what is written nor the reason; it is read, and written anew when requested again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError

from byrote.checkpoints.array_files import open_arrays
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.former_name import same_format
from byrote.checkpoints.safe_read import FileRefused, own_path
from byrote.probes.stimuli import Stimulus
from byrote.probes.wording import probe_name

KINDS = ("repeated_random", "natural", "members")
SCALE = 255
FORMAT = "byrote-attention-2"
FORMATS = ("byrote-attention-1", FORMAT)
WORDLESS = "wordless"
NO_TOKENIZER = "this series has no tokenizer"
N_SAVED = 2
MEMORISED = frozenset({"members"})  # training sequences: their tokens are masked until somebody reveals them
WRITTEN_BYTES = 60  # of one head at one position: 10 ids and 10 numbers
_DAMAGE = (
    OSError,
    SafetensorError,
    FileRefused,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
)  # whatever a file that says anything at all can lead to
NOT_SAVED = "it was not saved: run the same sweep again with --save-attention"


@dataclass(frozen=True)
class StoredText:
    """One sequence whose attention is saved.

    Attributes:
        stimulus: its kind, such as "repeated_random" or "members".
        stimulus_id: which draw of it.
        index: among the saved sequences of that stimulus.
        tokens: ids.
        words: the same as text; None where the series has no tokenizer, or its tokenizer failed.
        wordless: why there are no words.
    """

    stimulus: str
    stimulus_id: str
    index: int
    tokens: Int[np.ndarray, " pos"]
    words: tuple[str, ...] | None
    wordless: str = NO_TOKENIZER


@dataclass(frozen=True)
class Writes:
    """What one head adds to the logits at every position of a saved sequence; see `byrote.interp.logit_attribution`.

    Attributes:
        ids: the 5 tokens raised most, the most raised first, then the 5 lowered most, the most lowered first; all of
            either where the vocabulary is smaller.
        logits: the head's direct contribution to each, minus its mean over the vocabulary.
        words: id -> text, of these ids; None where the series has no tokenizer.
    """

    ids: Int[np.ndarray, "pos two_k"]
    logits: Float[np.ndarray, "pos two_k"]
    words: Mapping[int, str] | None

    def raised(self, pos: int) -> list[tuple[int, float]]:
        """(id, logits) of the tokens raised most at a position; only those that are."""
        half = self.ids.shape[1] // 2
        return [(i, v) for i, v in self._at(pos)[:half] if v > 0]

    def lowered(self, pos: int) -> list[tuple[int, float]]:
        """(id, logits) of the tokens lowered most at a position; only those that are."""
        half = self.ids.shape[1] // 2
        return [(i, v) for i, v in self._at(pos)[half:] if v < 0]

    def _at(self, pos: int) -> list[tuple[int, float]]:
        return [(int(i), float(v)) for i, v in zip(self.ids[pos], self.logits[pos], strict=True)]


def attention_file(root: Path, step: int) -> Path:
    """The file of a step's saved attention."""
    return root / "arrays" / f"step_{step:08d}" / "attention.safetensors"


def stored_metadata(path: Path) -> dict[str, str]:
    """The file's metadata; {} where there is none, or none that can be read."""
    try:
        with _opened(path) as tensors:
            found = dict(tensors.metadata() or {})
    except _DAMAGE:
        return {}
    return found if any(same_format(found.get("format"), name) for name in FORMATS) else {}


def lacks_attention(root: Path, step: int, *, fingerprint: str, stimuli: Mapping[str, Stimulus]) -> bool:
    """Whether a step's attention, and what its heads write, is still to be saved, for these weights and stimuli."""
    found = stored_metadata(attention_file(root, step))
    if not same_format(found.get("format"), FORMAT) or found.get("fingerprint") != fingerprint:
        return True
    try:
        saved = json.loads(found.get("stimuli", "{}"))
    except (ValueError, RecursionError):
        saved = {}
    saved = saved if isinstance(saved, dict) else {}
    return any(saved.get(kind) != stimuli[kind].id for kind in saved_kinds(stimuli))


def saved_kinds(stimuli: Mapping[str, Stimulus]) -> list[str]:
    """The stimuli among these whose attention is saved."""
    return [kind for kind in KINDS if kind in stimuli]


def saved_before(
    root: Path, step: int, *, fingerprint: str, stimuli: Mapping[str, Stimulus]
) -> list[StoredText]:
    """What an earlier sweep of these weights saved of stimuli that this one does not show; [] where it cannot be read.

    Args:
        root: the results folder.
        step: the checkpoint's.
        fingerprint: of its weights.
        stimuli: of this sweep, by kind.
    """
    path = attention_file(root, step)
    if stored_metadata(path).get("fingerprint") != fingerprint:
        return []
    try:
        return [
            text for text in stored_texts(path) if text.stimulus in KINDS and text.stimulus not in stimuli
        ]
    except ByroteError:
        return []


def saved_bytes(stimuli: Sequence[Mapping[str, Any]], *, n_heads: int) -> int:
    """About what one checkpoint's file takes, texts of tokens apart; 0 where nothing is saved or lengths are unknown.

    Args:
        stimuli: as in run.json.
        n_heads: of all layers.
    """
    lengths = [
        each.get("pos") or each.get("r", 0) * each.get("m", 0) + 1
        for each in stimuli
        if each.get("kind") in KINDS and ("pos" in each or "r" in each)
    ]
    return sum(N_SAVED * n_heads * pos * (pos + WRITTEN_BYTES) for pos in lengths)


def stored_texts(path: Path) -> list[StoredText]:
    """The sequences a file of attention holds; [] where there is no such file.

    Raises:
        ByroteError: the file is damaged.
    """
    if not path.is_file():
        return []
    try:
        with _opened(path) as tensors:
            facts = tensors.metadata() or {}
            ids, words = json.loads(facts.get("stimuli", "{}")), json.loads(facts.get("words", "{}"))
            texts = []
            for kind in ids:
                for i, row in enumerate(tensors.get_tensor(f"{kind}/tokens")):
                    token_words = tuple(words[kind][i]) if kind in words else None
                    why = facts.get(WORDLESS, NO_TOKENIZER)
                    texts.append(StoredText(kind, str(ids[kind]), i, row.astype(np.int64), token_words, why))
            return texts
    except _DAMAGE as error:
        raise _damaged(path) from error


def stored_text(path: Path, stimulus: str, index: int) -> StoredText:
    """One sequence of a file of attention.

    Args:
        path: the file.
        stimulus, index: of a sequence that `stored_texts` lists.

    Raises:
        ByroteError: the file is damaged.
    """
    return next(one for one in stored_texts(path) if (one.stimulus, one.index) == (stimulus, index))


def text_words(text: StoredText) -> str:
    """What a saved text is: ``repeated random tokens 1``."""
    names = {
        "repeated_random": "repeated random tokens",
        "natural": "natural text",
        "members": "training sequence",
        "own": "your text",
    }
    number = "" if text.stimulus == "own" else f" {text.index + 1}"
    return names.get(text.stimulus, probe_name(text.stimulus)) + number


def stored_pattern(
    path: Path, text: StoredText, *, layer: int, head: int
) -> Float[np.ndarray, "query_pos key_pos"]:
    """Attention of one head on one saved sequence, 0-1 in steps of 1/255; nothing else is read.

    Raises:
        ByroteError: the file is damaged, or holds no such head.
    """
    try:
        with _opened(path) as tensors:
            found = tensors.get_slice(f"{text.stimulus}/pattern")[text.index, layer, head]
    except _DAMAGE as error:
        raise _damaged(path) from error
    return np.asarray(found, dtype=np.float64).squeeze() / SCALE


def stored_sheet(path: Path, text: StoredText) -> UInt8[np.ndarray, "n_layers n_heads query_pos key_pos"]:
    """Attention of every head on one saved sequence, 255 is all of a query's.

    Raises:
        ByroteError: the file is damaged.
    """
    try:
        with _opened(path) as tensors:
            found = np.asarray(tensors.get_slice(f"{text.stimulus}/pattern")[text.index])
        return found.reshape(found.shape[-4:])
    except _DAMAGE as error:
        raise _damaged(path) from error


def same_text(path: Path, text: StoredText) -> StoredText | None:
    """The sequence with the same tokens in another file of attention, such as another step's or another run's.

    Returns:
        None where the file is not there or damaged, or holds no such sequence.
    """
    try:
        found = stored_texts(path)
    except ByroteError:
        return None
    return next((one for one in found if np.array_equal(one.tokens, text.tokens)), None)


def patterns_over(
    files: Mapping[int, Path], text: StoredText, *, layer: int, head: int
) -> dict[int, Float[np.ndarray, "query_pos key_pos"]]:
    """Attention of one head on the same tokens at every step whose file holds them, by step, ascending.

    Args:
        files: of attention, by step; those that are not there, or damaged, are left out.
        text: whose tokens.
        layer, head: which head.
    """
    found = {}
    for step, file in sorted(files.items()):
        there = same_text(file, text)
        if there is not None:
            with suppress(ByroteError):
                found[step] = stored_pattern(file, there, layer=layer, head=head)
    return found


def stored_writes(path: Path, text: StoredText, *, layer: int, head: int) -> Writes:
    """What one head writes on one saved sequence; nothing else is read.

    Raises:
        ByroteError: it is not there, with the reason, or the file is damaged.
    """
    try:
        with _opened(path) as tensors:
            reason = (tensors.metadata() or {}).get("unwritten", NOT_SAVED)
    except FileNotFoundError:
        reason = NOT_SAVED
    except _DAMAGE as error:
        raise _damaged(path) from error
    if reason:
        raise ByroteError(reason)
    try:
        with _opened(path) as tensors:
            ids, logits = (
                _rows(tensors.get_slice(f"{text.stimulus}/{name}"), (text.index, layer, head))
                for name in ("written_ids", "written_logits")
            )
            if ids.shape != logits.shape or len(ids) != len(text.tokens):
                raise ValueError("the arrays of one head differ in shape")
            words = _words(tensors, ids) if "vocabulary/ids" in tensors.keys() else None  # noqa: SIM118
    except _DAMAGE as error:
        raise _damaged(path) from error
    return Writes(ids.astype(np.int64), logits.astype(np.float64), words)


def unwritten(path: Path) -> str:
    """Why a file does not say what heads write, "" where it does."""
    return stored_metadata(path).get("unwritten", NOT_SAVED)


def _rows(tensors: Any, at: tuple[int, int, int]) -> np.ndarray:
    """[pos, n] of one sequence, layer and head."""
    found = np.asarray(tensors[at])
    return found.reshape(found.shape[-2:])


def _words(tensors: Any, ids: np.ndarray) -> dict[int, str]:
    """Text of some ids."""
    known, ends = tensors.get_tensor("vocabulary/ids"), tensors.get_tensor("vocabulary/ends")
    text, wanted = tensors.get_tensor("vocabulary/text").tobytes(), np.unique(ids)
    words = {}
    for place, i in zip(np.searchsorted(known, wanted), wanted, strict=True):
        if place == len(known) or known[place] != i:
            raise ValueError(f"there is no text for id {i}")
        start = int(ends[place - 1]) if place else 0
        words[int(i)] = text[start : int(ends[place])].decode()
    return words


def _opened(path: Path) -> AbstractContextManager[Any]:
    """The file, with no link among the last folders on the way to it."""
    own_path(Path(*path.parts[:-3]), *path.parts[-3:])
    return open_arrays(path)


def _damaged(path: Path) -> ByroteError:
    return ByroteError(
        f"the attention saved in {path} cannot be read",
        help="delete that file and run the same sweep again with --save-attention",
    )
