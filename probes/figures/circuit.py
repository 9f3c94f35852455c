"""Which heads read which: paths that ablation showed to carry prefix matching, and pairs that composition suggests.

z is a screen. Edges whose path was ablated come first, the one most needed at the top; the others follow by z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.interp.axes import head_label
from byrote.probes import findings_circuit
from byrote.probes.figures.axis import axis_layout
from byrote.probes.figures.canvas import FULL, Canvas, Figure, Look, Trace, empty, finish, note, scatter
from byrote.probes.figures.cells import thinned
from byrote.probes.figures.select import interval_words
from byrote.probes.figures.theme import paint
from byrote.probes.head_roles import INDUCTION, LOOKS_BACK, MATCHES, NONE, PREVIOUS, RESTS, roles
from byrote.probes.paths import INPUTS, METRICS, Path, paths
from byrote.probes.wording import bounds, clean, counted, markup, short, step_number

MAX_EDGES_PER_STEP = 240
MAX_EDGES_DRAWN = 60
CHANGE = "prefix matching without the path"
ROLE_TOKENS = {
    INDUCTION: "series0", PREVIOUS: "series2", MATCHES: "series3", LOOKS_BACK: "muted", RESTS: "context", NONE: "ink",
}  # fmt: skip
WAY_NAMES = {"k": "K-composition", "q": "Q-composition", "v": "V-composition"}
Head = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Edge:
    """One earlier head read by a later one at a step, as weights suggest (z) or as an ablated path shows.

    Attributes:
        source, target: the earlier and the later head.
        z: composition against the other pairs of the two layers; NaN where it was not measured.
        path: what ablating the path did, None where it was not ablated.
    """

    source: Head
    target: Head
    z: float
    path: Path | None = None

    @property
    def carries(self) -> bool:
        """Whether ablation showed that the later head's prefix matching needs this path."""
        return self.path is not None and self.path.carries

    def shown_from(self, least: float) -> bool:
        """Whether it is drawn: a path that carries always, any other from a smallest z on."""
        return self.carries or self.z >= least

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
        edges: step -> edges: ablated paths first, the most needed one at the top, then at most `MAX_EDGES_PER_STEP` by z.
        totals: step -> how many pairs there are.
        reasons: why nothing was measured, where nothing was.
    """

    edges: dict[int, list[Edge]]
    totals: dict[int, int]
    reasons: tuple[str, ...]

    @property
    def most(self) -> float:
        """The largest z of the series."""
        return max((self.strongest(step)[0] for step in self.edges if self.strongest(step)), default=0.0)

    def strongest(self, step: int) -> list[float]:
        """Every z of a step, the largest first."""
        return sorted((edge.z for edge in self.edges.get(step, []) if np.isfinite(edge.z)), reverse=True)

    def default_least(self, step: int) -> float:
        """A threshold of z that leaves the strongest dozen, rounded down to a half."""
        zs = self.strongest(step)
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
    by_step = {int(str(key)): part for key, part in pairs.groupby("step", sort=True)}
    edges: dict[int, list[Edge]] = {}
    heads: dict[Head, Head] = {}  # one tuple for each, however many edges it has
    for step in results.steps:
        ablated = {(path.source, path.target): path for path in paths(results, step, ways=(way,))}
        part = by_step.get(step)
        if part is None and not ablated:
            continue
        z = (
            {}
            if part is None
            else _z_of(part if ablated else part.nlargest(MAX_EDGES_PER_STEP, "value"), heads)
        )
        totals.setdefault(step, 0 if part is None else len(part))
        ends = [*ablated, *(one for one in sorted(z, key=z.__getitem__, reverse=True) if one not in ablated)]
        kept = ends[: len(ablated) + MAX_EDGES_PER_STEP]
        edges[step] = [Edge(*one, z.get(one, np.nan), ablated.get(one)) for one in kept]
    return Wiring(edges, totals, reasons)


def _z_of(rows: pd.DataFrame, heads: dict[Head, Head]) -> dict[tuple[Head, Head], float]:
    source, target = (
        [heads.setdefault(one, one) for one in zip(rows[layer].tolist(), rows[head].tolist(), strict=True)]
        for layer, head in (("src_layer", "src_head"), ("layer", "head"))
    )
    return dict(zip(zip(source, target, strict=True), rows["value"].tolist(), strict=True))


def edges_table(results: Any, found: Wiring, *, way: str, step: int, least: float) -> pd.DataFrame:
    """The edges drawn at a step: what ablating the path does where it was, z, excess over rotations, since when."""
    excess = _pairs_at(results, "composition", f"{way}_excess", step)
    first = found.since(least)
    rows = [
        {
            "from": head_label(*edge.source),
            "to": head_label(*edge.target),
            CHANGE: edge.path.change if edge.path else None,
            "95% interval": bounds(edge.path.change, edge.path.lo, edge.path.hi) if edge.path else None,
            "carries": ("yes" if edge.carries else "no") if edge.path else None,
            "z": round(edge.z, 2),
            "excess over rotations": excess.get(edge.ends),
            "z this high since step": first.get(edge.ends),
        }
        for edge in found.edges.get(step, [])
        if edge.shown_from(least)
    ]
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def circuit(
    results: Any,
    *,
    way: str = "k",
    step: int | None = None,
    least: float | None = None,
    found: Wiring | None = None,
    look: Look = FULL,
) -> Figure:
    """Heads in rows by layer and edges between them; paths that ablation showed to carry prefix matching are orange.

    The colour of a head is its role, see `byrote.probes.head_roles`.

    Args:
        results: a `Results` with `composition`.
        way: "k", "q" or "v": what the later head reads the earlier one with.
        step: training step; None is the last that has edges.
        least: smallest z drawn, paths that carry apart; None leaves about a dozen edges.
        found: the `wiring` of the results, where it is there already.
        look: theme and width.

    Returns:
        At most sixty edges; the table gives what ablating each one's path does where that was measured, its z, its
        excess over rotations, and since when it is this high.

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
    edges = [edge for edge in wired.edges[step] if edge.shown_from(least_z)][:MAX_EDGES_DRAWN]
    heads = sorted({end for edge in edges for end in (edge.source, edge.target)})
    labels = [head_label(*head) for head in heads]
    traces = [_edge_trace(edge) for edge in sorted(edges, key=lambda edge: edge.carries)]
    traces += _head_traces(heads, roles(results, step))
    read, reading = {edge.source for edge in edges}, {edge.target for edge in edges}
    notes = []
    for label, head in zip(labels, heads, strict=True):  # edges leave upwards and arrive from below
        aside = (
            {"xshift": 24} if head in read and head in reading else {"yshift": -14 if head in read else 14}
        )
        notes.append(note(label, x=head[1], y=head[0], tone="ink", xref="x", yref="y", **aside))
    layout = {
        "xaxis": _axis("head", n_heads, 0.8),
        "yaxis": _axis("layer", n_layers, 0.6),
        "annotations": notes,
    }
    shown = f"{counted(len(edges), 'edge')} with z of at least {least_z:g}, an aid to exploring"
    return finish(
        Figure({"data": traces, "layout": layout}), Canvas(height_px=max(320, 150 + 26 * n_layers)), title=title,
        subtitle=f"{shown} · {path_words(wired, way, step)}",
        alt=f"{WAY_NAMES[way]} between heads of {clean(results.run)} at step {step_number(step)}: {shown}. "
        f"{findings_circuit.circuit(results, way=way, step=step)}.",
        look=look, table=lambda: edges_table(results, wired, way=way, step=step, least=least_z),
        counts=lambda: _counts(results, way, step),
    )  # fmt: skip


