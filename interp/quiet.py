"""Silence progress bars and warnings of libraries, restore random state, and shorten what is looked through in vain."""

from __future__ import annotations

import inspect
import random
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from types import FunctionType
from typing import Any, cast


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
    """Give the global generators of torch, numpy and Python back as they were: models are built at random first."""
    import numpy as np
    import torch

    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def as_in_a_sweep() -> Iterator[None]:
    """For the length of a block, torch behaves as where nothing trains; afterwards all is as it was.

    No autocast, gradients that can be taken, float32 and the CPU as defaults, and the generators as `own_randomness`.
    """
    import torch

    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    with ExitStack() as stack:
        stack.enter_context(own_randomness())
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            stack.enter_context(torch.autocast(kind, enabled=False))
        if device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        torch.set_default_dtype(torch.float32)
        stack.callback(torch.set_default_dtype, dtype)
        yield


@contextmanager
def without_methods() -> Iterator[None]:
    """For the length of a block, `dir` of a torch module leaves out what is a function of its class.

    TransformerLens looks for hooks among all attributes of every module, twice a bridge: most are methods, which are none.
    """
    from torch import nn

    whole = nn.Module.__dir__
    nn.Module.__dir__ = _attributes  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__dir__ = whole  # type: ignore[method-assign]


def _attributes(module: object) -> list[str]:
    own, cls = vars(module), cast(Any, type(module))  # mypy has it that a class cannot be hashed
    parts: list[dict[str, object]] = [own, *(own[part] for part in ("_parameters", "_modules", "_buffers"))]
    names = [*_no_functions(cls), *(name for part in parts for name in part)]
    return [name for name in names if not name[0].isdigit()]


@lru_cache(maxsize=1024)
def _no_functions(cls: type) -> tuple[str, ...]:
    functions = (FunctionType, classmethod, staticmethod)
    return tuple(
        name for name in dir(cls) if not isinstance(inspect.getattr_static(cls, name, None), functions)
    )
