"""Which heads read which: edges by composition z over a series, and the path from previous-token to induction heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.interp.axes import head_label
from byrote.probes.figures.axis import axis_layout
from byrote.probes.figures.canvas import FULL, Canvas, Figure, Look, Trace, empty, finish, note, scatter
from byrote.probes.figures.cells import thinned
from byrote.probes.figures.theme import paint
from byrote.probes.rules import is_called, is_previous_token_head
from byrote.probes.wording import clean, markup, number, short, step_number

MAX_EDGES_PER_STEP = 240
MAX_EDGES_DRAWN = 60
WAY_NAMES = {"k": "K-composition", "q": "Q-composition", "v": "V-composition"}
Head = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Edge:
    """One earlier head read by a later one at a step; `on_path` where a previous-token head feeds an induction head."""

    source: Head
    target: Head
    z: float
    on_path: bool

    @property
    def ends(self) -> tuple[Head, Head]:
        """Earlier and later head."""
        return self.source, self.target

    @property
    def label(self) -> str:
        """`L0H1 → L1H0`."""
        return f"{head_label(*self.source)} → {head_label(*self.target)}"


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

    def default_least(self, step: int) -> float:
        """A threshold of z that leaves the strongest dozen, rounded down to a half."""
        zs = [edge.z for edge in self.edges.get(step, [])]
        if not zs:
            return 2.0
        return max(2.0, float(np.floor(2 * zs[min(11, len(zs) - 1)]) / 2)) if zs[0] >= 2 else 0.0

    def since(self, least: float) -> dict[tuple[Head, Head], int]:
        """The first step from which an edge stays above a threshold to the end."""
        since: dict[tuple[Head, Head], int] = {}
        for step, edges in sorted(self.edges.items()):
            now = {edge.ends for edge in edges if edge.z >= least}
            since = {key: since.get(key, step) for key in now}
        return since


def wiring(results: Any, way: str) -> Wiring:
    """Edges of one kind of composition at every step.

    Args:
        results: a `Results`.
        way: "k", "q" or "v".

    Raises:
        ByroteError: there is no such kind.
    """
    if way not in WAY_NAMES:
        raise ByroteError(f"there is no composition {way!r}", help=did_you_mean(way, WAY_NAMES))
    rows = results.select("composition", f"{way}_z")
    pairs = rows[rows["src_layer"].notna() & rows["valid"]]
    reasons = tuple(clean(r) for r in dict.fromkeys(rows.loc[~rows["valid"], "reason"]) if r)
    counts = results.select("composition", "n_pairs")
    counts = counts[counts["valid"]]
    totals = {int(s): int(v) for s, v in zip(counts["step"], counts["value"], strict=True)}
    edges: dict[int, list[Edge]] = {}
    heads: dict[Head, Head] = {}  # one tuple for each, however many edges it has
    for key, part in pairs.groupby("step", sort=True):
        step = int(key)
        totals.setdefault(step, len(part))
        part = part.nlargest(MAX_EDGES_PER_STEP, "value")
        looking, copying = previous_token_heads(results, step), induction_heads(results, step)
        source, target = (
            [
                heads.setdefault(one, one)
                for one in zip(part[layer].tolist(), part[head].tolist(), strict=True)
            ]
            for layer, head in (("src_layer", "src_head"), ("layer", "head"))
        )
        edges[step] = [
            Edge(a, b, z, a in looking and b in copying)
            for a, b, z in zip(source, target, part["value"].tolist(), strict=True)
        ]
    return Wiring(edges, totals, reasons)


def previous_token_heads(results: Any, step: int) -> set[Head]:
    """Heads that surely look one token back at a step."""
    if not results.has("previous_token", "score"):
        return set()
    cube = results.cube("previous_token", "score")
    at = cube.index(step)
    found = np.argwhere(cube.valid[at] & is_previous_token_head(cube.lo[at]))
    return {(int(layer), int(head)) for layer, head in found}


def induction_heads(results: Any, step: int) -> set[Head]:
    """Heads called induction heads at a step."""
    if not results.has("induction", "verdict"):
        return set()
    cube = results.cube("induction", "verdict")
    at = cube.index(step)
    return {(int(l), int(h)) for l, h in np.argwhere(cube.valid[at] & is_called(cube.value[at]))}


def edges_table(results: Any, found: Wiring, *, way: str, step: int, least: float) -> pd.DataFrame:
    """The edges of at least a z at a step: z, excess, since when, and what cutting the path does where measured."""
    excess = _pairs_at(results, "composition", f"{way}_excess", step)
    cut = _pairs_at(results, "induction_circuit", "change", step) if way == "k" else {}
    first = found.since(least)
    rows = [
        {
            "from": head_label(*edge.source),
            "to": head_label(*edge.target),
            "z": round(edge.z, 2),
            "excess over null": excess.get(edge.ends),
            "this strong since step": first.get(edge.ends),
            "path": "previous token → induction" if edge.on_path else "",
            "prefix matching change when cut": cut.get(edge.ends),
        }
        for edge in found.edges.get(step, [])
        if edge.z >= least
    ]
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    unused = [] if frame["path"].any() else ["path"]
    return frame.drop(columns=unused).dropna(axis="columns", how="all")


def circuit(
    results: Any,
    *,
    way: str = "k",
    step: int | None = None,
    least: float | None = None,
    found: Wiring | None = None,
    look: Look = FULL,
) -> Figure:
    """Heads in rows by layer and the strongest edges between them, those of the induction circuit in the second colour.

    Args:
        results: a `Results` with `composition`.
        way: "k", "q" or "v": what the later head reads the earlier one with.
        step: training step; None is the last that has edges.
        least: smallest z drawn; None leaves about a dozen edges.
        found: the `wiring` of the results, where it is there already.
        look: theme and width.

    Returns:
        At most sixty edges; the table gives each one's z, excess over the null, since when it is this strong, and
        what cutting it does where that was measured.

    Raises:
        ByroteError: there is no such kind of composition.
    """
    wired = wiring(results, way) if found is None else found
    step = max(wired.edges, default=0) if step is None else step
    title = f"{WAY_NAMES[way]} in {markup(short(results.run))}, step {step_number(step)}"
    n_layers, n_heads = results.shape
    if not wired.edges.get(step):
        reason = next(iter(wired.reasons), "no composition between heads was measured at this step")
        return empty(title=title, reason=markup(reason), look=look)
    least_z = wired.default_least(step) if least is None else least
    edges = [edge for edge in wired.edges[step] if edge.z >= least_z][:MAX_EDGES_DRAWN]
    heads = sorted({end for edge in edges for end in (edge.source, edge.target)})
    labels = [head_label(*head) for head in heads]
    x, y = [h for _, h in heads], [l for l, _ in heads]
    dots = {"size": 10, "color": paint("ink"), "symbol": "circle"}
    traces = [_edge_trace(edge) for edge in sorted(edges, key=lambda edge: edge.on_path)]
    traces.append(scatter("heads", x, y, marker=dots, hover=labels))
    above: dict[str, Any] = {"xref": "x", "yref": "y", "yshift": 14}
    notes = [note(label, x=h, y=l, tone="ink", **above) for label, (l, h) in zip(labels, heads, strict=True)]
    layout = {
        "xaxis": _axis("head", n_heads, 0.8),
        "yaxis": _axis("layer", n_layers, 0.6),
        "annotations": notes,
    }
    best = f"The strongest is {edges[0].label}, z {number(edges[0].z)}" if edges else "No edge is that strong"
    return finish(
        Figure({"data": traces, "layout": layout}), Canvas(height_px=max(320, 150 + 26 * n_layers)), title=title,
        subtitle=f"{len(edges)} edges with z of at least {least_z:g} · orange: previous token to induction",
        alt=f"{WAY_NAMES[way]} between heads of {clean(results.run)} at step {step_number(step)}: {len(edges)} edges with z of at least {least_z:g}. {best}.",
        look=look, table=lambda: edges_table(results, wired, way=way, step=step, least=least_z),
    )  # fmt: skip


def _edge_trace(edge: Edge) -> Trace:
    color = paint("series1" if edge.on_path else "series0")
    line = {"color": color, "width": round(min(5.0, 1 + edge.z / 4), 2)}
    (above, left), (below, right) = edge.source, edge.target
    return scatter(edge.label, [left, right], [above, below], line=line, hoverinfo="name")


def _axis(title: str, n: int, room: float) -> dict[str, Any]:
    ticks = range(0, n, thinned(n))
    return axis_layout((-room, n - 0.2), ticks, [str(t) for t in ticks], title=title) | {"showgrid": False}


def _pairs_at(results: Any, probe: str, metric: str, step: int) -> dict[tuple[Head, Head], float]:
    rows = results.select(probe, metric, step=step)
    rows = rows[rows["valid"] & rows["src_layer"].notna()]
    ends = rows[["src_layer", "src_head", "layer", "head", "value"]].itertuples(index=False)
    return {((int(sl), int(sh)), (int(l), int(h))): float(v) for sl, sh, l, h, v in ends}
