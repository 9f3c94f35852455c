"""Folders of `torch.distributed.checkpoint`: `.metadata` and `__0_0.distcp`, whole or in shards of many ranks.

`.metadata` is a pickle that torch's own reader loads without any restriction; here it is only read (`inert_pickle`), and
torch's reader is never given it. Each entry of a `.distcp` file is a small file that `torch.save` wrote, read like any
other. Objects that are no tensors are left where they are: torch would unpickle those without restriction too.
The step is the folder's name; the architecture is the `config.json` in the folder or above.

Source: torch/distributed/checkpoint/{metadata,filesystem,default_planner}.py of torch 2.13.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations, pairwise
from math import prod
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError, half_written
from byrote.checkpoints.formats.adapter import Format, StoredTensors, TensorInfo
from byrote.checkpoints.formats.inert_pickle import InertPickle, Maker, Record, record_maker, shown
from byrote.checkpoints.formats.stored_tensor import DTYPES, MAX_AXES, WIDTHS, StoredTensor, tensor_bytes
from byrote.checkpoints.formats.torch_zip import read_torch_slice
from byrote.checkpoints.formats.weight_files import assemble_folders, config_beside
from byrote.checkpoints.series import Checkpoint, CheckpointSeries
from byrote.checkpoints.step_names import StepName, step_folders
from byrote.checkpoints.stored_bytes import StoredFile, windows_of

METADATA = ".metadata"
MAX_METADATA_BYTES = 32 << 20
MAX_PIECES = 1024  # of one tensor, where they are not simply rows
_TRAINER = "pytorch_model_fsdp_0"
_DAMAGED = "the checkpoint is damaged; copy or save it again"
_NOT_MODEL = frozenset({
    "optim", "optimizer", "optimizers", "optimizer_states", "optim_state", "lr_scheduler", "lr_schedulers", "scheduler",
    "dataloader", "train_state", "rng", "rng_state", "grad_scaler",
})  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A box of a tensor and where its bytes are.

    Attributes:
        offsets: its first element along each axis.
        shape: its size along each axis.
        file: the `.distcp` file.
        start: of the entry in the file, in bytes.
        length: of the entry, in bytes.
    """

    offsets: tuple[int, ...]
    shape: tuple[int, ...]
    file: Path
    start: int
    length: int


@dataclass(frozen=True)
class ShardedTensor:
    """One tensor of the checkpoint; its pieces cover it without overlap. `dtype` is safetensors' code."""

    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


def sniff(path: Path) -> bool:
    """True for a folder with a `.metadata` file, or with step folders that have one."""
    return path.is_dir() and any((_home(f) / METADATA).is_file() for f in (path, *step_folders(path)))


def discover(path: Path) -> CheckpointSeries:
    """List every step folder; what cannot be read is a gap."""
    alone = (_home(path) / METADATA).is_file()
    return assemble_folders(path, FORMAT.name, _checkpoint, alone=alone, unknown=True)


def model_tensors(folder: Path) -> Mapping[str, ShardedTensor]:
    """The checkpoint's tensors by name, without those that belong to optimisers, schedulers and the like.

    Raises:
        CheckpointError: `.metadata` or what it says of the files cannot be right.
    """
    try:
        state = (folder / METADATA).stat()
        changed = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
        if state.st_size > MAX_METADATA_BYTES:
            raise CheckpointError(
                f"{METADATA} is {state.st_size} bytes; more than {MAX_METADATA_BYTES} is refused",
                help=_DAMAGED,
            )
        fields = _fields(_described(folder, changed), "Metadata")
        tensors = dict(_tensors(folder, fields))
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{METADATA} cannot be read ({error.strerror})", help="copy it again") from None
    except (LookupError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            f"{METADATA} does not describe tensors ({shown(error)})", help=_DAMAGED
        ) from None
    if not tensors:
        raise CheckpointError(f"{METADATA} lists no tensors of a model", help="save the model's state_dict()")
    return tensors


