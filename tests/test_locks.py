"""The locks: constraints.txt again, with hashes, and without torch."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD_TOOLS = ["setuptools", "wheel"]


def locked(file: str) -> dict[str, tuple[str, list[str]]]:
    """Name -> (version, hashes)."""
    text = (ROOT / file).read_text(encoding="utf-8").replace(" \\\n", " ")
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {words[0].split("==")[0]: (words[0].split("==")[1], words[1:]) for words in lines}


def test_they_hold_every_pin_with_hashes():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    build, rest = locked("requirements-build.lock"), locked("requirements.lock")
    assert list(build) == BUILD_TOOLS
    found = {name: version for name, (version, _) in (build | rest).items()}
    assert found == {name: version for name, version in pins.items() if name != "torch"}, "run .ci/lock.py"
    for hashes in (hashes for _, hashes in (build | rest).values()):
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes)


def test_they_name_no_place():
    for file in ("requirements-build.lock", "requirements.lock"):
        assert "://" not in (ROOT / file).read_text(encoding="utf-8")
