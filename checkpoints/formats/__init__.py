"""One module per on-disk family. Each has the same two functions; all of a family's oddities live in its file.

    sniff(path: Path) -> bool
        Does this folder look like mine? Cheap: names and one small JSON file at most.
    discover(path: Path) -> CheckpointSeries
        The series, read without touching weights. Raises CheckpointError for a folder that is mine and broken.

A module whose `discover` takes options of `open_series` lists them in `OPTIONS`.
To add a format: write the module, add it to `FORMATS`, write its test. Order matters: first sniff wins.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats import dcp, hf, hub, lab, lightning, nanogpt, peft, state_dict, tl_legacy
from byrote.checkpoints.formats.weight_files import links_out
from byrote.checkpoints.series import CheckpointSeries

FORMATS = {
    "lab": lab,
    "tl_legacy": tl_legacy,
    "hub": hub,
    "peft": peft,
    "dcp": dcp,
    "nanogpt": nanogpt,
    "lightning": lightning,
    "state_dict": state_dict,
    "hf": hf,
}
# Formats of one file per step: their path may be such a file.
SINGLE_FILES = frozenset({"tl_legacy", "nanogpt", "lightning", "state_dict"})


def discover(path: Path, **options: Any) -> CheckpointSeries:
    """Find the format of a folder and list its checkpoints; see `checkpoints.open_series`."""
    try:
        return _discover(path, options)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror or error})", help="check the path and its permissions"
        ) from None


def sniffed(path: Path) -> bool:
    """Whether any format takes the folder for its own."""
    return any(module.sniff(path) for module in FORMATS.values())


def _discover(path: Path, options: dict[str, Any]) -> CheckpointSeries:
    if not path.exists():
        raise CheckpointError(f"{path} does not exist", help=_nearest_path(path))
    for name, module in FORMATS.items():
        if (path.is_dir() or name in SINGLE_FILES) and module.sniff(path):
            series = module.discover(path, **_taken(name, module, options))
            if not series.checkpoints:
                raise _nothing_readable(path, series)
            return replace(series, notes=(*series.notes, *links_out(series)))
    if not path.is_dir():
        raise CheckpointError(
            f"{path} is a file, not a folder of checkpoints",
            help=f"give the folder that holds it: {path.parent}",
        )
    found = sorted(p.name for p in path.iterdir())
    shown = (
        ", ".join(found[:6]) + (", ..." if len(found) > 6 else "")
        if found
        else "nothing: the folder is empty"
    )
    raise CheckpointError(
        f"no checkpoints found in {path} (it holds {shown})",
        help="byrote reads lab series (manifest.json), Hugging Face folders (config.json and weights, alone or in "
        "checkpoint-N / stepN folders), nanoGPT's ckpt.pt, Lightning's .ckpt, TransformerLens state dicts, "
        "torch.distributed.checkpoint folders, and state dicts named by step with a config.json beside them",
    )


def _taken(name: str, module: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options this format's `discover` knows; a base or a part that would go unused is refused."""
    known = getattr(module, "OPTIONS", frozenset())
    for option in ("base", "part"):
        if options.get(option) is not None and option not in known:
            raise CheckpointError(
                f"{option}={str(options[option])!r} has no meaning for a series of format {name}",
                help=f"leave {option} out",
            )
    return {option: value for option, value in options.items() if option in known}


def _nothing_readable(path: Path, series: CheckpointSeries) -> CheckpointError:
    first = series.gaps[0] if series.gaps else None
    reason = f": {first.path.name}: {first.reason}" if first else ""
    kind = "folders" if all(gap.path.is_dir() for gap in series.gaps) else "files"
    return CheckpointError(
        f"none of the {len(series.gaps)} checkpoint {kind} in {path} can be read{reason}",
        help=first.help if first else "check that the training run wrote weights",
    )


def _nearest_path(path: Path) -> str:
    from byrote.checkpoints.errors import did_you_mean

    parent = path.parent
    if not parent.is_dir():
        return f"the parent folder {parent} does not exist either"
    names = [p.name for p in parent.iterdir() if p.is_dir()]
    return did_you_mean(path.name, names) if names else f"{parent} holds no folders"
