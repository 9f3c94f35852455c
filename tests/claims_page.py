"""docs/claims.md and its figures, written from the runs that docs/claims holds.

    byrote reproduce --all --full -o reproduced
    byrote reproduce --all -o again --first-seed 20
    PYTHONPATH=tests python tests/claims_page.py reproduced --again again --seeds 20

Several folders of runs are put together, the later ones over the earlier. Without a folder the page is only written anew.
`--again` judges the claims of these folders on runs of other seeds, and 200 relabellings of the first runs for each claim that
compares arms; claims and seeds that were judged before stay as they are. tests/probes/test_claims_page.py compares page and figures
with the runs.
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
from byrote.probes.figures.paper import page_svg
from byrote.report.claim_files import claims_json
from byrote.report.claims import Made, as_markdown, claims_report
from byrote.report.files import pictures_of
from byrote.report.model import Estimate, Prose, Section, Table

DOCS = Path(__file__).parents[1] / "docs"
FOLDER, PAGE = DOCS / "claims", DOCS / "claims.md"
AGAIN = FOLDER / "again.json"
NOTE = (
    "Written by `python tests/claims_page.py` from [the runs](claims/runs.parquet); a test compares the two. The same numbers as JSON: "
    "[claims.json](claims/claims.json). Runs, rules and verdicts are explained in [statistics.md](statistics.md); "
    "`byrote reproduce --list` lists the claims. The runs come from several calls of `byrote reproduce`."
)


def has_runs(name: str, runs: Runs) -> bool:
    """Whether a claim of this name can be judged on these runs, or says that none can show it."""
    try:
        return name in CLAIMS and bool(judge_one(CLAIMS[name], runs))
    except ByroteError:
        return False


def judged_runs(folder: Path) -> tuple[list[Judgement], pd.DataFrame, Made]:
    """The claims of a folder, judged on its runs by today's rules; claims that today need other runs are left out."""
    kept, table = read_json(folder / "claims.json"), read_runs(folder / "runs.parquet")
    runs = Runs(table)
    names = [claim["name"] for claim in kept["claims"] if has_runs(claim["name"], runs)]
    ordered = [CLAIMS[name] for name in CLAIMS if name in names]
    return judge_claims(ordered, table), table, Made.of(kept["made"])


def written() -> Mapping[Path, str]:
    """The page and everything beside it but the runs, by path, as the runs that are kept say it."""
    judgements, table, made = judged_runs(FOLDER)
    report = claims_report(judgements, table, made)
    figures = {
        FOLDER / f"{name}.svg": page_svg(one.figure, name=name) for name, one in pictures_of(report).items()
    }
    if AGAIN.exists():
        first, *rest = report.sections
        report = replace(report, sections=(first, _again(judgements, read_json(AGAIN)), *rest))
    names = {judged.claim.name for judged in judgements}
    absent = [name for name in CLAIMS if name not in names]
    note = f"{NOTE} Defined, and not among these runs: {', '.join(absent)}." if absent else NOTE
    return {PAGE: as_markdown(report, pictures="claims", note=note), **figures}


