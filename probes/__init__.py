"""Floor 2: numbers about heads, circuits and memory, with their uncertainty.

Looking at results (`Results`, statistics, trajectory, degradation, figures) never imports torch; measuring does.
"""

from __future__ import annotations

from byrote.checkpoints.lazy import lazily

_LAZY = {
    "Results": "byrote.probes.results",
    "Scores": "byrote.probes.results",
    "measure": "byrote.probes.notebook",
    "compare": "byrote.probes.degradation",
    "onset": "byrote.probes.trajectory",
    "REGISTRY": "byrote.probes.registry",
}
__getattr__, __dir__ = lazily(__name__, _LAZY)
