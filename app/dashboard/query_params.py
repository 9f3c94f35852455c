"""Query parameters: the URL is the state, `run probe step head base pin` and those of single pages. No Streamlit.

A bad link never stops a page. What cannot be used is replaced by what fits and said in one line.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms import arm_rank
from byrote.dashboard.findings import events, run_onset
from byrote.dashboard.library import Library
from byrote.interp.axes import head_label, parse_head
from byrote.probes.comparable import ALIGNMENTS
from byrote.probes.figures.memory_plane import MEMORY_AXES, RULE_AXES
from byrote.probes.figures.select import main_metric
from byrote.probes.results import Results
from byrote.probes.wording import clean, probe_name, step_number

MAX_PINS = 6
MAX_ALSO = 3
ALWAYS = ("run", "probe", "step", "head", "base")  # in every link, the others where they say something


def one_of(*words: str) -> Any:
    """A part of the state that is one of a few words, the first where a link says nothing or something else."""
    return field(default=words[0], metadata={"words": words})


def number(kind: Callable[[str], Any], default: Any = None) -> Any:
    """A part of the state that is a number, from 0 where it counts."""
    return field(default=default, metadata={"number": kind})


@dataclass(frozen=True)
class State:
    """What is looked at. A field made by `one_of` or `number` is read from a link without another line of code.

    Attributes:
        run, base: run names; base is "" where nothing is compared.
        probe, metric: what the grid shows.
        step: a training step of the run.
        head: a head's label, "" where the run has no heads.
        pin: pinned heads.
        also: probes drawn below the first one on the overview's timeline.
        align: how the baseline's steps are matched: step, tokens or loss.
        show: layer of the grid: value, previous, final or base (differences from those).
        way: kind of composition, k, q or v.
        z: smallest composition z drawn; None lets the page choose.
        text: which stored sequence the head page reads.
        q: a token selected there.
        shade: whether its tokens show what they attend to, or what attends to them.
        sink: with or without the attention to position 0.
        rule, memory: axes of the plane, "" lets the page choose.
        damage: PROBE/METRIC over the dose; "" lets the page choose.
        passage: which training sequence the memory page tells apart.
        scale: the timeline's axis of steps, log or linear.
        band: its 95% intervals, on or off.
    """

    run: str
    probe: str
    metric: str
    step: int
    head: str
    base: str = ""
    pin: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    damage: str = ""
    align: str = one_of(*ALIGNMENTS)
    show: str = one_of("value", "previous", "final", "base")
    way: str = one_of("k", "q", "v")
    z: float | None = number(float)
    text: int = number(int, 0)
    q: int | None = number(int)
    shade: str = one_of("to", "from")
    sink: str = one_of("with", "without")
    rule: str = one_of("", *RULE_AXES)
    memory: str = one_of("", *MEMORY_AXES)
    passage: int = number(int, 0)
    scale: str = one_of("log", "linear")
    band: str = one_of("on", "off")

    @property
    def layer_head(self) -> tuple[int, int] | None:
        """The head as numbers."""
        return parse_head(self.head) if self.head else None


def words_of(name: str) -> tuple[str, ...]:
    """The words a part of the state may be, such as `words_of("way")`."""
    return next(f.metadata["words"] for f in fields(State) if f.name == name)


@dataclass(frozen=True)
class Reading:
    """A link as understood.

    Attributes:
        state: complete and usable.
        complaints: one line per part that was not.
    """

    state: State
    complaints: tuple[str, ...] = field(default=())


def read(params: Mapping[str, str], library: Library, *, called: Mapping[str, str] | None = None) -> Reading:
    """Understand a query string.

    Args:
        params: as in the URL; unknown names are left alone.
        library: at least one run.
        called: what complaints call a part, where it is known by another name than in the URL.
    """
    reader = _Reader(params, called or {})
    first = (
        "" if params.get("run") in library.runs else default_run(library)
    )  # asks every run what happened in it
    run = library.runs[reader.name("run", list(library.runs), first)]
    probe, metric = reader.measure(run)
    step = reader.step(run)
    base = reader.base(run, library)
    simple: dict[str, Any] = {
        f.name: reader.word(f.name, f.metadata["words"])
        if "words" in f.metadata
        else reader.number(f.name, f.metadata["number"], f.default)
        for f in fields(State)
        if f.metadata
    }
    also, damage = reader.also(run, probe), reader.damage(run)
    head = reader.head(run) or default_head(run, probe, metric, step)
    state = State(run.run, probe, metric, step, head, base, reader.pins(run), also, damage, **simple)
    return Reading(state, tuple(reader.complaints))


def link(state: State, **changes: Any) -> dict[str, str]:
    """The query parameters of a state: the five words always, the others where they say something.

    Args:
        state: where we are.
        changes: fields to set first.
    """
    state = replace(state, **changes)
    out = {}
    for part in fields(State):
        name, value = part.name, getattr(state, part.name)
        unsaid = value == (main_metric(state.probe) if name == "metric" else part.default)
        if name not in ALWAYS and unsaid:
            continue
        out[name] = ",".join(value) if isinstance(value, tuple) else str(value)
    return {name: value for name, value in out.items() if value != "" or name == "base"}


def default_run(library: Library) -> str:
    """The run shown first: one in which induction heads appear, of the arm whose seeds have them most often.

    Among arms alike the unique data comes first. Where nothing happens, a run with repeated or synthetic data comes before
    its control.
    """
    runs = list(library.runs.values())
    formed = [run for run in runs if run_onset(run).found]
    if not formed:
        return min(runs, key=lambda run: arm_rank(_arm(run))).run
    arms = [run.facts.arm or run.run for run in runs]
    share = {arm: sum((one.facts.arm or one.run) == arm for one in formed) / arms.count(arm) for arm in arms}
    return min(formed, key=lambda run: (-share[run.facts.arm or run.run], _arm(run) != "unique")).run


def _arm(run: Results) -> str:
    return str(run.arm.get("kind", ""))


def default_base(run: Results, library: Library) -> str:
    """The baseline nobody chose: the run on unique data; of such a run its counterpart, in which nothing happens if there is one.

    Of the same seed where there is one; "" where no other arm is known.
    """
    of_unique = _arm(run) == "unique"
    found = [
        one for one in library.runs.values()
        if one is not run and one.arm and (_arm(one) == "unique") != of_unique
    ]  # fmt: skip

    def rank(one: Results) -> tuple[bool, bool, int]:
        same_seed = one.training_seed == run.training_seed
        return (not same_seed, *((run_onset(one).found, arm_rank(_arm(one))) if of_unique else (False, 0)))

    return min(found, key=rank).run if found else ""


def default_head(run: Results, probe: str, metric: str, step: int) -> str:
    """The strongest head of the probe at the step; the first one where nothing was measured."""
    if not probe or not all(run.shape):
        return ""
    strongest = run.cube(probe, metric).strongest(step)
    return head_label(*(strongest or (0, 0)))


def head_names(run: Results) -> list[str]:
    """Labels of all heads of a run, layer by layer."""
    n_layers, n_heads = run.shape
    return [head_label(layer, head) for layer in range(n_layers) for head in range(n_heads)]


def default_step(run: Results) -> int:
    """The step of the first event, such as the first lasting induction head; the last that lint does not leave out without one."""
    usable = [s for s in run.steps if s not in run.left_out] or list(run.steps) or [0]
    return next((step for step, _ in events(run) if step in usable), int(usable[-1]))


def drawable(run: Results) -> tuple[str, ...]:
    """Probes whose main metric is one value per step, of every head or of the whole model, in catalogue order."""
    return tuple(p for (p, m), kind in run.kinds.items() if kind in ("head", "model") and m == main_metric(p))


def damageable(run: Results) -> tuple[str, ...]:
    """PROBE/METRIC of the whole model for which one direction is better, in the order measured."""
    return tuple(f"{p}/{m}" for (p, m), kind in run.kinds.items() if kind == "model" and run.info(p).better_of(m) in ("lower", "higher"))  # fmt: skip


class _Reader:
    """A query string, read part by part: what does not fit is replaced by what does, with a complaint of one line."""

    def __init__(self, params: Mapping[str, str], called: Mapping[str, str]) -> None:
        self.params, self.called = params, called
        self.complaints: list[str] = []

    def complain(self, name: str, value: object, why: str, *, limit: int = 60) -> None:
        self.complaints.append(f"{self.called.get(name, name)}={clean(value, limit=limit)} {why}")

    def name(self, word: str, names: list[str], default: str) -> str:
        """One of some names."""
        wanted = self.params.get(word, default)
        if wanted in names or word not in self.params:
            return wanted
        near = difflib.get_close_matches(wanted, names, n=len(names), cutoff=0.0)
        shown = ", ".join(clean(n, limit=40) for n in near[:5])
        self.complain(
            word, wanted, f"is not among the runs here ({shown}); showing {clean(default) or 'none'}"
        )
        return default

    def base(self, run: Results, library: Library) -> str:
        """The baseline; "" for none."""
        wanted = self.params.get("base")
        if wanted is None:
            return default_base(run, library)
        if wanted in ("", "none"):
            return ""
        if wanted == run.run:
            self.complain("base", wanted, "is the run itself; nothing is compared")
            return ""
        return self.name("base", [n for n in library.runs if n != run.run], "")

    def measure(self, run: Results) -> tuple[str, str]:
        """(probe, metric) with a value per head; ("", "") where there is none."""
        probes = run.head_probes
        default = next(iter(probes), "")
        probe = self.params.get("probe", default)
        if probe and probe not in probes:
            near = difflib.get_close_matches(probe, probes, n=1, cutoff=0.4)
            known = f"did you mean {near[0]}? " if near else ""
            shown = probe_name(default) if default else "none"
            self.complain(
                "probe", probe, f"has no value per head in {clean(run.run)}; {known}showing {shown}"
            )
            probe = default
        if not probe:
            return "", ""
        metrics = probes[probe]
        metric = self.params.get("metric", metrics[0])
        if metric not in metrics:
            why = f"is not a per-head metric of {probe_name(probe)} ({', '.join(metrics)}); showing {metrics[0]}"
            self.complain("metric", metric, why)
            metric = metrics[0]
        return probe, metric

    def step(self, run: Results) -> int:
        """A step of the run, the nearest where it is none."""
        wanted = self.params.get("step")
        if wanted is None:
            return default_step(run)
        if not wanted.lstrip("-").isdigit() or len(wanted) > 18:
            step = default_step(run)
            why = f"is not a step of {clean(run.run)}; showing {step_number(step)}"
            self.complain("step", wanted, why, limit=40)
            return step
        step = int(wanted)
        if not run.all_steps:
            return default_step(run)
        if step in run.all_steps:
            return step
        nearest = min(run.all_steps, key=lambda s: (abs(s - step), s))
        why = f"was not measured in {clean(run.run)}; showing the nearest, {step_number(nearest)}"
        self.complain("step", f"{step:,}", why)
        return nearest

    def head(self, run: Results) -> str:
        """A head of the run; "" for none."""
        wanted = self.params.get("head")
        return self._one_head(wanted, "head", run) if wanted else ""

    def _one_head(self, wanted: str, word: str, run: Results) -> str:
        n_layers, n_heads = run.shape
        try:
            layer, head = parse_head(wanted[:40])
        except (ByroteError, ValueError):
            self.complain(word, wanted, "is not a head; write layer and head as L1H0", limit=40)
            return ""
        if not (layer < n_layers and head < n_heads):
            why = f"is not in {clean(run.run)}, which has {n_layers} layers of {n_heads} heads"
            self.complain(word, wanted, why, limit=40)
            return ""
        return head_label(layer, head)

    def _listed(self, word: str, most: int) -> list[str]:
        """The parts of a list, each once; a list of any length costs nothing."""
        parts = [part.strip() for part in self.params.get(word, "").split(",") if part.strip()]
        return list(dict.fromkeys(parts[: 4 * most]))

    def _at_most(self, word: str, what: str, found: list[str], most: int) -> tuple[str, ...]:
        if len(found) > most:
            self.complaints.append(
                f"{self.called.get(word, word)} contains {len(found)} {what}; showing the first {most}"
            )
        return tuple(found[:most])

    def pins(self, run: Results) -> tuple[str, ...]:
        """Pinned heads."""
        pins = dict.fromkeys(self._one_head(part, "pin", run) for part in self._listed("pin", MAX_PINS))
        return self._at_most("pin", "heads", [pin for pin in pins if pin], MAX_PINS)

    def also(self, run: Results, probe: str) -> tuple[str, ...]:
        """More probes for the timeline."""
        known, found = drawable(run), []
        for name in self._listed("also", MAX_ALSO):
            if name not in known:
                self.complain("also", name, f"is not a probe with one line to draw in {clean(run.run)}")
            elif name != probe:
                found.append(name)
        return self._at_most("also", "probes", found, MAX_ALSO)

    def damage(self, run: Results) -> str:
        """What is damaged over the dose; "" where nothing that can be."""
        wanted = self.params.get("damage", "")
        if wanted and wanted not in damageable(run):
            why = f"is not a whole-model measure with a better direction in {clean(run.run)}; left out"
            self.complain("damage", wanted, why)
            return ""
        return wanted

    def word(self, word: str, known: tuple[str, ...]) -> str:
        """One of a few words, the first where it is none."""
        wanted = self.params.get(word, known[0])
        if wanted in known:
            return wanted
        instead = f"showing {known[0]}" if known[0] else "left out"
        self.complain(word, wanted, f"is not one of {', '.join(filter(None, known))}; {instead}", limit=40)
        return known[0]

    def number(self, word: str, kind: Callable[[str], Any], default: Any) -> Any:
        """A number, from 0 where it counts."""
        wanted = self.params.get(word)
        if wanted in (None, ""):
            return default
        try:
            value = kind(wanted[:20])
        except ValueError:
            value = None
        if value is None or not math.isfinite(value) or (kind is int and value < 0):
            self.complain(word, wanted, "is not a number that fits; left out", limit=40)
            return default
        return value
