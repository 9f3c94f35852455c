"""What `byrote watch` stops when a gate is broken: a process of the same user, by a signal, or whoever looks for a file.

A process is named by its number, which the system gives to another one after it has ended. So the very process is taken hold
of when watching begins, by a descriptor where the system has those, else by the moment it was started; a signal reaches
that one or nobody.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from byrote.checkpoints.atomic import write_text
from byrote.checkpoints.errors import ByroteError

SIGNALS = ("TERM", "INT", "USR1", "USR2")
MAX_PID = 1 << 22
_HELP = "give the number of a process of yours, or a file that your training looks for (./123 for a file called 123)"


class StopTarget(Protocol):
    """What is stopped."""

    def stop(self, why: Sequence[str]) -> str:
        """Stop it; what was done, in words."""

    def ended(self) -> bool:
        """Whether it is known to have ended by itself."""


def stop_target(text: str, *, signal_name: str) -> StopTarget:
    """What a number or a path names.

    Args:
        text: the number of a process, or a file that is not there yet.
        signal_name: one of `SIGNALS`.

    Raises:
        ByroteError: no such process, one of another user, this one or the system's first; a file that is there already, or
            a folder that is not.
    """
    if text.isascii() and text.isdigit():
        return Process.of(text, signal_name)
    path = Path(text)
    if os.path.lexists(path):
        raise ByroteError(
            f"{path} exists already: a training run that checks for it would stop at once",
            help="delete it, or name another file",
        )
    if not path.parent.is_dir():
        raise ByroteError(f"{path.parent} is not a folder", help="name a file in an existing folder")
    return StopFile(path)


@dataclass(frozen=True)
class StopFile:
    """A file whose appearance stops a training."""

    path: Path

    def stop(self, why: Sequence[str]) -> str:
        """Write it, with the reasons in it.

        Raises:
            ByroteError: it cannot be written.
        """
        try:
            write_text(self.path, "".join(f"{line}\n" for line in why))
        except OSError as error:
            raise ByroteError(
                f"{self.path} cannot be written ({error.strerror})", help="stop training by hand"
            ) from None
        return f"{self.path} was written"

    def ended(self) -> bool:
        """A file says nothing of who looks for it."""
        return False


@dataclass(frozen=True)
class Process:
    """One process of this user.

    Attributes:
        pid: its number.
        signal: what it is sent.
        descriptor: of the process; None where the system has none.
        started: when it was started, in the words of `ps`, where there is no descriptor.
    """

    pid: int
    signal: signal.Signals
    descriptor: int | None
    started: str

    @classmethod
    def of(cls, text: str, signal_name: str) -> Process:
        """Take hold of a running process.

        Raises:
            ByroteError: there is none of this number that this user may stop.
        """
        if not hasattr(os, "getuid"):
            raise ByroteError(
                "processes can be stopped only on POSIX systems", help="name a file that training checks for"
            )
        pid = int(text) if len(text) < 10 else 0
        if not 1 < pid <= MAX_PID or pid == os.getpid():
            raise ByroteError(f"process {text[:20]} cannot be stopped", help=_HELP)
        try:
            descriptor = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        except ProcessLookupError:
            raise ByroteError(f"there is no process {pid}", help=_HELP) from None
        except OSError:
            descriptor = None  # a kernel, or a container, without them
        owner, started = _owner_and_start(pid)
        if owner != os.getuid():
            raise ByroteError(f"process {pid} belongs to another user", help=_HELP)
        found = cls(pid, getattr(signal, f"SIG{signal_name}"), descriptor, started)
        if found.ended():
            raise ByroteError(f"process {pid} has ended", help=_HELP)
        return found

    def stop(self, why: Sequence[str]) -> str:
        """Send the signal to the process that was named, and to no other."""
        if self.ended():
            return f"process {self.pid} had ended already"
        try:
            if self.descriptor is not None:
                signal.pidfd_send_signal(self.descriptor, self.signal)
            else:
                os.kill(self.pid, self.signal)
        except ProcessLookupError:
            return f"process {self.pid} had ended already"
        return f"process {self.pid} was sent {self.signal.name}"

    def ended(self) -> bool:
        """Whether it has ended, also where its number was given to another process since."""
        if self.descriptor is not None:
            return bool(select.select([self.descriptor], [], [], 0)[0])
        try:
            return _owner_and_start(self.pid)[1] != self.started
        except ByroteError:
            return True


def _owner_and_start(pid: int) -> tuple[int, str]:
    """User id of a process and when it was started.

    Raises:
        ByroteError: there is none, or nothing says whose it is.
    """
    command = ["ps", "-o", "uid=,lstart=", "-p", str(pid)]
    try:
        if (folder := Path("/proc") / str(pid)).is_dir():
            ticks = (folder / "stat").read_text().rpartition(")")[2].split()[19]
            return folder.stat().st_uid, ticks
        fields = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=10
        ).stdout.split(maxsplit=1)
    except (OSError, IndexError, subprocess.SubprocessError) as error:
        raise ByroteError(
            f"the owner of process {pid} cannot be determined ({error})", help="name a file instead"
        ) from None
    if len(fields) != 2:
        raise ByroteError(f"there is no process {pid}", help=_HELP)
    return int(fields[0]), fields[1].strip()
