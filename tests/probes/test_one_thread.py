import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from byrote.probes.one_thread import product


def _numpy_threads() -> list[int]:
    return [found["num_threads"] for found in threadpool_info() if "numpy" in found["filepath"]]


def test_a_product_has_the_same_bits_whatever_the_number_of_threads_and_leaves_it_alone():
    rng = np.random.default_rng(0)
    n = 300  # which two threads add in another order than one
    counts = rng.multinomial(n, np.full(n, 1 / n), 2000).astype(np.float64)
    values = rng.normal(size=(n, 4))
    made = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads, user_api="blas"):
            before = _numpy_threads()
            made.append(product(counts, values))
            assert _numpy_threads() == before
    assert np.array_equal(*made)
    assert np.allclose(made[0], np.einsum("ij,jk->ik", counts, values))
