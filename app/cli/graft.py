"""`byrote graft`: put heads of one step into another, and say what returns."""

from __future__ import annotations

from pathlib import Path

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.series import CheckpointSeries
from byrote.cli import exits, options
from byrote.cli.command import argument, option, verb
from byrote.cli.output import INTERVAL, VALUE, Column, Output, columns
from byrote.cli.session import Session
from byrote.probes.wording import counted

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
    from_: str = option("The step the heads are taken from.", "--from", metavar="STEP", required=True),
    into: str = option("The step they are put into.", metavar="STEP", required=True),
    heads: str = option("The heads, grafted together: L0H3,L1H0.", metavar="LIST", required=True),
    sequences: int = options.SEQUENCES,
    device: str = options.DEVICE,
    dtype: str = options.DTYPE,
    seed: int = options.SEED,
    threads: int | None = options.THREADS,
    base_model: Path | None = options.BASE_MODEL,
    allow_download: bool = options.ALLOW_DOWNLOAD,
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
    (one,) = series
    from_step, into_step = _one_step(from_, one), _one_step(into, one)
    options.require_device(device, dtype)
    options.set_threads(threads)
    from byrote.probes.circuits.graft import graft_steps

    found = graft_steps(
        one,
        from_step=from_step,
        into_step=into_step,
        heads=chosen,
        seed=seed,
        n_seq=sequences,
        device=device,
        dtype=dtype,
    )
    rows = [{"run": one.name, "seed": seed, **row} for row in found.to_dict("records")]
    where = f"{rows[0]['heads']} of step {from_step:,} in step {into_step:,}"
    out.rows(COLUMNS, rows, title=f"{one.name}: {where}, sequence seed {seed}")
    measured = found.loc[found["metric"] == "loss", "valid"].all()
    return exits.DONE if measured else exits.GAPS


def _one_step(spec: str, series: CheckpointSeries) -> int:
    steps = series.select(spec).steps
    if len(steps) != 1:
        raise ByroteError(f"{spec!r} names {counted(len(steps), 'step')}", help="name one step")
    return steps[0]
