"""``python -m byrote.dashboard.text_worker``: what the heads of one checkpoint do on a text of one's own, in a process of its own.

The page process never loads a model. This one does, writes what `byrote.probes.attention` reads, and ends.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.opening import open_series
from byrote.checkpoints.safe_read import read_json
from byrote.checkpoints.series import Checkpoint
from byrote.checkpoints.tokenizing import one_tokenizer_process, open_tokenizer
from byrote.checkpoints.vocabulary import tokenizer_of
from byrote.dashboard.jobs import MAX_FACTS_BYTES
from byrote.dashboard.tasks import Task
from byrote.dashboard.text_requests import ANSWER


def encoded(text: str, checkpoint: Checkpoint, *, most: int) -> list[int]:
    """A text as ids, nothing put before it: by the checkpoint's tokenizer, or, where it has none, ids apart by spaces.

    Args:
        text: what the user wrote.
        checkpoint: whose tokenizer.
        most: tokens that fit, one of them before the text.

    Raises:
        ByroteError: nothing to read, too much of it, or words where only ids are understood.
    """
    file = tokenizer_of(checkpoint)
    if file is None:
        ids = _written_ids(text)
    else:
        with open_tokenizer(file) as tokenizer:
            ids = tokenizer.encode([text])[0].tolist()
    if not ids:
        raise ByroteError("the text holds no token", help="write a few words")
    if len(ids) + 1 > most:
        raise ByroteError(
            f"the text is {len(ids):,} tokens long", help=f"at most {most - 1} fit, and one before them"
        )
    return ids


def _written_ids(text: str) -> list[int]:
    words = text.replace(",", " ").split()
    if not all(word.isascii() and word.isdigit() and len(word) < 10 for word in words):
        raise ByroteError(
            "this series has no tokenizer, so words mean nothing to it",
            help="write token ids, such as 5 17 9 5 17",
        )
    return [int(word) for word in words]


def attend(series_path: str, step: int, text: str, *, out: Path, most: int) -> None:
    """Load the checkpoint, run the text once, write every head's attention and what it writes.

    BOS is put first, as `interp.capture` does with a text; before ids that begin with it already it is not.

    Args:
        series_path: as recorded in the results.
        step: the checkpoint's.
        text: what the user wrote.
        out: file to write.
        most: tokens that fit.

    Raises:
        ByroteError: no such checkpoint, or a text the model cannot take.
    """
    series = open_series(series_path)
    checkpoint = series.at(step)
    ids = encoded(text, checkpoint, most=most)  # a text that does not fit is refused before torch is loaded

    import numpy as np

    from byrote.checkpoints.series import at_hand
    from byrote.checkpoints.vocabulary import usable_ids
    from byrote.interp.loading import load_fresh
    from byrote.probes.sweep.gallery import write_attention

    with at_hand(checkpoint) as ready:
        model = load_fresh(ready)
        file = tokenizer_of(ready)
        _, bos, _ = usable_ids(model.config, model.shape.d_vocab, tokenizer=file)
        first = [] if file is None and ids[0] == bos else [bos]
        tokens = np.array([[*first, *ids]], dtype=np.int64)
        write_attention(
            model, out, {"own": tokens}, facts={"stimuli": json.dumps({"own": "your text"})}, tokenizer=file
        )


def main(arguments: list[str]) -> int:
    """Read the task of a job's folder and do it; an error is one JSON line."""
    try:
        folder = Path(arguments[0])
        task = Task.read(read_json(folder / "job.json", max_bytes=MAX_FACTS_BYTES)["task"])
        step, text, most = (task.options[name] for name in ("step", "text", "most_tokens"))
        with one_tokenizer_process():
            attend(task.paths[0], step, text, out=folder.parent / ANSWER, most=most)
    except ByroteError as error:
        print(json.dumps({"error": error.message, "help": error.help}), flush=True)
        return 2
    except MemoryError:
        print(json.dumps({"error": "the model does not fit into memory"}), flush=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
