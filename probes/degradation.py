"""Run against run: paired differences on the same tokens, with intervals, corrected over heads; and onsets. No torch.

Both runs saw the same stimuli, so per-sequence values are paired and subtracted before anything is averaged. The
intervals cover the choice of test sequences. They do not cover the training seed: one run per arm shows what happened
in these two runs, and several seeds are needed before it is said of the data.

A change is reported only when its interval excludes 0, q is below 5% after correction over heads, and it is at least the
smallest effect of interest (`byrote.probes.rules`): paired sequences make any two checkpoints differ surely in something.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.interp.axes import head_label
from byrote.probes import findings
from byrote.probes.comparable import BEST_HEAD, Comparison, differing_provenance, matched_steps, own_units
from byrote.probes.registry import best_compared
from byrote.probes.results import Results
from byrote.probes.results.rows import row_label
from byrote.probes.results.schema import AXES
from byrote.probes.results.unit_files import unit_of
from byrote.probes.rules import judge_change, smallest_effect
from byrote.probes.spec import ProbeInfo
from byrote.probes.statistics import benjamini_hochberg, bootstrap_mean, held_out_best, p_two_sided
from byrote.probes.trajectory import onset
from byrote.probes.untested import BY_NAME_NOTE, untested_rows, untested_sentence

_AXES = [*AXES]
_OWN_NOTE = "members, twins or natural text are each run's own sequences: they are not subtracted sequence by sequence"
ROW_COLUMNS = [
    "probe", "metric", "layer", "head", "position", "step_a", "step_b", "tokens_a", "tokens_b",
    "head_a", "head_b", "a", "b", "difference", "lo", "hi", "n", "p", "q", "smallest", "change",
]  # fmt: skip


def compare(
    a: Results, b: Results, *, align: str = "step", at: Literal["last", "all"] | int = "last", seed: int = 0
) -> Comparison:
    """Compare run B against run A, the baseline.

    Args:
        a: the baseline.
        b: the run in question.
        align: match checkpoints by optimiser step, by tokens seen, or by recorded training loss.
        at: compare at the last matched pair, at all of them, or at the pair of one step of A.
        seed: of the bootstrap.

    Raises:
        ByroteError: nothing to match on, or provenance differs in anything but the weights; the help says how to fix it.
    """
    pairs = _chosen(matched_steps(a, b, align), at, a)
    if a.imported or b.imported:
        rows = untested_rows(a, b, pairs)[ROW_COLUMNS]
        said = untested_sentence(a, b, rows)
        return Comparison(a.run, b.run, align, tuple(pairs), rows, onset(a), onset(b), said, (BY_NAME_NOTE,))
    differing = differing_provenance(a, b, pairs)
    if differing:
        raise ByroteError(
            f"{a.run} and {b.run} were not measured alike: {'; '.join(differing)}",
            help="measure both with the same command: "
            f"byrote run {a.series_shown or 'A'} {b.series_shown or 'B'} --fresh -o {a.path.parent}",
        )
    notes: list[str] = []
    parts = [part for pair in pairs for part in _pair_rows(a, b, pair, seed, notes)]
    rows = pd.concat(parts, ignore_index=True)[ROW_COLUMNS] if parts else pd.DataFrame(columns=ROW_COLUMNS)
    onset_a, onset_b = onset(a), onset(b)
    draft = Comparison(
        a.run, b.run, align, tuple(pairs), rows, onset_a, onset_b, "", tuple(dict.fromkeys(notes))
    )
    return replace(draft, sentence=findings.comparison(draft))


def _chosen(pairs: list[tuple[int, int]], at: str | int, a: Results) -> list[tuple[int, int]]:
    if at == "all":
        return pairs
    if at == "last":
        return pairs[-1:]
    chosen = [pair for pair in pairs if pair[0] == at]
    if not chosen:
        near = sorted({s for s, _ in pairs}, key=lambda s: abs(s - int(at)))[:2]
        raise ByroteError(
            f"step {at} of {a.run} is not among the {len(pairs)} matched steps",
            help=f"nearest are {', '.join(str(s) for s in sorted(near))}",
        )
    return chosen


def _pair_rows(
    a: Results, b: Results, pair: tuple[int, int], seed: int, notes: list[str]
) -> Iterator[pd.DataFrame]:
    left, right = a.samples(pair[0]), b.samples(pair[1])
    own = own_units(a, b, pair)
    for (probe, metric), rows_a in left.groupby(["probe", "metric"], sort=True):
        info = a.info(probe)
        if unit_of(info, metric) in own:
            notes += [_OWN_NOTE] if rows_a["valid"].any() else []
            continue
        rows_b = right[(right["probe"] == probe) & (right["metric"] == metric)]
        if not info.compares(metric):
            continue
        table = _metric_rows(rows_a, rows_b, seed, notes)
        if table is not None:
            yield _labelled(table, info, metric, pair, rows_a, rows_b)
    for probe in best_compared():
        best = _best_head_row(left, right, probe, seed)
        if best is not None:
            yield _labelled(best, a.info(probe), BEST_HEAD, pair, left, right)
    verdict_a, verdict_b = (
        run.select("induction", "verdict", step=step) for run, step in zip((a, b), pair, strict=True)
    )
    if not verdict_a.empty and not verdict_b.empty:
        table = _metric_rows(verdict_a, verdict_b, seed, notes)
        if table is not None:
            yield _labelled(table, a.info("induction"), "verdict", pair, verdict_a, verdict_b)


def _metric_rows(
    rows_a: pd.DataFrame, rows_b: pd.DataFrame, seed: int, notes: list[str]
) -> pd.DataFrame | None:
    merged = rows_a.merge(rows_b, on=_AXES, suffixes=("_a", "_b"))
    name = f"{rows_a['probe'].iloc[0]}/{rows_a['metric'].iloc[0]}"
    usable = merged[merged["valid_a"] & merged["valid_b"]]
    if len(usable) < max(len(rows_a), len(rows_b)):
        notes.append(
            f"{name}: {max(len(rows_a), len(rows_b)) - len(usable)} values are not measured in both runs"
        )
    if usable.empty:
        return None
    table = usable[[*_AXES]].copy()
    table["a"], table["b"] = usable["value_a"].to_numpy(), usable["value_b"].to_numpy()
    table["head_a"] = table["head_b"] = [row_label(row) for row in usable[_AXES].itertuples(index=False)]
    if "samples_a" in usable and len(usable["samples_a"].iloc[0]):
        tested = difference_table(_stack(usable["samples_a"]), _stack(usable["samples_b"]), seed=seed)
        return table.assign(**{name: tested[name].to_numpy() for name in tested})
    table["difference"] = table["b"] - table["a"]
    table["lo"] = table["hi"] = table["difference"]  # exact given the weights: no sampling error
    table["n"], table["p"], table["q"] = 0, np.nan, np.nan
    return table


def difference_table(
    a: Float[np.ndarray, "n k"], b: Float[np.ndarray, "n k"], *, seed: int = 0
) -> pd.DataFrame:
    """Paired difference b - a of k numbers with interval, n, p, and q adjusted over the k.

    Args:
        a, b: per-sequence values of the two runs, the same sequences in the same rows.
        seed: of the bootstrap.
    """
    difference = b - a
    interval, p = bootstrap_mean(difference, seed=seed), p_two_sided(difference)
    columns = {
        "difference": interval.value,
        "lo": interval.lo,
        "hi": interval.hi,
        "n": interval.n.astype(int),
    }
    return pd.DataFrame({**columns, "p": p, "q": benjamini_hochberg(p)})


def _best_head_row(left: pd.DataFrame, right: pd.DataFrame, probe: str, seed: int) -> pd.DataFrame | None:
    """The strongest head of each run against each other: heads trade places between runs, the function does not."""
    scored = [
        frame[(frame["probe"] == probe) & (frame["metric"] == "score") & frame["valid"]]
        for frame in (left, right)
    ]
    if any(rows.empty or not rows["samples"].str.len().all() for rows in scored):
        return None
    tested, best = strongest_difference(*(_stack(rows["samples"]) for rows in scored), seed=seed)
    for name, rows, index in zip(("head_a", "head_b"), scored, best, strict=True):
        row = rows.iloc[index]
        tested[name] = [head_label(int(row["layer"]), int(row["head"]))]
    return tested.assign(**{axis: pd.array([pd.NA], dtype="Int64") for axis in _AXES})


def strongest_difference(
    a: Float[np.ndarray, "n k"], b: Float[np.ndarray, "n l"], *, seed: int = 0
) -> tuple[pd.DataFrame, tuple[int, int]]:
    """The strongest of k numbers against the strongest of l, their choice not passing for a difference.

    Values are those of `held_out_best`; q is twice p, because either choice is made twice, on half of the rows each:
    where several are equally strong, rows are a little less independent than the test takes them to be.

    Args:
        a, b: per-sequence values of the two runs, the same sequences in the same rows.
        seed: of the bootstrap.

    Returns:
        The row of `difference_table` with the values `a` and `b`, and which columns are strongest.
    """
    found = held_out_best(a), held_out_best(b)
    table = difference_table(*(values[:, None] for _, values in found), seed=seed)
    means = {name: [float(np.nanmean(values))] for name, (_, values) in zip("ab", found, strict=True)}
    return table.assign(q=np.minimum(1.0, 2 * table["p"]), **means), (found[0][0], found[1][0])


def _labelled(
    table: pd.DataFrame,
    info: ProbeInfo,
    metric: str,
    pair: tuple[int, int],
    rows_a: pd.DataFrame,
    rows_b: pd.DataFrame,
) -> pd.DataFrame:
    table = table.assign(
        probe=info.name,
        metric=metric,
        step_a=pair[0],
        step_b=pair[1],
        tokens_a=rows_a["tokens_seen"].iloc[0],
        tokens_b=rows_b["tokens_seen"].iloc[0],
    )
    own = "score" if metric == BEST_HEAD else metric
    better = info.better_of(own)
    table["smallest"] = smallest_effect(info, own)
    table["change"] = [judge_change(row, better) for row in table.to_dict("records")]
    return table


def _stack(samples: pd.Series) -> np.ndarray:
    return np.stack([np.asarray(s, dtype=np.float64) for s in samples], axis=1)
