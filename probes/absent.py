"""What a run could not measure because its series carries no such sequences and none were given. No torch.

That is no fault of a checkpoint and no gap: it is said once, and leaves the exit code and the report's status alone.
"""

from __future__ import annotations

import pandas as pd

from byrote.probes.results import Results
from byrote.probes.stimuli import MATERIAL_STIMULI


def absent_material(results: Results) -> dict[str, str]:
    """Stimulus kinds that need given sequences and had none -> the reason their rows give."""
    refused = results.meta.get("refused_stimuli") or {}
    return {kind: str(reason) for kind, reason in refused.items() if kind in MATERIAL_STIMULI}


def lacks_material(results: Results) -> pd.Series:
    """Which rows of `results.frame` were not measured for want of given sequences: a boolean Series."""
    reasons = set(absent_material(results).values())
    return ~results.frame["valid"].astype(bool) & results.frame["reason"].isin(reasons)


def said_once(results: Results) -> str:
    """One sentence on what is missing and which probes waited for it; "" where nothing is missing."""
    rows = results.frame[lacks_material(results)]
    if rows.empty:
        return ""
    reasons = dict.fromkeys(absent_material(results).values())
    given = [reason for reason in reasons if (rows["reason"] == reason).any()]
    return f"{'; '.join(given)}: {', '.join(dict.fromkeys(rows['probe']))} not measured there"
