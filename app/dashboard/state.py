"""The URL is the state: `run probe step head base pin` and what one page alone uses, read and checked here.

A bad link never stops a page. What cannot be used is replaced by what fits and said in one line.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from app.dashboard.library import Library
from app.dashboard.remembering import MEMORY_AXES, RULE_AXES
from app.dashboard.saved import SavedRun
from checkpoints.errors import RoteError
from interp.axes import head_label, parse_head
from probes.alignment import ALIGNMENTS
from probes.figures.rows import main_metric
from probes.figures.words import clean, probe_name, step_number

MAX_PINS = 6
WAYS = ("k", "q", "v")
SHOWN = ("value", "previous", "final", "base")
SHADES = ("to", "from")
SINKS = ("with", "without")
SCALES = ("log", "linear")
BANDS = ("on", "off")
MAX_ALSO = 3
_RUN_ORDER = {"repeated": 0, "synthetic": 0, "": 1, "control": 2, "unique": 3}


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
    complaints: list[str] = []
    names = list(library.runs)
    run = library.runs[_name(params, "run", names, default_run(library), complaints)]
    probe, metric = _measure(params, run, complaints)
    state = State(
        run=run.name,
        probe=probe,
        metric=metric,
        step=_step(params, run, complaints),
        head="",
        base=_base(params, run, library, complaints),
        align=_word(params, "align", ALIGNMENTS, complaints),
        show=_word(params, "show", SHOWN, complaints),
        way=_word(params, "way", WAYS, complaints),
        z=_number(params, "z", float, complaints),
        text=_number(params, "text", int, complaints) or 0,
        q=_number(params, "q", int, complaints),
        shade=_word(params, "shade", SHADES, complaints),
        sink=_word(params, "sink", SINKS, complaints),
        rule=_word(params, "rule", ("", *RULE_AXES), complaints),
        memory=_word(params, "memory", ("", *MEMORY_AXES), complaints),
        passage=_number(params, "passage", int, complaints) or 0,
        also=_also(params, run, probe, complaints),
        scale=_word(params, "scale", SCALES, complaints),
        band=_word(params, "band", BANDS, complaints),
    )
    head = _head(params, "head", run, complaints)
    pins = _pins(params, run, complaints)
    return Reading(replace(state, head=head or _default_head(run, state), pin=pins), tuple(complaints))


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


def default_run(library: Library) -> str:
    """The run shown first: one with repeated or synthetic data before its control."""
    ranked = sorted(library.runs.values(), key=lambda r: _RUN_ORDER.get(r.arm.get("kind", ""), 1))
    return ranked[0].name


def default_base(run: SavedRun, library: Library) -> str:
    """The baseline nobody chose: the run on unique data, where there is one and it is another."""
    if run.arm.get("kind") == "unique":
        return ""
    unique = (r.name for r in library.runs.values() if r.arm.get("kind") == "unique" and r is not run)
    return next(unique, "")


def _name(params: Mapping[str, str], word: str, names: list[str], default: str, complaints: list[str]) -> str:
    asked = params.get(word)
    if asked is None or asked in names:
        return asked if asked is not None else default
    near = difflib.get_close_matches(asked, names, n=len(names), cutoff=0.0)
    shown = ", ".join(clean(n, limit=40) for n in near[:5])
    complaints.append(
        f"{word}={clean(asked, limit=60)} is not among the runs here ({shown}); showing {clean(default) or 'none'}"
    )
    return default


def _base(params: Mapping[str, str], run: SavedRun, library: Library, complaints: list[str]) -> str:
    asked = params.get("base")
    if asked is None:
        return default_base(run, library)
    if asked in ("", "none"):
        return ""
    if asked == run.name:
        complaints.append(f"base={clean(asked, limit=60)} is the run itself; nothing is compared")
        return ""
    return _name(params, "base", [n for n in library.runs if n != run.name], "", complaints)


def _measure(params: Mapping[str, str], run: SavedRun, complaints: list[str]) -> tuple[str, str]:
    probes = run.head_probes
    default = next(iter(probes), "")
    asked = params.get("probe", default)
    if asked not in probes:
        near = difflib.get_close_matches(asked, probes, n=1, cutoff=0.4)
        known = f"did you mean {near[0]}? " if near else ""
        complaints.append(
            f"probe={clean(asked, limit=60)} has no value per head in {clean(run.name)}; {known}"
            f"showing {probe_name(default) if default else 'none'}"
        )
        asked = default
    if not asked:
        return "", ""
    metrics = probes[asked]
    metric = params.get("metric", metrics[0])
    if metric not in metrics:
        complaints.append(
            f"metric={clean(metric, limit=60)} is no metric per head of {probe_name(asked)} "
            f"({', '.join(metrics)}); showing {metrics[0]}"
        )
        metric = metrics[0]
    return asked, metric


def _step(params: Mapping[str, str], run: SavedRun, complaints: list[str]) -> int:
    last = _last(run)
    asked = params.get("step")
    if asked is None:
        return last
    if not asked.lstrip("-").isdigit() or len(asked) > 18:
        complaints.append(
            f"step={clean(asked, limit=40)} is not a step of {clean(run.name)}; showing {step_number(last)}"
        )
        return last
    step = int(asked)
    if step in run.steps or not run.steps:
        return step if run.steps else last
    nearest = min(run.steps, key=lambda s: (abs(s - step), s))
    complaints.append(
        f"step={step:,} was not measured in {clean(run.name)}; showing the nearest, {step_number(nearest)}"
    )
    return nearest


def _last(run: SavedRun) -> int:
    """The last step that holds numbers to believe."""
    usable = [s for s in run.measured_steps if s not in run.left_out] or list(run.measured_steps) or [0]
    return int(usable[-1])


def _head(params: Mapping[str, str], word: str, run: SavedRun, complaints: list[str]) -> str:
    asked = params.get(word)
    return _one_head(asked, word, run, complaints) if asked else ""


def _one_head(asked: str, word: str, run: SavedRun, complaints: list[str]) -> str:
    n_layers, n_heads = run.shape
    try:
        layer, head = parse_head(asked[:40])
    except (RoteError, ValueError):
        complaints.append(f"{word}={clean(asked, limit=40)} is not a head; write layer and head as L1H0")
        return ""
    if not (layer < n_layers and head < n_heads):
        complaints.append(
            f"{word}={clean(asked, limit=40)} is not in {clean(run.name)}, which has {n_layers} layers of {n_heads} heads"
        )
        return ""
    return head_label(layer, head)


def _default_head(run: SavedRun, state: State) -> str:
    """The strongest head of the probe at the step; the first one where nothing was measured."""
    if not state.probe or not all(run.shape):
        return ""
    strongest = run.cube(state.probe, state.metric).strongest(state.step)
    return head_label(*(strongest or (0, 0)))


def _pins(params: Mapping[str, str], run: SavedRun, complaints: list[str]) -> tuple[str, ...]:
    asked = [word for word in params.get("pin", "").split(",") if word.strip()][: 4 * MAX_PINS]
    pins = dict.fromkeys(_one_head(word.strip(), "pin", run, complaints) for word in asked)
    kept = [pin for pin in pins if pin]
    if len(kept) > MAX_PINS:
        complaints.append(f"pin holds {len(kept)} heads; showing the first {MAX_PINS}")
    return tuple(kept[:MAX_PINS])


def drawable(run: SavedRun) -> tuple[str, ...]:
    """Probes whose main metric is one value per step, of every head or of the whole model, in catalogue order."""
    return tuple(p for (p, m), kind in run.kinds.items() if kind in ("head", "model") and m == main_metric(p))


def _also(params: Mapping[str, str], run: SavedRun, probe: str, complaints: list[str]) -> tuple[str, ...]:
    asked = [word.strip() for word in params.get("also", "").split(",") if word.strip()][: 4 * MAX_ALSO]
    known = drawable(run)
    for name in dict.fromkeys(asked):
        if name not in known:
            complaints.append(
                f"also={clean(name, limit=60)} is not a probe with one line to draw in {clean(run.name)}"
            )
    kept = [name for name in dict.fromkeys(asked) if name in known and name != probe]
    if len(kept) > MAX_ALSO:
        complaints.append(f"also holds {len(kept)} probes; showing the first {MAX_ALSO}")
    return tuple(kept[:MAX_ALSO])


def _word(params: Mapping[str, str], word: str, known: tuple[str, ...], complaints: list[str]) -> str:
    asked = params.get(word, known[0])
    if asked in known:
        return asked
    words = [name for name in known if name]
    instead = f"showing {known[0]}" if known[0] else "left out"
    complaints.append(f"{word}={clean(asked, limit=40)} is none of {', '.join(words)}; {instead}")
    return known[0]


def _number(params: Mapping[str, str], word: str, kind: Callable[[str], Any], complaints: list[str]) -> Any:
    asked = params.get(word)
    if asked in (None, ""):
        return None
    try:
        value = kind(asked[:20])
    except ValueError:
        value = None
    if value is None or not math.isfinite(value) or (kind is int and value < 0):
        complaints.append(f"{word}={clean(asked, limit=40)} is not a number that fits; left out")
        return None
    return value
