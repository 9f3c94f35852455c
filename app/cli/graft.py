"""`byrote graft`: put heads of one step into another, and say what returns."""

from __future__ import annotations

from byrote.cli import options
from byrote.cli.command import argument, option, record, verb
from byrote.cli.output import INTERVAL, VALUE, Column, Output, columns
from byrote.cli.session import Exit, Session
from byrote.probes.sweep.config import SweepConfig, require_device

COLUMNS = (
    *columns("run from_step into_step heads"),
    Column("way", "taken", lambda row: row["way"] or "nothing"),
    Column("metric", "metric"),
    VALUE,
    INTERVAL,
    *columns("lo hi"),
    Column("n", "n", right=True),
    *columns("seed valid"),
    Column("reason", "reason", fold=True),
)


@verb("byrote graft runs/a --from 2400 --into 600 --heads L0H3,L1H0")
def graft(
    session: Session,
    *,
    path: str = argument("PATH"),
    from_: str = option("The step to take the heads from.", "--from", metavar="STEP", required=True),
    into: str = option("The step to put them into.", metavar="STEP", required=True),
    heads: str = option("The heads, grafted together: L0H3,L1H0.", metavar="LIST", required=True),
    config: SweepConfig = record(SweepConfig, "n_seq device dtype seed threads"),
    opening: options.Opening = record(options.Opening),
    out: Output,
) -> int:
    """Take heads of the series in PATH from one step into another, and measure the loss on repeated tokens.

    Three ways: their weights, their outputs on the same tokens (z), and only where they look (pattern). `change` is what that does
    to the loss, in nats; `returned` the share of the loss difference between the two steps that is restored; `control` the change
    with as many random heads of the same layers. Steps are written as in `--steps`: 600, last, nearest:1k. Exit 3 when one of the
    three cannot be done on this model.
    """
    from byrote.interp.axes import parse_heads

    chosen = parse_heads(heads.split(","))
    one = opening.open_one(path)
    from_step, into_step = options.one_step(from_, one), options.one_step(into, one)
    require_device(config)
    options.set_threads(config.threads)
    from byrote.probes.circuits.graft import graft_steps

    found = graft_steps(
        one,
        from_step=from_step,
        into_step=into_step,
        heads=chosen,
        seed=config.seed,
        n_seq=config.n_seq,
        device=config.device,
        dtype=config.dtype,
    )
    rows = [{"run": one.name, "seed": config.seed, **row} for row in found.to_dict("records")]
    where = f"{rows[0]['heads']} of step {from_step:,} in step {into_step:,}"
    out.rows(COLUMNS, rows, title=f"{one.name}: {where}, sequence seed {config.seed}")
    measured = found.loc[found["metric"] == "loss", "valid"].all()
    return Exit.DONE if measured else Exit.GAPS
