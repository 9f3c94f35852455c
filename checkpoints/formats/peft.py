"""Series of LoRA adapters over one base model: `checkpoint-N/` with adapter_config.json and adapter_model.safetensors.

A step's weights are the base's with the adapter merged in; the builder does that. The base is found where the
adapter's config says (`base_model_name_or_path`), or where `base_model` says.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError, half_written
from byrote.checkpoints.formats import hf, hub
from byrote.checkpoints.formats.adapter import Format
from byrote.checkpoints.formats.safetensors_header import read_header
from byrote.checkpoints.formats.trainer_state import read_json, trainer_state
from byrote.checkpoints.formats.weight_files import assemble_folders
from byrote.checkpoints.series import Checkpoint, CheckpointSeries, Gap, read_or_gap
from byrote.checkpoints.step_names import StepName, step_folders

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

# Kinds whose merged weights a test holds against the adapter's own forward pass.
MERGEABLE = frozenset({"LORA", "LOHA", "LOKR", "IA3"})
# Ways to start an adapter that change the base as well: merging into the untouched base would be another model.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_LISTED_FIELDS = (
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
)


def sniff(path: Path) -> bool:
    """True for an adapter's folder, or a folder with at least one step folder that is one."""
    return (path / CONFIG).is_file() or any((child / CONFIG).is_file() for child in step_folders(path))


def discover(path: Path, *, base_model: str | Path | None = None) -> CheckpointSeries:
    """List every adapter step; what cannot be read or merged becomes a gap.

    Raises:
        CheckpointError: `base_model` is not a model folder.
    """
    alone = not any((child / CONFIG).is_file() for child in step_folders(path))
    given = _base_model(Path(base_model), origin="base_model") if base_model is not None else None
    series = assemble_folders(
        path,
        FORMAT.name,
        lambda folder, named: _read(folder, named, given),
        alone=alone,
        unknown=not (path / "trainer_state.json").is_file(),
    )
    notes = list(series.notes)
    if not alone and (path / CONFIG).is_file():
        notes.append("the adapter at the top of the folder has no step in its name and was left out")
    if series.checkpoints:
        notes.append(f"weights are those of {_base_folder(series[0]).name} with each adapter merged in")
    return replace(series, notes=tuple(notes))


def base_of(checkpoint: Checkpoint) -> Checkpoint:
    """The base model of an adapter step, as a checkpoint that stands alone."""
    return replace(
        checkpoint,
        path=_base_folder(checkpoint),
        format=hf.FORMAT.name,
        files=checkpoint.files[1:],
        source=None,
    )


def refuse_unmergeable(config: dict[str, Any]) -> None:
    """Refuse an adapter that cannot be turned into plain weights, by name.

    Raises:
        CheckpointError: naming the kind or the setting.
    """
    kind = str(config.get("peft_type"))
    if kind not in MERGEABLE:
        raise CheckpointError(
            f"adapters of kind {kind} are not read", help=f"byrote merges {', '.join(sorted(MERGEABLE))}"
        )
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise CheckpointError(
            f"the adapter was started with {start!r}, which changes the base model too",
            help="convert it to a plain LoRA with peft (path_initial_model_for_weight_conversion) first",
        )
    for field in _LISTED_FIELDS:
        if config.get(field):
            raise CheckpointError(
                f"the adapter uses {field}, which byrote does not merge",
                help="merge it with peft and save the model",
            )


def _read(folder: Path, named: StepName | None, given: Checkpoint | None) -> Checkpoint:
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{CONFIG} is missing", help="the other steps of this folder are adapters")
    config = read_json(folder / CONFIG)
    refuse_unmergeable(config)
    weights = _adapter_weights(folder)
    state = trainer_state(folder, named)
    base = given or _base_model(*_named_base(folder, config))
    return Checkpoint(
        step=state.step or 0,
        path=folder,
        format=FORMAT.name,
        tokens_seen=state.tokens_seen,
        loss_nats=state.loss_nats,
        files=(weights, *base.files),
        config_path=base.config_path,
    )


def _adapter_weights(folder: Path) -> Path:
    weights = folder / WEIGHTS
    if weights.is_file():
        read_header(weights)
        return weights
    if (folder / "adapter_model.bin").is_file():
        raise CheckpointError(
            "the adapter is pickled (adapter_model.bin)",
            help="save it as safetensors: model.save_pretrained(folder)",
        )
    if (folder / "model.safetensors").is_file():
        raise CheckpointError(
            f"{WEIGHTS} is missing, but a whole model is there", help=f"move {CONFIG} away to read the model"
        )
    raise CheckpointError(half_written(f"{WEIGHTS} is missing"), help="was training killed while it saved?")


def _named_base(folder: Path, config: dict[str, Any]) -> tuple[Path, str]:
    """Where the adapter says its base is: a path, tried from where people run training, or a cached hub model."""
    name = config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise CheckpointError(
            f"{CONFIG} names no base model", help="give it: --base-model FOLDER (base_model=PATH in Python)"
        )
    for start in (folder, folder.parent, folder.parent.parent, Path()):
        if (start / name / "config.json").is_file():
            return start / name, name
    repo = hub.repository(name)
    if repo is not None:
        try:
            part = config.get("revision") or "main"
            return hub.open_repository(repo, part=str(part))[0].path, name
        except CheckpointError:
            pass  # said below: the base is not on this machine
    raise CheckpointError(
        f"its base model {name!r} is not on this machine",
        help="give its folder: --base-model FOLDER (base_model=PATH in Python)",
    )


def _base_model(path: Path, origin: str) -> Checkpoint:
    if not path.is_dir():
        raise CheckpointError(f"the base model {path} does not exist", help="give a folder with config.json")
    read = read_or_gap(path, 0, lambda: hf.read_checkpoint(path, StepName(0)))
    if isinstance(read, Gap):
        raise CheckpointError(
            f"the base model {path} ({origin}) cannot be read: {read.reason}", help=read.help
        )
    return read


def _base_folder(checkpoint: Checkpoint) -> Path:
    assert checkpoint.config_path is not None, "the format always records the base's config"
    return checkpoint.config_path.parent


FORMAT = Format(
    "peft",
    sniff,
    discover,
    builder="peft",
    reads="LoRA adapters (adapter_config.json and adapter_model.safetensors)",
    options=frozenset({"base_model"}),
    also_described_by=CONFIG,
)
