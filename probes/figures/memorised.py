"""What is memorised: bits per parameter against the data, and the share extracted against duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade.capacity import PUBLISHED_BITS, Capacity, Extraction
from byrote.probes.figures.axis import log_axis, value_axis
from byrote.probes.figures.canvas import FULL, Figure, Look, Trace, scatter
from byrote.probes.figures.lines import Line, lines_figure
from byrote.probes.figures.theme import Style, paint, series_style
from byrote.probes.findings_degrade import capacity_sentence, extraction_sentence
from byrote.probes.wording import clean, number

_CURVE_POINTS = 60
_BITS_TITLE = "Memorised bits per parameter"
_SHARE_TITLE = "Extraction by number of duplicates"


def capacity(
    found: Any, *, title: str = _BITS_TITLE, subtitle: str = "", alt: str = "", look: Look = FULL
) -> Figure:
    """Memorised bits per parameter against the number of sequences there are to memorise, a line per size, every seed a point.

    Args:
        found: a `Capacity`, or several by name; see `byrote.degrade.capacity`.
        title, subtitle, alt: others than the figure's own; title and subtitle already escaped for plotly, alt plain text.
        look: theme and width.

    Returns:
        Sequences on a log axis, bits per parameter on y, 95% intervals over seeds as bands; the published capacity dotted. The table is
        the capacities' own, with the name where there are several.

    Raises:
        ByroteError: no capacity.
    """
    several: dict[str, Capacity] = _by_name(found, Capacity)
    lines, seeds = list[Line](), list[Trace]()
    for i, (name, one) in enumerate(several.items()):
        at = [f"{members:,.0f} sequences" for members in one.rows["members"]]
        line, dots = _line(
            one.rows,
            one.rows["members"].tolist(),
            at,
            label=name or "bits per parameter",
            style=series_style(i),
        )
        lines.append(line)
        seeds.append(dots)
    x = sorted({float(m) for one in several.values() for m in one.rows["members"]})
    published = {"color": paint("muted"), "width": 1, "dash": "dot"}
    published_words = f"published, {PUBLISHED_BITS:g}"
    under = [
        scatter(
            published_words, [x[0], x[-1]], [PUBLISHED_BITS] * 2, line=published, hover=[published_words] * 2
        ),
        *seeds,
    ]
    return lines_figure(
        lines, x_axis=log_axis(x, [f"{m:,.0f}" for m in x], title="sequences to memorise"),
        y_axis=value_axis(0.0, 1.05 * max(PUBLISHED_BITS, _highest(lines, seeds)), title="bits per parameter"), height_px=400, by=(),
        under=under, title=title, look=look, table=lambda: _table(several),
        subtitle=subtitle or f"mean over seeds · band: 95% interval over seeds · dotted: {PUBLISHED_BITS:g}, Morris et al. 2025",
        alt=alt or " ".join(capacity_sentence(one, name) for name, one in several.items()),
    )  # fmt: skip


def extraction(
    found: Any, *, title: str = _SHARE_TITLE, subtitle: str = "", alt: str = "", look: Look = FULL
) -> Figure:
    """Share of planted sequences extracted against how often they were planted, with the logistic curve and its threshold.

    Args:
        found: an `Extraction`, or several by name; see `byrote.degrade.extraction_threshold`.
        title, subtitle, alt: others than the figure's own; title and subtitle already escaped for plotly, alt plain text.
        look: theme and width.

    Returns:
        Duplicates on a log axis, the share extracted on y, 95% intervals over runs as bands, every run a point; the logistic curve
        with the mean steepness dashed, the threshold with its interval as a bar at one half. The table is the shares.

    Raises:
        ByroteError: no extraction.
    """
    several: dict[str, Extraction] = _by_name(found, Extraction)
    x = sorted({float(d) for one in several.values() for d in one.rows["duplicates"]})
    lines, dots, over = list[Line](), list[Trace](), list[Trace]()
    for i, (name, one) in enumerate(several.items()):
        style = series_style(i)
        at = [f"{times:,.0f} times" for times in one.rows["duplicates"]]
        line, seeds = _line(
            one.rows, one.rows["duplicates"].tolist(), at, label=name or "share extracted", style=style
        )
        lines.append(line)
        dots.append(seeds)
        over += _threshold(one, style, x[0], x[-1])
    return lines_figure(
        lines, x_axis=log_axis(x, [f"{times:,.0f}" for times in x], title="times planted"),
        y_axis=value_axis(0.0, 1.0, title="share extracted", room_frac=0.03), height_px=400, by=(), under=dots, over=over,
        title=title, look=look, table=lambda: _table(several),
        subtitle=subtitle or "mean over runs · band: 95% interval over runs · dashed: logistic curve · bar: where one half is extracted",
        alt=alt or " ".join(extraction_sentence(one, name) for name, one in several.items()),
    )  # fmt: skip


def _by_name(found: Any, kind: type[Any]) -> dict[str, Any]:
    several = {"": found} if isinstance(found, kind) else dict(found if isinstance(found, Mapping) else {})
    if not several:
        raise ByroteError(
            f"no {kind.__name__.lower()} was given",
            help=f"br.degrade.{'capacity' if kind is Capacity else 'extraction_threshold'} makes one",
        )
    return several


def _line(
    rows: pd.DataFrame, x: Sequence[float], at: Sequence[str], *, label: str, style: Style
) -> tuple[Line, Trace]:
    """The means with their intervals, and every seed."""
    drawn = rows.assign(
        valid=True, reason="", chance=np.nan, n=rows["values"].map(len), layer=pd.NA, head=pd.NA, position=range(len(rows))
    )  # fmt: skip
    points = [(place, value) for place, values in zip(x, rows["values"], strict=True) for value in values]
    marker = {"size": 4, "color": style.color, "symbol": style.symbol, "opacity": 0.5}
    dots = scatter(f"seeds of {clean(label)}", [p[0] for p in points], [p[1] for p in points], marker=marker)
    return Line.of(drawn, x, label=clean(label), at=at, style=style), dots


def _threshold(found: Extraction, style: Style, least: float, most: float) -> list[Trace]:
    """The logistic curve within the planted counts, and the threshold with its interval where it lies among them."""
    if not np.isfinite(found.threshold) or not np.isfinite(found.steepness.value):
        return []
    at = np.geomspace(least, most, _CURVE_POINTS)
    odds = found.steepness.value * (np.log(at) - np.log(found.threshold))
    share = 1 / (1 + np.exp(-np.clip(odds, -30, 30)))
    curve = {"color": style.color, "width": 1, "dash": "dash"}
    traces = [scatter("logistic curve", at.tolist(), share.tolist(), line=curve)]
    if found.inside:
        text = f"one half at {number(found.threshold)} times"
        marker = {"size": 9, "color": style.color, "symbol": "diamond"}
        traces.append(scatter("threshold", [found.threshold], [0.5], marker=marker, hover=[text]))
        if np.isfinite([found.lo, found.hi]).all():
            ends = np.clip([found.lo, found.hi], least, most).tolist()
            bar = {"color": style.color, "width": 2}
            traces.append(scatter("95% interval of the threshold", ends, [0.5, 0.5], line=bar))
    return traces


def _highest(lines: Sequence[Line], seeds: Sequence[Trace]) -> float:
    ends = [v for line in lines for name in ("value", "hi") for v in line.column(name) if v is not None]
    return max([*ends, *(y for trace in seeds for y in trace["y"])])


def _table(several: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of each with its name, where there is more than one; n is of runs."""
    parts = [
        one.rows.drop(columns="values").assign(name=name, n=one.rows["values"].map(len))
        for name, one in several.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    return table[["name", *table.columns.drop("name")]] if len(several) > 1 else table.drop(columns="name")
