"""`[tool.byrote]` of the pyproject.toml in the working directory: defaults for options, below `BYROTE_*` variables.

    [tool.byrote.run]
    device = "cuda"
    sequences = 64

    [tool.byrote.lab.train]
    threads = 4

A key is an option's long name, with dashes or underscores; `output = "json"` stands for `--json`.

The folder in which a command is started may belong to someone else. So `allow-download`, `disk-budget`, `plugin`, `fresh`,
`retrain-stale`, `allow-origin`, `stop-on-fail`, `engine`, `engine-option` and `install` are not read from there, nor a report, trace,
JUnit file or folder of `reproduce` that would be written outside of it; one line says which.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byrote.checkpoints.atomic import SYNC_VARIABLE
from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.former_name import FORMER, NAME
from byrote.checkpoints.safe_read import read_toml
from byrote.dashboard.state import VARIABLE as STATE_VARIABLE

PREFIX = "BYROTE_"
MAX_BYTES = 4 << 20  # a pyproject.toml of a large project has some 100 kB
# What reaches the network or other machines, runs code, throws away what is stored, lets another page in, or writes into a home.
BY_HAND = frozenset(
    {
        "allow_download", "disk_budget", "plugin", "fresh", "retrain_stale", "allow_origin", "stop_on_fail", "engine",
        "engine_option", "install",
    }
)  # fmt: skip
# Files, replaced or added to, that a verb writes at a path from its options.
WRITTEN = frozenset(
    {("report", "out"), ("export", "out"), ("reproduce", "folder"), ("run", "trace"), ("check", "junit")}
)


@dataclass(frozen=True)
class Settings:
    """Defaults by verb and option, in the form of click's `default_map`.

    Attributes:
        table: verb -> option -> value; nested once more for `lab`.
        path: the file they are from, None where there is none.
        problem: why the file could not be read; raised when a verb starts, so that `doctor` can still say it.
        ignored: verb, with a dot below `lab` -> options in the file that are not read from a working folder.
    """

    table: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    problem: ByroteError | None = None
    ignored: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def ignored_words(self, verb: str) -> str:
        """What to say about the options of a verb that were not read; "" where there are none."""
        names = self.ignored.get(verb, ())
        if not names:
            return ""
        options = ", ".join("--" + name.replace("_", "-") for name in names)
        variables = ", ".join(f"BYROTE_{verb}_{name}".replace(".", "_").upper() for name in names)
        are, them = ("is", "it") if len(names) == 1 else ("are", "them")
        return (
            f"{self.path} sets {options}, which {are} not read from the working folder; "
            f"give {them} on the command line, or as {variables}"
        )


def read_settings(folder: Path) -> Settings:
    """The settings of a folder; empty where its pyproject.toml has none."""
    path = folder / "pyproject.toml"
    if not path.is_file():
        return Settings()
    try:
        tool = read_toml(path, max_bytes=MAX_BYTES, follow_links=True).get("tool", {})
    except ByroteError as refused:  # what the file is, not how it was read
        problem = ByroteError(refused.message, help=refused.help or "fix the file")
        return Settings(path=path, problem=problem)
    except OSError as error:
        problem = ByroteError(f"{path} cannot be read ({error})", help="fix the file")
        return Settings(path=path, problem=problem)
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
    ignored: dict[str, tuple[str, ...]] = {}
    read = _less(_with_underscores(table), folder, "", ignored)
    return Settings(read, path if table else None, ignored=ignored)


def _less(
    table: dict[str, Any], folder: Path, verb: str, ignored: dict[str, tuple[str, ...]]
) -> dict[str, Any]:
    """A table without what a working folder may not set; that is added to `ignored`."""
    left_out = tuple(name for name, value in table.items() if _is_by_hand(verb, name, value, folder))
    if verb and left_out:
        ignored[verb] = left_out
    return {
        name: _less(value, folder, f"{verb}.{name}".lstrip("."), ignored)
        if isinstance(value, dict)
        else value
        for name, value in table.items()
        if not verb or name not in left_out
    }


def _is_by_hand(verb: str, name: str, value: Any, folder: Path) -> bool:
    if (verb, name) in WRITTEN:
        home = folder.resolve()
        return not isinstance(value, str) or "\0" in value or home not in (home / value).resolve().parents
    return name in BY_HAND and value not in (False, [], "")


def unread_variables(prefix: str, options: Iterable[str]) -> list[str]:
    """What to say of environment variables that begin like a verb's and name none of its options.

    Args:
        prefix: such as ``BYROTE_RUN_``.
        options: names of the verb's options, with underscores.
    """
    known = {f"{prefix}{name}".upper() for name in options}
    odd = sorted(name for name in os.environ if name.startswith(prefix) and name not in known)
    return [f"{name} is set, but no option reads it; {did_you_mean(name, known)}" for name in odd]


def unknown_variables(verbs: Iterable[str]) -> list[str]:
    """What to say of environment variables that are called like byrote's and belong to no verb."""
    own = {SYNC_VARIABLE, STATE_VARIABLE}
    prefixes = {f"{PREFIX}{verb}_".replace("-", "_").upper() for verb in verbs}
    odd = sorted(
        name
        for name in os.environ
        if name.startswith(PREFIX) and name not in own and not name.startswith(tuple(prefixes))
    )
    how = "settings are called BYROTE_VERB_OPTION, such as BYROTE_RUN_DEVICE"
    return [f"{name} is set, but nothing reads it; {how}" for name in odd]


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
