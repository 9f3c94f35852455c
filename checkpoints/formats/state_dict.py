"""Plain state dicts: `step_512.pt`, `model_step512.safetensors`, ... with a Hugging Face config.json beside or above.

Pickled or safetensors, the dict itself or one field of what was saved (`model`, `state_dict`, `model_state_dict`,
`module`). The step is the name's, else a number the file itself calls step, global_step, iteration or iter_num.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.adapter import Format
from byrote.checkpoints.formats.safetensors_header import read_header
from byrote.checkpoints.formats.stored_tensor import is_state
from byrote.checkpoints.formats.torch_zip import read_torch_file
from byrote.checkpoints.formats.trainer_state import first_count
from byrote.checkpoints.formats.weight_files import (
    WeightFile,
    assemble,
    candidates,
    config_beside,
    hf_named,
)
from byrote.checkpoints.series import STEP_UNKNOWN, Checkpoint, CheckpointSeries, Inside
from byrote.checkpoints.step_names import step_folders

PICKLED = (".pt", ".pth", ".ckpt", ".bin")
ENDINGS = (*PICKLED, ".safetensors")
STATE_FIELDS = ("state_dict", "model_state_dict", "model", "module")
STEP_FIELDS = ("step", "global_step", "iteration", "iter_num", "iter", "steps")


def sniff(path: Path) -> bool:
    """True where there are weight files, and none that are named as Hugging Face names them."""
    folders = (path, *step_folders(path)) if path.is_dir() else ()
    if hf_named(path.name) or any(hf_named(child.name) for folder in folders for child in folder.iterdir()):
        return False
    files, gaps = candidates(path, ENDINGS)
    return bool(files or gaps)


def discover(path: Path) -> CheckpointSeries:
    """List the files in step order; what holds no tensors by name is a gap."""
    files, gaps = candidates(path, ENDINGS)
    alone = len(files) == 1 and not gaps
    series = assemble(path, FORMAT.name, files, gaps, lambda file: _checkpoint(file, alone=alone))
    if alone and series.checkpoints and files[0].step is None and series[0].step == 0:
        note = STEP_UNKNOWN
        return replace(series, notes=(*series.notes, note))
    return series


def state_of(content: Any, *, where: str = "the file", inside: Inside = ()) -> Mapping[str, Any]:
    """The tensors by name in what a file holds, whether of torch's own or as `StoredTensor`.

    Args:
        content: of the file.
        where: its name, for messages.
        inside: the keys that lead to one step's, where the file holds many.

    Raises:
        CheckpointError: there are none, or several dicts that could be it.
    """
    for key in inside:
        try:
            content = content[key]
        except (LookupError, TypeError):
            raise CheckpointError(
                f"{where} no longer holds the step at {'.'.join(map(str, inside))}",
                help="was it rewritten? Open the series again",
            ) from None
    if is_state(content):
        return content
    fields = content if isinstance(content, Mapping) else {}
    found = [name for name in STATE_FIELDS if is_state(fields.get(name))]
    if len(found) == 1:
        return fields[found[0]]
    if found:
        raise CheckpointError(
            f"{where} holds several state dicts: {', '.join(found)}",
            help="save the model's state_dict() alone",
        )
    raise CheckpointError(
        f"{where} holds no tensors by name", help="save it again: torch.save(model.state_dict(), ...)"
    )


def _checkpoint(file: WeightFile, *, alone: bool) -> Checkpoint:
    content: Any = {}
    if file.path.suffix.lower() == ".safetensors":
        shapes = {entry.name: entry.shape for entry in read_header(file.path)}
    else:
        content = read_torch_file(file.path).content
        state = state_of(content, where=file.path.name)
        shapes = {name: tensor.shape for name, tensor in state.items()}
    saved = first_count(content, *STEP_FIELDS) if isinstance(content, Mapping) else None
    saved = 0 if saved is None and alone else saved
    config = config_beside(file.path, shapes)
    return file.checkpoint(FORMAT.name, saved, spelling=f"step_STEP{file.path.suffix}", config=config)


FORMAT = Format(
    "state_dict",
    sniff,
    discover,
    builder="state_dict",
    reads="state dicts named by step with a config.json beside them",
    single_files=True,
)
