"""`byrote graft`: put heads of one step into another, and say what returns."""

from __future__ import annotations

from pathlib import Path

import click

from byrote.checkpoints.errors import ByroteError
from byrote.cli import exits
from byrote.cli.command import Verb
from byrote.cli.options import (
    base_model_option,
    device_option,
    download_option,
    dtype_option,
    require_device,
    seed_option,
    sequences_option,
    set_threads,
    threads_option,
)
from byrote.cli.output import Column, Output, output_options
from byrote.cli.session import Session
from byrote.cli.table import bounds_cell, point_cell
from byrote.probes.wording import counted

COLUMNS = (
    Column("run"),
    Column("from_step"),
    Column("into_step"),
    Column("heads"),
    Column("way", "taken", lambda row: row["way"] or "nothing"),
    Column("metric", "metric"),
    Column("value", "value", point_cell, right=True),
    Column("_interval", "95% interval", bounds_cell, right=True),
    Column("lo"),
    Column("hi"),
    Column("n", "n", right=True),
    Column("seed"),
    Column("valid"),
    Column("reason", "reason", fold=True),
)


@click.command(
    cls=Verb,
    examples=("byrote graft runs/a --from 2400 --into 600 --heads L0H3,L1H0",),
    short_help="Put heads of one step into another, and say what returns.",
)
@click.argument("path", metavar="PATH")
@click.option("--from", "from_", metavar="STEP", required=True, help="The step the heads are taken from.")
@click.option("--into", metavar="STEP", required=True, help="The step they are put into.")
@click.option("--heads", metavar="LIST", required=True, help="The heads, grafted together: L0H3,L1H0.")
@sequences_option
@device_option
@dtype_option
@seed_option
@threads_option
@base_model_option
@download_option
@click.pass_obj
@output_options
def graft(
    session: Session,
    *,
    path: str,
    from_: str,
    into: str,
    heads: str,
    sequences: int,
    device: str,
    dtype: str,
    seed: int,
    threads: int | None,
    base_model: Path | None,
    allow_download: bool,
    out: Output,
) -> int:
    """Take heads of the series in PATH from one step into another, and measure the loss on repeated tokens.

    Three ways: their weights, their outputs on the same tokens (z), and only where they look (pattern). `change` is what
    that does to the loss, in nats; `returned` the share of the way from one step to the other; `control` the change with
    as many random heads of the same layers. Steps are written as in `--steps`: 600, last, nearest:1k. Exit 3 when
    one of the three cannot be done on this model.
    """
    from byrote.cli.paths import open_all
    from byrote.interp.axes import parse_heads

    chosen = parse_heads(heads.split(","))
    series = open_all((path,), base=base_model, allow_download=allow_download).series
    if len(series) != 1:
        raise ByroteError(f"{path} holds {counted(len(series), 'run')}", help="name one series")
    steps = {
        name: _one_step(spec, series[0].select(spec).steps)
        for name, spec in (("from", from_), ("into", into))
    }
    require_device(device, dtype)
    set_threads(threads)
    from byrote.probes.circuits.graft import graft_steps

    found = graft_steps(
        series[0],
        from_step=steps["from"],
        into_step=steps["into"],
        heads=chosen,
        seed=seed,
        n_seq=sequences,
        device=device,
        dtype=dtype,
    )
    rows = [{"run": series[0].name, "seed": seed, **row} for row in found.to_dict("records")]
    labels = rows[0]["heads"]
    where = f"{labels} of step {steps['from']:,} in step {steps['into']:,}"
    out.rows(COLUMNS, rows, title=f"{series[0].name}: {where}, sequence seed {seed}")
    measured = found.loc[found["metric"] == "loss", "valid"].all()
    return exits.DONE if measured else exits.GAPS


def _one_step(spec: str, steps: tuple[int, ...]) -> int:
    if len(steps) != 1:
        raise ByroteError(f"{spec!r} names {counted(len(steps), 'step')}", help="name one step")
    return steps[0]
