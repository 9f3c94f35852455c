"""Cards: one renderer for the terminal and the documentation, and pages that are current."""

from __future__ import annotations

from pathlib import Path

import pytest

from byrote.checkpoints.errors import ByroteError
from byrote.probes import cards
from byrote.probes.degrade import measure_cards
from byrote.probes.degrade.measure_rows import MEASURES
from byrote.probes.registry import REGISTRY
from byrote.probes.rules import smallest_effect, smallest_reason
from byrote.probes.spec import ProbeInfo

DOCS = Path(__file__).parents[2] / "docs" / "probes"

PLANTED = ProbeInfo(
    name="planted",
    kind="head",
    unit="share",
    range=(-1.0, 1.0),
    better=None,
    source="someone 1999",
    summary="What it is.",
    chance="0",
    metrics={"score": "||a*b|| of <x>", "z": "the score in sd"},
    module="byrote.probes.heads.previous_token",
    stimuli=("repeated_random",),
    units={"z": "sd"},
    reads_as="high is *high*",
    not_measured="never",
)


def test_written_cards_are_current():
    written = {page.name: page.read_text(encoding="utf-8") for page in DOCS.glob("*.md")}
    assert written == cards.pages(), "run: python -m byrote.probes.cards docs/probes"
    assert set(written) == {f"{name}.md" for name in REGISTRY} | {"README.md"}


@pytest.mark.parametrize("name", REGISTRY)
def test_every_card_says_how_to_read_the_number(name):
    info, shown = REGISTRY[name], cards.card(REGISTRY[name])
    for label in ("unit", "range", "chance", "reads as", "not measured when", "source", "version"):
        assert shown.facts[label].strip(), f"{name} does not say its {label}"
    assert [metric for metric, _, _, _ in shown.metrics] == list(info.metrics)
    assert any(step.startswith("1. ") for step in shown.steps)
    for metric in filter(info.compares, info.metrics):
        assert smallest_effect(info, metric) > 0 and smallest_reason(info, metric), (
            f"{metric} has no smallest effect: say one and why, {name} = @probe(..., smallest=...)"
        )


def test_a_card_is_laid_out_for_the_terminal():
    lines = list(cards.text_lines(cards.card(PLANTED), width=60))
    assert lines[:3] == ["planted", "What it is.", ""]
    assert "range              -1 to 1" in lines
    assert "reads as           high is *high*" in lines
    assert "better             neither: a description, not a score" in lines
    assert "  score: ||a*b|| of <x> (share, smallest effect 0.05)" in lines
    assert "  z: the score in sd (sd)" in lines
    assert "  1. take A[q, q-1] for every q >= 1" in lines
    assert max(map(len, lines)) <= 60
    numbered = lines.index("  3. sink_free: position 0 excluded as a key, rows")
    assert lines[numbered + 1].startswith("     ")  # a point's second line stands under its first


def test_a_card_is_laid_out_as_a_page():
    page = cards.markdown(cards.card(PLANTED))
    assert page.startswith("# planted\n\nWhat it is.\n\n- **kind**: head\n- **unit**: share\n")
    assert "- **reads as**: high is \\*high\\*\n" in page
    assert (
        "| `score` | \\|\\|a\\*b\\|\\| of \\<x> | share | 0.05 |\n| `z` | the score in sd | sd |  |\n" in page
    )
    steps = page[page.index("## How it is computed") :].splitlines()
    assert "- **source**: someone 1999\n" in page
    assert [line[:2] for line in steps[2:5]] == ["1.", "2.", "3."]
    assert "**needs**" not in page  # what has nothing to say is left out


def test_pages_are_written_and_those_of_probes_that_are_gone_removed(tmp_path, monkeypatch):
    (tmp_path / "gone.md").write_text("of a probe that was renamed")
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr("sys.argv", ["cards", str(tmp_path)])
    cards.main()
    assert {page.name for page in tmp_path.iterdir()} == {*cards.pages(), "notes.txt"}
    monkeypatch.setattr("sys.argv", ["cards"])
    with pytest.raises(ByroteError, match="name the folder"):
        cards.main()


def test_cards_never_import_torch(run_prepared):
    code = "import sys\nfrom probes.cards import pages\npages()\nprint('torch' in sys.modules)"
    assert run_prepared(code) == "False"


def test_the_measures_of_degradation_have_cards_that_are_current():
    folder = DOCS.parent / "degradation"
    written = {page.name: page.read_text(encoding="utf-8") for page in folder.glob("*.md")}
    assert written == measure_cards.pages(), (
        "run: python -m byrote.probes.degrade.measure_cards docs/degradation"
    )
    assert set(measure_cards.MEASURE_INFOS) == set(MEASURES)


@pytest.mark.parametrize("name", measure_cards.MEASURE_INFOS)
def test_every_measure_says_how_to_read_it(name):
    shown = measure_cards.measure_card(name)
    assert all(shown.facts[label].strip() for label in ("reads as", "needs", "not measured when"))
    assert shown.metrics and any(step.startswith("1. ") for step in shown.steps)
