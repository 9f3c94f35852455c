"""The URL is the state: `run probe step head base pin` and what one page alone uses, read and checked here.

A bad link never stops a page. What cannot be used is replaced by what fits and said in one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from byrote.dashboard.asked import Asked, default_head, default_run
from byrote.dashboard.library import Library
from byrote.dashboard.remembering import MEMORY_AXES, RULE_AXES
from byrote.interp.axes import parse_head
from byrote.probes.alignment import ALIGNMENTS
from byrote.probes.figures.rows import main_metric

WAYS = ("k", "q", "v")
SHOWN = ("value", "previous", "final", "base")
SHADES = ("to", "from")
SINKS = ("with", "without")
SCALES = ("log", "linear")
BANDS = ("on", "off")


@dataclass(frozen=True)
class State:
    """What is looked at.

    Attributes:
        run, base: run names; base is "" where nothing is compared.
        probe, metric: what the grid shows.
        step: a training step of the run.
        head: a head's label, "" where the run has no heads.
        pin: heads kept in sight.
        align: how the baseline's steps are matched: step, tokens or loss.
        show: layer of the grid: value, previous, final or base (differences from those).
        way: kind of composition, k, q or v.
        z: smallest composition z drawn; None lets the page choose.
        text: which stored sequence the head page reads.
        q: a token held in sight there.
        shade: whether its tokens show what they attend to, or what attends to them.
        sink: with or without the attention that rests on position 0.
        rule, memory: axes of the plane, "" lets the page choose.
        passage: which training sequence the memory page tells apart.
        also: probes drawn below the first one on the overview's timeline.
        scale: its axis of steps, log or linear.
        band: its 95% intervals, on or off.
    """

    run: str
    probe: str
    metric: str
    step: int
    head: str
    base: str = ""
    pin: tuple[str, ...] = ()
    align: str = "step"
    show: str = "value"
    way: str = "k"
    z: float | None = None
    text: int = 0
    q: int | None = None
    shade: str = "to"
    sink: str = "with"
    rule: str = ""
    memory: str = ""
    passage: int = 0
    also: tuple[str, ...] = ()
    scale: str = "log"
    band: str = "on"

    @property
    def layer_head(self) -> tuple[int, int] | None:
        """The head as numbers."""
        return parse_head(self.head) if self.head else None


@dataclass(frozen=True)
class Reading:
    """A link as understood.

    Attributes:
        state: complete and usable.
        complaints: one line per part that was not.
    """

    state: State
    complaints: tuple[str, ...] = field(default=())


def read(params: Mapping[str, str], library: Library) -> Reading:
    """Understand a query string.

    Args:
        params: as in the URL; unknown names are left alone.
        library: at least one run.
    """
    asked = Asked(params)
    names = list(library.runs)
    run = library.runs[asked.name("run", names, default_run(library))]
    probe, metric = asked.measure(run)
    state = State(
        run=run.name,
        probe=probe,
        metric=metric,
        step=asked.step(run),
        head="",
        base=asked.base(run, library),
        align=asked.word("align", ALIGNMENTS),
        show=asked.word("show", SHOWN),
        way=asked.word("way", WAYS),
        z=asked.number("z", float),
        text=asked.number("text", int) or 0,
        q=asked.number("q", int),
        shade=asked.word("shade", SHADES),
        sink=asked.word("sink", SINKS),
        rule=asked.word("rule", ("", *RULE_AXES)),
        memory=asked.word("memory", ("", *MEMORY_AXES)),
        passage=asked.number("passage", int) or 0,
        also=asked.also(run, probe),
        scale=asked.word("scale", SCALES),
        band=asked.word("band", BANDS),
    )
    head = asked.head("head", run)
    pins = asked.pins(run)
    return Reading(
        replace(state, head=head or default_head(run, probe, metric, state.step), pin=pins),
        tuple(asked.complaints),
    )


def link(state: State, **changes: Any) -> dict[str, str]:
    """The query parameters of a state: the five words always, the others where they say something.

    Args:
        state: where we are.
        changes: fields to set first.
    """
    state = replace(state, **changes)
    defaults = {f.name: f.default for f in fields(State)}
    out = {}
    for name in (f.name for f in fields(State)):
        value = getattr(state, name)
        if name == "metric" and value == main_metric(state.probe):
            continue
        if name not in ("run", "probe", "step", "head", "base") and value == defaults[name]:
            continue
        out[name] = ",".join(value) if isinstance(value, tuple) else str(value)
    return {name: value for name, value in out.items() if value != "" or name == "base"}
