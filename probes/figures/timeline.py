"""When heads formed: one strip per probe over one axis of steps, and above them when the parts of the circuit appeared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from byrote.probes.figures.axis import StepAxis
from byrote.probes.figures.canvas import (
    FULL,
    Canvas,
    Figure,
    Look,
    Trace,
    add_panel,
    finish,
    note,
    scatter,
    switched_on,
)
from byrote.probes.figures.lines import end_labels, label_margin_px, table_of
from byrote.probes.figures.seed_curves import arm_strip, seed_counts
from byrote.probes.figures.select import as_list, main_metric, metric_name, unit
from byrote.probes.figures.theme import paint, run_styles
from byrote.probes.figures.trajectory import Strip, rule, strip_of
from byrote.probes.trajectory.verdict import INDUCTION, Milestone, Onset, milestones, onset
from byrote.probes.wording import clean, markup, sentence_case, short

STRIP_PX, STRIPS_PX = 280, 150  # one strip alone, one of several
GAP_PX, LANE_PX = 34, 19  # above each of several, for its heading; one line of words
LATE = 0.75  # of the axis: words to the right of a bar have the margin of the end labels too
_STEADY = {"marker": {"opacity": 1}}  # a click chooses a step; it does not grey out the other points
_BAND = "band: 95% interval over "
_BARE = {"showticklabels": False, "ticks": "", "title": {"text": ""}}


def timeline(
    results_list: Any,
    probes: Sequence[str | tuple[str, str]] = ("prefix_matching",),
    *,
    base: str | None = None,
    shown: str | None = None,
    events: Sequence[tuple[str, Milestone]] | None = None,
    log: bool = True,
    band: bool = True,
    step: int | None = None,
    groups: Sequence[Any] = (),
    look: Look = FULL,
) -> Figure:
    """The strongest head of every run at every step, one strip per probe; above them when heads appeared.

    Args:
        results_list: one `Results` or several; each probe is drawn for those that hold it, at least one.
        probes: a probe, or probe and metric, for each strip from the top.
        base: name of the baseline among the runs, drawn dashed.
        shown: the run whose name need not be repeated; None is the last that is not the baseline.
        events: (run name, milestone) for each line of words above; None takes those of `shown`, and of the baseline
            when its induction heads appeared.
        log: steps on a log axis.
        band: draw the 95% intervals.
        step: a step to draw a rule through.
        groups: arms of several seeds, whose runs are those of `results_list`: one line an arm, the median of its seeds, and
            above them between which steps induction heads appeared in how many; `base` names an arm then.
        look: theme and width.

    Returns:
        Strips under each other; every point that can be hovered carries its step as `customdata`.

    Raises:
        ByroteError: no run holds one of the probes.
    """
    runs = as_list(results_list)
    names = [one.name for one in groups] or [r.run for r in runs]
    if shown is None:
        shown = "" if groups else next((n for n in reversed(names) if n != base), names[-1])
    if events is None:
        events = arm_events(groups) if groups else events_of(runs, shown=shown, base=base)
    pairs = [(p, main_metric(p)) if isinstance(p, str) else p for p in probes]
    axis = StepAxis.over((s for r in runs for s in r.all_steps), log=log)
    strips = [
        arm_strip(groups, *pair, base=base, axis=axis)
        if groups
        else _strip(runs, *pair, base=base, axis=axis)
        for pair in pairs
    ]
    several = len(strips) > 1
    each, heading = (STRIPS_PX, GAP_PX) if several else (STRIP_PX, 0)
    lanes = LANE_PX * len(events) + 6 * bool(events)
    drawing = _Drawing(axis, step=step, band=band, plot_px=lanes + len(strips) * (each + heading))
    for i, (strip, pair) in enumerate(zip(strips, pairs, strict=True)):
        top = lanes + i * (each + heading) + heading
        words = _what(*pair) if several else ""
        drawing.strip(strip, (top, top + each), heading=words, last=i + 1 == len(strips))
    if events:
        styles = run_styles(names, base=base)
        drawing.lanes([(run, one, styles[run].color) for run, one in events], shown=shown)
    size = Canvas(height_px=0)

    def table() -> pd.DataFrame:
        parts = [table_of(strip.lines, ("step", "run")) for strip in strips]
        if several:
            parts = [t.assign(run=t["run"] + f", {_what(*p)}") for t, p in zip(parts, pairs, strict=True)]
        return pd.concat(parts, ignore_index=True)

    return finish(
        drawing.figure(),
        Canvas(
            height_px=drawing.plot_px + size.top_px + size.bottom_px,
            right_px=label_margin_px(line.label for strip in strips for line in strip.lines),
        ),
        title="Strongest head at each step" if several else strips[0].title,
        subtitle=_reading([strip.subtitle for strip in strips], band=band, events=bool(events), arms=bool(groups)),
        alt=_finding(strips, events),
        look=look, table=table, by=("step", "run"), counts=(lambda: seed_counts(groups, pairs)) if groups else str,
    )  # fmt: skip


class _Drawing:
    """Strips and lanes as they are put together; heights are in pixels from the top of the plot.

    Each strip has an x axis of its own that follows the first one, so that a renderer without plotly can place it.
    """

    def __init__(self, axis: StepAxis, *, step: int | None, band: bool, plot_px: int) -> None:
        self.axis, self.step, self.band, self.plot_px = axis, step, band, plot_px
        self.traces: list[Trace] = []
        self.rules: list[Trace] = []
        self.notes: list[dict[str, Any]] = []
        self.layout: dict[str, Any] = {}

    def figure(self) -> Figure:
        """What was put together."""
        notes = [*self.notes, *self.axis.break_mark()]
        return Figure({"data": [*self.traces, *self.rules], "layout": {**self.layout, "annotations": notes}})

    def strip(self, strip: Strip, at: tuple[float, float], *, heading: str, last: bool) -> None:
        """One metric's lines, its chance level and its other heads."""
        y_range = strip.y_axis["range"]
        y = strip.y_axis | ({"title": {"text": ""}} if heading else {})
        axes = self._panel(at, x={} if last else _BARE, y=y)
        traces = [trace | axes for trace in strip.under]
        traces += [trace for line in strip.lines for trace in line.traces(floor=y_range[0], axes=axes)]
        self.traces += [self._clickable(trace) for trace in switched_on(traces, {"band": self.band})]
        self.rules += rule(self.axis, self.step, y_range, **axes)
        panel = axes["xaxis"][1:]
        self.notes += end_labels(
            strip.lines, height_px=at[1] - at[0], y_range=y_range, log_x=self.axis.log, panel=panel
        )
        if heading:
            side: dict[str, Any] = {"xanchor": "left", "yanchor": "bottom", "yshift": 3}
            self.notes.append(
                note(markup(heading), x=0, y=1 - at[0] / self.plot_px, font={"color": paint("ink")}, **side)
            )

    def lanes(self, events: Sequence[tuple[str, Milestone, str]], *, shown: str) -> None:
        """One line per milestone: a bar over the measured steps it lies between, words on the side with more room."""
        bare = _BARE | {"showgrid": False, "showline": False}
        y = bare | {
            "range": [len(events), 0],
            "fixedrange": True,
            "zeroline": False,
            "tickvals": [],
            "ticktext": [],
        }
        axes = self._panel((0, LANE_PX * len(events)), x=bare, y=y)
        for i, (run, one, color) in enumerate(events):
            ends = [step for step in one.bracket if step is not None]
            hover = markup(f"{_event(run, one)}; {one.how}", limit=300)
            bar = scatter(
                f"appeared: {markup(one.what)}", [self.axis.place(s) for s in ends], [i + 0.5] * len(ends),
                line={"color": color, "width": 4}, marker={"color": color, "size": 8, "symbol": "diamond"},
                hover=[hover] * len(ends), **axes,
            )  # fmt: skip
            self.traces.append(self._clickable(bar))
            late = self.axis.share(ends[-1]) > LATE
            x, anchor, shift = (ends[0], "right", -9) if late else (ends[-1], "left", 9)
            place: dict[str, Any] = {"xanchor": anchor, "yanchor": "middle", "xshift": shift}
            place |= {"xref": axes["xaxis"], "yref": axes["yaxis"]}
            words = markup(_words(run, one, shown))
            self.notes.append(note(words, x=self.axis.note_at(x), y=i + 0.5, **place))

    def _clickable(self, trace: Trace) -> Trace:
        """Points with something to say carry their step, and keep their look when one of them is clicked."""
        if trace["hoverinfo"] == "skip":
            return trace
        steps = [self.axis.step_at(x) for x in trace["x"]]
        return trace | {"customdata": steps, "selected": _STEADY, "unselected": _STEADY}

    def _panel(self, at: tuple[float, float], *, x: dict[str, Any], y: dict[str, Any]) -> dict[str, Any]:
        """The names of a further panel's axes. In a narrow page tick labels may turn upright."""
        own = self.axis.layout() | x | {"automargin": True}
        own["title"] = own["title"] | {"standoff": 10}
        matched = {"matches": "x"} if self.layout else {}
        return add_panel(self.layout, own | matched, y, at=(at[0] / self.plot_px, at[1] / self.plot_px))


