"""``python -m byrote.dashboard.text_worker``: what the heads of some checkpoints do on a text of one's own, in a process of its own.

The page process never loads a model. This one does, one checkpoint after another, writes what `byrote.probes.attention`
reads, a file for each, and ends.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from byrote.checkpoints.atomic import make_private_folder
from byrote.checkpoints.errors import ByroteError, CheckpointError
from byrote.checkpoints.opening import open_series
from byrote.checkpoints.safe_read import FileRefused, read_json
from byrote.checkpoints.series import Checkpoint
from byrote.checkpoints.tokenizing import one_tokenizer_process, open_tokenizer
from byrote.checkpoints.vocabulary import tokenizer_of
from byrote.dashboard.jobs import MAX_FACTS_BYTES
from byrote.dashboard.tasks import Task
from byrote.dashboard.text_requests import ANSWER, answer_name


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
        raise ByroteError("the text contains no tokens", help="write a few words")
    if len(ids) + 1 > most:
        raise ByroteError(f"the text is {len(ids):,} tokens long", help=f"at most {most - 1} fit after BOS")
    return ids


def _written_ids(text: str) -> list[int]:
    words = text.replace(",", " ").split()
    if not all(word.isascii() and word.isdigit() and len(word) < 10 for word in words):
        raise ByroteError(
            "this series has no tokenizer, so it cannot read words",
            help="write token ids, such as 5 17 9 5 17",
        )
    return [int(word) for word in words]


def attend(checkpoint: Checkpoint, text: str, *, out: Path, most: int) -> None:
    """Load the checkpoint, run the text once, write every head's attention and what it writes.

    BOS is put first, as `interp.capture` does with a text; before ids that begin with it already it is not.

    Args:
        checkpoint: of a series.
        text: what the user wrote.
        out: file to write.
        most: tokens that fit.

    Raises:
        ByroteError: files that cannot be read, or a text the model cannot take.
    """
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


def measure(series_path: str, steps: Sequence[int], text: str, *, place: Path, most: int) -> int:
    """`attend` at some steps, in this order. A checkpoint that cannot be read is a gap, and the others are measured.

    Args:
        series_path: as recorded in the results.
        steps: of the series.
        text: what the user wrote.
        place: folder that gets a folder for each answer; what is there already is not measured again.
        most: tokens that fit.

    Returns:
        The exit code: 0; 3 where some are gaps; 2 where all are.

    Raises:
        ByroteError: the checkpoints cannot be opened, or a text the model cannot take.
    """
    series = open_series(series_path)
    n_gaps = 0
    for done, step in enumerate(steps, start=1):
        try:
            checkpoint = series.at(step)
            folder = place / answer_name(checkpoint, text)
            make_private_folder(folder)
            if not (folder / ANSWER).is_file():
                attend(checkpoint, text, out=folder / ANSWER, most=most)
        except (CheckpointError, FileRefused) as error:
            if len(steps) == 1:
                raise
            n_gaps += 1
            _say(event="gap", run=series.name, step=step, reason=f"{error.message} ({error.help})")
        _say(event="checkpoint", run=series.name, step=step, done=done, total=len(steps))
    return 0 if not n_gaps else 2 if n_gaps == len(steps) else 3


def _say(**facts: str | int) -> None:
    print(json.dumps(facts), flush=True)


def main(arguments: list[str]) -> int:
    """Read the task of a job's folder and do it; an error is one JSON line."""
    try:
        folder = Path(arguments[0])
        task = Task.read(read_json(folder / "job.json", max_bytes=MAX_FACTS_BYTES)["task"])
        steps, text, most = (task.options[name] for name in ("steps", "text", "most_tokens"))
        with one_tokenizer_process():
            return measure(task.paths[0], steps, text, place=folder.parent.parent, most=most)
    except ByroteError as error:
        _say(error=error.message, help=error.help)
    except MemoryError:
        _say(error="the model does not fit into memory")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
