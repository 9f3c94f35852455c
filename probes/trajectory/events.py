"""The event table: every event of a run, tidy. No torch.

Rows, in this order: the onset of the induction circuit and a loss of many of its heads; since when the strongest heads stand
above their nulls; onsets, peak and decay of every number about the whole model that has a direction and of the strongest heads; phase windows; sure changes among the top heads; who moves first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from byrote.interp.axes import head_label, parse_head
from byrote.probes.registry import REGISTRY, followed
from byrote.probes.results.curve import Curve, Head, paired
from byrote.probes.results.source import Metric
from byrote.probes.results.table import Table
from byrote.probes.rules import is_called
from byrote.probes.trajectory.appearance import appeared
from byrote.probes.trajectory.crossing import Crossing, Rise, crossings, rise, threshold_crossing
from byrote.probes.trajectory.shape import Decay, Peak, decay, lead_lag, peak, phase_window
from byrote.probes.trajectory.turnover import turnover_of
from byrote.probes.trajectory.verdict import onset, verdict_table
from byrote.probes.wording import as_html, between_steps, visible, wider_interval

Found = tuple[dict[str, Any], str]  # cells and words of an event; no cells, and why there is none
_ENDS = frozenset({"lo", "hi", "value_lo", "value_hi", "lost_lo", "lost_hi"})  # of intervals
_NO_INTERVAL = " (imported, no samples: no interval)"
_SHOWN = 8  # heads without the event, each with its reason
ONSET_COLUMNS = [
    "head", "between_step_lo", "between_step_hi", "lo", "hi", "value", "n", "method",
]  # fmt: skip
PEAK_COLUMNS = [
    "head", "step", "step_lo", "step_hi", "value", "lo", "hi", "lost", "lost_lo", "lost_hi", "n", "method",
]  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class EventTable:
    """Events of one metric, one row per head, the earliest first.

    Attributes:
        title: what was requested.
        table: one row per head that has the event.
        text: the findings in words, and why others have none.
    """

    title: str
    table: pd.DataFrame
    text: str

    @property
    def found(self) -> bool:
        """Whether any head has it."""
        return not self.table.empty

    def __repr__(self) -> str:
        return "\n".join(visible(line) for line in (self.title, *self.text.split("\n")))

    def _repr_html_(self) -> str:
        """For notebooks; offline, everything escaped."""
        table = self.table.to_html(index=False, float_format="%.3g", na_rep="", escape=True, border=0)
        html_text = "<br>".join(as_html(line) for line in self.text.split("\n"))
        return f"<p><b>{as_html(self.title)}</b></p>{table if self.found else ''}<p>{html_text}</p>"


def onsets(
    curves: Mapping[Head, Curve], threshold: float | None, *, frac: float = 0.5, seed: int = 0
) -> EventTable:
    """When each curve reached a fixed level, or had made a share of its own rise.

    Args:
        curves: of one metric; tests are corrected for how many there are.
        threshold: the level, in the metric's unit; None uses `frac`.
        frac: share of the rise.
        seed: of the resampling.
    """

    def one(curve: Curve) -> Found:
        if threshold is not None:
            reached = threshold_crossing(curve, threshold, seed=seed)
            crossed, why_not = reached.crossing, reached.why_not
        else:
            found = rise(curve)
            why_not = found.why_not
            (crossed,) = crossings(curve, fracs=(frac,), seed=seed, found=found) if found.within else (None,)
        return ({}, why_not) if crossed is None else (_onset_cells(crossed), _reached(crossed, curve))

    level = f"at {threshold:g}" if threshold is not None else f"at {frac:.0%} of its rise"
    return _event_table(curves, f"onset {level}", one, ONSET_COLUMNS)


def peaks(curves: Mapping[Head, Curve], *, seed: int = 0) -> EventTable:
    """The best step of every curve that rises, and the share lost since where any is lost significantly.

    Args:
        curves: of one metric; tests are corrected for how many there are.
        seed: of the resampling.
    """

    def one(curve: Curve) -> Found:
        found = rise(curve)
        best = peak(curve, found=found)
        if best is None:
            return {}, found.why_not
        cells = {"step": best.step, "step_lo": best.steps[0], "step_hi": best.steps[1], "value": best.value}
        cells |= {"lo": best.lo, "hi": best.hi}
        lost = decay(curve, seed=seed, found=found)
        if lost is None:
            return cells, f"{_best(best)}; no sure loss since"
        cells |= {"lost": lost.share, "lost_lo": lost.lo, "lost_hi": lost.hi}
        return cells, f"{_best(best)}; {_share(lost, curve)} lost by the last step"

    return _event_table(curves, "peak", one, PEAK_COLUMNS)


def _event_table(
    curves: Mapping[Head, Curve],
    what: str,
    one: Callable[[Curve], Found],
    columns: list[str],
) -> EventTable:
    rows, sentences, without = [], [], []
    for curve in curves.values():
        curve = replace(curve, among=len(curves))
        cells, words = one(curve)
        name = curve.label.split()[-1] if curve.layer is not None else "whole model"
        if not cells:
            without.append(f"{name}: none: {words}")
            continue
        if curve.imported:
            cells, words = cells | dict.fromkeys(_ENDS & cells.keys(), np.nan), f"{words}{_NO_INTERVAL}"
        row = {"head": name} | cells | {"n": curve.n, "method": curve.method}
        rows.append(row)
        sentences.append((_when(row), f"{name}: {words}"))
    table = pd.DataFrame(rows, columns=columns)
    steps = [name for name in columns if name.startswith(("between_step", "step_"))]
    table = table.astype(dict.fromkeys(steps, "Int64"))
    order = np.argsort([_when(row) for row in rows], kind="stable")
    first = next(iter(curves.values()))
    name = first.probe if first.metric == "score" else f"{first.probe} {first.metric}"
    lines = [words for _, words in sorted(sentences, key=lambda pair: pair[0])] + without[:_SHOWN]
    if len(without) > _SHOWN:
        lines.append(f"and {len(without) - _SHOWN} more without one")
    text = "\n".join(lines)
    return EventTable(f"{what}: {name} of {first.run}", table.iloc[order].reset_index(drop=True), text)


def _onset_cells(found: Crossing) -> dict[str, Any]:
    ends = {"lo": found.lo, "hi": found.hi}
    cells = {name: np.nan if end is None else end for name, end in ends.items()}
    return cells | {
        "between_step_lo": found.bracket[0], "between_step_hi": found.bracket[1], "value": found.value
    }  # fmt: skip


def _when(row: Mapping[str, Any]) -> float:
    step = row.get("step", np.nan)
    return float(row.get("between_step_hi", 0)) if pd.isna(step) else float(step)


def _reached(crossing: Crossing, curve: Curve) -> str:
    """Between which measured steps a level was reached, and the 95% interval where that is wider."""
    before, at = crossing.bracket
    if before is None:
        return f"by the first measured step ({at:,})"
    wider = "" if curve.imported else wider_interval((before, at), crossing.lo, crossing.hi)
    return between_steps(before, at) + wider


def _best(found: Peak) -> str:
    lo, hi = found.steps
    span = f"somewhere in {lo:,} to {'the end' if hi is None else f'{hi:,}'}"
    return f"best at step {found.step:,} ({span}): {_number(found.value)}"


def _share(lost: Decay, curve: Curve) -> str:
    around = "" if curve.imported else f" [{lost.lo:.0%}, {lost.hi:.0%}]"
    return f"{lost.share:.0%}{around} of its rise"


EVENT_COLUMNS = [
    "event", "probe", "metric", "layer", "head", "step_lo", "step_hi", "step", "lo", "hi", "tokens", "value", "value_lo",
    "value_hi", "n", "method", "text",
]  # fmt: skip
PHASE_METRICS = (("icl_score", "score"), ("repeat_loss", "difference"))
# Prefix matching as seen on blocks of varying length: a fixed offset, which comes before any matching, is not taken for it.
_MATCHING = ("prefix_matching", "score@jittered_repeat")
ORDERED = ((("previous_token", "score"), _MATCHING), (_MATCHING, ("repeat_loss", "difference")))
ORDERED_AT = (0.1, 0.5)
N_HEADS = 4
_STEPS = ("step_lo", "step_hi", "tokens", "layer", "head")
_NUMBERS = ("step", "lo", "hi", "value", "value_lo", "value_hi")


def events(results: Table, *, seed: int = 0) -> pd.DataFrame:
    """Every event of a run.

    Args:
        results: of one run; an empty frame where fewer than two steps were measured.
        seed: of the resampling.

    Returns:
        One row per event, columns EVENT_COLUMNS. `step_lo` and `step_hi` are the measured steps it lies between and
        `lo`, `hi` its 95% interval, never narrower (NaN where open: before the first or after the last measured step);
        `step` is the measured step of a peak or a decay, and NaN for an onset: between two measured steps nothing was
        seen; `tokens` seen at `step`, or at `step_hi`; `value` what was measured there (a level, a peak, the
        share lost, a slope, a similarity, a lag in ln(1 + step)) with its interval; `text` the finding in words. An
        `onset` row without a step says that there was none, and why.
    """

    def make() -> pd.DataFrame:
        return _table(_all(results, seed) if len(results.usable_steps) > 1 else [])

    return results.cached(("events", seed), make, lambda table: int(table.memory_usage().sum())).copy()


def _all(results: Table, seed: int) -> list[dict[str, Any]]:
    follow = (*followed(), *(results.head_probes if results.imported else ()))
    strongest = {probe: _strongest(results, probe) for probe in dict.fromkeys(follow)}
    whole_model, phases = list(_whole_model(results)), list(_phase_metrics())
    curves = _with_sequences(results, _needed(strongest, whole_model, phases))
    heads = {
        probe: [replace(curves[probe, "score"][_head_of(c)], among=c.among) for c in found]
        for probe, found in strongest.items()
    }
    rows = [*_circuit(results)]
    for name in whole_model:
        for one in curves[name].values():
            rows += _of_curve(one, seed)
    for found in heads.values():
        for i, one in enumerate(found):
            rows += _of_curve(one, seed, quiet=i > 0)
    for name in phases:
        rows += _phases(curves[name].values(), seed)
    matching = {key: curve for key, curve in curves["prefix_matching", "score"].items() if key is not None}
    rows += [*_turnovers(results, matching, seed), *_orders(curves, heads, seed)]
    return rows


def _head_of(curve: Curve) -> Head:
    return None if curve.layer is None or curve.head is None else (curve.layer, curve.head)


def _needed(
    strongest: Mapping[str, list[Curve]], whole_model: Iterable[Metric], phases: Iterable[Metric]
) -> dict[Metric, set[Head] | None]:
    """(probe, metric) -> the heads whose curves the events are read from; None is all of them."""
    needed: dict[Metric, set[Head] | None] = {
        (probe, "score"): {_head_of(c) for c in found} for probe, found in strongest.items()
    }
    for name in dict.fromkeys(name for pair in ORDERED for name in pair):
        first = {_head_of(c) for c in strongest.get(name[0], [])[:1]}
        needed[name] = {*(needed.get(name) or ()), *first} if name[0] in strongest else None
    needed |= dict.fromkeys([*whole_model, *phases, ("prefix_matching", "score")])
    return needed


def _with_sequences(
    results: Table, wanted: Mapping[Metric, Collection[Head] | None]
) -> dict[Metric, dict[Head, Curve]]:
    """The curves of several metrics with their per-sequence values; every unit is read once for all of them."""
    samples: dict[Metric, dict[tuple[int, Head], Any]] = {name: {} for name in wanted}
    for name, place, values in results.read_samples(wanted):
        heads = wanted[name]
        if heads is None:
            samples[name][place] = values
        elif place[1] in heads:
            samples[name][place] = values.copy()  # without those of other heads in memory
    found: dict[Metric, dict[Head, Curve]] = {}
    for name, heads in wanted.items():
        own = samples.pop(name)
        found[name] = {
            head: replace(curve, samples=paired([own.get((step, head)) for step in curve.steps.tolist()]))
            for head, curve in results.curves(*name, sequences=False).items()
            if heads is None or head in heads
        }
    return found


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=EVENT_COLUMNS)
    frame = frame.astype(dict.fromkeys(_STEPS, "Int64") | dict.fromkeys(_NUMBERS, "float64"))
    return frame.astype({"n": "int64"})


def _circuit(results: Table) -> Iterator[dict[str, Any]]:
    table = verdict_table(results)
    if table.empty:
        return
    found = onset(results)
    bracket = found.bracket or (None, None)
    n = results.rows("induction", "prefix_excess")["n"]
    yield _row(
        "induction_onset",
        ("induction", "verdict"),
        head=_parsed(found.head),
        step_lo=bracket[0],
        step_hi=bracket[1],
        tokens=(found.tokens or (None, None))[1],
        n=int(n.max()) if len(n) else 0,
        method="first verdict that holds at two measured steps",
        text=found.text,
    )
    if found.loss is not None:
        yield _row(
            "induction_loss", ("induction", "verdict"), step_lo=found.loss.bracket[0], step_hi=found.loss.bracket[1],
            tokens=results.tokens[found.loss.bracket[1]], value=len(found.loss.lost) / found.loss.before,
            n=int(n.max()) if len(n) else 0, method="heads no longer called whose intervals lie below those before",
            text=f"{found.loss.words}; significantly lost: {', '.join(found.loss.lost)}",
        )  # fmt: skip


def _whole_model(results: Table) -> Iterator[Metric]:
    """Numbers about the whole model that have a direction; the nulls and their parts have none."""
    kinds = results.kinds
    for info in REGISTRY.values():
        if info.kind != "model":
            continue
        for metric in info.metrics:
            single = kinds.get((info.name, metric)) == "model"
            has_better = results.imported or info.better_of(metric) is not None
            if single and has_better and "@" not in metric:
                yield info.name, metric


def _strongest(results: Table, probe: str) -> list[Curve]:
    """The heads that stand highest at any step, strongest first: a head that rose and was lost is one of them.

    Their per-sequence values are not read yet.
    """
    found = [c for key, c in results.curves(probe, sequences=False).items() if key is not None]
    strongest = sorted(found, key=lambda c: (-float(c.value.max()), c.layer, c.head))[:N_HEADS]
    return [replace(c, among=len(found)) for c in strongest]


def _of_curve(curve: Curve, seed: int, *, quiet: bool = False) -> Iterator[dict[str, Any]]:
    """Since when above the null, onsets, peak and decay; `quiet` leaves out the row that says there was no onset."""
    found = rise(curve)
    since = (
        appeared(curve, REGISTRY[curve.probe])
        if curve.layer is not None and curve.probe in REGISTRY
        else None
    )
    if since is not None:
        yield _of(
            "above_null", curve, step_lo=since[0], step_hi=since[1], value=curve.chance,
            text=f"{curve.label} is significantly above its null ({_number(curve.chance)}): {_since(since)}",
        )  # fmt: skip
    if not found.within and not quiet:
        yield _of("onset", curve, text=f"{curve.label}: no onset: {found.why_not}{_stands(curve)}")
    if not found.found:
        return
    for crossing in crossings(curve, seed=seed, found=found) if found.within else ():
        yield _of_crossing(curve, found, crossing)
    lost, best = decay(curve, seed=seed, found=found), peak(curve, found=found)
    if best is not None and lost is not None:
        yield _of(
            "peak", curve, step=best.step, step_lo=best.steps[0], step_hi=best.steps[1], lo=best.steps[0],
            hi=best.steps[1], value=best.value, value_lo=best.lo, value_hi=best.hi,
            text=f"{curve.label} is {_best(best)}",
        )  # fmt: skip
        yield _of(
            "decay", curve, step=lost.last_step, step_lo=lost.peak_step, step_hi=lost.last_step, value=lost.share,
            value_lo=lost.lo, value_hi=lost.hi,
            text=f"{curve.label} has lost {_share(lost, curve)} by step {lost.last_step:,}",
        )  # fmt: skip


def _since(bracket: tuple[int | None, int]) -> str:
    before, at = bracket
    return (
        f"from the first measured step ({at:,}) on"
        if before is None
        else f"first {between_steps(before, at)}"
    )


def _stands(curve: Curve) -> str:
    """Where a curve without onset stands."""
    first, last = (_number(float(curve.value[i])) for i in (0, -1))
    return f"; at {last}" if first == last else f"; from {first} to {last}"


def _of_crossing(curve: Curve, found: Rise, crossing: Crossing) -> dict[str, Any]:
    text = f"{curve.label} had made {crossing.frac:.0%} of its change {_reached(crossing, curve)}"
    if crossing.bracket[0] is not None:
        since = f"{_number(found.base)}{' (chance)' if found.from_chance else ''}"
        text += f"; from {since} to {_number(found.top)}"
    return _of(
        f"onset_{crossing.frac * 100:.0f}", curve, step_lo=crossing.bracket[0],
        step_hi=crossing.bracket[1], lo=crossing.lo, hi=crossing.hi, value=crossing.value, text=text,
    )  # fmt: skip


def _phase_metrics() -> Iterator[Metric]:
    for probe, metric in PHASE_METRICS:
        if probe in REGISTRY and metric in REGISTRY[probe].metrics:
            yield probe, metric


def _phases(curves: Iterable[Curve], seed: int) -> Iterator[dict[str, Any]]:
    for curve in curves:
        found = phase_window(curve, seed=seed)
        if found is not None:
            yield _of(
                "phase_window", curve, step_lo=found.bracket[0], step_hi=found.bracket[1], lo=found.lo,
                hi=found.hi, value=found.slope, value_lo=found.slope_lo, value_hi=found.slope_hi,
                text=f"{curve.label} changes fastest between steps {found.bracket[0]:,} and {found.bracket[1]:,}"
                f"{'' if curve.imported else f' [{found.lo:,} to {found.hi:,}]'}: {_number(found.slope)} {curve.unit} per e-fold of steps",
            )  # fmt: skip


def _turnovers(results: Table, heads: Mapping[tuple[int, int], Curve], seed: int) -> Iterator[dict[str, Any]]:
    if not heads:
        return
    table = verdict_table(results)
    called = int(is_called(table.iloc[-1]).sum()) if not table.empty else 0
    for row in turnover_of(heads, k=called or N_HEADS, seed=seed).itertuples(index=False):
        if row.sure:
            yield _row(
                "turnover", ("prefix_matching", "score"), step_lo=row.step_a, step_hi=row.step_b,
                tokens=results.tokens[row.step_b], value=row.jaccard, value_lo=row.lo, value_hi=row.hi, n=row.n,
                method="Jaccard similarity of the top heads, bootstrap over sequences",
                text=f"between steps {row.step_a:,} and {row.step_b:,} {row.left} left the top {row.k} heads and "
                f"{row.entered} entered; total mass over all heads {row.mass_a:.2f} to {row.mass_b:.2f}",
            )  # fmt: skip


def _orders(
    curves: Mapping[Metric, Mapping[Head, Curve]], heads: Mapping[str, list[Curve]], seed: int
) -> Iterator[dict[str, Any]]:
    for pair in ORDERED:
        one, other = (_representative(curves[name], heads, name[0]) for name in pair)
        if one is None or other is None:
            continue
        for frac in ORDERED_AT:
            found = lead_lag(one, other, frac=frac, seed=seed)
            if np.isnan(found.lag):
                continue
            yield _row(
                "lead_lag", pair[0], head=(one.layer, one.head), value=found.lag, value_lo=found.lo,
                value_hi=found.hi, n=min(one.n, other.n),
                method=f"lag of {other.label} in ln(1 + step) at {frac:.0%}, brackets and {one.method}",
                text=found.text,
            )  # fmt: skip


def _representative(
    found: Mapping[Head, Curve], heads: Mapping[str, list[Curve]], probe: str
) -> Curve | None:
    """The strongest head of a head probe, or the model's own curve; None where it was not measured."""
    of_heads = heads.get(probe, [])
    if not of_heads:
        return next(iter(found.values()), None) if probe not in heads else None
    key = _head_of(of_heads[0])
    return replace(found[key], among=of_heads[0].among) if key in found else None