def assembled(tensor: ShardedTensor) -> bytearray:
    """The tensor's elements in row-major order, put together from its pieces.

    Raises:
        CheckpointError: a piece is not what `.metadata` says it is.
    """
    import numpy as np

    whole = np.empty(tensor.shape, dtype=f"V{WIDTHS[tensor.dtype]}")
    for piece in tensor.pieces:
        with StoredFile(piece.file) as file:
            data = memoryview(file.read(piece.start, piece.length))
        inner = read_torch_slice(piece.file, piece.start, piece.length)
        stored = inner.content
        if not isinstance(stored, StoredTensor) or (stored.dtype, stored.shape) != (
            tensor.dtype,
            piece.shape,
        ):
            raise CheckpointError(
                f"{piece.file.name} does not hold at byte {piece.start} what {METADATA} says",
                help=_DAMAGED,
            )
        start = inner.start_bytes[stored.storage.key] - piece.start
        elements = np.frombuffer(tensor_bytes(stored, start, data), dtype=whole.dtype)
        box = tuple(slice(o, o + n) for o, n in zip(piece.offsets, piece.shape, strict=True))
        whole[box] = elements.reshape(piece.shape)
    return bytearray(whole.tobytes())


def _home(folder: Path) -> Path:
    """Where in a step's folder the checkpoint lies: the Trainer puts the model's into a folder of its own."""
    return folder / _TRAINER if (folder / _TRAINER / METADATA).is_file() else folder


def _checkpoint(folder: Path, named: StepName | None) -> Checkpoint:
    folder = _home(folder)
    if not (folder / METADATA).is_file():
        raise CheckpointError(
            half_written(f"{METADATA} is missing"), help="was training killed while it saved?"
        )
    tensors = model_tensors(folder)
    config = config_beside(folder / METADATA, {name: tensor.shape for name, tensor in tensors.items()})
    files = sorted({piece.file for tensor in tensors.values() for piece in tensor.pieces})
    return Checkpoint(
        step=named.step if named else 0,
        path=folder,
        format=FORMAT.name,
        tokens_seen=named.tokens if named else None,
        files=(*files, folder / METADATA),
        config_path=config,
    )


@dataclass(frozen=True)
class _Assembled:
    """A tensor's bytes, put together when they are wanted; see `byrote.checkpoints.stored_bytes`."""

    tensor: ShardedTensor

    def __len__(self) -> int:
        return prod(self.tensor.shape) * WIDTHS[self.tensor.dtype]

    def windows(self, window_bytes: int) -> Iterator[Any]:
        import numpy as np

        yield from windows_of(np.frombuffer(assembled(self.tensor), np.uint8), window_bytes)


def _stored(checkpoint: Checkpoint) -> StoredTensors:
    for name, tensor in model_tensors(checkpoint.path).items():
        yield name, TensorInfo(tensor.dtype, tensor.shape, ""), _Assembled(tensor)


@lru_cache(maxsize=8)
def _described(folder: Path, _changed: tuple[int, ...]) -> Any:
    with StoredFile(folder / METADATA) as file:
        data = bytes(file.read(0, _changed[0]))
    return InertPickle(data, _makers(), where=METADATA).read()


def _tensors(folder: Path, metadata: Mapping[str, Any]) -> Iterator[tuple[str, ShardedTensor]]:
    stored = dict(_entries(folder, metadata["storage_data"]))
    for name, record in metadata["state_dict_metadata"].items():
        if _NOT_MODEL & set(name.split(".")) or _kind(record) != "TensorStorageMetadata":
            continue
        fields = _fields(record, "TensorStorageMetadata")
        properties = fields["properties"].state
        dtype, width = DTYPES[properties[0].name.rpartition(".")[2]]
        shape = _sizes(fields["size"])
        pieces = []
        for chunk in fields["chunks"]:
            box = _fields(chunk, "ChunkStorageMetadata")
            offsets = _sizes(box["offsets"])
            pieces.append(replace(stored[name, offsets], shape=_sizes(box["sizes"])))
        _refuse_holes(name, shape, pieces, item_bytes=width)
        yield name, ShardedTensor(dtype, shape, tuple(pieces))


