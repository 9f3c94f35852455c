"""Group against group: differences between arms over their training seeds, onsets as censored ranks, counts exactly. No torch.

Runs that share init and unique data are pairs, and their differences are one number per seed; else the groups are compared
as they are (Welch). Intervals cover seeds and sequences. Below `MIN_SEEDS` seeds a side nothing is better or worse: the
runs are spoken of, not their arms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.probes import unnamed_heads
from byrote.probes.comparable import (
    BEST_HEAD,
    MASS,
    differing_provenance,
    how_to_measure_alike,
    matched_steps,
    own_units,
    shared_sequences,
)
from byrote.probes.degradation import chosen_pairs, judged, one_per_head, stacked
from byrote.probes.findings_compared import group_sentence
from byrote.probes.groups import Arm, Group, group, pairs_by_seed
from byrote.probes.registry import best_compared
from byrote.probes.results import Results
from byrote.probes.results.opened import opened
from byrote.probes.results.unit_files import unit_of
from byrote.probes.rules import MIN_SEEDS, smallest_effect
from byrote.probes.seed_statistics import (
    SeedDifference,
    fisher_exact,
    later,
    paired_difference,
    rank_test,
    sequence_variance,
    unpaired_difference,
)
from byrote.probes.spec import ProbeInfo
from byrote.probes.statistics import held_out_best, holm
from byrote.probes.trajectory.verdict import onset
from byrote.probes.wording import clean, probe_name, summary_html

PAIRED, WELCH = "paired by seed", "Welch"
GROUP_COLUMNS = [
    "probe", "metric", "step", "a", "b", "difference", "lo", "hi", "seeds_a", "seeds_b", "n", "p", "q", "family",
    "smallest", "change", "sd_a", "sd_b", "sequence_se", "seed_to_sequence", "how", "values_a", "values_b",
]  # fmt: skip


@dataclass(frozen=True)
class GroupComparison:
    """What differs between arm A and arm B.

    Attributes:
        a, b: names of the arms and of their runs.
        align: axis the runs were matched on.
        steps: steps of A's first run that were compared.
        rows: one row per metric and step (`GROUP_COLUMNS`): means over seeds a and b, difference b - a with its 95%
            interval over seeds and sequences, seeds a side, n sequences (0 where none are sampled), p, q within `family`,
            `sd_a` and `sd_b` over seeds, `sequence_se` of one run, mean over the runs, `seed_to_sequence` how many times
            larger the seeds' is, and every seed's value.
        onsets: one row per run: arm, run, seed, formed (NaN where no verdict was measured), step_before and step_at of
            the first lasting induction head, last_step measured.
        formed: (seeds of A that form induction heads, seeds of A, of B that do, seeds of B); None where not measured.
        p_formed: of the counts being alike (Fisher's exact test), and p_onset of the onsets being alike (exact permutation
            of ranks, "never" after every step), corrected for being two (Holm).
        p_onset: see p_formed.
        why_unpaired: "" where runs were paired by seed.
        sentence: what happened, in words.
        notes: what could not be compared, and why.
    """

    a: Arm
    b: Arm
    align: str
    steps: tuple[int, ...]
    rows: pd.DataFrame
    onsets: pd.DataFrame
    formed: tuple[int, int, int, int] | None
    p_formed: float
    p_onset: float
    why_unpaired: str
    sentence: str
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        arms = ", ".join(f"{clean(arm.name)} ({len(arm)} seeds)" for arm in (self.a, self.b))
        return f"GroupComparison({arms}: {len(self.rows):,} numbers in .rows)\n{self.sentence}"

    def _repr_html_(self) -> str:
        """For notebooks: what happened, and the primary and secondary numbers; offline, everything escaped."""
        return summary_html(repr(self), self.rows[self.rows["family"].isin(("primary", "secondary"))])

    @property
    def seeds(self) -> int:
        """Training seeds on the side that has fewer."""
        return min(len(self.a), len(self.b))

    @property
    def speaks_of_arms(self) -> bool:
        """Whether there are seeds enough for a word of direction."""
        return self.seeds >= MIN_SEEDS

    def row(self, probe: str, metric: str) -> pd.Series | None:
        """The row of a metric at the last step compared; None when it was not compared."""
        found = self.rows[(self.rows["probe"] == probe) & (self.rows["metric"] == metric)]
        return None if found.empty else found.iloc[-1]


def compare_groups(
    a: Group | Sequence[Results],
    b: Group | Sequence[Results],
    *,
    align: str = "step",
    at: Literal["last", "all"] | int = "last",
    seed: int = 0,
) -> GroupComparison:
    """Compare arm B against arm A, the baseline.

    Args:
        a, b: groups, or results of the runs of one arm each.
        align: match checkpoints by optimiser step, by tokens seen, or by held-out loss; all with A's first run.
        at: the last step that all have, all of them, or one of A's first run.
        seed: of what is drawn at random: labellings of runs where there are too many to try all.

    Raises:
        ByroteError: runs that are no group, a run in both, nothing to match on, or runs that were not measured alike.
    """
    a, b = (
        one if isinstance(one, Group) else group(name, opened(one, several=True))
        for one, name in ((a, "A"), (b, "B"))
    )
    runs = [*a.runs, *b.runs]
    if twice := {run.path.resolve() for run in a.runs} & {run.path.resolve() for run in b.runs}:
        raise ByroteError(f"{min(twice).name} is in both groups", help="a run belongs to one arm")
    matched = _matched(runs, align, at)
    refuse_other_measures(runs, matched)
    pairs, why = pairs_by_seed(a, b)
    if pairs:
        a, b = (replace(one, runs=tuple(pair[i] for pair in pairs)) for i, one in enumerate((a, b)))
        runs = [*a.runs, *b.runs]
        matched = _matched(runs, align, at)
    notes = [] if pairs else [f"runs are not paired by seed: {why}"]
    notes += ["one seed on a side: no interval over seeds"] if min(len(a), len(b)) < 2 else []
    parts = [part for steps in matched for part in _rows(runs, len(a), steps, notes, paired=bool(pairs))]
    onsets = _onsets(a, b)
    formed, p_formed, p_onset = _compared_onsets(onsets, len(a), seed)
    rows = judged_rows(parts, min(len(a), len(b)))
    draft = GroupComparison(
        a.arm, b.arm, align, tuple(steps[0] for steps in matched), rows, onsets, formed, p_formed, p_onset, why, "",
        tuple(dict.fromkeys(notes)),
    )  # fmt: skip
    return replace(draft, sentence=group_sentence(draft))


def _matched(runs: Sequence[Results], align: str, at: Literal["last", "all"] | int) -> list[tuple[int, ...]]:
    """Steps that stand beside each other, one per run, the first run's first."""
    first, *others = runs
    found = [dict(matched_steps(first, other, align)) for other in others]
    common = sorted(set.intersection(*(set(one) for one in found)))
    if not common:
        raise ByroteError(
            f"the {len(runs)} runs have no checkpoint in common by {align}",
            help="measure the same steps of all, or align by another axis",
        )
    chosen = chosen_pairs([(step, step) for step in common], at, first)
    return [(step, *(one[step] for one in found)) for step, _ in chosen]


