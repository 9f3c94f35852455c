"""Measuring from a notebook: one call from a series to its results, with a quiet line of progress. Torch on first use."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.opening import open_series
from byrote.checkpoints.series import CheckpointSeries
from byrote.checkpoints.setting import path_of
from byrote.probes.registry import use
from byrote.probes.results import Results, Table
from byrote.probes.results.opened import one_run
from byrote.probes.spec import Probe
from byrote.probes.sweep.config import SweepConfig, checked_settings, require_device
from byrote.probes.trajectory.verdict import Onset
from byrote.probes.trajectory.verdict import onset as lasting_onset


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

    Interrupted (Ctrl-C, or the kernel's stop), what is finished is saved; the same call continues from there.

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
        settings: `SweepConfig`'s other fields: seed, n_seq, device, dtype, text, members, twins, ...; or called as the
            options of `byrote run` are: `sequences` for n_seq, `probe` for probes.

    Returns:
        The results; `results["prefix_matching"]` is one metric over all steps.

    Raises:
        ByroteError: an unknown probe or path, a folder of another series, settings that cannot work.
    """
    settings = checked_settings(settings, of="measure", names=[one.name for one in fields(SweepConfig)])
    probes = settings.pop("probes", probes)
    chosen = (probes,) if isinstance(probes, str | Probe) else probes
    if chosen is not None and (not isinstance(chosen, Iterable) or not (chosen := tuple(chosen))):
        raise ByroteError(f"{probes!r} names no probe", help="such as 'prefix_matching', or a list of names")
    names = None if chosen is None else tuple(use(p).name if isinstance(p, Probe) else p for p in chosen)
    if "torch" in sys.modules and isinstance(series, sys.modules["torch"].nn.Module):
        from byrote.probes.sweep.one_model import measure_model

        return measure_model(
            series,
            SweepConfig(probes=names, **{"device": "", **settings}),
            name=name,
            step=step,
            tokenizer=None if tokenizer is None else Path(tokenizer),
            out=None if out is None else path_of(out, "out"),
        )
    from byrote.probes.sweep.run import sweep

    found = series if isinstance(series, CheckpointSeries) else open_series(series)
    line, started = _line() if progress else (lambda text, last: None), time.monotonic()

    def show(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint":
            done = f"{found.name}: {event['done']}/{event['total']}"
            eta = "" if event["eta_s"] is None else f" · ETA {event['eta_s']:.0f} s"
            line(f"{done} · step {event['step']:,}{eta}", False)

    config = SweepConfig(probes=names, **settings)
    require_device(config)
    place = "results" if out is None else path_of(out, "out")
    try:
        outcome = sweep(found, config, out=place, fresh=fresh, on_event=show)
    except BaseException:
        line("stopped by an error", True)
        raise
    results = outcome.results
    what = "interrupted: what is finished is saved" if outcome.interrupted else repr(results)
    line(f"{what} ({outcome.measured:,} units measured in {time.monotonic() - started:.0f} s)", True)
    return results


def onset(results: Table | str | Path) -> Onset:
    """When the first lasting induction head appears; see `byrote.probes.trajectory.onset`.

    Args:
        results: of one run, or their folder.

    Raises:
        ByroteError: a path is no results folder.
    """
    return lasting_onset(one_run(results))


def _line() -> Callable[[str, bool], None]:
    """Shows (text, whether it is the last): one output that is written over in a notebook, a line on a terminal, else nothing."""
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None else None
    if running is not None and hasattr(running, "kernel"):
        from IPython.display import display

        cell = display({"text/plain": "starting"}, raw=True, display_id=True)
        return lambda text, last: cell.update({"text/plain": text}, raw=True)
    if not sys.stderr.isatty():
        return lambda text, last: None
    return lambda text, last: print(f"\r\033[K{text}", end="\n" if last else "", file=sys.stderr, flush=True)
