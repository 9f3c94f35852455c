"""One adapter per checkpoint format; everything specific to a format is in its file, which ends in its `FORMAT`.

To add a family: write the module, put its `FORMAT` into `_OWN`, write its torch half in `byrote.interp.builders`, and a
test. An installed package adds one by an entry point of the group `byrote.formats`; see docs/formats.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from byrote.checkpoints.entry_points import additions
from byrote.checkpoints.errors import CheckpointError, did_you_mean
from byrote.checkpoints.formats import (
    dcp,
    gguf,
    hf,
    hub,
    lab,
    lightning,
    llama2c,
    many_steps,
    nanogpt,
    one_file,
    peft,
    state_dict,
    tl_legacy,
)
from byrote.checkpoints.formats.adapter import Format
from byrote.checkpoints.formats.weight_files import links_out
from byrote.checkpoints.listing import cached_listing, children
from byrote.checkpoints.series import Checkpoint, CheckpointSeries, Gap

GROUP = "byrote.formats"
_DEEPER_LEVELS, _DEEPER_FOLDERS = 3, 200  # how far below a folder without checkpoints they are looked for
# Order matters: the first that takes a path for its own reads it.
_OWN = (
    lab,
    gguf,
    llama2c,
    many_steps,
    tl_legacy,
    hub,
    peft,
    dcp,
    nanogpt,
    lightning,
    state_dict,
    one_file,
    hf,
)


@lru_cache(maxsize=1)
def formats() -> Mapping[str, Format]:
    """All formats by name, in the order in which they are tried: those of installed packages, then byrote's own.

    Raises:
        ByroteError: an installed package offers something else than a format, or one under a name that is taken.
    """
    own = {module.FORMAT.name: module.FORMAT for module in _OWN}
    added = additions(
        GROUP, own, is_one=lambda found: isinstance(found, Format), words=("Format", "a format")
    )
    return {**added, **own}


@cached_listing
def format_at(path: Path) -> Format | None:
    """The format that takes a path for its own; None where none does, or it is not there."""
    found = (f for f in formats().values() if path.is_dir() or f.single_files)
    return next((f for f in found if f.sniff(path)), None) if path.exists() else None


def format_of(checkpoint: Checkpoint) -> Format:
    """The format that a checkpoint was found by.

    Raises:
        CheckpointError: it is of a package that is not installed here.
    """
    found = formats().get(checkpoint.format)
    if found is None:
        raise CheckpointError(
            f"step {checkpoint.step} has the format {checkpoint.format!r}, which is not installed",
            help=did_you_mean(checkpoint.format, formats()),
        )
    return found


def discover(path: Path, **options: Any) -> CheckpointSeries:
    """Find the format of a folder and list its checkpoints; see `checkpoints.open_series`."""
    try:
        return _discover(path, options)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror or error})", help="check the path and its permissions"
        ) from None


def _discover(path: Path, options: dict[str, Any]) -> CheckpointSeries:
    if not path.exists():
        raise CheckpointError(f"{path} does not exist", help=_nearest_path(path))
    if (found := format_at(path)) is not None:
        series = found.discover(path, **_taken(found, options))
        if not series.checkpoints:
            raise _nothing_readable(path, series)
        return replace(series, notes=(*series.notes, *links_out(series)))
    if not path.is_dir():
        raise CheckpointError(
            f"{path} is a file, not a folder of checkpoints",
            help=f"give the folder that holds it: {path.parent}",
        )
    names = sorted(p.name for p in path.iterdir())
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    reads = f"byrote reads {', '.join(f.reads for f in formats().values() if f.reads)}"
    deeper = _deeper(path)
    raise CheckpointError(
        f"no checkpoints found in {path} (it holds {shown})"
        if names
        else f"no checkpoints found in {path}: the folder is empty",
        help=f"there are some in {deeper}: name that folder" if deeper else reads,
    )


def _deeper(path: Path) -> Path | None:
    """The nearest folder inside that holds checkpoints; None where none of the first folders does."""
    level = [path]
    for _ in range(_DEEPER_LEVELS):
        level = list(islice((child for folder in level for child in _folders(folder)), _DEEPER_FOLDERS))
        if (found := next((child for child in level if format_at(child)), None)) is not None:
            return found
    return None


def _folders(path: Path) -> list[Path]:
    """The folders in a folder that are neither hidden nor links; none where it cannot be listed."""
    with suppress(OSError):
        return [c for c in children(path) if c.is_dir() and not c.is_symlink() and not c.name.startswith(".")]
    return []


def _taken(format: Format, options: dict[str, Any]) -> dict[str, Any]:
    """The options this format's `discover` accepts; a base or a part that would go unused is refused."""
    for option in ("base_model", "part"):
        if options.get(option) is not None and option not in format.options:
            raise CheckpointError(
                f"{option}={str(options[option])!r} does not apply to a series of format {format.name}",
                help=f"leave {option} out",
            )
    return {option: value for option, value in options.items() if option in format.options}


class NothingReadableError(CheckpointError):
    """A series of which no checkpoint can be read; `gap` is the first."""

    def __init__(self, path: Path, gaps: tuple[Gap, ...]) -> None:
        self.gap = gaps[0]
        kind = "folder" if all(gap.path.is_dir() for gap in gaps) else "file"
        what = f"none of the {len(gaps)} checkpoint {kind}s in {path} can be read: {self.gap.path.name}"
        if len(gaps) == 1:
            inside = "" if self.gap.path == path else f" in {path}"
            what = f"the only checkpoint {kind}{inside} cannot be read: {self.gap.path.name}"
        super().__init__(f"{what}: {self.gap.reason}", help=self.gap.help)


def _nothing_readable(path: Path, series: CheckpointSeries) -> CheckpointError:
    if series.gaps:
        # alone: a config.json for checkpoints further down, perhaps
        alone = [gap.path for gap in series.gaps] == [path]
        if alone and (deeper := _deeper(path)) is not None:
            return CheckpointError(
                f"{path} holds no weights itself", help=f"there are checkpoints in {deeper}: name that folder"
            )
        return NothingReadableError(path, series.gaps)
    return CheckpointError(
        f"none of the 0 checkpoint folders in {path} can be read",
        help="check that the training run wrote weights",
    )


def _nearest_path(path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        return f"the parent folder {parent} does not exist either"
    names = [p.name for p in parent.iterdir() if p.is_dir()]
    return did_you_mean(path.name, names) if names else f"{parent} holds no folders"
