"""`byrote show`: the top heads of a run at a step, or what happened when over its steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.cli import options
from byrote.cli.command import argument, flag, option, separated, verb
from byrote.cli.output import CHANCE, INTERVAL, Column, Output, Row, columns
from byrote.cli.session import Session
from byrote.probes.wording import MISSING, bracket, count, counted, listed, number, plain, point

if TYPE_CHECKING:
    from pandas import DataFrame

    from byrote.probes.results import Results
    from byrote.probes.spec import ProbeInfo

_HEADS_SHOWN = 8
_AS_STORED = ("run", "step", "probe", "metric", "value", "lo", "hi", "chance", "n", "valid")
COLUMNS = (
    *columns("run step probe"),
    Column("metric", "metric"),
    Column("_rank", "#", lambda row: count(row["rank"]) if row["rank"] else "", right=True),
    Column("head", "head"),
    Column(
        "value", "value", lambda row: row["words"] or point(row["value"], row["lo"], row["hi"]), right=True
    ),
    INTERVAL,
    *columns("lo hi"),
    CHANCE,
    Column("n", "n", right=True),
    *columns("seed rank valid reason words"),
)
EVENT_COLUMNS = (
    Column("run"),
    Column("event", "event"),
    Column("probe"),
    Column("metric", "metric"),
    Column("_head", "head", lambda row: row["head"] or "model"),
    *columns("layer head step_lo step_hi"),
    Column("step", "step", lambda row: number(row["step"], places=0), right=True),
    Column("_interval", "95% interval", lambda row: _step_interval(row), right=True),
    Column("_between", "measured", lambda row: _between(row), right=True),
    *columns("lo hi tokens"),
    Column("value", "value", lambda row: number(row["value"]), right=True),
    *columns("value_lo value_hi"),
    Column("n", "n", right=True),
    *columns("seed method text"),
)


@verb(
    "byrote show results/a",
    "byrote show results/a --probe prefix_matching --step nearest:3000 --top 3",
    "byrote show results/a --events",
    "byrote show results --probe induction",
)
def show(
    session: Session,
    *,
    results: tuple[str, ...] = argument("RESULT..."),
    step: str = option("A step, first, last, or nearest:STEP.", default="last", metavar="STEP"),
    top: int = option("Heads per metric.", metavar="N", type=options.POSITIVE, default=5),
    probe: tuple[str, ...] = options.PROBES,
    metric: tuple[str, ...] = option(
        "Only this metric; each probe's main one if left out. Repeat for more, or separate them by commas.",
        multiple=True,
        metavar="NAME",
        callback=separated,
    ),
    events: bool = flag("Events over training: onsets, peaks, decays, phase windows and their order."),
    out: Output,
) -> None:
    """Print the strongest heads of RESULT at one step, with interval, chance level and n.

    RESULT is a results folder, a folder of several, or a quoted glob; with several runs, the rows of one follow those of the other.

    Columns: run, step, probe, metric, head, value, lo, hi, chance, n, seed, rank, valid, reason, words. Rank 1 is the strongest by
    the probe's own direction; numbers about the whole model have none. A number that was not measured has a reason instead; a
    verdict is shown in words. Curves (values by position) are in the report and in observations.parquet.

    Below the table, one sentence each says what the strongest heads are: induction heads, previous-token heads, or neither.

    With --events, what happened over all steps: since when the strongest heads are significantly above their nulls; between which
    measured steps each number had made 10, 50 and 90% of its change, with a 95% interval; induction heads lost; peak and share lost
    since; where the change was steepest; which heads traded places; which of two curves moved first, or that the order cannot be
    decided.
    """
    runs = options.open_results(results)
    for run in runs:
        if not run.steps:
            raise ByroteError(
                f"{run.path} holds no observations", help="run the sweep again: it measures what is missing"
            )
    if events:
        _show_events(runs, probe, out=out)
    else:
        _show_step(session, runs, step, probe, metric, top=top, out=out)


def _show_step(
    session: Session,
    runs: Sequence[Results],
    spec: str,
    probes: tuple[str, ...],
    metrics: tuple[str, ...],
    *,
    top: int,
    out: Output,
) -> None:
    """The strongest rows of every run at one step."""
    from byrote.probes.findings import left_out, seeds
    from byrote.probes.results.named_step import resolve_step

    data: list[Row] = []
    for run in runs:
        step = resolve_step(spec, run)
        wanted = list(_wanted(run, probes, metrics))
        found = [row for info, name in wanted for row in _rows(run, info, name, step=step, top=top)]
        if step in run.left_out:
            session.note(left_out({step: run.left_out[step]})[0])
        if out.machine:
            data += found
            continue
        rows = [row for row in found if row["valid"]]
        out.rows(COLUMNS, rows, title=f"{run.run} at step {step:,}{seeds(run)}", group="probe")
        missing = [row for row in found if not row["valid"]]
        settings = _settings(run, [info for info, _ in wanted], step)
        for line in (*settings, *_introduced(run, rows, step), *_said_together(missing)):
            out.prose(line)
        if step in run.loss:
            out.prose(f"training loss at step {step:,}: {number(run.loss[step])} nats")
        if run is not runs[-1]:
            session.data("")
    if out.machine:
        out.rows(COLUMNS, data)


def _show_events(runs: Sequence[Results], probes: tuple[str, ...], *, out: Output) -> None:
    """What happened in every run."""
    from byrote.probes.findings import no_events, seeds

    data: list[Row] = []
    for run in runs:
        if len(run.usable_steps) < 2:
            if not out.machine:
                out.prose(f"{no_events(run)}.")
            continue
        rows = _event_rows(run, probes)
        data += rows
        if not out.machine:
            title = f"{run.run}, {counted(len(run.usable_steps), 'step')}{seeds(run)}"
            out.rows(EVENT_COLUMNS, rows, title=title, group="probe")
            for row in rows:
                if row["event"] in ("induction_onset", "induction_loss", "turnover", "lead_lag", "onset"):
                    out.prose(row["text"])
    if out.machine:
        out.rows(EVENT_COLUMNS, data)


def _event_rows(results: Results, probes: tuple[str, ...]) -> list[Row]:
    from byrote.probes.registry import lookup
    from byrote.probes.trajectory import event_head
    from byrote.probes.trajectory import events as events_of

    wanted, seed = {lookup(name).name for name in probes}, results.sequence_seed or 0
    return [
        {name: plain(value) for name, value in row._asdict().items()}
        | {"run": results.run, "head": event_head(row) or None, "seed": seed}
        for row in events_of(results, seed=seed).itertuples(index=False)
        if not wanted or row.probe in wanted
    ]


def _introduced(results: Results, rows: Sequence[Row], step: int) -> Iterator[str]:
    """What the strongest head of each metric is, by its strongest verdict; heads of no role are not spoken of."""
    from byrote.interp.axes import head_label
    from byrote.probes.findings import called
    from byrote.probes.head_roles import NONE, introduce, roles

    verdicts = [row["value"] for row in rows if (row["probe"], row["metric"]) == ("induction", "verdict")]
    if verdicts and not any(verdicts):
        yield f"{called(results, step)}."
    known = {head_label(*head): head for head, role in roles(results, step).items() if role != NONE}
    for label in dict.fromkeys(row["head"] for row in rows if row["rank"] == 1):
        if label in known:
            yield f"{introduce(results, known[label], step=step)}."


def _step_interval(row: Row) -> str:
    """Ends of the step's interval; an open end is an ellipsis, no interval at all a dash."""
    ends = ["…" if row[end] is None else number(row[end], places=0) for end in ("lo", "hi")]
    return MISSING if ends == ["…", "…"] else f"[{', '.join(ends)}]"


