"""`--save-attention`: on a few sequences per stimulus, every head's attention and the tokens it raises and lowers most."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int

from byrote.checkpoints.array_files import write_arrays
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.safe_read import own_path
from byrote.checkpoints.vocabulary import load_tokenizer
from byrote.interp.logit_attribution import WriteKeeper, strongest, unreadable
from byrote.interp.model import HookedModel
from byrote.interp.observe import EndView, LayerView, Observer, observe
from byrote.probes.attention import FORMAT, N_SAVED, SCALE, attention_file, saved_before, saved_kinds
from byrote.probes.stimuli import Stimulus

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def keep_attention(
    model: HookedModel,
    root: Path,
    step: int,
    *,
    fingerprint: str,
    stimuli: Mapping[str, Stimulus],
    tokenizer: Path | None,
) -> None:
    """Run the selected sequences once and write their attention, whole or not at all.

    Sequences that an earlier sweep saved, of stimuli that this one does not show, stay in the file.

    Args:
        model: a loaded checkpoint.
        root: the results folder.
        step: the checkpoint's.
        fingerprint: of its weights.
        stimuli: by kind; those that are not saved are ignored.
        tokenizer: a tokenizer.json that turns ids into text, where there is one.
    """
    sequences = {kind: stimuli[kind].tokens[:N_SAVED] for kind in saved_kinds(stimuli)}
    ids = {kind: stimuli[kind].id for kind in sequences}
    before = saved_before(root, step, fingerprint=fingerprint, stimuli=stimuli)
    for kind in dict.fromkeys(text.stimulus for text in before):
        own = [text for text in before if text.stimulus == kind]
        sequences[kind], ids[kind] = np.stack([text.tokens for text in own]), own[0].stimulus_id
    facts = {"fingerprint": fingerprint, "stimuli": json.dumps(ids)}
    file = attention_file(root, step)
    own_path(root, *file.relative_to(root).parts)
    write_attention(model, file, sequences, facts=facts, tokenizer=_reader(tokenizer))


def write_attention(
    model: HookedModel,
    path: Path,
    sequences: Mapping[str, Int[np.ndarray, "n_seq pos"]],
    *,
    facts: Mapping[str, str],
    tokenizer: Tokenizer | None,
) -> None:
    """Run sequences once and write what `byrote.probes.attention` reads, whole or not at all.

    Args:
        model: a loaded checkpoint.
        path: file to write.
        sequences: token ids by stimulus.
        facts: further metadata, "stimuli" among them.
        tokenizer: turns ids into text, where there is one.

    Raises:
        ByroteError: token ids or a length the model cannot take.
    """
    unwritten = unreadable(model)
    arrays: dict[str, np.ndarray] = {}
    writes: dict[str, WriteKeeper] = {}
    for kind, tokens in sequences.items():
        attention, writes[kind] = AttentionKeeper(), WriteKeeper()
        observers: list[Observer] = [attention] if unwritten else [attention, writes[kind]]
        observe(model, torch.from_numpy(tokens), observers)
        arrays[f"{kind}/pattern"] = attention.patterns()
        arrays[f"{kind}/tokens"] = np.ascontiguousarray(tokens, dtype=np.int64)
    if not unwritten:
        try:
            arrays |= written_arrays(model, writes, tokenizer)
        except ByroteError as error:
            unwritten = error.message
    words = {} if tokenizer is None else {kind: spoken(rows, tokenizer) for kind, rows in sequences.items()}
    facts = {"format": FORMAT, **facts, "words": json.dumps(words), "unwritten": unwritten}
    write_arrays(path, arrays, facts)


def written_arrays(
    model: HookedModel, writes: Mapping[str, WriteKeeper], tokenizer: Tokenizer | None
) -> dict[str, np.ndarray]:
    """The arrays that say what heads write, by their names in the file; 60 bytes per head and position, and the texts.

    Raises:
        ByroteError: a contribution that is not finite, or too large for two bytes.
    """
    arrays: dict[str, np.ndarray] = {}
    for kind, (ids, logits) in zip(writes, strongest(model, list(writes.values())), strict=True):
        if not (np.abs(logits) <= np.finfo(np.float16).max).all():
            raise ByroteError("what a head writes is not finite, or more than 65,504 logits")
        arrays[f"{kind}/written_ids"] = ids
        arrays[f"{kind}/written_logits"] = logits.astype(np.float16)
    if tokenizer is not None and arrays:
        known = np.unique(np.concatenate([a.ravel() for name, a in arrays.items() if name.endswith("_ids")]))
        texts = [tokenizer.decode([int(i)], skip_special_tokens=False).encode() for i in known]
        arrays["vocabulary/ids"] = known.astype(np.int32)
        arrays["vocabulary/ends"] = np.cumsum([len(text) for text in texts], dtype=np.int64)
        arrays["vocabulary/text"] = np.frombuffer(b"".join(texts), dtype=np.uint8)
    return arrays


def _reader(tokenizer: Path | None) -> Tokenizer | None:
    """The tokenizer; None for one that cannot be read, which the run's notes say: ids are shown then."""
    try:
        return None if tokenizer is None else load_tokenizer(tokenizer)
    except ByroteError:
        return None


def spoken(tokens: np.ndarray, tokenizer: Tokenizer) -> list[list[str]]:
    """Each id as the text it stands for by itself."""
    known = {int(i): tokenizer.decode([int(i)], skip_special_tokens=False) for i in np.unique(tokens)}
    return [[known[int(i)] for i in row] for row in tokens]


class AttentionKeeper:
    """Stores the pattern of every layer, one byte per weight."""

    needs = frozenset({"pattern"})

    def __init__(self) -> None:
        self.layers: dict[int, list[np.ndarray]] = {}

    def see_layer(self, view: LayerView) -> None:
        """One layer of one batch."""
        assert view.pattern is not None
        pattern = view.pattern.float().clamp(0, 1).mul(SCALE).round().to(torch.uint8)
        self.layers.setdefault(view.layer, []).append(pattern.cpu().numpy())

    def see_end(self, view: EndView) -> None:
        """Nothing is wanted of the end."""

    def patterns(self) -> np.ndarray:
        """[sequence, layer, head, query, key]."""
        return np.stack([np.concatenate(parts) for _, parts in sorted(self.layers.items())], axis=1)