def _strip(runs: Sequence[Any], probe: str, metric: str, *, base: str | None, axis: StepAxis) -> Strip:
    """The strip of the runs that hold the metric."""
    drawn = [run for run in runs if run.has(probe, metric)] or runs[:1]
    named = base if any(run.run == base for run in drawn) else None
    return strip_of(drawn, probe, metric, base=named, axis=axis)


def events_of(
    runs: Sequence[Any],
    *,
    shown: str,
    base: str | None,
    milestones: Callable[[Any], Sequence[Milestone]] = milestones,
) -> list[tuple[str, Milestone]]:
    """Of the run looked at all milestones, of the baseline only its induction heads: (run name, milestone) each.

    Args:
        runs: results of every run.
        shown: name of the run looked at.
        base: name of the baseline among them.
        milestones: of one run's results; a cache in its place makes them once.
    """
    looked_at = sorted((r for r in runs if r.run in (shown, base)), key=lambda r: r.run != shown)
    found = [(r.run, one) for r in looked_at for one in milestones(r)]
    return [(run, one) for run, one in found if run == shown or one.what == INDUCTION]


def arm_events(groups: Sequence[Any], onsets: Callable[[Any], Onset] = onset) -> list[tuple[str, Milestone]]:
    """Between which steps induction heads appeared in an arm, and in how many of its seeds; nothing where in none.

    Args:
        groups: arms.
        onsets: of one run's results; a cache in its place makes them once.
    """
    found = []
    for one in groups:
        brackets = [had.bracket for had in map(onsets, one.runs) if had.found and had.bracket is not None]
        if brackets:
            first = min(-1 if lo is None else lo for lo, _ in brackets)
            span = (None if first < 0 else first, max(hi for _, hi in brackets))
            what = f"{INDUCTION} in {len(brackets)}/{len(one)} seeds"
            found.append(
                (one.name, Milestone(what, "", span, "first induction verdict that lasts, over the seeds"))
            )
    return found


