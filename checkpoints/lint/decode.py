"""Stored numbers as numpy floats, for types numpy knows and for those it does not (bf16, fp8). No torch."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num, UInt8

RESOLUTION = {
    "F64": 2.0**-24, "F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8, "F8_E4M3": 2.0**-4, "F8_E5M2": 2.0**-3,
}  # fmt: skip
"""Largest relative rounding error of each type; F64 as read here, in single precision."""

_WORD = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1"}


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
