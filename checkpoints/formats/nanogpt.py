"""nanoGPT's `ckpt.pt`: one file, a folder of `ckpt_*.pt`, or one `ckpt.pt` in each step folder.

The file holds `model`, `model_args`, `iter_num`, `best_val_loss` and `config`. The step is the name's, else `iter_num`.
Tokens are batch_size x block_size x gradient_accumulation_steps of `config`, times the step. The loss is
`best_val_loss`: the lowest validation loss so far.

Source: train.py and model.py of github.com/karpathy/nanoGPT.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.adapter import Format
from byrote.checkpoints.formats.advice import EXPORT
from byrote.checkpoints.formats.model_config import refuse_implausible
from byrote.checkpoints.formats.stored_tensor import StoredTensor, is_state
from byrote.checkpoints.formats.torch_zip import TorchFile, read_torch_file
from byrote.checkpoints.formats.trainer_state import count_or_none
from byrote.checkpoints.formats.weight_files import WeightFile, assemble, candidates, first_content
from byrote.checkpoints.series import Checkpoint, CheckpointSeries
from byrote.checkpoints.stored_bytes import open_stored

STATE = "model"  # where in the file the weights are
ENDINGS = (".pt", ".pth")
LOSS_NOTE = "losses are nanoGPT's best_val_loss: the lowest validation loss so far"
_NO_LOSS_YET = 1e8  # nanoGPT starts best_val_loss at 1e9
_ARGS = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")


def sniff(path: Path) -> bool:
    """True where one of the first files has nanoGPT's `model_args`."""
    content = first_content(candidates(path, ENDINGS)[0])
    return isinstance(content, dict) and "model_args" in content and STATE in content


def discover(path: Path) -> CheckpointSeries:
    """List the files in step order; what is no nanoGPT checkpoint is a gap."""
    series = assemble(path, FORMAT.name, *candidates(path, ENDINGS), _checkpoint)
    if all(checkpoint.loss_nats is None for checkpoint in series):
        return series
    return replace(series, notes=(*series.notes, LOSS_NOTE))


def model_args(content: Mapping[str, Any]) -> dict[str, Any]:
    """nanoGPT's own description of the model, checked to be whole numbers that can be one.

    Raises:
        CheckpointError: a field is missing or cannot be.
    """
    args = content.get("model_args")
    args = args if isinstance(args, dict) else {}
    if "dim" in args and "n_embd" not in args:
        raise CheckpointError("its model_args are those of llama2.c", help=EXPORT)
    broken = [name for name in _ARGS if type(args.get(name)) is not int or not 0 < args[name] < 1 << 24]
    if broken:
        raise CheckpointError(
            f"model_args does not say {', '.join(broken)}", help="is this file nanoGPT's own ckpt.pt?"
        )
    if args["n_embd"] % args["n_head"]:
        raise CheckpointError(
            f"model_args says n_embd {args['n_embd']}, which {args['n_head']} heads do not divide",
            help="is this file nanoGPT's own ckpt.pt?",
        )
    return args


def _checkpoint(file: WeightFile) -> Checkpoint:
    stored = read_torch_file(file.path)
    content = stored.content
    if not isinstance(content, dict) or "model_args" not in content or not is_state(content.get(STATE)):
        raise CheckpointError(
            f"{file.path.name} is not a nanoGPT checkpoint: it lacks model or model_args",
            help="remove other files from the folder, or give the path of one file",
        )
    refuse_implausible(model_args(content), (t.shape for t in content[STATE].values()), where="model_args")
    saved = count_or_none(content.get("iter_num"))
    found = file.checkpoint(FORMAT.name, saved, spelling=f"ckpt_STEP{file.path.suffix}")
    per_step = _tokens_per_step(content)
    tokens = per_step * found.step if per_step else file.tokens
    return replace(found, tokens_seen=tokens, loss_nats=_loss(stored))


def _tokens_per_step(content: Mapping[str, Any]) -> int:
    """Tokens one optimiser step reads, over all processes; 0 where the file does not say."""
    config = content.get("config")
    config = config if isinstance(config, dict) else {}
    sizes = [
        count_or_none(config.get(n)) for n in ("batch_size", "block_size", "gradient_accumulation_steps")
    ]
    return 0 if None in sizes else math.prod(size for size in sizes if size is not None)


def _loss(stored: TorchFile) -> float | None:
    value = stored.content.get("best_val_loss")
    if isinstance(value, StoredTensor):
        if value.dtype != "F32" or value.numel != 1:
            return None
        with open_stored(stored.path) as file:
            file.seek(stored.start_bytes[value.storage.key] + 4 * value.offset)
            (value,) = struct.unpack("<f", file.read(4))
    plain = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _NO_LOSS_YET
    return float(value) if plain else None


FORMAT = Format(
    "nanogpt",
    sniff,
    discover,
    builder="nanogpt",
    reads="nanoGPT's ckpt.pt",
    single_files=True,
    config_inside=lambda checkpoint: model_args(read_torch_file(checkpoint.files[0]).content),
)
