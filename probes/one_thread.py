"""numpy's matrix products in one thread.

numpy's OpenBLAS shares a product among all cores, and its threads spin while they wait for the next. The products of
resampling are small: a second thread saves no time by the clock, takes a fifth of the processor time of a sweep, and takes it
from the worker beside it (tests/bench/bench_engines.py). It also rounds the sums of some lengths otherwise, so that the last digit of
an interval would depend on how many cores a machine has.
"""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from threadpoolctl import LibController, ThreadpoolController

_ONE_AT_A_TIME = threading.Lock()  # the number of threads belongs to the process


@lru_cache(maxsize=1)
def _numpy_blas() -> tuple[LibController, ...]:
    """The OpenBLAS that came with numpy; torch's own products are left alone."""
    found = ThreadpoolController().select(internal_api="openblas").lib_controllers
    return tuple(lib for lib in found if "numpy" in lib.filepath)


def product(a: Float[np.ndarray, "i j"], b: Float[np.ndarray, "j ..."]) -> Float[np.ndarray, "i ..."]:
    """a @ b, with the same bits on any number of cores; numpy's number of threads is afterwards as before.

    Args:
        a: a matrix.
        b: a vector or a matrix.
    """
    with _ONE_AT_A_TIME:
        before = [(lib, lib.get_num_threads()) for lib in _numpy_blas()]
        try:
            for lib, _ in before:
                lib.set_num_threads(1)
            return np.asarray(a @ b)
        finally:
            for lib, n_threads in before:
                lib.set_num_threads(n_threads)
