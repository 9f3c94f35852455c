"""Tensors as `torch.save` describes them in a pickle: views of storages, checked, never built.

What a file may mention is listed in `makers`; anything else is refused by `inert_pickle`. Torch-free.

Source: torch/_utils.py and torch/serialization.py of torch 2.13.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.inert_pickle import Maker, record_maker, shown

MAX_AXES = 16
_DAMAGED = "the file is damaged; copy or save it again"

# What torch calls a type, what safetensors calls it, and its bytes.
_STORAGES = {
    "Double": ("F64", 8), "Float": ("F32", 4), "Half": ("F16", 2), "BFloat16": ("BF16", 2), "Long": ("I64", 8),
    "Int": ("I32", 4), "Short": ("I16", 2), "Char": ("I8", 1), "Byte": ("U8", 1), "Bool": ("BOOL", 1),
    "ComplexFloat": ("C64", 8), "ComplexDouble": ("C128", 16), "Untyped": ("U8", 1),
}  # fmt: skip
DTYPES = {
    "float64": ("F64", 8), "float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2), "int64": ("I64", 8),
    "int32": ("I32", 4), "int16": ("I16", 2), "int8": ("I8", 1), "uint8": ("U8", 1), "bool": ("BOOL", 1),
    "complex64": ("C64", 8), "complex128": ("C128", 16), "uint16": ("U16", 2), "uint32": ("U32", 4),
    "uint64": ("U64", 8), "float8_e4m3fn": ("F8_E4M3", 1), "float8_e5m2": ("F8_E5M2", 1),
}  # fmt: skip
# Bytes of an element by safetensors' name of its type.
WIDTHS = dict((*_STORAGES.values(), *DTYPES.values()))


@dataclass(frozen=True)
class Storage:
    """A run of bytes in the file that tensors are views of."""

    key: str
    dtype: str
    numel: int
    size_bytes: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor the file holds, proved to lie inside its storage. Strides and offset count elements."""

    dtype: str
    item_bytes: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    storage: Storage

    @property
    def numel(self) -> int:
        """Elements."""
        return prod(self.shape)

    @property
    def contiguous(self) -> bool:
        """Row-major without gaps."""
        step = 1
        for size, stride in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if size != 1 and stride != step:
                return False
            step *= size
        return True


class References:
    """Turns references to storages into `Storage`, checked against the bytes there are.

    Args:
        where: the file, for messages.
        sizes: bytes of each storage by key; None for files that say it only afterwards.
    """

    def __init__(self, where: str, sizes: Mapping[str, int] | None) -> None:
        self.where, self.sizes = where, sizes
        self.storages: dict[str, Storage] = {}

    def __call__(self, reference: Any) -> Storage:
        kind, storage_type, key, _location, numel, *view = reference
        known = _STORAGES.get(storage_type.name.rpartition(".")[2].removesuffix("Storage"))
        if (
            kind != "storage"
            or known is None
            or not isinstance(key, str)
            or not _whole(numel)
            or view not in ([], [None])
        ):
            raise ValueError("a reference to something that is not a storage")
        storage = Storage(key, known[0], numel, numel * known[1])
        if self.sizes is not None and self.sizes.get(key) != storage.size_bytes:
            raise CheckpointError(
                f"{self.where}: storage {shown(key)} claims {storage.size_bytes} bytes, "
                f"the file has {self.sizes.get(key, 0)}",
                help=_DAMAGED,
            )
        if self.storages.setdefault(key, storage) != storage:
            raise CheckpointError(
                f"{self.where}: storage {shown(key)} is claimed twice, differently", help=_DAMAGED
            )
        return storage


def _tensor(args: tuple[Any, ...]) -> StoredTensor:
    """`torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata])`."""
    storage, offset, shape, stride, *rest = args
    if any(rest[2:]):
        raise ValueError("a tensor whose values torch would change on reading (conjugate or negative)")
    return _checked(storage, offset, shape, stride, item=(storage.dtype, WIDTHS[storage.dtype]))


