"""One part of a link at a time: the value that fits, and a complaint where the one asked for did not. No Streamlit."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard.library import Library
from byrote.dashboard.saved import SavedRun
from byrote.interp.axes import head_label, parse_head
from byrote.probes.figures.rows import main_metric
from byrote.probes.figures.words import clean, probe_name, step_number

MAX_PINS = 6
MAX_ALSO = 3
_RUN_ORDER = {"repeated": 0, "synthetic": 0, "": 1, "control": 2, "unique": 3}


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


class Asked:
    """A query string, read part by part: what does not fit is replaced by what does, with a complaint of one line.

    Args:
        params: as in the URL.
    """

    def __init__(self, params: Mapping[str, str]) -> None:
        self.params = params
        self.complaints: list[str] = []

    def name(self, word: str, names: list[str], default: str) -> str:
        """One of some names."""
        asked = self.params.get(word)
        if asked is None or asked in names:
            return asked if asked is not None else default
        near = difflib.get_close_matches(asked, names, n=len(names), cutoff=0.0)
        shown = ", ".join(clean(n, limit=40) for n in near[:5])
        self.complaints.append(
            f"{word}={clean(asked, limit=60)} is not among the runs here ({shown}); showing {clean(default) or 'none'}"
        )
        return default

    def base(self, run: SavedRun, library: Library) -> str:
        """The baseline; "" for none."""
        asked = self.params.get("base")
        if asked is None:
            return default_base(run, library)
        if asked in ("", "none"):
            return ""
        if asked == run.name:
            self.complaints.append(f"base={clean(asked, limit=60)} is the run itself; nothing is compared")
            return ""
        return self.name("base", [n for n in library.runs if n != run.name], "")

    def measure(self, run: SavedRun) -> tuple[str, str]:
        """(probe, metric) with a value per head; ("", "") where there is none."""
        probes = run.head_probes
        default = next(iter(probes), "")
        asked = self.params.get("probe", default)
        if asked not in probes:
            near = difflib.get_close_matches(asked, probes, n=1, cutoff=0.4)
            known = f"did you mean {near[0]}? " if near else ""
            self.complaints.append(
                f"probe={clean(asked, limit=60)} has no value per head in {clean(run.name)}; {known}"
                f"showing {probe_name(default) if default else 'none'}"
            )
            asked = default
        if not asked:
            return "", ""
        metrics = probes[asked]
        metric = self.params.get("metric", metrics[0])
        if metric not in metrics:
            self.complaints.append(
                f"metric={clean(metric, limit=60)} is no metric per head of {probe_name(asked)} "
                f"({', '.join(metrics)}); showing {metrics[0]}"
            )
            metric = metrics[0]
        return asked, metric

    def step(self, run: SavedRun) -> int:
        """A step of the run, the nearest where it is none."""
        last = _last(run)
        asked = self.params.get("step")
        if asked is None:
            return last
        if not asked.lstrip("-").isdigit() or len(asked) > 18:
            self.complaints.append(
                f"step={clean(asked, limit=40)} is not a step of {clean(run.name)}; showing {step_number(last)}"
            )
            return last
        step = int(asked)
        if step in run.steps or not run.steps:
            return step if run.steps else last
        nearest = min(run.steps, key=lambda s: (abs(s - step), s))
        self.complaints.append(
            f"step={step:,} was not measured in {clean(run.name)}; showing the nearest, {step_number(nearest)}"
        )
        return nearest

    def head(self, word: str, run: SavedRun) -> str:
        """A head of the run; "" for none."""
        asked = self.params.get(word)
        return self._one_head(asked, word, run) if asked else ""

    def _one_head(self, asked: str, word: str, run: SavedRun) -> str:
        n_layers, n_heads = run.shape
        try:
            layer, head = parse_head(asked[:40])
        except (ByroteError, ValueError):
            self.complaints.append(
                f"{word}={clean(asked, limit=40)} is not a head; write layer and head as L1H0"
            )
            return ""
        if not (layer < n_layers and head < n_heads):
            self.complaints.append(
                f"{word}={clean(asked, limit=40)} is not in {clean(run.name)}, which has {n_layers} layers of {n_heads} heads"
            )
            return ""
        return head_label(layer, head)

    def pins(self, run: SavedRun) -> tuple[str, ...]:
        """Heads kept in sight."""
        asked = [word for word in self.params.get("pin", "").split(",") if word.strip()][: 4 * MAX_PINS]
        pins = dict.fromkeys(self._one_head(word.strip(), "pin", run) for word in asked)
        kept = [pin for pin in pins if pin]
        if len(kept) > MAX_PINS:
            self.complaints.append(f"pin holds {len(kept)} heads; showing the first {MAX_PINS}")
        return tuple(kept[:MAX_PINS])

    def also(self, run: SavedRun, probe: str) -> tuple[str, ...]:
        """More probes for the timeline."""
        asked = [word.strip() for word in self.params.get("also", "").split(",") if word.strip()][
            : 4 * MAX_ALSO
        ]
        known = drawable(run)
        for name in dict.fromkeys(asked):
            if name not in known:
                self.complaints.append(
                    f"also={clean(name, limit=60)} is not a probe with one line to draw in {clean(run.name)}"
                )
        kept = [name for name in dict.fromkeys(asked) if name in known and name != probe]
        if len(kept) > MAX_ALSO:
            self.complaints.append(f"also holds {len(kept)} probes; showing the first {MAX_ALSO}")
        return tuple(kept[:MAX_ALSO])

    def word(self, word: str, known: tuple[str, ...]) -> str:
        """One of a few words, the first where it is none."""
        asked = self.params.get(word, known[0])
        if asked in known:
            return asked
        words = [name for name in known if name]
        instead = f"showing {known[0]}" if known[0] else "left out"
        self.complaints.append(f"{word}={clean(asked, limit=40)} is none of {', '.join(words)}; {instead}")
        return known[0]

    def number(self, word: str, kind: Callable[[str], Any]) -> Any:
        """A number, from 0 where it counts; None for none."""
        asked = self.params.get(word)
        if asked in (None, ""):
            return None
        try:
            value = kind(asked[:20])
        except ValueError:
            value = None
        if value is None or not math.isfinite(value) or (kind is int and value < 0):
            self.complaints.append(f"{word}={clean(asked, limit=40)} is not a number that fits; left out")
            return None
        return value


def _last(run: SavedRun) -> int:
    """The last step that holds numbers to believe."""
    usable = [s for s in run.measured_steps if s not in run.left_out] or list(run.measured_steps) or [0]
    return int(usable[-1])


def default_head(run: SavedRun, probe: str, metric: str, step: int) -> str:
    """The strongest head of the probe at the step; the first one where nothing was measured."""
    if not probe or not all(run.shape):
        return ""
    strongest = run.cube(probe, metric).strongest(step)
    return head_label(*(strongest or (0, 0)))


def drawable(run: SavedRun) -> tuple[str, ...]:
    """Probes whose main metric is one value per step, of every head or of the whole model, in catalogue order."""
    return tuple(p for (p, m), kind in run.kinds.items() if kind in ("head", "model") and m == main_metric(p))
