"""One pass over a step: content hashes, norms, what is not finite, a fixed sample of every tensor, the small files.

Files are mapped and read tensor by tensor in blocks, so that memory does not grow with the model. Distances between
any two steps are later taken from the samples: the same positions of the same tensors at every step.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int, Num

from byrote.checkpoints.fingerprint import tensor_hashes
from byrote.checkpoints.formats.adapter import TensorInfo
from byrote.checkpoints.formats.tensors import stored_tensors
from byrote.checkpoints.lint.decode import RESOLUTION, as_floats, words
from byrote.checkpoints.lint.small_files import config_fields, tokenizer_digests
from byrote.checkpoints.series import Checkpoint, at_hand

MAX_SAMPLED_NUMBERS = 2**25  # over all steps: 128 MiB of float32
MAX_PER_TENSOR, MIN_PER_TENSOR = 4096, 64
_BLOCK = 2**20  # numbers decoded at once


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
        config: top-level fields of the config, as JSON text.
        tokenizer: digest by file name.
    """

    step: int
    hashes: dict[str, str]
    tensors: dict[str, TensorInfo] = field(default_factory=dict)
    samples: dict[str, Float[np.ndarray, " _"]] = field(default_factory=dict)
    norms: dict[str, float] = field(default_factory=dict)
    non_finite: dict[str, tuple[int, int]] = field(default_factory=dict)
    config: dict[str, str] = field(default_factory=dict)
    tokenizer: dict[str, str] = field(default_factory=dict)


class Scanner:
    """Scans the steps of one series, one after the other.

    Args:
        n_steps: how many there will be at most; decides how many numbers are kept of each.
    """

    def __init__(self, n_steps: int) -> None:
        self._kept_per_step = MAX_SAMPLED_NUMBERS // max(1, n_steps)
        self._most: int | None = None
        self._positions: dict[tuple[str, int], Int[np.ndarray, " _"]] = {}
        self._tokenizers: dict[str, str] = {}

    def scan(self, checkpoint: Checkpoint) -> StepScan:
        """Read a step once; a step on the hub is downloaded for it.

        Raises:
            CheckpointError: a file that is not what it claims to be, or cannot be fetched.
            OSError: a file that cannot be read.
        """
        with at_hand(checkpoint) as ready:
            hashes = tensor_hashes(ready)
            if self._most is None:
                share = self._kept_per_step // max(1, len(hashes))
                self._most = min(MAX_PER_TENSOR, max(MIN_PER_TENSOR, share))
            found = StepScan(checkpoint.step, hashes)
            for name, info, raw in stored_tensors(ready):
                found.tensors[name] = info
                if info.dtype in RESOLUTION and len(raw):
                    self._take(found, name, words(raw, info.dtype))
            found.config = config_fields(ready)
            found.tokenizer = tokenizer_digests(ready, self._tokenizers)
        return found

    def _take(self, found: StepScan, name: str, stored: Num[np.ndarray, " n"]) -> None:
        """Add one floating tensor: counts over all its numbers, and the sample where all are finite."""
        dtype = found.tensors[name].dtype
        n_nan = n_inf = 0
        squares = 0.0
        for start in range(0, len(stored), _BLOCK):
            numbers = as_floats(stored[start : start + _BLOCK], dtype)
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
            taken = as_floats(stored[self._where(name, len(stored))], dtype).astype(np.float32)
        if np.isfinite(taken).all():  # a float64 beyond float32 is not compared
            found.samples[name], found.norms[name] = taken, float(np.sqrt(squares))

    def _where(self, name: str, size: int) -> Int[np.ndarray, " taken"]:
        """All positions of a small tensor, random ones (by its name) of a large one: a stride could follow a column."""
        assert self._most is not None, "set by the first step"
        if (name, size) not in self._positions:
            generator = np.random.default_rng([zlib.crc32(name.encode()), size])
            few = size <= self._most
            chosen = np.arange(size) if few else np.unique(generator.integers(0, size, self._most))
            self._positions[name, size] = chosen
        return self._positions[name, size]
