"""One row per run: what it declares, and one number of it. The tables that all arithmetic of degradation starts from. No torch.

A row has what the run declares (`RunFacts`), the tokens it has seen, the compute of its training (6 N T, Kaplan et al. 2020,
arXiv:2001.08361), and one metric at one step with its values by sequence where all runs saw the same sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.comparable import BEST_HEAD, own_units
from byrote.probes.degradation import one_per_head, stacked
from byrote.probes.group_comparison import refuse_other_measures
from byrote.probes.groups import Group
from byrote.probes.results import Results
from byrote.probes.results.run_facts import FILE
from byrote.probes.results.unit_files import unit_of
from byrote.probes.rules import smallest_effect
from byrote.probes.seed_statistics import sequence_variance
from byrote.probes.statistics import held_out_best
from byrote.probes.wording import clean

FLOPS_PER_PARAMETER_AND_TOKEN = 6  # forward and backward (Kaplan et al. 2020)
DOSES = ("epochs", "repeat_frac", "pool", "synthetic_share", "generation", "tokens")
SIZES = ("parameters", "parameters_without_embeddings", "compute")
RUN_COLUMNS = (
    "run", "arm", "init_seed", "data_seed", *SIZES, *DOSES, "step", "value", "sequence_var", "n", "samples",
    "probe", "metric", "unit", "better", "smallest",
)  # fmt: skip
Rows: TypeAlias = pd.DataFrame


def run_rows(
    groups: Sequence[Group], probe: str = "held_out_loss", metric: str = "loss", *, step: int | None = None
) -> Rows:
    """A table of runs for one metric.

    Args:
        groups: runs under the name of their arm, see `byrote.groups_of`; a group may be one dose, or one size.
        probe, metric: one number per run: of the whole model, or `score:best_head` of a probe of heads (the strongest head,
            chosen on one half of the sequences and read on the other).
        step: training step; None is the last that all runs have.

    Returns:
        `RUN_COLUMNS`, a row per run: numbers that are not declared are NaN; `samples` are values by sequence in one order for all
        runs, or None where runs saw others; `sequence_var` is the variance of `value` over its own sequences, 0 where not sampled.

    Raises:
        ByroteError: no run, no step in common, a metric that is not measured in all, or runs that were not measured alike.
    """
    arms = [one.name for one in groups for _ in one.runs]
    runs: list[Results] = [run for one in groups for run in one.runs]
    if not runs:
        raise ByroteError("there is no run", help="name results folders: --group ARM=GLOB")
    at = common_step(runs, step)
    refuse_other_measures(runs, [(at,) * len(runs)])
    own: set[str] = set().union(*(own_units(runs[0], other, (at, at)) for other in runs[1:]))
    found = [values_of(run, probe, metric, at) for run in runs]
    shared = unit_of(runs[0].info(probe), metric.partition(":")[0]) not in own
    alike = shared and len({len(x) for x in found}) == 1 and len(found[0]) > 1 and metric != BEST_HEAD
    info = runs[0].info(probe)
    described = {
        "step": at, "probe": probe, "metric": metric, "unit": info.unit_of(metric.partition(":")[0]),
        "better": info.better_of(metric.partition(":")[0]), "smallest": smallest_effect(info, metric.partition(":")[0]),
    }  # fmt: skip
    rows = [
        _facts(run, arm, at)
        | {"value": float(np.nanmean(x)), "sequence_var": sequence_variance(x) if len(x) > 1 else 0.0, "n": len(x)}
        | {"samples": x if alike else None}
        | described
        for run, arm, x in zip(runs, arms, found, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(RUN_COLUMNS))


def shared_answers(
    arm: Group, probe: str, metric: str, *, step: int | None = None
) -> Float[np.ndarray, "seeds cases"]:
    """What every run of an arm answered to the same cases: its values by sequence, and by place where the metric is a curve.

    Args:
        arm: runs that differ in their seed alone.
        probe, metric: stored by sequence.
        step: training step; None is the last that all runs have.

    Raises:
        ByroteError: not measured in all, not alike, or on sequences of each run's own.
    """
    runs = list(arm.runs)
    at = common_step(runs, step)
    refuse_other_measures(runs, [(at,) * len(runs)])
    own: set[str] = set().union(*(own_units(runs[0], other, (at, at)) for other in runs[1:]))
    if unit_of(runs[0].info(probe), metric) in own:
        raise ByroteError(
            f"runs of {clean(arm.name)} were measured on different sequences, so they have no cases of {probe}/{metric} in common",
            help="measure them on the same text: byrote run ... --text FILE",
        )
    found = []
    for run in runs:
        run.require(probe, metric)
        frame = run.samples(at, probe=probe)
        mine = frame[(frame["probe"] == probe) & (frame["metric"] == metric) & frame["valid"].astype(bool)]
        found.append(stacked(mine.sort_values("position")["samples"]).ravel() if len(mine) else np.zeros(0))
    if len({len(x) for x in found}) != 1 or not len(found[0]):
        raise ByroteError(
            f"runs of {clean(arm.name)} do not hold {probe}/{metric} of the same cases at step {at}",
            help=f"measure all of them: byrote run ... -p {probe}",
        )
    return np.stack(found).astype(np.float64)


def required(rows: Rows, name: str, *, what_for: str) -> np.ndarray:
    """A declared number of every run.

    Args:
        rows: of `run_rows`.
        name: one of `DOSES` or `SIZES`.
        what_for: what needs it, in words.

    Returns:
        float, one per row.

    Raises:
        ByroteError: no such fact, or a run that does not declare it; the message names run and fact.
    """
    if name not in (*DOSES, *SIZES):
        raise ByroteError(f"runs declare no {name!r}", help=did_you_mean(name, (*DOSES, *SIZES)))
    values = rows[name].to_numpy(np.float64)
    if name in SIZES and (values <= 0).any():
        run = rows["run"].iloc[int(np.flatnonzero(values <= 0)[0])]
        raise ByroteError(f"{name} of {run} is 0, and {what_for} needs a size", help=f"correct it in {FILE}")
    if np.isnan(values).any():
        run = rows["run"].iloc[int(np.flatnonzero(np.isnan(values))[0])]
        missing = {
            "compute": "parameters of it or the tokens that it has seen",
            "tokens": "the tokens that it has seen",
        }
        what = missing.get(name, name)
        raise ByroteError(
            f"{what} of {run} is not declared, and {what_for} needs it"
            if name not in missing
            else f"{what_for} needs {what}: {run} does not record them",
            help=f'write it beside the results, in {FILE}: [runs."{run}"] {name} = ...'
            if name not in missing
            else "the series has to record the tokens of its checkpoints",
        )
    return values


def common_step(runs: Sequence[Results], step: int | None = None) -> int:
    """A step that all runs have.

    Args:
        runs: at least one.
        step: which; None for the last.

    Raises:
        ByroteError: they have none, or not this one.
    """
    common = set.intersection(*(set(run.usable_steps) for run in runs))
    if step is None and common:
        return max(common)
    if step not in common:
        steps = ", ".join(map(str, sorted(common)[-4:]))
        raise ByroteError(
            f"the {len(runs)} runs have {'no checkpoint' if step is None else f'no step {step}'} in common",
            help=f"they share the steps {steps}" if common else "measure the same steps of all runs",
        )
    assert step is not None
    return step


def values_of(run: Results, probe: str, metric: str, step: int) -> Float[np.ndarray, " n"]:
    """Values by sequence of one number of a run, or the number alone.

    Raises:
        ByroteError: it was not measured, or is not one number of the whole model.
    """
    run.require(probe, None if metric == BEST_HEAD else metric)
    frame = run.samples(step, probe=probe)
    if metric == BEST_HEAD:
        heads = one_per_head(frame, probe, "score")
        if len(heads) and len(heads["samples"].iloc[0]):
            sign = -1 if run.info(probe).better_of("score") == "lower" else 1
            return sign * held_out_best(sign * stacked(heads["samples"]))[1]
    mine = frame[(frame["probe"] == probe) & (frame["metric"] == metric) & frame["valid"].astype(bool)]
    mine = mine[mine["layer"].isna() & mine["position"].isna()]
    if len(mine) != 1:
        raise ByroteError(
            f"{probe}/{metric} of {run.run} at step {step} is not one number of the whole model",
            help=f"for heads, name the strongest: {probe}/{BEST_HEAD}"
            if run.info(probe).kind == "head"
            else f"measure it: byrote run ... -p {probe}",
        )
    samples = np.asarray(mine["samples"].iloc[0], dtype=np.float64)
    return samples if len(samples) else np.array([float(mine["value"].iloc[0])])


def _facts(run: Results, arm: str, step: int) -> dict[str, Any]:
    facts = run.facts
    recorded = {
        name: getattr(facts, name)
        for name in ("init_seed", "data_seed", *SIZES[:2], *(d for d in DOSES if d != "tokens"))
    }
    tokens, parameters = run.tokens[step], facts.parameters
    compute = (
        None if tokens is None or parameters is None else FLOPS_PER_PARAMETER_AND_TOKEN * parameters * tokens
    )
    recorded |= {"tokens": tokens, "compute": compute}
    return {"run": run.run, "arm": arm} | {k: np.nan if v is None else float(v) for k, v in recorded.items()}
