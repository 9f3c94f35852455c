"""The three files of a report: the page for people, the same content as JSON, and every observation as CSV."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from byrote.checkpoints.atomic import explained_writes, make_folder, remove_leftovers_of, write_text
from byrote.checkpoints.errors import ByroteError
from byrote.probes.comparable import Comparison
from byrote.probes.csv_text import csv_frame
from byrote.probes.figures.paper import paper_svg
from byrote.probes.groups import Group
from byrote.probes.results import Results
from byrote.probes.wording import visible_json
from byrote.report import SCHEMA, SCHEMA_VERSION
from byrote.report.content import report_content
from byrote.report.html import render
from byrote.report.model import Picture, Report, Table
from byrote.report.redact import redact

PAGE_ENDINGS = (".html", ".htm")
OTHER_ENDINGS = (
    ".csv", ".eps", ".gif", ".jpeg", ".jpg", ".json", ".md", ".mhtml", ".mp4", ".parquet", ".pdf", ".png", ".ps", ".svg", ".tex",
    ".txt", ".webm", ".webp", ".zip",
)  # fmt: skip
WARN_BYTES = {"interactive": 10_000_000, "light": 400_000}
COLUMNS = (
    "run", "arm", "step", "tokens_seen", "probe", "metric", "layer", "head", "src_layer", "src_head", "position", "value", "lo",
    "hi", "chance", "n", "valid", "reason", "seed", "training_seed",
)  # fmt: skip


@dataclass(frozen=True)
class ReportFiles:
    """Where a report was written.

    Attributes:
        html, json, csv: the files.
        figures: each figure as a file of its own, where these were requested.
        warnings: for the person who writes it, such as a page past 10 MB.
    """

    html: Path
    json: Path
    csv: Path
    figures: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()


def build_report(
    results: Sequence[Results],
    *,
    out: Path,
    base: str | None = None,
    comparison: Comparison | Sequence[Comparison] | None = None,
    groups: Sequence[Group] | None = None,
    light: bool = False,
    figures: bool = False,
    title: str | None = None,
    date: str | None = None,
) -> ReportFiles:
    """Write a report about one run or several.

    Args:
        results: the runs.
        out: the HTML file if it ends in `.html` (JSON and CSV get its name), else a folder for `report.html`,
            `report.json` and `scores.csv`. Existing files are replaced whole.
        base: name of the baseline run.
        comparison: one or several, made before; None compares every other run with the baseline.
        groups: arms of several seeds, the baseline first; None groups runs by the arm they declare.
        light: no JavaScript, still figures only.
        figures: write every figure as an SVG too, into the folder `figures` beside the page.
        title: replaces the finding as title.
        date: printed date; None takes the current one. It is the only line that differs between two reports of the
            same results.

    Returns:
        The files and warnings.

    Raises:
        ByroteError: no run, two runs of one name, an unknown baseline, or a place that cannot be written or ends as a file of
            another kind.
    """
    date = date if date is not None else now_in_words()
    page_file, json_file, csv_file = _places(Path(out))
    report = report_content(
        results,
        base=base,
        comparison=comparison,
        groups=groups,
        title=title,
        date=date,
        light=light,
        out_name=page_file.name,
    )
    page, sizes = render(report, light=light)
    files = {page_file: page, json_file: json_text(report), csv_file: csv_text(results)}
    limit = WARN_BYTES["light" if light else "interactive"]
    write_files(files)
    drawn = write_pictures(page_file.parent / "figures", report) if figures else ()
    warnings = size_warnings(len(page.encode()), sizes, limit=limit)
    return ReportFiles(page_file, json_file, csv_file, drawn, warnings)


def now_in_words() -> str:
    """The date that a report prints: `2026-11-21 09:00 UTC`."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def write_files(files: Mapping[Path, str]) -> None:
    """Write the files of a report, each whole, into a folder that is made where it is missing; what killed writers left goes.

    Raises:
        ByroteError: one cannot be written.
    """
    for path, text in files.items():
        with explained_writes(path):
            make_folder(path.parent)
            remove_leftovers_of(path)
            write_text(path, text)


def pictures_of(report: Report) -> dict[str, Picture]:
    """The figures of a report by name."""
    return {
        block.name: block
        for section in report.sections
        for block in section.blocks
        if isinstance(block, Picture)
    }


