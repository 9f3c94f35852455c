"""`[tool.byrote]` of the pyproject.toml in the working directory: defaults for options, below `BYROTE_*` variables.

    [tool.byrote.run]
    device = "cuda"
    sequences = 64

    [tool.byrote.lab.train]
    threads = 4

A key is an option's long name, with dashes or underscores; `output = "json"` stands for `--json`.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.former_name import FORMER, NAME


@dataclass(frozen=True)
class Settings:
    """Defaults by verb and option, in the form of click's `default_map`.

    Attributes:
        table: verb -> option -> value; nested once more for `lab`.
        path: the file they are from, None where there is none.
        problem: why the file could not be read; raised when a verb starts, so that `doctor` can still say it.
    """

    table: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    problem: ByroteError | None = None


def read_settings(folder: Path) -> Settings:
    """The settings of a folder; empty where its pyproject.toml has none."""
    path = folder / "pyproject.toml"
    if not path.is_file():
        return Settings()
    try:
        tool = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
    except (OSError, ValueError) as error:
        return Settings(
            path=path, problem=ByroteError(f"{path} cannot be read ({error})", help="fix the file")
        )
    if isinstance(tool, dict) and FORMER in tool:
        problem = ByroteError(
            f"[tool.{FORMER}] in {path} is a table of version 0.1", help=f"rename it [tool.{NAME}]"
        )
        return Settings(path=path, problem=problem)
    table = tool.get(NAME, {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        problem = ByroteError(
            f"tool.byrote in {path} is not a table", help="write [tool.byrote.run] and options"
        )
        return Settings(path=path, problem=problem)
    return Settings(_with_underscores(table), path if table else None)


def former_variable(names: Iterable[str], verbs: Iterable[str]) -> ByroteError | None:
    """The error for an environment variable of version 0.1 (``ROTE_RUN_DEVICE``); None where none is set."""
    prefixes = tuple(f"{FORMER}_{verb}_".upper() for verb in (*verbs, "dashboard"))
    for name in sorted(names):
        if name.startswith(prefixes):
            return ByroteError(f"{name} is a variable of version 0.1", help=f"name it BY{name}")
    return None


def former_command() -> None:
    """Entry point of the command that version 0.1 installed: one error that names the new one, exit 2."""
    typed = " ".join([NAME, *sys.argv[1:]])
    print(f"error: the command `{FORMER}` is now `{NAME}`\n  run: {typed}", file=sys.stderr)
    sys.exit(2)


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"run": {"device": "cpu"}}`` as ``{"run.device": "cpu"}``."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def _with_underscores(table: dict[str, Any]) -> dict[str, Any]:
    """Options may be written as on the command line, with dashes."""
    return {
        str(key).replace("-", "_"): _with_underscores(value) if isinstance(value, dict) else value
        for key, value in table.items()
    }
