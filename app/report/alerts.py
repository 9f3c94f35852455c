"""Alerts shown before every number: what is missing, what is invalid, and what was not measured alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from byrote.checkpoints.lab.arms import unequal_data
from byrote.probes.findings import (
    absent_token_sets,
    imported,
    lacks_token_sets,
    left_out,
    missing_token_sets,
    text_losses,
)
from byrote.probes.registry import REGISTRY
from byrote.probes.results import Results
from byrote.probes.rules import PRIMARY, SECONDARY
from byrote.probes.wording import counted, listed, of_runs, probe_name, sentence_case, steps_in_words
from byrote.report.model import LEVELS, Alert, Level, Status
from byrote.report.report_inputs import Inputs

MAX_REASONS = 8
_STIMULUS = "stimulus "  # begins the name of a fact about one
_NAMED = {(probe, metric.partition(":")[0]) for probe, metric in (*PRIMARY, *SECONDARY)}
OF_A_RUN = ("members", "twins")  # of a lab series, which brings its own: they are meant to differ


def alerts_of(inputs: Inputs) -> tuple[Alert, ...]:
    """Every alert of the report, those that touch a comparison first, then the gravest; what several runs have in common is
    said once, and what was not measured and is no named measure is said in the appendix."""
    found = _merged(
        [run.run for run in inputs.results],
        (
            alert
            for part in (
                _empty,
                _imported,
                _gaps,
                _linted,
                _text_loss,
                _invalid,
                _missing_token_sets,
                _out_of_range,
                _mixed,
                _unequal_data,
                _refused,
                _unfinished,
            )
            for alert in part(inputs)
        ),
    )
    return tuple(sorted(found, key=lambda one: (not one.compares, LEVELS.index(one.level))))


def _merged(names: Sequence[str], alerts: Iterable[Alert]) -> tuple[Alert, ...]:
    """Alerts that begin with a run's name and say the same of several runs as one, with the runs it holds for."""
    found: dict[tuple[str, str, Level], list[str]] = {}
    for alert in alerts:
        name, colon, rest = alert.text.partition(": ")
        own = colon and name in names
        key = (rest if own else alert.text, alert.section, alert.level)
        found.setdefault(key, []).extend([name] if own else [])
    return tuple(
        Alert(_about(runs, len(names), text), section, level)
        for (text, section, level), runs in found.items()
    )


def _about(runs: Sequence[str], among: int, text: str) -> str:
    """An alert with the runs it holds for; without, where there is one run."""
    if runs and among > 1:
        text = f"{of_runs(runs, among)}: {text}"
    return sentence_case(text) if runs and among == 1 else text


def alerts_for(inputs: Inputs, sections: Sequence[str]) -> tuple[Alert, ...]:
    """The same for a page with fewer sections than a report: what has none of its own points at the first one."""
    return tuple(
        alert if alert.section in sections else replace(alert, section=sections[0])
        for alert in alerts_of(inputs)
    )


def status_of(inputs: Inputs, alerts: tuple[Alert, ...]) -> Status:
    """`failed` when nothing was measured, `partial` when anything is missing, else `complete`."""
    if not any(r.frame["valid"].astype(bool).any() for r in inputs.results):
        return "failed"
    return "partial" if any(alert.level == "gap" for alert in alerts) else "complete"


def invalid_groups(results: Results, *, but: pd.Series | None = None) -> list[dict[str, Any]]:
    """Observations that were not measured, grouped by probe, metric and reason; `but` says which to leave out."""
    invalid = ~results.frame["valid"].astype(bool)
    rows = results.frame[invalid if but is None else invalid & ~but]
    groups = []
    for (probe, metric, reason), mine in rows.groupby(["probe", "metric", "reason"], sort=True):
        steps = sorted({int(s) for s in mine["step"]})
        groups.append({"probe": probe, "metric": metric, "reason": reason, "n": len(mine), "steps": steps})
    return groups


