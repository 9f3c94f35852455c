"""What a probe is: a description that readers of results need, and a computation. One contract for ours and anybody's.

    @probe(unit="attention fraction", range=(0, 1), stimulus="repeated_random")
    def self_attention(pattern):
        \"""Mean attention of a token to itself.\"""
        return pattern.diagonal(dim1=-2, dim2=-1).mean(-1)

The names of the function's arguments say what it is shown, and so what kind of probe it is (`KINDS_BY_ARGUMENT`). The
arguments of `probe` are its description. In a file of ours they are literals, so that `byrote.probes.registry` reads
them without importing the file: whoever only looks at results never imports torch.
"""

from __future__ import annotations

import importlib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from byrote.checkpoints.errors import ByroteError, PluginError, did_you_mean
from byrote.probes.few import SampleKind
from byrote.probes.stimuli import PluginStimulus, unavailable

Kind = Literal["head", "model", "weights", "direct", "verdict"]
Better = Literal["higher", "lower"]
# The first of these among a function's parameters decides its kind; one with none of them judges other probes' numbers.
KINDS_BY_ARGUMENT: Mapping[str, Kind] = {
    "pattern": "head", "z": "head", "v": "head",
    "token_nll": "model", "top1": "model", "logits": "model",
    "model": "direct", "weights": "weights",
}  # fmt: skip
HEAD_ARGUMENTS = frozenset({"pattern", "z", "v", "tokens", "match_tokens", "weights", "layer"})
LAST = 1000
_CHECKS: Mapping[str, str] = {
    "head": "attention is not finite, not causal or does not sum to 1",
    "model": "predictions depend on later tokens: the model is not causal",
}


class NotMeasuredError(Exception):
    """Raised by a probe that cannot give a number here; the message becomes the observation's reason."""


@dataclass(frozen=True)
class Plugin:
    """Where a probe that is not byrote's own is from; stored with its numbers, which are reused only if it is equal.

    Attributes:
        name: of the file, the package, or "notebook".
        version: of the package; "" elsewhere.
        source: hash of its source text.
    """

    name: str
    version: str
    source: str


