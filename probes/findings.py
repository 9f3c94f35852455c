"""Sentences on what happened in a run and between runs, shared by command line, report and pages. No torch.

Plain text: names are cleaned of what a terminal or a page would obey, and whoever shows a sentence escapes it. The
sentence of one event (an onset, a peak, a swap of heads) is made where the event is found, in `probes/trajectory`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from byrote.checkpoints.lab.arms import describe_arm
from byrote.interp.axes import head_label
from byrote.probes.findings_arms import formed_by_arm, named_arms, names_in_title, of_unknown_step
from byrote.probes.registry import REGISTRY, featured
from byrote.probes.rules import (
    FLOORS,
    PREVIOUS_TOKEN,
    PRIMARY,
    SMALLEST,
    SMALLEST_LOGITS,
    SMALLEST_SHARE,
    against_chance,
    is_called,
    smallest_effect,
    text_loss_alarm,
)
from byrote.probes.stimuli import TOKEN_SET_STIMULI
from byrote.probes.trajectory.verdict import Onset, heads_above, onset, verdict_table
from byrote.probes.wording import (
    between_steps,
    chance_number,
    clean,
    counted,
    interval,
    listed,
    over_seeds,
    point,
    probe_name,
    sentence_case,
    step_number,
    steps_in_words,
)

if TYPE_CHECKING:
    from byrote.probes.results.table import Table

MAX_RUNS_NAMED = 3
MAX_HEADS_NAMED = 3
_HEADS_LISTED = 4


def run_name(run: str) -> str:
    """A run's name inside a sentence."""
    return clean(run, limit=60)


# What a run is.


def seeds(results: Table) -> str:
    """``, sequence seed 0, training seed 1``: what a table's title ends in; of imported scores, that they are."""
    if results.imported:
        return f", {imported(results)}"
    found = (("sequence", results.sequence_seed), ("training", results.training_seed))
    return "".join(f", {what} seed {seed}" for what, seed in found if seed is not None)


def imported(results: Table) -> str:
    """``imported from scores.csv, no samples: no intervals``; "" for what byrote measured."""
    return f"imported from {clean(results.imported)}, no samples: no intervals" if results.imported else ""


def arm_words(results: Table) -> str:
    """What a run was trained on, as far as its series says; "" where it does not."""
    return clean(describe_arm(results.arm))


# One run, or several side by side.


def induction(run: str, found: Onset, *, dated: bool = True) -> str:
    """Whether and when a run forms induction heads, and whether any is left at its last step.

    Args:
        run: its name.
        found: the onset of its induction heads.
        dated: whether the step of a single checkpoint is known.
    """
    name = run_name(run)
    if not found.measured:
        return f"{name}: {found.text}"
    if found.only_step is not None:
        when = f" at step {step_number(found.only_step)}" if dated else ""
        return f"{name}: {_how_many(found.heads_at_end)}{when}"
    if not found.found or found.bracket is None:
        return f"{name}: no lasting induction head forms"
    heads = listed(list(found.heads_at_end) or [found.head], most=MAX_HEADS_NAMED)
    lost = "" if found.heads_at_end else " and are lost again"
    fall = f"; {found.loss.words}" if found.loss and found.heads_at_end else ""
    return f"{name}: induction heads form {between_steps(*found.bracket)} ({heads}){lost}{fall}"


def primary_of(results: Table) -> Any | None:
    """The row of the primary measure, what copying is worth, at the last step that lint does not doubt; None where not measured."""
    step = results.usable_steps[-1] if results.usable_steps else None
    found = [results.rows(*one, step=step, valid=True) for one in PRIMARY] if step is not None else []
    return next((next(rows.itertuples(index=False)) for rows in found if len(rows) == 1), None)


def worth_of_copying(results: Table) -> str:
    """What copying is worth in one run at its last step, by the primary measure, and in which head; "" where not measured."""
    row = primary_of(results)
    if row is None:
        return ""
    by = f"{interval(-row.value, -row.hi, -row.lo)} nats (n={row.n}; 0 without copying)"
    if row.hi < 0:
        text = f"copying lowers the loss on repeated random tokens by {by}"
    elif row.lo > 0:
        text = f"the loss on random tokens rises where they are repeated: copying lowers it by {by}"
    else:
        text = f"copying does not clearly lower the loss on repeated random tokens: by {by}"
    return f"{run_name(results.run)}, step {step_number(row.step)}: {text}{_strongest(results)}"


