"""Floor 1: one model, one forward pass. TransformerLens is touched only here and by the lab.

Importing the package does not import torch; its names load on first use.
"""

from __future__ import annotations

from byrote.checkpoints.lazy import lazily
from byrote.interp.axes import head_label, parse_head, parse_heads

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
__all__ = [*_LAZY, "head_label", "parse_head", "parse_heads"]
__getattr__, __dir__ = lazily(__name__, _LAZY)
