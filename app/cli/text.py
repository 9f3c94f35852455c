"""`byrote text`: what corpora would teach a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import NothingFoundError
from byrote.cli import options
from byrote.cli.command import argument, option, record, verb
from byrote.cli.output import CHANCE, INTERVAL, VALUE, Column, Output, Row, columns
from byrote.cli.progress import bar
from byrote.cli.session import Exit, Session
from byrote.probes.sweep.config import SweepConfig, require_device
from byrote.probes.text.settings import TextSettings
from byrote.probes.wording import count, plain

COLUMNS = (
    Column("corpus", "corpus", fold=True),
    *columns("measure metric n_gram"),
    Column("_metric", "metric", lambda row: _metric(row)),
    VALUE,
    INTERVAL,
    *columns("lo hi"),
    CHANCE,
    Column("n", "n", lambda row: count(row["n"]), right=True, wide=True),
    Column("unit", "unit", wide=True),
    Column("resampled", "of", wide=True),
    Column("seed"),
    Column("reason", "reason", fold=True),
)
# The table's choice: one or two numbers per measure; data have all.
_SHOWN: Mapping[str, frozenset[tuple[str, int | None]]] = {
    "inducible": frozenset({("share", 2), ("share", 4), ("share", 7), ("hit_rate", 4)}),
    "induction_signal": frozenset({("share", 2), ("share", 4)}),
    "repeats": frozenset({("share", 4), ("share", 16)}),
    "rep": frozenset({("rep_n", 2), ("rep_w", None), ("rep_r", None)}),
    "concentration": frozenset({("entropy", None), ("top_1pct_mass", None), ("kl_to_reference", None)}),
    "near_duplicates": frozenset({("redundant_share", None)}),
    "density": frozenset({("mean", None), ("to_reference", None)}),
    "synthetic_share": frozenset({("share", None), ("separation", None)}),
    "tail_mass": frozenset({("survival", 1), ("survival", 2), ("survival", 3), ("coverage", 1)}),
    "perplexity": frozenset(
        {("p50", None), ("tail_ratio", None), ("overlap", None), ("editable_share", None)}
    ),
}


@verb(
    "byrote text corpus.jsonl",
    "byrote text synthetic.txt --reference human.txt --tokenizer tokenizer.json",
    "byrote text synthetic.txt --reference human.txt --measure perplexity --model runs/a",
)
def text(
    session: Session,
    *,
    files: tuple[Path, ...] = argument("FILE...", type=options.PATH),
    reference: Path | None = option(
        "The corpus to compare the others with; it is measured too.", metavar="FILE", type=options.PATH
    ),
    synthetic: Path | None = option(
        "The synthetic source, where each FILE is a mixture of it and the reference: its share is estimated.",
        metavar="FILE",
        type=options.PATH,
    ),
    settings: TextSettings = record(TextSettings),
    model: Path | None = option(
        "A local checkpoint for perplexities; of a series, the last step.", metavar="PATH", type=options.PATH
    ),
    config: SweepConfig = record(SweepConfig, "device dtype threads"),
    out: Output,
) -> int:
    """Measure what each corpus FILE can teach a model, with intervals: how much of it an induction head could predict,
    how it repeats itself, how concentrated it is, its near-duplicates, and what it lost relative to a reference.

    FILE is .txt, .jsonl (either may be .gz), .parquet, token ids as .npy or .safetensors, or a folder of these. Files of any size
    are read piece by piece; a line of .jsonl may have 32 MiB. The table shows a selection of numbers; -v shows all, and CSV and
    JSON have all.
    """
    from byrote.checkpoints.texts import NothingToReadError
    from byrote.probes.text.corpus import measure_text

    typed = (one.replace(r"\n", "\n").replace(r"\t", "\t") for one in settings.separators)
    settings = replace(settings, separators=tuple(typed))
    require_device(config)
    try:
        with bar(session, "reading") as on_progress:
            report = measure_text(
                files,
                settings,
                reference=reference,
                synthetic=synthetic,
                model=model,
                device=config.device,
                dtype=config.dtype,
                threads=config.threads,
                on_progress=on_progress,
            )
    except NothingToReadError as error:
        raise NothingFoundError(error.message, help=error.help) from None
    rows = [
        {name: plain(value) for name, value in row.items()}
        | {"reason": row["reason"] or None, "seed": settings.seed}
        for row in report.frame.to_dict("records")
    ]
    if out.machine:
        out.rows(COLUMNS, rows)
    else:
        _print_table(session, out, rows)
    for note in report.notes:
        session.note(note)
    return Exit.GAPS if report.incomplete else Exit.DONE


def _print_table(session: Session, out: Output, rows: Sequence[Row]) -> None:
    """Corpora side by side under each measure."""
    shown = [row for row in rows if session.verbose or _is_shown(row)]
    places = {name: i for i, name in enumerate(_SHOWN)}
    order = {_key(row): i for i, row in reversed(list(enumerate(shown)))}
    in_order = sorted(shown, key=lambda row: (places.get(row["measure"], -1), order[_key(row)]))
    out.rows(COLUMNS, in_order, group="measure")
    if len(shown) < len(rows):
        session.note(f"{len(rows) - len(shown):,} more values: -v shows them, --csv and --json have all")


def _is_shown(row: Row) -> bool:
    missing = row["value"] is None and not row["n"]
    return missing or (row["metric"], row["n_gram"]) in _SHOWN.get(row["measure"], frozenset())


def _key(row: Row) -> tuple[Any, ...]:
    return row["measure"], row["metric"], row["n_gram"]


def _metric(row: Row) -> str:
    return row["metric"] if row["n_gram"] is None else f"{row['metric']} n={row['n_gram']}"
