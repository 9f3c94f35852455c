"""`--save-attention`: on a few sequences per stimulus, every head's attention and the tokens it raises and lowers most."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int

from byrote.checkpoints.array_files import write_arrays
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.safe_read import own_path
from byrote.checkpoints.tokenizing import open_tokenizer
from byrote.interp.logit_attribution import WriteKeeper, strongest, unreadable
from byrote.interp.model import HookedModel
from byrote.interp.observe import EndView, LayerView, Observer, observe
from byrote.probes.attention import (
    FORMAT,
    N_SAVED,
    SCALE,
    WORDLESS,
    attention_file,
    saved_before,
    saved_kinds,
)
from byrote.probes.stimuli import Stimulus


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
    write_attention(model, file, sequences, facts=facts, tokenizer=tokenizer)


def write_attention(
    model: HookedModel,
    path: Path,
    sequences: Mapping[str, Int[np.ndarray, "n_seq pos"]],
    *,
    facts: Mapping[str, str],
    tokenizer: Path | None,
) -> None:
    """Run sequences once and write what `byrote.probes.attention` reads, whole or not at all.

    Args:
        model: a loaded checkpoint.
        path: file to write.
        sequences: token ids by stimulus.
        facts: further metadata, "stimuli" among them.
        tokenizer: a tokenizer.json that turns ids into text, where there is one. Where it fails, ids stay ids, and the
            file says why.

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
            arrays |= written_arrays(model, writes)
        except ByroteError as error:
            unwritten = error.message
    written = np.unique(np.concatenate([np.empty(0, np.int64), *_written_ids(arrays)]))
    texts, wordless = _texts(
        tokenizer, np.union1d(written, np.concatenate([*map(np.ravel, sequences.values())]))
    )
    words = {
        kind: [[texts[int(i)] for i in row] for row in rows] for kind, rows in sequences.items() if texts
    }
    if texts and len(written):
        encoded = [texts[int(i)].encode() for i in written]
        arrays["vocabulary/ids"] = written.astype(np.int32)
        arrays["vocabulary/ends"] = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        arrays["vocabulary/text"] = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    facts = {"format": FORMAT, **facts, "words": json.dumps(words), "unwritten": unwritten}
    facts |= {WORDLESS: wordless} if wordless else {}
    write_arrays(path, arrays, facts)


def written_arrays(model: HookedModel, writes: Mapping[str, WriteKeeper]) -> dict[str, np.ndarray]:
    """The arrays that say what heads write, by their names in the file; 60 bytes per head and position.

    Raises:
        ByroteError: a contribution that is not finite, or too large for two bytes.
    """
    arrays: dict[str, np.ndarray] = {}
    for kind, (ids, logits) in zip(writes, strongest(model, list(writes.values())), strict=True):
        if not (np.abs(logits) <= np.finfo(np.float16).max).all():
            raise ByroteError("what a head writes is not finite, or more than 65,504 logits")
        arrays[f"{kind}/written_ids"] = ids
        arrays[f"{kind}/written_logits"] = logits.astype(np.float16)
    return arrays


def _written_ids(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return [array.ravel() for name, array in arrays.items() if name.endswith("/written_ids")]


def _texts(tokenizer: Path | None, ids: Int[np.ndarray, " n"]) -> tuple[dict[int, str], str]:
    """What each id stands for by itself, and why that is not known; neither where there is no tokenizer."""
    if tokenizer is None:
        return {}, ""
    try:
        with open_tokenizer(tokenizer) as opened:
            return dict(zip(ids.tolist(), opened.decode(ids), strict=True)), ""
    except ByroteError as error:
        return {}, error.message.replace(str(tokenizer), tokenizer.name)


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
