"""The lab: trains small controlled series, so that a claim about training data can be tried in a minute.

Importing it imports neither torch nor numpy: its names load on first use, and torch only when there is something to train.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from byrote.checkpoints.lazy import lazily

if TYPE_CHECKING:
    from byrote.checkpoints.lab.arms import Arm as Arm
    from byrote.checkpoints.lab.config import LabConfig as LabConfig
    from byrote.checkpoints.lab.sources import SourceConfig as SourceConfig
    from byrote.checkpoints.lab.trainer import train as train

_LAZY = {
    "Arm": "byrote.checkpoints.lab.arms",
    "LabConfig": "byrote.checkpoints.lab.config",
    "SourceConfig": "byrote.checkpoints.lab.sources",
    "train": "byrote.checkpoints.lab.trainer",
}
__getattr__, __dir__ = lazily(__name__, _LAZY)
