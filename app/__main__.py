"""``python -m byrote``: the `byrote` command where its script is not on the path."""

from __future__ import annotations

from byrote.cli.main import main

if __name__ == "__main__":
    main()
