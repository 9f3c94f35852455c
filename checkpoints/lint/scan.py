"""Read a step once: content hashes, norms, non-finite values, a fixed sample of every tensor, the small files.

Files are read tensor by tensor in blocks, so that memory does not grow with the model. Distances between
any two steps are later taken from the samples: the same positions of the same tensors at every step. Stored numbers are
read as numpy floats, also of types numpy does not support (bf16, fp8). No torch.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from jaxtyping import Float, Int, Num, UInt8

from byrote.checkpoints.fingerprint import stored_tensors, tensor_digest
from byrote.checkpoints.formats.adapter import TensorInfo
from byrote.checkpoints.safe_read import MAX_JSON_BYTES, read_bytes, read_json
from byrote.checkpoints.series import Checkpoint, at_hand
from byrote.checkpoints.stored_bytes import windows_of
from byrote.checkpoints.zeros import Zeros, is_zero, zeros_among

MAX_SAMPLED_NUMBERS = 2**25  # over all steps: 128 MiB of float32
MAX_PER_TENSOR, MIN_PER_TENSOR = 4096, 64
MAX_TOKENIZER_BYTES = 4 * MAX_JSON_BYTES  # a vocabulary of 262,144 pieces with its merges has 33 MB
_BLOCK = 2**20  # numbers decoded at once

RESOLUTION = {
    "F64": 2.0**-24, "F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8, "F8_E4M3": 2.0**-4, "F8_E5M2": 2.0**-3,
}  # fmt: skip
"""Largest relative rounding error of each type; F64 as read here, in single precision."""
_WORD = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1"}

TOKENIZER_FILES = (
    "tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "added_tokens.json",
    "special_tokens_map.json", "tokenizer_config.json",
)  # fmt: skip
_RUN_TIME = ("truncation", "padding", "version")  # of tokenizer.json: left behind by whoever used it last


@dataclass
class StepScan:
    """What one pass over a step found.

    Attributes:
        step: optimiser steps.
        hashes: content hash by tensor.
        tensors: what the files say of every tensor.
        samples: the numbers at the sampled positions of every floating tensor whose numbers are all finite.
        norms: Euclidean norm over all numbers of the same tensors.
        non_finite: tensor -> (number of NaN, number of infinities), where there are any.
        zeros: floating tensors of nothing but zeros.
        config: top-level fields of the config, as JSON text.
        tokenizer: digest by file name.
    """

    step: int
    hashes: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, TensorInfo] = field(default_factory=dict)
    samples: dict[str, Float[np.ndarray, " _"]] = field(default_factory=dict)
    norms: dict[str, float] = field(default_factory=dict)
    non_finite: dict[str, tuple[int, int]] = field(default_factory=dict)
    zeros: Zeros = field(default_factory=Zeros)
    config: dict[str, str] = field(default_factory=dict)
    tokenizer: dict[str, str] = field(default_factory=dict)


class Scanner:
    """Scans the steps of one series, one after the other.

    Args:
        n_steps: how many there will be at most; decides how many numbers are sampled of each.
    """

    def __init__(self, n_steps: int) -> None:
        self._per_step = MAX_SAMPLED_NUMBERS // max(1, n_steps)
        self._most: int | None = None
        self._positions: dict[tuple[str, int], Int[np.ndarray, " _"]] = {}
        self._tokenizers: dict[
            str, str
        ] = {}  # what files of these bytes say, so that equal files are parsed once

    def scan(self, checkpoint: Checkpoint) -> StepScan:
        """Read a step once; a step on the hub is downloaded for it.

        Raises:
            CheckpointError: a file that is not what it claims to be, or cannot be fetched.
            OSError: a file that cannot be read.
        """
        with at_hand(checkpoint) as ready:
            if self._most is None:
                share = self._per_step // max(1, sum(1 for _ in stored_tensors(ready)))
                self._most = min(MAX_PER_TENSOR, max(MIN_PER_TENSOR, share))
            found = StepScan(checkpoint.step)
            floats = []
            for name, info, raw in stored_tensors(ready):
                found.tensors[name] = info
                zero = self._tensor(found, name, raw)
                if zero is not None:
                    floats.append((name, len(raw), zero))
            found.zeros = zeros_among(floats)
            config = None if ready.config_path is None else _json(ready.config_path)
            if isinstance(config, dict):
                found.config = {k: json.dumps(v, sort_keys=True) for k, v in config.items()}
            for name in TOKENIZER_FILES:
                if (ready.path / name).is_file():
                    found.tokenizer[name] = self._tokenizer_digest(ready.path / name)
        return found

    def _tensor(self, found: StepScan, name: str, raw: Any) -> bool | None:
        """Add one tensor in one pass over its bytes: its hash, and of a floating one whatever can be counted.

        Returns:
            Whether it is all zero; None for an empty one and for other types.
        """
        info = found.tensors[name]
        digest = tensor_digest(info)
        if info.dtype not in RESOLUTION or not len(raw):
            for window in windows_of(raw):
                digest.update(window.data)
            found.hashes[name] = digest.hexdigest()
            return None
        width, zero = np.dtype(_WORD[info.dtype]).itemsize, True

        def blocks() -> Iterator[Num[np.ndarray, " n"]]:
            nonlocal zero
            for window in windows_of(raw, _BLOCK * width):
                digest.update(window.data)
                zero = zero and is_zero(window)
                yield words(window, info.dtype)

        self._sample(found, name, blocks(), len(raw) // width)
        found.hashes[name] = digest.hexdigest()
        return zero

    def _sample(self, found: StepScan, name: str, blocks: Iterable[Num[np.ndarray, " n"]], size: int) -> None:
        """Add one floating tensor: counts over all its numbers, and the sample where all are finite.

        Args:
            found: what is added to.
            name: of the tensor.
            blocks: its words, in blocks of `_BLOCK` but the last; all are taken.
            size: how many words there are.
        """
        dtype, where = found.tensors[name].dtype, self._where(name, size)
        sampled: list[Num[np.ndarray, " _"]] = []
        n_nan = n_inf = start = 0
        squares = 0.0
        for stored in blocks:
            first, last = np.searchsorted(where, (start, start + len(stored)))
            sampled.append(stored[where[first:last] - start])
            start += len(stored)
            numbers = as_floats(stored, dtype)
            finite = np.isfinite(numbers)
            if not finite.all():
                nan = int(np.isnan(numbers).sum())
                n_nan, n_inf = n_nan + nan, n_inf + int((~finite).sum()) - nan
            else:
                with np.errstate(over="ignore"):
                    squares += float(np.square(numbers, dtype=np.float64).sum())
        if n_nan or n_inf:
            found.non_finite[name] = (n_nan, n_inf)
            return
        with np.errstate(over="ignore"):
            sample = as_floats(np.concatenate(sampled), dtype).astype(np.float32)
        if np.isfinite(sample).all():  # a float64 beyond float32 is not compared
            found.samples[name], found.norms[name] = sample, float(np.sqrt(squares))

    def _where(self, name: str, size: int) -> Int[np.ndarray, " sampled"]:
        """All positions of a small tensor, random ones (by its name) of a large one: a stride could follow a column."""
        assert self._most is not None, "set by the first step"
        if (name, size) not in self._positions:
            generator = np.random.default_rng([zlib.crc32(name.encode()), size])
            few = size <= self._most
            chosen = np.arange(size) if few else np.unique(generator.integers(0, size, self._most))
            self._positions[name, size] = chosen
        return self._positions[name, size]

    def _tokenizer_digest(self, path: Path) -> str:
        """Hash of what a tokenizer file says: without the order of JSON keys and without what is set at each use."""
        raw = read_bytes(path, max_bytes=MAX_TOKENIZER_BYTES, follow_links=True)
        key = f"{path.name} {xxhash.xxh3_64(raw).hexdigest()}"
        if key not in self._tokenizers:
            data = _json(path) if path.suffix == ".json" else None
            if isinstance(data, dict):
                data = {k: v for k, v in data.items() if path.name != "tokenizer.json" or k not in _RUN_TIME}
                raw = json.dumps(data, sort_keys=True).encode()
            self._tokenizers[key] = xxhash.xxh3_64(raw).hexdigest()
        return self._tokenizers[key]


def words(raw: UInt8[np.ndarray, " n_bytes"], dtype: str) -> Num[np.ndarray, " n"]:
    """The bytes of a tensor as one array of its stored words, without a copy.

    Args:
        raw: the tensor's bytes, little-endian, as safetensors stores them.
        dtype: safetensors' name of a floating type, a key of `RESOLUTION`.
    """
    return raw.view(_WORD[dtype])


def as_floats(stored: Num[np.ndarray, " n"], dtype: str) -> Float[np.ndarray, " n"]:
    """Words as numbers: float64 for F64, otherwise float32; exact for every type."""
    if dtype == "BF16":  # the upper half of a float32
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == "F8_E4M3":
        return _E4M3[stored]
    if dtype == "F8_E5M2":  # the upper half of a float16
        stored = (stored.astype(np.uint16) << np.uint16(8)).view(np.float16)
    with np.errstate(invalid="ignore"):  # some NaN are signalling
        return stored.astype(np.float64 if dtype == "F64" else np.float32, copy=False)


def _e4m3_table() -> Float[np.ndarray, " 256"]:
    """All 256 values of E4M3 (the variant without infinities): 1 sign, 4 exponent bits of bias 7, 3 mantissa bits."""
    code = np.arange(256)
    sign, exponent, mantissa = np.where(code & 128, -1.0, 1.0), (code >> 3) & 15, code & 7
    subnormal = mantissa / 8 * 2.0**-6
    value = np.where(exponent == 0, subnormal, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
    value[(exponent == 15) & (mantissa == 7)] = np.nan
    return (sign * value).astype(np.float32)


_E4M3 = _e4m3_table()


def _json(path: Path) -> Any:
    """A JSON file; None where it cannot be read as one, which the format already judged."""
    try:
        return read_json(path, max_bytes=MAX_TOKENIZER_BYTES, follow_links=True)
    except (OSError, ValueError):
        return None