def write_pictures(folder: Path, report: Report) -> tuple[Path, ...]:
    """Every figure as an SVG file, with its title and caption; the files.

    Raises:
        ByroteError: one cannot be written.
    """
    drawn = {
        folder / f"{name}.svg": paper_svg(picture.figure, name=name, on_screen=True)
        for name, picture in pictures_of(report).items()
    }
    write_files(drawn)
    return tuple(drawn)


def json_text(report: Report) -> str:
    """The content of a report as JSON: sentences, tables with raw numbers, figures as their sentence and table.

    Not measured is `null` beside a reason; NaN never appears.
    """
    data = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **_plain(report)}
    return visible_json(data, indent=1, ascii_only=False) + "\n"


def csv_text(results: Sequence[Results]) -> str:
    """Every observation of every run in the tidy columns; empty where there is no number, with the reason beside it."""
    frames = [_with_seeds(r)[list(COLUMNS)] for r in results]
    frame = pd.concat([f for f in frames if not f.empty] or frames[:1], ignore_index=True)
    redacted = {reason: redact(str(reason)) for reason in frame["reason"].unique()}
    frame = frame.assign(reason=frame["reason"].map(redacted))
    return csv_frame(frame, float_format="%.9g")


def _with_seeds(results: Results) -> pd.DataFrame:
    """Observations with the seed of their sequences and that of the training, empty where not recorded."""
    seeds = {"seed": results.sequence_seed, "training_seed": results.training_seed}
    known = {name: pd.array([seed] * len(results.frame), "Int64") for name, seed in seeds.items()}
    known["arm"] = pd.array([results.facts.arm] * len(results.frame), "string")
    return results.frame.sort_values(["step", "probe", "metric"], kind="stable").assign(**known)


def size_warnings(total_bytes: int, section_bytes: dict[str, int], *, limit: int) -> tuple[str, ...]:
    """A warning that names the largest section when a page is past the limit, else nothing."""
    if total_bytes <= limit:
        return ()
    largest = max(section_bytes, key=section_bytes.__getitem__)
    return (
        f"the page is {total_bytes / 1e6:.2g} MB; its largest section is “{largest}” "
        f"({section_bytes[largest] / 1e6:.2g} MB). Fewer runs make it smaller.",
    )


def page_file_of(out: Path, name: str) -> Path:
    """The HTML file that a path stands for: itself, or a file in the folder that it names.

    Args:
        out: a .html file, or a folder, which may have a dot in its name.
        name: of the file in the folder.

    Raises:
        ByroteError: it ends as a file of another kind does, and no folder has that name.
    """
    ending = out.suffix.lower()
    if ending in PAGE_ENDINGS:
        return out
    if ending in OTHER_ENDINGS and not out.is_dir():
        raise ByroteError(
            f"{out} would be a {ending} file, and an HTML file is written",
            help=f"name {out.with_suffix('.html')}, or a folder; `byrote report --figures` writes every figure as SVG",
        )
    return out / name


def _places(out: Path) -> tuple[Path, Path, Path]:
    page = page_file_of(out, "report.html")
    scores = "scores.csv" if page.parent == out else page.with_suffix(".csv").name
    return page, page.with_suffix(".json"), page.parent / scores


def _plain(node: Any) -> Any:
    """Dataclasses to JSON: blocks carry their kind, columns name their values, figures keep sentence and table."""
    if isinstance(node, Picture):
        layout = node.figure.layout
        finding = {"kind": "figure", "name": node.name, "finding": redact(layout.meta["alt"])}
        return finding | {"table": _plain(node.table)}
    if isinstance(node, Table):
        rows = [dict(zip(node.columns, (_plain(v) for v in row), strict=True)) for row in node.rows]
        facts = {"kind": "table", "name": node.name, "caption": redact(node.caption), "rows": rows}
        return facts | {"n_left_out": node.n_left_out}
    if dataclasses.is_dataclass(node):
        own = {f.name: _plain(getattr(node, f.name)) for f in dataclasses.fields(node)}
        return own if isinstance(node, Report) else {"kind": type(node).__name__.lower(), **own}
    if isinstance(node, (list, tuple)):
        return [_plain(child) for child in node]
    if isinstance(node, float):
        return node if math.isfinite(node) else None
    return redact(node) if isinstance(node, str) else node
