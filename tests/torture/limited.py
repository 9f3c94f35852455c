"""Work in a process of its own, under limits of memory, descriptors and seconds, so that whatever happens is an answer."""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.context import ForkServerContext
from typing import Any

MEMORY_BYTES = 1 << 30  # of address space, beyond what the process maps when it starts
OPEN_FILES = 64
SECONDS = 20.0
_PRELOADED = [
    "torch",
    "byrote.cli.main",
    "byrote.probes.sweep.run",
    "byrote.probes.sweep.measure",
    "byrote.probes.verify",
    "byrote.probes.figures",
    "byrote.report.files",
    "byrote.interp.bridge",
    "byrote.interp.builders.native",
    "transformer_lens.model_bridge.sources.native.model",
    "scipy.stats",
]


@dataclass(frozen=True)
class Ended:
    """How it ended.

    Attributes:
        answer: what the function returned; None where it did not.
        problem: what went wrong, "" for nothing: a traceback, a signal, or too long.
        progress: the last thing it noted.
        seconds: how long it took.
    """

    answer: Any = None
    problem: str = ""
    progress: str = ""
    seconds: float = 0.0


@lru_cache(maxsize=1)
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


Note = Callable[[str], None]


def limited(
    work: Callable[..., Any],
    *arguments: Any,
    memory: int = MEMORY_BYTES,
    files: int = OPEN_FILES,
    seconds: float = SECONDS,
) -> Ended:
    """Call a function of a module under limits.

    Args:
        work: called with `note`, to say how far it is, and the arguments.
        arguments: for it.
        memory: bytes of address space that it may take beyond what is there.
        files: descriptors it may have.
        seconds: it may take; a note starts the time anew.
    """
    ours, theirs = _context().Pipe(duplex=False)
    process = _context().Process(target=_work, args=(theirs, work, arguments, memory, files), daemon=True)
    process.start()
    theirs.close()
    started, progress = time.monotonic(), ""
    try:
        while True:
            if not ours.poll(seconds):
                return Ended(None, f"still at it after {seconds:g} s", progress, time.monotonic() - started)
            try:
                kind, value = ours.recv()
            except EOFError:
                process.join(5)
                how = _how(process.exitcode)
                return Ended(None, f"the process ended, {how}", progress, time.monotonic() - started)
            if kind == "note":
                progress = value
            else:
                answer, problem = (value, "") if kind == "answer" else (None, value)
                return Ended(answer, problem, progress, time.monotonic() - started)
    finally:
        if process.is_alive() and process.pid is not None:
            process.kill()
        process.join(5)
        ours.close()


def quiet() -> None:
    """No warnings and no log: Streamlit without a server says much."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)


def _how(code: int | None) -> str:
    return f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with code {code}"


def _work(pipe: Any, work: Callable[..., Any], arguments: tuple[Any, ...], memory: int, files: int) -> None:
    faulthandler.enable()
    with open("/proc/self/statm") as statm:  # noqa: PTH123
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory,) * 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        answer = work(lambda said: pipe.send(("note", said)), *arguments)
    except BaseException:
        pipe.send(("problem", traceback.format_exc()))
    else:
        pipe.send(("answer", answer))
