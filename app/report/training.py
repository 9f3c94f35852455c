"""The course of training: trajectories, strongest heads, circuits, copying and memory of each run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.interp.axes import head_label
from byrote.probes import figures
from byrote.probes.figures.head_grid import panel_steps
from byrote.probes.figures.select import value_range
from byrote.probes.findings import no_events
from byrote.probes.head_roles import INDUCTION as INDUCTION_HEAD
from byrote.probes.head_roles import NONE, PREVIOUS, roles
from byrote.probes.paths import paths
from byrote.probes.results import Results
from byrote.probes.rules import is_called
from byrote.probes.trajectory import event_head, events
from byrote.probes.trajectory.verdict import INDUCTION, milestones
from byrote.probes.wording import (
    bracket,
    chance_number,
    clean,
    count,
    number,
    probe_name,
    sentence_case,
    step_number,
    wider_interval,
)
from byrote.report.model import Block, Listing, Prose, Section, Spark, Table, Value, Words
from byrote.report.report_inputs import Inputs, seeds_of
from byrote.report.tables import estimate_of, picture

N_STRIPS = 3
N_TOP_HEADS = 5
N_RUNS_DRAWN = 4  # of figures that show one run
N_RUNS_WITH_MILESTONES = 2
MAX_EVENTS = 60
LEVELS = ("above_null", "onset_10", "onset_50", "onset_90")
SENTENCES = ("induction_loss", "phase_window", "turnover", "lead_lag", "onset")


def timeline_section(inputs: Inputs, *, front: bool = True) -> Section:
    """The strongest heads and the losses over training steps, and the head grid at chosen steps on one scale.

    Args:
        inputs: of the runs shown.
        front: whether `key_figure` is on the front, and is not repeated here.
    """
    probes = inputs.head_probes
    losses = [r for r in inputs.having("repeat_loss", "later_blocks") if r.has("repeat_loss", "first_block")]
    blocks: list[Block] = []
    if not probes and not losses:
        blocks.append(Prose("No score was measured at any step."))
    elif all(len(r.steps) < 2 for r in inputs.measured):
        blocks.append(Prose("Only one checkpoint was measured: more are needed to see change over training."))
    else:
        blocks += trajectories(inputs, front=front)
        if losses:
            blocks.append(picture("loss-curves", figures.loss_curves(losses, base=inputs.drawn_base), losses))
        logged = [r for r in inputs.measured if len(r.loss) > 1]
        if logged:
            blocks.append(
                picture("training-loss", figures.training_loss(logged, base=inputs.drawn_base), logged)
            )
        if probes:
            blocks += _per_run(inputs.having(probes[0]), "steps", lambda r: _grid_steps(inputs, r, probes[0]))
    nothing = all(isinstance(block, Prose) for block in blocks)
    return Section("timeline", "Over training", tuple(blocks), folded=nothing)


def trajectories(inputs: Inputs, *, front: bool = False) -> list[Block]:
    """The strongest head of the best known probes over training steps, with milestones; [] where there is no course to draw."""
    return _trajectories(inputs, inputs.head_probes[front:N_STRIPS], "trajectories")


def _trajectories(inputs: Inputs, probes: Sequence[str], name: str) -> list[Block]:
    if not probes or all(len(r.steps) < 2 for r in inputs.measured):
        return []
    runs = [r for r in inputs.results if any(r in inputs.having(p) for p in probes)]
    when = [
        (r.run, one)
        for r in runs
        for one in milestones(r, found=inputs.onsets.get(r.run))
        if len(runs) <= N_RUNS_WITH_MILESTONES or one.what == INDUCTION
    ]
    shown = runs[0].run if len(runs) == 1 else ""
    figure = figures.timeline(runs, probes, base=inputs.drawn_base, shown=shown, events=when)
    return [picture(name, figure, runs)]


def key_figure(inputs: Inputs) -> list[Block]:
    """The strongest head of the best known probe over training with its milestones; of single checkpoints, every head of it."""
    probes = inputs.head_probes[:1]
    if probes and all(len(r.steps) < 2 for r in inputs.measured):
        return _per_run(inputs.having(probes[0]), "key-grid", lambda r: _grid(r, probes[0]))
    return _trajectories(inputs, probes, "key-figure")


def heads_section(inputs: Inputs) -> Section:
    """The strongest heads of each run at its last step, each with its history, and which heads read which."""
    probes = inputs.head_probes
    blocks: list[Block] = []
    if probes:
        main, others, runs = probes[0], probes[1:3], inputs.having(probes[0])
        table = Table(
            name="heads-table",
            caption=f"The {N_TOP_HEADS} strongest heads of each run on {probe_name(main)} at its last step. The small "
            "curve is that score over the measured steps, on the probe's own range.",
            columns=("Run", "Head", "Over training", sentence_case(probe_name(main)), "n", "Chance",
                     *(sentence_case(probe_name(p)) for p in others), "Role"),
            rows=tuple(row for r in runs for row in _head_rows(r, main, others)),
        )  # fmt: skip
        blocks.append(table)
        blocks += _per_run(runs, "grid", lambda r: _grid(r, main))
    else:
        blocks.append(Prose("No head was measured."))
    wired = [r for r in inputs.results if r.has("composition", "k_z", valid=True)]
    return Section("heads", "Strongest heads", (*blocks, *_per_run(wired, "circuit", _circuit)), folded=True)


def _grid(results: Results, probe: str) -> figures.Figure:
    """Every head at the last step at which the probe was measured."""
    step = _last_with(results, probe)
    return figures.head_grid(results, probe=probe, metric=results.info(probe).main_metric, step=step)


def _circuit(results: Results) -> figures.Figure:
    """The circuit by the input that ablation shows to matter; by keys where none does."""
    needed = next(iter(paths(results, results.steps[-1])), None)
    return figures.circuit(results, way=needed.way if needed is not None and needed.carries else "k")


def curves_section(inputs: Inputs) -> Section:
    """Loss from copy to copy and along the context, and how far back the strongest heads look."""
    blocks: list[Block] = []
    for probe, draw in (("copy_curve", figures.copy_curve), ("loss_by_position", figures.loss_by_position)):
        if runs := inputs.having(probe, "loss", at_last=True):
            blocks.append(picture(probe.replace("_", "-"), draw(runs, base=inputs.drawn_base), runs))
    looking = inputs.having("offset_profile", "profile", at_last=True)
    blocks += _per_run(looking, "offset", figures.offset_profile)
    nothing = Prose("Neither copy_curve nor offset_profile was measured.")
    return Section("curves", "Copying, copy by copy", tuple(blocks) or (nothing,), folded=True)


def memory_section(inputs: Inputs) -> Section:
    """What became of the members, and how their tokens are known."""
    blocks: list[Block] = []
    flows = {r.run: _flow(r) for r in inputs.having("exact_match")}
    followed = [r for r in inputs.results if flows.get(r.run)]
    blocks += _per_run(followed, "members", lambda r: flows[r.run])
    tagged = inputs.having("recall_vs_copy", "recall_at", at_last=True)
    blocks += _per_run(tagged, "recall", figures.recall_shares)
    nothing = Prose(
        "No member was followed: it takes sequences of the training data, `--members FILE`, at several steps."
    )
    return Section("memory", "Member by member", tuple(blocks) or (nothing,), folded=True)


def events_section(inputs: Inputs) -> Section:
    """The table of onsets, peaks and decays of every run, and what else can be said of its course in sentences."""
    found = [(r, events(r)) for r in inputs.measured]
    rows = [row for results, table in found for row in _event_rows(results, table)]
    sentences = tuple(
        f"{clean(results.run)}: {row.text}."
        for results, table in found
        for row in table[table["event"].isin(SENTENCES)].itertuples(index=False)
    )
    table = Table(
        name="events-table",
        caption="Between which measured steps a head was first significantly above its null, and at the next one too; and between "
        "which each number had made 10, 50 and 90% of its change, with the 95% interval in brackets where that is wider "
        "(… is before the first or after the last step): between two measured steps nothing was seen. “Best at” and “lost since” "
        "are given where the last step is significantly worse than the best one. All of it is in `byrote show --events`. "
        + seeds_of(inputs.measured),
        columns=(
            "Run",
            "Measure",
            "Head",
            "Above its null",
            "10%",
            "50%",
            "90%",
            "Best at",
            "Lost since",
            "n",
        ),
        rows=tuple(rows[:MAX_EVENTS]),
        n_left_out=max(0, len(rows) - MAX_EVENTS),
    )
    too_few = tuple(f"{no_events(r)}." for r, _ in found if len(r.usable_steps) < 2)
    sentences = (*sentences, *too_few)
    blocks: tuple[Block, ...] = (*([table] if rows else []), *([Listing(sentences)] if sentences else []))
    nothing = Prose("Nothing was seen to begin or to end.")
    return Section("events", "When, measure by measure", blocks or (nothing,), folded=True)


def _per_run(
    runs: Sequence[Results], name: str, draw: Callable[[Results], figures.Figure | None]
) -> list[Block]:
    """A figure for each of the first runs, and how many more there are."""
    blocks: list[Block] = [
        picture(f"{name}-{index}", figure, [r])
        for index, r in enumerate(runs[:N_RUNS_DRAWN])
        if (figure := draw(r)) is not None
    ]
    if (more := len(runs) - N_RUNS_DRAWN) > 0:
        blocks.append(
            Prose(f"Figures of {more} more runs are left out; scores.csv has their numbers.", "note")
        )
    return blocks


def _grid_steps(inputs: Inputs, results: Results, probe: str) -> figures.Figure:
    metric = results.info(probe).main_metric
    bracket = getattr(inputs.onsets.get(results.run), "bracket", None) or ()
    steps = panel_steps(results.rows(probe, metric), keep=[s for s in bracket if s is not None])
    return figures.grid_steps(results, probe=probe, metric=metric, steps=steps)


def _head_rows(results: Results, main: str, others: Sequence[str]) -> list[tuple[Value, ...]]:
    metric, step = results.info(main).main_metric, _last_with(results, main)
    limits = value_range(main, metric, results.rows(main, metric, valid=True)["value"])
    rows: list[tuple[Value, ...]] = []
    for best in results.ranked(main, metric, step=step).head(N_TOP_HEADS).itertuples(index=False):
        head, score = (int(best.layer), int(best.head)), estimate_of(best)
        also = [_row_at(results, p, results.info(p).main_metric, step, head) for p in others]
        rows.append(
            (clean(results.run), best.label, _spark(results, main, metric, head, limits), score, score.n,
             chance_number(score.chance), *(None if row is None else estimate_of(row) for row in also),
             _role(results, head, step))
        )  # fmt: skip
    return rows


def _role(results: Results, head: tuple[int, int], step: int) -> Words:
    """A head's strongest verdict in a word or two; of one without any, why the induction verdict was not given."""
    role = roles(results, step).get(head, NONE)
    if role != NONE:
        return Words(role, "good" if role in (INDUCTION_HEAD, PREVIOUS) else "muted")
    return called(_row_at(results, "induction", "verdict", step, head))


