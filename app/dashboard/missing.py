"""What a run does not hold, why, and the command that measures it. No Streamlit."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from byrote.dashboard.run_cache import run_cache
from byrote.probes.figures.coverage import COVERED, coverage_grid
from byrote.probes.registry import REGISTRY, resolve
from byrote.probes.results import Results
from byrote.probes.wording import clean, probe_name, sentence_case, step_number

NOT_RUN, FAILED, PARTIAL, DONE = range(len(COVERED))
N_STEPS_NAMED, N_REASONS = 8, 3
_FILES = re.compile(r"--(?:text|members|twins) FILE")  # what a reason asks for


@dataclass(frozen=True)
class Missing:
    """One thing that is not there.

    Attributes:
        what: which probe, at which steps; or which file.
        why: the reason.
        help: what to do about it, in words.
        command: what measures it; "" where running again would say the same.
    """

    what: str
    why: str
    help: str = ""
    command: str = ""


@run_cache(1)
def missing(run: Results) -> tuple[Missing, ...]:
    """Checkpoints not reached or not readable, probes measured at some steps only, and those of the default set never run."""
    return (*_not_reached(run), *_gaps(run), *_in_part(run), *_never_run(run))


def run_command(run: Results, *more: str) -> str:
    """The sweep that made this run, as a command that measures only what is missing.

    Precision, device, seed and number of sequences are those it was measured with: under others everything would be
    measured anew.

    Args:
        run: whose series and results folder.
        more: further options.
    """
    series, provenance = run.meta.get("series") or {}, run.meta.get("provenance") or {}
    words = ["byrote", "run", str(series.get("path") or "PATH"), *more]
    for option, name, default in (
        ("--dtype", "dtype", "float32"),
        ("--device", "device", "cpu"),
        ("--seed", "seed", 0),
    ):
        if (value := provenance.get(name)) not in (None, default):
            words += [option, str(value)]
    shown = {s["n"] for s in run.meta.get("stimuli") or [] if s.get("kind") == "repeated_random" and "n" in s}
    if shown and shown != {32}:
        words += ["--sequences", str(min(shown))]
    return clean(shlex.join([*words, "-o", str(run.path.parent)]), limit=1000)


def steps_words(steps: Sequence[int]) -> str:
    """``step 30``, ``steps 10, 20 and 30``, ``40 steps from 10 to 900``."""
    if len(steps) == 1:
        return f"step {step_number(steps[0])}"
    if len(steps) > N_STEPS_NAMED:
        return f"{len(steps):,} steps from {step_number(min(steps))} to {step_number(max(steps))}"
    names = [step_number(s) for s in sorted(steps)]
    return f"steps {', '.join(names[:-1])} and {names[-1]}"


def _gaps(run: Results) -> list[Missing]:
    """One entry per reason: a hundred files cut short are one story."""
    stories: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for gap in run.gaps:
        stories.setdefault((str(gap.get("reason", "")), str(gap.get("help") or "")), []).append(gap)
    found = []
    for (why, help), gaps in stories.items():
        steps = [int(g["step"]) for g in gaps if g.get("step") is not None]
        files = [str(g.get("path") or "a file") for g in gaps if g.get("step") is None]
        what = [steps_words(steps)] if steps else []
        what += files[:3] + ([f"{len(files) - 3:,} more"] if len(files) > 3 else [])
        found.append(Missing(sentence_case(", ".join(what)), why, help, run_command(run)))
    return found


def _not_reached(run: Results) -> list[Missing]:
    """Checkpoints of the series that no sweep has come to."""
    known = {int(step) for step in (run.meta.get("series") or {}).get("steps") or []}
    if not (ahead := sorted(known - set(run.all_steps))):
        return []
    status = str(run.meta.get("status", ""))
    why = (
        f"not measured yet, the sweep is {status}" if status in ("running", "interrupted") else "not measured"
    )
    return [Missing(sentence_case(steps_words(ahead)), why, command=run_command(run))]


def _in_part(run: Results) -> list[Missing]:
    """Probes that hold a number at some steps and none, or not all, at others; those with one story are listed together."""
    probes, steps, grid, _ = coverage_grid(run)
    unread = {int(g["step"]) for g in run.gaps if g.get("step") is not None}
    reasons = _reasons(run)
    stories: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for probe, row in zip(probes, grid, strict=True):
        for kind, said in ((NOT_RUN, ""), (FAILED, "not measured"), (PARTIAL, "measured in part")):
            here = tuple(s for s, v in zip(steps, row, strict=True) if v == kind and s not in unread)
            if not here:
                continue
            known = dict.fromkeys(why for s in here for why in reasons.get(probe, {}).get(s, ()))
            why = f"{said}: {'; '.join(list(known)[:N_REASONS]) or 'no reason was recorded'}" if said else ""
            stories.setdefault((why, here), []).append(probe)
    return [_story(run, why, here, names) for (why, here), names in stories.items()]


def _story(run: Results, why: str, here: Sequence[int], names: Sequence[str]) -> Missing:
    """Probes that lack the same steps for the same reason."""
    at = "every step" if len(here) == len(run.all_steps) else steps_words(here)
    what = f"{_names(names)}, {at}"
    if not why:
        return Missing(what, "not run there", command=_asking_for(run, names))
    if wanted := [word for option in dict.fromkeys(_FILES.findall(why)) for word in option.split()]:
        return Missing(what, why, command=_asking_for(run, names, *wanted))
    return Missing(what, why, REGISTRY[names[0]].not_measured if len(names) == 1 else "")


def _reasons(run: Results) -> dict[str, dict[int, list[str]]]:
    """Probe -> step -> why there are values that are not there."""
    outcomes = run.outcomes
    bare = outcomes[~outcomes["valid"] & (outcomes["reason"] != "")]
    found: dict[str, dict[int, list[str]]] = {}
    for row in bare.drop_duplicates(["probe", "step", "reason"]).itertuples(index=False):
        found.setdefault(row.probe, {}).setdefault(row.step, []).append(row.reason)
    return found


def _never_run(run: Results) -> list[Missing]:
    """Probes that `byrote run` measures without being asked, and of which nothing is there."""
    here = {probe for probe, _ in run.kinds}
    names = [info.name for info in resolve(None) if info.name not in here]
    if not names:
        return []
    why = f"never run here, though a sweep measures {'it' if len(names) == 1 else 'them'} without being asked"
    return [Missing(_names(names), why, command=_asking_for(run, names))]


def _asking_for(run: Results, names: Sequence[str], *more: str) -> str:
    return run_command(run, *(word for name in names for word in ("-p", name)), *more)


def _names(probes: Sequence[str]) -> str:
    """``Prefix matching, ICL score``."""
    return sentence_case(", ".join(probe_name(p) for p in probes))