def differing_facts(inputs: Inputs) -> dict[str, dict[str, str]]:
    """Provenance that differs between runs: what -> run -> value. Weights and paths are meant to differ."""
    facts = {r.run: _comparable_facts(r) for r in inputs.results}
    names = dict.fromkeys(name for mine in facts.values() for name in mine)
    table = {name: {run: mine.get(name, "not recorded") for run, mine in facts.items()} for name in names}
    return {name: values for name, values in table.items() if len(set(values.values())) > 1}


def _comparable_facts(results: Results) -> dict[str, str]:
    provenance = dict(results.meta.get("provenance") or {})
    versions = provenance.pop("versions", None) or {}
    provenance.pop("swap", None)  # how weights got into memory; proved to give the same bits
    facts = {str(k).replace("_", " "): str(v) for k, v in provenance.items()}
    facts |= {f"version of {name}": str(version) for name, version in versions.items()}
    own = OF_A_RUN if (results.meta.get("series") or {}).get("manifest") else ()
    for stimulus in results.meta.get("stimuli") or ():
        if stimulus.get("kind") in own:
            continue
        facts[f"{_STIMULUS}{stimulus.get('kind', '')}"] = str(stimulus.get("id", ""))
    for probe in results.meta.get("probes") or ():
        facts[f"version of probe {probe.get('name', '')}"] = str(probe.get("version", ""))
    return facts


def _linted(inputs: Inputs) -> Iterator[Alert]:
    """Steps that lint leaves out: shown, because they were measured, and marked as not valid."""
    for r in inputs.results:
        for text in left_out(r.left_out):
            yield Alert(
                f"{r.run}: {text}. What was measured there is drawn in grey and counts for nothing.",
                "errors",
                "warning",
            )


def _text_loss(inputs: Inputs) -> Iterator[Alert]:
    for r in inputs.results:
        for sentence, _, _ in text_losses(r):
            yield Alert(f"{r.run}: {sentence}.", "timeline", "warning")


def _empty(inputs: Inputs) -> Iterator[Alert]:
    for r in inputs.results:
        if r.frame.empty:
            yield Alert(f"{r.run}: nothing was measured at any step.", "errors")


def _imported(inputs: Inputs) -> Iterator[Alert]:
    for r in inputs.results:
        if r.imported:
            text = f"{r.run} was {imported(r)}. Nothing of it is tested, and how it was computed is its source's word."
            yield Alert(text, "provenance", "note")


def _gaps(inputs: Inputs) -> Iterator[Alert]:
    for r in inputs.results:
        if r.gaps:
            steps = sorted(int(g["step"]) for g in r.gaps if g.get("step") is not None)
            where = f" ({steps_in_words(steps)})" if steps else ""
            reason = str(r.gaps[0].get("reason") or "no reason was recorded")
            yield Alert(
                f"{r.run}: {counted(len(r.gaps), 'checkpoint')} could not be measured{where}: {reason}.",
                "errors",
            )


def _invalid(inputs: Inputs) -> Iterator[Alert]:
    """One alert per named measure and reason, its metrics together, and one for all the others, which the appendix has."""
    for r in inputs.results:
        merged: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        others: dict[str, None] = {}
        for group in invalid_groups(r, but=lacks_token_sets(r)):
            if (group["probe"], group["metric"].partition(":")[0]) in _NAMED:
                merged.setdefault((group["probe"], group["reason"], tuple(group["steps"])), []).append(group)
            else:
                others[probe_name(group["probe"])] = None
        for (probe, reason, steps), groups in list(merged.items())[:MAX_REASONS]:
            metrics = ", ".join(probe_name(g["metric"]) for g in groups)
            count = sum(g["n"] for g in groups)
            yield Alert(
                f"{r.run}: {counted(count, 'value')} of {probe_name(probe)} ({metrics}) not measured, "
                f"{steps_in_words(list(steps))}: {reason or 'no reason was recorded'}.",
                "errors",
                "note",
            )
        if len(merged) > MAX_REASONS:
            more = len(merged) - MAX_REASONS
            yield Alert(f"{r.run}: {more} more kinds of value were not measured.", "errors", "note")
        if others:
            names = listed(list(others), most=MAX_REASONS)
            yield Alert(
                f"{r.run}: some values of {names} were not measured; the appendix says which, and why.",
                "errors",
                "note",
            )


