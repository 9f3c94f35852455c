"""`byrote import`: published scores, without samples, as a results folder of their own kind."""

from __future__ import annotations

from pathlib import Path

import click

from byrote.cli import options
from byrote.cli.command import argument, flag, option, verb
from byrote.cli.session import Session
from byrote.probes.wording import clean, count, counted


@verb(
    "byrote import scores.csv -o results/published",
    "byrote import curves.csv --metric prefix_matching -o results/published",
    "byrote import head_scores.csv --unit nats --range 0,5 --run seed3 -o results/seed3",
)
def import_(
    session: Session,
    *,
    table: Path = argument("TABLE", type=options.FILE),
    out: Path = option(
        "The results folder to write.", "-o", required=True, type=options.PATH, metavar="FOLDER"
    ),
    metric: str = option("What the values are, where no column gives it.", metavar="NAME", default=None),
    unit: str = option("Unit of the values, where no column gives it.", metavar="UNIT", default=None),
    range: str = option("Lowest and highest possible value, as in 0,1.", metavar="LO,HI", default=None),
    better: str = option(
        "Which direction means more of what the metric measures.",
        type=click.Choice(("higher", "lower")),
        default=None,
    ),
    run: str = option("Which run, where the table holds several.", metavar="NAME", default=None),
    source: str = option("Source of the scores; if left out, the file's name.", metavar="TEXT", default=None),
    fresh: bool = flag("Replace what the folder holds."),
) -> None:
    """Make a results folder of TABLE, a CSV file of published scores: step, layer, head, value.

    Rows without layer and head are about the whole model. Columns metric, unit, range and run may give what the options
    give. A metric may have the name of one of byrote's own measures (`byrote probes` lists them) and is drawn with it then;
    whether it was computed in the same way cannot be checked.

    Imported scores have no samples: show, compare, report and dashboard draw them without intervals and test nothing. Onsets are
    the measured steps between which a level was passed. A row that cannot be used is one error with its number.
    """
    from byrote.probes.imported import import_scores

    results = import_scores(
        table,
        out,
        metric=metric or "",
        unit=unit or "",
        range=range or None,
        better=better or None,
        run=run or "",
        source=source or "",
        fresh=fresh,
    )
    for text in results.meta["notes"]:
        session.note(f"note: {text}")
    metrics = len(results.kinds)
    session.note(
        f"imported {count(results.n_rows)} values ({counted(metrics, 'metric')}, {counted(len(results.steps), 'step')}) "
        f"into {out}: no samples, so no intervals"
    )
    session.note(f"look at them: byrote show {clean(out)}")
