"""What a long self-test found, kept in docs/calibration.json and written out in docs/calibration.md.

    byrote selftest --long --seed 1 --json > found.json
    python tests/calibration_page.py found.json

Without a file it only writes the page anew. tests/probes/test_selftest.py compares the page with what is kept.
"""

from __future__ import annotations

import datetime
import json
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
KEPT, PAGE = DOCS / "calibration.json", DOCS / "calibration.md"
COMMAND = "byrote selftest --long --seed 1 --json"
BEGIN, END = "<!-- from calibration.json: begin -->", "<!-- end -->"
_MEAN = re.compile(r"95% intervals, (.*), n = (\d+)")
Check = dict[str, Any]


def keep(found: Sequence[Check]) -> None:
    """Write what a long self-test found, with the day and the versions."""
    columns = ("check", "expected", "found", "n", "passed")
    kept = {
        "command": COMMAND,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "versions": {
            name: version(name) for name in ("byrote", "numpy", "scipy", "torch", "transformer-lens")
        },
        "checks": [{name: check[name] for name in columns} for check in found],
    }
    KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def written_out(kept: dict[str, Any]) -> str:
    """The part of the page between the marks."""
    versions = ", ".join(f"{name} {number}" for name, number in kept["versions"].items())
    means = {found.groups(): c for c in kept["checks"] if (found := _MEAN.fullmatch(c["check"]))}
    sizes = list(dict.fromkeys(n for _, n in means))
    return "\n".join(
        [
            f"`{kept['command']}`, {kept['date']}, {versions}:",
            "",
            _row("95% intervals that contained the true value", *(f"n = {n}" for n in sizes)),
            _row(*["---"] * (1 + len(sizes))),
            *(
                _row(shape, *(means[shape, n]["found"] for n in sizes))
                for shape in dict.fromkeys(s for s, _ in means)
            ),
            "",
            _row("check", "expected", "found", "n"),
            _row(*["---"] * 4),
            *(
                _row(c["check"], c["expected"], c["found"], f"{c['n']:,}" if c["n"] else "")
                for c in kept["checks"]
                if not _MEAN.fullmatch(c["check"])
            ),
        ]
    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        keep(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    part = written_out(json.loads(KEPT.read_text(encoding="utf-8")))
    PAGE.write_text(f"{before}{BEGIN}\n{part}\n{END}{rest.split(END)[1]}", encoding="utf-8")
