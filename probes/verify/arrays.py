"""Kept attention and text against the model, the texts and the weights they are of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from byrote.checkpoints.errors import ByroteError
from byrote.probes.attention import stored_metadata, texts_in
from byrote.probes.verify.notes import Notes, mapping
from byrote.probes.wording import counted

_DAMAGE = (ByroteError, OSError, SafetensorError, LookupError, ValueError)


def check_arrays(root: Path, meta: Mapping[str, Any], weights: Mapping[int, str], notes: Notes) -> None:
    """Read every array that is kept.

    Args:
        root: the results folder.
        meta: run.json.
        weights: step -> fingerprint its units name.
        notes: gets what is found.
    """
    files = sorted((root / "arrays").glob("step_*/*.safetensors"))
    for file in files:
        where, number = f"{file.parent.name}/{file.name}", file.parent.name.removeprefix("step_")
        if not number.isdigit() or int(number) not in weights:
            notes.add("attention is kept of steps without units", where)
        try:
            fits = _fits(file, mapping(meta.get("model")))
        except _DAMAGE:
            notes.add("kept attention cannot be read; delete it, and run again with --save-attention", where)
            continue
        if not fits:
            notes.add("kept attention has another size than its texts and the model", where)
        held = stored_metadata(file).get("fingerprint")
        if number.isdigit() and held and weights.get(int(number), held) != held:
            notes.add("kept attention is of other weights than the units", where)
    if files:
        notes.checked.append(f"attention kept of {counted(len(files), 'step')}")
    for file in sorted((root / "stimuli").glob("*.safetensors")):
        try:
            with safe_open(file, framework="numpy") as held:
                held.get_tensor("tokens")
        except _DAMAGE:
            notes.add("the text that was shown cannot be read; give --text again", file.name)
        else:
            notes.checked.append(f"the text that was shown, {file.name}")


def _fits(file: Path, model: Mapping[str, Any]) -> bool:
    """Whether every pattern is as large as the model has heads and its text has tokens; all of it is read for that."""
    texts = texts_in(file)
    with safe_open(file, framework="numpy") as held:
        shapes = {
            kind: held.get_tensor(f"{kind}/pattern").shape for kind in {text.stimulus for text in texts}
        }
    for text in texts:
        n, layers, heads, *square = shapes[text.stimulus]
        wanted = (model.get("n_layers", layers), model.get("n_heads", heads))
        if (layers, heads) != wanted or square != [len(text.tokens)] * 2 or n <= text.index:
            return False
    return True