def _again(judgements: Sequence[Judgement], again: Mapping[str, Any]) -> Section:
    """Each claim beside its verdicts on other seeds, and on its own runs with their arms exchanged."""
    looks = {look["seeds"]: {claim["name"]: claim for claim in look["claims"]} for look in again["looks"]}
    rows: list[tuple[Any, ...]] = []
    changed: list[str] = []
    for judged in judgements:
        name, decides = judged.claim.name, judged.claim.primary
        others = {seeds: found[name] for seeds, found in looks.items() if found.get(name, {}).get(decides)}
        if judged.verdict is None or not others:
            continue
        words = [other["verdict"] for other in others.values()]
        if set(words) != {judged.word}:
            changed.append(f"{name} ({judged.word}; {', '.join(words)})")
        cells = [judged.word, _effect(as_json(judged)[decides])]
        for seeds in looks:
            other = others.get(seeds)
            cells += ["", ""] if other is None else [other["verdict"], _effect(other[decides])]
        share = again["relabelled"].get(name)
        rows.append((name, *cells, "" if share is None else f"{share:.1%}"))
    said = f"Verdicts that differ: {', '.join(changed)}." if changed else "Every verdict is the same."
    shown = {row[0] for row in rows}
    alone = [j.claim.name for j in judgements if j.verdict is not None and j.claim.name not in shown]
    said += f" Not repeated, or not testable with other seeds: {', '.join(alone)}." if alone else ""
    commands = " and ".join(f"`{look['made']['command']}`" for look in again["looks"])
    how = f"The other runs are from {commands}. Quick grids have 5 seeds, so that no seed is in two columns, except those of linear models (10) and of heads that are clamped or compared in weights (6 and 7), which share some seeds with the next column. {said} Relabelled: how often the claim is judged as reproduced on its own runs when arms are exchanged within seeds at random, {N_NULL} times or in every possible way, including the original labels."
    columns = ("Claim", "These seeds", "Effect", *(word for seeds in looks for word in (f"Seeds from {seeds}", "Effect")), "Relabelled")  # fmt: skip
    table = Table("again", "The same claims on other seeds, and with labels exchanged.", columns, tuple(rows))
    return Section("again", "Repeated with other seeds and with exchanged labels", (Prose(how), table))


def _effect(part: Mapping[str, Any]) -> Estimate:
    value, lo, hi = (float(part[end]) for end in ("value", "lo", "hi"))
    return Estimate(value, lo, hi, n=part["seeds"], signed=True)


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


def _add_again(folders: Sequence[Path], command: str, seeds: str) -> None:
    """Judge the claims of folders of other seeds, and write them beside those that were judged before."""
    first, table, _ = judged_runs(FOLDER)
    before = read_json(AGAIN) if AGAIN.exists() else {"looks": [], "relabelled": {}}
    looks, fresh = {look["seeds"]: look for look in before["looks"]}, set[str]()
    if folders:
        others, _, made = _combined(folders)
        judged = {one.claim.name: as_json(one) for one in others}
        old = looks.get(seeds, {"made": {"seconds": 0.0}, "claims": []})
        claims = {claim["name"]: claim for claim in old["claims"]} | judged
        seconds, fresh = made.seconds + old["made"]["seconds"], set(judged)
        looks[seeds] = {
            "seeds": seeds,
            "made": asdict(replace(made, command=command, seconds=seconds)),
            "claims": [claims[name] for name in CLAIMS if name in claims],
        }
    compared = [one.claim for one in first if one.claim.exchange and one.verdict is not None]
    rates = {
        claim.name: null_rate(claim, table)
        for claim in compared
        if claim.name in fresh or claim.name not in before["relabelled"]
    }
    relabelled = {claim.name: (before["relabelled"] | rates)[claim.name] for claim in compared}
    write_json(AGAIN, {"looks": list(looks.values()), "relabelled": relabelled})


def main(
    folders: Sequence[Path], again: Sequence[Path], command: str, again_command: str, seeds: str
) -> None:
    """Take runs over, if any are given, and write the page."""
    if folders:
        FOLDER.mkdir(exist_ok=True)
        judgements, table, made = _combined(folders)
        write_runs(FOLDER / "runs.parquet", table)
        write_json(FOLDER / "claims.json", claims_json(judgements, replace(made, command=command)))
    if folders or again:
        _add_again(again, again_command, seeds)
    found = written()
    for path in set(FOLDER.glob("*.svg")) - set(found):
        path.unlink()
    for path, text in found.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="of `byrote reproduce`")
    parser.add_argument("--command", default="byrote reproduce --all --full", help="that makes the runs")
    parser.add_argument("--again", nargs="+", type=Path, default=[], help="the same, of other seeds")
    parser.add_argument("--again-command", default="byrote reproduce --all --first-seed 20")
    parser.add_argument("--seeds", default="20", help="the first of them")
    options = parser.parse_args()
    main(options.folders, options.again, options.command, options.again_command, options.seeds)
