"""`--save-attention`: every head's attention on a few sequences per stimulus, kept beside the numbers of a step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.numpy import save_file

from checkpoints.errors import RoteError
from checkpoints.vocabulary import load_tokenizer
from interp.model import HookedModel
from interp.observe import EndView, LayerView, observe
from probes.attention import FORMAT, SCALE, attention_file, kept_kinds, stimulus_ids
from probes.stimuli import Stimulus

if TYPE_CHECKING:
    from tokenizers import Tokenizer

N_KEPT = 2


def keep_attention(
    model: HookedModel,
    root: Path,
    step: int,
    *,
    fingerprint: str,
    stimuli: Mapping[str, Stimulus],
    tokenizer: Path | None,
) -> None:
    """Run the kept sequences once and write their attention, whole or not at all.

    Args:
        model: a loaded checkpoint.
        root: the results folder.
        step: the checkpoint's.
        fingerprint: of its weights.
        stimuli: by kind; those that are not kept are left alone.
        tokenizer: a tokenizer.json that turns ids into text, where there is one.
    """
    reader = _reader(tokenizer)
    arrays: dict[str, np.ndarray] = {}
    words: dict[str, list[list[str]]] = {}
    for kind in kept_kinds(stimuli):
        tokens = stimuli[kind].tokens[:N_KEPT]
        keeper = AttentionKeeper()
        observe(model, torch.from_numpy(tokens), [keeper])
        arrays[f"{kind}/pattern"] = keeper.patterns()
        arrays[f"{kind}/tokens"] = np.ascontiguousarray(tokens, dtype=np.int64)
        if reader is not None:
            words[kind] = spoken(tokens, reader)
    facts = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "stimuli": stimulus_ids(stimuli),
        "words": json.dumps(words),
    }
    path = attention_file(root, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(arrays, temporary, metadata=facts)
    temporary.replace(path)


def _reader(tokenizer: Path | None) -> Tokenizer | None:
    """The tokenizer; None for one that cannot be read, which the run's notes say: ids are shown then."""
    try:
        return None if tokenizer is None else load_tokenizer(tokenizer)
    except RoteError:
        return None


def spoken(tokens: np.ndarray, tokenizer: Tokenizer) -> list[list[str]]:
    """Each id as the text it stands for by itself."""
    known = {int(i): tokenizer.decode([int(i)], skip_special_tokens=False) for i in np.unique(tokens)}
    return [[known[int(i)] for i in row] for row in tokens]


class AttentionKeeper:
    """Keeps the pattern of every layer, one byte per weight."""

    needs = frozenset({"pattern"})

    def __init__(self) -> None:
        self.layers: dict[int, list[np.ndarray]] = {}

    def see_layer(self, view: LayerView) -> None:
        """One layer of one batch."""
        assert view.pattern is not None
        kept = view.pattern.float().clamp(0, 1).mul(SCALE).round().to(torch.uint8)
        self.layers.setdefault(view.layer, []).append(kept.cpu().numpy())

    def see_end(self, view: EndView) -> None:
        """Nothing is wanted of the end."""

    def patterns(self) -> np.ndarray:
        """[sequence, layer, head, query, key]."""
        return np.stack([np.concatenate(parts) for _, parts in sorted(self.layers.items())], axis=1)
