"""``python -m app.dashboard.worker FOLDER ARGUMENTS...``: runs one job and says how it ended. See `app.dashboard.jobs`."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from pathlib import Path


def work(folder: Path, arguments: list[str]) -> int:
    """Run the command line with its words in `progress.jsonl`, the lock held until it has ended.

    Args:
        folder: the job's.
        arguments: of `rote`, or of another module of the dashboard when the first is `-m`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command: it finishes its checkpoint
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        module = arguments[1:] if arguments[:1] == ["-m"] else ["app.cli", *arguments]
        with (folder / "progress.jsonl").open("ab") as said:
            code = subprocess.call(
                [sys.executable, "-m", *module], stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                preexec_fn=_take_interrupts,
            )  # fmt: skip
        (folder / "exit").write_text(f"{code}\n", encoding="utf-8")
    return code


def _take_interrupts() -> None:
    """An ignored signal is inherited; the command must hear it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1]), sys.argv[2:]))
