"""The title of a report: what was found, in one sentence."""

from __future__ import annotations

from byrote.probes.results import Results
from byrote.probes.wording import between_steps, clean, interval, listed, probe_name, step_number
from byrote.report.scene import Scene, at_last, estimate_of, label_of, last_step, strongest

MAX_RUNS_NAMED = 3
MAX_HEADS_NAMED = 3


def headline(scene: Scene) -> str:
    """Which runs form induction heads and when, or the nearest thing that was measured."""
    judged = [r for r in scene.measured if not at_last(r, "induction", "verdict").empty]
    if not scene.measured:
        return "Nothing was measured"
    if not judged:
        return _strongest_scores(scene)
    if len(judged) > MAX_RUNS_NAMED:
        forming = [r.run for r in judged if scene.onsets[r.run].found]
        return f"{len(forming)} of {len(judged)} runs form lasting induction heads"
    return "; ".join(_one_run(scene, r) for r in judged)


def run_finding(scene: Scene, results: Results) -> str:
    """What happened to the induction heads of one run, as a sentence."""
    if results.run not in scene.onsets:
        return f"{clean(results.run)}: nothing was measured."
    return f"{clean(results.run)}: {scene.onsets[results.run].text}."


def _one_run(scene: Scene, results: Results) -> str:
    onset, name = scene.onsets[results.run], clean(results.run, limit=60)
    if not onset.found or onset.bracket is None:
        return f"{name} forms no lasting induction head"
    heads = list(onset.heads_at_end) or [onset.head]
    named, when = listed(heads, most=MAX_HEADS_NAMED), between_steps(*onset.bracket)
    lost = "" if onset.heads_at_end else " and loses them again"
    return f"{name} forms induction heads {when} ({named}){lost}"


def _strongest_scores(scene: Scene) -> str:
    probes = scene.head_probes
    if not probes:
        counted = sum(len(r.steps) for r in scene.measured)
        return f"Scores of {len(scene.measured)} runs over {counted} checkpoints"
    parts = []
    for r in scene.measured[:MAX_RUNS_NAMED]:
        best = strongest(at_last(r, probes[0], "score"))
        if best is not None:
            e = estimate_of(best)
            score = interval(e.value, e.lo, e.hi)
            parts.append(
                f"{clean(r.run, limit=60)} {score} ({label_of(best)}, step {step_number(last_step(r))})"
            )
    return f"Strongest {probe_name(probes[0])}: {'; '.join(parts) or 'not measured at the last step'}"
