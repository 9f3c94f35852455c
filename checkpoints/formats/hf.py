"""Local Hugging Face folders: one folder per step (`checkpoint-500`, `step1000`, ...), or a single model.

Step, tokens and loss come from `trainer_state.json` where it is there, else from the folder's name.
Weights are safetensors or pickled (`pytorch_model.bin`), whole or sharded with an index.json; safetensors come first.
"""

from __future__ import annotations

from pathlib import Path

from byrote.checkpoints.errors import CheckpointError, half_written
from byrote.checkpoints.formats.adapter import Format
from byrote.checkpoints.formats.inert_pickle import shown
from byrote.checkpoints.formats.model_config import read_config, refuse_implausible
from byrote.checkpoints.formats.safetensors_header import read_header
from byrote.checkpoints.formats.stored_tensor import is_state
from byrote.checkpoints.formats.torch_zip import read_torch_file
from byrote.checkpoints.formats.trainer_state import read_json, trainer_state
from byrote.checkpoints.formats.weight_files import assemble_folders
from byrote.checkpoints.series import Checkpoint, CheckpointSeries
from byrote.checkpoints.step_names import StepName, step_folders

_WHOLE = ("model.safetensors", "pytorch_model.bin")


def sniff(path: Path) -> bool:
    """True for a model folder, or a folder with at least one folder named like a step."""
    if (path / "config.json").is_file() or _weight_names(path):
        return True
    return bool(step_folders(path))


def discover(path: Path) -> CheckpointSeries:
    """List every step folder; what cannot be read, or claims another's step, becomes a gap."""
    folders = step_folders(path)
    notes = []
    if folders and (path / "config.json").is_file() and _weight_names(path):
        notes.append("the model at the top of the folder has no step in its name and was left out")
    if folders and folders[0].name.isdigit():
        notes.append("the folders are named by bare numbers, which were read as steps")
    return assemble_folders(
        path,
        FORMAT.name,
        read_checkpoint,
        alone=not folders,
        unknown=not (path / "trainer_state.json").is_file(),
        notes=notes,
    )


def read_checkpoint(folder: Path, named: StepName | None) -> Checkpoint:
    """One model folder as a checkpoint.

    Args:
        folder: holds config.json and weights.
        named: the step its name says; without one, that of `trainer_state.json`, else it is step 0.

    Raises:
        CheckpointError: it is none, or one whose files cannot be used.
    """
    state = trainer_state(folder, named)
    config = _config(folder)
    files = _weight_files(folder)
    shapes = [shape for file in files for shape in _shapes(file)]
    refuse_implausible(read_config(config), shapes, where=config.name)
    return Checkpoint(
        step=state.step or 0,
        path=folder,
        format=FORMAT.name,
        tokens_seen=state.tokens_seen,
        loss_nats=state.loss_nats,
        files=files,
        config_path=config,
    )


def _config(folder: Path) -> Path:
    config = folder / "config.json"
    if not config.is_file():
        raise CheckpointError("config.json is missing", help=f"copy the model's config.json into {folder}")
    if (folder / "adapter_config.json").is_file():  # transformers would load the adapter's base instead
        raise CheckpointError(
            "it holds an adapter (adapter_config.json) beside a model",
            help="move adapter_config.json away to read the model",
        )
    read_config(config)
    return config


def _weight_files(folder: Path) -> tuple[Path, ...]:
    for whole in _WHOLE:
        if (folder / whole).is_file():  # counts even where an index stands beside it
            return (folder / whole,)
        if (folder / f"{whole}.index.json").is_file():
            return _shards(folder / f"{whole}.index.json")
    others = {p.name for p in folder.glob("*.bin") if p.is_file()} - {"training_args.bin"}
    names = sorted(others.union(_weight_names(folder)))
    if names:
        raise CheckpointError(
            f"weights do not have Hugging Face file names (found {', '.join(map(shown, names[:3]))})",
            help="rename to model.safetensors or pytorch_model.bin, or add the index file of the shards",
        )
    odd = next((name for name in _WHOLE if (folder / name).is_symlink() or (folder / name).exists()), None)
    if odd is not None:
        raise CheckpointError(
            f"no weights: {odd} is not a regular file (a broken link, a loop, a folder, a pipe or a device)",
            help="replace it with the file itself",
        )
    raise CheckpointError(
        half_written("no weights (model.safetensors or pytorch_model.bin) in the folder"),
        help="was training killed while it saved?",
    )


def _shards(index: Path) -> tuple[Path, ...]:
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise CheckpointError(f"{index.name} has no weight_map", help="save the model again")
    names = sorted({str(name) for name in listed.values()})
    if any(Path(name).name != name or "\0" in name for name in names):
        raise CheckpointError(f"{index.name} points outside its folder", help="save the model again")
    endings = {Path(name).suffix for name in names}
    if endings != {Path(index.name.removesuffix(".index.json")).suffix}:
        raise CheckpointError(f"{index.name} lists files of another kind", help="save the model again")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            half_written(
                f"{len(missing)} of {len(names)} shards are missing: {', '.join(map(shown, missing[:3]))}"
            ),
            help="copy the missing shards, or wait until they are written",
        )
    return tuple(index.parent / name for name in names)


def _shapes(file: Path) -> list[tuple[int, ...]]:
    """Of every tensor in the file, which is proved readable."""
    if file.suffix == ".safetensors":
        return [entry.shape for entry in read_header(file)]
    content = read_torch_file(file).content
    if not is_state(content):
        raise CheckpointError(
            f"{file.name} is pickled and holds more than tensors by name",
            help="save the model's state_dict() alone, or with save_pretrained",
        )
    return [tensor.shape for tensor in content.values()]


def _weight_names(folder: Path) -> list[str]:
    found = (*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin"))
    return sorted(p.name for p in found if p.is_file())


FORMAT = Format(
    "hf",
    sniff,
    discover,
    builder="hf",
    reads=("Hugging Face folders (config.json and weights, alone or in checkpoint-N / stepN folders)"),
)
