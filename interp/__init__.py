"""Floor 1: one model, one forward pass. TransformerLens is touched only here and by the lab.

Importing the package does not import torch; its names load on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

from byrote.interp.axes import head_label as head_label
from byrote.interp.axes import parse_head as parse_head
from byrote.interp.axes import parse_heads as parse_heads

_LAZY = {
    "HookedSeries": "byrote.interp.bridge",
    "HookedModel": "byrote.interp.model",
    "capture": "byrote.interp.captured",
    "Capture": "byrote.interp.captured",
    "written": "byrote.interp.logit_attribution",
    "Written": "byrote.interp.logit_attribution",
    "load": "byrote.interp.loading",
    "HeadWeights": "byrote.interp.weights",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'interp' has no attribute {name!r}")