@dataclass(frozen=True)
class ProbeInfo:
    """One probe as it describes itself.

    Attributes:
        name: the noun measured.
        kind: "head" and "model" share a stimulus's one forward pass; "weights" needs none; "direct" runs the model
            itself, more than once, and is a unit of its own; "verdict" is derived from other probes.
        unit: of the main metric.
        range: of the main metric; None when unbounded.
        better: which direction means more of the thing named, or None where neither is good.
        source: paper and equation.
        summary: one sentence a person reads first.
        chance: what the chance level is.
        metrics: metric name -> what it is.
        module: where the computation lives; "" for a plugin's.
        stimuli: stimulus kinds, the main one first.
        version: raised whenever numbers change, so that stored results are not reused.
        needs: other probes a verdict reads.
        inputs: of a verdict: argument -> (probe, metric) whose stored values per sequence it is.
        default: False for probes that are measured only when requested by name: they cost more passes.
        passes: forward passes per checkpoint of a "direct" probe, in words, such as "1 + heads".
        main_metric: the metric shown first.
        curve_axis: what `position` counts, for metrics that are curves.
        position_start: value of `position` at a curve's first point.
        units: units of metrics that differ from the main one's.
        smallest: metric, or unit of several -> (smallest effect in that unit, why it is that one): a difference that is
            not significantly larger is no finding. Units that are not named have that of `byrote.probes.rules.SMALLEST_BY_UNIT`.
        reads_as: what small, large and typical values say, and what they do not.
        not_measured: when there is no number.
        undefined: the reason given when no sequence has a defined value.
        directions: `better` of metrics where it differs from the probe's.
        settings: metrics that say how it was measured (positions, sizes), not its result: shown beside the others,
            never compared.
        words: metric -> what its whole numbers from 0 on are called, for metrics that are verdicts.
        binary: metrics that are 0 or 1 for every sequence.
        shares: metrics of a "direct" probe that are from 0 to 1 for every sequence, and no differences.
        sampled_chance: whether chance was itself measured, on about as many other sequences.
        needs_read_out: whether it reads the direct path to the logits, which must be seen to hold on the architecture.
        reads_earlier_layers: whether a layer's number also rests on the layers before it.
        reads_ids: whether a computation on weights is shown the usable ids; follows from its arguments.
        order: place in lists, ascending, then by name.
        featured: 1, 2, ...: place among the head probes that reports, pages and notebooks show first; 0: after those.
        followed: 1, 2, ...: place among the probes whose strongest heads a trajectory follows; 0: not among them.
        best_compared: whether a comparison also holds the strongest head of one run against that of the other.
        headline: metrics among the few that a comparison of runs shows first.
        details: metrics that summaries leave out.
        uncompared: metrics that are shown side by side and never subtracted, beside `settings`.
        options: fields of the sweep's configuration that a "direct" probe reads as arguments; stored with its numbers.
        plugin: the package that provides it; None for byrote's own.
        steps: how it is computed, in paragraphs and numbered points; "" where the module's docstring says it.
        chance_levels: metric -> chance level where that is a number for every stimulus, or "guess", 1 in the number of
            usable ids, or "guess_nats", its logarithm; metrics that are not among them have none.
        computation: a plugin's function; None for byrote's own, and where only its results are here.
    """

    name: str
    kind: Kind
    unit: str
    range: tuple[float, float] | None
    better: Better | None
    source: str
    summary: str
    chance: str
    metrics: Mapping[str, str]
    module: str = ""
    stimuli: tuple[str, ...] = ()
    version: int = 1
    needs: tuple[str, ...] = ()
    inputs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    default: bool = True
    passes: str = ""
    main_metric: str = "score"
    curve_axis: str = ""
    position_start: int = 0
    units: Mapping[str, str] = field(default_factory=dict)
    smallest: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    reads_as: str = ""
    not_measured: str = ""
    undefined: str = ""
    directions: Mapping[str, Better | None] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    binary: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()
    sampled_chance: bool = False
    needs_read_out: bool = False
    reads_earlier_layers: bool = False
    reads_ids: bool = False
    order: int = LAST
    featured: int = 0
    followed: int = 0
    best_compared: bool = False
    headline: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    uncompared: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    plugin: Plugin | None = None
    steps: str = ""
    chance_levels: Mapping[str, float | str] = field(default_factory=dict)
    computation: Probe | None = field(default=None, compare=False, repr=False)

    def word_of(self, metric: str, value: float) -> str:
        """What a value of a verdict is called; "" for metrics that are numbers, and for values without a name."""
        words = self.words.get(metric, ())
        return words[int(value)] if value in range(len(words)) else ""

    def unit_of(self, metric: str) -> str:
        """Unit of one metric: its own where it differs from the probe's."""
        return self.units.get(metric.split("@")[0], self.unit)

    def better_of(self, metric: str) -> Better | None:
        """Which direction of one metric means more of what the probe names; None where neither does."""
        return self.directions.get(metric, self.directions.get(metric.split("@")[0], self.better))

    def kind_of(self, metric: str) -> SampleKind:
        """What a metric's values per sequence are, which decides how their mean's interval is made."""
        unit, name = self.unit_of(metric), metric.split("@")[0]
        if name in self.binary:
            return "binary"
        if name in self.shares:
            return "share"
        if unit == self.unit and "difference" not in name:
            return "share" if self.range == (0.0, 1.0) else "other"
        share = unit.endswith("fraction") or unit == "probability"
        return "share" if share and self.kind in ("head", "model") else "other"

    def compares(self, metric: str) -> bool:
        """Whether differences of a metric between runs mean anything."""
        return metric not in (*self.settings, *self.uncompared)

    @property
    def summarised(self) -> tuple[str, ...]:
        """The metrics that a summary shows: all but details of the whole model's, the main one of every other."""
        if self.kind != "model":
            return (self.main_metric,)
        return tuple(metric for metric in self.metrics if metric not in self.details)

    @property
    def measurable(self) -> bool:
        """Whether its computation is here; of a plugin that is not loaded only the stored description is."""
        return bool(self.module) or self.computation is not None

    def implementation(self) -> Probe:
        """The computation; imports torch for all but verdicts.

        Raises:
            ByroteError: it is a plugin's, and only its results are here.
        """
        if self.computation is not None:
            return self.computation
        if not self.module:
            raise ByroteError(
                f"the probe {self.name!r} is a plugin's, which is not loaded",
                help=f"give its file: --plugin {self.plugin.name if self.plugin else 'FILE'}",
            )
        found = getattr(importlib.import_module(self.module), self.name)
        assert isinstance(found, Probe)
        return found


