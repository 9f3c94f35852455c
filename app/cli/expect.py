"""Checks of results against a file, for scripts and CI: `--expect FILE` and exit code 1.

    [[expect]]
    probe = "induction"       # required
    metric = "verdict"        # the probe's main metric if left out
    head = "any"              # "any", "all" or "L1H0"; left out for numbers about the whole model
    step = "last"             # as `byrote show --step`; last if left out
    run = "unique"            # every run on the command line if left out
    min = 1                   # passes when the interval's lower end reaches it
    max = 1                   # passes when the interval's upper end stays within it; one of the two is required

The interval decides, not the value: a check passes only when the result is surely inside. Verdicts have intervals without
width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.safe_read import FileRefused, read_toml
from byrote.cli.output import Output
from byrote.cli.session import Exit, Session
from byrote.probes.wording import clean, counted, interval, visible

if TYPE_CHECKING:
    import pandas as pd

    from byrote.probes.results import Results

MAX_WHOLE = 1 << 62
MAX_BYTES = 1 << 20  # some ten thousand checks
_KEYS: dict[str, type | tuple[type, ...]] = {
    "run": str,
    "probe": str,
    "metric": str,
    "head": str,
    "step": (str, int),
    "min": (int, float),
    "max": (int, float),
}


@dataclass(frozen=True)
class Expectation:
    """One `[[expect]]` of the file."""

    probe: str
    metric: str
    head: str | None
    step: str
    run: str | None
    min: float
    max: float
    where: str

    @property
    def bounds(self) -> str:
        """``at least 1``, ``at most 0.5``, or ``0.2 to 0.5``."""
        if math.isinf(self.max):
            return f"at least {self.min:g}"
        return f"at most {self.max:g}" if math.isinf(self.min) else f"{self.min:g} to {self.max:g}"


@dataclass(frozen=True)
class Checked:
    """An expectation and what one run has to say to it."""

    run: str
    what: str
    expected: str
    found: str
    passed: bool

    @property
    def line(self) -> str:
        """One line for a person."""
        word = "pass" if self.passed else "FAIL"
        return visible(f"{word}  {self.run}: {self.what}: expected {self.expected}, found {self.found}")


def read_expectations(path: Path) -> tuple[Expectation, ...]:
    """The checks of a file.

    Raises:
        ByroteError: the file is not there, is no TOML, or has a check that cannot be understood.
    """
    try:
        data = read_toml(path, max_bytes=MAX_BYTES, follow_links=True)
    except FileNotFoundError:
        raise ByroteError(f"{path} does not exist", help="give a file of [[expect]] tables") from None
    except FileRefused as error:
        raise ByroteError(error.message, help="give a file of [[expect]] tables") from None
    except OSError as error:
        raise ByroteError(f"{path} cannot be read as TOML ({error})", help="fix the file") from None
    entries = data.get("expect")
    if not isinstance(entries, list) or not entries or set(data) != {"expect"}:
        raise ByroteError(f"{path} has to hold [[expect]] tables and nothing else", help="see docs/cli.md")
    return tuple(_expectation(entry, f"check {i} of {path}") for i, entry in enumerate(entries, 1))


def check(expectations: Sequence[Expectation], runs: Sequence[Results]) -> list[Checked]:
    """Every expectation against every run it names.

    Raises:
        ByroteError: an expectation names a run or a step that is not there, or a head of a number about the whole model.
    """
    names = [run.run for run in runs]
    outcomes = []
    for one in expectations:
        if one.run is not None and one.run not in names:
            raise ByroteError(f"a check names run {one.run!r}", help=did_you_mean(one.run, names))
        outcomes += [_check(one, run) for run in runs if one.run in (None, run.run)]
    return outcomes


def say_checks(session: Session, checks: Sequence[Checked], *, out: Output | None = None) -> int:
    """Print each check: under a table on stdout, beside data on stderr, and even when quiet.

    Returns:
        The exit code: 1 when a check failed.
    """
    say = session.data if out is not None and not out.machine else session.warn
    for one in checks:
        say(one.line)
    failed = sum(not one.passed for one in checks)
    if checks:
        say(f"{counted(len(checks), 'check')}: {f'{failed} failed' if failed else 'all passed'}")
    return Exit.CHECK_FAILED if failed else Exit.DONE


def _expectation(entry: Any, where: str) -> Expectation:
    from byrote.probes.registry import lookup

    if not isinstance(entry, dict):
        raise ByroteError(f"{where} is not a table", help="write [[expect]] above it")
    for key, value in entry.items():
        if key not in _KEYS:
            raise ByroteError(f"{where} has a key {key!r}", help=did_you_mean(key, _KEYS))
        if isinstance(value, int) and abs(value) > MAX_WHOLE:
            raise ByroteError(
                f"{where} has {key} = a number of {value.bit_length():,} bits", help="give a smaller one"
            )
        if not isinstance(value, _KEYS[key]) or isinstance(value, bool):
            raise ByroteError(
                f"{where} has {key} = {clean(repr(value))}", help="numbers are bare, names are in quotes"
            )
    if "probe" not in entry:
        raise ByroteError(f"{where} names no probe", help='add probe = "induction"')
    if not {"min", "max"} & set(entry):
        raise ByroteError(f"{where} has neither min nor max", help="add one: min = 0.5")
    info = lookup(entry["probe"])
    metric = entry.get("metric", info.main_metric)
    if metric not in info.metrics:
        raise ByroteError(
            f"{where}: {info.name} has no metric {metric!r}", help=did_you_mean(metric, info.metrics)
        )
    return Expectation(
        probe=info.name,
        metric=metric,
        head=entry.get("head"),
        step=str(entry.get("step", "last")),
        run=entry.get("run"),
        min=float(entry.get("min", -math.inf)),
        max=float(entry.get("max", math.inf)),
        where=where,
    )


def _check(one: Expectation, results: Results) -> Checked:
    from byrote.cli.show import resolve_step
    from byrote.interp.axes import parse_head
    from byrote.probes.results.run_json import refuse_imported

    refuse_imported(results.meta, "intervals to check")
    step = resolve_step(one.step, results)
    rows = results.select(one.probe, one.metric, step=step)
    rows = rows[rows["position"].isna()]
    if len(rows) and bool(rows["layer"].notna().any()) != (one.head is not None):
        kind, help = ("measured per head", 'add head = "any", "all" or "L1H0"')
        if one.head is not None:
            kind, help = ("about the whole model", "leave head out")
        raise ByroteError(f"{one.where}: {one.probe}/{one.metric} is {kind}", help=help)
    if one.head not in (None, "any", "all"):
        layer, head = parse_head(one.head)
        rows = rows[(rows["layer"] == layer) & (rows["head"] == head)]
    holds = rows["valid"] & (rows["lo"] >= one.min) & (rows["hi"] <= one.max)
    passed = bool(holds.any() if one.head == "any" else len(rows) and holds.all())
    what = f"{one.probe}/{one.metric}{f' {one.head}' if one.head else ''} at step {step:,}"
    return Checked(
        results.run, what, one.bounds, _found(one, rows.assign(holds=holds), passed=passed), passed
    )


def _found(one: Expectation, rows: pd.DataFrame, *, passed: bool) -> str:
    """The row that decides: of "any" the strongest, of "all" the first that fails."""
    from byrote.probes.results.rows import row_label

    if rows.empty:
        return "nothing: not in the results"
    if one.head == "all" and not passed:
        rows = rows[~rows["holds"]].head(1)
    elif rows["valid"].any():
        rows = rows[rows["valid"]].sort_values(["holds", "value"], kind="stable").tail(1)
    row = next(rows.itertuples(index=False))
    found = interval(row.value, row.lo, row.hi) if row.valid else f"not measured: {row.reason}"
    return f"{row_label(row)} {found}".strip()
