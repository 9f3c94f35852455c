"""Many steps in one file of `torch.save`: `{"state_dicts": [...], "epochs": [...]}`, `{step: state_dict}`, a list of both.

Small experiments keep a whole training in one file. Each step becomes a checkpoint that lies `inside` it, of the family its
tensors belong to (TransformerLens's names, or a state dict with a config.json); only its own bytes are read, hashed and loaded.

1. the steps: a list of state dicts beside a list of as many whole numbers; or state dicts by step; or a list of records that
   hold a state dict and its step. In the file itself or in one of its fields
2. the step of an entry is what the file says; epochs are shown as steps, with a note. A list without numbers is refused
3. the state of an optimiser, which is by parameter and looks alike, is none
4. state dicts that are the very same tensors (stored by reference, so that all became the last) are gaps that say so
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats import tl_legacy
from byrote.checkpoints.formats.adapter import Format
from byrote.checkpoints.formats.inert_pickle import shown
from byrote.checkpoints.formats.state_dict import FORMAT as STATE_DICT
from byrote.checkpoints.formats.state_dict import PICKLED, STATE_FIELDS, STEP_FIELDS
from byrote.checkpoints.formats.stored_tensor import is_state
from byrote.checkpoints.formats.torch_zip import read_torch_file
from byrote.checkpoints.formats.trainer_state import count_or_none, first_count
from byrote.checkpoints.formats.weight_files import MAX_PEEKS, WeightFile, candidates, config_beside
from byrote.checkpoints.series import Checkpoint, CheckpointSeries, Gap, Inside, read_or_gap, series_of
from byrote.checkpoints.step_names import parse_name

_COUNTS = (
    "steps", "epochs", "checkpoint_steps", "checkpoint_epochs", "save_steps", "save_epochs", "iterations", "iters",
    "global_steps", "step", "epoch",
)  # fmt: skip
_OPTIMISER = frozenset(
    {"exp_avg", "exp_avg_sq", "momentum_buffer", "square_avg", "sum"}
)  # its state is by parameter
_SAVE = (
    "where you trust it, save every step under its number: "
    "torch.save({step: state for step, state in zip(steps, states)}, 'run.pt')"
)
_COPY = (
    "the earlier steps are lost; when saving, copy them: "
    "states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})"
)


@dataclass(frozen=True)
class Entry:
    """One step in a file.

    Attributes:
        step: its number.
        inside: the keys that lead to its state dict.
        state: tensors by name.
        epochs: whether the number counts epochs.
    """

    step: int
    inside: Inside
    state: Mapping[str, Any]
    epochs: bool = False


def sniff(path: Path) -> bool:
    """True where a file without a step in its name, or the only one, holds several state dicts."""
    return any(_holds_several(file) for file in _files(path))


def discover(path: Path) -> CheckpointSeries:
    """Every step of every such file; a step that cannot be read is a gap."""
    found: list[Checkpoint | Gap] = []
    notes: list[str] = []
    for file in _files(path):
        if not _holds_several(file):
            notes.append(f"{file.path.name} holds only one step and was left out")
            continue
        try:
            entries = entries_of(read_torch_file(file.path).content, where=file.path.name)
        except CheckpointError as error:
            found.append(Gap(file.path, error.message, error.help))
            continue
        found += _checkpoints(file, entries)
        if any(entry.epochs for entry in entries):
            notes.append(f"{file.path.name} counts epochs, not steps: epochs are shown as steps")
    name = path.resolve().stem if path.is_file() else ""
    return series_of(path, FORMAT.name, found, name=name, notes=notes)


def entries_of(content: Any, *, where: str) -> list[Entry]:
    """The steps in what a file holds, in the order they stand in; none where it holds no more than one.

    Raises:
        CheckpointError: there are several state dicts, and nothing says which step each is.
    """
    for inside, value in _places(content):
        if _by_step(value):
            return [Entry(_step_of_key(key), (*inside, key), state) for key, state in value.items()]
        if not isinstance(value, list | tuple) or len(value) < 2:
            continue
        if all(map(is_state, value)):
            field, counts = _counts(content, len(value))
            if counts is None:
                raise CheckpointError(
                    f"{where} holds {len(value)} state dicts in {shown('.'.join(map(str, inside)) or 'a list')} and no "
                    f"list of {len(value)} whole numbers with their steps (looked for: {', '.join(_COUNTS[:4])})",
                    help=_SAVE,
                )
            epochs = "epoch" in field
            return [Entry(n, (*inside, i), value[i], epochs) for i, n in enumerate(counts)]
        records = [_record(inside, i, value[i]) for i in range(len(value))]
        if all(records):
            return [one for one in records if one is not None]
    return []


def _places(content: Any) -> Iterator[tuple[Inside, Any]]:
    """The content itself, and every field of it that may hold steps."""
    yield (), content
    if isinstance(content, Mapping) and not is_state(content):
        for name, value in content.items():
            if isinstance(name, str) and isinstance(value, Mapping | list | tuple) and not is_state(value):
                yield (name,), value


def _by_step(value: Any) -> bool:
    if not isinstance(value, Mapping) or len(value) < 2:
        return False
    if not all(_step_of_key(key) >= 0 for key in value) or not all(map(is_state, value.values())):
        return False
    names = [frozenset(state) for state in value.values()]
    return len(set(names)) == 1 and not names[0] & _OPTIMISER


def _step_of_key(key: Any) -> int:
    """The step that a key names; -1 for any other."""
    count = count_or_none(key)
    if count is None and isinstance(key, str):
        named = parse_name(key)
        count = named.step if named else None
    return -1 if count is None else count


def _counts(content: Any, n: int) -> tuple[str, list[int] | None]:
    """The field with as many whole numbers as there are state dicts, and the numbers."""
    for field in _COUNTS:
        value = content.get(field) if isinstance(content, Mapping) else None
        if isinstance(value, list | tuple) and len(value) == n:
            counts = [count for one in value if (count := count_or_none(one)) is not None]
            if len(counts) == n:
                return field, counts
    return "", None


def _record(inside: Inside, i: int, value: Any) -> Entry | None:
    """`{"step": 100, "state_dict": {...}}`."""
    if not isinstance(value, Mapping) or is_state(value):
        return None
    field = next((name for name in STATE_FIELDS if is_state(value.get(name))), None)
    step, epoch = first_count(value, *STEP_FIELDS), first_count(value, "epoch")
    if field is None or (step is None and epoch is None):
        return None
    return Entry(epoch or 0 if step is None else step, (*inside, i, field), value[field], step is None)


def _files(path: Path) -> list[WeightFile]:
    """Pickled files that may hold many steps: one alone, or a few of which none has a step in its name."""
    files, _ = candidates(path, PICKLED)
    if len(files) == 1 and files[0].path.parent == (path.parent if path.is_file() else path):
        return files
    return files if len(files) <= MAX_PEEKS and all(file.step is None for file in files) else []


def _holds_several(file: WeightFile) -> bool:
    try:
        return bool(entries_of(read_torch_file(file.path).content, where=file.path.name))
    except CheckpointError as error:
        return error.help == _SAVE
    except OSError:
        return False


def _checkpoints(file: WeightFile, entries: list[Entry]) -> Iterator[Checkpoint | Gap]:
    same: dict[frozenset[Any], list[int]] = defaultdict(list)
    for entry in entries:
        same[_views(entry.state)].append(entry.step)
    for entry in entries:
        twins = same[_views(entry.state)]
        if len(twins) > 1:
            others = (
                f"{len(twins)} steps ({', '.join(map(str, twins[:3]))}{', ...' if len(twins) > 3 else ''})"
            )
            yield Gap(
                file.path,
                f"{others} in {file.path.name} are the very same tensors: state_dict() was stored by reference, and "
                "every entry became the last",
                _COPY,
                entry.step,
            )
        else:
            yield read_or_gap(file.path, entry.step, partial(_checkpoint, file.path, entry))


def _views(state: Mapping[str, Any]) -> frozenset[Any]:
    """Which bytes of the file the tensors are."""
    return frozenset((name, t.storage.key, t.offset, t.shape, t.stride) for name, t in state.items())


def _checkpoint(path: Path, entry: Entry) -> Checkpoint:
    """The step as its family reads it."""
    size = sum({t.storage.key: t.storage.size_bytes for t in entry.state.values()}.values())
    place = Checkpoint(entry.step, path, "", files=(path,), inside=entry.inside, inside_bytes=size)
    if tl_legacy.embedding_name(entry.state) is not None:
        found = replace(place, format=tl_legacy.FORMAT.name, config_path=tl_legacy.config_near(path))
        tl_legacy.read_checked(found)
        return found
    config = config_beside(path, {name: tensor.shape for name, tensor in entry.state.items()})
    return replace(place, format=STATE_DICT.name, config_path=config)


FORMAT = Format(
    "many_steps",
    sniff,
    discover,
    builder="state_dict",
    reads="many state dicts by step in one file",
    single_files=True,
)
