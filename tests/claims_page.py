"""docs/claims.md and its figures, written from the runs that docs/claims holds.

    byrote reproduce --all -o reproduced
    byrote reproduce --all -o again --first-seed 5
    PYTHONPATH=tests python tests/claims_page.py reproduced --again again

Several folders of runs are put together, the later ones over the earlier. Without a folder the page is only written anew.
`--again` judges the claims of these folders on runs of other seeds, and 200 relabellings of the first runs for each of them that
compares arms; claims of other folders stay as they were judged before. tests/probes/test_claims_page.py compares page and figures with the runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from byrote.checkpoints.atomic import write_json
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.safe_read import read_json
from byrote.probes.claims.catalogue import CLAIMS
from byrote.probes.claims.judging import N_NULL, Judgement, as_json, judge_claims, judge_one, null_rate
from byrote.probes.claims.runs_table import Runs, read_runs, tidy, write_runs
from byrote.report.claim_files import claims_json
from byrote.report.claims import Made, as_markdown, claims_report
from byrote.report.files import pictures_of
from byrote.report.html import standalone_svg
from byrote.report.model import Estimate, Prose, Section, Table

DOCS = Path(__file__).parents[1] / "docs"
FOLDER, PAGE = DOCS / "claims", DOCS / "claims.md"
AGAIN = FOLDER / "again.json"
NOTE = (
    "Written by `python tests/claims_page.py` from [the runs](claims/runs.parquet); a test compares the two. The same numbers as JSON: "
    "[claims.json](claims/claims.json). Runs, rules and verdicts are explained in [statistics.md](statistics.md); "
    "`byrote reproduce --list` lists the claims. The runs were made by several calls of `byrote reproduce` and put together."
)


def has_runs(name: str, table: pd.DataFrame) -> bool:
    """Whether a claim of this name can be judged on these runs, or says that none can show it."""
    try:
        return name in CLAIMS and bool(judge_one(CLAIMS[name], Runs(table)))
    except ByroteError:
        return False


def judged_runs(folder: Path) -> tuple[list[Judgement], pd.DataFrame, Made]:
    """The claims of a folder, judged on its runs by today's rules; claims that today need other runs are left out."""
    kept, table = read_json(folder / "claims.json"), read_runs(folder / "runs.parquet")
    names = [claim["name"] for claim in kept["claims"] if has_runs(claim["name"], table)]
    ordered = [CLAIMS[name] for name in CLAIMS if name in names]
    return judge_claims(ordered, table), table, Made.of(kept["made"])


def written() -> Mapping[Path, str]:
    """The page and everything beside it but the runs, by path, as the runs that are kept say it."""
    judgements, table, made = judged_runs(FOLDER)
    report = claims_report(judgements, table, made)
    figures = {
        FOLDER / f"{name}.svg": standalone_svg(one.figure, name=name)
        for name, one in pictures_of(report).items()
    }
    if AGAIN.exists():
        first, *rest = report.sections
        report = replace(report, sections=(first, _again(judgements, read_json(AGAIN)), *rest))
    names = {judged.claim.name for judged in judgements}
    absent = [name for name in CLAIMS if name not in names]
    note = f"{NOTE} Defined, and not among these runs: {', '.join(absent)}." if absent else NOTE
    return {PAGE: as_markdown(report, pictures="claims", note=note), **figures}


