"""Steps of folders whose names say none: a file that says them, epochs, and models called final. No torch.

A step map is a JSON or TOML file that names folders or files inside a series and gives each its optimiser step:

    {"epoch_1": 500, "epoch_2": 1000, "final": 1500}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from byrote.checkpoints.errors import CheckpointError, did_you_mean
from byrote.checkpoints.listing import children
from byrote.checkpoints.safe_read import FileRefused, read_json, read_toml
from byrote.checkpoints.step_names import MAX_COUNT, step_folders

MAX_BYTES = 4 << 20
OPTION = "--step-map FILE"
_EPOCH = re.compile(r"(?:checkpoint[-_])?epoch[-_=]?([0-9]{1,9})", re.IGNORECASE)
_LAST = re.compile(
    r"(?:(?:checkpoint|model|ckpt)[-_])?(?:final|last|latest|best|end)(?:[-_](?:checkpoint|model|ckpt))?",
    re.IGNORECASE,
)
_UNFINISHED = re.compile(r"(?:tmp|temp|partial)[-_].*|.*[-_.](?:tmp|temp|partial|incomplete)", re.IGNORECASE)


def read_step_map(file: Path) -> dict[str, int]:
    """Name of a folder or file inside the series -> its step, in order of steps.

    Raises:
        CheckpointError: the file cannot be read, or says something else than names and steps.
    """
    try:
        read = read_toml if file.suffix.lower() == ".toml" else read_json
        step_of: Any = read(file, max_bytes=MAX_BYTES, follow_links=True)
    except FileRefused as refused:
        raise CheckpointError(refused.message, help=refused.help or _EXAMPLE) from None
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror or error})", help=_EXAMPLE) from None
    if not step_of:
        raise CheckpointError(f"{file} names no checkpoint", help=_EXAMPLE)
    for name, step in step_of.items():
        if type(step) is not int or not 0 <= step < MAX_COUNT:
            raise CheckpointError(f"{file}: the step of {name!r} is {step!r}", help="steps are whole numbers")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
            raise CheckpointError(f"{file}: {name!r} is not a path inside the series", help=_EXAMPLE)
    found = dict(sorted(step_of.items(), key=lambda item: item[1]))
    steps = list(found.values())
    for (one, step), following in zip(list(found.items())[:-1], list(found)[1:], strict=True):
        if steps.count(step) > 1 and found[following] == step:
            raise CheckpointError(
                f"{file}: {one} and {following} are both step {step}", help="there is one checkpoint per step"
            )
    return found


def places_of(folder: Path, steps: Mapping[str, int]) -> dict[Path, int]:
    """The places that a step map names.

    Raises:
        CheckpointError: one of them is not there.
    """
    for name in steps:
        if not (folder / name).exists():
            names = [child.name for child in children(folder)] if folder.is_dir() else []
            raise CheckpointError(
                f"the step map names {name!r}, which is not in {folder}", help=did_you_mean(name, names)
            )
    return {folder / name: step for name, step in steps.items()}


def epochs_of(folder: Path) -> dict[Path, int]:
    """Folders called `epoch_3` and the like, by their epochs; none where other folders are named by steps."""
    if step_folders(folder):
        return {}
    named = ((child, _EPOCH.fullmatch(child.name)) for child in children(folder) if child.is_dir())
    found = {child: int(match[1]) for child, match in named if match}
    return found if len(set(found.values())) == len(found) else {}


def last_models(folder: Path) -> list[Path]:
    """Folders called `final`, `best`, `last-checkpoint` and the like, by name."""
    return [child for child in children(folder) if child.is_dir() and _LAST.fullmatch(child.name)]


def unfinished(folder: Path) -> Iterable[str]:
    """What to say of folders whose names say that training was writing them, such as `tmp-checkpoint-500`."""
    for child in children(folder):
        if child.is_dir() and _UNFINISHED.fullmatch(child.name):
            yield f"{child.name} is half-written, as its name says, and was left out"


_EXAMPLE = 'such as {"epoch_1": 500, "final": 1500} in a .json file, or final = 1500 in a .toml file'
