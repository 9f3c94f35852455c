"""A gate held against runs: which of its rules are met, broken or undecided. No torch.

While a run goes on, a rule is broken only by what cannot change any more: what breaks then is broken at the end too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.gate.baseline_changes import (
    baseline_of,
    expected_change,
    judge_change,
    refuse_other_heads,
)
from byrote.probes.gate.checked import UNDECIDED, Checked, Judged
from byrote.probes.gate.grammar import Gate, Rule
from byrote.probes.gate.lint_severity import expected_lint, judge_lint
from byrote.probes.gate.onset_steps import expected_onset, judge_onset
from byrote.probes.gate.seed_counts import judge_group, judge_mean, runs_of
from byrote.probes.gate.single_values import judge_value
from byrote.probes.results import Results
from byrote.probes.wording import clean, counted


def check(gate: Gate, runs: Sequence[Results], *, finished: bool = True) -> list[Checked]:
    """Every rule of a gate against every run, or arm, it is about.

    Args:
        gate: see `read_gate`.
        runs: results of one run each.
        finished: False while training goes on. Rules about the last step are undecided then, as is what is not measured
            yet, and a rule that cannot be judged is undecided with the reason instead of an error.

    Returns:
        In the order of the rules; `Checked.broken` says what is clearly not satisfied, `Checked.passed` what counts as
        passed.

    Raises:
        ByroteError: a rule names a run, an arm, a baseline or a step that is not there, a head of a number about the whole
            model, or a comparison of runs that were not measured alike.
    """
    judging = _Judging(gate, runs, finished=finished)
    return [one for rule in gate.rules for one in judging.of(rule)]


class _Judging:
    """A gate and the runs it is held against."""

    def __init__(self, gate: Gate, runs: Sequence[Results], *, finished: bool) -> None:
        self.gate, self.runs, self.finished = gate, runs, finished

    def of(self, rule: Rule) -> list[Checked]:
        """What became of one rule, for each run that it is about."""
        if rule.group is not None:
            arm = runs_of(rule, self.runs)
            judged = self._tried(rule, lambda: self._arm(rule, arm))
            return [
                Checked(rule, f"{clean(rule.group)} ({counted(len(arm), 'run')})", _expected(rule), judged)
            ]
        names = [run.run for run in self.runs]
        if rule.run is not None and rule.run not in names:
            raise ByroteError(f"a check names run {rule.run!r}", help=did_you_mean(rule.run, names))
        chosen = [run for run in self.runs if rule.run in (None, run.run)]
        if rule.kind == "change" and rule.run is None and len(chosen) > 1:
            chosen = [run for run in chosen if run.run != rule.baseline]  # it does not change against itself
        return [Checked(rule, run.run, _expected(rule), self._one(rule, run)) for run in chosen]

    def _arm(self, rule: Rule, arm: Sequence[Results]) -> Judged:
        if rule.seeds == "mean":
            return judge_mean(rule, arm, finished=self.finished)
        return judge_group(rule, arm, lambda run: self._one(rule, run))

    def _one(self, rule: Rule, run: Results) -> Judged:
        def judge() -> Judged:
            if rule.kind == "lint":
                return judge_lint(rule, run)
            if rule.kind == "onset":
                return judge_onset(rule, run, finished=self.finished)
            if rule.kind == "change":
                baseline = baseline_of(rule, self.runs, self.gate.folder)
                refuse_other_heads(rule, run, baseline)
                return judge_change(rule, run, baseline, finished=self.finished)
            return judge_value(rule, run, finished=self.finished)

        return self._tried(rule, judge)

    def _tried(self, rule: Rule, judge: Callable[[], Judged]) -> Judged:
        try:
            return judge()
        except ByroteError as error:
            if self.finished:
                raise
            what = f"{rule.probe}/{rule.metric}" if rule.probe else rule.kind
            return Judged(UNDECIDED, what, f"nothing: {error.message}")


def _expected(rule: Rule) -> str:
    """The bounds in words."""
    words = {"lint": expected_lint, "onset": expected_onset, "change": expected_change}
    expected_text = words[rule.kind](rule) if rule.kind in words else rule.bounds
    if rule.group is None:
        return expected_text
    seeds = {"all": " in all seeds", "any": " in any seed", "mean": ""}
    return expected_text + seeds.get(str(rule.seeds), f" in {rule.seeds} seeds")
