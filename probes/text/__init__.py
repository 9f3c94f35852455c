"""What a corpus would teach: how much of it induction can predict, how it repeats itself, what it lost of a reference.

`measure_text` reads corpora piece by piece in bounded memory and never imports torch unless a model is
given.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "measure_text": "byrote.probes.text.corpus",
    "TextSettings": "byrote.probes.text.settings",
    "TextReport": "byrote.probes.text.report",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'byrote.probes.text' has no attribute {name!r}")
