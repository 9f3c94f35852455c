"""docs/claims.md and its figures, written from the runs that docs/claims holds.

    byrote reproduce --all -o reproduced
    python tests/claims_page.py reproduced

Without a folder it only writes the page anew. tests/probes/test_claims_page.py compares page and figures with the runs.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from byrote.checkpoints.safe_read import read_json
from byrote.probes.claims.catalogue import CLAIMS
from byrote.probes.claims.judging import judge_claims
from byrote.probes.claims.runs_table import read_runs
from byrote.report.claim_files import pictures_of
from byrote.report.claims import Made, as_markdown, claims_report
from byrote.report.html import standalone_svg

DOCS = Path(__file__).parents[1] / "docs"
FOLDER, PAGE = DOCS / "claims", DOCS / "claims.md"
NOTE = (
    "Written by `python tests/claims_page.py` from [the runs](claims/runs.parquet); a test compares the two. The same numbers as JSON: "
    "[claims.json](claims/claims.json). Runs, rules and verdicts are explained in [statistics.md](statistics.md); "
    "`byrote reproduce --list` lists the claims. These runs were made by several calls of `byrote reproduce`, at several commits of one "
    "afternoon, and put together; no verdict has been repeated with fresh seeds yet (`--first-seed`)."
)


def written() -> Mapping[Path, str]:
    """The page and everything beside it but the runs, by path, as the runs that are kept say it."""
    kept = read_json(FOLDER / "claims.json")
    table = read_runs(FOLDER / "runs.parquet")
    names = [claim["name"] for claim in kept["claims"] if claim["name"] in CLAIMS]
    judgements, made = judge_claims([CLAIMS[name] for name in names], table), Made.of(kept["made"])
    report = claims_report(judgements, table, made)
    figures = {
        FOLDER / f"{name}.svg": standalone_svg(one.figure, name=name)
        for name, one in pictures_of(report).items()
    }
    absent = [name for name in CLAIMS if name not in names]
    note = f"{NOTE} Defined, and not among these runs: {', '.join(absent)}." if absent else NOTE
    return {PAGE: as_markdown(report, pictures="claims", note=note), **figures}


def main(folder: Path | None) -> None:
    """Take runs over, if any are given, and write the page."""
    if folder is not None:
        FOLDER.mkdir(exist_ok=True)
        for name in ("runs.parquet", "claims.json"):
            shutil.copyfile(folder / name, FOLDER / name)
    found = written()
    for path in set(FOLDER.glob("*.svg")) - set(found):
        path.unlink()
    for path, text in found.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
