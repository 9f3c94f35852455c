"""The comparison behind the Compare page, made once per pair of runs and step. No Streamlit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from byrote.cli.settings import flat
from byrote.dashboard.remembering import points
from byrote.dashboard.run_cache import run_cache
from byrote.interp.axes import head_label
from byrote.probes.comparable import BEST_HEAD, Comparison, matched_steps
from byrote.probes.degradation import compare
from byrote.probes.figures.memory_plane import RULE_AXES
from byrote.probes.registry import REGISTRY, best_compared
from byrote.probes.results import Results
from byrote.probes.rules import change, is_called
from byrote.probes.wording import (
    clean,
    interval,
    number,
    p_value,
    probe_name,
    sentence_case,
)

_COUNTS = frozenset({"pairs", "heads", "sets of heads", "tokens", "members"})
_SAME = ("name", "versions", "status")


@run_cache(64)
def pairs_of(run: Results, base: Results, align: str) -> Mapping[int, int]:
    """Step of the run -> step of the baseline it stands beside.

    Raises:
        ByroteError: nothing to align by.
    """
    return {b: a for a, b in matched_steps(base, run, align)}


@run_cache(32)
def comparison_of(run: Results, base: Results, align: str, step: int) -> Comparison:
    """The run against the baseline at one step of the run.

    Raises:
        ByroteError: the runs were not measured alike, or have no such step in common.
    """
    at = pairs_of(run, base, align).get(step)
    return compare(base, run, align=align, at="last" if at is None else at)


def differences_frame(comparison: Comparison, *, head: str) -> pd.DataFrame:
    """Model-level measures, the strongest heads, and the head looked at: both values, the difference, and words."""
    rows = comparison.rows
    rows = rows[rows["position"].isna()]
    mine = rows[
        rows["layer"].isna() | ((rows["head_a"] == head) & (rows["metric"] == rows["probe"].map(_main)))
    ]
    out = []
    for row in mine.itertuples(index=False):
        info = REGISTRY[row.probe]
        if info.unit_of(row.metric) in _COUNTS:
            continue
        name = sentence_case(probe_name(row.probe))
        if row.metric == BEST_HEAD:
            name += ", strongest head"
        elif row.metric not in ("score", info.main_metric) or info.kind not in ("head", "weights"):
            name += f": {probe_name(row.metric)}"
        where = (
            ""
            if not row.head_a
            else row.head_a
            if row.head_a == row.head_b
            else f"{row.head_a} / {row.head_b}"
        )
        out.append(
            {
                "measure": name,
                "where": where,
                comparison.a: info.word_of(row.metric, row.a) or number(row.a),
                comparison.b: info.word_of(row.metric, row.b) or number(row.b),
                "difference [95% interval]": ""
                if info.word_of(row.metric, row.a)
                else interval(row.difference, row.lo, row.hi, sign=True),
                "in words": change(row),
                "n": int(row.n) or None,
                "q": "" if pd.isna(row.q) else p_value(row.q),
                "unit": info.unit_of("score" if row.metric == BEST_HEAD else row.metric),
            }
        )
    order = {word: i for i, word in enumerate(("worse", "better", "higher", "lower"))}
    out.sort(key=lambda row: order.get(str(row["in words"]), len(order)))
    return pd.DataFrame(out)


def headline(comparison: Comparison) -> Comparison:
    """The comparison cut to the few measures a reader asks for first."""
    rows = comparison.rows
    first = {(info.name, metric) for info in REGISTRY.values() for metric in info.headline}
    first |= {(probe, BEST_HEAD) for probe in best_compared()}
    wanted = [(p, m) in first for p, m in zip(rows["probe"], rows["metric"], strict=True)]
    return replace(comparison, rows=rows[np.array(wanted, dtype=bool) & rows["layer"].isna().to_numpy()])


def config_frame(run: Results, base: Results) -> pd.DataFrame:
    """Only what differs between the two series and models."""
    sides = [_facts(base), _facts(run)]
    names = [n for n in dict.fromkeys([*sides[0], *sides[1]]) if sides[0].get(n) != sides[1].get(n)]
    rows = [
        {"what": n.replace("_", " "), base.run: _said(sides[0].get(n)), run.run: _said(sides[1].get(n))}
        for n in names
    ]
    return pd.DataFrame(rows, columns=["what", base.run, run.run])


def turnover_frame(run: Results, base: Results, pairs: Mapping[int, int], *, step: int) -> pd.DataFrame:
    """Induction heads of the baseline, of the run, and of both, at a step."""
    called = {}
    for one, at in ((base, pairs.get(step, base.steps[-1])), (run, step)):
        if not one.has("induction", "verdict"):
            return pd.DataFrame()
        cube = one.cube("induction", "verdict")
        i = cube.index(at)
        called[one.run] = {
            head_label(int(l), int(h)) for l, h in np.argwhere(is_called(cube.value[i]) & cube.valid[i])
        }
    a, b = called[base.run], called[run.run]
    kinds = {"in both": a & b, f"only in {base.run}": a - b, f"only in {run.run}": b - a}
    rows = [
        {"induction heads": k, "how many": len(v), "which": ", ".join(sorted(v)[:24])}
        for k, v in kinds.items()
    ]
    return pd.DataFrame(rows)


def mass_words(run: Results, base: Results, pair: tuple[int, int]) -> str:
    """The induction mass of both at a pair of steps, the baseline's first: heads may trade places while it stays."""
    found = []
    for one, step in zip((base, run), pair, strict=True):
        at = {p.step: p for p in points(one, *RULE_AXES["induction mass"][:2])}.get(step)
        said = "not measured" if at is None else f"{interval(at.value, at.lo, at.hi)} {at.where}"
        found.append(f"{clean(one.run, limit=60)} {said}")
    return f"Induction mass, prefix matching above chance summed: {'; '.join(found)}."


def _main(probe: str) -> str:
    return REGISTRY[probe].main_metric if probe in REGISTRY else "score"


def _facts(run: Results) -> dict[str, Any]:
    manifest = (run.meta.get("series") or {}).get("manifest") or {}
    facts = flat({k: v for k, v in manifest.items() if k not in _SAME})
    facts |= flat({"model": run.meta.get("model") or {}})
    last = run.steps[-1] if run.steps else None
    return facts | {"last step": last, "train loss at the last step, nats": run.loss.get(last or 0)}


def _said(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else clean(value)
