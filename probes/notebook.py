"""Measuring from a notebook: one call from a series to its results, with a quiet line of progress. Torch on first use."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from byrote.checkpoints.opening import open_series
from byrote.checkpoints.series import CheckpointSeries
from byrote.probes.registry import use
from byrote.probes.results import Results
from byrote.probes.spec import Probe
from byrote.probes.sweep.config import SweepConfig


def measure(
    series: CheckpointSeries | str | Path | Any,
    probes: str | Probe | Iterable[str | Probe] | None = None,
    *,
    out: str | Path | None = None,
    progress: bool = True,
    fresh: bool = False,
    name: str = "model",
    step: int = 0,
    tokenizer: str | Path | None = None,
    **settings: Any,
) -> Results:
    """Measure every checkpoint of a series, or what is missing of it; or one model that is in memory.

    Interrupted (Ctrl-C, or the kernel's stop), it keeps what is finished; the same call continues from there.

    Args:
        series: from `open_series`, or a path; slice or `.select("log:12")` it to measure a part. Or a model: a
            TransformerBridge, a causal language model of transformers, or TransformerLens's native one. It is copied and
            left as it is: its mode, its gradients, and torch's global generator too.
        probes: names, "default", "all", or probes made with `byrote.probe`; None is the default ones.
        out: parent of the results folder, which is named after the run; None is "results" for a series, and writes nothing
            for a model.
        progress: show one line while it works; off where nobody watches.
        fresh: throw away what the folder of a series holds.
        name, step: of a model: what its run is called, and which step of it this is.
        tokenizer: of a model: its tokenizer.json, which says which ids text uses.
        settings: `SweepConfig`'s other fields: seed, n_seq, device, dtype, text, members, twins, ...

    Returns:
        The results; `results["prefix_matching"]` is one metric over all steps.

    Raises:
        ByroteError: an unknown probe or path, a folder of another series, settings that cannot work.
    """
    chosen = (probes,) if isinstance(probes, str | Probe) else probes
    names = None if chosen is None else tuple(use(p).name if isinstance(p, Probe) else p for p in chosen)
    if "torch" in sys.modules and isinstance(series, sys.modules["torch"].nn.Module):
        from byrote.probes.sweep.one_model import measure_model

        config = SweepConfig(probes=names, **{"device": "", **settings})
        return measure_model(
            series,
            config,
            name=name,
            step=step,
            tokenizer=None if tokenizer is None else Path(tokenizer),
            out=None if out is None else Path(out),
        )
    return _measure_series(
        series if isinstance(series, CheckpointSeries) else open_series(series),
        SweepConfig(probes=names, **settings),
        out="results" if out is None else out,
        progress=progress,
        fresh=fresh,
    )


def _measure_series(
    series: CheckpointSeries, config: SweepConfig, *, out: str | Path, progress: bool, fresh: bool
) -> Results:
    from byrote.probes.sweep.run import sweep

    line = _line() if progress else None
    started = time.monotonic()

    def show(event: dict[str, Any]) -> None:
        if line is not None and event["event"] == "checkpoint":
            line.show(
                f"{series.name}: {event['done']}/{event['total']} · step {event['step']:,} · ETA {event['eta_s']:.0f} s"
            )

    outcome = sweep(series, config, out=out, fresh=fresh, on_event=show)
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