def _what(probe: str, metric: str) -> str:
    """A strip's heading: the probe, its metric where it is not the main one, and the unit."""
    words = [metric_name(probe, metric, main=main_metric(probe)), unit(probe, metric)]
    return sentence_case(", ".join(word for word in words if word))


def _reading(subtitles: Sequence[str], *, band: bool, events: bool, arms: bool) -> str:
    """What lines, bands and bars are."""
    if arms:
        text = subtitles[0] if band else subtitles[0].replace(" · band: lowest to highest seed", "")
    elif len(subtitles) == 1:
        text = subtitles[0] if band else subtitles[0].replace(_BAND, "")
    else:
        text = ("band: 95% interval · " if band else "") + "dotted: chance"
    return text + (" · bars above: between which steps heads appeared" if events else "")


def _finding(strips: Sequence[Strip], events: Sequence[tuple[str, Milestone]]) -> str:
    text = " ".join(strip.alt for strip in strips)
    when = "; ".join(_event(run, one) for run, one in events)
    return f"{text} Appeared: {when}." if when else text


def _words(run: str, one: Milestone, shown: str) -> str:
    """One short line: the narrowest page has room for about 30 letters."""
    if run == shown:
        return f"{one.what} {one.head}: {one.when}"
    return f"{short(run)}: {one.what} {one.when}"


def _event(run: str, one: Milestone) -> str:
    return f"{clean(run, limit=60)}: {', '.join(filter(None, (one.what, one.head)))}, steps {one.when}"