def refuse_other_measures(runs: Sequence[Results], matched: Sequence[tuple[int, ...]]) -> None:
    """Refuse runs that were not measured with the same settings on the same sequences.

    Args:
        runs: results of one run each.
        matched: steps that stand beside each other, one per run.

    Raises:
        ByroteError: they were not.
    """
    first = runs[0]
    for i, other in enumerate(runs[1:], 1):
        differing = differing_provenance(first, other, [(steps[0], steps[i]) for steps in matched])
        if differing:
            raise ByroteError(
                f"{first.run} and {other.run} were not measured alike: {'; '.join(differing)}",
                help=how_to_measure_alike(
                    first,
                    other,
                    f"all runs with one command: byrote run SERIES... --fresh -o {first.path.parent}",
                ),
            )


@dataclass(frozen=True)
class SeedMetric:
    """One metric at one step, by run, those of A first.

    Attributes:
        info: of its probe.
        name: of the metric.
        values: one per run.
        samples: by sequence, where all runs saw the same ones.
        errors: standard error of each value over its sequences; NaN where nothing is sampled.
    """

    info: ProbeInfo
    name: str
    values: Float[np.ndarray, " runs"]
    samples: Float[np.ndarray, "n runs"] | None
    errors: Float[np.ndarray, " runs"]


