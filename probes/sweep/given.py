"""Real text that was given with a sweep: cut into windows, and kept in the results folder for the next one. No torch.

    results/<run>/stimuli/natural.safetensors     the windows that were shown, as token ids

A sweep asked again without the file, for instance to add checkpoints, shows the same windows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from byrote.checkpoints.atomic import write_bytes
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.former_name import stored_under
from byrote.checkpoints.token_sets import TokenSets, natural_windows
from byrote.probes.stimuli import Stimulus

MAX_WINDOW_TOKENS = 1024  # twice what icl_score asks for; longer contexts would mostly cost time
KEPT = Path("stimuli") / "natural.safetensors"
_FACTS = "byrote"


@dataclass(frozen=True)
class Draw:
    """What decides which windows of a text are shown.

    Attributes:
        seed, n_seq: of the draw.
        n_ctx: the model's context.
        bos: put in front of every window.
    """

    seed: int
    n_seq: int
    n_ctx: int
    bos: int

    @property
    def width(self) -> int:
        """Tokens per window."""
        return min(self.n_ctx, MAX_WINDOW_TOKENS)


def with_text(
    base: TokenSets, text: Path, draw: Draw, *, tokenizer: Path | None
) -> tuple[TokenSets, list[str]]:
    """TokenSets whose natural text is cut from a file or folder, and what must be said of it.

    Raises:
        ByroteError: see `natural_windows`.
    """
    cut = natural_windows(text, tokenizer=tokenizer, bos=draw.bos, width=draw.width, wanted=draw.n_seq)
    found = replace(base, natural=cut.tokens, sources={**base.sources, "natural": text.name})
    n, width = min(draw.n_seq, len(cut.tokens)), cut.tokens.shape[1]
    said = (f"{n} windows of {width:,} tokens from {text.name}", *cut.notes)
    return found, [f"natural text: {note}" for note in said]


def keep(root: Path, shown: Stimulus, draw: Draw, *, source: str, notes: list[str]) -> None:
    """Write the windows shown, whole or not at all."""
    from safetensors.numpy import save

    file = root / KEPT
    facts = {"id": shown.id, "source": source, "notes": notes, **draw.__dict__}
    data = save(
        {"tokens": shown.tokens.astype(np.int32)}, metadata={_FACTS: json.dumps(facts, sort_keys=True)}
    )
    if file.is_file() and file.read_bytes() == data:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, data)


def with_kept(base: TokenSets, root: Path, draw: Draw) -> tuple[TokenSets, list[str]]:
    """TokenSets whose natural text is what an earlier sweep of this folder showed; unchanged where there is none.

    Raises:
        ByroteError: it was drawn otherwise, so that the text itself is needed; or the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    file = root / KEPT
    if not file.is_file():
        return base, []
    try:
        with safe_open(file, "np") as stored:
            facts = json.loads(stored_under(stored.metadata(), _FACTS, "null"))
            tokens = stored.get_tensor("tokens").astype(np.int64)
        source, notes = str(facts["source"]), [str(note) for note in facts["notes"]]
        asked = {name: (facts[name], value) for name, value in draw.__dict__.items()}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        raise ByroteError(
            "the natural text kept from an earlier sweep cannot be read", help="give it again with --text"
        ) from None
    differing = [f"{name} {before}, now {now}" for name, (before, now) in asked.items() if before != now]
    if differing:
        raise ByroteError(
            f"the natural text ({source}) was drawn with {', '.join(differing)}: give it again with --text FILE",
            help="or ask as before",
        )
    return replace(base, natural=tokens, sources={**base.sources, "natural": source}), notes
