"""Silence progress bars and warnings of libraries, and restore random state; errors still rise."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_upstream() -> Iterator[None]:
    """Silence transformers' progress bars and upstream warnings for the length of a block."""
    with warnings.catch_warnings():
        # In a notebook, tqdm looks for widgets before any progress bar is shown.
        warnings.filterwarnings("ignore", message="IProgress not found")
        from transformers.utils import logging as hf_logging

    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()


@contextmanager
def own_randomness() -> Iterator[None]:
    """Give torch's global generators back as they were: models are built at random before their weights are put in."""
    import torch

    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=list(devices)):
        yield
