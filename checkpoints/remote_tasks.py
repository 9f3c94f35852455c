"""Tasks that are done on other machines: what they say while they run, how they are stopped, and which are done again.

All machines see one folder. `<folder>/.tasks-<token>/<place>.jsonl` is what a task says, `stop` in it ends all tasks at their
next `checkpoint`. It is removed when the tasks are done.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from byrote.checkpoints.atomic import append, make_private_folder, remove, write_text
from byrote.checkpoints.errors import ByroteError, PlaceError
from byrote.checkpoints.side_by_side import RETRIES, Lost, OnEvent, Stopped

POLL_S = 0.5
_STOP = "stop"


@dataclass(frozen=True)
class Answer:
    """What came of a task, as it travels back: one of a result, an error of byrote's, or that it was stopped."""

    result: Any = None
    error: ByroteError | None = None
    stopped: bool = False


class LostError(Exception):
    """The machine or process of a task was lost."""


@runtime_checkable
class Handle(Protocol):
    """A task that was started."""

    def done(self) -> bool:
        """Whether there is an answer, or never will be."""

    def answer(self) -> Answer:
        """What came of it.

        Raises:
            LostError: its machine or process was lost.
        """

    def cancel(self) -> None:
        """End it at once."""


@dataclass(frozen=True)
class Where:
    """What a task has to know of the command that started it.

    Attributes:
        folder: of what tasks say.
        working_folder: of the command: paths that were typed are relative to it.
    """

    folder: str
    working_folder: str


def carry_out(work: Callable[[Any, OnEvent], Any], task: Any, place: int, where: Where) -> Answer:
    """On whatever machine this is: do a task.

    Args:
        work: called with the task and a function that takes events.
        task: the task.
        place: its number.
        where: the folders.
    """
    folder = where.folder
    try:
        os.chdir(where.working_folder)
    except OSError as error:
        what = f"{where.working_folder} cannot be entered on {socket.gethostname()} ({error.strerror})"
        return Answer(
            error=PlaceError(what, help="all machines must see the folder in which the command was started")
        )
    events_file, stop = Path(folder) / f"{place}.jsonl", Path(folder) / _STOP

    def on_event(event: dict[str, Any]) -> None:
        with suppress(OSError):  # whoever listens may be gone; the work is not lost
            append(events_file, json.dumps(event).encode() + b"\n")
        if event["event"] == "checkpoint" and stop.exists():
            raise Stopped

    if stop.exists() or not stop.parent.is_dir():  # the command that started it has ended
        return Answer(stopped=True)
    with suppress(OSError):
        append(events_file, b"")  # it has begun
    try:
        return Answer(work(task, on_event))
    except Stopped:
        return Answer(stopped=True)
    except ByroteError as error:
        return Answer(error=error)


def done_elsewhere(
    start: Callable[[Sequence[int], Where], Sequence[Handle]],
    n_tasks: int,
    at_once: int,
    folder: Path,
    *,
    hear: Callable[[int, dict[str, Any]], None],
    stopping: Callable[[], bool],
) -> Iterator[tuple[int, Any]]:
    """Start tasks, wait for them, and start those again whose machine was lost; see `run_tasks`.

    Args:
        start: starts the tasks of these numbers, which say what they do in a folder.
        n_tasks: how many there are.
        at_once: how many are started before others are done.
        folder: that every machine sees.
        hear: called with a task's number and its events.
        stopping: asked a few times a second.

    Raises:
        ByroteError: that of a task.
        KeyboardInterrupt: tasks were stopped.
    """
    waiting, tries = deque(range(n_tasks)), Counter[int]()
    running: dict[int, Handle] = {}
    with _listening(folder, hear) as events:
        try:
            while running or (waiting and not events.stopped):
                if waiting and len(running) < at_once and not events.stopped:
                    places = [waiting.popleft() for _ in range(min(len(waiting), at_once - len(running)))]
                    where = Where(str(events.folder), str(Path.cwd()))
                    running |= zip(places, start(places, where), strict=True)
                events.pass_on()
                if stopping():
                    events.stop()
                if events.stopped:
                    _cancel(running, events, begun=False)
                for place in [place for place, handle in running.items() if handle.done()]:
                    events.pass_on()
                    result = _result(running.pop(place))
                    tries[place] += 1
                    if isinstance(result, Answer):  # stopped
                        events.stop()
                    elif isinstance(result, Lost) and tries[place] <= RETRIES:
                        hear(place, {"event": "retried", "reason": result.reason})
                        waiting.append(place)
                    else:
                        yield place, result
                time.sleep(POLL_S if running else 0)
        except GeneratorExit:  # whoever takes the results has stopped: tasks may end what they are at
            events.stop()
            _cancel(running, events, begun=False)
            while not all(handle.done() for handle in running.values()):
                time.sleep(POLL_S)
            raise
        finally:
            _cancel(running, events, begun=True)
        if events.stopped:
            raise KeyboardInterrupt


def _cancel(running: dict[int, Handle], events: _Events, *, begun: bool) -> None:
    """End tasks that are not done, and forget them.

    Args:
        running: by number.
        events: of the tasks.
        begun: end those too that have begun to work.
    """
    for place in [place for place in running if begun or not events.has_begun(place)]:
        handle = running.pop(place)
        if not handle.done():
            handle.cancel()


def _result(handle: Handle) -> Any:
    """What a task returned, a `Lost`, or its `Answer` where it was stopped.

    Raises:
        ByroteError: that of the task.
    """
    try:
        answer = handle.answer()
    except LostError as error:
        return Lost(str(error), "run the same command again: it resumes from what is stored")
    if isinstance(answer.error, PlaceError):
        return Lost(answer.error.message, answer.error.help)
    if answer.error is not None:
        raise answer.error
    return answer if answer.stopped else answer.result


class _Events:
    """Events of tasks, passed on as they are read."""

    def __init__(self, folder: Path, hear: Callable[[int, dict[str, Any]], None]) -> None:
        self.folder, self.hear, self.stopped = folder, hear, False
        self._read: Counter[str] = Counter()

    def pass_on(self) -> None:
        """Read what is new; the last line may be half written, and is read when it is whole."""
        for file in sorted(self.folder.glob("*.jsonl"), key=lambda file: int(file.stem)):
            with suppress(OSError), file.open("rb") as opened:
                opened.seek(self._read[file.name])
                for line in opened:
                    if not line.endswith(b"\n"):
                        break
                    self._read[file.name] += len(line)
                    event = json.loads(line)
                    self.hear(int(file.stem), event)

    def has_begun(self, place: int) -> bool:
        """Whether a task has been started by its machine."""
        return (self.folder / f"{place}.jsonl").exists()

    def stop(self) -> None:
        """Stop every task at its next `checkpoint`."""
        if not self.stopped:
            write_text(self.folder / _STOP, "")
            self.stopped = True


@contextmanager
def _listening(folder: Path, hear: Callable[[int, dict[str, Any]], None]) -> Iterator[_Events]:
    own = folder.resolve() / f".tasks-{secrets.token_hex(8)}"
    make_private_folder(own)
    try:
        yield _Events(own, hear)
    finally:
        with suppress(OSError):  # a task that was cancelled may still be writing
            remove(own)
