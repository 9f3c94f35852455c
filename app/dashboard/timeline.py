"""The overview's timeline: one strip per probe over one axis of steps, and above them when heads came. No Streamlit.

Each strip is `byrote.probes.figures.trajectory`, moved onto the shared axis. Every point that can be clicked carries its step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import plotly.graph_objects as go

from byrote.dashboard.milestones import Came
from byrote.dashboard.saved import SavedRun
from byrote.probes.figures import trajectory
from byrote.probes.figures.axis import StepAxis, round_ticks
from byrote.probes.figures.canvas import Canvas, finish, note
from byrote.probes.figures.curve import LABEL_GAP_PX, spread
from byrote.probes.figures.theme import paint, run_styles
from byrote.probes.registry import REGISTRY
from byrote.probes.wording import clean, markup, probe_name, sentence_case, short, step_number

STRIP_PX, STRIPS_PX = 280, 150  # one strip alone, one of several
GAP_PX, LANE_PX = 34, 19  # above each of several, for its heading; one line of words
LATE = 0.75  # of the axis: words to the right of a bar have the margin of the end labels too
_STEADY = {"marker": {"opacity": 1}}  # a click chooses a step; it does not grey out the other points
_BAND = "band: 95% interval over "


@dataclass(frozen=True)
class Steps:
    """The axis all strips share.

    Attributes:
        axis: the steps, and where a log axis has them.
        log: whether it is one.
    """

    axis: StepAxis
    log: bool

    def place(self, step: int) -> float:
        """Where a step is drawn."""
        return float(self.axis.place(step)) if self.log else float(step)

    def note_at(self, step: int) -> float:
        """The same as annotations want it, which is the exponent on a log axis."""
        return math.log10(self.place(step)) if self.log else float(step)

    def share(self, step: int) -> float:
        """How far along the axis a step is, 0 to 1."""
        lo, hi = self.layout()["range"]
        return (self.note_at(step) - lo) / (hi - lo)

    def layout(self) -> dict[str, Any]:
        """The plotly axis."""
        if self.log:
            return self.axis.layout()
        lo, hi = (float(self.axis.steps[i]) if self.axis.steps else float(-i) for i in (0, -1))
        hi = hi if hi > lo else lo + 1
        room = 0.02 * (hi - lo)
        ticks = [t for t in round_ticks(lo, hi, about=6) if float(t).is_integer()]
        return {
            "type": "linear", "range": [lo - room, hi + room], "tickmode": "array", "tickvals": ticks,
            "ticktext": [step_number(t) for t in ticks], "title": {"text": "training step"},
        }  # fmt: skip


def timeline(
    runs: Sequence[SavedRun],
    pairs: Sequence[tuple[str, str]],
    *,
    base: str | None,
    shown: str = "",
    came: Sequence[tuple[str, Came]] = (),
    log: bool = True,
    band: bool = True,
) -> go.Figure:
    """The strongest head of every run at every step, one strip per probe.

    Args:
        runs: at least one that holds each of the metrics.
        pairs: (probe, metric) of each strip, from the top.
        base: the baseline among the runs, drawn dashed.
        shown: the run whose name need not be repeated.
        came: (run name, milestone) for each line of words above.
        log: steps on a log axis.
        band: draw the 95% intervals.
    """
    parts = [_part(runs, pair, base=base, band=band) for pair in pairs]
    several = len(parts) > 1
    each, heading = (STRIPS_PX, GAP_PX) if several else (STRIP_PX, 0)
    lanes = LANE_PX * len(came) + 6 * bool(came)
    drawing = _Drawing(steps_of(runs, log=log), plot_px=lanes + len(parts) * (each + heading))
    for i, (part, pair) in enumerate(zip(parts, pairs, strict=True)):
        top = lanes + i * (each + heading) + heading
        drawing.strip(
            part, (top, top + each), heading=_what(*pair) if several else "", last=i + 1 == len(parts)
        )
    if came:
        styles = run_styles([run.name for run in runs], base=base)
        drawing.lanes([(run, one, styles[run].color) for run, one in came], shown=shown)
    margin = parts[0].layout.margin
    return finish(
        drawing.figure(),
        Canvas(
            height_px=drawing.plot_px + margin.t + margin.b,
            right_px=max(part.layout.margin.r for part in parts),
        ),
        title="Strongest head at each step" if several else parts[0].layout.title.text,
        subtitle=_reading(
            [part.layout.title.subtitle.text or "" for part in parts], band=band, came=bool(came)
        ),
        alt=_finding(parts, came),
    )


class _Drawing:
    """Strips and lanes as they are put together; heights are in pixels from the top of the plot.

    Each strip has an x axis of its own that follows the first one, as the still pictures of the report want it.
    """

    def __init__(self, steps: Steps, *, plot_px: int) -> None:
        self.steps, self.plot_px = steps, plot_px
        self.traces: list[dict[str, Any]] = []
        self.notes: list[dict[str, Any]] = []
        self.layout: dict[str, Any] = {}
        self.n_panels = 0

    def figure(self) -> go.Figure:
        """What was put together."""
        mark = self.steps.axis.break_mark() if self.steps.log else None
        notes = [*self.notes, *([mark] if mark else [])]
        return go.Figure({"data": self.traces, "layout": {**self.layout, "annotations": notes}})

    def strip(self, part: go.Figure, at: tuple[float, float], *, heading: str, last: bool) -> None:
        """One `trajectory`, moved onto the shared axis."""
        height_px = at[1] - at[0]
        bare = {} if last else {"showticklabels": False, "ticks": "", "title": {"text": ""}}
        y = part.layout.yaxis.to_plotly_json() | ({"title": {"text": ""}} if heading else {})
        name = self._panel(at, x=bare, y=y)
        zero = _place_of_zero(part)
        self.traces += [_moved(trace, self.steps, name, zero=zero) for trace in part.to_plotly_json()["data"]]
        self.notes += _end_labels(part, self.steps, name, height_px=height_px, zero=zero)
        if heading:
            place = {
                "x": 0,
                "y": 1 - at[0] / self.plot_px,
                "xanchor": "left",
                "yanchor": "bottom",
                "yshift": 3,
            }
            self.notes.append(note(markup(heading), **place, font={"color": paint("ink")}))

    def lanes(self, came: Sequence[tuple[str, Came, str]], *, shown: str) -> None:
        """One line per milestone: a bar over the measured steps it lies between, words on the side with more room."""
        bare = {
            "showgrid": False,
            "showline": False,
            "showticklabels": False,
            "ticks": "",
            "title": {"text": ""},
        }
        y = {"range": [len(came), 0], "fixedrange": True, "zeroline": False, "tickvals": [], "ticktext": []}
        name = self._panel((0, LANE_PX * len(came)), x=bare, y=bare | y)
        for i, (run, one, color) in enumerate(came):
            ends = [step for step in one.bracket if step is not None]
            hover = markup(f"{_came(run, one)}; {one.how}", limit=300)
            self.traces.append(
                {
                    "type": "scatter", "x": [self.steps.place(s) for s in ends], "y": [i + 0.5] * len(ends),
                    "xaxis": f"x{name}", "yaxis": f"y{name}", "mode": "lines+markers", "name": f"came: {markup(one.what)}",
                    "line": {"color": color, "width": 4}, "marker": {"color": color, "size": 8, "symbol": "diamond"},
                    "hovertext": [hover] * len(ends), "hoverinfo": "text", **_clickable(ends),
                }
            )  # fmt: skip
            late = self.steps.share(ends[-1]) > LATE
            x, anchor, shift = (ends[0], "right", -9) if late else (ends[-1], "left", 9)
            place = {"x": self.steps.note_at(x), "y": i + 0.5, "xref": f"x{name}", "yref": f"y{name}"}
            words = markup(_words(run, one, shown))
            self.notes.append(note(words, **place, xanchor=anchor, yanchor="middle", xshift=shift))

    def _panel(self, at: tuple[float, float], *, x: dict[str, Any], y: dict[str, Any]) -> str:
        """What the axes of a further panel are called: "", "2", "3"."""
        self.n_panels += 1
        name = "" if self.n_panels == 1 else str(self.n_panels)
        follows = {"matches": "x"} if name else {}
        domain = [max(0.0, 1 - at[1] / self.plot_px), min(1.0, 1 - at[0] / self.plot_px)]
        self.layout[f"xaxis{name}"] = self.steps.layout() | x | follows | {"anchor": f"y{name}"}
        self.layout[f"yaxis{name}"] = y | {"domain": domain, "anchor": f"x{name}"}
        return name


def steps_of(runs: Sequence[SavedRun], *, log: bool) -> Steps:
    """The axis that holds every step of these runs."""
    return Steps(StepAxis.over(s for run in runs for s in run.steps), log)


def with_rule(fig: go.Figure, steps: Steps, step: int) -> go.Figure:
    """A copy of a timeline with a rule through its strips at the step looked at; the same where that is not on it."""
    if step not in steps.axis.steps:
        return fig
    at = steps.place(step)
    ruled = go.Figure(fig)
    for name in [key.removeprefix("yaxis") for key in fig.layout.to_plotly_json() if key.startswith("yaxis")]:
        axis = fig.layout[f"yaxis{name}"]
        if axis.showticklabels is not False:  # not through the words above
            ruled.add_scatter(
                x=[at, at], y=list(axis.range), mode="lines", name=f"step {step_number(step)}", hoverinfo="skip",
                line={"color": paint("muted"), "width": 1.5}, xaxis=f"x{name}", yaxis=f"y{name}",
            )  # fmt: skip
    return ruled


def _part(runs: Sequence[SavedRun], pair: tuple[str, str], *, base: str | None, band: bool) -> go.Figure:
    """One strip as a figure of its own."""
    drawn = [run.part(pair) for run in runs if run.has(*pair)]
    probe, metric = pair
    named = base if any(run.run == base for run in drawn) else None
    return trajectory(drawn, probe=probe, metric=metric, base=named, visuals={"band": band})


def _moved(trace: dict[str, Any], steps: Steps, name: str, *, zero: float | None) -> dict[str, Any]:
    """A trace on the shared axis; points with something to say carry their step."""
    real = [None if x is None else _step_at(x, zero) for x in trace["x"]]
    trace |= {
        "x": [None if s is None else steps.place(s) for s in real],
        "xaxis": f"x{name}",
        "yaxis": f"y{name}",
    }
    if trace.get("hoverinfo") != "skip":
        trace |= _clickable(real)
    return trace


def _clickable(steps: Sequence[int | None]) -> dict[str, Any]:
    """Points that carry their step and keep their look when one of them is clicked."""
    return {"customdata": list(steps), "selected": _STEADY, "unselected": _STEADY}


def _place_of_zero(part: go.Figure) -> float | None:
    """Where a figure draws step 0, whose label is the first; None where it has none."""
    axis = part.layout.xaxis
    return float(axis.tickvals[0]) if axis.ticktext and axis.ticktext[0] == step_number(0) else None


def _step_at(x: Real, zero: float | None) -> int:
    """The step drawn at a place of a log axis: every step but 0 is at its own number."""
    return 0 if zero is not None and math.isclose(x, zero) else round(float(x))


def _end_labels(
    part: go.Figure, steps: Steps, name: str, *, height_px: float, zero: float | None
) -> list[dict[str, Any]]:
    """The names at the ends of the lines, pushed apart anew for the height they have here."""
    found = [a.to_plotly_json() for a in part.layout.annotations if a.showarrow]
    lo, hi = part.layout.yaxis.range
    wanted = [(hi - a["y"]) * height_px / (hi - lo) for a in found]
    placed = spread(wanted, gap=LABEL_GAP_PX, lo=0, hi=height_px)
    at = [steps.note_at(_step_at(10 ** a["x"], zero)) for a in found]
    return [
        a | {"x": x, "xref": f"x{name}", "yref": f"y{name}", "ay": place - want}
        for a, x, place, want in zip(found, at, placed, wanted, strict=True)
    ]


def _what(probe: str, metric: str) -> str:
    """A strip's heading: the probe, its metric where it is not the main one, and the unit."""
    info = REGISTRY[probe]
    name = probe_name(probe) + ("" if metric == info.main_metric else f" ({probe_name(metric)})")
    unit = info.unit_of(metric)
    return sentence_case(f"{name}, {unit}" if unit else name)


def _reading(subtitles: Sequence[str], *, band: bool, came: bool) -> str:
    """What lines, bands and bars are."""
    if len(subtitles) == 1:
        text = subtitles[0] if band else subtitles[0].replace(_BAND, "")
    else:
        text = ("band: 95% interval · " if band else "") + "dotted: chance"
    return text + (" · bars above: between which steps heads came" if came else "")


def _finding(parts: Sequence[go.Figure], came: Sequence[tuple[str, Came]]) -> str:
    told = " ".join(str(part.layout.meta["alt"]) for part in parts)
    events = "; ".join(_came(run, one) for run, one in came)
    return f"{told} Came: {events}." if events else told


def _words(run: str, one: Came, shown: str) -> str:
    """One short line: the narrowest page has room for about 30 letters."""
    if run == shown:
        return f"{one.what} {one.head}: {one.when}"
    return f"{short(run)}: {one.what} {one.when}"


def _came(run: str, one: Came) -> str:
    return f"{clean(run, limit=60)}: {one.what}, {one.head}, steps {one.when}"
