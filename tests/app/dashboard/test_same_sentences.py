"""What happened is told in the same words by the report's title, the overview, the compare page and the command line."""

from __future__ import annotations

import html

import numpy as np
import pytest
from planted_series import SHAPE, flat, rising, write_results
from streamlit_client import heading

from byrote.probes import findings
from byrote.probes.degradation import compare
from byrote.probes.findings_compared import tally
from byrote.probes.registry import lookup
from byrote.probes.results import Results
from byrote.probes.results.schema import Measured, not_measured
from byrote.report.comparing import comparison_section
from byrote.report.model import Prose
from byrote.report.report_inputs import report_inputs


def called(units, *steps: int):
    """The same with the verdict of L1H2 at these steps only."""
    out = {}
    for step, measured in units.items():
        verdict = np.zeros(SHAPE)
        verdict[1, 2] = float(step in steps)
        bare = [np.full(SHAPE, v) for v in (np.nan, 32.0)]
        judged = Measured("induction", "verdict", verdict, verdict, verdict, *bare, ("layer", "head"))
        out[step] = [judged if m.probe == "induction" else m for m in measured]
    return out


def undetermined(units):
    """The same where copying was not measured, so that nothing can be called."""
    reason = not_measured(lookup("induction"), "verdict", "copying was not measured")
    return {s: [reason if m.probe == "induction" else m for m in ms] for s, ms in units.items()}


RISES = "induction heads form between steps 10 and 20 (L1H2)"
NEVER = "no lasting induction head forms"
CASES = {
    "never rises": ([flat()], f"a: {NEVER}"),
    "rises": ([rising()], f"a: {RISES}"),
    "there from the start": ([rising(at=0)], "a: induction heads form by step 0 (L1H2)"),
    "rises and loses": (
        [called(rising(), 10, 20)],
        "a: induction heads form between steps 0 and 10 (L1H2) and are lost again",
    ),
    "called at one step": ([called(rising(), 10)], f"a: {NEVER}"),
    "undetermined": (
        [undetermined(rising())],
        "Strongest prefix matching: a 0.90 [0.88, 0.92] (L1H2, step 40)",
    ),
    "two runs": ([rising(), flat()], f"a: {RISES}; b: {NEVER}"),
    "two runs, both lose or never have": (
        [called(rising(), 10, 20), called(rising(), 40)],
        "a: induction heads form between steps 0 and 10 (L1H2) and are lost again; "
        "b: induction heads form between steps 20 and 40 (L1H2)",
    ),
    "one of two undetermined": (
        [rising(), undetermined(rising())],
        f"a: {RISES}; b: the induction verdict was not measured: copying was not measured",
    ),
    "many runs": ([rising(), flat(), rising(), flat()], "2 of 4 runs form lasting induction heads: a and c"),
}


@pytest.mark.parametrize("case", CASES)
def test_every_face_tells_the_same(case, tmp_path, open_page, byrote):
    series, expected = CASES[case]
    paths = [
        write_results(tmp_path / "results", name, units) for name, units in zip("abcd", series, strict=False)
    ]
    results = [Results.open(path) for path in paths]
    assert findings.runs(results) == expected
    page = open_page("overview", tmp_path / "results", run="a", base="b" if len(paths) > 1 else "")
    swapped = "; ".join(reversed(expected.split("; ")))  # the page names the baseline first
    assert heading(page) in {expected, swapped}
    inputs = report_inputs(results)
    assert findings.runs(inputs.results, inputs.onsets) == expected  # a report's title
    if len(paths) != 2:
        return
    found = compare(*results)
    assert found.sentence.startswith(f"{expected}. In these two runs, at step 40, ")
    line = " ".join(byrote("compare", *paths, "-t", COLUMNS="300").stdout.split())
    assert line.startswith(found.sentence) and tally(found) in line
    page = open_page("compare", tmp_path / "results", run="b", base="a", step=40)
    assert heading(page) == tally(found)
    assert any(c.value.replace("\\", "") == found.sentence for c in page.caption)
    section = comparison_section(report_inputs(results, base="a"))
    assert {found.sentence, f"{tally(found)}."} <= {b.text for b in section.blocks if isinstance(b, Prose)}
    if case != "two runs":  # one page is enough to see that a report has its title and its sections
        return
    assert byrote("report", *paths, "--base", "a", "--light", "-o", "report").exit_code == 0
    written = html.unescape((byrote.folder / "report/report.html").read_text(encoding="utf-8"))
    assert f"<title>{expected}</title>" in written
    assert found.sentence in written and tally(found) in written


def test_what_one_run_ends_with(tmp_path):
    results = Results.open(write_results(tmp_path, "a", called(rising(), 10, 20)))
    told = list(findings.at_end(results))
    assert told[0] == CASES["rises and loses"][1]
    assert told[1] == "no induction heads at step 40"
    assert told[2] == "previous-token heads: L0H1 0.80 [0.78, 0.82]"
    assert findings.marks(results, findings.onset(results)) == [
        (10, "first lasting induction head (L1H2)"),
        (40, "the last induction head is lost"),
    ]


def test_seeds_and_data_that_are_not_recorded_are_left_out(tmp_path):
    known = write_results(
        tmp_path, "a", flat(), arm={"kind": "repeated", "repeat_frac": 0.5, "pool_size": 64}
    )
    bare = write_results(tmp_path, "b", flat(), provenance={})
    assert findings.seeds(Results.open(known)) == ", sequence seed 0"
    assert findings.arm_words(Results.open(known)) == "50% of the data repeated, from a pool of 64"
    assert findings.seeds(Results.open(bare)) == "" and findings.arm_words(Results.open(bare)) == ""
