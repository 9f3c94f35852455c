"""Measuring from a notebook: one call from a series to its results, with a quiet line of progress. Torch on first use."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from byrote.checkpoints.series import CheckpointSeries, open_series
from byrote.probes.store import Results
from byrote.probes.sweep.plan import SweepConfig


def measure(
    series: CheckpointSeries | str | Path,
    probes: str | Iterable[str] | None = None,
    *,
    out: str | Path = "results",
    progress: bool = True,
    fresh: bool = False,
    **settings: Any,
) -> Results:
    """Measure every checkpoint of a series, or what is missing of it; the same folder `byrote run` writes.

    Interrupted (Ctrl-C, or the kernel's stop), it keeps what is finished; the same call goes on from there.

    Args:
        series: from `open_series`, or a path; slice or `.select("log:12")` it to measure a part.
        probes: names, "default" or "all"; None is the default ones.
        out: parent of the results folder, which is named after the series.
        progress: show one line while it works; off where nobody watches.
        fresh: throw away what the folder holds.
        settings: `SweepConfig`'s other fields: seed, n_seq, device, dtype, text, members, twins, ...

    Returns:
        The results; `results["prefix_matching"]` is one metric over all steps.

    Raises:
        ByroteError: an unknown probe or path, a folder of another series, settings that cannot work.
    """
    from byrote.probes.sweep.run import sweep

    if not isinstance(series, CheckpointSeries):
        series = open_series(series)
    names = (probes,) if isinstance(probes, str) else None if probes is None else tuple(probes)
    line = _line() if progress else None
    started = time.monotonic()

    def show(event: dict[str, Any]) -> None:
        if line is not None and event["event"] == "checkpoint":
            line.show(
                f"{series.name}: {event['done']}/{event['total']} · step {event['step']:,} · ETA {event['eta_s']:.0f} s"
            )

    outcome = sweep(series, SweepConfig(probes=names, **settings), out=out, fresh=fresh, on_event=show)
    results = outcome.results
    if line is not None:
        what = "interrupted: what is finished is kept" if outcome.interrupted else repr(results)
        line.close(f"{what} ({outcome.measured:,} units measured in {time.monotonic() - started:.0f} s)")
    return results


@runtime_checkable
class _Line(Protocol):
    def show(self, text: str) -> None: ...

    def close(self, text: str) -> None: ...


def _line() -> _Line | None:
    """In a notebook one output that is written over, on a terminal one line; else nothing."""
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None else None
    if running is not None and hasattr(running, "kernel"):
        return _CellLine()
    return _TerminalLine() if sys.stderr.isatty() else None


class _CellLine:
    def __init__(self) -> None:
        from IPython.display import display

        self._handle = display({"text/plain": "starting"}, raw=True, display_id=True)

    def show(self, text: str) -> None:
        self._handle.update({"text/plain": text}, raw=True)

    def close(self, text: str) -> None:
        self.show(text)


class _TerminalLine:
    def show(self, text: str) -> None:
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def close(self, text: str) -> None:
        print(f"\r\033[K{text}", file=sys.stderr)
