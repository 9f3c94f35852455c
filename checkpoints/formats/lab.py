"""The lab's own series: `manifest.json`, `config.json` and one `step_NNNNNNNN/model.safetensors` per step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from checkpoints.errors import CheckpointError
from checkpoints.formats.duplicates import without_duplicates
from checkpoints.formats.safetensors_header import read_header
from checkpoints.series import Checkpoint, CheckpointSeries, Gap

FORMAT = "lab"


def sniff(path: Path) -> bool:
    """True for a folder whose manifest says it was written by the lab."""
    manifest = path / "manifest.json"
    if not manifest.is_file():
        return False
    try:
        return json.loads(manifest.read_text(encoding="utf-8")).get("format") == "rote-lab"
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def discover(path: Path) -> CheckpointSeries:
    """List the steps the manifest promises; a promised step that cannot be read is a gap."""
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    config = path / "config.json"
    if not config.is_file():
        raise CheckpointError(
            f"{path} has a manifest but no config.json", help="restore it, or train again with --fresh"
        )
    _refuse_unreadable(config)
    listed = manifest.get("checkpoints")
    found = [_checkpoint(path, config, entry) for entry in (listed if isinstance(listed, list) else [])]
    checkpoints, gaps = without_duplicates(c for c in found if isinstance(c, Checkpoint))
    gaps += [g for g in found if isinstance(g, Gap)]
    notes = ()
    if manifest.get("status") != "complete":
        last = max(checkpoints).step if checkpoints else "none"
        notes = (f"training is not finished: last step written is {last}",)
    return CheckpointSeries(
        name=_name(manifest, path),
        path=path,
        format=FORMAT,
        checkpoints=tuple(sorted(checkpoints)),
        gaps=tuple(gaps),
        notes=notes,
        manifest=manifest,
    )


def _name(manifest: dict[str, Any], path: Path) -> str:
    """The name the lab gave the series; results are written under it, so it may not lead anywhere else."""
    name = manifest.get("name")
    plain = isinstance(name, str) and Path(name).name == name and name not in ("", ".", "..")
    return name if plain else path.resolve().name


def _refuse_unreadable(config: Path) -> None:
    try:
        readable = isinstance(json.loads(config.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError, RecursionError):
        readable = False
    if not readable:
        raise CheckpointError(
            f"{config} is not a JSON object", help="restore it, or train again with --fresh"
        )


def _checkpoint(path: Path, config: Path, entry: Any) -> Checkpoint | Gap:
    if not isinstance(entry, dict) or not isinstance(entry.get("step"), int) or "folder" not in entry:
        return Gap(
            path / "manifest.json",
            "it lists a checkpoint without a step or a folder",
            "train again with --fresh",
        )
    folder = path / Path(str(entry["folder"])).name  # a manifest may not point outside its own folder
    file = folder / "model.safetensors"
    if not file.is_file():
        return Gap(
            folder,
            "the manifest lists it, but model.safetensors is missing",
            "train again with --fresh",
            entry["step"],
        )
    try:
        read_header(file)
    except CheckpointError as error:
        return Gap(folder, error.message, error.help, entry["step"])
    return Checkpoint(
        step=entry["step"],
        path=folder,
        format=FORMAT,
        tokens_seen=entry.get("tokens_seen"),
        loss_nats=entry.get("train_loss_nats"),
        files=(file,),
        config_path=config,
    )
