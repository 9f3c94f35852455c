"""`byrote selftest`: the instrument measures models whose answers are known."""

from __future__ import annotations

from byrote.cli import options
from byrote.cli.command import flag, record, verb
from byrote.cli.output import Column, Output
from byrote.cli.progress import bar
from byrote.cli.session import Exit, Session
from byrote.probes.sweep.config import SweepConfig, require_device

COLUMNS = (
    Column("passed", "", lambda row: "pass" if row["passed"] else "FAIL"),
    Column("check", "check", fold=True),
    Column("expected", "expected", fold=True),
    Column("found", "found", fold=True),
    Column("n", "n", lambda row: f"{row['n']:,}" if row["n"] else "", right=True),
    Column("seed"),
)


@verb("byrote selftest", "byrote selftest --long", "byrote selftest --device cuda --dtype bfloat16")
def selftest(
    session: Session,
    *,
    config: SweepConfig = record(SweepConfig, "device dtype seed threads"),
    long_: bool = flag(
        "2,000 simulations per statistical check, not 100, and 25 random models, not 10: about a quarter of an hour on one core.",
        "--long",
    ),
    out: Output,
) -> int:
    """Measure planted models whose answers are known, and models with nothing to find.

    Reports how far the numbers can be trusted on this machine: whether scores equal their closed form, whether planted induction
    heads are detected and nothing else is, how weak a head can be and still be detected, and how often a random one is. Then
    the statistics on simulated data: whether 95% intervals contain the true value in 93 to 97% of cases, how often
    verdicts, comparisons and onsets are false positives. n counts simulations, heads or pairs. Takes one to two minutes of one core.
    Exit 1 when a check fails.
    """
    from byrote.probes.selftest import (
        N_NULL,
        N_NULL_LONG,
        N_RANDOM,
        N_RANDOM_LONG,
        TRIES,
        TRIES_LONG,
        run_selftest,
    )

    require_device(config)
    options.set_threads(
        config.threads or 1
    )  # the models are so small that a second thread only waits for the first
    tries, n_random = (TRIES_LONG, N_RANDOM_LONG) if long_ else (TRIES, N_RANDOM)
    n_null = N_NULL_LONG if long_ else N_NULL
    with bar(session, "checking") as on_progress:
        found = run_selftest(
            device=config.device,
            dtype=config.dtype,
            seed=config.seed,
            tries=tries,
            n_random=n_random,
            n_null=n_null,
            on_progress=on_progress,
        )
    rows = [{**vars(check), "check": check.name, "seed": config.seed} for check in found.checks]
    out.rows(COLUMNS, rows, title=f"selftest on {found.device}, {found.dtype}, seed {found.seed}")
    failed = sum(not row["passed"] for row in rows)
    session.note(f"{len(rows)} checks, {failed} failed" if failed else f"all {len(rows)} checks passed")
    return Exit.DONE if found.passed else Exit.CHECK_FAILED
