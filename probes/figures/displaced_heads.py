"""Displacement: which heads raise a copied token, in the baseline and in each arm?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade.displacement import CLASSES, TOTAL, UNCLEAR_WHICH, reading
from byrote.probes.figures.canvas import FULL, Figure, Look
from byrote.probes.figures.forest import ForestRow, Mark, Panel, forest
from byrote.probes.figures.theme import paint
from byrote.probes.wording import clean, interval, markup, sentence_case, short

_APART = 0.17  # rows between the two dots of one row
_MOST_NAMED = 3  # arms in words


def displacement(shares: Any, *, baseline: str = "baseline", look: Look = FULL) -> Figure:
    """Direct raise of a copied token's logit by class of head, the baseline hollow beside each arm.

    Args:
        shares: arm -> the table of `byrote.degrade.displacement` against its baseline; or one such table.
        baseline: what the baseline is called.
        look: theme and width.

    Returns:
        A panel per class of head (its share of the raise, 0 to 1) and one for the raise itself in logits; means with their 95%
        intervals over seeds, the difference in words at the right. The table has a row per arm and class.

    Raises:
        ByroteError: no arm has heads that raise the copied token.
    """
    tables: Mapping[str, pd.DataFrame] = {"arm": shares} if isinstance(shares, pd.DataFrame) else dict(shares)
    known = {
        arm: table.set_index("class") for arm, table in tables.items() if table["difference"].notna().any()
    }
    if not known:
        raise ByroteError(
            "heads do not raise the copied token in any arm, so no class of heads has a share",
            help="measure induction_dla, induction and previous_token of arms in which something is copied",
        )
    panels = []
    for name in (*CLASSES, TOTAL):
        rows = tuple(
            _row(arm, table.loc[name], baseline)
            for arm, table in known.items()
            if table["difference"].notna()[name]
        )
        if rows:
            title = "raise of the copied token's logit" if name == TOTAL else "share of that raise, 0 to 1"
            panels.append(Panel(rows, title, head=sentence_case(name if name == TOTAL else f"{name} heads")))
    clear = [arm for arm, table in known.items() if reading(table.reset_index()) != UNCLEAR_WHICH]
    named = clear[:_MOST_NAMED] or list(known)[:1]
    text = "; ".join(f"{clean(arm)}: {_finding(known[arm])}" for arm in named)
    rest = (
        f" No clear change in {len(known) - len(clear)} of {len(known)} arms."
        if len(known) > len(clear)
        else ""
    )
    return forest(
        panels, title=f"Who raises a copied token, against {markup(short(baseline))}",
        subtitle=f"hollow: {markup(short(baseline))} · filled: the arm · bars: 95% intervals over seeds · in words: the difference", look=look,
        alt=f"Direct raise of a copied token by class of head, against {clean(baseline)}. {text}.{rest}",
        table=lambda: pd.concat([table.reset_index().assign(arm=arm) for arm, table in known.items()], ignore_index=True)[
            ["arm", "class", "a", "a_lo", "a_hi", "b", "b_lo", "b_hi", "difference", "lo", "hi", "p", "seeds_a", "seeds_b"]],
    )  # fmt: skip


def _row(arm: str, row: pd.Series, baseline: str) -> ForestRow:
    marks = []
    for side, name, token, shift in (("a", baseline, "base", -_APART), ("b", arm, "series0", _APART)):
        ends = (row[side], row[f"{side}_lo"], row[f"{side}_hi"])
        hover = f"{markup(name)}: {interval(*ends)}"
        marks.append(
            Mark(
                "baseline" if side == "a" else "arm",
                *ends,
                paint(token),
                hover,
                filled=side == "b",
                shift=shift,
            )
        )
    words = interval(row["difference"], row["lo"], row["hi"], sign=True)
    sure = row["lo"] > 0 or row["hi"] < 0
    return ForestRow(clean(short(arm)), tuple(marks), words, "ink" if sure else "muted")


def _finding(table: pd.DataFrame) -> str:
    words = [f"{name} heads {interval(table.loc[name, 'difference'], table.loc[name, 'lo'], table.loc[name, 'hi'], sign=True)}"
             for name in ("induction", "other") if table.loc[name, "difference"] == table.loc[name, "difference"]]  # fmt: skip
    raised = interval(*(table.loc[TOTAL, name] for name in ("difference", "lo", "hi")), sign=True)
    return f"{reading(table.reset_index())}, {', '.join([*words, f'the raise {raised} logits'])}"
