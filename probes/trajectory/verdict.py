"""When the verdict first holds: onsets of called heads and of the induction circuit. No torch.

An onset is known only up to the measured steps around it, so it is given as a bracket: not there at the first step,
there at the second. It must last: a head called at one step and gone at the next measured one has no onset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from byrote.interp.axes import head_label
from byrote.probes.store import Results


@dataclass(frozen=True)
class Onset:
    """First lasting appearance of something.

    Attributes:
        found: whether it appears at all.
        head: label of the head that shows it first, "" when none.
        bracket: (last measured step without it, or None when it is there from the start; first step with it).
        tokens: the same bracket in training tokens, None where unknown.
        heads_at_end: labels of the heads that have it at the last step.
        text: the finding in words.
    """

    found: bool
    head: str
    bracket: tuple[int | None, int] | None
    tokens: tuple[int | None, int | None] | None
    heads_at_end: tuple[str, ...]
    text: str


def onset(results: Results) -> Onset:
    """When the first lasting induction head appears.

    Lasting: still called at the next measured step, or first called at the last one.

    Args:
        results: of one run, with the `induction` verdict.
    """
    table = verdict_table(results)
    if table.empty:
        return Onset(False, "", None, None, (), "the induction verdict was not measured")
    at_end = tuple(str(head) for head in table.columns[table.iloc[-1] == 1])
    first = _first_lasting(table)
    if first is None:
        called = table.eq(1).any().any()
        text = (
            "induction heads are called at single steps but none lasts"
            if called
            else "no induction head at any step"
        )
        return Onset(False, "", None, None, at_end, text)
    index, head = first
    steps = [int(step) for step in table.index]
    bracket = (steps[index - 1] if index else None, steps[index])
    tokens = _tokens_at(results, bracket)
    return Onset(True, head, bracket, tokens, at_end, _onset_text(head, bracket, at_end))


def head_onsets(results: Results) -> pd.DataFrame:
    """Onset bracket of every head that is ever called: columns head, step_before, step_at, called_at_end."""
    table = verdict_table(results)
    rows = []
    for head in table.columns:
        first = _first_lasting(table[[head]])
        if first is None:
            continue
        index = first[0]
        rows.append(
            {
                "head": head,
                "step_before": int(table.index[index - 1]) if index else None,
                "step_at": int(table.index[index]),
                "called_at_end": bool(table[head].iloc[-1] == 1),
            }
        )
    return pd.DataFrame(rows, columns=["head", "step_before", "step_at", "called_at_end"])


def verdict_table(results: Results) -> pd.DataFrame:
    """Induction verdicts: one row per step, one column per head label; NaN where not measured."""
    return head_table(results, "induction", "verdict")


def head_table(results: Results, probe: str, metric: str) -> pd.DataFrame:
    """Values of a head metric: one row per step that lint did not ask to leave out, one column per head label."""
    rows = results.select(probe, metric)
    rows = rows[~rows["step"].isin(list(results.left_out))]
    rows = rows[rows["layer"].notna()]
    if rows.empty:
        return pd.DataFrame()
    table = rows.pivot(index="step", columns=["layer", "head"], values="value")
    table.columns = [head_label(int(l), int(h)) for l, h in table.columns]
    return table.sort_index()


def best_head(results: Results, probe: str, step: int, *, metric: str = "score") -> pd.Series | None:
    """The strongest head of a probe at a step, as its observation row with `label`; None when none is valid."""
    rows = results.select(probe, metric, step=step)
    rows = rows[rows["valid"] & rows["layer"].notna()]
    if rows.empty:
        return None
    row = rows.loc[rows["value"].idxmax()].copy()
    row["label"] = head_label(int(row["layer"]), int(row["head"]))
    return row


def heads_above(
    results: Results, probe: str, step: int, *, threshold: float, metric: str = "score"
) -> pd.DataFrame:
    """Heads whose interval lies above a threshold at a step, strongest first, with a `label` column."""
    rows = results.select(probe, metric, step=step)
    rows = rows[rows["valid"] & rows["layer"].notna() & (rows["lo"] > threshold)].copy()
    rows["label"] = [head_label(int(l), int(h)) for l, h in zip(rows["layer"], rows["head"], strict=True)]
    return rows.sort_values("value", ascending=False)


def _first_lasting(table: pd.DataFrame) -> tuple[int, str] | None:
    """Row index and column of the first call that still stands at the next row (or is in the last one)."""
    called = table.eq(1).to_numpy()
    lasting = called.copy()
    lasting[:-1] &= called[1:]
    rows = np.flatnonzero(lasting.any(axis=1))
    if not len(rows):
        return None
    index = int(rows[0])
    return index, str(table.columns[int(np.argmax(lasting[index]))])


def _tokens_at(results: Results, bracket: tuple[int | None, int]) -> tuple[int | None, int | None]:
    frame = results.frame
    seen = frame.drop_duplicates("step").set_index("step")["tokens_seen"]

    def tokens(step: int | None) -> int | None:
        return None if step is None or pd.isna(seen.get(step)) else int(seen[step])

    return tokens(bracket[0]), tokens(bracket[1])


def _onset_text(head: str, bracket: tuple[int | None, int], at_end: tuple[str, ...]) -> str:
    before, at = bracket
    when = (
        f"is there at the first measured step ({at:,})"
        if before is None
        else f"appears between steps {before:,} and {at:,}"
    )
    last = (
        f"; at the last step {len(at_end)}: {', '.join(at_end)}"
        if at_end
        else "; none is left at the last step"
    )
    return f"the first lasting induction head ({head}) {when}{last}"
