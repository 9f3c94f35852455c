"""Which heads read which, over the whole series: edges by composition z and the previous-token to induction path. No Streamlit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from byrote.dashboard.run_cache import run_cache
from byrote.dashboard.saved import SavedRun
from byrote.interp.axes import head_label
from byrote.probes.wording import clean, number, step_number

MAX_EDGES_PER_STEP = 240
PREVIOUS_TOKEN_AT_LEAST = (
    0.3  # attention to the token before; the name people give such heads starts about here
)
WAY_NAMES = {"k": "K-composition", "q": "Q-composition", "v": "V-composition"}
Head = tuple[int, int]


@dataclass(frozen=True)
class Edge:
    """One earlier head read by a later one at a step."""

    source: Head
    target: Head
    z: float
    on_path: bool


@dataclass(frozen=True)
class Wiring:
    """Edges over a series.

    Attributes:
        edges: step -> edges, strongest first, at most `MAX_EDGES_PER_STEP`.
        totals: step -> how many pairs there are.
        reasons: why nothing was measured, where nothing was.
    """

    edges: dict[int, list[Edge]]
    totals: dict[int, int]
    reasons: tuple[str, ...]

    @property
    def most(self) -> float:
        """The largest z of the series."""
        return max((edges[0].z for edges in self.edges.values() if edges), default=0.0)


@run_cache(16)
def wiring(run: SavedRun, way: str) -> Wiring:
    """Edges of one kind of composition."""
    rows = run.rows("composition", f"{way}_z")
    pairs = rows[rows["src_layer"].notna() & rows["valid"]]
    reasons = tuple(clean(r) for r in dict.fromkeys(rows.loc[~rows["valid"], "reason"]) if r)
    counted = run.rows("composition", "n_pairs")
    totals = {
        int(s): int(v)
        for s, v, ok in zip(counted["step"], counted["value"], counted["valid"], strict=True)
        if ok
    }
    edges: dict[int, list[Edge]] = {}
    for step, part in pairs.groupby("step", sort=True):
        part = part.nlargest(MAX_EDGES_PER_STEP, "value")
        looking, copying = previous_token_heads(run, int(step)), induction_heads(run, int(step))
        edges[int(step)] = [
            Edge((int(sl), int(sh)), (int(l), int(h)), float(z), (sl, sh) in looking and (l, h) in copying)
            for sl, sh, l, h, z in part[["src_layer", "src_head", "layer", "head", "value"]].itertuples(
                index=False
            )
        ]
        totals.setdefault(int(step), len(pairs[pairs["step"] == step]))
    return Wiring(edges, totals, reasons)


def previous_token_heads(run: SavedRun, step: int) -> set[Head]:
    """Heads that surely look one token back at a step."""
    if not run.has("previous_token", "score"):
        return set()
    cube = run.cube("previous_token", "score")
    at = cube.index(step)
    return {
        (int(l), int(h)) for l, h in np.argwhere(cube.valid[at] & (cube.lo[at] > PREVIOUS_TOKEN_AT_LEAST))
    }


def induction_heads(run: SavedRun, step: int) -> set[Head]:
    """Heads called induction heads at a step."""
    if not run.has("induction", "verdict"):
        return set()
    cube = run.cube("induction", "verdict")
    at = cube.index(step)
    return {(int(l), int(h)) for l, h in np.argwhere(cube.valid[at] & (cube.value[at] > 0.5))}


def finding(run: SavedRun, found: Wiring, *, way: str, step: int) -> str:
    """The strongest wire at a step, and whether it is the induction circuit's."""
    name, edges = WAY_NAMES[way], found.edges.get(step, [])
    if not edges:
        return f"{name} was not measured in {clean(run.name, limit=60)} at step {step_number(step)}"
    path = [edge for edge in edges if edge.on_path]
    if path and way == "k":
        best = path[0]
        return (
            f"{head_label(*best.target)}, an induction head, reads {head_label(*best.source)}, a previous-token head: "
            f"{name} z {number(best.z)} at step {step_number(step)}"
        )
    best = edges[0]
    tail = "" if way != "k" else "; no previous-token head feeds an induction head"
    return f"The strongest {name} at step {step_number(step)} is {_arrow(best)}, z {number(best.z)}{tail}"


def edges_frame(run: SavedRun, found: Wiring, *, way: str, step: int, least: float) -> pd.DataFrame:
    """The edges drawn at a step as a table: z, excess, since when, and what cutting the path does where measured."""
    excess = _at(run, "composition", f"{way}_excess", step)
    cut = _at(run, "induction_circuit", "change", step) if way == "k" else {}
    first = _since(found, least)
    rows = []
    for edge in found.edges.get(step, []):
        if edge.z < least:
            break
        key = (*edge.source, *edge.target)
        rows.append(
            {
                "from": head_label(*edge.source),
                "to": head_label(*edge.target),
                "z": round(edge.z, 2),
                "excess over null": excess.get(key),
                "this strong since step": first.get(key),
                "path": "previous token → induction" if edge.on_path else "",
                "prefix matching change when cut": cut.get(key),
            }
        )
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    unused = [] if frame["path"].any() else ["path"]
    return frame.drop(columns=unused).dropna(axis="columns", how="all")


def default_least(found: Wiring, step: int) -> float:
    """A threshold that leaves the strongest dozen, rounded down to a half."""
    zs = [edge.z for edge in found.edges.get(step, [])]
    if not zs:
        return 2.0
    return max(2.0, float(np.floor(2 * zs[min(11, len(zs) - 1)]) / 2)) if zs[0] >= 2 else 0.0


def _at(run: SavedRun, probe: str, metric: str, step: int) -> dict[tuple[int, ...], float]:
    if not run.has(probe, metric):
        return {}
    rows = run.rows(probe, metric)
    rows = rows[(rows["step"] == step) & rows["valid"] & rows["src_layer"].notna()]
    keys = rows[["src_layer", "src_head", "layer", "head"]].itertuples(index=False)
    return {tuple(int(i) for i in key): float(v) for key, v in zip(keys, rows["value"], strict=True)}


def _since(found: Wiring, least: float) -> dict[tuple[int, ...], int]:
    """The first step from which an edge stays above the threshold to the end."""
    since: dict[tuple[int, ...], int] = {}
    for _step, edges in sorted(found.edges.items()):
        now = {(*e.source, *e.target) for e in edges if e.z >= least}
        since = {key: since.get(key, _step) for key in now}
    return since


def _arrow(edge: Edge) -> str:
    return f"{head_label(*edge.source)} → {head_label(*edge.target)}"
