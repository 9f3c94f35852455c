"""Tensors of nothing but zeros: which of them are doubted before a checkpoint is scored, and which are meant.

A file that was preallocated and is still being written, or whose pages a power cut took, has its full size and a valid
header, and reads as zeros where nothing was written. Zeros are also what training begins with: biases, B of a LoRA
adapter, output projections and read-outs that start at zero, norms stored as their distance from 1; and frozen or pruned
tensors stay zero. So zeros alone say nothing; those are doubted that fit neither the neighbouring checkpoints nor a
way to begin:

1. A checkpoint without any other number is no model.
2. A tensor that was not zero at the checkpoint before is doubted: training does not come back to exactly zero. Where it
   is zero at the next checkpoint too, it was pruned or ablated, and that stands.
3. At the first checkpoint, a tensor that is not zero at the next one is doubted if its namesakes in other layers are not
   zero, since layers of one kind begin alike; or if more than half of all numbers are such zeros.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})  # masks and tables may be anything
_GLANCE_BYTES = 256  # what tells nearly every tensor from zeros
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Zeros:
    """The floating tensors of one checkpoint that hold nothing but zeros.

    Attributes:
        names: all of them.
        odd: those whose namesakes in other layers are not zero.
        most: they have more than half of all numbers.
        all: there are no other numbers.
    """

    names: frozenset[str] = frozenset()
    odd: frozenset[str] = frozenset()
    most: bool = False
    all: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"names": sorted(self.names), "odd": sorted(self.odd), "most": self.most, "all": self.all}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Zeros:
        """The inverse of `to_json`.

        Raises:
            LookupError, TypeError: it is something else.
        """
        return cls(frozenset(data["names"]), frozenset(data["odd"]), bool(data["most"]), bool(data["all"]))


def is_zero(window: UInt8[np.ndarray, " n"]) -> bool:
    """Whether these bytes are all zero; of nearly all that are not, only the first few are looked at."""
    return not window[:_GLANCE_BYTES].any() and not window.any()


def zeros_among(tensors: Iterable[tuple[str, int, bool]]) -> Zeros:
    """Sort out a checkpoint's zero tensors.

    Args:
        tensors: name, size in bytes and whether it is all zero, of every floating tensor that is not empty.
    """
    tensors = list(tensors)
    names = frozenset(name for name, _, zero in tensors if zero)
    if not names:
        return Zeros()
    alike: dict[str, set[bool]] = defaultdict(set)
    for name, _, zero in tensors:
        alike[_DIGITS.sub("#", name)].add(zero)
    n_zero, n_all = (sum(size for _, size, zero in tensors if zero or every) for every in (False, True))
    odd = frozenset(name for name in names if len(alike[_DIGITS.sub("#", name)]) > 1)
    return Zeros(names, odd, most=2 * n_zero > n_all, all=len(names) == len(tensors))


def doubtful_zeros(
    here: Zeros, *, before: Zeros | None, after: Callable[[], Zeros | None]
) -> tuple[str, ...]:
    """The zero tensors of a checkpoint that are doubted; the rules are those of this module's description.

    Args:
        here: of the checkpoint.
        before: of the nearest one before that was not doubted itself; None for the first.
        after: gives those of the next one, which is read where that decides; None where there is none.

    Returns:
        Names, in order.
    """
    if here.all:
        return tuple(sorted(here.names))
    suspects = here.names - before.names if before is not None else here.names if here.most else here.odd
    if not suspects:
        return ()
    following = after()
    if following is not None:
        return tuple(sorted(suspects - following.names))
    return tuple(sorted(suspects)) if before is not None else ()
