"""``python -m byrote.dashboard.job_worker FACTS MODULE ARGUMENTS...``: runs one job and says how it ended. See `byrote.dashboard.jobs`."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from byrote.checkpoints.atomic import write_private_text

LOOK_EVERY_S = 0.2
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def work(folder: Path, module: list[str], *, lock: int, limit_s: float | None, private: bool) -> int:
    """Run a module with its words in `progress.jsonl`; its exit code goes to `exit`.

    Args:
        folder: the job's.
        module: what to put after `python -m`.
        lock: descriptor of the job's lock, locked until the last process has ended.
        limit_s: kill it after as many seconds.
        private: whether what it writes is for its owner alone.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(folder / "progress.jsonl", flags, 0o600), "ab") as progress:
        command = subprocess.Popen(
            [sys.executable, "-P", "-m", *module], stdin=subprocess.DEVNULL, stdout=progress, stderr=progress,
            pass_fds=(lock,), preexec_fn=_take_interrupts, umask=0o077 if private else -1,
        )  # fmt: skip
        code = _wait(command, folder, progress, limit_s=limit_s)
    write_private_text(folder / "exit", f"{code}\n")
    return code


def _wait(
    command: subprocess.Popen[bytes], folder: Path, progress: IO[bytes], *, limit_s: float | None
) -> int:
    """Wait until it has ended; a first request to stop sends SIGINT, a second kills it."""
    handled = 0
    ends = None if limit_s is None else time.monotonic() + limit_s
    while True:
        try:
            return command.wait(timeout=LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            requested = _stop_requests(folder)
        if ends is not None and time.monotonic() > ends:
            progress.write(
                json.dumps({"error": f"stopped: no answer within {limit_s:.0f} s"}).encode() + b"\n"
            )
            requested = 2
        if requested > handled:
            command.send_signal(signal.SIGKILL if requested > 1 else signal.SIGINT)
            handled = requested


def _stop_requests(folder: Path) -> int:
    try:
        return (folder / "cancel").lstat().st_size
    except OSError:
        return 0


def _take_interrupts() -> None:
    """An ignored Ctrl-C is inherited, and the command must receive it; it also stops when this process is killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGINT)


if __name__ == "__main__":
    facts = json.loads(sys.argv[1])
    sys.exit(
        work(
            Path(facts["folder"]),
            sys.argv[2:],
            lock=int(facts["lock"]),
            limit_s=facts["limit_s"],
            private=bool(facts["private"]),
        )
    )