def _strongest(results: Table) -> str:
    """``; the strongest prefix-matching head, L1H2, puts 0.30 [0.28, 0.32] of its attention ...``; "" where not measured."""
    best = next(
        results.ranked("prefix_matching", "score", step=results.usable_steps[-1]).itertuples(index=False),
        None,
    )
    if best is None:
        return ""
    return (
        f"; its strongest head, {best.label}, puts {interval(best.value, best.lo, best.hi)} of its attention on what followed "
        f"earlier copies (prefix matching; chance {chance_number(best.chance)})"
    )


def _how_many(heads: Sequence[str]) -> str:
    if not heads:
        return "no induction head"
    return f"{counted(len(heads), 'induction head')} ({listed(list(heads), most=MAX_HEADS_NAMED)})"


def first_head(run: str, found: Onset) -> str:
    """The first lasting induction head of a run, and those at its last step."""
    return f"{clean(run)}: {found.text}"


def runs(results: Sequence[Table], onsets: Mapping[str, Onset] | None = None) -> str:
    """What happened in one run or several: the title of a report and of the overview.

    Args:
        results: of the runs, in the order they are named in.
        onsets: run name -> onset of its induction heads, where they are known.
    """
    measured = [r for r in results if r.steps]
    if not measured:
        return "Nothing was measured"
    found = {r.run: (onsets or {}).get(r.run) or onset(r) for r in measured}
    judged = [one for one in found.values() if one.measured]
    if not judged:
        return strongest_scores(measured)
    names = names_in_title(measured)
    if len(found) > MAX_RUNS_NAMED:
        arms = [(r.facts.arm, found[r.run].found) for r in measured if found[r.run].measured]
        if sentence := formed_by_arm(arms):
            return sentence
        some = [clean(names[run]) for run, one in found.items() if one.found]
        which = f": {named_arms(some)}" if 0 < len(some) < len(judged) else ""
        return f"{len(some)} of {len(judged)} runs form lasting induction heads{which}"
    undated = of_unknown_step(measured)
    return "; ".join(induction(names[run], one, dated=run not in undated) for run, one in found.items())


def marks(results: Table, found: Onset) -> list[tuple[int, str]]:
    """Steps worth jumping to: where induction heads appear, where many and where the last of them are lost.

    Args:
        results: of one run.
        found: the onset of its induction heads.
    """
    if not found.found or found.bracket is None:
        return []
    steps = [(found.bracket[1], f"first lasting induction head ({found.head})")]
    table = verdict_table(results)
    there = np.flatnonzero(is_called(table.to_numpy()).any(axis=1))
    if found.loss and found.heads_at_end:
        steps.append((found.loss.bracket[1], found.loss.words))
    if not found.heads_at_end and len(there):
        last = int(there[-1])
        steps.append((int(table.index[last + 1]), "the last induction head is lost"))
    return steps


def strongest_scores(results: Sequence[Table]) -> str:
    """The strongest head of the best known head probe at the last step of each run; of many runs, of each arm."""
    known = [*featured(), *(name for name, info in REGISTRY.items() if info.kind == "head")]
    probe = next((p for p in known if any(r.has(p, "score", valid=True) for r in results)), None)
    if probe is None:
        counted_steps = sum(len(r.steps) for r in results)
        return f"Scores of {counted(len(results), 'run')} over {counted(counted_steps, 'checkpoint')}"
    if len(results) > MAX_RUNS_NAMED and (arms := _strongest_of_arms(results, probe)):
        return f"Strongest {probe_name(probe)}, median of the seeds: {listed(arms, between='; ')}"
    parts = []
    for r in results[:MAX_RUNS_NAMED]:
        for best in r.ranked(probe, "score").head(1).itertuples(index=False):
            score = interval(best.value, best.lo, best.hi)
            parts.append(f"{run_name(r.run)} {score} ({best.label}, step {step_number(best.step)})")
    return f"Strongest {probe_name(probe)}: {'; '.join(parts) or 'not measured at the last step'}"