def _entries(
    folder: Path, storage_data: Mapping[Any, Any]
) -> Iterator[tuple[tuple[str, tuple[int, ...]], Piece]]:
    """Where each piece lies, proved to be inside a regular file of the folder itself."""
    sizes: dict[str, int] = {}
    for key, record in storage_data.items():
        index, info = _fields(key, "MetadataIndex"), _fields(record, "_StorageInfo")
        if index.get("offset") is None:  # an object, not a tensor
            continue
        name, start, length = info["relative_path"], info["offset"], info["length"]
        if Path(name).name != name:
            raise CheckpointError(f"{METADATA} points outside its folder: {shown(name)}", help=_DAMAGED)
        if info.get("transform_descriptors"):
            raise CheckpointError(f"{shown(name)} is compressed or encrypted", help="save without extensions")
        if name not in sizes:
            if not (folder / name).is_file():
                raise CheckpointError(f"{shown(name)} is missing", help="copy the missing file")
            sizes[name] = (folder / name).stat().st_size
        if not _whole(start) or not _whole(length) or start + length > sizes[name]:
            raise CheckpointError(
                half_written(
                    f"{shown(name)} is truncated: {shown(index['fqn'])} ends at byte {shown(start + length)} of {sizes[name]}"
                ),
                help="copy the file again",
            )
        offsets = _sizes(index["offset"])
        yield (index["fqn"], offsets), Piece(offsets, (), folder / name, start, length)


def _refuse_holes(name: str, shape: tuple[int, ...], pieces: list[Piece], *, item_bytes: int) -> None:
    """Pieces must cover the tensor exactly, or something would be left at random; and be as long as they claim."""
    inside = all(
        len(p.offsets) == len(p.shape) == len(shape)
        and all(o + n <= size for o, n, size in zip(p.offsets, p.shape, shape, strict=True))
        and prod(p.shape) * item_bytes <= p.length
        for p in pieces
    )
    if not inside or sum(prod(p.shape) for p in pieces) != prod(shape) or not _apart(shape, pieces):
        raise CheckpointError(
            f"the pieces of {shown(name)} do not make a tensor of shape {list(shape)}", help=_DAMAGED
        )


def _apart(shape: tuple[int, ...], pieces: list[Piece]) -> bool:
    """No two pieces overlap."""
    pieces = [p for p in pieces if prod(p.shape)]
    if all(p.shape[1:] == shape[1:] for p in pieces):
        rows = sorted((p.offsets[:1], p.shape[:1]) for p in pieces)
        return all(not a or a[0] + n[0] <= b[0] for (a, n), (b, _) in pairwise(rows))
    if len(pieces) > MAX_PIECES:
        return False
    return all(
        any(
            a + n <= b or b + m <= a
            for a, n, b, m in zip(p.offsets, p.shape, q.offsets, q.shape, strict=True)
        )
        for p, q in combinations(pieces, 2)
    )


def _kind(record: Any) -> str:
    return record.of.rpartition(".")[2] if isinstance(record, Record) else ""


def _fields(record: Any, kind: str) -> dict[str, Any]:
    if _kind(record) != kind or not isinstance(record.state, dict):
        raise ValueError(f"found something else where a {kind} should")
    return record.state


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple) or len(value) > MAX_AXES or not all(map(_whole, value)):
        raise ValueError("a size that is not a tuple of whole numbers")
    return value


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _size(args: tuple[Any, ...]) -> tuple[int, ...]:
    """`torch.Size(sizes)`."""
    return _sizes(tuple(args[0]) if args else ())


@lru_cache(maxsize=1)
def _makers() -> Mapping[str, Maker | None]:
    package = "torch.distributed.checkpoint"
    records = [
        *(f"{package}.metadata.{name}" for name in (
            "Metadata", "TensorStorageMetadata", "TensorProperties", "ChunkStorageMetadata", "MetadataIndex",
            "BytesStorageMetadata", "StorageMeta", "_MEM_FORMAT_ENCODING",
        )),
        f"{package}.filesystem._StorageInfo", f"{package}.filesystem._StoragePrefix",
        *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "PurePosixPath", "WindowsPath")),
        "torch.serialization._get_layout", "torch.device",
    ]  # fmt: skip
    makers: dict[str, Maker | None] = {name: record_maker(name) for name in records}
    makers |= dict.fromkeys(f"torch.{name}" for name in DTYPES)
    return makers | {"torch.Size": _size, "collections.OrderedDict": lambda args: {}}


FORMAT = Format(
    "dcp",
    sniff,
    discover,
    builder="state_dict",
    reads="torch.distributed.checkpoint folders",
    tensors=_stored,
)
