"""Python in which the libraries that looking needs are imported already, and torch is not: every call has a copy of its own.

Starting Python and importing pandas takes a second, and a dozen tests ask what a piece of code imports beside them. One
process imports them once and forks for each call.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_PROCESS = """
import json, os, sys
import click, numpy, pandas, plotly.graph_objects, pyarrow.compute, pyarrow.parquet, rich.console

assert not {"torch", "transformers", "transformer_lens", "byrote"} & set(sys.modules)
for line in sys.stdin:
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
task = json.loads(line)
for number, name in enumerate((os.devnull, task["out"], task["err"])):
    os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
os.environ.clear()
os.environ.update(task["environment"])
os.chdir(task["folder"])
sys.argv = ["-c", *task["arguments"]]
exec(compile(task["code"], "<string>", "exec"), {"__name__": "__main__"})
"""


class PreparedPython:
    """Runs pieces of Python as `python -c` does, from the top of the tree.

    Args:
        folder: where each starts.
        scratch: an empty folder for what they print.
    """

    def __init__(self, folder: Path, scratch: Path) -> None:
        self._folder, self._scratch, self._calls = folder, scratch, 0
        command = [sys.executable, "-c", _PROCESS]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
        )

    def run(self, code: str, *arguments: str) -> str:
        """What the code printed.

        Raises:
            AssertionError: it failed; the message is what it said.
        """
        self._calls += 1
        out, err = (self._scratch / f"{self._calls}.{name}" for name in ("out", "err"))
        task = {
            "code": code, "arguments": arguments, "environment": dict(os.environ), "folder": str(self._folder),
            "out": str(out), "err": str(err),
        }  # fmt: skip
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        status = self._process.stdout.readline().strip()
        assert status == "0", (status, err.read_text() if err.exists() else "")
        return out.read_text().strip()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
