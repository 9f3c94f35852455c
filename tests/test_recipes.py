"""The six recipes of CONTRIBUTING.md work as they are written: applied to a copy of the packages, and their tests run there."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from recipes import ROOT, apply_all

pytestmark = pytest.mark.processes
RECIPES = {
    "test_format_toy.py": 1,
    "test_tenth_token.py": 2,
    "test_gaps_page.py": 1,
    "test_ranking.py": 1,
    "test_reversed_arm.py": 2,
    "test_student_interval.py": 1,
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says of the recipes' tests, each on a line of its own."""
    place = tmp_path_factory.mktemp("recipes")
    assert apply_all(place / "byrote", place / "tests") == sorted(RECIPES)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(place), str(ROOT / "tests")))}
    check = "import byrote, pathlib, sys; sys.exit(pathlib.Path(byrote.__file__).parent != pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", check, str(place / "byrote")], cwd=place, env=env, check=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-v",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "tests",
    ]
    return subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("file", RECIPES)
def test_a_recipe_works_as_it_is_written(outcome: str, file: str) -> None:
    assert len(re.findall(rf"^tests/{file}::\w+ PASSED", outcome, re.MULTILINE)) == RECIPES[file], outcome
