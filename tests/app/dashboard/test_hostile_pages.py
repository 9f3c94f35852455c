"""Names and tokens from files are shown letter by letter and never run."""

from __future__ import annotations

import json
import re

import pytest
from planted_series import keep_attention, rising, write_results

from byrote.dashboard.components.token_view import token_text
from byrote.dashboard.views import PAGES
from byrote.dashboard.views.memory import Passage, passage_html
from byrote.probes.wording import file_stem, literal

EVIL = "<img src=x onerror=alert(1)>![](http://evil.example/x.png)[a](javascript:alert(1)) $x$ :red[y]"


@pytest.mark.parametrize("page", PAGES)
def test_a_hostile_run_name_is_only_text(open_page, tmp_path, page):
    gap = {"step": 30, "path": "step_30", "reason": EVIL, "help": EVIL}
    write_results(tmp_path, EVIL, rising(), folder="evil", gaps=[gap])
    at = open_page(page, tmp_path)
    if key := {"overview": "why_gaps", "runs": "provenance"}.get(page):
        at.button(key=key).click().run()
        assert "evil" in at.markdown[-1].value
    assert not at.exception
    for kind in ("title", "markdown", "caption", "header", "error"):
        for element in getattr(at, kind):
            unescaped = re.sub(r"\\[^\w\s]", "", str(element.value))
            for live in ("![", "](javascript", "](http", "<img", ":red", "$x"):
                assert live not in unescaped, (kind, element.value)


def test_hostile_tokens_travel_as_text(open_page, tmp_path):
    folder = write_results(tmp_path, "plain", rising())
    keep_attention(folder, 40, ["<script>alert(1)</script>", " a\u202eb", "\n"])
    at = open_page("head", tmp_path, step=40, head="L1H2")
    assert not at.exception
    shown = json.loads(next(c.proto.json for c in at.get("bidi_component") if "codes" in c.proto.json))
    assert shown["masked"] and shown["tokens"] == ["", "", ""]  # training text, not revealed
    at.toggle(key="reveal").set_value(True).run()
    shown = json.loads(next(c.proto.json for c in at.get("bidi_component") if "codes" in c.proto.json))
    assert shown["tokens"] == ["<script>alert(1)</scrip…", " a\ufffdb", "\n"]


def test_a_passage_is_masked_until_revealed_and_escaped_then():
    passage = Passage(0, ("bos", "<b>x</b>", "secret"), {1: "neither", 2: "recall"})
    assert "secret" not in passage_html(passage, theme="light", reveal=False)
    shown = passage_html(passage, theme="dark", reveal=True)
    assert "secret" in shown and "&lt;b&gt;" in shown and "<b>x" not in shown


def test_text_keeps_its_letters_and_loses_its_powers():
    assert literal(EVIL).replace("\\", "") == EVIL
    assert token_text("a\u202eb\x1b[0m") == "a\ufffdb\ufffd[0m"
    assert file_stem("../../etc", "<x>", 7) == "etc_x_7"
