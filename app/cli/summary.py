"""What a run found, in the few lines a person reads when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from byrote.probes.wording import counted

if TYPE_CHECKING:
    import pandas as pd

    from byrote.probes.results import Results

_SHOWN = 4


def findings(results: Results) -> Iterator[str]:
    """Lines about the last step that lint does not doubt: induction heads, previous-token heads, loss on repeats, gaps."""
    yield from _left_out(results)
    if not results.usable_steps:
        return
    step = results.usable_steps[-1]
    yield from _induction(results, step)
    yield from _previous_token(results, step)
    yield from _repeat_loss(results, step)
    yield from _not_measured(results, step)


def _left_out(results: Results) -> Iterator[str]:
    reasons: dict[str, list[int]] = {}
    for step, why in results.left_out.items():
        reasons.setdefault(why, []).append(step)
    for why, steps in reasons.items():
        shown = ", ".join(f"{step:,}" for step in steps[:_SHOWN])
        more = f" and {len(steps) - _SHOWN} more" if len(steps) > _SHOWN else ""
        yield f"lint asks to leave out step{'s' if len(steps) > 1 else ''} {shown}{more}: {why}"


def _induction(results: Results, step: int) -> Iterator[str]:
    from byrote.probes.trajectory import verdict_table

    verdicts = verdict_table(results)
    if step not in verdicts.index:
        return
    last = verdicts.loc[step]
    if last.isna().all():
        return
    called = set(last.index[last == 1])
    heads = _labelled(results, "prefix_matching", step)
    found = heads[heads["label"].isin(called)]
    if found.empty:
        yield f"no induction heads at step {step:,}"
    else:
        yield f"{counted(len(found), 'induction head')} at step {step:,}: {_listed(found)}"


def _previous_token(results: Results, step: int) -> Iterator[str]:
    from byrote.probes.rules import PREVIOUS_TOKEN
    from byrote.probes.trajectory import heads_above

    found = heads_above(results, "previous_token", step, threshold=PREVIOUS_TOKEN)
    if not found.empty:
        yield f"previous-token heads: {_listed(found)}"


def _repeat_loss(results: Results, step: int) -> Iterator[str]:
    rows = {
        metric: results.select("repeat_loss", metric, step=step) for metric in ("first_block", "later_blocks")
    }
    if any(part.empty or not part["valid"].all() for part in rows.values()):
        return
    first, later = rows["first_block"].iloc[0], rows["later_blocks"].iloc[0]
    yield (
        f"loss on repeated random tokens: {_with_interval(later, digits=3)} nats after the first block "
        f"({first['value']:.3f} on it, chance {later['chance']:.3f})"
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


def _labelled(results: Results, probe: str, step: int) -> pd.DataFrame:
    from byrote.probes.trajectory import heads_above

    return heads_above(results, probe, step, threshold=float("-inf"))


def _listed(heads: pd.DataFrame) -> str:
    shown = ", ".join(
        f"{row['label']} {_with_interval(row)}" for row in heads.head(_SHOWN).to_dict("records")
    )
    return shown + (f" and {len(heads) - _SHOWN} more" if len(heads) > _SHOWN else "")


def _with_interval(row: dict | pd.Series, *, digits: int = 2) -> str:
    return f"{row['value']:.{digits}f} [{row['lo']:.{digits}f}, {row['hi']:.{digits}f}]"
