"""Where a run's checkpoints are: stored relative to the results folder, so that both may be moved or opened together. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import ByroteError, nearest
from byrote.checkpoints.series import IN_MEMORY

RELATIVE_TO_RESULTS = "results"
_LOOKED_AT = 16  # folders inside one that holds no results, to say whether they are checkpoints


def stored_place(root: Path, series: Path) -> dict[str, str]:
    """What run.json says of a series' place: its path from the results folder, or its whole path where there is none.

    Args:
        root: the results folder.
        series: the folder or file that was opened.
    """
    if series.exists():
        with suppress(ValueError, OSError):  # on another drive
            path = os.path.relpath(series.resolve(), root.resolve())
            return {"path": Path(path).as_posix(), "relative_to": RELATIVE_TO_RESULTS}
    return {"path": str(series)}


def series_place(root: Path, meta: Mapping[str, Any]) -> Path | None:
    """Where the checkpoints of a run are, or were; None where run.json does not say, and of a model in memory.

    A path of version 0.1 is relative to where its sweep was started: it is looked for there, beside the results, and where
    results usually are, one folder below.

    Args:
        root: the results folder.
        meta: its run.json.
    """
    series = meta.get("series") or {}
    path = series.get("path")
    if not path or series.get("format") == IN_MEMORY:
        return None
    if series.get("relative_to") == RELATIVE_TO_RESULTS:
        return Path(os.path.normpath(root.resolve() / path))
    candidates = [Path(path)]
    if not candidates[0].is_absolute():
        above = root.resolve().parent
        candidates += [above.parent / path, above / path]
    return next((place for place in candidates if _exists(place)), candidates[0])


def series_shown(root: Path, meta: Mapping[str, Any]) -> str:
    """The path of a run's series as one would type it here; "" where there is none."""
    place = series_place(root, meta)
    if place is None:
        return ""
    with suppress(ValueError, OSError):
        return str(place.relative_to(Path.cwd()))
    return str(place)


def results_folder(path: object) -> Path:
    """What was given as a results folder, as a path.

    Raises:
        ByroteError: it is no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise ByroteError(
            f"a results folder is named by its path, and {type(path).__name__} was given",
            help='name the folder, such as br.Results.open("results/RUN")',
        )
    return Path(path)


def where_results_are(path: Path) -> str:
    """A help line for a folder that is no results folder: the runs it holds, or what makes one."""
    runs = sorted(p.parent.name for p in path.glob("*/run.json")) if path.is_dir() else []
    if runs:
        return f"it holds runs: {', '.join(runs[:5])}; name one, such as {path / runs[0]}"
    if path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
        return f"if it is a table of scores: byrote import {path} -o results/{path.stem}"
    from byrote.checkpoints.formats import format_at

    with suppress(ByroteError, OSError):
        deeper = next((file.parent.parent for file in sorted(path.glob("*/*/run.json"))), None)
        if deeper is not None:
            return f"it holds results deeper down; name {deeper}"
        inside = (p for depth in ("*/", "*/*/") for p in sorted(path.glob(depth)))
        held = [path, *islice(inside, _LOOKED_AT)]
        found = next((place for place in held if format_at(place) is not None), None)
        if found is not None:
            named = path if path in (found, found.parent) else found.parent
            return f"it holds checkpoints, not results: byrote run {named} -o results measures them"
    beside = path.parent.iterdir() if not path.exists() and path.parent.is_dir() else ()
    near = nearest(path.name, [one.name for one in beside if (one / "run.json").is_file()])
    return f"{f'did you mean {path.parent / near}? ' if near else ''}`byrote run PATH -o results` creates one"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name no file system takes
        return False