def _strongest_of_arms(results: Sequence[Table], probe: str) -> list[str]:
    """``unique 0.44 (0.39 to 0.52 over 8 seeds)`` for each arm, highest first; [] where runs declare none or none has several seeds."""
    values: dict[str | None, list[float]] = {}
    for r in results:
        for best in r.ranked(probe, "score").head(1).itertuples(index=False):
            values.setdefault(r.facts.arm, []).append(float(best.value))
    if None in values or all(len(some) == 1 for some in values.values()):
        return []
    return [
        f"{clean(arm)} {over_seeds(float(np.median(some)), min(some), max(some), len(some))}"
        for arm, some in sorted(values.items(), key=lambda pair: -float(np.median(pair[1])))
    ]


def at_end(results: Table) -> Iterator[str]:
    """What a run found, in the few lines a person reads when it ends: at the last step that lint does not doubt."""
    yield from left_out(results.left_out)
    yield from (sentence for sentence, _, _ in text_losses(results))
    if not results.usable_steps:
        return
    step = results.usable_steps[-1]
    verdicts = verdict_table(results)
    if step in verdicts.index and not verdicts.loc[step].isna().all():
        if (found := onset(results)).only_step is None:  # of a single step the next line says all
            yield induction(results.run, found)
        yield called(results, step)
        yield from _not_called(results, step)
    looking = heads_above(results, "previous_token", step, threshold=PREVIOUS_TOKEN)
    if not looking.empty:
        yield f"previous-token heads: {_with_intervals(looking)}"
    yield from _repeat_loss(results, step)


def no_events(results: Table) -> str:
    """Why nothing can be said to have happened in a run of fewer than two steps that count."""
    steps = [step_number(step) for step in results.usable_steps]
    what = (
        f"only step {steps[0]} was measured"
        if steps
        else "no step was measured, or lint leaves all of them out"
    )
    return f"{run_name(results.run)}: {what}; what happened when needs two steps"


def text_losses(results: Table) -> list[tuple[str, tuple[int, ...], bool]]:
    """Steps whose loss on text is no trained model's: (sentence, the steps, whether only steps beside them say so)."""
    rows = results.select("held_out_loss", "loss")
    rows = rows[rows["valid"]].sort_values("step")
    sentences = []
    single = (results.meta.get("series") or {}).get("n_checkpoints") == 1
    alarms = text_loss_alarm(
        rows["step"].to_numpy(dtype=np.int64),
        *(rows[end].to_numpy(dtype=np.float64) for end in ("lo", "hi", "chance")),
        single=single,
    )
    beside = "far worse than at neighbouring steps"
    for which, what in zip(alarms, ("worse than guessing", beside, "no better than guessing"), strict=True):
        found = rows[which]
        if found.empty:
            continue
        worst = found.loc[found["value"].idxmax()]
        steps = tuple(int(step) for step in found["step"])
        loss = interval(worst["value"], worst["lo"], worst["hi"])
        sentence = (
            f"loss on text is {what} at {steps_in_words(list(steps))}: {loss} nats at step {step_number(int(worst['step']))}, "
            f"{chance_number(float(worst['chance']))} by guessing; damaged weights, or a text of another tokenizer"
            f"{', or a model before training' if single and steps == (0,) else ''}"
        )
        sentences.append((sentence, steps, what == beside))
    return sentences


def left_out(found: Mapping[int, str]) -> list[str]:
    """Which steps lint leaves out, one sentence per reason: step -> reason."""
    reasons: dict[str, list[int]] = {}
    for step, why in found.items():
        reasons.setdefault(why, []).append(step)
    return [f"lint leaves out {steps_in_words(sorted(steps))}: {why}" for why, steps in reasons.items()]


def called(results: Table, step: int) -> str:
    """The induction heads of a run at a step where the verdict was measured, the one that matches prefixes best first."""
    verdicts = verdict_table(results).loc[step]
    heads = heads_above(results, "prefix_matching", step, threshold=float("-inf"))
    found = heads[heads["label"].isin(verdicts.index[is_called(verdicts.to_numpy())])]
    if found.empty:
        return f"no induction heads at step {step:,}"
    return f"{counted(len(found), 'induction head')} at step {step:,}: {_with_intervals(found)}"


