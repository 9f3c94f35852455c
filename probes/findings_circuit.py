"""The sentence on a circuit: what the induction heads read. Command line, report and pages. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from byrote.interp.axes import head_label, pair_label
from byrote.probes.paths import INPUTS, paths
from byrote.probes.rules import is_called, stands_out
from byrote.probes.trajectory.verdict import heads_above, verdict_table
from byrote.probes.wording import all_of, counted, interval, number, step_number

if TYPE_CHECKING:
    from byrote.probes.results.table import Table


def circuit(results: Table, *, way: str, step: int) -> str:
    """Which earlier head the induction heads need, as ablated paths say; else what weights suggest, said as such.

    Args:
        results: of one run.
        way: "k", "q" or "v", the input that is asked about first.
        step: training step.
    """
    when = f"at step {step_number(step)}"
    ablated = sorted(paths(results, step), key=lambda path: (not path.carries, path.way != way, path.change))
    if ablated and ablated[0].carries:
        path = ablated[0]
        source, target = head_label(*path.source), head_label(*path.target)
        fall = interval(-path.change, -path.hi, -path.lo)
        return f"{target} needs what {source} writes into its {INPUTS[path.way]}: without it prefix matching falls by {fall} {when}"
    if ablated:
        most = min(ablated, key=lambda path: path.change)
        change = interval(most.change, most.lo, most.hi, sign=True)
        pair = pair_label(most.source, most.target)
        return f"None of {counted(len(ablated), 'ablated path')} carries prefix matching {when}; {pair} changes it most, by {change}"
    return _by_weights(results, step) or f"No path between heads was ablated {when}"


def _by_weights(results: Table, step: int) -> str:
    """The head whose weights match prefixes most clearly, among induction heads where there are any; those without it."""
    called: list[str] = []
    verdicts = verdict_table(results) if results.has("induction", "verdict") else pd.DataFrame()
    if step in verdicts.index:
        called = [*verdicts.columns[is_called(verdicts.loc[step].to_numpy())]]
        if not called and not verdicts.loc[step].isna().all():
            return f"No head is called an induction head at step {step_number(step)}, and no path was ablated"
    if not results.has("qk_matching", "trace_z"):
        return _which_they_read(called, step) if called else ""
    rows = heads_above(results, "qk_matching", step, threshold=float("-inf"), metric="trace_z")
    rows = rows[rows["label"].isin(called)] if called else rows
    if rows.empty:
        return ""
    best, among = rows.iloc[0], int((results.rows("qk_matching", "trace_z", step=step)["valid"]).sum())
    z = f"QK trace z {number(best['value'])}, step {step_number(step)}"
    if not stands_out(best["value"], among=among):
        return f"No head's weights significantly match prefixes: {best['label']} does most ({z})"
    return (
        f"The weights of {best['label']} match prefixes through previous-token heads ({z}); "
        "which of them it needs was not tested by ablation"
    )


def _which_they_read(called: Sequence[str], step: int) -> str:
    """Which heads are induction heads, and that nothing says what they read."""
    one = len(called) == 1
    are = "is an induction head" if one else "are induction heads"
    read = "head it reads" if one else "heads they read"
    return f"{all_of(called, most=4)} {are} at step {step_number(step)}; which earlier {read} was not tested by ablation"
