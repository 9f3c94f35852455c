"""Floor 0: checkpoints on disk as an ordered series of training steps.

Importing the package imports nothing else; its names load on first use, so that a reader of results waits for no format.
"""

from __future__ import annotations

from byrote.checkpoints.lazy import lazily

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
__getattr__, __dir__ = lazily(__name__, _LAZY)
