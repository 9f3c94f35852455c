"""Work side by side in processes of this machine: one task after another in each, what they say as it happens, and a stop
that loses nothing. A process that is ended from outside takes its own task down and no other; the task is done again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from byrote.checkpoints.errors import PlaceError

OnEvent = Callable[[dict[str, Any]], None]
RETRIES = 2  # of a task whose process or machine was lost
_GO_ON, _STOP_AT_A_STEP, _STOP_NOW = 0, 1, 2
_POLL_S = 0.2
_shared: dict[str, Any] = {}  # in a worker: where its events go, and whether it is to stop


class Stopped(KeyboardInterrupt):
    """Raised in a worker at a `checkpoint` event, where work may stop."""


@dataclass(frozen=True)
class Lost:
    """What a task has come to that could not be done, however often it was tried.

    Attributes:
        reason, help: what happened the last time, and what to do.
    """

    reason: str
    help: str = ""


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
        hear: called here with a task's place and its events; `retried` where its process was ended, or its place is unfit.
        stopping: asked a few times a second; where it is true, work stops at the next `checkpoint` of every process.

    Yields:
        A task's place, and what it returned; a `Lost` where its processes were ended, or its place was unfit, too often.

    Raises:
        ByroteError: that of a task; the others stop at their next `checkpoint`.
        KeyboardInterrupt: work was stopped.
    """
    if min(processes, len(tasks)) <= 1:
        yield from _here(work, tasks, hear, stopping)
        return
    pool = _Pool(work, tasks, hear, stopping)
    try:
        yield from pool.done(min(processes, len(tasks)))
    except BaseException as error:
        pool.stop.value = _STOP_NOW if isinstance(error, KeyboardInterrupt) else _STOP_AT_A_STEP
        raise
    finally:
        pool.close()
    if pool.stop.value:
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


@dataclass
class _Slot:
    """One process, and the events it sends: nothing that another could leave locked when it is killed."""

    executor: ProcessPoolExecutor
    events: Any


class _Pool:
    """Processes of their own for every slot, so that one that is ended ends no other."""

    def __init__(
        self,
        work: Callable[[Any, OnEvent], Any],
        tasks: Sequence[Any],
        hear: Callable[[int, dict[str, Any]], None],
        stopping: Callable[[], bool],
    ) -> None:
        self.work, self.tasks, self.hear, self.stopping = work, tasks, hear, stopping
        self.context = multiprocessing.get_context("spawn")
        self.stop = self.context.Value("i", _GO_ON, lock=False)
        self.slots: list[_Slot] = []
        self.tries: Counter[int] = Counter()

    def done(self, n_slots: int) -> Iterator[tuple[int, Any]]:
        """Each task as it is done; those that were stopped are left out."""
        waiting, running = deque(range(len(self.tasks))), dict[Future[Any], tuple[int, _Slot]]()
        idle = [self._slot() for _ in range(n_slots)]
        while running or (waiting and not self.stop.value):
            while idle and waiting and not self.stop.value:
                place, slot = waiting.popleft(), idle.pop()
                task = slot.executor.submit(_there, self.work, place, self.tasks[place])
                running[task] = place, slot
            finished, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            self._look()
            for future in finished:
                place, slot = running.pop(future)
                try:
                    result: Any = future.result()
                except Stopped:
                    continue
                except BrokenProcessPool:
                    self._forget(slot)
                    slot = self._slot()
                    result = Lost("its process was killed", "did memory run out? A smaller --jobs needs less")
                except PlaceError as error:
                    result = Lost(error.message, error.help)
                idle.append(slot)
                self.tries[place] += 1
                if isinstance(result, Lost) and self.tries[place] <= RETRIES:
                    self.hear(place, {"event": "retried", "reason": result.reason})
                    waiting.append(place)
                else:
                    yield place, result

    def close(self) -> None:
        """Wait until every process has ended; whoever is to stop has been told."""
        for slot in self.slots:
            slot.executor.shutdown(cancel_futures=True)

    def _slot(self) -> _Slot:
        events = self.context.SimpleQueue()
        executor = ProcessPoolExecutor(1, self.context, initializer=_begin, initargs=(events, self.stop))
        self.slots.append(_Slot(executor, events))
        return self.slots[-1]

    def _forget(self, slot: _Slot) -> None:
        self.slots.remove(slot)
        slot.executor.shutdown()

    def _look(self) -> None:
        for slot in self.slots:
            while not slot.events.empty():
                self.hear(*slot.events.get())
        if self.stopping():
            self.stop.value = _STOP_AT_A_STEP


def _begin(events: Any, stop: Any) -> None:
    """In a worker: Ctrl-C is for the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _shared.update(events=events, stop=stop)


def _there(work: Callable[[Any, OnEvent], Any], place: int, task: Any) -> Any:
    """In a worker: do a task, say how far it is, and end with the process that started this one."""
    parent = multiprocessing.parent_process()

    def on_event(event: dict[str, Any]) -> None:
        wanted = _shared["stop"].value
        if wanted == _STOP_NOW or (parent is not None and not parent.is_alive()):
            os._exit(1)
        _shared["events"].put((place, event))
        if event["event"] == "checkpoint" and wanted == _STOP_AT_A_STEP:
            raise Stopped

    if _shared["stop"].value:
        raise Stopped
    return work(task, on_event)
