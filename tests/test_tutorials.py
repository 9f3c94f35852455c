"""docs/tutorials: every command of a page runs after those before it, on trainings cut short, and the gallery shows every figure."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import gallery_page
import pytest
from click.testing import CliRunner

import byrote as br
from byrote.cli.main import cli

PAGES = Path(__file__).parents[1] / "docs" / "tutorials"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILES = {
    "toml": "arms.toml",
    "python": "train.py",
}  # the first block of a language is the file that the page writes
SHORTER = {
    "--recipe tiled-4-heads": "--recipe tiled-4-heads --steps 8 --checkpoints 3", "--steps 800": "--steps 8 --checkpoints 3",
    "seeds = 5": "seeds = 2", "checkpoints = 11": "checkpoints = 3\n\n[settings]\nsteps = 8",
    '"max_steps": 400, "logging_steps": 50, "save_steps": 50':
        '"max_steps": 4, "logging_steps": 2, "save_steps": 2, "report_to": "none"',
    "12_800": "128", "every=50": "every=2",
}  # fmt: skip
TRAINED = {
    "first-run": "results/unique", "your-trainer-run": "results/mine", "unique-against-repeated": "results/control-d32-seed1",
    "memorisation": "results/repeated",
}  # fmt: skip


def shorter(text: str) -> str:
    for whole, short in SHORTER.items():
        text = text.replace(whole, short)
    return text


def test_every_tutorial_is_run_here() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} - {"README"} == set(TRAINED)
    text = "".join(path.read_text(encoding="utf-8") for path in PAGES.glob("*.md"))
    assert [whole for whole in SHORTER if whole not in text] == []


@pytest.mark.processes
@pytest.mark.parametrize("page", TRAINED)
def test_commands_run_in_the_order_of_the_page(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ran = 0
    for language, code in BLOCK.findall((PAGES / f"{page}.md").read_text(encoding="utf-8")):
        if language in FILES and not Path(FILES[language]).exists():
            Path(FILES[language]).write_text(shorter(code), encoding="utf-8")
        for line in shorter(code).splitlines() if language == "sh" else ():
            words = shlex.split(line)
            if words[0] == "python":
                subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True)
            elif words[0] == "byrote" and words[1] != "dashboard":
                done = CliRunner().invoke(cli, words[1:])
                assert done.exit_code == 0, f"{line}\n{done.output}"
                ran += 1
    assert ran >= 4 and br.Results.open(TRAINED[page]).steps


@pytest.mark.processes
def test_commands_of_how_to_pages_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that need nothing but a series: the gate, a probe and sequences of one's own, data frames."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    train = "lab train runs/mine --recipe tiled-4-heads --steps 8 --checkpoints 3"
    assert CliRunner().invoke(cli, train.split()).exit_code == 0
    assert CliRunner().invoke(cli, ["run", "runs/mine", "-p", "prefix_matching"]).exit_code == 0
    for page, toml, python in (
        ("gate", "gate.toml", ""),
        ("own-probe", "", "mine.py"),
        ("own-stimulus", "", ""),
        ("data-frames", "", ""),
    ):
        names: dict[str, object] = {}
        for language, code in BLOCK.findall(
            (PAGES.parent / "howto" / f"{page}.md").read_text(encoding="utf-8")
        ):
            if language == "toml":
                Path(toml).write_text(code, encoding="utf-8")
            elif language == "python" and python:
                Path(python).write_text(code, encoding="utf-8")
            elif language == "python":
                exec(compile(code, page, "exec"), names)
            for line in code.splitlines() if language == "sh" else ():
                done = CliRunner().invoke(cli, shlex.split(line)[1:])
                failed_rule = "byrote check" in line and done.exit_code == 1  # eight steps teach nothing
                assert done.exit_code == 0 or failed_rule, f"{line}\n{done.output}"


def test_the_gallery_shows_every_figure_by_the_line_of_the_page_of_figures() -> None:
    figures = set(br.figures.__all__) - {"Figure", "Look", "apply_theme", "save"}
    assert sorted(name for part in gallery_page.SECTIONS.values() for name in part) == sorted(figures)
    assert gallery_page.PAGE.read_text(encoding="utf-8") == gallery_page.page()
    assert {path.stem for path in gallery_page.PICTURES.glob("*.svg")} == figures