def _between(row: Row) -> str:
    """The measured steps an event lies between."""
    if row["step_hi"] is None:
        return MISSING if row["step_lo"] is None else f"{count(row['step_lo'])}–"
    return bracket(row["step_lo"], row["step_hi"])


def _wanted(
    results: Results, probes: tuple[str, ...], metrics: tuple[str, ...]
) -> Iterator[tuple[ProbeInfo, str]]:
    """Requested (probe, metric) pairs, in catalogue order."""
    from byrote.probes.findings import lacks_token_sets
    from byrote.probes.registry import REGISTRY, lookup

    measured = set(results.frame["probe"].unique())
    shown = set(results.frame.loc[~lacks_token_sets(results), "probe"].unique())
    chosen = [lookup(name) for name in probes] or [i for i in REGISTRY.values() if i.name in shown]
    for info in chosen:
        if info.name not in measured:
            raise ByroteError(
                f"{info.name} was not measured in {results.path}",
                help=f"byrote run {results.series_shown or 'PATH'} -p {info.name} -o {results.path.parent}",
            )
    known = {name for info in chosen for name in info.metrics}
    for name in metrics:
        if name not in known:
            raise ByroteError(f"none of these probes has a metric {name!r}", help=did_you_mean(name, known))
    for info in chosen:
        for name in metrics or (info.main_metric,):
            if name in info.metrics:
                yield info, name


