"""Axes with real numbers on them: training steps on a log scale with step 0 set apart, and round value ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from byrote.probes.figures.theme import SMALL_FONT_SIZE_PX, paint
from byrote.probes.wording import number, step_number

MIN_TICK_GAP_FRAC = 0.065  # of the axis, so that labels never touch at the narrowest width we draw
_MOST_LOG_TICKS = 8


@dataclass(frozen=True)
class StepAxis:
    """An axis of training steps, logarithmic or not.

    A log axis has no place for step 0, so 0 is drawn a fixed way left of the first later step, with a break in
    the axis between them. Every other position is the real step.

    Attributes:
        steps: the steps shown, ascending.
        zero_at: the position that stands for step 0, or None where there is no step 0 to move.
        log: whether it is logarithmic.
    """

    steps: tuple[int, ...]
    zero_at: float | None
    log: bool = True

    @classmethod
    def over(cls, steps: Iterable[int], *, log: bool = True) -> StepAxis:
        """The axis for these steps, in any order."""
        ordered = tuple(sorted({int(s) for s in steps}))
        positive = [s for s in ordered if s > 0]
        if not log or not ordered or ordered[0] > 0:
            return cls(ordered, None, log)
        if not positive:
            return cls(ordered, 1.0)
        decades = math.log10(positive[-1] / positive[0])
        return cls(ordered, positive[0] / 10 ** max(0.25, 0.07 * decades))

    def place(self, step: float) -> float:
        """Where a step is drawn; only step 0 is moved."""
        return float(self.zero_at) if step <= 0 and self.zero_at is not None else float(step)

    def step_at(self, place: float) -> int:
        """The step drawn at a place."""
        return 0 if self.zero_at is not None and math.isclose(place, self.zero_at) else round(float(place))

    def note_at(self, step: float) -> float:
        """The same as annotations want it, which is the exponent on a log axis."""
        return math.log10(self.place(step)) if self.log else float(step)

    def share(self, step: float) -> float:
        """How far along the axis a step is, 0 to 1."""
        lo, hi = self.limits()
        return (self.note_at(step) - lo) / (hi - lo)

    def limits(self) -> tuple[float, float]:
        """(lo, hi) of the drawn axis, with a little room at both ends; exponents on a log axis."""
        places = [self.note_at(s) for s in self.steps] or [0.0]
        lo, hi = min(places), max(places)
        if not self.log and hi <= lo:
            hi = lo + 1
        room = 0.02 * (hi - lo) if hi > lo else 0.3
        return lo - room, hi + room

    def ticks(self) -> tuple[int, ...]:
        """The steps that get a label: the first, the last, and as many between as fit."""
        if len(self.steps) < 2:
            return self.steps
        lo, hi = self.limits()
        gap = MIN_TICK_GAP_FRAC * (hi - lo)
        at = {step: self.note_at(step) for step in self.steps}
        last = self.steps[-1]
        kept = [self.steps[0]]
        for step in self.steps[1:-1]:
            if at[step] - at[kept[-1]] >= gap and at[last] - at[step] >= gap:
                kept.append(step)
        return (*kept, last)

    def layout(self) -> dict[str, Any]:
        """The plotly axis."""
        if not self.log:
            ends = (self.steps[0], self.steps[-1]) if self.steps else (0, 1)
            ticks = [
                int(t) for t in round_ticks(ends[0], max(ends[1], ends[0] + 1), about=6) if t.is_integer()
            ]
            title = "training step"
        else:
            ticks, title = list(self.ticks()), "training step, log scale"
            title += " (step 0 set apart)" if self.zero_at is not None and len(self.steps) > 1 else ""
        at, labels = [self.place(s) for s in ticks], [step_number(s) for s in ticks]
        return axis_layout(self.limits(), at, labels, title=title, log=self.log)

    def break_mark(self) -> list[dict[str, Any]]:
        """The annotation that breaks the axis between step 0 and the first later step, where there are both."""
        positive = [s for s in self.steps if s > 0]
        if self.zero_at is None or not positive:
            return []
        middle = (math.log10(self.zero_at) + math.log10(positive[0])) / 2
        font = {"size": SMALL_FONT_SIZE_PX, "color": paint("muted")}
        mark = {
            "text": "//",
            "showarrow": False,
            "yanchor": "middle",
            "bgcolor": paint("paper"),
            "font": font,
        }
        return [{"x": middle, "xref": "x", "y": 0, "yref": "paper", **mark}]


def axis_layout(
    limits: tuple[float, float],
    ticks: Sequence[float],
    labels: Sequence[str],
    *,
    title: str = "",
    log: bool = False,
) -> dict[str, Any]:
    """A plotly axis with nothing left to work out.

    Args:
        limits: what it covers, exponents on a log axis; downwards where the first is the larger.
        ticks: where it has labels, as numbers.
        labels: one per tick.
        title: what it measures, with its unit.
        log: whether it is logarithmic.
    """
    kind = {"type": "log", "minorloglabels": "none"} if log else {"type": "linear"}
    shown = {"tickmode": "array", "tickvals": list(ticks), "ticktext": list(labels), "title": {"text": title}}
    return {"range": list(limits), **kind, **shown}


def log_axis(places: Sequence[float], words: Sequence[str], *, title: str) -> dict[str, Any]:
    """A log axis with as many of some places labelled as fit.

    Args:
        places: above 0, ascending.
        words: what each is called.
        title: what the axis measures, with its unit.
    """
    every = -(-len(places) // _MOST_LOG_TICKS)
    lo, hi = math.log10(places[0]), math.log10(places[-1])
    room = 0.03 * ((hi - lo) or 1.0)
    return {
        "type": "log",
        "range": [lo - room, hi + room],
        "tickvals": list(places[::every]),
        "ticktext": list(words[::every]),
        "title": {"text": title},
    }


def round_ticks(lo: float, hi: float, *, about: int = 5) -> list[float]:
    """Round numbers that cover a range, 0 among them where the range holds it.

    Args:
        lo: lower end.
        hi: upper end, above lo.
        about: roughly how many.
    """
    raw = (hi - lo) / about
    power = 10.0 ** math.floor(math.log10(raw))
    spacing = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.8)
    first = math.ceil(lo / spacing - 1e-9)
    last = math.floor(hi / spacing + 1e-9)
    return [round(i * spacing, 12) for i in range(first, last + 1)]


def value_axis(lo: float, hi: float, *, title: str, room_frac: float = 0.04) -> dict[str, Any]:
    """A linear plotly axis with a stated range and round ticks.

    Args:
        lo: lowest value shown.
        hi: highest value shown.
        title: what the axis measures, with its unit.
        room_frac: share of the range left free at both ends, so that marks at the ends are whole.
    """
    ticks = round_ticks(lo, hi)
    spacing = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    places = max(0, -math.floor(math.log10(spacing) + 1e-9)) if spacing < 1 else 0
    places += spacing < 1 and round(spacing * 10**places, 6) % 1 != 0
    room = room_frac * (hi - lo)
    return axis_layout((lo - room, hi + room), ticks, [number(t, places=places) for t in ticks], title=title)