def _tensor_v3(args: tuple[Any, ...]) -> StoredTensor:
    """As v2 with an untyped storage and the dtype behind the hooks."""
    storage, offset, shape, stride, _grad, _hooks, dtype, *_ = args
    return _checked(storage, offset, shape, stride, item=DTYPES[dtype.name.rpartition(".")[2]])


def _checked(storage: Any, offset: Any, shape: Any, stride: Any, *, item: tuple[str, int]) -> StoredTensor:
    """Views beyond the storage make torch allocate what the file does not hold; so do views that repeat elements."""
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise ValueError("a tensor that is not a view of a storage")
    if len(shape) != len(stride) or len(shape) > MAX_AXES or not all(map(_whole, (offset, *shape, *stride))):
        raise ValueError("a tensor whose sizes are not whole numbers")
    available = storage.size_bytes // item[1]
    numel = prod(shape)
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) + 1 if numel else offset
    if numel > available or last > available:
        raise ValueError(f"a tensor of shape {list(shape)} in a storage of {available} elements")
    return StoredTensor(item[0], item[1], shape, stride, offset, storage)


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _mapping(args: tuple[Any, ...]) -> dict[Any, Any]:
    """`OrderedDict()` and `Counter()`; their items follow one by one."""
    if args and args != ([],) and args != ({},):
        raise ValueError("a dict made from a list")
    return {}


def _encoded(args: tuple[Any, ...]) -> bytes:
    """How protocol 2 writes bytes: text in latin-1."""
    text, encoding = args
    if encoding != "latin1":
        raise ValueError("bytes in an encoding torch never writes")
    return text.encode("latin1")


def _wrapped(args: tuple[Any, ...]) -> StoredTensor:
    """`torch._utils._rebuild_parameter(data, requires_grad, hooks[, state])`."""
    if not isinstance(args[0], StoredTensor):
        raise ValueError("a parameter without data")
    return args[0]


@lru_cache(maxsize=1)
def makers() -> Mapping[str, Maker | None]:
    """The names a file of weights may mention, and what each makes."""
    allowed: dict[str, Maker | None] = {
        "collections.OrderedDict": _mapping,
        "collections.Counter": _mapping,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_tensor_v3": _tensor_v3,
        "torch._utils._rebuild_parameter": _wrapped,
        "torch._utils._rebuild_parameter_with_state": _wrapped,
        "torch.Size": record_maker("torch.Size"),
        "torch.device": record_maker("torch.device"),
        "torch.serialization._get_layout": record_maker("torch.layout"),
        "_codecs.encode": _encoded,
    }
    allowed |= dict.fromkeys(f"torch.{name}" for name in DTYPES)
    for name in _STORAGES:
        allowed[f"torch.{name}Storage"] = allowed[f"torch.storage.{name}Storage"] = None
    return allowed


def is_state(value: Any) -> bool:
    """A dict of tensors by name: what `state_dict()` gives, whether of torch's tensors or of `StoredTensor`."""
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(name, str) and hasattr(tensor, "shape") for name, tensor in value.items())
    )


def tensor_bytes(tensor: StoredTensor, start: int, view: memoryview) -> bytes:
    """The tensor's elements in row-major order, as safetensors would store them.

    Args:
        tensor: what to read.
        start: where its storage begins in the file.
        view: the file.
    """
    first = start + tensor.offset * tensor.item_bytes
    if tensor.contiguous:
        return bytes(view[first : first + tensor.numel * tensor.item_bytes])
    import numpy as np

    flat = np.frombuffer(
        view,
        dtype=f"V{tensor.item_bytes}",
        offset=start,
        count=tensor.storage.size_bytes // tensor.item_bytes,
    )
    strides = [stride * tensor.item_bytes for stride in tensor.stride]
    gathered = np.lib.stride_tricks.as_strided(
        flat[tensor.offset :], shape=tensor.shape, strides=strides
    ).tobytes()
    del flat  # it holds the mapped pages
    return gathered
