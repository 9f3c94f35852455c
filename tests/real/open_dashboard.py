"""Open the dashboard on measured results, as a browser does, page by page, and stop it.

    .venv/bin/python tests/real/open_dashboard.py runs/real/results

Exits with 1 where a page does not come to its end or shows an error.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from streamlit_client import visit

PAGES = ("", "heads", "memory")  # the start page, and the links of two more


def main() -> None:
    """Start, visit, stop."""
    words = [str(Path(sys.executable).parent / "byrote"), "dashboard", sys.argv[1], "--no-browser"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = next(line.strip() for line in server.stdout if line.startswith("http"))
        failed = False
        for page in PAGES:
            started = time.monotonic()
            seen = visit(address, query=f"view={page}" if page else "", timeout_s=120)
            failed = failed or not seen.finished or bool(seen.errors)
            what = f"{len(seen.elements)} elements, {time.monotonic() - started:.1f} s"
            print(
                f"{page or 'start page'}: {what if seen.finished else 'not finished'} {' '.join(seen.errors)}"
            )
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)
    sys.exit(failed)


if __name__ == "__main__":
    main()