def _rows(results: Results, info: ProbeInfo, metric: str, *, step: int, top: int) -> Iterator[Row]:
    """The strongest `top` rows of a metric, then every row that was not measured."""
    from byrote.probes.results.rows import ranked, row_label

    rows = results.select(info.name, metric, step=step)
    if rows["position"].notna().any():
        raise ByroteError(
            f"{info.name}/{metric} is a curve over {info.curve_axis}, not one number per head",
            help=f"see `byrote report {results.path}`, or read {results.path / 'observations.parquet'}",
        )
    best = ranked(rows, lower=info.better_of(metric) == "lower")
    best = _ties_by_input(results, info, best, step).head(top)
    per_head, seed = rows["layer"].notna().any(), results.sequence_seed
    for part in (best, rows[~rows["valid"]]):
        for rank, row in enumerate(part.itertuples(index=False), 1):
            yield {name: plain(getattr(row, name)) for name in _AS_STORED} | {
                "head": row_label(row) or None,
                "rank": rank if row.valid and per_head else None,
                "reason": row.reason or None,
                "words": (info.word_of(metric, row.value) or None) if row.valid else None,
                "seed": seed,
            }


def _ties_by_input(results: Results, info: ProbeInfo, rows: DataFrame, step: int) -> DataFrame:
    """Heads with the same verdict, the strongest first by the score that the verdict reads first."""
    source = next(iter(info.inputs.values()), None)
    if source is None or not results.has(*source):
        return rows
    order = {label: i for i, label in enumerate(results.ranked(*source, step=step)["label"])}
    place = rows["label"].map(order).fillna(len(order))
    return rows.assign(_place=place).sort_values(["value", "_place"], ascending=[False, True], kind="stable")


def _settings(results: Results, shown: Sequence[ProbeInfo], step: int) -> Iterator[str]:
    """One line per probe that gives its verdict in words, and says at which positions or sizes it was measured."""
    for info in {info.name: info for info in shown if info.settings or info.words}.values():
        rows = [(name, results.select(info.name, name, step=step)) for name in (*info.words, *info.settings)]
        found = [
            f"{name} {info.word_of(name, row['value'].iloc[0]) or _setting(row['value'].iloc[0])}"
            for name, row in rows
            if len(row) == 1 and row["valid"].all()
        ]
        if found:
            yield f"{info.name}: {', '.join(found)}"


def _setting(value: float) -> str:
    """A number of heads, copies or positions as one, any other as a measured number."""
    return count(value) if float(value).is_integer() else number(value)


def _said_together(missing: Sequence[Row]) -> Iterator[str]:
    """One line per metric and reason, with the heads it holds for."""
    heads: dict[tuple[str, str, str], list[str]] = {}
    for row in missing:
        heads.setdefault((row["probe"], row["metric"], row["reason"]), []).append(row["head"] or "")
    for (probe, metric, reason), labels in heads.items():
        shown = listed(labels, most=_HEADS_SHOWN, between=" ")
        yield f"not measured: {probe}/{metric}{f' of {shown}' if shown else ''}: {reason}"
