"""What a corpus would teach: how much of it induction can predict, how it repeats itself, what it lost of a reference.

`measure_text` reads corpora piece by piece in bounded memory and never imports torch unless a model is
given.
"""

from __future__ import annotations

from byrote.checkpoints.lazy import lazily

_LAZY = {
    "measure_text": "byrote.probes.text.corpus",
    "TextSettings": "byrote.probes.text.settings",
    "TextReport": "byrote.probes.text.report",
}
__getattr__, __dir__ = lazily(__name__, _LAZY)
