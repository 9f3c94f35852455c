"""How the runs came to be what they are: trajectories, small multiples, the strongest heads, copying curves."""

from __future__ import annotations

from typing import Any

import pandas as pd

from byrote.interp.axes import head_label
from byrote.probes import figures
from byrote.probes.figures.cells import ABSENT
from byrote.probes.figures.head_grid import panel_steps, spaced_steps
from byrote.probes.figures.select import top_heads, value_range
from byrote.probes.results import Results
from byrote.probes.results.rows import row_label
from byrote.probes.wording import chance_number, clean, probe_name, sentence_case, short, step_number
from byrote.report.events import event_blocks
from byrote.report.model import Block, Estimate, Picture, Prose, Section, Spark, Table, Value, Words
from byrote.report.positions import position_blocks
from byrote.report.scene import Scene, at_last, estimate_of, last_step, rows_of, valid_rows

N_TRAJECTORIES = 3
N_TOP_HEADS = 5
N_RUNS_WITH_GRIDS = 4
MAX_TABLE_ROWS = 48
MAX_TABLE_CELLS = 400


def timeline_section(scene: Scene) -> Section:
    """Scores over training steps, and the head grid at chosen steps on one scale."""
    probes = scene.head_probes
    if not probes and not scene.with_valid("repeat_loss", "later_blocks"):
        return Section("timeline", "Over training", (Prose("No score was measured at any step."),))
    blocks: list[Block] = []
    if all(len(r.steps) < 2 for r in scene.measured):
        only = Prose("Only one checkpoint was measured: more are needed to see change over training.")
        return Section("timeline", "Over training", (only,))
    for probe in probes[:N_TRAJECTORIES]:
        runs = scene.with_valid(probe)
        onsets = scene.onsets if probe == probes[0] else {}
        figure = figures.trajectory(runs, probe=probe, base=scene.base, onsets=onsets)
        blocks.append(Picture(f"trajectory-{probe}", figure, _trajectory_table(runs, probe)))
    losses = [
        r
        for r in scene.with_valid("repeat_loss", "later_blocks")
        if not rows_of(r, "repeat_loss", "first_block").empty
    ]
    if losses:
        figure = figures.loss_curves(losses, base=scene.base)
        blocks.append(Picture("loss-curves", figure, _loss_table(losses)))
    blocks += event_blocks(scene)
    if probes:
        blocks += _grids(scene, probes[0])
    return Section("timeline", "Over training", tuple(blocks))


def heads_section(scene: Scene) -> Section:
    """The strongest heads of each run at its last step, each with its history."""
    probes = scene.head_probes
    if not probes:
        return Section("heads", "Strongest heads", (Prose("No head was measured."),))
    main, others = probes[0], probes[1:3]
    rows = [row for r in scene.with_valid(main) for row in _head_rows(r, main, others)]
    table = Table(
        name="heads-table",
        caption=f"The {N_TOP_HEADS} strongest heads of each run on {probe_name(main)} at its last step. The small curve "
        "is that score over the measured steps, on the probe's own range.",
        columns=("Run", "Head", "Over training", sentence_case(probe_name(main)), "n", "Chance",
                 *(sentence_case(probe_name(p)) for p in others), "Induction"),
        rows=tuple(rows),
    )  # fmt: skip
    blocks: list[Block] = [table]
    for index, results in enumerate(scene.with_valid(main)[:N_RUNS_WITH_GRIDS]):
        figure = figures.head_grid(results, probe=main, step=_last_with(results, main))
        blocks.append(
            Picture(
                f"grid-{index}",
                figure,
                _grid_table(results, main, [_last_with(results, main)], f"grid-{index}"),
            )
        )
    return Section("heads", "Strongest heads", tuple(blocks))


def curves_section(scene: Scene) -> Section:
    """Loss from copy to copy, and how far back the strongest heads look."""
    blocks: list[Block] = []
    copying = [
        r for r in scene.with_valid("copy_curve", "loss") if not at_last(r, "copy_curve", "loss").empty
    ]
    if copying:
        blocks.append(
            Picture("copy-curve", figures.copy_curve(copying, base=scene.base), _copy_table(copying))
        )
    blocks += position_blocks(scene)
    looking = [
        r
        for r in scene.with_valid("offset_profile", "profile")
        if not at_last(r, "offset_profile", "profile").empty
    ]
    for index, results in enumerate(looking[:N_RUNS_WITH_GRIDS]):
        figure = figures.offset_profile(results)
        blocks.append(Picture(f"offset-{index}", figure, _offset_table(results, f"offset-{index}")))
    if not blocks:
        blocks.append(Prose("Neither copy_curve nor offset_profile was measured."))
    return Section("curves", "Copying, copy by copy", tuple(blocks))