def called(row: Any | None) -> Words:
    """A verdict on one head as a word."""
    if row is None or not row.valid:
        reason = "" if row is None else f": {row.reason}"
        return Words(f"not measured{reason}", "muted")
    return Words("yes", "good") if is_called(row.value) else Words("no", "muted")


def _row_at(results: Results, probe: str, metric: str, step: int, head: tuple[int, int]) -> Any | None:
    return next(results.rows(probe, metric, step=step, head=head).itertuples(index=False), None)


def _spark(
    results: Results, probe: str, metric: str, head: tuple[int, int], limits: tuple[float, float]
) -> Spark:
    rows = results.rows(probe, metric, head=head)
    values = tuple(float(r.value) if r.valid else None for r in rows.itertuples(index=False))
    known = [v for v in values if v is not None]
    alt = (
        f"{head_label(*head)} from {known[0]:.2f} to {known[-1]:.2f} over {len(values)} steps"
        if known
        else "not measured"
    )
    return Spark(values, limits, alt)


def _last_with(results: Results, probe: str) -> int:
    """The last step at which the probe's main metric was measured."""
    return int(results.rows(probe, results.info(probe).main_metric, valid=True)["step"].max())


def _flow(results: Results) -> figures.Figure | None:
    """What became of the members; None where fewer than two steps hold every member's value."""
    try:
        return figures.member_flow(results)
    except ByroteError:
        return None


