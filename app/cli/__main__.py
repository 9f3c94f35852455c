"""``python -m app.cli``: the `rote` command where it is not installed."""

from __future__ import annotations

from app.cli.main import main

main()
