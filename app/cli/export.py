"""`byrote export`: one HTML file in which a run plays beside its baseline."""

from __future__ import annotations

from pathlib import Path

from byrote.cli import options
from byrote.cli.command import argument, flag, option, probe_names, separated, verb
from byrote.cli.output import open_page
from byrote.cli.session import Session


@verb(
    "byrote export results/unique results/repeated",
    "byrote export results --run unique --base repeated --heads L0H3,L1H1 -o unique.html --open",
    "byrote export results/a -p previous_token --step 600",
)
def export(
    session: Session,
    *,
    results: tuple[str, ...] = argument("RESULT..."),
    out: Path = option(
        "A .html file, or a folder for play.html. Existing files are replaced.",
        "-o",
        type=options.PATH,
        default="play.html",
    ),
    run: str | None = option(
        "The run to play; if left out, one in which induction heads appear.", metavar="NAME"
    ),
    base: str | None = option(
        "The run shown next to it, or none; if left out, its counterpart on other data.", metavar="NAME"
    ),
    probe: str | None = option(
        "The probe in the grid; if left out, prefix matching, or else the first probe that was measured.",
        "-p",
        metavar="NAME",
        shell_complete=probe_names,
    ),
    metric: str | None = option("Which of its metrics; if left out, the main one.", metavar="NAME"),
    heads: tuple[str, ...] = option(
        "Heads whose curves and attention are shown, at most six: L0H3. Repeat for more, or separate them by commas.",
        multiple=True,
        metavar="HEAD",
        callback=separated,
    ),
    step: int | None = option(
        "The step it opens at; if left out, the first event.", metavar="STEP", type=options.NATURAL
    ),
    open_: bool = flag("Open the file in the browser.", "--open"),
) -> None:
    """Write one HTML file that plays RESULT over training: head grid, curves, circuit and attention, of one run or two.

    RESULT is a results folder, a folder of several, or a quoted glob. The file opens anywhere, offline, and sends no request; it
    opens with the finding and the alerts of the report about the same runs. Attention is in it where the sweep saved it
    (byrote run --save-attention); tokens of training data are masked.
    """
    from byrote.dashboard.play import export as write

    written = write(
        options.open_results(results),
        out,
        run=run,
        base=base,
        probe=probe,
        metric=metric,
        heads=heads,
        step=step,
    )
    session.data(str(written))
    open_page(session, written, wanted=open_)