def _missing_token_sets(inputs: Inputs) -> Iterator[Alert]:
    for r in inputs.results:
        if missing := missing_token_sets(r):
            yield Alert(f"{r.run}: {missing}.", "errors", "note")


def _out_of_range(inputs: Inputs) -> Iterator[Alert]:
    for r in inputs.results:
        valid = r.frame[r.frame["valid"].astype(bool)]
        for (probe, metric), rows in valid.groupby(["probe", "metric"], sort=True):
            info = REGISTRY.get(probe)
            if info is None or info.range is None or info.unit_of(metric) != info.unit:
                continue
            outside = rows[(rows["value"] < info.range[0] - 1e-6) | (rows["value"] > info.range[1] + 1e-6)]
            if len(outside):
                limits = f"[{info.range[0]:g}, {info.range[1]:g}]"
                text = f"{r.run}: {len(outside):,} values of {probe_name(probe)} lie outside their range {limits}."
                yield Alert(text, "methods", "warning")


def _mixed(inputs: Inputs) -> Iterator[Alert]:
    differing = differing_facts(inputs)
    shown = [name for name in differing if name.startswith(_STIMULUS)]
    if len(shown) > 1:  # of one cause, such as other contexts or vocabularies: the first stands for all
        kinds = listed([name.removeprefix(_STIMULUS) for name in shown], most=MAX_REASONS)
        differing = {f"{len(shown)} stimuli ({kinds})": differing[shown[0]]} | {
            name: values for name, values in differing.items() if name not in shown
        }
    for name, values in list(differing.items())[:MAX_REASONS]:
        runs_of: dict[str, list[str]] = {}
        for run, value in values.items():
            runs_of.setdefault(value, []).append(run)
        per_run = "; ".join(f"{of_runs(runs, len(values))}: {value}" for value, runs in runs_of.items())
        verb = "differ" if name[0].isdigit() else "differs"
        yield Alert(
            f"The runs were not measured alike. {sentence_case(name)} {verb}: {per_run}.",
            "provenance",
            "warning",
        )


def _unequal_data(inputs: Inputs) -> Iterator[Alert]:
    """Runs that differ from their baseline in how much different data they saw, not in repeats alone."""
    arms = {r.run: r.arm for r in inputs.results}
    for comparison in inputs.comparisons:
        if text := unequal_data(arms.get(comparison.a, {}), arms.get(comparison.b, {})):
            yield Alert(f"{comparison.b} against {comparison.a}: {text}.", "comparison", "note")


def _refused(inputs: Inputs) -> Iterator[Alert]:
    for text in inputs.refused:
        yield Alert(f"Not compared: {text}", "comparison", "warning")
    for comparison in inputs.comparisons:
        for text in comparison.notes:
            yield Alert(f"{comparison.b} against {comparison.a}: {text}.", "comparison", "note")


def _unfinished(inputs: Inputs) -> Iterator[Alert]:
    for r in inputs.results:
        status = r.meta.get("status", "complete")
        if status not in ("complete", "partial"):
            yield Alert(f"{r.run}: the sweep's status is “{status}”; running it again finishes it.", "errors")
        refused, given = r.meta.get("refused_stimuli") or {}, absent_token_sets(r)
        for kind, reason in sorted((k, v) for k, v in refused.items() if k not in given):
            yield Alert(f"{r.run}: the stimulus {kind} could not be made: {reason}.", "methods")
        for note in r.meta.get("notes") or ():
            yield Alert(f"{r.run}: {note.rstrip('.')}.", "provenance", "note")
