"""The files of a page of claims: the page itself, its figures, its numbers as JSON, and the table of runs."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from byrote.checkpoints.atomic import explained_writes, make_folder, write_json, write_text
from byrote.probes.claims.judging import Judgement, as_json
from byrote.probes.claims.runs_table import write_runs
from byrote.probes.sweep.config import installed_versions
from byrote.report.claims import Made, claims_report
from byrote.report.files import write_pictures
from byrote.report.html import render

VERSION = 1


@dataclass(frozen=True)
class ClaimFiles:
    """What was written.

    Attributes:
        page: HTML.
        json: every judgement, and how it was made.
        runs: the table.
        pictures: one per claim that has runs.
    """

    page: Path
    json: Path
    runs: Path
    pictures: tuple[Path, ...]


def made_now(command: str, seconds: float) -> Made:
    """How runs came about that were just made here.

    Args:
        command: that was typed.
        seconds: it took.
    """
    from byrote.checkpoints.side_by_side import cores

    machine = (
        f"{cores()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    )
    day = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return Made(command, day, machine, round(seconds, 1), installed_versions())


def write_claims(out: Path, judgements: Sequence[Judgement], table: pd.DataFrame, made: Made) -> ClaimFiles:
    """Write the page and everything beside it; what is there is replaced.

    Args:
        out: the folder.
        judgements, table, made: see `byrote.report.claims.claims_report`.

    Raises:
        ByroteError: it cannot be written to.
    """
    report = claims_report(judgements, table, made)
    page, _ = render(report, light=True)
    html, json, runs = out / "claims.html", out / "claims.json", out / "runs.parquet"
    with explained_writes(out):
        make_folder(out)
        write_runs(runs, table)
        write_json(json, claims_json(judgements, made))
        pictures = write_pictures(out / "figures", report)
        write_text(html, page)
    return ClaimFiles(html, json, runs, pictures)


def claims_json(judgements: Sequence[Judgement], made: Made) -> dict[str, Any]:
    """What claims.json holds."""
    return {"version": VERSION, "made": asdict(made), "claims": [as_json(judged) for judged in judgements]}
