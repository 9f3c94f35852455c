"""Run against run: paired differences on the same tokens, with intervals, corrected over metrics, heads and steps. No torch.

Both runs saw the same stimuli, so per-sequence values are paired and subtracted before anything is averaged. The
intervals cover the choice of test sequences. They do not cover the training seed: two runs of one arm differ as significantly as
two arms do, so that nothing here is better or worse, only higher or lower in these two runs. `group_comparison` compares
arms of several seeds.

A change is reported only when its whole interval lies beyond the smallest effect of interest (`byrote.probes.rules`) and q
is below 5%: paired sequences make any two checkpoints differ significantly in something. Heads stand against each other by name
only where both runs grew from the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.setting import is_whole
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
    how_to_measure_alike,
    init_disagreement,
    matched_steps,
    own_units,
    shared_sequences,
)
from byrote.probes.findings_compared import comparison_sentence
from byrote.probes.registry import best_compared
from byrote.probes.results import Results
from byrote.probes.results.opened import accepts_paths
from byrote.probes.results.rows import labels
from byrote.probes.results.schema import AXES
from byrote.probes.results.source import Metric
from byrote.probes.results.unit_files import unit_of
from byrote.probes.rules import judge_change, smallest_effect
from byrote.probes.spec import ProbeInfo
from byrote.probes.statistics import benjamini_hochberg, bootstrap_mean, held_out_best, p_two_sided
from byrote.probes.trajectory import onset
from byrote.probes.untested import BY_NAME_NOTE, untested_rows, untested_sentence
from byrote.probes.wording import counted

_AXES = [*AXES]
_NOWHERE = np.zeros(0, dtype=np.intp)
_OWN_NOTE = "members, twins or natural text are each run's own sequences: they are not subtracted sequence by sequence"
ROW_COLUMNS = [
    "probe", "metric", "layer", "head", "position", "step_a", "step_b", "tokens_a", "tokens_b",
    "head_a", "head_b", "a", "b", "difference", "lo", "hi", "n", "p", "q", "family", "smallest", "change",
]  # fmt: skip


@accepts_paths("a", "b", one=True)
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
        sentence = untested_sentence(a, b, rows)
        return Comparison(
            a.run, b.run, align, tuple(pairs), rows, onset(a), onset(b), sentence, (BY_NAME_NOTE,)
        )
    disagreement = init_disagreement(a, b)
    how = how_heads(heads, disagreement)
    differing = differing_provenance(a, b, pairs)
    if differing:
        again = f"{a.series_shown or 'A'} {b.series_shown or 'B'}"
        raise ByroteError(
            f"{a.run} and {b.run} were not measured alike: {'; '.join(differing)}",
            help=how_to_measure_alike(
                a, b, f"both with the same command: byrote run {again} --fresh -o {a.path.parent}"
            ),
        )
    unnamed = f"heads are not compared by name: {disagreement}" if disagreement and BY_NAME not in how else ""
    notes = [unnamed] if unnamed else []
    parts = [part for pair in pairs for part in _pair_rows(a, b, pair, how, seed, notes)]
    rows = judged(pd.concat(parts, ignore_index=True)) if parts else pd.DataFrame(columns=ROW_COLUMNS)
    draft = Comparison(
        a.run, b.run, align, tuple(pairs), rows[ROW_COLUMNS], onset(a), onset(b), "",
        tuple(dict.fromkeys(notes)), how, unnamed,
    )  # fmt: skip
    same = a.path.resolve() == b.path.resolve()
    return replace(draft, sentence=with_itself(a.run) if same else comparison_sentence(draft))


def with_itself(run: str) -> str:
    """What is said of a run that is compared with itself."""
    return f"{run} is compared with itself: every difference is exactly 0"


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
        if not is_whole(at):
            raise ByroteError(f"at={at!r} is not a step", help='give "last", "all", or a step such as 1000')
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
    both, places = _joined(left, right), [_places(frame) for frame in (left, right)]
    shared = _places(both)
    of_model, valid = left["layer"].isna().to_numpy(), left["valid"].to_numpy(bool)
    tokens = [frame["tokens_seen"] for frame in (left, right)]
    for (probe, metric), at in sorted(places[0].items()):
        info = a.info(probe)
        if unit_of(info, metric) in own:
            notes += [_OWN_NOTE] if valid[at].any() else []
            continue
        there = [at, places[1].get((probe, metric), _NOWHERE)]
        if not info.compares(metric):
            continue
        if BY_NAME in how or of_model[at].all():
            rows = both.iloc[shared.get((probe, metric), _NOWHERE)]
            columns = _metric_columns(rows, max(map(len, there)), f"{probe}/{metric}", seed, notes)
            if columns is not None:
                seen = [own.iloc[place[0]] for own, place in zip(tokens, there, strict=True)]
                yield _labelled(columns, info, metric, pair, seen)
        elif metric == info.main_metric:
            yield from _unnamed_rows(left, right, places, info, pair, how, seed)
    for probe in best_compared():
        best = _best_head_row(*_of_metric(left, right, places, (probe, "score")), seed)
        if best is not None:
            yield _labelled(best, a.info(probe), BEST_HEAD, pair, [own.iloc[0] for own in tokens])
    verdicts = [run.select("induction", "verdict", step=step) for run, step in zip((a, b), pair, strict=True)]
    if BY_NAME in how and not any(rows.empty for rows in verdicts):
        rows, n_rows = _joined(*verdicts), max(map(len, verdicts))
        columns = _metric_columns(rows, n_rows, "induction/verdict", seed, notes)
        if columns is not None:
            seen = [rows["tokens_seen"].iloc[0] for rows in verdicts]
            yield _labelled(columns, a.info("induction"), "verdict", pair, seen)


def _joined(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """What both have rows of, in the order of the first: a merge of all metrics at once takes as long as one of one."""
    keys = ["probe", "metric", *_AXES]
    columns = [name for name in (*keys, "valid", "value", "samples") if name in left]
    return left[columns].merge(right[columns], on=keys, suffixes=("_a", "_b"))


def _places(rows: pd.DataFrame) -> dict[Metric, Int[np.ndarray, " rows"]]:
    """(probe, metric) -> where its rows are."""
    return dict(rows.groupby(["probe", "metric"]).indices)


def _of_metric(
    left: pd.DataFrame, right: pd.DataFrame, places: Sequence[dict[Metric, Any]], metric: Metric
) -> tuple[pd.DataFrame, pd.DataFrame]:
    there, here = (where.get(metric, _NOWHERE) for where in places)
    return left.iloc[there], right.iloc[here]


def _metric_columns(
    joined: pd.DataFrame, n_rows: int, name: str, seed: int, notes: list[str]
) -> dict[str, Any] | None:
    """The columns of a metric's rows; None where nothing of it was measured in both runs.

    Args:
        joined: its rows of both runs, see `_joined`.
        n_rows: how many the run with more has.
        name: what notes call it.
        seed: of the bootstrap.
        notes: are added to.
    """
    usable = joined[(joined["valid_a"] & joined["valid_b"]).to_numpy(bool)]
    if len(usable) < n_rows:
        notes.append(f"{name}: {counted(n_rows - len(usable), 'value')} not measured in both runs")
    if usable.empty:
        return None
    heads = labels(usable)
    columns = {axis: usable[axis].array for axis in _AXES}
    columns |= {
        "a": usable["value_a"].to_numpy(),
        "b": usable["value_b"].to_numpy(),
        "head_a": heads,
        "head_b": heads,
    }
    if "samples_a" in usable and len(usable["samples_a"].iloc[0]):
        both = [stacked(usable[f"samples_{side}"]) for side in "ab"]
        if len(both[0]) != len(both[1]):  # what is shown is of the sequences that both saw
            both = shared_sequences(both)
            columns |= {side: np.nanmean(values, 0) for side, values in zip("ab", both, strict=True)}
        return columns | _difference_columns(*both, seed=seed)
    exact = columns["b"] - columns["a"]
    columns |= dict.fromkeys(("difference", "lo", "hi"), exact)  # given the weights: no sampling error
    return columns | {"n": 0, "p": np.nan, "q": np.nan}


def _unnamed_rows(
    left: pd.DataFrame,
    right: pd.DataFrame,
    places: Sequence[dict[Metric, Any]],
    info: ProbeInfo,
    pair: tuple[int, int],
    how: tuple[str, ...],
    seed: int,
) -> Iterator[pd.DataFrame]:
    """A probe's heads compared without their names, in each way requested, on its main metric."""
    name = info.name, info.main_metric
    sides = [one_per_head(rows, *name) for rows in _of_metric(left, right, places, name)]
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
                one_run, other = _profiles(left, right, without=info.name)
                like = unnamed_heads.matched(one_run, other, layer)
                orders = [np.arange(len(like)), like]
            table = _valued(*(x[:, order] for x, order in zip(samples, orders, strict=True)), seed=seed)
            for side, rows, order in zip(("head_a", "head_b"), sides, orders, strict=True):
                table[side] = labels(rows.iloc[order])
            table = table.assign(**dict.fromkeys(_AXES, pd.NA)).assign(position=np.arange(1, len(table) + 1))
        table = table.astype(dict.fromkeys(_AXES, "Int64"))
        seen = [frame["tokens_seen"].iloc[0] for frame in (left, right)]
        yield _labelled(table, info, f"{info.main_metric}:{one}", pair, seen)


