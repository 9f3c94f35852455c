"""The lab's own series: `manifest.json`, `config.json` and one `step_NNNNNNNN/model.safetensors` per step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from checkpoints.errors import CheckpointError
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
    except (OSError, ValueError, AttributeError):
        return False


def discover(path: Path) -> CheckpointSeries:
    """List the steps the manifest promises; a promised step that cannot be read is a gap."""
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    config = path / "config.json"
    if not config.is_file():
        raise CheckpointError(
            f"{path} has a manifest but no config.json", help="restore it, or train again with --fresh"
        )
    checkpoints, gaps = [], []
    for entry in manifest.get("checkpoints", []):
        found = _checkpoint(path, config, entry)
        (gaps if isinstance(found, Gap) else checkpoints).append(found)
    notes = ()
    if manifest.get("status") != "complete":
        last = checkpoints[-1].step if checkpoints else "none"
        notes = (f"training is not finished: last step written is {last}",)
    return CheckpointSeries(
        name=str(manifest.get("name") or path.resolve().name),
        path=path,
        format=FORMAT,
        checkpoints=tuple(sorted(checkpoints)),
        gaps=tuple(gaps),
        notes=notes,
        manifest=manifest,
    )


def _checkpoint(path: Path, config: Path, entry: dict[str, Any]) -> Checkpoint | Gap:
    folder = path / Path(str(entry["folder"])).name  # a manifest may not point outside its own folder
    file = folder / "model.safetensors"
    if not file.is_file():
        return Gap(
            folder,
            "the manifest lists it, but model.safetensors is missing",
            "train again; finished steps are kept",
            entry["step"],
        )
    try:
        read_header(file)
    except CheckpointError as error:
        return Gap(folder, error.message, error.help, entry["step"])
    return Checkpoint(
        step=int(entry["step"]),
        path=folder,
        format=FORMAT,
        tokens_seen=entry.get("tokens_seen"),
        loss_nats=entry.get("train_loss_nats"),
        files=(file,),
        config_path=config,
    )