def _grids(scene: Scene, probe: str) -> list[Block]:
    blocks: list[Block] = []
    runs = scene.with_valid(probe)
    for index, results in enumerate(runs[:N_RUNS_WITH_GRIDS]):
        bracket = getattr(scene.onsets.get(results.run), "bracket", None) or ()
        steps = panel_steps(rows_of(results, probe, "score"), keep=[s for s in bracket if s is not None])
        figure = figures.grid_steps(results, probe=probe, steps=steps)
        blocks.append(Picture(f"steps-{index}", figure, _grid_table(results, probe, steps, f"steps-{index}")))
    if len(runs) > N_RUNS_WITH_GRIDS:
        blocks.append(
            Prose(
                f"Grids of {len(runs) - N_RUNS_WITH_GRIDS} more runs are left out; scores.csv has them.",
                "note",
            )
        )
    return blocks


def _trajectory_table(runs: list[Results], probe: str) -> Table:
    """The strongest head of every run at every step."""
    steps = sorted({int(s) for r in runs for s in rows_of(r, probe, "score")["step"]})
    best = {r.run: _best_by_step(rows_of(r, probe, "score")) for r in runs}
    shown, left_out = _thinned(steps)
    return Table(
        name=f"trajectory-{probe}-table",
        caption=f"Strongest head on {probe_name(probe)} at each step, with its 95% interval. {_counts(runs, probe, 'score')}",
        columns=("Step", *(short(r.run) for r in runs)),
        rows=tuple((step_number(s), *(best[r.run].get(s) for r in runs)) for s in shown),
        n_left_out=left_out,
    )


def _best_by_step(rows: pd.DataFrame) -> dict[int, Estimate]:
    valid = rows["valid"].astype(bool)
    ranked = rows.assign(_score=rows["value"].where(valid)).sort_values(
        ["step", "_score", "layer", "head"], ascending=[True, False, True, True], kind="stable"
    )
    first = ranked.drop_duplicates("step")
    return {
        int(r.step): estimate_of(r, where=row_label(r) if r.valid else "")
        for r in first.itertuples(index=False)
    }


def _loss_table(runs: list[Results]) -> Table:
    metrics = ("first_block", "later_blocks")
    cells = {
        (r.run, m): {
            int(row.step): estimate_of(row) for row in rows_of(r, "repeat_loss", m).itertuples(index=False)
        }
        for r in runs
        for m in metrics
    }
    steps, left_out = _thinned(sorted({step for column in cells.values() for step in column}))
    return Table(
        name="loss-curves-table",
        caption=f"Loss in nats, with 95% intervals. {_counts(runs, 'repeat_loss', 'later_blocks')}",
        columns=(
            "Step",
            *(f"{short(run)}, {'first block' if m == 'first_block' else 'repeats'}" for run, m in cells),
        ),
        rows=tuple((step_number(s), *(column.get(s) for column in cells.values())) for s in steps),
        n_left_out=left_out,
    )


