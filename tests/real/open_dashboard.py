"""Open the dashboard on measured results, as a browser does, until its start page is drawn, and stop it.

    .venv/bin/python tests/real/open_dashboard.py runs/real/results

Exits with 1 where the page is not drawn to its end or shows an error.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from streamlit_client import visit

TRIES = 3


def main() -> None:
    """Start, visit, stop; a server that is not up within half a minute, as on a busy machine, is started again."""
    tried = (opened(sys.argv[1]) for _ in range(TRIES))
    sys.exit(next((failed for failed in tried if failed is not None), True))


def opened(results: str) -> bool | None:
    """Whether the page failed; None where the server did not come up.

    Args:
        results: what the dashboard is opened on.
    """
    words = [str(Path(sys.executable).parent / "byrote"), "dashboard", results, "--no-browser"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = next((line.strip() for line in server.stdout if line.startswith("http")), None)
        if address is None:
            return None
        started = time.monotonic()
        seen = visit(address, timeout_s=120)
        what = (
            f"{len(seen.elements)} elements in {time.monotonic() - started:.1f} s"
            if seen.finished
            else "not finished"
        )
        print(f"start page: {what} {' '.join(seen.errors)}")
    finally:
        server.terminate()  # a job in the background ignores SIGINT
        server.wait(timeout=30)
    return not seen.finished or bool(seen.errors)


if __name__ == "__main__":
    main()
