"""The recipes of CONTRIBUTING.md: their blocks, by file, and how they are applied to a copy of the packages."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"^```(python|diff)\n(?:# |--- )(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HUNK = re.compile(r"((?:^-.*\n)+)((?:^\+.*\n)+)", re.MULTILINE)


def blocks() -> list[tuple[str, str, str]]:
    """(python or diff, file, content) of every block, in order."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return [(kind, file, content) for kind, file, content in _BLOCK.findall(text)]


def file_of_recipe(name: str) -> str:
    """The whole file that a recipe writes."""
    return next(content for kind, file, content in blocks() if kind == "python" and file == name)


def apply_all(package: Path, tests: Path) -> list[str]:
    """Copy byrote's packages to a folder and do there what the recipes say.

    Args:
        package: the folder `byrote` to be made.
        tests: where the recipes' tests go.

    Returns:
        Names of the test files.
    """
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "app", package, ignore=leave)
    for floor in ("checkpoints", "interp", "probes"):
        shutil.copytree(ROOT / floor, package / floor, ignore=leave)
    formats = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    (package / "checkpoints/formats/toy.py").write_text(
        re.findall(r"```python\n(.*?)```", formats, re.DOTALL)[0]
    )
    tests.mkdir()
    for kind, name, content in blocks():
        top, _, rest = name.partition("/")
        file = tests / rest if top == "tests" else package / (rest if top == "app" else name)
        if kind == "python":
            assert not file.exists(), f"{name} is there already"
            file.write_text(content, encoding="utf-8")
            continue
        text = file.read_text(encoding="utf-8")
        for old, new in _HUNK.findall(content):
            before, after = (re.sub(r"^[-+]", "", part, flags=re.MULTILINE)[:-1] for part in (old, new))
            assert text.count(before) == 1, f"{name} has {text.count(before)} times: {before}"
            text = text.replace(before, after)
        file.write_text(text, encoding="utf-8")
    return sorted(file.name for file in tests.glob("test_*.py"))
