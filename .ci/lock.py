"""Write the locks: every pin of constraints.txt with the hashes of its files, for Linux on x86-64 and CPython 3.11 to 3.14.

    .venv/bin/python .ci/lock.py

pip is asked what it would install, and the hashes that it would compare are written down; nothing is installed. Whatever
index pip is set up with is used, and none is named in the locks. torch is left out: its builds for CPUs and for CUDA
differ. Files for every platform are looked up once; of those that differ, one for each version of Python.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LEFT_OUT = {"torch"}
BUILD_TOOLS = {"setuptools", "wheel"}
PLATFORMS = [f"manylinux_2_{n}_x86_64" for n in range(40, 4, -1)] + [
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
]
HEAD = """\
# Made from constraints.txt by .ci/lock.py, for Linux on x86-64 and CPython {pythons}; do not edit.
# torch is left out, whose CPU and CUDA builds differ: install it by itself, and
#   pip install --require-hashes --no-deps -r requirements-build.lock
#   pip install --require-hashes --no-deps --no-build-isolation -r requirements.lock
#   pip install --no-deps --no-build-isolation -e . -C editable_mode=strict
# `make install LOCKED=1` does all of it.
"""


def pins() -> dict[str, str]:
    """Name as in constraints.txt -> version."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def files(wanted: dict[str, str], python: str | None = None) -> dict[str, tuple[str, str]]:
    """What pip would install of these: name -> (file name, sha256).

    Args:
        wanted: name -> version.
        python: a version of Python to look for; None for this one.
    """
    with tempfile.TemporaryDirectory() as folder:
        listed, report = Path(folder) / "wanted.txt", Path(folder) / "report.json"
        listed.write_text(
            "".join(f"{name}=={version}\n" for name, version in wanted.items()), encoding="utf-8"
        )
        words = ["--no-deps", "--dry-run", "--ignore-installed", "--report", str(report), "-r", str(listed)]
        if python is not None:
            words += [
                "--python-version",
                python,
                "--only-binary=:all:",
                "--target",
                str(Path(folder) / "nowhere"),
            ]
            words += [word for platform in PLATFORMS for word in ("--platform", platform)]
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", *words], check=True, stderr=subprocess.DEVNULL
        )
        found: list[Any] = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {
        plain(one["metadata"]["name"]): (
            one["download_info"]["url"].rsplit("/", 1)[-1],
            one["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for one in found
    }


def plain(name: str) -> str:
    """A name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Look everything up and write both files."""
    wanted = {name: version for name, version in pins().items() if plain(name) not in LEFT_OUT}
    here = files(wanted)
    hashes = {name: {digest} for name, (_, digest) in here.items()}
    differing = {
        name: version
        for name, version in wanted.items()
        if here[plain(name)][0].endswith(".whl") and not here[plain(name)][0].endswith("-none-any.whl")
    }
    for python in PYTHONS:
        for name, (_, digest) in files(differing, python).items():
            hashes[name].add(digest)
    head = HEAD.format(pythons=f"{PYTHONS[0]} to {PYTHONS[-1]}")
    for file, mine in (
        ("requirements-build.lock", BUILD_TOOLS),
        ("requirements.lock", set(wanted) - BUILD_TOOLS),
    ):
        lines = [
            f"{name}=={version} \\\n    "
            + " \\\n    ".join(f"--hash=sha256:{one}" for one in sorted(hashes[plain(name)]))
            for name, version in wanted.items()
            if name in mine
        ]
        (ROOT / file).write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