@dataclass(frozen=True)
class ProbeScores:
    """What a probe of kind "direct" or "weights" returns for each of its metrics.

    Attributes:
        samples: first axis sequences, or tokens, the others as named by `axes`; NaN means undefined for that one.
        axes: from layer, head, src_layer, src_head, position.
        chance: chance level, broadcast over the other axes; NaN where there is none.
        position_start: value of `position` at index 0.
        layer_reasons: layers that could not be measured, and why.
        exists: which entries are quantities at all, such as the pairs of heads that were measured; None means all. The
            others have no rows.
        exact_n: None where the values are means over `samples`; else they are exact, one row of samples without an
            interval, and this is the number of draws of their null.
        interval: both ends, where something else than `samples` was resampled too; None leaves it to the bootstrap.
        undefined: why values are NaN here, where that is known better than the probe's own description says it.
    """

    samples: Float[np.ndarray, n * axes]
    axes: tuple[str, ...] = ()
    chance: Float[np.ndarray, "*axes"] | float = float("nan")
    position_start: int = 0
    layer_reasons: Mapping[int, str] = field(default_factory=dict)
    exists: Bool[np.ndarray, "*axes"] | None = None
    exact_n: int | None = None
    interval: tuple[Float[np.ndarray, "*axes"], Float[np.ndarray, "*axes"]] | None = None
    undefined: str = ""


def level_of(level: float | str, n_ids: int) -> float:
    """One of `chance_levels` as a number.

    Args:
        level: a number, "guess" or "guess_nats".
        n_ids: usable ids, of which one is guessed.
    """
    return {"guess": 1 / n_ids, "guess_nats": math.log(n_ids)}[level] if isinstance(level, str) else level


