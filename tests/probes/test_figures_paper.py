"""Figures as files that a paper takes: the width, the writing on them, and what has no room."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from paper_runs import planted_run

from byrote.checkpoints.errors import ByroteError
from byrote.probes import figures
from byrote.probes.figures.paper import PRINTED
from byrote.probes.results import Results

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def unique() -> Results:
    return planted_run(steps=(0, 256, 320, 2400))


@pytest.mark.parametrize("width", ["column", "page"])
def test_a_figure_is_written_with_title_finding_n_and_chance(
    unique: Results, tmp_path: Path, width: str
) -> None:
    fig = figures.head_grid(unique, probe="prefix_matching", metric="score", step=2400)
    text = figures.save(fig, tmp_path / "grid.svg", width).read_text(encoding="utf-8")
    root = ET.fromstring(text)
    width_px, width_mm = PRINTED[width]
    assert root.get("width") == f"{width_mm:g}mm"
    assert float(str(root.get("height")).removesuffix("mm")) / width_mm == pytest.approx(
        float(str(root.get("viewBox")).split()[3]) / width_px, rel=1e-2
    )
    words = " ".join("".join(one.itertext()) for one in root.findall(f"{SVG}text"))
    assert (
        "Prefix matching" in words
        and "n = 32 sequences" in words
        and "chance 0.031" in words
        and "L1H0" in words
    )
    assert (
        "var(" not in text
        and "<script" not in text
        and "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    )


def test_no_line_of_writing_is_wider_than_the_column(unique: Results, tmp_path: Path) -> None:
    fig = figures.timeline([unique], ["prefix_matching", "previous_token"])
    root = ET.fromstring(figures.save(fig, tmp_path / "a.svg").read_text(encoding="utf-8"))
    lines = ["".join(one.itertext()) for one in root.findall(f"{SVG}text")]
    assert len(lines) > 3 and max(map(len, lines)) * 6.1 <= PRINTED["column"][0]


def test_what_has_no_room_in_a_column_is_left_out_and_nothing_of_it_on_a_page(
    unique: Results, tmp_path: Path
) -> None:
    fig = figures.head_grid(unique, probe="prefix_matching", metric="score", step=2400)
    column, page = (
        figures.save(fig, tmp_path / f"{w}.svg", w).read_text(encoding="utf-8") for w in ("column", "page")
    )
    cells = [re.findall(r'class="cell"[^>]*>(.*?)</text>', text) for text in (column, page)]
    assert sum("[" in one for one in cells[1]) > 0 == sum("[" in one for one in cells[0])
    assert len(cells[0]) >= 8  # the values themselves stay


def test_what_cannot_be_saved_is_refused(unique: Results, tmp_path: Path) -> None:
    fig = figures.head_grid(unique, probe="prefix_matching", metric="score", step=2400)
    with pytest.raises(ByroteError, match=r"saved as \.svg, not as \.pdf files"):
        figures.save(fig, tmp_path / "a.pdf")
    with pytest.raises(ByroteError, match="no printed width 'colum'"):
        figures.save(fig, tmp_path / "a.svg", "colum")
    with pytest.raises(ByroteError, match="cannot write"):
        figures.save(fig, tmp_path / "none" / "a.svg")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("width", ["column", "page"])
def test_an_attention_matrix_is_square_and_its_labels_do_not_touch(tmp_path: Path, width: str) -> None:
    pattern = np.tril(np.ones((31, 31))) / np.arange(1, 32)[:, None]
    fig = figures.attention(pattern, head="L1H0")
    text = figures.save(fig, tmp_path / "a.svg", width).read_text(encoding="utf-8")
    ((wide, high),) = re.findall(r'<path d="M[\d.]+ [\d.]+h([\d.]+)v-?([\d.]+)H', text)
    assert float(wide) == pytest.approx(float(high), abs=1)
    rows = [float(y) for y in re.findall(r'y="([\d.]+)" class="tick end', text)]
    assert len(rows) > 7 and min(b - a for a, b in itertools.pairwise(sorted(rows))) >= 10


def test_attention_of_what_is_no_pattern_is_refused() -> None:
    with pytest.raises(ByroteError, match=r"not of an array of shape \(2, 3\)"):
        figures.attention(np.zeros((2, 3)), head="L1H0")
