"""A rule about what `byrote lint` found of the checkpoints that were measured. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.lint import read_lint
from byrote.checkpoints.opening import open_series
from byrote.probes.gate.checked import FAIL, PASS, UNDECIDED, Judged
from byrote.probes.gate.grammar import SEVERITIES, Rule
from byrote.probes.results.table import Table
from byrote.probes.wording import clean, counted, steps_in_words

_SHOWN = 3


def judge_lint(rule: Rule, results: Table) -> Judged:
    """Whether lint found nothing of the rule's severity or above; undecided where it was not run.

    Args:
        rule: of the kind "lint".
        results: of one run; what their sweep found beside the series counts, else what lies beside it now.
    """
    what = "lint"
    facts = _facts(results)
    if facts is None:
        help = f"`byrote lint {results.series_shown or 'PATH'}`, then check again"
        return Judged(UNDECIDED, what, f"nothing: these checkpoints were not linted ({help})")
    counts = SEVERITIES[: SEVERITIES.index(rule.lint) + 1]
    found = [fact for fact in facts if fact.get("severity") in counts and fact.get("kind") not in rule.allow]
    if not found:
        passed = f", {counted(len(facts), 'fact')} allowed" if facts else ""
        return Judged(PASS, what, f"none{passed}")
    text = "; ".join(_words(fact) for fact in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    return Judged(FAIL, what, f"{counted(len(found), 'fact')}: {text}{more}")


def expected_lint(rule: Rule) -> str:
    """``no error``, ``no error or warning but missing_steps``."""
    words = " or ".join(SEVERITIES[: SEVERITIES.index(rule.lint) + 1])
    return f"no {words}" + (f" but {', '.join(rule.allow)}" if rule.allow else "")


def _facts(results: Table) -> Sequence[dict[str, Any]] | None:
    """Facts above a note, as JSON values; None where nothing was looked for."""
    stored = results.meta.get("lint")
    if stored is not None:
        return list(stored.get("facts") or [])
    place = results.series_place
    if place is None or not place.exists():
        return None
    try:
        report = read_lint(open_series(place))
    except (CheckpointError, OSError):
        return None
    if report is None:
        return None
    return [fact.to_json() for fact in report.facts if fact.severity in SEVERITIES]


def _words(fact: dict[str, Any]) -> str:
    named = fact.get("steps")
    steps = [step for step in named if isinstance(step, int)] if isinstance(named, list | tuple) else []
    where = f" ({steps_in_words(steps)})" if steps else ""
    return clean(f"{fact.get('severity')} {str(fact.get('kind')).replace('_', ' ')}{where}", limit=120)
