"""Steps of a Hugging Face repository: fetched if they have to be, then read like any local folder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from byrote.checkpoints.series import Checkpoint, at_hand
from byrote.interp.builders import Built, hf


def config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The step's config.json."""
    with at_hand(checkpoint) as ready:
        return hf.config(ready)


def build(checkpoint: Checkpoint, dtype: torch.dtype) -> Built:
    """As `byrote.interp.builders.hf.build`.

    Raises:
        CheckpointError: the step cannot be fetched or loaded.
    """
    with at_hand(checkpoint) as ready:
        return hf.build(ready, dtype)


def parameters(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Tensor]:
    """As `byrote.interp.builders.hf.parameters`; mapped tensors stay valid when the files are removed."""
    with at_hand(checkpoint) as ready:
        return hf.parameters(ready, dtype)
