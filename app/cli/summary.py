"""What a run found, in the few lines a person reads when it ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from byrote.probes.wording import chance_number, count, counted, interval, listed, point

if TYPE_CHECKING:
    import pandas as pd

    from byrote.probes.results import Results


def findings(results: Results) -> Iterator[str]:
    """Lines about the last step that lint does not doubt: induction heads, previous-token heads, loss on repeats, gaps."""
    reasons = defaultdict(list)
    for step, why in results.left_out.items():
        reasons[why].append(count(step))
    for why, steps in reasons.items():
        yield f"lint asks to leave out step{'s' if len(steps) > 1 else ''} {listed(steps)}: {why}"
    if results.usable_steps:
        step = results.usable_steps[-1]
        yield from _heads(results, step)
        yield from _repeat_loss(results, step)
        yield from _not_measured(results, step)


def _heads(results: Results, step: int) -> Iterator[str]:
    from byrote.probes.rules import PREVIOUS_TOKEN
    from byrote.probes.trajectory import heads_above, verdict_table

    verdicts = verdict_table(results)
    if step in verdicts.index and verdicts.loc[step].notna().any():
        matching = heads_above(results, "prefix_matching", step, threshold=float("-inf"))
        found = matching[matching["label"].map(verdicts.loc[step]) == 1]
        if found.empty:
            yield f"no induction heads at step {count(step)}"
        else:
            yield f"{counted(len(found), 'induction head')} at step {count(step)}: {_listed(found)}"
    previous = heads_above(results, "previous_token", step, threshold=PREVIOUS_TOKEN)
    if not previous.empty:
        yield f"previous-token heads: {_listed(previous)}"


def _listed(heads: pd.DataFrame) -> str:
    return listed(
        [f"{row.label} {interval(row.value, row.lo, row.hi)}" for row in heads.itertuples(index=False)]
    )


def _repeat_loss(results: Results, step: int) -> Iterator[str]:
    blocks = [results.select("repeat_loss", name, step=step) for name in ("first_block", "later_blocks")]
    if all(len(block) and block["valid"].all() for block in blocks):
        first, later = (block.iloc[0] for block in blocks)
        yield (
            f"loss on repeated random tokens: {interval(later['value'], later['lo'], later['hi'])} nats after the first "
            f"block ({point(first['value'], first['lo'], first['hi'])} on it, chance {chance_number(later['chance'])})"
        )


def _not_measured(results: Results, step: int) -> Iterator[str]:
    """Metrics without a single valid value at the last step, one line per probe and reason."""
    from byrote.probes.absent import lacks_material, said_once

    frame = results.frame[(results.frame["step"] == step) & ~lacks_material(results)]
    missing: dict[tuple[str, str], list[str]] = {}
    for (probe, metric), rows in frame.groupby(["probe", "metric"], sort=True):
        if not rows["valid"].any():
            missing.setdefault((probe, rows["reason"].iloc[0]), []).append(metric)
    for (probe, reason), metrics in missing.items():
        yield f"not measured: {probe} ({', '.join(metrics)}): {reason}"
    if told := said_once(results):
        yield told
