"""A rule held against the runs of an arm: how many of its seeds satisfy it, or the mean over them. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

import numpy as np

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.comparable import own_units, shared_sequences
from byrote.probes.gate.checked import FAIL, PASS, UNDECIDED, Judged, enough_of, within
from byrote.probes.gate.grammar import EVERY, Rule
from byrote.probes.gate.single_values import named, not_yet, rows_of
from byrote.probes.results import Results
from byrote.probes.results.named_step import resolve_step
from byrote.probes.results.unit_files import unit_of
from byrote.probes.seed_statistics import paired_difference, sequence_variance
from byrote.probes.wording import counted, interval, listed

_OPPOSITE = {"any": 1}


def runs_of(rule: Rule, runs: Sequence[Results]) -> list[Results]:
    """The runs of the arm that a rule names: by the arm they declare, else by a pattern of their names.

    Raises:
        ByroteError: there is none.
    """
    name = rule.group or ""
    mine = [run for run in runs if run.facts.arm == name] or [
        run for run in runs if fnmatchcase(run.run, name)
    ]
    if not mine:
        known = {*(run.facts.arm for run in runs if run.facts.arm), *(run.run for run in runs)}
        raise ByroteError(
            f"{rule.where}: no run here has the arm or the name {name!r}",
            help=did_you_mean(name, known),
        )
    return mine


def judge_group(rule: Rule, runs: Sequence[Results], judge: Callable[[Results], Judged]) -> Judged:
    """Whether enough runs of an arm satisfy a rule.

    Args:
        rule: with `seeds`: "all", "any" or a number.
        runs: see `runs_of`.
        judge: holds the rule against one of them.
    """
    judged = {run.run: judge(run) for run in runs}
    n, what = len(judged), next(iter(judged.values())).what
    least = n if rule.seeds == "all" else _OPPOSITE.get(str(rule.seeds), rule.seeds)
    assert isinstance(least, int), "a count"
    if least > n:
        return Judged(UNDECIDED, what, f"{counted(n, 'run')} where {least:,} are required")
    outcome = enough_of([one.outcome for one in judged.values()], least)
    words = {PASS: "pass", FAIL: "fail", UNDECIDED: "undecided"}
    parts = []
    for kind, word in words.items():
        names = [name for name, one in judged.items() if one.outcome == kind]
        parts += [f"{len(names):,} of {n:,} {word} ({listed(names, most=3)})"] if names else []
    decisive = next(
        one for one in judged.values() if one.outcome == outcome or outcome != PASS != one.outcome
    )
    return Judged(outcome, what, f"{', '.join(parts)}; such as {decisive.found}")


def judge_mean(rule: Rule, runs: Sequence[Results], *, finished: bool) -> Judged:
    """Whether the mean over the seeds of an arm lies inside the bounds, with Student's interval over seeds and sequences.

    Args:
        rule: of the kind "value", about one number.
        runs: see `runs_of`.
        finished: whether the runs have ended.

    Raises:
        ByroteError: a rule about every step, no such step, or a head of a number about the whole model.
    """
    what = f"mean of {named(rule)} over {counted(len(runs), 'seed')}"
    if rule.step == EVERY:
        raise ByroteError(
            f"{rule.where} takes the mean over seeds at every step", help="name one step, or count seeds"
        )
    for run in runs:
        if why := not_yet(rule.step, run.steps, finished=finished):
            return Judged(UNDECIDED, what, f"{run.run}: {why}")
    steps = [resolve_step(rule.step, run) for run in runs]
    rows = [rows_of(rule, run, step) for run, step in zip(runs, steps, strict=True)]
    missing = [
        run.run for run, part in zip(runs, rows, strict=True) if len(part) != 1 or not part["valid"].all()
    ]
    if missing:
        return Judged(UNDECIDED, what, f"nothing: not measured in {listed(missing)}")
    if len(runs) < 2:
        return Judged(UNDECIDED, what, "one run: the spread between seeds is not known")
    values = np.array([float(part["value"].iloc[0]) for part in rows])
    found = paired_difference(np.zeros(len(values)), values, sequences=_sequences(rule, runs, steps))
    found_text = interval(found.value, found.lo, found.hi)
    outcome = within(found.lo, found.hi, rule.min, rule.max)
    return Judged(
        outcome, what, f"{found_text} over {counted(len(runs), 'seed')}", found.value, found.lo, found.hi
    )


def _sequences(rule: Rule, runs: Sequence[Results], steps: Sequence[int]) -> float:
    """Variance of the mean that the choice of sequences leaves, where all runs were shown the same ones."""
    unit = unit_of(runs[0].info(rule.probe), rule.metric)
    others = zip(runs[1:], steps[1:], strict=True)
    if any(unit in own_units(runs[0], run, (steps[0], step)) for run, step in others):
        return 0.0
    columns = []
    for run, step in zip(runs, steps, strict=True):
        frame = run.samples(step)
        part = frame[(frame["probe"] == rule.probe) & (frame["metric"] == rule.metric)]
        part = part[part["position"].isna()]
        if rule.head is not None:
            part = part[part["valid"]]
            part = part[
                [
                    f"L{layer}H{head}" == rule.head.upper()
                    for layer, head in zip(part["layer"], part["head"], strict=True)
                ]
            ]
        values = np.asarray(part["samples"].iloc[0], dtype=np.float64) if len(part) == 1 else np.zeros(0)
        columns.append(values[:, None])
    return sequence_variance(np.concatenate(shared_sequences(columns), axis=1).mean(1))
