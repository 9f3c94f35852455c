"""Smallest effects of interest: changes below them may be sure, and are too small to be told as findings. No torch.

With paired sequences any two checkpoints differ surely in something. 0.05 is what the induction verdict asks for
(docs/decisions/0002-induction-verdict.md); here it holds for every score between 0 or -1 and 1 and for losses in nats.
"""

from __future__ import annotations

from probes.info import ProbeInfo

SMALLEST = 0.05
SMALLEST_Z = 1.0
_Z = "standard deviations"


def smallest_effect(info: ProbeInfo, metric: str) -> float:
    """Smallest change of a metric that is told as a finding, in the metric's unit.

    Args:
        info: the probe.
        metric: one of its metrics.

    Returns:
        0.05 for fractions, scores within [-1, 1] and nats (per token, of log odds), 1 for standard deviations of a
        null, and 0 for every other unit, where no size is known to matter.
    """
    unit = info.unit_of(metric)
    if unit == _Z:
        return SMALLEST_Z
    own = unit == info.unit and info.range is not None and info.range[1] <= 1
    fraction = unit.endswith("fraction") or unit == "probability"
    return SMALLEST if own or fraction or unit in ("nats", "nats of log odds") else 0.0