def _event_rows(results: Results, table: pd.DataFrame) -> list[tuple[Value, ...]]:
    """One row per curve that has an onset."""
    known = table[table["event"].isin((*LEVELS, "peak", "decay"))]
    by_curve = known.groupby(["probe", "metric", "layer", "head"], sort=False, dropna=False)
    return [_event_row(results, mine) for _, mine in by_curve]


def _event_row(results: Results, mine: pd.DataFrame) -> tuple[Value, ...]:
    found = {row.event: row for row in mine.itertuples(index=False)}
    first, decay = next(iter(found.values())), found.get("decay")
    lost = (
        "–"
        if decay is None
        else f"{_percent(decay.value)} [{_percent(decay.value_lo)}, {_percent(decay.value_hi)}]"
    )
    name = sentence_case(probe_name(first.probe))
    measure: Value = name if first.metric == "score" else Words(name, detail=probe_name(first.metric))
    when = (_when(found.get(level)) for level in (*LEVELS, "peak"))
    head = event_head(first) or "whole model"
    return (clean(results.run, limit=40), measure, head, *when, lost, int(first.n))


def _when(row: Any | None) -> str:
    if row is None:
        return "–"
    unknown = pd.isna(row.lo) and pd.isna(row.hi)
    if pd.isna(row.step):
        before, at = None if pd.isna(row.step_lo) else int(row.step_lo), int(row.step_hi)
        if before is None or unknown or not wider_interval((before, at), row.lo, row.hi):
            return bracket(before, at)
        return f"{bracket(before, at)} {_ends(row)}"
    return f"{step_number(round(row.step))} {_ends(row)}"


def _ends(row: Any) -> str:
    """An interval of steps; … where it is open."""
    lo, hi = ("…" if pd.isna(end) else count(round(end)) for end in (row.lo, row.hi))
    return f"[{lo},\u00a0{hi}]"


def _percent(share: float) -> str:
    return f"{number(100 * share, places=0)}%"
