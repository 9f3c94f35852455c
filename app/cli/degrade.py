"""`byrote degrade`: what repeated or synthetic data cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from byrote.cli import options
from byrote.cli.command import argument, option, verb
from byrote.cli.group_options import GROUP, named_runs
from byrote.cli.output import INTERVAL, VALUE, Column, Output, columns
from byrote.cli.session import Session
from byrote.probes.wording import clean, count, number, p_value, plain

if TYPE_CHECKING:
    from byrote.probes.degrade.measures import Degradation

COLUMNS = (
    Column("measure", "measure"),
    Column("arm", "arm", lambda row: clean(row["arm"], limit=30)),
    Column("dose", "dose", lambda row: number(row["dose"]) if row["dose"] is not None else "", right=True),
    Column(
        "size",
        "size",
        lambda row: count(row["size"]) if row["size"] is not None else "",
        right=True,
        wide=True,
    ),
    Column("metric", "metric"),
    VALUE,
    INTERVAL,
    *columns("lo hi"),
    Column("p", "p", lambda row: p_value(row["p"]) if row["p"] is not None else "", right=True),
    Column("seeds", "seeds", lambda row: count(row["seeds"]) if row["seeds"] else "", right=True, wide=True),
    Column("unit", "unit", wide=True),
    Column("how", "how", fold=True, wide=True),
    *columns("baseline over of"),
    Column("reason", "reason", fold=True),
)


@verb(
    "byrote degrade --group control='results/control-*' --group repeated='results/repeated-*'",
    "byrote degrade results --baseline control --over pool --measure peak --measure band --json",
    "byrote degrade results --floor 1.2 --size parameters_without_embeddings --measure effective_size",
)
def degrade(
    session: Session,
    *,
    paths: tuple[str, ...] = argument("[PATH]...", required=False),
    group: tuple[str, ...] = GROUP,
    baseline: str = option(
        "The undamaged arm. If left out: the first --group; with PATHs, the arm called control, or else the only one without repeated or synthetic data.",
        metavar="ARM",
        default="",
        show_default=False,
    ),
    over: str = option(
        "The dose: epochs, repeat_frac, pool, synthetic_share, generation or tokens. If left out: the first that varies.",
        metavar="FACT",
        default="",
        show_default=False,
    ),
    metric: str = option(
        "What is damaged. If left out: held_out_loss/loss, or repeat_loss/later_blocks where that was not measured. For heads, name "
        "the strongest: prefix_matching/score:best_head.",
        metavar="PROBE/METRIC",
        default="",
        show_default=False,
    ),
    copy: str = option(
        "The loss to compare with the test loss, in model sizes.",
        metavar="PROBE/METRIC",
        default="repeat_loss/later_blocks",
    ),
    how: str = option(
        "How sizes are derived from the baseline's ladder: a power law of the loss, on the chord between sizes, on a line in ln N.",
        type=click.Choice(("power", "interpolate", "linear")),
        default="power",
    ),
    size: str = option(
        "What counts as the size of a model.",
        type=click.Choice(("parameters", "parameters_without_embeddings", "compute")),
        default="parameters",
    ),
    floor: float = option(
        "Bayes loss of the test text, which is subtracted before the power law is fitted.",
        metavar="NATS",
        type=click.FloatRange(min=0),
        default=0.0,
    ),
    step: int | None = option(
        "Training step; the last that all have if left out.", metavar="STEP", type=options.NATURAL
    ),
    measure: tuple[str, ...] = option(
        "Only this measure, which must then succeed; repeat for more.", multiple=True, metavar="NAME"
    ),
    seed: int = option("Seed of resampling and permutations.", metavar="N", type=options.NATURAL, default=0),
    out: Output,
) -> None:
    """Measure what repeated or synthetic data did to arms of several seeds: how damage grows with the dose, where it is worst, what
    size of healthy model is as good, and how far seeds alone differ.

    Runs are results folders, grouped by the arm that they declare or by --group, which may hold several doses and sizes; what
    varies is read from what runs declare (a lab series' manifest, or byrote.toml beside results). What is not declared is refused
    by name where it is needed. Intervals cover training seeds, and test sequences where runs share them.

    Measures: dose, peak, band, boundary, effective_size, preferential, compute, near_zero, double_descent, displacement,
    extraction, capacity, r_star, noise_floor, churn, counterfactual, dependence, dependence_matrix (docs/calibration.md says how
    each is computed, and what was calibrated).
    Without --measure all are tried, and a measure that cannot be computed is a row with its reason.
    """
    from byrote.probes.degrade.measures import degradation
    from byrote.probes.degrade.study import DegradeSettings, by_arm
    from byrote.probes.findings_degrade import degradation_sentences

    if bool(group) == bool(paths):
        raise click.UsageError("give results folders, or groups with --group")
    named = named_runs(group) if group else by_arm(options.open_results(paths))
    baseline = baseline or (named[0][0] if group else "")
    settings = DegradeSettings(over, metric, copy, baseline, how, size, floor, step, seed)
    found = degradation(named, settings, measures=measure)
    for line in degradation_sentences(found):
        out.headline(line)
    _print(session, found, out)


def _print(session: Session, found: Degradation, out: Output) -> None:
    shared = {"baseline": found.baseline, "over": found.over, "of": found.metric}
    rows: list[dict[str, Any]] = [
        {name: plain(value) for name, value in row.items()} | shared for row in found.rows.to_dict("records")
    ]
    if out.machine:
        out.rows(COLUMNS, rows)
        return
    for row, found_row in zip(rows, found.rows.to_dict("records"), strict=True):
        row |= {
            "lo": found_row["lo"],
            "hi": found_row["hi"],
        }  # an open end is shown, which JSON has no number for
    shown = [row for row in rows if session.verbose or not row["reason"]]
    session.data("")
    out.rows(COLUMNS, shown, title=f"baseline {clean(found.baseline)}, {found.metric}", group="measure")
    missing = sorted(
        {row["measure"] for row in rows if row["reason"]}
        - {row["measure"] for row in shown if not row["reason"]}
    )
    if missing and not session.verbose:
        session.note(f"not measured: {', '.join(missing)}; -v says why, and --csv and --json do")
