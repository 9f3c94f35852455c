"""Local Hugging Face folders: one folder per step (`checkpoint-500`, `step1000`, ...), or a single model.

Step, tokens and loss come from `trainer_state.json` where it is there, else from the folder's name.
Weights are safetensors, whole or sharded with `model.safetensors.index.json`.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from checkpoints.errors import CheckpointError
from checkpoints.formats.duplicates import without_duplicates
from checkpoints.formats.safetensors_header import read_header
from checkpoints.series import Checkpoint, CheckpointSeries, Gap

FORMAT = "hf"

# Trainer, Pythia, OLMo, Megatron/DeepSpeed: the spellings people have on disk.
_STEP_PATTERNS = (
    re.compile(r"^checkpoint[-_](\d+)$"),
    re.compile(r"^(?:global_?)?step[-_]?(\d+)$"),
    re.compile(r"^stage\d+-step(\d+)-tokens(\d+)B$"),
    re.compile(r"^step(\d+)-tokens(\d+)B$"),
    re.compile(r"^iter[-_](\d+)$"),
)


def step_from_name(name: str) -> tuple[int, int | None] | None:
    """Step, and tokens where the name says them: ``step1000-tokens4B`` is (1000, 4_000_000_000)."""
    for pattern in _STEP_PATTERNS:
        match = pattern.match(name)
        if match:
            tokens = int(match[2]) * 1_000_000_000 if pattern.groups > 1 else None
            return int(match[1]), tokens
    return None


def sniff(path: Path) -> bool:
    """True for a model folder, or a folder with at least one folder named like a step."""
    if (path / "config.json").is_file() or _weight_names(path):
        return True
    return any(child.is_dir() and step_from_name(child.name) for child in path.iterdir())


def discover(path: Path) -> CheckpointSeries:
    """List every step folder; what cannot be read, or claims another's step, becomes a gap."""
    folders = [child for child in sorted(path.iterdir()) if child.is_dir() and step_from_name(child.name)]
    notes: list[str] = []
    if folders:
        found = [_checkpoint(folder) for folder in folders]
        if (path / "config.json").is_file() and _weight_names(path):
            notes.append("the model at the top of the folder has no step in its name and was left out")
    else:
        found = [_checkpoint(path)]
        if step_from_name(path.name) is None and not (path / "trainer_state.json").is_file():
            notes.append("nothing says which training step this is; it is shown as step 0")
    checkpoints, gaps = without_duplicates([c for c in found if isinstance(c, Checkpoint)])
    gaps += [g for g in found if isinstance(g, Gap)]
    return CheckpointSeries(
        name=path.resolve().name,
        path=path,
        format=FORMAT,
        checkpoints=tuple(sorted(checkpoints)),
        gaps=tuple(sorted(gaps, key=lambda g: (g.step is None, g.step or 0, g.path.name))),
        notes=tuple(notes),
    )


def _checkpoint(folder: Path) -> Checkpoint | Gap:
    named = step_from_name(folder.name)
    step, tokens = named if named else (0, None)
    try:
        state = _trainer_state(folder)
        config = _config(folder)
        files = _weight_files(folder)
        for file in files:
            read_header(file)
    except CheckpointError as error:
        return Gap(folder, error.message, error.help, step if named else None)
    if not named and isinstance(state.get("global_step"), int):
        step = state["global_step"]
    return Checkpoint(
        step=step,
        path=folder,
        format=FORMAT,
        tokens_seen=_tokens(state, tokens),
        loss_nats=_loss(state, step),
        files=files,
        config_path=config,
    )


def _config(folder: Path) -> Path:
    config = folder / "config.json"
    if not config.is_file():
        raise CheckpointError("config.json is missing", help=f"copy the model's config.json into {folder}")
    data = _json(config)
    if data.get("auto_map"):
        raise CheckpointError(
            "config.json asks to run code from the checkpoint (auto_map)",
            help="rote never runs code from a checkpoint; convert it to an architecture transformers ships",
        )
    if not data.get("architectures") and not data.get("model_type"):
        raise CheckpointError("config.json names no architecture", help='add "architectures": ["..."]')
    return config


def _weight_files(folder: Path) -> tuple[Path, ...]:
    names = _weight_names(folder)
    if "model.safetensors" in names:  # transformers reads it even where an index stands beside it
        return (folder / "model.safetensors",)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = _json(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise CheckpointError(f"{index.name} has no weight_map", help="save the model again")
        listed = sorted({str(name) for name in shards.values()})
        if any(Path(name).name != name for name in listed):
            raise CheckpointError(f"{index.name} points outside its folder", help="save the model again")
        files = tuple(folder / name for name in listed)
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise CheckpointError(
                f"{len(missing)} of {len(files)} shards are missing: {', '.join(missing[:3])}",
                help="copy the missing shards",
            )
        return files
    if names:
        raise CheckpointError(
            f"weights are not named as Hugging Face names them (found {', '.join(names[:3])})",
            help="rename to model.safetensors, or add the index file of the shards",
        )
    pickled = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt*"))
    if pickled:
        raise CheckpointError(
            f"weights are pickled ({', '.join(pickled[:3])})",
            help="save them as safetensors: model.save_pretrained(folder, safe_serialization=True)",
        )
    raise CheckpointError(
        "no weights (model.safetensors) in the folder", help="was training killed while it saved?"
    )


def _weight_names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("*.safetensors") if p.is_file())


def _trainer_state(folder: Path) -> dict[str, Any]:
    path = folder / "trainer_state.json"
    return _json(path) if path.is_file() else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path.name} cannot be read as JSON ({error})", help="restore the file"
        ) from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path.name} is not a JSON object", help="restore the file")
    return data


def _tokens(state: dict[str, Any], from_name: int | None) -> int | None:
    seen = state.get("num_input_tokens_seen")
    return int(seen) if _finite(seen) and seen > 0 else from_name


def _loss(state: dict[str, Any], step: int) -> float | None:
    history = state.get("log_history")
    logged = [
        (row["step"], float(row["loss"]))
        for row in (history if isinstance(history, list) else [])
        if isinstance(row, dict) and isinstance(row.get("step"), int) and _finite(row.get("loss"))
    ]
    past = [row for row in logged if row[0] <= step]
    return max(past)[1] if past else None


def _finite(value: Any) -> bool:
    """A number JSON can hold: trainers write NaN and Infinity when training diverged."""
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False