def one_per_head(frame: pd.DataFrame, probe: str, metric: str) -> pd.DataFrame:
    """The valid rows of a metric that are one number per head, by layer and head."""
    rows = frame[(frame["probe"] == probe) & (frame["metric"] == metric) & frame["valid"]]
    rows = rows[rows["layer"].notna() & rows["src_layer"].isna() & rows["position"].isna()]
    return rows.sort_values(["layer", "head"])


def _profiles(*frames: pd.DataFrame, without: str) -> list[Float[np.ndarray, "k m"]]:
    """Scores of every head of two runs on the other probes, those that all heads of both have."""
    tables = []
    for frame in frames:
        rows = frame[(frame["probe"] != without) & frame["layer"].notna() & frame["src_layer"].isna()]
        rows = rows[rows["position"].isna()]
        table = rows.pivot(index=["layer", "head"], columns=["probe", "metric"], values="value")
        tables.append(table.sort_index())
    shared = [column for column in tables[0].columns if column in tables[1].columns]
    return [table[shared].to_numpy(np.float64) for table in tables]


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
    return pd.DataFrame(_difference_columns(a, b, seed=seed))


def _difference_columns(
    a: Float[np.ndarray, "n k"], b: Float[np.ndarray, "n k"], *, seed: int
) -> dict[str, np.ndarray]:
    difference = b - a
    interval, p = bootstrap_mean(difference, seed=seed), p_two_sided(difference)
    columns = {
        "difference": interval.value,
        "lo": interval.lo,
        "hi": interval.hi,
        "n": interval.n.astype(int),
    }
    return {**columns, "p": p, "q": benjamini_hochberg(p)}


def _best_head_row(left: pd.DataFrame, right: pd.DataFrame, seed: int) -> pd.DataFrame | None:
    """The strongest head of each run against each other: heads trade places between runs, the function does not.

    Args:
        left, right: a probe's rows of `score`.
        seed: of the bootstrap.
    """
    scored = [frame[frame["valid"]] for frame in (left, right)]
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
    columns: pd.DataFrame | dict[str, Any],
    info: ProbeInfo,
    metric: str,
    pair: tuple[int, int],
    tokens: Sequence[Any],
) -> pd.DataFrame:
    """Rows of one metric that say which: its columns, and those that are the same in all of them."""
    own = metric.partition(":")[0]
    return pd.DataFrame({
        **(columns if isinstance(columns, dict) else {name: columns[name].array for name in columns}),
        "probe": info.name, "metric": metric, "step_a": pair[0], "step_b": pair[1], "tokens_a": tokens[0], "tokens_b": tokens[1],
        "smallest": smallest_effect(info, own), "better": info.better_of(own),
    })  # fmt: skip


def stacked(samples: pd.Series) -> Float[np.ndarray, "n k"]:
    """Values per sequence of several rows, one column each."""
    return np.stack([np.asarray(s, dtype=np.float64) for s in samples], axis=1)
