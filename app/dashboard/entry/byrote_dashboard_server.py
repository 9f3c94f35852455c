"""The program that is the dashboard's server; one line of JSON on standard input says how, since it holds the key."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from byrote.dashboard import launch
from byrote.dashboard.server import serve

if __name__ == "__main__":
    given = json.loads(sys.stdin.readline())
    serve(
        Path(__file__).with_name(launch.SCRIPT.name),
        port=int(given["port"]),
        token=str(given["token"]),
        once=str(given["once"]),
        origins=[str(origin) for origin in given["origins"]],
        options=launch.options(port=int(given["port"])),
    )
