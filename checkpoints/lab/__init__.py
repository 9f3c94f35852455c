"""The lab: trains small controlled series, so that a claim about training data can be tried in a minute.

Importing it imports neither torch nor numpy: its names load on first use, and torch only when there is something to train.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from byrote.checkpoints.lab.arms import Arm as Arm
    from byrote.checkpoints.lab.config import LabConfig as LabConfig
    from byrote.checkpoints.lab.source import SourceConfig as SourceConfig
    from byrote.checkpoints.lab.trainer import train as train

_LAZY = {"Arm": "arms", "LabConfig": "config", "SourceConfig": "source", "train": "trainer"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"byrote.checkpoints.lab.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
