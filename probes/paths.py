"""Paths between heads that were ablated, from stored rows of `induction_circuit`: which of them carry prefix matching. No torch.

Composition of weights names pairs worth a look; only ablating the path says whether it does anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from byrote.probes.rules import path_carries

METRICS = {"k": "change", "q": "q_change"}  # what `induction_circuit` ablates the path into
INPUTS = {"k": "keys", "q": "queries", "v": "values"}
Head = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Path:
    """One ablated path at a step.

    Attributes:
        source, target: the earlier and the later head.
        way: "k" or "q", the input of the later head.
        change: of the later head's prefix matching without it, an attention fraction; below 0 where the path serves.
        lo, hi: its 95% interval.
        carries: whether the later head needs it, significantly: see `path_carries`.
    """

    source: Head
    target: Head
    way: str
    change: float
    lo: float
    hi: float
    carries: bool


def paths(results: Any, step: int, *, ways: Iterable[str] = tuple(METRICS)) -> list[Path]:
    """Every path that was ablated at a step, the one most needed first.

    Args:
        results: of one run.
        step: training step.
        ways: "k", "q" or both; into values no path is ablated.
    """
    found: list[tuple[str, Any]] = []
    for way in ways:
        if way in METRICS and results.has("induction_circuit", METRICS[way]):
            rows = results.select("induction_circuit", METRICS[way], step=step)
            rows = rows[rows["valid"] & rows["src_layer"].notna()]
            found += [(way, row) for row in rows.itertuples(index=False)]
    made = [
        Path(
            (int(row.src_layer), int(row.src_head)),
            (int(row.layer), int(row.head)),
            way,
            float(row.value),
            float(row.lo),
            float(row.hi),
            path_carries(row.value, row.hi, among=len(found)),
        )
        for way, row in found
    ]
    return sorted(made, key=lambda path: (path.change, path.source, path.target, path.way))
