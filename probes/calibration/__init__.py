"""Do the intervals cover what they say, and do the verdicts raise false alarms? Measured on data whose truth is known.

Intervals: of 95% ones, 93 to 97% must hold the truth. Verdicts: where nothing is there, at most 5% may say that
something is; of the heads that are called, at most 5% may be false. docs/statistics.md has what was measured. No torch.
"""

from __future__ import annotations

from byrote.probes.calibration.comparing import comparison_checks
from byrote.probes.calibration.intervals import interval_checks
from byrote.probes.calibration.training import event_checks
from byrote.probes.calibration.verdicts import verdict_checks
from byrote.probes.checks import Check


def calibration_checks(*, tries: int = 200, seed: int = 0) -> list[Check]:
    """Every check: intervals, verdicts, comparisons, and events over training at 12 checkpoints.

    Args:
        tries: simulated data sets per check; ten times as many where one is cheap.
        seed: of the simulations.
    """
    return [
        *interval_checks(tries, seed),
        *verdict_checks(tries, seed),
        *comparison_checks(tries, seed),
        *event_checks(tries, seed),
    ]


__all__ = ["calibration_checks"]
