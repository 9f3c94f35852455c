"""Run against run: paired differences on the same tokens, with intervals, corrected over metrics, heads and steps. No torch.

Both runs saw the same stimuli, so per-sequence values are paired and subtracted before anything is averaged. The
intervals cover the choice of test sequences. They do not cover the training seed: two runs of one arm differ as surely as
two arms do, so that nothing here is better or worse, only higher or lower in these two runs. `group_comparison` compares
arms of several seeds.

A change is reported only when its whole interval lies beyond the smallest effect of interest (`byrote.probes.rules`) and q
is below 5%: paired sequences make any two checkpoints differ surely in something. Heads stand against each other by name
only where both runs grew from the same weights.
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
from byrote.probes import unnamed_heads
from byrote.probes.comparable import (
    BEST_HEAD,
    BY_NAME,
    MASS,
    MATCHED,
    Comparison,
    corrected,
    differing_provenance,
    how_heads,
    init_disagreement,
    matched_steps,
    own_units,
    shared_sequences,
)
from byrote.probes.findings_compared import comparison_sentence
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
    "head_a", "head_b", "a", "b", "difference", "lo", "hi", "n", "p", "q", "family", "smallest", "change",
]  # fmt: skip


def compare(
    a: Results,
    b: Results,
    *,
    align: str = "step",
    at: Literal["last", "all"] | int = "last",
    heads: str = "auto",
    seed: int = 0,
) -> Comparison:
    """Compare run B against run A, the baseline.

    Args:
        a: the baseline.
        b: the run in question.
        align: match checkpoints by optimiser step, by tokens seen, or by held-out loss.
        at: compare at the last matched pair, at all of them, or at the pair of one step of A.
        heads: "auto": by name where both runs grew from the same weights, else sorted scores and their mass. Or one of
            "name", "sorted" (the strongest with the strongest, and so on), "mass" (their sum above chance) and "matched"
            (one to one within layers, by their other scores).
        seed: of the bootstrap.

    Raises:
        ByroteError: nothing to match on, provenance differs in anything but the weights, or heads by name where they
            are not each other's likes; the help says how to fix it.
    """
    pairs = chosen_pairs(matched_steps(a, b, align), at, a)
    if a.imported or b.imported:
        rows = untested_rows(a, b, pairs, heads=heads)[ROW_COLUMNS]
        said = untested_sentence(a, b, rows)
        return Comparison(a.run, b.run, align, tuple(pairs), rows, onset(a), onset(b), said, (BY_NAME_NOTE,))
    disagreement = init_disagreement(a, b)
    how = how_heads(heads, disagreement)
    differing = differing_provenance(a, b, pairs)
    if differing:
        raise ByroteError(
            f"{a.run} and {b.run} were not measured alike: {'; '.join(differing)}",
            help="measure both with the same command: "
            f"byrote run {a.series_shown or 'A'} {b.series_shown or 'B'} --fresh -o {a.path.parent}",
        )
    notes = [f"heads are not compared by name: {disagreement}"] if disagreement and BY_NAME not in how else []
    parts = [part for pair in pairs for part in _pair_rows(a, b, pair, how, seed, notes)]
    rows = judged(pd.concat(parts, ignore_index=True)) if parts else pd.DataFrame(columns=ROW_COLUMNS)
    draft = Comparison(
        a.run, b.run, align, tuple(pairs), rows[ROW_COLUMNS], onset(a), onset(b), "",
        tuple(dict.fromkeys(notes)), how,
    )  # fmt: skip
    return replace(draft, sentence=comparison_sentence(draft))


def judged(rows: pd.DataFrame, *, seeds: int = 1) -> pd.DataFrame:
    """The rows corrected for how many there are, each with the change it is reported as.

    Args:
        rows: with probe, metric, layer, position, difference, lo, hi, n, p, smallest and `better`.
        seeds: training seeds a side.
    """
    rows = corrected(rows)
    better = [way if isinstance(way, str) else None for way in rows["better"]]  # a table makes NaN of None
    judgements = zip(rows.to_dict("records"), better, strict=True)
    return rows.assign(change=[judge_change(row, way, seeds=seeds) for row, way in judgements])


def chosen_pairs(pairs: list[tuple[int, int]], at: str | int, a: Results) -> list[tuple[int, int]]:
    """The matched pairs that are compared.

    Args:
        pairs: (step of A, step of B), ascending.
        at: "last", "all", or a step of A.
        a: whose steps are named.

    Raises:
        ByroteError: that step is not among them.
    """
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
    a: Results, b: Results, pair: tuple[int, int], how: tuple[str, ...], seed: int, notes: list[str]
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
        if BY_NAME in how or rows_a["layer"].isna().all():
            table = _metric_rows(rows_a, rows_b, seed, notes)
            if table is not None:
                yield _labelled(table, info, metric, pair, rows_a, rows_b)
        elif metric == info.main_metric:
            yield from _unnamed_rows(left, right, info, pair, how, seed)
    for probe in best_compared():
        best = _best_head_row(left, right, probe, seed)
        if best is not None:
            yield _labelled(best, a.info(probe), BEST_HEAD, pair, left, right)
    verdict_a, verdict_b = (
        run.select("induction", "verdict", step=step) for run, step in zip((a, b), pair, strict=True)
    )
    if BY_NAME in how and not verdict_a.empty and not verdict_b.empty:
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
        both = [stacked(usable[f"samples_{side}"]) for side in "ab"]
        if len(both[0]) != len(both[1]):  # what is shown is of the sequences that both saw
            both = shared_sequences(both)
            table["a"], table["b"] = (np.nanmean(values, 0) for values in both)
        tested = difference_table(*both, seed=seed)
        return table.assign(**{name: tested[name].to_numpy() for name in tested})
    table["difference"] = table["b"] - table["a"]
    table["lo"] = table["hi"] = table["difference"]  # exact given the weights: no sampling error
    table["n"], table["p"], table["q"] = 0, np.nan, np.nan
    return table


def _unnamed_rows(
    left: pd.DataFrame,
    right: pd.DataFrame,
    info: ProbeInfo,
    pair: tuple[int, int],
    how: tuple[str, ...],
    seed: int,
) -> Iterator[pd.DataFrame]:
    """A probe's heads compared without their names, in each way requested, on its main metric."""
    sides = [one_per_head(frame, info.name, info.main_metric) for frame in (left, right)]
    if any(rows.empty or not len(rows["samples"].iloc[0]) for rows in sides) or len(sides[0]) != len(
        sides[1]
    ):
        return
    samples = [stacked(rows["samples"]) for rows in sides]
    lower = info.better_of(info.main_metric) == "lower"
    for one in how:
        if one == MASS:
            chance = [rows["chance"].to_numpy(np.float64) for rows in sides]
            values = [unnamed_heads.mass(x, c) for x, c in zip(samples, chance, strict=True)]
            table = _valued(*values, seed=seed).assign(head_a="", head_b="", **dict.fromkeys(_AXES, pd.NA))
        else:
            orders = [unnamed_heads.in_order(x, lower=lower) for x in samples]
            if one == MATCHED:
                layer = sides[0]["layer"].to_numpy(np.int64)
                like = unnamed_heads.matched(_profiles(left, info.name), _profiles(right, info.name), layer)
                orders = [np.arange(len(like)), like]
            table = _valued(*(x[:, order] for x, order in zip(samples, orders, strict=True)), seed=seed)
            for name, rows, order in zip(("head_a", "head_b"), sides, orders, strict=True):
                table[name] = [row_label(row) for row in rows.iloc[order].itertuples(index=False)]
            table = table.assign(**dict.fromkeys(_AXES, pd.NA)).assign(position=np.arange(1, len(table) + 1))
        table = table.astype(dict.fromkeys(_AXES, "Int64"))
        yield _labelled(table, info, f"{info.main_metric}:{one}", pair, left, right)


