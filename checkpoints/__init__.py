"""Floor 0: checkpoints on disk as an ordered series of training steps.

Importing the package imports nothing else; its names load on first use, so that a reader of results waits for no format.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "ByroteError": "byrote.checkpoints.errors",
    "Checkpoint": "byrote.checkpoints.series",
    "CheckpointError": "byrote.checkpoints.errors",
    "CheckpointSeries": "byrote.checkpoints.series",
    "Gap": "byrote.checkpoints.series",
    "at_hand": "byrote.checkpoints.series",
    "open_runs": "byrote.checkpoints.opening",
    "open_series": "byrote.checkpoints.opening",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'byrote.checkpoints' has no attribute {name!r}")
