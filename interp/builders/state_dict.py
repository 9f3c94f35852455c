"""State dicts of transformers' models, plain, Lightning's, or distributed: names are transformers' own once what wrappers
put before them is taken off.
"""

from __future__ import annotations

import torch

from byrote.checkpoints.series import Checkpoint
from byrote.interp.builders import Built
from byrote.interp.builders.files import read_tensors
from byrote.interp.builders.files import saved_config as config
from byrote.interp.builders.filling import fill, without_prefix


def build(checkpoint: Checkpoint, dtype: torch.dtype) -> Built:
    """The architecture the config names, filled exactly.

    Raises:
        CheckpointError: an unknown architecture, or names and shapes that are not its own.
    """
    fields = config(checkpoint)
    tensors = without_prefix(fields, read_tensors(checkpoint), step=checkpoint.step)
    module = fill(fields, tensors, dtype=dtype, step=checkpoint.step, exact=True)
    return Built(module, type(module).__name__, hf_config=module.config)
