"""A probe of one's own from the command line: measured with `--plugin`, and shown by every face without it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from byrote.probes.registry import REGISTRY

PLUGIN = '''
import byrote as br

@br.probe(unit="attention fraction", range=(0, 1), better="higher", stimulus="repeated_random")
def self_attention(pattern):
    """Mean attention of a token <b>to itself</b>."""
    return pattern.diagonal(dim1=-2, dim2=-1).mean(-1)
'''


@pytest.fixture
def plugin(tmp_path):
    known = dict(REGISTRY)
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN, encoding="utf-8")
    yield file
    REGISTRY.clear()
    REGISTRY.update(known)


def test_a_plugin_is_measured_and_every_face_shows_it_without_the_file(byrote, planted_runs, plugin):
    done = byrote("run", planted_runs, "--plugin", plugin, "-p", "self_attention", "--sequences", "8")
    assert done.exit_code == 0, done.stderr
    assert "self_attention" in byrote("probes").stdout
    plugin.unlink()
    REGISTRY.pop("self_attention")
    rows = json.loads(byrote("show", "results/planted", "-p", "self_attention", "--json").stdout)
    assert len(rows) > 3 and {row["probe"] for row in rows} == {"self_attention"}
    assert all(0 <= row["value"] <= 1 and row["lo"] <= row["value"] <= row["hi"] for row in rows)
    rows = json.loads(byrote("compare", "results/random", "results/planted", "--json").stdout)
    assert {row["probe"] for row in rows} == {"self_attention"}
    done = byrote("report", "results/random", "results/planted", "--light", "-o", "report")
    assert done.exit_code == 0, done.stderr
    page = Path("report/report.html").read_text(encoding="utf-8")
    assert "Mean attention of a token ‹b›to itself‹/b›." in page and "<b>to itself" not in page
    assert re.search("self.attention", page, re.IGNORECASE)
    again = byrote("run", planted_runs, "-p", "self_attention", "--sequences", "8")
    assert again.exit_code != 0
    assert "--plugin mine.py" in again.stderr


def test_a_plugin_with_a_fault_is_one_error_line(byrote, planted_runs, plugin):
    plugin.write_text(PLUGIN.replace(".mean(-1)", ".sum()"), encoding="utf-8")
    done = byrote(
        "run", planted_runs / "planted", "--plugin", plugin, "-p", "self_attention", "--sequences", "8"
    )
    assert done.exit_code == 2 and "Traceback" not in done.stderr
    plugin.write_text("def broken(:", encoding="utf-8")
    done = byrote("run", planted_runs / "planted", "--plugin", plugin)
    assert done.exit_code == 2
    assert "mine.py cannot be run (SyntaxError" in done.stderr and "Traceback" not in done.stderr
