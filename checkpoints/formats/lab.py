"""The lab's own series: `manifest.json`, `config.json` and one `step_NNNNNNNN/model.safetensors` per step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import ByroteError, CheckpointError
from byrote.checkpoints.formats.adapter import Format
from byrote.checkpoints.formats.model_config import MAX_CONFIG_BYTES, refuse_implausible
from byrote.checkpoints.formats.safetensors_header import read_header
from byrote.checkpoints.formats.trainer_state import count_or_none, number_or_none, read_json
from byrote.checkpoints.former_name import same_format
from byrote.checkpoints.lab.as_written import hash_in, read_as_written
from byrote.checkpoints.series import Checkpoint, CheckpointSeries, Gap, read_or_gap, series_of


def sniff(path: Path) -> bool:
    """True for a folder whose manifest says it was written by the lab."""
    manifest = path / "manifest.json"
    if not manifest.is_file():
        return False
    try:
        return same_format(read_json(manifest).get("format"), "byrote-lab")
    except CheckpointError:
        return False


def discover(path: Path) -> CheckpointSeries:
    """List the steps the manifest promises; a promised step that cannot be read is a gap."""
    manifest = read_json(path / "manifest.json")
    config = path / "config.json"
    if not config.is_file():
        raise CheckpointError(
            f"{path} has a manifest but no config.json", help="restore it, or train again with --fresh"
        )
    if (expected := hash_in(manifest, "config.json")) is not None:
        try:
            read_as_written(config, expected, help="restore it, or train again with --fresh")
        except ByroteError as error:
            raise CheckpointError(error.message, help=error.help) from None
    fields = _config_fields(config)
    listed = manifest.get("checkpoints")
    found = [
        _checkpoint(path, config, entry, fields) for entry in (listed if isinstance(listed, list) else [])
    ]
    series = series_of(path, FORMAT.name, found, name=_name(manifest, path), manifest=manifest)
    if manifest.get("status") == "complete":
        return series
    last = series.steps[-1] if series.checkpoints else "none"
    return replace(series, notes=(f"training is not finished: the last step written is {last}",))


def _name(manifest: dict[str, Any], path: Path) -> str:
    """The name the lab gave the series; results are written under it, so it may not lead anywhere else."""
    match manifest.get("name"):
        case str(name) if Path(name).name == name and name not in ("", ".", ".."):
            return name
    return path.resolve().name


def _config_fields(config: Path) -> dict[str, Any]:
    try:
        fields = read_json(config, max_bytes=MAX_CONFIG_BYTES)
    except CheckpointError as error:
        raise CheckpointError(
            f"{config} cannot be used: {error.message}", help="restore it, or train again with --fresh"
        ) from None
    unused = {"d_mlp"} if fields.get("attn_only") else set()
    return {name: value for name, value in fields.items() if name not in unused}


def _checkpoint(path: Path, config: Path, entry: Any, fields: dict[str, Any]) -> Checkpoint | Gap:
    step = count_or_none(entry.get("step")) if isinstance(entry, dict) else None
    name = Path(str(entry["folder"])).name if step is not None and "folder" in entry else ""
    if step is None or name in ("", ".."):  # a manifest may not point outside its own folder
        return Gap(
            path / "manifest.json",
            "it lists a checkpoint without a step or a folder",
            "train again with --fresh",
        )

    def read(step: int = step) -> Checkpoint:
        file = path / name / "model.safetensors"
        if not file.is_file():
            raise CheckpointError(
                "the manifest lists it, but model.safetensors is missing", help="train again with --fresh"
            )
        refuse_implausible(fields, (tensor.shape for tensor in read_header(file)), where=config.name)
        return Checkpoint(
            step=step,
            path=path / name,
            format=FORMAT.name,
            tokens_seen=count_or_none(entry.get("tokens_seen")),
            loss_nats=number_or_none(entry.get("train_loss_nats")),
            files=(file,),
            config_path=config,
        )

    return read_or_gap(path / name, step, read)


FORMAT = Format("lab", sniff, discover, builder="lab", reads="lab series (manifest.json)")
