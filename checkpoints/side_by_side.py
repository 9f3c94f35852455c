"""Work side by side in processes: one task after another in each, what they say as it happens, and a stop that loses nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from byrote.checkpoints.errors import ByroteError

OnEvent = Callable[[dict[str, Any]], None]
_GO_ON, _STOP_AT_A_STEP, _STOP_NOW = 0, 1, 2
_POLL_S = 0.2
_said: dict[str, Any] = {}  # in a worker: where its events go, and whether it is to stop


class Stopped(KeyboardInterrupt):
    """Raised in a worker at a `checkpoint` event, where work may stop."""


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(
    work: Callable[[Any, OnEvent], Any],
    tasks: Sequence[Any],
    *,
    processes: int,
    hear: Callable[[int, dict[str, Any]], None],
    stopping: Callable[[], bool],
) -> Iterator[tuple[int, Any]]:
    """Do every task, and yield its place and its result as it is done.

    Args:
        work: a function of a module, called with a task and a function that takes events; each event has the key `event`.
            Where work is to stop, `checkpoint` raises `Stopped`.
        tasks: what can be pickled.
        processes: 1 or more; with one, everything is done in this process.
        hear: called here with a task's place and its events.
        stopping: asked a few times a second; where it is true, work stops at the next `checkpoint` of every process.

    Raises:
        ByroteError: that of a task; the others stop at their next `checkpoint`. A process was ended from outside.
        KeyboardInterrupt: work was stopped.
    """
    if min(processes, len(tasks)) <= 1:
        yield from _here(work, tasks, hear, stopping)
        return
    context = multiprocessing.get_context("spawn")
    events, stop = context.SimpleQueue(), context.Value("i", _GO_ON)

    def look() -> None:
        while not events.empty():
            hear(*events.get())
        if stopping():
            stop.value = _STOP_AT_A_STEP

    n_processes = min(processes, len(tasks))
    with ProcessPoolExecutor(n_processes, context, initializer=_begin, initargs=(events, stop)) as pool:
        futures = {pool.submit(_there, work, place, task): place for place, task in enumerate(tasks)}
        try:
            yield from _finished(futures, look)
        except BaseException as error:
            stop.value = _STOP_NOW if isinstance(error, KeyboardInterrupt) else _STOP_AT_A_STEP
            for future in futures:
                future.cancel()
            raise
    if stop.value:
        raise KeyboardInterrupt


def _here(
    work: Callable[[Any, OnEvent], Any],
    tasks: Sequence[Any],
    hear: Callable[[int, dict[str, Any]], None],
    stopping: Callable[[], bool],
) -> Iterator[tuple[int, Any]]:
    for place, task in enumerate(tasks):

        def on_event(event: dict[str, Any], place: int = place) -> None:
            hear(place, event)
            if event["event"] == "checkpoint" and stopping():
                raise Stopped

        yield place, work(task, on_event)
        if stopping():
            raise KeyboardInterrupt


def _finished(futures: dict[Future[Any], int], look: Callable[[], None]) -> Iterator[tuple[int, Any]]:
    """Each task as it is done; those that were stopped are left out."""
    left = set(futures)
    while left:
        done, left = wait(left, timeout=_POLL_S, return_when=FIRST_COMPLETED)
        look()
        for future in done:
            try:
                result = future.result()
            except Stopped:
                continue
            except BrokenProcessPool:
                raise ByroteError(
                    "a process was ended from outside",
                    help="was memory short? The same command goes on; --jobs 1 does it all in this process",
                ) from None
            yield futures[future], result


def _begin(events: Any, stop: Any) -> None:
    """In a worker: Ctrl-C is for the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _said.update(events=events, stop=stop)


def _there(work: Callable[[Any, OnEvent], Any], place: int, task: Any) -> Any:
    """In a worker: do a task, say how far it is, and end with the process that started this one."""
    parent = multiprocessing.parent_process()

    def on_event(event: dict[str, Any]) -> None:
        wanted = _said["stop"].value
        if wanted == _STOP_NOW or (parent is not None and not parent.is_alive()):
            os._exit(1)
        _said["events"].put((place, event))
        if event["event"] == "checkpoint" and wanted == _STOP_AT_A_STEP:
            raise Stopped

    if _said["stop"].value:
        raise Stopped
    return work(task, on_event)
