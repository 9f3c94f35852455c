"""Floor 2: numbers about heads, circuits and memory, with their uncertainty.

Looking at results (`Results`, statistics, trajectory, degradation, figures) never imports torch; measuring does.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "Results": "byrote.probes.results",
    "Scores": "byrote.probes.results",
    "measure": "byrote.probes.notebook",
    "compare": "byrote.probes.degradation",
    "onset": "byrote.probes.trajectory",
    "REGISTRY": "byrote.probes.registry",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'probes' has no attribute {name!r}")