def _counts(results: Any, way: str, step: int) -> str:
    """What z and the ablated paths were measured on, and what they would be by chance."""
    sentences = []
    if results.has("composition", f"{way}_z"):
        z = results.select("composition", f"{way}_z", step=step)
        sentences.append(
            f"Composition z: from the weights and {int(z['n'].max()):,} random rotations, 0 for the median pair of two layers."
        )
    if way in METRICS and results.has("induction_circuit", METRICS[way]):
        rows = results.select("induction_circuit", METRICS[way], step=step)
        rows = rows[rows["valid"]]
        if len(rows):
            sentences.append(f"Ablated paths: {interval_words(rows, '95% intervals')}, 0 without an effect.")
    return " ".join(sentences)


def _head_traces(heads: list[Head], known: dict[Head, str]) -> list[Trace]:
    """Heads as dots, those of one role in one colour; hovering says which."""
    traces = []
    for role in ROLE_TOKENS:
        mine = [head for head in heads if known.get(head, NONE) == role]
        if mine:
            dots = {"size": 10, "color": paint(ROLE_TOKENS[role]), "symbol": "circle"}
            hover = [f"{head_label(*head)}, {role}" for head in mine]
            traces.append(scatter(role, [h for _, h in mine], [l for l, _ in mine], marker=dots, hover=hover))
    return traces


def path_words(found: Wiring, way: str, step: int) -> str:
    """What the second colour means, or that no path was ablated."""
    if any(edge.path for edge in found.edges.get(step, [])):
        return f"orange: without this path into the {INPUTS[way]} prefix matching falls"
    return f"no path into the {INPUTS[way]} was ablated"


def _edge_trace(edge: Edge) -> Trace:
    color = paint("series1" if edge.carries else "series0")
    line = {"color": color, "width": round(min(5.0, 1 + max(0.0, float(np.nan_to_num(edge.z))) / 4), 2)}
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
