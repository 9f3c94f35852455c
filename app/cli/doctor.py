"""`byrote doctor`: check that everything byrote needs is installed, and show the settings in effect."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from byrote.checkpoints.atomic import SYNC_VARIABLE
from byrote.checkpoints.errors import did_you_mean
from byrote.checkpoints.machine import memory_bytes
from byrote.cli.command import Verb, commands, flag, verb
from byrote.cli.output import Column, Output
from byrote.cli.session import Exit, Session
from byrote.cli.settings import PREFIX, Settings, flat, former_variable
from byrote.dashboard.state import VARIABLE
from byrote.probes.wording import size

COLUMNS = (
    Column("check", "check"),
    Column("value", "value", fold=True),
    Column("status", "status"),
    Column("fix", "fix", fold=True),
)
_NEEDED = "torch transformer-lens transformers safetensors numpy pandas pyarrow scipy plotly"
_OPTIONAL = {"streamlit": "needed only by the dashboard"}
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LOW_DISK_BYTES = 1_000_000_000
LOW_MEMORY_BYTES = 2_000_000_000
OK, LOW, WRONG = "ok", "low", "wrong"
Finding = Mapping[str, Any]


@verb("byrote doctor", "byrote doctor --json", "byrote doctor --torch")
def doctor(
    session: Session,
    *,
    torch: bool = flag("Import torch, also where its build is for the CPU alone."),
    out: Output,
) -> int:
    """Check versions, device, memory, disk and configuration: one line each, with the fix where something is wrong.

    A build of torch for other devices is imported, to say which of them it sees. Exit 2 when something byrote needs is missing or a setting cannot be understood.
    """
    settings = session.settings
    known = known_settings(click.get_current_context().find_root())
    findings = [
        *_versions(),
        *_machine(import_torch=torch),
        *_folders(settings),
        *_configuration(settings, known),
    ]
    out.rows(COLUMNS, findings)
    return Exit.USAGE if any(found["status"] == WRONG for found in findings) else Exit.DONE


def known_settings(root: click.Context) -> dict[str, str]:
    """Every option that can be set, such as ``run.device``, and its environment variable."""
    names = [
        (*name.split()[1:], str(option.name))
        for name, command in commands(root)
        if isinstance(command, Verb)
        for option in command.params
        if isinstance(option, click.Option)
    ]
    return {".".join(parts): PREFIX + "_".join(parts).upper() for parts in names}


def _finding(check: str, value: str, status: str = OK, fix: str = "") -> Finding:
    return {"check": check, "value": value, "status": status, "fix": fix or None}


def _versions() -> Iterator[Finding]:
    yield _finding("python", platform.python_version())
    for name in ("byrote", *_NEEDED.split(), *_OPTIONAL):
        try:
            yield _finding(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            if name in _OPTIONAL:
                yield _finding(name, f"not installed: {_OPTIONAL[name]}")
            else:
                yield _finding(name, "not installed", WRONG, f"pip install {name}")


def _machine(*, import_torch: bool) -> Iterator[Finding]:
    if not import_torch and _is_cpu_build():
        yield _finding("device", "cpu (this build of torch has no other; --torch imports it)")
        threads = os.environ.get("OMP_NUM_THREADS") or "torch's choice"
        yield _finding("threads", f"{threads} of {os.cpu_count()} cores")
    else:
        yield from _torch()
    total, available = memory_bytes()
    low = available is not None and available < LOW_MEMORY_BYTES
    value = f"{size(available)} available of {size(total)}"
    yield _finding(
        "memory", value, LOW if low else OK, "close other programs, or use smaller models" if low else ""
    )
    chromium = next((path for name in _CHROMIUM if (path := shutil.which(name))), None)
    yield _finding("chromium", chromium or "not found: only browser tests need it")


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield _finding("device", f"torch cannot be imported: {error}", WRONG, "install torch again")
    else:
        yield _finding("device", _devices(torch))
        yield _finding("threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores")


def _is_cpu_build() -> bool:
    """Whether the installed torch says in its version file that it was built for the CPU alone; not asked on a Mac."""
    if sys.platform == "darwin":
        return False
    try:
        spec = importlib.util.find_spec("torch")
        text = (Path(spec.origin).parent / "version.py").read_text("utf-8") if spec and spec.origin else ""
    except (ImportError, OSError, ValueError):
        return False
    built = dict(re.findall(r"^(cuda|hip|xpu)\b[^=\n]*= *(.+)$", text, re.MULTILINE))
    return "cuda" in built and set(built.values()) == {"None"}


def _devices(torch: Any) -> str:
    found = ["cpu"]
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        found.append(f"cuda:{i} {properties.name} {size(properties.total_memory)}")
    if torch.backends.mps.is_available():
        found.append("mps")
    return ", ".join(found)


def _folders(settings: Settings) -> Iterator[Finding]:
    """Disk and permission where `byrote run` would write."""
    run = settings.table.get("run", {})
    out = Path(
        os.environ.get("BYROTE_RUN_OUT") or (run.get("out") if isinstance(run, dict) else None) or "results"
    )
    there = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    low = free < LOW_DISK_BYTES
    yield _finding(
        "disk", f"{size(free)} free for {out}", LOW if low else OK, "make room, or use -o" if low else ""
    )
    try:
        with tempfile.TemporaryFile(dir=there):
            yield _finding("writable", str(out))
    except OSError as error:
        yield _finding(
            "writable", f"{out}: {error.strerror}", WRONG, "choose another folder with -o or BYROTE_RUN_OUT"
        )


def _configuration(settings: Settings, known: Mapping[str, str]) -> Iterator[Finding]:
    """What is set, where, and which of two settings wins; what no option matches."""
    if settings.problem:
        yield _finding("pyproject.toml", settings.problem.message, WRONG, settings.problem.help)
    if former := former_variable(os.environ, {name.split(".")[0] for name in known}):
        yield _finding("environment", former.message, WRONG, former.help)
    for name, value in flat(settings.table).items():
        variable = known.get(name)
        if variable is None:
            yield _finding(name, f"{value} ([tool.byrote])", WRONG, did_you_mean(name, known))
        elif not os.environ.get(variable):
            yield _finding(name, f"{value} ([tool.byrote] in pyproject.toml)")
        else:
            yield _finding(name, f"{value} in [tool.byrote] gives way to {variable}")
    for name in settings.ignored:
        yield _finding(name, settings.ignored_words(name))
    options = {variable: name for name, variable in known.items()} | {v: v for v in (SYNC_VARIABLE, VARIABLE)}
    for variable in sorted(v for v in os.environ if v.startswith(PREFIX)):
        if variable in options:
            yield _finding(options[variable], f"{os.environ[variable]} ({variable})")
        else:
            yield _finding(variable, os.environ[variable], WRONG, did_you_mean(variable, options))
