"""Folders of torch.distributed.checkpoint, put together from their pieces without torch's own reader.

That reader unpickles `.metadata` and stored objects without restriction (torch 2.13); here `.metadata` is only read,
and each piece goes through `torch.load` with weights_only=True after it was checked.
"""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.dcp import Piece, ShardedTensor, model_tensors, stored_piece
from byrote.checkpoints.formats.inert_pickle import shown
from byrote.checkpoints.series import Checkpoint
from byrote.interp.builders import Built, state_dict
from byrote.interp.builders.filling import fill, without_prefix


def config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The config.json in the folder or above it."""
    return state_dict.config(checkpoint)


def build(checkpoint: Checkpoint, dtype: torch.dtype) -> Built:
    """The architecture config.json names, filled exactly.

    Raises:
        CheckpointError: an unknown architecture, damaged pieces, or names and shapes that are not its own.
    """
    fields = config(checkpoint)
    tensors = {name: _assembled(tensor) for name, tensor in model_tensors(checkpoint.path).items()}
    tensors = without_prefix(fields, tensors, step=checkpoint.step)
    module = fill(fields, tensors, dtype=dtype, step=checkpoint.step, exact=True)
    return Built(module, type(module).__name__, hf_config=module.config)


def parameters(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Tensor]:
    """The pieces' tensors under the module's names."""
    return dict(build(checkpoint, dtype).module.named_parameters(remove_duplicate=False))


def _assembled(tensor: ShardedTensor) -> Tensor:
    pieces = [_read(tensor, piece) for piece in tensor.pieces]
    whole = torch.empty(tensor.shape, dtype=pieces[0].dtype if pieces else torch.float32)
    for piece, values in zip(tensor.pieces, pieces, strict=True):
        whole[tuple(slice(o, o + n) for o, n in zip(piece.offsets, piece.shape, strict=True))] = values
    return whole


def _read(tensor: ShardedTensor, piece: Piece) -> Tensor:
    stored_piece(tensor, piece)
    with piece.file.open("rb") as file:
        file.seek(piece.start)
        data = io.BytesIO(file.read(piece.length))
    try:
        return torch.load(data, map_location="cpu", weights_only=True).detach()
    except Exception as error:  # torch raises what damaged bytes happen to lead to
        raise CheckpointError(
            f"{piece.file.name} cannot be read at byte {piece.start} ({' '.join(shown(error).split())})",
            help="the checkpoint is damaged; copy or save it again",
        ) from error
