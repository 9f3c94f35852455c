"""`byrote text`: what corpora would teach a model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from byrote.cli import exits
from byrote.cli.command import Verb
from byrote.cli.options import (
    device_option,
    dtype_option,
    require_device,
    seed_option,
    threads_option,
)
from byrote.cli.output import Column, Output, Row, output_options
from byrote.cli.session import Session, is_terminal
from byrote.cli.table import bounds_cell, point_cell
from byrote.probes.wording import chance_number, count, plain

COLUMNS = (
    Column("corpus", "corpus", fold=True),
    Column("measure"),
    Column("metric"),
    Column("n_gram"),
    Column("_metric", "metric", lambda row: _metric(row)),
    Column("value", "value", point_cell, right=True),
    Column("_interval", "95% interval", bounds_cell, right=True),
    Column("lo"),
    Column("hi"),
    Column("chance", "chance", lambda row: chance_number(row["chance"]), right=True),
    Column("n", "n", lambda row: count(row["n"]), right=True, wide=True),
    Column("unit", "unit", wide=True),
    Column("resampled", "of", wide=True),
    Column("seed"),
    Column("reason", "reason", fold=True),
)
# The table's choice: one or two numbers per measure; data have all.
_SHOWN: Mapping[str, frozenset[tuple[str, int | None]]] = {
    "inducible": frozenset({("share", 2), ("share", 4), ("share", 7), ("hit_rate", 4)}),
    "repeats": frozenset({("share", 4), ("share", 16)}),
    "rep": frozenset({("rep_n", 2), ("rep_w", None), ("rep_r", None)}),
    "concentration": frozenset({("entropy", None), ("top_1pct_mass", None), ("kl_to_reference", None)}),
    "near_duplicates": frozenset({("redundant_share", None)}),
    "tail_mass": frozenset({("survival", 1), ("survival", 2), ("survival", 3), ("coverage", 1)}),
    "perplexity": frozenset({("p50", None), ("tail_ratio", None), ("overlap", None)}),
}


@click.command(
    cls=Verb,
    examples=(
        "byrote text corpus.jsonl",
        "byrote text synthetic.txt --reference human.txt --tokenizer tokenizer.json",
        "byrote text synthetic.txt --reference human.txt --measure perplexity --model runs/a",
    ),
    short_help="Say what a corpus would teach: repeats, concentration, lost tails.",
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--reference",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The corpus the others are compared with; it is measured too.",
)
@click.option(
    "--units",
    type=click.Choice(("words", "bytes", "tokens")),
    default="words",
    show_default=True,
    help="What is counted; tokens need --tokenizer, which alone means tokens.",
)
@click.option("--tokenizer", metavar="FILE", type=click.Path(path_type=Path), help="A tokenizer.json.")
@click.option(
    "--context", metavar="N", type=int, default=512, show_default=True, help="Tokens (or words) per window."
)
@click.option(
    "--windows",
    type=click.Choice(("documents", "full", "packed")),
    default="documents",
    show_default=True,
    help="documents cuts each into windows, the last one shorter; full drops the shorter ones; packed joins documents "
    "first, as training does.",
)
@click.option(
    "--separator",
    metavar="TEXT",
    multiple=True,
    default=("<|endoftext|>",),
    show_default=True,
    help=r"Between documents of a .txt file; * is anything within a line, \n a new line. Repeat for more.",
)
@click.option(
    "--text-field",
    metavar="NAME",
    default="text",
    show_default=True,
    help="Field of .jsonl, or column of .parquet, with the text.",
)
@click.option("--measure", multiple=True, metavar="NAME", help="Only this measure; repeat for more.")
@click.option(
    "--model",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="A local checkpoint for perplexities, the last step of a series.",
)
@click.option(
    "--sample",
    metavar="N",
    type=click.IntRange(min=8),
    default=512,
    show_default=True,
    help="Stretches of each corpus the model reads.",
)
@device_option
@dtype_option
@threads_option
@seed_option
@click.pass_obj
@output_options
def text(session: Session, files: tuple[Path, ...], *, out: Output, **asked: Any) -> int:
    """Say what each corpus FILE would teach a model, with intervals: how much of it an induction head could predict,
    how it repeats itself, how concentrated it is, its near-duplicates, and against a reference what it lost.

    FILE is .txt, .jsonl (either may be .gz), .parquet, token ids as .npy or .safetensors, or a folder of these. Files of
    any size are read piece by piece; a line of .jsonl may have 32 MiB. The table shows a choice of numbers; -v shows all,
    and CSV and JSON have all.
    """
    from byrote.checkpoints.texts import NothingToReadError
    from byrote.probes.text.measure import measure_text

    require_device(asked["device"], asked["dtype"])
    settings = _settings(asked)
    try:
        with _progress(session) as on_progress:
            report = measure_text(
                files,
                settings,
                reference=asked["reference"],
                model=asked["model"],
                device=asked["device"],
                dtype=asked["dtype"],
                threads=asked["threads"],
                on_progress=on_progress,
            )
    except NothingToReadError as error:
        raise exits.NothingFoundError(error.message, help=error.help) from None
    rows = [
        {name: plain(value) for name, value in row.items()}
        | {"reason": row["reason"] or None, "seed": asked["seed"]}
        for row in report.frame.to_dict("records")
    ]
    if out.machine:
        out.rows(COLUMNS, rows)
    else:
        _print_table(session, out, rows)
    for note in report.notes:
        session.note(note)
    return exits.GAPS if report.incomplete else exits.DONE


def _settings(asked: Mapping[str, Any]) -> Any:
    from byrote.probes.text.report import TextSettings

    return TextSettings(
        units=asked["units"],
        tokenizer=asked["tokenizer"],
        context=asked["context"],
        windows=asked["windows"],
        separators=tuple(text.replace(r"\n", "\n").replace(r"\t", "\t") for text in asked["separator"]),
        text_field=asked["text_field"],
        measures=asked["measure"] or None,
        sample=asked["sample"],
        seed=asked["seed"],
    )


def _print_table(session: Session, out: Output, rows: Sequence[Row]) -> None:
    """Corpora side by side under each measure."""
    shown = [row for row in rows if session.verbose or _is_shown(row)]
    places = {name: i for i, name in enumerate(_SHOWN)}
    order = {_key(row): i for i, row in reversed(list(enumerate(shown)))}
    in_order = sorted(shown, key=lambda row: (places.get(row["measure"], -1), order[_key(row)]))
    out.rows(COLUMNS, in_order, group="measure")
    if len(shown) < len(rows):
        session.note(f"{len(rows) - len(shown):,} more numbers: -v shows them, --csv and --json have all")


def _is_shown(row: Row) -> bool:
    missing = row["value"] is None and not row["n"]
    return missing or (row["metric"], row["n_gram"]) in _SHOWN.get(row["measure"], frozenset())


def _key(row: Row) -> tuple[Any, ...]:
    return row["measure"], row["metric"], row["n_gram"]


def _metric(row: Row) -> str:
    return row["metric"] if row["n_gram"] is None else f"{row['metric']} n={row['n_gram']}"


@contextmanager
def _progress(session: Session) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal, nothing elsewhere."""
    if session.quiet or not is_terminal(sys.stderr):
        yield None
        return
    with click.progressbar(length=1, label="reading", file=sys.stderr) as bar:

        def on_progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield on_progress
