"""What the catalogue says of one probe. No torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["head", "model", "weights", "direct", "verdict"]


class NotMeasuredError(Exception):
    """Raised by a probe that cannot give a number here; the message becomes the observation's reason."""


@dataclass(frozen=True)
class ProbeInfo:
    """One probe as the catalogue states it.

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
        stimuli: stimulus kinds, the main one first.
        module: where the computation lives.
        version: raised whenever numbers change, so that stored results are not reused.
        needs: other probes a verdict reads.
        default: False for probes that are measured only when asked for by name: they cost more passes.
        passes: forward passes per checkpoint of a "direct" probe, in words, such as "1 + heads".
        main_metric: the metric shown first.
        curve_axis: what `position` counts, for metrics that are curves.
        units: units of metrics that differ from the main one's.
        reads_as: what small, large and typical values say, and what they do not.
        not_measured: when there is no number.
        undefined: the reason given when no sequence has a defined value.
        directions: `better` of metrics where it differs from the probe's.
        settings: metrics that say how it was measured (positions, sizes), not what came out: shown beside the others,
            never compared.
        words: metric -> what its whole numbers from 0 on are called, for metrics that are verdicts.
    """

    name: str
    kind: Kind
    unit: str
    range: tuple[float, float] | None
    better: Literal["higher", "lower"] | None
    source: str
    summary: str
    chance: str
    metrics: Mapping[str, str]
    module: str
    stimuli: tuple[str, ...] = ()
    version: int = 1
    needs: tuple[str, ...] = ()
    default: bool = True
    passes: str = ""
    main_metric: str = "score"
    curve_axis: str = ""
    units: Mapping[str, str] = field(default_factory=dict)
    reads_as: str = ""
    not_measured: str = ""
    undefined: str = ""
    directions: Mapping[str, Literal["higher", "lower"] | None] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def word_of(self, metric: str, value: float) -> str:
        """What a value of a verdict is called; "" for metrics that are numbers, and for values without a name."""
        words = self.words.get(metric, ())
        return words[int(value)] if value in range(len(words)) else ""

    def unit_of(self, metric: str) -> str:
        """Unit of one metric: its own where it differs from the probe's."""
        return self.units.get(metric.split("@")[0], self.unit)

    def better_of(self, metric: str) -> Literal["higher", "lower"] | None:
        """Which direction of one metric means more of what the probe names; None where neither does."""
        return self.directions.get(metric, self.better)

    def implementation(self) -> Callable[..., Any]:
        """The function that computes it; imports torch for all but verdicts."""
        module = importlib.import_module(self.module)
        return getattr(module, self.name)