class Probe:
    """A probe that can be run: its description, and up to three functions.

    Attributes:
        info: the description.
        update: what was decorated: called for every layer ("head") or batch ("model") of the pass, or once; see
            `KINDS_BY_ARGUMENT`. Its arguments are named after what it is shown.
        finisher: joins what `update` returned, once the pass is over; None where that is the answer.
        chance_level: chance levels of a stimulus by metric; None takes the kind's own.
        stimuli: of plugins, which it shows.
    """

    def __init__(
        self, info: ProbeInfo, update: Callable[..., Any], stimuli: tuple[PluginStimulus, ...] = ()
    ) -> None:
        self.info, self.update, self.stimuli = info, update, stimuli
        self.finisher: Callable[..., Any] | None = None
        self.chance_level: Callable[..., Any] | None = None
        self.__name__, self.__doc__, self.__wrapped__ = info.name, update.__doc__, update

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What `update` returns."""
        return self.update(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<probe {self.info.name}: {self.info.summary}>"

    def finish(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: `function(parts, ...)` makes the metrics of what `update` returned, all layers and sequences.

        `parts` are [n_layers batch n_heads ...] of a head probe and [batch ...] of one of the whole model. Other arguments
        by name: final_scale, weights, seed. Keys `chance:METRIC`, `lo:METRIC`, `hi:METRIC` and `exists` are understood.
        Of a verdict: `function(rows)` gets the stored rows of one step by name of its inputs, those with a default only
        where they are stored, and returns `byrote.probes.results.schema.Measured`.
        """
        self.finisher = function
        return function

    def chance(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: `function(stimulus)` gives the chance level of every metric.

        Without one a head probe of patterns and tokens is run on uniform attention; others have none.
        """
        self.chance_level = function
        return function


def probe(
    misplaced: object = None,
    /,
    *,
    unit: str = "",
    stimulus: str | PluginStimulus | tuple[str | PluginStimulus, ...] = (),
    range: tuple[float | int, float | int] | None = None,
    better: Better | None = None,
    summary: str = "",
    chance: str | float | int = "",
    metrics: Mapping[str, str] | None = None,
    **fields: Any,
) -> Callable[[Callable[..., Any]], Probe]:
    """Decorator: make a function a probe.

    Args:
        unit: of the main metric.
        stimulus: what the model is shown: a kind of stimulus by name, or one made with `stimulus`; several as a tuple, the
            main one first.
        range: of the main metric.
        better: which direction means more of the thing named.
        summary: one sentence; the docstring's first line by default.
        chance: what the chance level is, in words; or a number, the chance level of every metric.
        metrics: metric name -> what it is; {"score": summary} by default, and the function may then return one tensor.
        fields: the others of `ProbeInfo`.

    Raises:
        PluginError: a field that does not exist, an argument nothing can be shown for, a description without a unit.
    """
    if misplaced is not None:
        example = '@probe(unit="attention fraction", range=(0, 1), stimulus="repeated_random")'
        raise PluginError("@probe stands without its description", help=example)
    shown = stimulus if isinstance(stimulus, tuple) else (stimulus,)
    names = tuple(each.kind if isinstance(each, PluginStimulus) else each for each in shown)
    given = {
        "unit": unit, "stimulus": names, "range": range, "better": better, "summary": summary, "chance": chance,
        "metrics": metrics, **fields,
    }  # fmt: skip

    def made(function: Callable[..., Any]) -> Probe:
        arguments = tuple(inspect.signature(function).parameters)
        module = inspect.getmodule(function)
        own = str(function.__module__).startswith("byrote.probes.")
        document = inspect.getdoc(module if own else function) or ""
        return Probe(
            describe(
                function.__name__, arguments, document, module=function.__module__ if own else "", **given
            ),
            function,
            tuple(each for each in shown if isinstance(each, PluginStimulus)),
        )

    return made


def describe(
    name: str,
    arguments: Iterable[str],
    document: str,
    *,
    module: str,
    unit: str,
    stimulus: str | tuple[str, ...] = (),
    summary: str = "",
    chance: str | float | int = "",
    metrics: Mapping[str, str] | None = None,
    not_measured: str = "",
    undirected: tuple[str, ...] = (),
    range: tuple[float | int, float | int] | None = None,
    **fields: Any,
) -> ProbeInfo:
    """The description of a probe, with what follows from its arguments filled in.

    Args:
        name: of the function.
        arguments: names of its arguments.
        document: docstring of our module, or of a plugin's function.
        module: of ours; "" for a plugin's function.
        unit, stimulus, summary, chance, metrics, not_measured, range, fields: as given to `probe`.
        undirected: metrics of which neither direction means more of anything: `directions` None.

    Raises:
        PluginError: see `probe`.
    """
    arguments, title, body = tuple(arguments), *_title_and_body(document)
    unknown = [key for key in fields if key not in ProbeInfo.__dataclass_fields__]
    if unknown:
        raise PluginError(
            f"the probe {name} has an unknown field {unknown[0]!r}",
            help=did_you_mean(unknown[0], ProbeInfo.__dataclass_fields__),
        )
    stimuli = (stimulus,) if isinstance(stimulus, str) else tuple(stimulus)
    summary = summary or title
    _check_smallest(
        name,
        fields.get("smallest") or {},
        {*(metrics or {"score": ""}), unit, *fields.get("units", {}).values()},
    )
    if "inputs" in fields:
        fields["needs"] = tuple(dict.fromkeys(probe for probe, _ in fields["inputs"].values()))
    kind = _kind(name, arguments, stimuli, needs=bool(fields.get("needs")), described=bool(unit and summary))
    source, steps = _source_and_steps(body)
    reasons = [not_measured, *(unavailable(each) for each in (stimuli if kind == "direct" else stimuli[:1]))]
    if kind in _CHECKS:
        before = "in this or an earlier layer " if fields.get("reads_earlier_layers") else ""
        reasons.append(f"{before}{_CHECKS[kind]}")
    metrics = metrics or {"score": summary}
    fields["reads_ids"] = kind == "weights" and "ids" in arguments
    if not isinstance(chance, str):
        fields["chance_levels"] = dict.fromkeys(metrics, float(chance))
    return ProbeInfo(
        name=name,
        kind=kind,
        unit=unit,
        source=fields.pop("source", source),
        summary=summary,
        chance=chance if isinstance(chance, str) else f"{chance:g}",
        metrics=metrics,
        module=module,
        stimuli=stimuli,
        not_measured="; ".join(dict.fromkeys(reason for reason in reasons if reason)),
        range=None if range is None else (float(range[0]), float(range[1])),
        directions={**dict.fromkeys(undirected), **fields.pop("directions", {})},
        steps=fields.pop("steps", "" if module else steps),
        **{"better": None, **fields},
    )


def _kind(
    name: str, arguments: tuple[str, ...], stimuli: tuple[str, ...], *, needs: bool, described: bool
) -> Kind:
    """What a probe's arguments make it; refused is one that nothing can be shown to."""
    if not described:
        raise PluginError(
            f"the probe {name} has no unit or no summary",
            help="give unit=..., and a docstring that says what it is",
        )
    kind = "verdict" if needs else next((k for a, k in KINDS_BY_ARGUMENT.items() if a in arguments), None)
    if kind is None:
        raise PluginError(
            f"the probe {name}({', '.join(arguments)}) has no argument that byrote provides",
            help=f"name an argument after what it reads: {', '.join(KINDS_BY_ARGUMENT)}",
        )
    unknown = [a for a in arguments if a not in HEAD_ARGUMENTS] if kind == "head" else []
    if unknown:
        raise PluginError(
            f"the probe {name} of heads requests {unknown[0]!r}, which no layer provides",
            help=did_you_mean(unknown[0], HEAD_ARGUMENTS),
        )
    if kind in ("head", "model", "direct") and not stimuli:
        raise PluginError(
            f"the probe {name} does not declare its stimulus",
            help='add one, such as stimulus="repeated_random"',
        )
    return kind


def _check_smallest(name: str, smallest: Mapping[str, tuple[float, str]], known: set[str]) -> None:
    """Refuse a smallest effect of nothing the probe has, of no size, or without a reason."""
    for what, (size, reason) in smallest.items():
        if what not in known:
            raise PluginError(
                f"the probe {name} has a smallest effect of {what!r}, which is not one of its metrics or units",
                help=did_you_mean(what, known),
            )
        if not (size > 0 and math.isfinite(size) and reason.strip()):
            raise PluginError(
                f"the smallest effect of {name} {what} is {size!r}, for the reason {reason!r}",
                help='give a size above 0 and why it matters, such as smallest={"nats": (0.05, "a factor of 1.05")}',
            )


def _title_and_body(document: str) -> tuple[str, str]:
    title, _, body = document.partition("\n\n")
    return " ".join(title.split()), body


def _source_and_steps(body: str) -> tuple[str, str]:
    """What a docstring says after "Source:", on one line, and the rest of it."""
    found = re.search(r"^Source: (.*?)(?:\n\n|\Z)", body, re.MULTILINE | re.DOTALL)
    if found is None:
        return "", body
    return " ".join(found[1].split()).rstrip("."), body[: found.start()] + body[found.end() :]


def document_parts(document: str) -> tuple[str, str]:
    """(source, steps) of the docstring of a probe's file."""
    return _source_and_steps(_title_and_body(document)[1])
