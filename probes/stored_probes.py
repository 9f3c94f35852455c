"""Descriptions of plugins' probes in run.json, so that their results can be shown where the plugin is not. No torch.

What is read is untrusted text: it is cut to a length, and what markup could be made of is taken out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, get_args

from byrote.probes.spec import LAST, Better, Kind, Plugin, ProbeInfo

MAX_PROBES, MAX_METRICS, MAX_CHARS = 100, 64, 500
_NAME = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)
_METRIC = re.compile(r"[A-Za-z_]\w{0,63}(@[A-Za-z_]\w{0,63})?", re.ASCII)
_MARKUP = str.maketrans({"<": "‹", ">": "›", "[": "(", "]": ")", "`": "'", "\\": "/", "$": "S"})
_TEXTS = [
    "unit",
    "source",
    "summary",
    "chance",
    "curve_axis",
    "reads_as",
    "not_measured",
    "undefined",
    "passes",
]
_ORIGIN = ("name", "version", "source")
_LISTS = ("stimuli", "settings", "details", "uncompared")


def to_json(info: ProbeInfo) -> dict[str, Any]:
    """What run.json stores of a plugin's probe."""
    stored = {
        name: value for name, value in vars(info).items() if name not in ("computation", "module", "plugin")
    }
    return stored | {"plugin": asdict(info.plugin) if info.plugin else None}


def from_json(data: Any) -> ProbeInfo | None:
    """The description of a probe whose plugin is not here; None for what is none."""
    if not isinstance(data, Mapping) or data.get("kind") not in get_args(Kind):
        return None
    metrics, main = _by_metric(data, "metrics", _text), data.get("main_metric")
    if not _named(data.get("name"), _NAME) or not isinstance(main, str) or main not in metrics:
        return None
    plugin = data.get("plugin")
    origin = [_text(plugin.get(part) if isinstance(plugin, Mapping) else "") for part in _ORIGIN]
    plain: dict[str, Any] = {name: _text(data.get(name)) for name in _TEXTS}
    plain |= {name: _names(data.get(name)) for name in _LISTS}
    return ProbeInfo(
        name=data["name"],
        kind=data["kind"],
        range=_range(data.get("range")),
        better=_better(data.get("better")),
        metrics=metrics,
        main_metric=main,
        version=_number(data.get("version"), 1),
        position_start=_number(data.get("position_start"), 0),
        order=_number(data.get("order"), LAST),
        units=_by_metric(data, "units", _text),
        directions=_by_metric(data, "directions", _better),
        smallest={
            metric: found for metric, found in _by_metric(data, "smallest", _smallest).items() if found
        },
        plugin=Plugin(*origin),
        **plain,
    )


def _by_metric(data: Mapping[str, Any], name: str, read: Callable[[Any], Any]) -> dict[str, Any]:
    """The entries of a mapping that are named like metrics, each read."""
    found = data.get(name)
    entries = list(found.items())[:MAX_METRICS] if isinstance(found, Mapping) else []
    return {metric: read(value) for metric, value in entries if _named(metric, _METRIC)}


def _named(value: Any, form: re.Pattern[str]) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None


def _names(value: Any) -> tuple[str, ...]:
    return (
        tuple(v for v in value[:MAX_METRICS] if _named(v, _METRIC)) if isinstance(value, list | tuple) else ()
    )


def _text(value: Any) -> str:
    """One line of plain text."""
    if not isinstance(value, str):
        return ""
    return "".join(c for c in " ".join(value[: 4 * MAX_CHARS].split()) if c.isprintable())[
        :MAX_CHARS
    ].translate(_MARKUP)


def _number(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and abs(value) < 1 << 31 else otherwise


def _better(value: Any) -> Better | None:
    """A direction; None for anything else."""
    return "higher" if value == "higher" else "lower" if value == "lower" else None


def _smallest(value: Any) -> tuple[float, str] | None:
    """A smallest effect above 0 with its reason; None for anything else."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    size, reason = value
    fits = isinstance(size, int | float) and math.isfinite(size) and size > 0
    return (float(size), _text(reason)) if fits and _text(reason) else None


def _range(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    if not all(isinstance(end, int | float) and math.isfinite(end) for end in value):
        return None
    return (float(value[0]), float(value[1])) if value[0] < value[1] else None