def induction_rule(results: Sequence[Table]) -> str:
    """When a head is called an induction head, and which runs were judged by the rule of an earlier version."""
    former = [
        clean(r.run) for r in results if r.has("induction", "verdict") and not r.has("induction", "unmet")
    ]
    earlier = (
        f" Judged without the last two, by the rule of an earlier version: {listed(former, most=MAX_RUNS_NAMED)}."
        if former
        else ""
    )
    return (
        f"A head is called an induction head only when it matches prefixes and copies, both above their nulls by more than "
        f"{SMALLEST} with 95% intervals and after Benjamini-Hochberg correction over heads, when it still matches on blocks "
        f"of varying length, when its attention raises what followed by more than {SMALLEST_LOGITS} logits and "
        f"{SMALLEST_SHARE:.0%} of its absolute raises, and when it does so for a quarter of the ids.{earlier}"
    )


def not_called(results: Table, step: int) -> dict[tuple[int, int], str]:
    """Heads that match prefixes at a step and are not called: (layer, head) -> the first condition they do not meet.

    Args:
        results: of one run; nothing is found in those of a version that did not store the condition.
        step: training step.
    """
    unmet = results.select("induction", "unmet", step=step)
    found: dict[tuple[int, int], str] = {}
    for row in unmet[unmet["valid"]].itertuples(index=False):
        condition = list(FLOORS)[int(row.value) - 1] if row.value else ""
        if condition in ("", "prefix_excess", "jitter_excess"):
            continue
        head = int(row.layer), int(row.head)
        found[head] = _condition_unmet(results, step, head, condition) or results.info("induction").word_of(
            "unmet", row.value
        )
    return found


def _condition_unmet(results: Table, step: int, head: tuple[int, int], condition: str) -> str:
    """A condition of the verdict with the numbers that did not meet it; "" where these are not there."""

    def of(metric: str) -> Any:
        rows = results.select("induction_dla", metric, step=step)
        rows = rows[(rows["layer"] == head[0]) & (rows["head"] == head[1]) & rows["valid"]]
        return next(rows.itertuples(index=False), None)

    if condition == "copied" and (copied := of("ids_copied")) and (shown := of("ids_shown")):
        return f"copies {copied.value:.0f} of {shown.value:.0f} ids"
    if condition == "dla" and (raised := of("score")):
        return f"raises what followed by {interval(raised.value, raised.lo, raised.hi)} logits"
    return ""


def _not_called(results: Table, step: int) -> Iterator[str]:
    """One line for the heads that match prefixes and are not called, the strongest matches first."""
    found = not_called(results, step)
    heads = heads_above(results, "prefix_matching", step, threshold=float("-inf")).itertuples(index=False)
    named = [
        f"{row.label} {found[head]}" for row in heads if (head := (int(row.layer), int(row.head))) in found
    ]
    if named:
        yield f"match prefixes but are not induction heads: {listed(named, most=_HEADS_LISTED, between='; ')}"


def _with_intervals(heads: pd.DataFrame) -> str:
    rows = heads.itertuples(index=False)
    return listed([f"{row.label} {interval(row.value, row.lo, row.hi)}" for row in rows], most=_HEADS_LISTED)


UNLIKE = "such tokens are unlike what the model learned, or it has learned little yet"
"""Why a model may predict random tokens worse than guessing does, and no damage need be."""


def _repeat_loss(results: Table, step: int) -> Iterator[str]:
    parts = [results.select("repeat_loss", metric, step=step) for metric in ("first_block", "later_blocks")]
    if any(part.empty or not part["valid"].all() for part in parts):
        return
    first, later = (next(part.itertuples(index=False)) for part in parts)
    worse = f": worse than guessing, since {UNLIKE}" if later.lo > later.chance + SMALLEST else ""
    yield (
        f"loss on repeated random tokens: {interval(later.value, later.lo, later.hi)} nats after the first block "
        f"({point(first.value, first.lo, first.hi)} on it, chance {chance_number(later.chance)}){worse}"
    )


def not_measured(results: Table) -> Iterator[str]:
    """Metrics without a single valid value at the last step that lint does not doubt, one line per probe and reason."""
    if not results.usable_steps:
        return
    step = results.usable_steps[-1]
    frame = results.frame[(results.frame["step"] == step) & ~lacks_token_sets(results)]
    missing: dict[tuple[str, str], list[str]] = {}
    for (probe, metric), rows in frame.groupby(["probe", "metric"], sort=True):
        if not rows["valid"].any():
            missing.setdefault((probe, rows["reason"].iloc[0]), []).append(metric)
    for (probe, reason), metrics in missing.items():
        yield f"not measured: {probe} ({', '.join(metrics)}): {reason}"
    if text := missing_token_sets(results):
        yield text


