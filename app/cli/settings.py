"""`[tool.rote]` of the pyproject.toml in the working directory: defaults for options, below `ROTE_*` variables.

    [tool.rote.run]
    device = "cuda"
    sequences = 64

    [tool.rote.lab.train]
    threads = 4

A key is an option's long name, with dashes or underscores; `output = "json"` stands for `--json`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checkpoints.errors import RoteError


@dataclass(frozen=True)
class Settings:
    """Defaults by verb and option, as click's `default_map` wants them.

    Attributes:
        table: verb -> option -> value; nested once more for `lab`.
        path: the file they came from, None where there is none.
        problem: why the file could not be read; raised when a verb starts, so that `doctor` can still say it.
    """

    table: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    problem: RoteError | None = None


def read_settings(folder: Path) -> Settings:
    """The settings of a folder; empty where its pyproject.toml has none."""
    path = folder / "pyproject.toml"
    if not path.is_file():
        return Settings()
    try:
        tool = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
    except (OSError, ValueError) as error:
        return Settings(
            path=path, problem=RoteError(f"{path} cannot be read ({error})", help="mend the file")
        )
    table = tool.get("rote", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        problem = RoteError(f"tool.rote in {path} is not a table", help="write [tool.rote.run] and options")
        return Settings(path=path, problem=problem)
    return Settings(_with_underscores(table), path if table else None)


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