def _of(event: str, curve: Curve, **cells: Any) -> dict[str, Any]:
    where = cells.get("step") if cells.get("step") is not None else cells.get("step_hi")
    known = np.isfinite(curve.tokens)
    tokens = (
        round(float(np.interp(where, curve.steps[known], curve.tokens[known])))
        if where is not None and known.any()
        else None
    )
    if curve.imported:
        cells |= dict.fromkeys(_ENDS)
        cells["text"] += _NO_INTERVAL
    return _row(
        event, (curve.probe, curve.metric), head=(curve.layer, curve.head), tokens=tokens, n=curve.n,
        method=curve.method, **cells,
    )  # fmt: skip


def _row(
    event: str, of: tuple[str, str], *, head: tuple[int | None, int | None] = (None, None), **cells: Any
) -> dict[str, Any]:
    empty = dict.fromkeys(EVENT_COLUMNS)
    return (
        empty | {"event": event, "probe": of[0], "metric": of[1], "layer": head[0], "head": head[1]} | cells
    )


def _parsed(label: str) -> tuple[int | None, int | None]:
    return parse_head(label) if label else (None, None)


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")  # a real minus, as everywhere


def event_head(row: Any) -> str:
    """Label of the head an event is about, "" for the whole model."""
    return "" if pd.isna(row.layer) else head_label(int(row.layer), int(row.head))