def one_per_head(frame: pd.DataFrame, probe: str, metric: str) -> pd.DataFrame:
    """The valid rows of a metric that are one number per head, by layer and head."""
    rows = frame[(frame["probe"] == probe) & (frame["metric"] == metric) & frame["valid"]]
    rows = rows[rows["layer"].notna() & rows["src_layer"].isna() & rows["position"].isna()]
    return rows.sort_values(["layer", "head"])


def _profiles(frame: pd.DataFrame, without: str) -> Float[np.ndarray, "k m"]:
    """Scores of every head on the other probes, those that all heads have."""
    rows = frame[(frame["probe"] != without) & frame["layer"].notna() & frame["src_layer"].isna()]
    rows = rows[rows["position"].isna()]
    table = rows.pivot(index=["layer", "head"], columns=["probe", "metric"], values="value")
    return table.sort_index().to_numpy(np.float64)


def _valued(a: Float[np.ndarray, "n k"], b: Float[np.ndarray, "n k"], *, seed: int) -> pd.DataFrame:
    return difference_table(a, b, seed=seed).assign(a=np.nanmean(a, 0), b=np.nanmean(b, 0))


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
    tested, best = strongest_difference(*(stacked(rows["samples"]) for rows in scored), seed=seed)
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
    own = metric.partition(":")[0]
    return table.assign(smallest=smallest_effect(info, own), better=info.better_of(own))


def stacked(samples: pd.Series) -> Float[np.ndarray, "n k"]:
    """Values per sequence of several rows, one column each."""
    return np.stack([np.asarray(s, dtype=np.float64) for s in samples], axis=1)
