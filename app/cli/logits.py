"""`byrote logits`: what one step of a series adds to another's logits."""

from __future__ import annotations

from byrote.cli import options
from byrote.cli.command import argument, option, record, verb
from byrote.cli.output import INTERVAL, VALUE, Column, Output, columns
from byrote.cli.session import Exit, Session
from byrote.probes.sweep.config import SweepConfig, require_device

COLUMNS = (
    *columns("run from_step to_step"),
    Column("text", "text"),
    Column("metric", "metric"),
    Column("scale", "scale", right=True),
    VALUE,
    INTERVAL,
    *columns("lo hi"),
    Column("n", "n", right=True),
    *columns("seed valid"),
    Column("reason", "reason", fold=True),
)


@verb("byrote logits runs/a --from 600 --to 2400")
def logits(
    session: Session,
    *,
    path: str = argument("PATH"),
    from_: str = option("The earlier step.", "--from", metavar="STEP", required=True),
    to: str = option("The later step.", metavar="STEP", required=True),
    config: SweepConfig = record(SweepConfig, "n_seq device dtype seed threads"),
    opening: options.Opening = record(options.Opening),
    out: Output,
) -> int:
    """Measure what training between two steps of the series in PATH added to the logits, on members, fresh sequences of their
    source, repeated random tokens, and held-out text.

    `raised` is what the right token gained over all others, `size` how much was moved at all, in logits; `loss` that of the
    first step's logits plus `scale` times the difference: 0 is the first step, 1 the other, 2 twice as much as was added.
    Both models are in memory at once. Steps are written as in `--steps`: 600, last, nearest:1k. Exit 3 when the series
    carries no members or no text.
    """
    one = opening.open_one(path)
    from_step, to_step = options.one_step(from_, one), options.one_step(to, one)
    require_device(config)
    options.set_threads(config.threads)
    from byrote.probes.circuits.logit_arithmetic import logit_arithmetic

    found = logit_arithmetic(
        one,
        from_step=from_step,
        to_step=to_step,
        seed=config.seed,
        n_seq=config.n_seq,
        device=config.device,
        dtype=config.dtype,
    )
    found = found.astype(object).where(found.notna(), None)
    rows = [{"run": one.name, "seed": config.seed, **row} for row in found.to_dict("records")]
    where = f"what step {to_step:,} adds to the logits of step {from_step:,}"
    out.rows(COLUMNS, rows, title=f"{one.name}: {where}, sequence seed {config.seed}")
    return Exit.DONE if all(row["valid"] for row in rows) else Exit.GAPS