def absent_token_sets(results: Table) -> dict[str, str]:
    """Stimulus kinds that need sequences from outside and had none -> the reason their rows give.

    That is no fault of a checkpoint and no gap: it is said once, and leaves the exit code and the report's status alone.
    """
    refused = results.meta.get("refused_stimuli") or {}
    return {kind: str(reason) for kind, reason in refused.items() if kind in TOKEN_SET_STIMULI}


def lacks_token_sets(results: Table) -> pd.Series:
    """Which rows of `results.frame` were not measured because there were no such sequences: a boolean Series."""
    reasons = set(absent_token_sets(results).values())
    return ~results.frame["valid"].astype(bool) & results.frame["reason"].isin(reasons)


def missing_token_sets(results: Table) -> str:
    """Which probes were not measured because sequences from outside are missing, and why; "" where none is."""
    rows = results.frame[lacks_token_sets(results)]
    if rows.empty:
        return ""
    reasons = dict.fromkeys(absent_token_sets(results).values())
    given = [reason for reason in reasons if (rows["reason"] == reason).any()]
    return f"not measured: {', '.join(dict.fromkeys(rows['probe']))}: {'; '.join(given)}"


# One probe, one head, one wire.


def highest_head(results: Table, probe: str, metric: str | None = None) -> str:
    """Where the strongest head of a probe stands at the last step and between which steps it rose most.

    Args:
        results: of one run.
        probe, metric: one value per head; None is the probe's main metric.
    """
    name, run = sentence_case(probe_name(probe)), run_name(results.run)
    cube = results.cube(probe, metric)
    usable = [s for s in cube.steps if cube.valid[cube.index(s)].any()]
    best = cube.strongest(usable[-1]) if usable else None
    if best is None:
        return f"{name} was not measured in {run}"
    at, label = (cube.index(usable[-1]), *best), head_label(*best)
    ends = cube.interval(usable[-1], best)
    chance, info = float(cube.chance[at]), results.info(probe)
    if np.isfinite(chance):
        side = against_chance(
            *ends,
            chance=chance,
            smallest=smallest_effect(info, metric or info.main_metric),
            among=int(cube.valid[at[0]].sum()),
            sampled=info.sampled_chance,
        )
        if side != "above":
            level = chance_number(chance)
            return f"{name}: no head of {run} is clearly above chance ({level}); the highest is {label}, {interval(*ends)}"
    where = f"{name}: {label} reaches {interval(*ends)} by step {step_number(usable[-1])}"
    steps = [s for s in usable if cube.valid[(cube.index(s), *best)]]
    rises = np.diff([float(cube.value[(cube.index(s), *best)]) for s in steps])
    if not len(rises) or rises.max() <= 0:
        return where
    i = int(rises.argmax())
    return f"{where}, rising most between steps {step_number(steps[i])} and {step_number(steps[i + 1])}"


def memory(
    run: str, gaps: Mapping[int, Any], rules: Mapping[int, Any], *, step: int, trained: bool = True
) -> str:
    """Does a run remember its training sequences, and does it copy?

    Args:
        run: its name.
        gaps: step -> memory gap, with value, lo and hi in nats.
        rules: step -> strongest prefix matching, with value, lo, hi and the head, `where`.
        step: training step.
        trained: whether it was trained on them; a control is measured on those of the run it is the control of.
    """
    name, rule = run_name(run), rules.get(step)
    copies = ""
    if rule is not None:
        score = interval(rule.value, rule.lo, rule.hi)
        copies = f"; its strongest prefix matching is {score} ({rule.where})"
    if not gaps:
        return f"No training sequences were given to test the memory of {name}{copies}"
    if step not in gaps:
        return f"Memory of {name} was not measured at step {step_number(step)}{copies}"
    gap = gaps[step]
    if not trained:
        cost = interval(-gap.value, -gap.hi, -gap.lo, sign=True)
        return f"The pool of its counterpart, on which {name} was never trained, changes its loss by {cost} nats relative to fresh sequences at step {step_number(step)}{copies}"
    says = f"Training sequences are remembered in {name}" if gap.lo > 0 else f"No sign of memory in {name}"
    cost = interval(gap.value, gap.lo, gap.hi)
    they = "they" if gap.lo > 0 else "training sequences"
    return f"{says}: {they} cost {cost} nats less than fresh ones at step {step_number(step)}{copies}"