def _again(judgements: Sequence[Judgement], again: Mapping[str, Any]) -> Section:
    """Each claim beside what other seeds say of it, and beside its own runs with their arms exchanged."""
    second = {claim["name"]: claim for claim in again["claims"]}
    rows: list[tuple[Any, ...]] = []
    changed: list[str] = []
    for judged in judgements:
        name, decides = judged.claim.name, judged.claim.primary
        other = second.get(name)
        if judged.verdict is None or other is None or other[decides] is None:
            continue
        if other["verdict"] != judged.word:
            changed.append(f"{name} ({judged.word}, then {other['verdict']})")
        share = again["relabelled"].get(name)
        effects = [
            Estimate(*(float(one[end]) for end in ("value", "lo", "hi")), n=one["seeds"], signed=True)
            for one in (as_json(judged)[decides], other[decides])
        ]
        rows.append((name, judged.word, effects[0], other["verdict"], effects[1], "" if share is None else f"{share:.1%}"))  # fmt: skip
    said = f"Other verdicts: {', '.join(changed)}." if changed else "Every verdict is the same."
    shown = {row[0] for row in rows}
    alone = [j.claim.name for j in judgements if j.verdict is not None and j.claim.name not in shown]
    said += f" Not repeated, or not testable with fresh seeds: {', '.join(alone)}." if alone else ""
    how = f"The second runs are of `{again['made']['command']}`. {said} Relabelled: how often the claim is called reproduced on its own runs when arms are exchanged within seeds at random, {N_NULL} times or in every way there is, as they stand included."
    columns = ("Claim", "First seeds", "Effect", "Fresh seeds", "Effect", "Relabelled")
    table = Table("again", "The same claims on fresh seeds, and with labels exchanged.", columns, tuple(rows))
    return Section("again", "Again, with fresh seeds and with labels exchanged", (Prose(how), table))


def _combined(folders: Sequence[Path]) -> tuple[list[Judgement], pd.DataFrame, Made]:
    """Claims of several folders judged together, on all their runs."""
    names: set[str] = set()
    tables: dict[str, pd.DataFrame] = {}
    made: list[Made] = []
    for folder in folders:
        judgements, table, how = judged_runs(folder)
        names |= {judged.claim.name for judged in judgements}
        tables |= {str(grid): rows for grid, rows in table.groupby("grid")}
        made.append(how)
    table = tidy(pd.concat(tables.values(), ignore_index=True))
    seconds = sum(how.seconds for how in made)
    return (
        judge_claims([CLAIMS[name] for name in CLAIMS if name in names], table),
        table,
        replace(made[-1], seconds=seconds),
    )


def _add_again(folders: Sequence[Path], command: str) -> None:
    """Judge the claims of folders of other seeds, and write them beside those that were judged before."""
    others, _, made = _combined(folders)
    judged = {one.claim.name: as_json(one) for one in others}
    first, table, _ = judged_runs(FOLDER)
    compared = [one.claim for one in first if one.claim.exchange and one.verdict is not None]
    before = (
        read_json(AGAIN) if AGAIN.exists() else {"made": {"seconds": 0.0}, "claims": [], "relabelled": {}}
    )
    claims = {claim["name"]: claim for claim in before["claims"]} | judged
    rates = before["relabelled"] | {
        claim.name: null_rate(claim, table)
        for claim in compared
        if claim.name in judged or claim.name not in before["relabelled"]
    }
    seconds = made.seconds + before["made"]["seconds"]
    write_json(
        AGAIN,
        {
            "made": asdict(replace(made, command=command, seconds=seconds)),
            "claims": [claims[name] for name in CLAIMS if name in claims],
            "relabelled": {claim.name: rates[claim.name] for claim in compared},
        },
    )


def main(folders: Sequence[Path], again: Sequence[Path], command: str) -> None:
    """Take runs over, if any are given, and write the page."""
    if folders:
        FOLDER.mkdir(exist_ok=True)
        judgements, table, made = _combined(folders)
        write_runs(FOLDER / "runs.parquet", table)
        write_json(FOLDER / "claims.json", claims_json(judgements, replace(made, command=command)))
    if again:
        _add_again(again, f"{command} --first-seed 5")
    found = written()
    for path in set(FOLDER.glob("*.svg")) - set(found):
        path.unlink()
    for path, text in found.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="of `byrote reproduce`")
    parser.add_argument("--again", nargs="+", type=Path, default=[], help="the same with --first-seed 5")
    parser.add_argument("--command", default="byrote reproduce --all", help="that makes the runs")
    options = parser.parse_args()
    main(options.folders, options.again, options.command)
