"""What this machine has: memory, as far as the system says. No torch."""

from __future__ import annotations

import os
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
# Limit, use, and of that what is cached files, of the control group that a container or a job scheduler put this process in.
_GROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (
        Path("/sys/fs/cgroup/memory"),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def memory_bytes() -> tuple[int | None, int | None]:
    """Total and available; None where the system does not say."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None, None
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return total, None
    for group, limit, used, cached in _GROUPS:
        try:
            most = int((group / limit).read_text(encoding="ascii"))  # "max" where there is none
            stat = dict(
                line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines()
            )
            in_use = int((group / used).read_text(encoding="ascii")) - int(stat.get(cached, 0))
        except (OSError, ValueError):
            continue
        total, available = min(total, most), min(available, max(0, most - in_use))
    return total, available
