"""``python -m app.dashboard.attend``: attention of one checkpoint on a text of one's own, in a process of its own.

The page process never loads a model. This one does, writes what `probes.attention` reads, and ends.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from checkpoints.errors import RoteError
from checkpoints.series import Checkpoint, open_series
from checkpoints.vocabulary import tokenizer_of

MAX_TOKENS = 512


def token_ids(text: str, checkpoint: Checkpoint, *, n_ctx: int, bos: int | None) -> list[int]:
    """A text as ids: by the checkpoint's tokenizer, or, where it has none, read as ids apart by spaces.

    Args:
        text: what the user wrote.
        checkpoint: whose tokenizer.
        n_ctx: most tokens the model takes.
        bos: put first, unless the text begins with it.

    Raises:
        RoteError: nothing to read, or words where only ids are understood.
    """
    file = tokenizer_of(checkpoint)
    if file is not None:
        from tokenizers import Tokenizer

        ids = list(Tokenizer.from_file(str(file)).encode(text, add_special_tokens=False).ids)
    else:
        try:
            ids = [int(word) for word in text.replace(",", " ").split()]
        except ValueError:
            raise RoteError(
                "this series has no tokenizer, so words mean nothing to it",
                help="write token ids, such as 5 17 9 5 17",
            ) from None
    if bos is not None and ids[:1] != [bos]:
        ids = [bos, *ids]
    if len(ids) < 2:
        raise RoteError("the text holds no token", help="write a few words")
    most = min(n_ctx, MAX_TOKENS)
    if len(ids) > most:
        raise RoteError(f"the text is {len(ids)} tokens long", help=f"at most {most} fit")
    return ids


def attend(series_path: str, step: int, text: str, *, out: Path, bos: int | None) -> None:
    """Load the checkpoint, run the text once, write every head's attention.

    Args:
        series_path: as recorded in the results.
        step: the checkpoint's.
        text: what the user wrote.
        out: file to write.
        bos: the id the sweep put first.
    """
    import numpy as np
    import torch
    from safetensors.numpy import save_file

    from checkpoints.series import at_hand
    from interp.bridge import HookedSeries
    from interp.observe import observe
    from probes.attention import FORMAT
    from probes.sweep.gallery import AttentionKeeper, spoken

    series = open_series(series_path)
    checkpoint = series.at(step)
    with at_hand(checkpoint):
        model = HookedSeries(series, device="cpu", dtype=torch.float32, swap="fresh").load(checkpoint)
        ids = np.array([token_ids(text, checkpoint, n_ctx=model.shape.n_ctx, bos=bos)], dtype=np.int64)
        keeper = AttentionKeeper()
        observe(model, torch.from_numpy(ids), [keeper])
        file = tokenizer_of(checkpoint)
        words = {"own": spoken(ids, file)} if file is not None else {}
    facts = {"format": FORMAT, "stimuli": json.dumps({"own": "your text"}), "words": json.dumps(words)}
    temporary = out.with_name(f".{out.name}.tmp")
    save_file({"own/pattern": keeper.patterns(), "own/tokens": ids}, temporary, metadata=facts)
    temporary.replace(out)


def main(arguments: list[str]) -> int:
    """Read the request, a JSON file, and do it; an error is one JSON line."""
    request: dict[str, Any] = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    try:
        attend(
            request["series"],
            int(request["step"]),
            request["text"],
            out=Path(request["out"]),
            bos=request["bos"],
        )
    except RoteError as error:
        print(json.dumps({"error": error.message, "help": error.help}), flush=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
