"""A report of results whose every text was written by a stranger: it is shown, and nothing obeys it."""

from __future__ import annotations

import csv
import html
import json
import re
import unicodedata
from html.parser import HTMLParser
from typing import Any

import pytest
from paper_runs import planted_run, rebuilt, without

from byrote.probes.registry import REGISTRY
from byrote.probes.stored_probes import to_json
from byrote.report.content import report_content
from byrote.report.files import csv_text, json_text
from byrote.report.html import render

EVIL = "=1+1'\"></script><img src=x onerror=alert(1)><svg/onload=alert(2)>&lt;b&gt;\x1b[31m\u202e{{7*7}}[x](javascript:1)"
WORDS_OF_OURS = {"id", "kind", "status", "name", "path", "format"}  # what the shape of results depends on


@pytest.fixture(autouse=True)
def _own_registry():
    """Opening results makes their plugins' probes known."""
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


def evil(node: Any, key: str = "") -> Any:
    """The same with every text replaced, and one more entry in every mapping."""
    if isinstance(node, dict):
        return {k: evil(v, k) for k, v in node.items()} | {EVIL: EVIL}
    if isinstance(node, list):
        return [evil(v, key) for v in node]
    return EVIL if isinstance(node, str) and key not in WORDS_OF_OURS else node


def strangers() -> Any:
    run = planted_run(EVIL, steps=(0, 256, 2400))
    for probe in ("prefix_matching", "copying_logit"):
        run = without(run, probe=probe, step=256, layer=0, head=1, reason=EVIL)
    plugin = to_json(REGISTRY["prefix_matching"])
    plugin = {
        k: EVIL if isinstance(v, str) and k not in ("name", "kind", "main_metric", "better") else v
        for k, v in plugin.items()
    }
    plugin |= {"name": "mine", "plugin": dict.fromkeys(("name", "version", "source"), EVIL)}
    frame = run.frame
    ours = frame[frame["probe"] == "prefix_matching"].assign(probe="mine")
    import pandas as pd

    meta = {
        name: evil(value, name) for name, value in run.meta.items() if name not in ("schema", "run", "probes")
    }
    meta |= {
        "series": {**evil(run.meta["series"]), "path": f"/home/ada/{EVIL}", "name": EVIL, "format": EVIL},
        "plugins": [plugin],
        "notes": [EVIL, EVIL],
        "refused_stimuli": {"natural": EVIL, EVIL: EVIL},
        "gaps": [{"step": 8, "path": EVIL, "reason": EVIL, "help": EVIL}],
        "lint": {
            "facts": [{"kind": EVIL, "severity": "error", "text": EVIL, "steps": [0]}],
            "left_out": {"0": EVIL},
        },
        "drift_from_float32": [
            {"probe": EVIL, "metric": EVIL, "max_abs": 1.0, "mean_abs": 0.5, "n": 3, "interval": 0.1}
        ],
    }
    return rebuilt(run, frame=pd.concat([frame, ours]), **meta)


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def obeyed(text: str) -> set[str]:
    return {c for c in text if c not in "\n " and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


def test_every_text_of_a_stranger_is_only_shown() -> None:
    results = [strangers(), planted_run("other", steps=(0, 256, 2400))]
    report = report_content(results, date="today")
    for light in (True, False):
        assert_only_shown(render(report, light=light)[0], light=light)
    table = csv_text(results)
    assert not obeyed(table)
    cells = [cell for row in csv.reader(table.splitlines()) for cell in row]
    assert not any(cell.startswith(("=", "@", "\t")) for cell in cells)
    assert any(cell.startswith("'=1+1") for cell in cells)
    data = json_text(report)
    assert not obeyed(data) and json.loads(data)


def assert_only_shown(page: str, *, light: bool) -> None:
    page = re.sub(r"<script>/\*\*.*?</script>", "", page, flags=re.S)
    assert not obeyed(page) and html.escape("onerror=alert(1)") in page
    tags = Tags(page).found
    assert not {"img", "b onload"} & {tag for tag, _ in tags}
    for tag, attrs in tags:
        assert not any(name.startswith("on") for name in attrs), tag
        assert all("javascript:" not in (attrs.get(name) or "") for name in ("href", "src", "xlink:href"))
        for name in ("id", "class"):
            assert re.fullmatch(r"[\w -]*", attrs.get(name) or "", re.ASCII), (tag, attrs)
    scripts = re.findall(r'<script type="application/json">(.*?)</script>', page, re.S)
    assert all("<" not in block and json.loads(block) for block in scripts)
    assert len([tag for tag, _ in tags if tag == "script"]) == (0 if light else len(scripts) + 1)


def test_notebooks_show_it_too() -> None:
    run = strangers()
    for page in (run._repr_html_(), run["prefix_matching"]._repr_html_()):
        assert not obeyed(page)
        assert not {"img", "script"} & {tag for tag, _ in Tags(page).found}
        assert not any(name.startswith("on") for tag, attrs in Tags(page).found for name in attrs)
    assert not obeyed(repr(run)) and not obeyed(repr(run["prefix_matching"]))