def _rows(
    runs: Sequence[Results], n_a: int, steps: tuple[int, ...], notes: list[str], *, paired: bool
) -> Iterator[dict[str, Any]]:
    frames = [run.samples(step) for run, step in zip(runs, steps, strict=True)]
    own: set[str] = set()
    for i, other in enumerate(runs[1:], 1):
        own |= own_units(runs[0], other, (steps[0], steps[i]))
    for metric in _metrics(runs[0], frames, own, notes):
        yield {"step": steps[0], **metric_row(metric, n_a, paired=paired)}


def _metrics(
    first: Results, frames: Sequence[pd.DataFrame], own: set[str], notes: list[str]
) -> Iterator[SeedMetric]:
    """What is one number per run: of the whole model, the strongest heads, and sums over heads."""
    whole = [frame[frame["layer"].isna() & frame["position"].isna()] for frame in frames]
    partly: dict[str, list[str]] = {}
    for probe, metric in whole[0].groupby(["probe", "metric"], sort=True).groups:
        info = first.info(probe)
        if not info.compares(metric) or metric not in info.metrics:
            continue
        rows = [
            frame[(frame["probe"] == probe) & (frame["metric"] == metric) & frame["valid"]] for frame in whole
        ]
        if any(len(mine) != 1 for mine in rows):
            if any(map(len, rows)):
                partly.setdefault(probe_name(probe), []).append(probe_name(metric))
            continue
        samples = [stacked(mine["samples"])[:, 0] for mine in rows]
        values = np.array([float(mine["value"].iloc[0]) for mine in rows])
        yield _metric(info, metric, values, samples, shared=unit_of(info, metric) not in own)
    if partly:
        names = [f"{name} ({', '.join(metrics)})" for name, metrics in partly.items()]
        notes.append(f"not measured in all runs: {'; '.join(names)}")
    for probe in best_compared():
        info, sides = first.info(probe), [one_per_head(frame, probe, "score") for frame in frames]
        if all(len(side) and len(side["samples"].iloc[0]) for side in sides):
            samples = [stacked(side["samples"]) for side in sides]
            lower = info.better_of("score") == "lower"
            best = [(-1) ** lower * held_out_best((-1) ** lower * x)[1] for x in samples]
            yield _metric(info, BEST_HEAD, None, best)
            chance = [side["chance"].to_numpy(np.float64) for side in sides]
            summed = [unnamed_heads.mass(x, c)[:, 0] for x, c in zip(samples, chance, strict=True)]
            yield _metric(info, f"score:{MASS}", None, summed)


def _metric(
    info: ProbeInfo,
    name: str,
    values: Float[np.ndarray, " runs"] | None,
    samples: Sequence[Float[np.ndarray, " n"]],
    *,
    shared: bool = True,
) -> SeedMetric:
    means = np.array([np.nanmean(x) for x in samples]) if values is None else values
    errors = np.array([np.sqrt(sequence_variance(x)) if len(x) > 1 else np.nan for x in samples])
    common = np.stack(shared_sequences(samples), axis=1) if shared else np.zeros((0, len(samples)))
    return SeedMetric(info, name, means, common if len(common) > 1 else None, errors)


