"""docs/claims.md says what the runs beside it say."""

from __future__ import annotations

from collections import Counter

from claims_page import FOLDER, PAGE, has_runs, written

from byrote.checkpoints.safe_read import read_json
from byrote.probes.claims.catalogue import CLAIMS, PAPERS
from byrote.probes.claims.judging import UNTESTABLE, as_json, judge_claims
from byrote.probes.claims.runs_table import Runs, read_runs
from byrote.probes.rules import IN_DIRECTION, NOT_REPRODUCED, REPRODUCED, UNDECIDED
from byrote.report.claim_files import VERSION


def test_page_and_figures_are_those_of_the_runs():
    for path, text in written().items():
        assert path.read_text(encoding="utf-8") == text, "run: python tests/claims_page.py"


def test_every_claim_of_the_kept_run_is_on_the_page_with_the_verdict_of_its_runs():
    kept, table = read_json(FOLDER / "claims.json"), read_runs(FOLDER / "runs.parquet")
    assert kept["version"] == VERSION
    runs = Runs(table)
    claims = [CLAIMS[claim["name"]] for claim in kept["claims"] if has_runs(claim["name"], runs)]
    words = {judged.claim.name: as_json(judged)["verdict"] for judged in judge_claims(claims, table)}
    assert len(words) > 20
    assert {c["name"]: c["verdict"] for c in kept["claims"] if c["name"] in words} == words
    page = PAGE.read_text(encoding="utf-8")
    for claim in claims:
        number = f" (claim {claim.number})" if claim.number else ""
        assert f"{claim.name}{number}: {words[claim.name]}" in page


def test_what_to_trust_and_the_readme_count_the_verdicts_of_the_kept_run():
    claims = read_json(FOLDER / "claims.json")["claims"]
    page, readme = (
        " ".join(path.read_text(encoding="utf-8").split())
        for path in (PAGE.with_name("trust.md"), PAGE.parents[1] / "README.md")
    )
    of_papers = Counter(claim["verdict"] for claim in claims if claim["paper"] != "findings")
    own = Counter(claim["verdict"] for claim in claims if claim["paper"] == "findings")
    keys = {claim["paper"] for claim in claims} - {"findings"}
    papers = sum(PAPERS[key].title.count(";") + 1 for key in keys)  # some claims are of two papers
    tested = f"tested {of_papers.total()} claims from {papers} papers"
    assert tested in page and tested in readme
    assert f"{of_papers[REPRODUCED]} were reproduced, {of_papers[NOT_REPRODUCED]} were not" in readme
    assert (
        f"{of_papers[REPRODUCED]} are reproduced at this scale, {of_papers[IN_DIRECTION]} in direction only, {of_papers[NOT_REPRODUCED]} are "
        f"not reproduced, {of_papers[UNDECIDED]} are undecided and {of_papers[UNTESTABLE]} cannot be tested"
    ) in page
    assert f"Of {own.total()} findings from byrote's own trials" in page
    assert (
        f"{own[REPRODUCED]} are reproduced, {own[IN_DIRECTION]} in direction only, {own[NOT_REPRODUCED]} is not and {own[UNDECIDED]} are undecided"
    ) in page


def test_the_runs_are_small_enough_to_be_part_of_the_repository():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 4 << 20