def _grid_table(results: Results, probe: str, steps: list[int], name: str) -> Table:
    """One row per head, one column per step."""
    rows = rows_of(results, probe, "score")
    by_step = {
        s: {row_label(r): estimate_of(r) for r in rows[rows["step"] == s].itertuples(index=False)}
        for s in steps
    }
    last = rows[rows["step"] == steps[-1]]
    ranked = [head_label(*h) for h in top_heads(last, len(last))]
    most = min(MAX_TABLE_ROWS, max(8, MAX_TABLE_CELLS // len(steps)))
    heads = ranked + sorted({row_label(r) for r in last.itertuples(index=False)} - set(ranked))
    return Table(
        name=f"{name}-table",
        caption=f"{sentence_case(probe_name(probe))} of {clean(results.run)}, strongest heads at the last step first. "
        f"{_counts([results], probe, 'score')}",
        columns=("Head", *(f"step {step_number(s)}" for s in steps)),
        rows=tuple(
            (h, *(by_step[s].get(h, Estimate(None, reason=ABSENT)) for s in steps)) for h in heads[:most]
        ),
        n_left_out=max(0, len(heads) - most),
    )


def _copy_table(runs: list[Results]) -> Table:
    columns = [
        {int(r.position): estimate_of(r) for r in at_last(run, "copy_curve", "loss").itertuples(index=False)}
        for run in runs
    ]
    copies = sorted({copy for column in columns for copy in column})
    return Table(
        name="copy-curve-table",
        caption=f"Mean loss in nats on each copy, with 95% intervals. {_counts(runs, 'copy_curve', 'loss')}",
        columns=("Copy", *(short(r.run) for r in runs)),
        rows=tuple((str(copy), *(column.get(copy) for column in columns)) for copy in copies),
    )


def _offset_table(results: Results, name: str) -> Table:
    """The strongest offsets of the heads that are drawn."""
    rows = at_last(results, "offset_profile", "profile")
    probe = (
        "prefix_matching" if not valid_rows(results, "prefix_matching", "score").empty else "offset_profile"
    )
    metric = "score" if probe == "prefix_matching" else "peak_mass"
    heads = top_heads(at_last(results, probe, metric), 3)
    peaks = []
    for head in heads:
        mine = rows[(rows["layer"] == head[0]) & (rows["head"] == head[1]) & rows["valid"].astype(bool)]
        mine = mine.sort_values("value", ascending=False, kind="stable").head(5)
        peaks += [
            (head_label(*head), int(r.position), e := estimate_of(r), e.n, _chance_words(e))
            for r in mine.itertuples(index=False)
        ]
    return Table(
        name=f"{name}-table",
        caption=f"The five strongest offsets of each head drawn, {clean(results.run)}. All offsets are in scores.csv.",
        columns=("Head", "Tokens back", "Mean attention fraction", "n", "Chance"),
        rows=tuple(peaks),
    )


def _head_rows(results: Results, main: str, others: list[str]) -> list[tuple[Value, ...]]:
    step = _last_with(results, main)
    last = rows_of(results, main, "score")
    last = last[last["step"] == step]
    limits = value_range(main, "score", valid_rows(results, main, "score")["value"])
    rows: list[tuple[Value, ...]] = []
    for layer, head in top_heads(last, N_TOP_HEADS):
        score = estimate_of(_one(last, layer, head))
        also = [_estimate_at(results, p, "score", step, layer, head) for p in others]
        rows.append(
            (clean(results.run), head_label(layer, head), _spark(results, main, layer, head, limits=limits), score, score.n,
             _chance_words(score), *also, _verdict(results, step, layer, head))
        )  # fmt: skip
    return rows


def _spark(results: Results, probe: str, layer: int, head: int, *, limits: tuple[float, float]) -> Spark:
    rows = rows_of(results, probe, "score")
    mine = rows[(rows["layer"] == layer) & (rows["head"] == head)].sort_values("step")
    values = tuple(float(r.value) if r.valid else None for r in mine.itertuples(index=False))
    known = [v for v in values if v is not None]
    alt = (
        f"{head_label(layer, head)} from {known[0]:.2f} to {known[-1]:.2f} over {len(values)} steps"
        if known
        else "not measured"
    )
    return Spark(values, limits, alt)


def _verdict(results: Results, step: int, layer: int, head: int) -> Words:
    rows = rows_of(results, "induction", "verdict")
    row = _one(rows[rows["step"] == step], layer, head)
    if row is None or not row.valid:
        return Words("not measured", "muted")
    return Words("yes", "good") if row.value == 1 else Words("no", "muted")


def _estimate_at(
    results: Results, probe: str, metric: str, step: int, layer: int, head: int
) -> Estimate | None:
    rows = rows_of(results, probe, metric)
    row = _one(rows[rows["step"] == step], layer, head)
    return None if row is None else estimate_of(row)


def _one(rows: pd.DataFrame, layer: int, head: int) -> Any | None:
    mine = rows[(rows["layer"] == layer) & (rows["head"] == head)]
    return None if mine.empty else next(mine.itertuples(index=False))


def _last_with(results: Results, probe: str) -> int:
    """The last step at which the probe was measured."""
    valid = valid_rows(results, probe, "score")
    return int(valid["step"].max()) if not valid.empty else int(last_step(results) or 0)


def _counts(runs: list[Results], probe: str, metric: str) -> str:
    """Chance and n of a table, in its caption."""
    valid = pd.concat([valid_rows(r, probe, metric) for r in runs])
    if valid.empty:
        return "Nothing was measured."
    n = sorted({int(v) for v in valid["n"]})
    counted = f"n = {n[0]:,}" if len(n) == 1 else f"n = {n[0]:,}-{n[-1]:,}"
    chance = valid["chance"].dropna()
    level = "no chance level" if chance.empty else f"chance {chance_number(float(chance.median()))}"
    seeds = sorted({str((r.meta.get("provenance") or {}).get("seed", "not recorded")) for r in runs})
    return f"{counted} sequences, seed {' and '.join(seeds)}, {level}."


def _chance_words(value: Estimate) -> str:
    return chance_number(value.chance)


def _thinned(steps: list[int]) -> tuple[list[int], int]:
    """At most a screen of steps, ends kept, and how many are left out."""
    if len(steps) <= MAX_TABLE_ROWS:
        return steps, 0
    shown = spaced_steps(steps, most=MAX_TABLE_ROWS)
    return shown, len(steps) - len(shown)