def metric_row(metric: SeedMetric, n_a: int, *, paired: bool) -> dict[str, Any]:
    """One metric of two groups compared: `GROUP_COLUMNS` but for step, q, family and change.

    Args:
        metric: by run.
        n_a: how many of the runs are A's.
        paired: whether the runs of B are the same seeds in the same order.
    """
    a, b = metric.values[:n_a], metric.values[n_a:]
    common = 0.0
    if metric.samples is not None:
        difference = np.nanmean(metric.samples[:, n_a:], axis=1) - np.nanmean(metric.samples[:, :n_a], axis=1)
        common = sequence_variance(difference)
    test: Callable[..., SeedDifference] = paired_difference if paired else unpaired_difference
    found = test(a, b, sequences=common)
    sds = [float(x.std(ddof=1)) if len(x) > 1 else np.nan for x in (a, b)]
    known = metric.errors[np.isfinite(metric.errors)]
    error = float(known.mean()) if len(known) else np.nan
    spread = float(np.sqrt(np.nanmean(np.square(sds)))) if np.isfinite(sds).any() else np.nan
    own = metric.name.partition(":")[0]
    return {
        "probe": metric.info.name, "metric": metric.name, "a": float(a.mean()), "b": float(b.mean()),
        "difference": found.value, "lo": found.lo, "hi": found.hi, "p": found.p,
        "seeds_a": len(a), "seeds_b": len(b), "n": 0 if metric.samples is None else len(metric.samples),
        "smallest": smallest_effect(metric.info, own), "better": metric.info.better_of(own),
        "sd_a": sds[0], "sd_b": sds[1], "sequence_se": error,
        "seed_to_sequence": spread / error if error > 0 else np.nan,
        "how": PAIRED if paired else WELCH, "values_a": a.tolist(), "values_b": b.tolist(),
    }  # fmt: skip


def judged_rows(parts: Sequence[dict[str, Any]], seeds: int) -> pd.DataFrame:
    """Rows of `metric_row` with their `step`, corrected within families and put in words.

    Args:
        parts: the rows of every step compared.
        seeds: training seeds on the side that has fewer.
    """
    if not parts:
        return pd.DataFrame(columns=GROUP_COLUMNS)
    rows = pd.DataFrame(parts)
    n = rows["n"]
    rows = judged(rows.assign(layer=pd.NA, position=pd.NA, n=rows["seeds_a"] + rows["seeds_b"]), seeds=seeds)
    return rows.assign(n=n)[GROUP_COLUMNS]


def _onsets(a: Group, b: Group) -> pd.DataFrame:
    rows = []
    for one in (a, b):
        for run in one.runs:
            found = onset(run)
            before, at = found.bracket or (None, None)
            rows.append(
                {
                    "arm": one.name,
                    "run": run.run,
                    "seed": run.facts.init_seed,
                    "formed": float(found.found) if found.measured else np.nan,
                    "step_before": before,
                    "step_at": at,
                    "last_step": run.last_step,
                }
            )
    return pd.DataFrame(rows).astype(dict.fromkeys(("seed", "step_before", "step_at", "last_step"), "Int64"))


def _compared_onsets(
    onsets: pd.DataFrame, n_a: int, seed: int
) -> tuple[tuple[int, int, int, int] | None, float, float]:
    """Counts of seeds that form induction heads, and p of the counts and of the onsets being alike."""
    if onsets["formed"].isna().any():
        return None, np.nan, np.nan
    yes, in_b = onsets["formed"].to_numpy() == 1, np.arange(len(onsets)) >= n_a
    formed = int(yes[:n_a].sum()), n_a, int(yes[n_a:].sum()), len(onsets) - n_a
    brackets = [
        (float(row.last_step), np.inf)
        if pd.isna(row.step_at)
        else (-np.inf if pd.isna(row.step_before) else float(row.step_before), float(row.step_at))
        for row in onsets.itertuples(index=False)
    ]
    p = np.array([fisher_exact(*formed), rank_test(later(brackets), in_b.astype(int), seed=seed)])
    p_formed, p_onset = holm(p)
    return formed, float(p_formed), float(p_onset)
