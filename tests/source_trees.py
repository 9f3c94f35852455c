"""The source files of the packages and of their tests, each parsed and walked when it is first looked at."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {"checkpoints": 0, "interp": 1, "probes": 2, "app": 3}  # folders; `app` is installed as `byrote`
SOURCES = sorted(file for floor in FLOORS for file in (ROOT / floor).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def name_of(file: Path) -> str:
    """Its path within the repository."""
    return str(file.relative_to(ROOT))


@cache
def tree_of(file: Path) -> ast.Module:
    """Its syntax tree."""
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def walked(tree: ast.AST) -> tuple[ast.AST, ...]:
    """Every node of a tree."""
    return tuple(ast.walk(tree))
