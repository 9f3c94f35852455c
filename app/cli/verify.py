"""`byrote verify`: is a results folder as it was written, and of one story? Nothing is written or measured."""

from __future__ import annotations

from pathlib import Path

from byrote.cli import options
from byrote.cli.command import argument, flag, verb
from byrote.cli.output import Column, Output
from byrote.cli.session import Exit, Session

COLUMNS = (
    Column("run", "run"),
    Column("kind", "kind"),
    Column("text", "what", fold=True),
)


@verb("byrote verify results/a", "byrote verify results/* --content")
def verify(
    session: Session,
    *,
    results: tuple[Path, ...] = argument("RESULT...", type=options.PATH),
    content: bool = flag(
        "Hash every checkpoint again, even where its files look unchanged; reads all weights."
    ),
    out: Output,
) -> int:
    """Look for damage and disagreement in RESULT; nothing is written, measured or downloaded.

    RESULT is a results folder, a folder of several, or a quoted glob.

    Every unit is compared with its hashes and with run.json, observations.parquet with what the units give, saved attention and
    texts with theirs, and checkpoints that are still at their recorded path by size and time of their files. Files of version 0.1
    have no hashes; their number is reported.

    Columns: run, kind (finding or checked), text. Exit 1 when something was found.
    """
    from byrote.probes.results.opened import folders_in
    from byrote.probes.verify import verify as look

    looked = [(path, look(path, content=content)) for path in folders_in(results)]
    rows = [
        {"run": path.resolve().name, "kind": kind, "text": line}
        for path, found in looked
        for kind, lines in (("finding", found.findings), ("checked", found.checked))
        for line in lines
    ]
    out.rows(COLUMNS, rows)
    n_findings = sum(len(found.findings) for _, found in looked)
    if not n_findings:
        session.note("no problems found")
    return Exit.CHECK_FAILED if n_findings else Exit.DONE
