"""The page of SmolLM2-135M against the table beside it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "real"))

DOCS = Path(__file__).parents[1] / "docs" / "case-studies"


def test_the_page_in_the_documentation_is_that_of_its_table():
    import smollm2_page

    facts = json.loads((DOCS / "smollm2.json").read_text(encoding="utf-8"))
    text = (DOCS / "smollm2.md").read_text(encoding="utf-8")
    assert text == smollm2_page.page(facts)
    assert text.startswith("# SmolLM2-135M-Instruct, dequantised from 4 bits (Q4_1)\n")
    compared = facts["check"]["compared"]
    assert len(compared) == 7 and max(abs(theirs - ours) for theirs, ours in compared.values()) <= 1e-4
    assert facts["check"]["off"] == max(abs(theirs - ours) for theirs, ours in compared.values())


def test_figures_of_the_page_are_there_and_small():
    for place in re.findall(r"\]\((smollm2-[^)]*)\)", (DOCS / "smollm2.md").read_text(encoding="utf-8")):
        assert 1_000 < (DOCS / place).stat().st_size < 300_000, place
        assert "dequantised from 4 bits" in (DOCS / place).read_text(encoding="utf-8"), place


def test_every_known_text_has_a_name_and_is_longer_than_prompt_and_continuation():
    import smollm2_page

    texts = (Path(smollm2_page.__file__).parent / "known_texts.txt").read_text(encoding="utf-8").splitlines()
    assert len(texts) == len(set(texts)) == len(smollm2_page.KNOWN)
    facts = json.loads((DOCS / "smollm2.json").read_text(encoding="utf-8"))
    for one, text in zip(facts["check"]["known"]["texts"], texts, strict=True):
        assert one["true"].strip()[:20] in text
