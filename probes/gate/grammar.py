"""A gate: a file of rules that results have to satisfy, for scripts, CI and runs that are stopped by it.

    undecided = "fail"        # what a rule that is neither met nor broken counts as: "fail" (if left out) or "pass"

    [[expect]]                # a number
    probe = "induction"       # required
    metric = "verdict"        # the probe's main metric if left out
    head = "any"              # "any", "all" or "L1H0"; left out for numbers about the whole model
    step = "last"             # as `byrote show --step`; last if left out; "every" is each measured step
    from_step = 1000          # with step = "every", which it stands for: earlier steps are not looked at
    run = "unique"            # every run on the command line if left out
    min = 1                   # met when the interval's lower end reaches it, broken when its upper end stays below
    max = 1                   # met when the interval's upper end stays within it; one of the two is required

    [[expect]]                # when something appears
    probe = "induction"       # the first lasting induction head, or a number that rises
    onset_before = 2000       # met when it is clearly there by this step, broken when it clearly was not
    onset_after = 200         # the other way round; one of the two is required
    level = 0.4               # what has to be reached; half of its own rise if left out; not for the induction verdict

    [[expect]]                # a change against a baseline, on the same sequences
    probe = "held_out_loss"
    baseline = "unique"       # a run on the command line, or a results folder, from the folder of this file
    change = "percent"        # of the baseline's value, or the metric's own unit, such as "nats"
    max = 5                   # and min, as above

    [[expect]]                # what `byrote lint` found
    lint = "error"            # no fact of this severity or above: "error" or "warning"
    allow = ["missing_steps"] # kinds of facts that are let through

    [[expect]]                # any rule above, for the runs of an arm
    group = "repeated"        # the arm that runs declare, or a pattern of names of runs
    seeds = 4                 # how many of the runs have to satisfy it: "all" (if left out), "any" or a number; or "mean"
    probe = "extraction"
    max = 0.01
    undecided = "pass"        # of this rule alone
    name = "nothing leaks"    # how the rule is called where its outcome is shown

The interval decides, not the value: a rule is met when the result is clearly inside, broken when it is clearly outside, and
undecided otherwise, also where the number was not measured. Verdicts have intervals without width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.lint import KINDS as LINT_KINDS
from byrote.checkpoints.safe_read import FileRefused, read_text, read_toml
from byrote.probes.spec import ProbeInfo
from byrote.probes.wording import clean

Kind = Literal["value", "onset", "change", "lint"]
MAX_WHOLE = 1 << 62
MAX_BYTES = 1 << 20  # some ten thousand rules
MAX_RULES = 10_000
EVERY = "every"
PERCENT = "percent"
SEVERITIES = ("error", "warning")  # of lint facts that a rule may name
_NUMBER = (int, float)
_ANY: Mapping[str, Any] = {"run": str, "group": str, "seeds": (str, int), "undecided": str, "name": str}
_MEASURED: Mapping[str, Any] = {**_ANY, "probe": str, "metric": str, "head": str}
_BOUNDS: Mapping[str, Any] = {"min": _NUMBER, "max": _NUMBER}
_STEPS: Mapping[str, Any] = {"step": (str, int), "from_step": int}
KEYS: Mapping[Kind, Mapping[str, Any]] = {
    "value": {**_MEASURED, **_STEPS, **_BOUNDS},
    "onset": {**_MEASURED, "onset_before": int, "onset_after": int, "level": _NUMBER},
    "change": {**_MEASURED, **_STEPS, **_BOUNDS, "baseline": str, "change": str},
    "lint": {**_ANY, "lint": str, "allow": list},
}
_TELLS: Mapping[str, Kind] = {
    "lint": "lint",
    "allow": "lint",
    "baseline": "change",
    "change": "change",
    "onset_before": "onset",
    "onset_after": "onset",
    "level": "onset",
}  # keys by which a kind of rule is known
_TABLE = re.compile(r"\s*\[\[\s*expect\s*\]\]")


@dataclass(frozen=True)
class Rule:
    """One `[[expect]]` of a gate.

    Attributes:
        kind: "value", "onset", "change" or "lint".
        where: such as ``check 2 of gate.toml``.
        line: of the file where it begins, from 1; 0 where that is not known.
        name: given to it; "" for none.
        run: the one run that it is about; None is every run.
        group: the arm, or pattern of run names, whose runs it counts over; None is each run by itself.
        seeds: "all", "any", "mean", or how many runs of the group have to satisfy it.
        undecided: whether an undecided outcome counts as "fail" or "pass".
        probe, metric, head: the number; "" for lint rules. head is "any", "all", a label such as L1H0, or None.
        step: as `byrote show --step`, or "every".
        from_step: the first step that "every" looks at.
        min, max: bounds of the value or of the change; infinite where there is none.
        onset_before, onset_after: bounds of an onset, in optimiser steps.
        level: what has to be reached at the onset; None is half of the rise, or the verdict.
        baseline: a run or a results folder; "" for none.
        change: "percent", or the unit of the metric.
        lint: the lowest severity that breaks the rule.
        allow: kinds of lint facts that do not.
    """

    kind: Kind
    where: str
    line: int = 0
    name: str = ""
    run: str | None = None
    group: str | None = None
    seeds: str | int = "all"
    undecided: str = "fail"
    probe: str = ""
    metric: str = ""
    head: str | None = None
    step: str = "last"
    from_step: int = 0
    min: float = -math.inf
    max: float = math.inf
    onset_before: int | None = None
    onset_after: int | None = None
    level: float | None = None
    baseline: str = ""
    change: str = ""
    lint: str = ""
    allow: tuple[str, ...] = ()

    @property
    def stops(self) -> bool:
        """Whether it can break before the run has ended: others are about the last step, which is known at the end."""
        return (self.kind != "value" and self.kind != "change") or self.step == EVERY or self.step.isdigit()

    @property
    def bounds(self) -> str:
        """``at least 1``, ``at most 0.5``, or ``0.2 to 0.5``."""
        if math.isinf(self.max):
            return f"at least {self.min:g}"
        return f"at most {self.max:g}" if math.isinf(self.min) else f"{self.min:g} to {self.max:g}"


@dataclass(frozen=True)
class Gate:
    """The rules of a file.

    Attributes:
        path: the file; None where they were given otherwise.
        rules: in its order.
    """

    path: Path | None
    rules: tuple[Rule, ...]

    @property
    def folder(self) -> Path:
        """What relative places in it start from."""
        return Path() if self.path is None else self.path.parent


def read_gate(path: str | Path) -> Gate:
    """The rules of a file.

    Raises:
        ByroteError: the file is not there, is no TOML, or has a rule that cannot be understood.
    """
    path = Path(path)
    try:
        data = read_toml(path, max_bytes=MAX_BYTES, follow_links=True)
        text = read_text(path, max_bytes=MAX_BYTES, follow_links=True)
    except FileNotFoundError:
        raise ByroteError(f"{path} does not exist", help="give a file of [[expect]] tables") from None
    except FileRefused as error:
        raise ByroteError(error.message, help="give a file of [[expect]] tables") from None
    except OSError as error:
        raise ByroteError(f"{path} cannot be read as TOML ({error})", help="fix the file") from None
    lines = [i for i, line in enumerate(text.splitlines(), 1) if _TABLE.match(line)]
    return gate_of(data, path, lines=lines)


def gate_of(data: Mapping[str, Any], path: Path | None = None, *, lines: list[int] | None = None) -> Gate:
    """The rules of what a gate's TOML holds.

    Args:
        data: with the key "expect", and "undecided".
        path: the file it is from.
        lines: where in the file its rules begin.

    Raises:
        ByroteError: a rule that cannot be understood.
    """
    file = "the rules" if path is None else str(path)
    entries, undecided = data.get("expect"), data.get("undecided", "fail")
    if not isinstance(entries, list) or not entries or set(data) - {"expect", "undecided"}:
        raise ByroteError(f"{file} must contain only [[expect]] tables", help="see docs/gate.md")
    if len(entries) > MAX_RULES:
        raise ByroteError(f"{file} has {len(entries):,} rules", help=f"at most {MAX_RULES:,} are read")
    _one_of(undecided, ("fail", "pass"), "undecided", file)
    places = lines if lines is not None and len(lines) == len(entries) else [0] * len(entries)
    return Gate(
        path,
        tuple(
            _rule(entry, f"check {i} of {file}", line, undecided)
            for i, (entry, line) in enumerate(zip(entries, places, strict=True), 1)
        ),
    )


def _rule(entry: Any, where: str, line: int, undecided: str) -> Rule:
    if not isinstance(entry, dict):
        raise ByroteError(f"{where} is not a table", help="write [[expect]] above it")
    kind: Kind = next((_TELLS[key] for key in _TELLS if key in entry), "value")
    _checked_keys(entry, kind, where)
    given: dict[str, Any] = {"kind": kind, "where": where, "line": line, "undecided": undecided, **entry}
    given["step"] = str(entry.get("step", EVERY if "from_step" in entry else "last"))
    _one_of(given["undecided"], ("fail", "pass"), "undecided", where)
    if "from_step" in entry and given["step"] != EVERY:
        raise ByroteError(
            f"{where} has from_step, which applies only to a rule for every step",
            help='leave out step, or write step = "every"',
        )
    if "run" in entry and "group" in entry:
        raise ByroteError(f"{where} names a run and a group", help="name one of them")
    if kind == "lint":
        _one_of(entry.get("lint", "error"), SEVERITIES, "lint", where)
        for one in entry.get("allow", []):
            _one_of(one, tuple(LINT_KINDS), "allow", where)
        given |= {"lint": entry.get("lint", "error"), "allow": tuple(entry.get("allow", ()))}
    else:
        given |= _metric(entry, kind, where)
    given |= {"seeds": _seeds(entry, kind, where)}
    given |= {key: float(entry[key]) for key in ("min", "max", "level") if key in entry}
    return Rule(**given)


def _checked_keys(entry: Mapping[str, Any], kind: Kind, where: str) -> None:
    known = KEYS[kind]
    for key, value in entry.items():
        if key not in known:
            other = next((name for name, keys in KEYS.items() if key in keys), None)
            help = (
                did_you_mean(key, known) if other is None else f"a rule with {_why(entry, kind)} has no {key}"
            )
            raise ByroteError(f"{where} has a key {clean(key, limit=40)!r}", help=help)
        if isinstance(value, int) and abs(value) > MAX_WHOLE:
            raise ByroteError(
                f"{where} has {key} = a number of {value.bit_length():,} bits", help="give a smaller one"
            )
        fits = isinstance(value, known[key]) and not isinstance(value, bool)
        if not fits or (isinstance(value, float) and not math.isfinite(value)):
            raise ByroteError(
                f"{where} has {key} = {clean(repr(value))}", help="numbers are bare, names are in quotes"
            )
        if key in ("from_step", "onset_before", "onset_after") and value < 0:
            raise ByroteError(f"{where} has {key} = {value}", help="steps are counted from 0")


def _why(entry: Mapping[str, Any], kind: Kind) -> str:
    """The key that makes a rule one of its kind."""
    return next((key for key in _TELLS if key in entry and _TELLS[key] == kind), "a probe")


def _metric(entry: Mapping[str, Any], kind: Kind, where: str) -> dict[str, Any]:
    """Probe and metric, by the catalogue, and what the kind of rule needs of them."""
    from byrote.probes.registry import lookup

    if "probe" not in entry:
        raise ByroteError(f"{where} names no probe", help='add probe = "induction"')
    info = lookup(entry["probe"])
    metric = entry.get("metric", info.main_metric)
    if metric not in info.metrics:
        raise ByroteError(
            f"{where}: {info.name} has no metric {metric!r}", help=did_you_mean(metric, info.metrics)
        )
    if kind in ("value", "change") and not {"min", "max"} & set(entry):
        raise ByroteError(f"{where} has neither min nor max", help="add one: min = 0.5")
    if kind in ("value", "change") and entry.get("min", -math.inf) > entry.get("max", math.inf):
        raise ByroteError(f"{where} has a min above its max", help="exchange them")
    if kind == "onset" and not {"onset_before", "onset_after"} & set(entry):
        raise ByroteError(f"{where} has a level and no step", help="add one: onset_before = 2000")
    if kind == "onset" and (info.name, metric) == ("induction", "verdict") and "level" in entry:
        raise ByroteError(f"{where} has a level of a verdict", help="leave level out")
    if kind == "change":
        _change(entry, info, metric, where)
    return {"probe": info.name, "metric": metric}


def _change(entry: Mapping[str, Any], info: ProbeInfo, metric: str, where: str) -> None:
    if not entry.get("baseline"):
        raise ByroteError(f"{where} names no baseline", help='add baseline = "results/unique"')
    if entry.get("head") in ("any", "all"):
        raise ByroteError(f"{where} compares heads that it does not name", help='name one: head = "L1H0"')
    unit = info.unit_of(metric)
    if entry.get("change") not in (PERCENT, unit):
        found_text = clean(repr(entry["change"])) if "change" in entry else "nothing"
        raise ByroteError(
            f"{where} says {found_text} of the unit of the change",
            help=f'write change = "percent" or change = "{unit}"',
        )


def _seeds(entry: Mapping[str, Any], kind: Kind, where: str) -> str | int:
    seeds: str | int = entry.get("seeds", "all")
    if "seeds" in entry and "group" not in entry:
        raise ByroteError(
            f"{where} has seeds and no group", help='add group = "repeated", the arm of these runs'
        )
    if isinstance(seeds, int):
        if seeds < 1:
            raise ByroteError(f"{where} has seeds = {seeds}", help="give a number from 1")
        return seeds
    _one_of(seeds, ("all", "any", "mean"), "seeds", where)
    if seeds == "mean" and (kind != "value" or entry.get("head") in ("any", "all")):
        raise ByroteError(
            f"{where} takes the mean of something that is not a single number", help="count seeds: seeds = 4"
        )
    return seeds


def _one_of(value: Any, known: tuple[str, ...], key: str, where: str) -> None:
    if value not in known:
        help = did_you_mean(str(value)[:40], known)
        raise ByroteError(f"{where} has {key} = {clean(repr(value), limit=60)}", help=help)
