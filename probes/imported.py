"""Scores that somebody else published, as a results folder: numbers per step and head, without samples. No torch.

1. the table is read by `byrote.probes.score_tables`, which names the first row that cannot be used
2. each step becomes a unit whose rows have a value and no interval (lo, hi and chance are NaN, n is 0), and run.json says
   `imported`: what needs samples or weights (intervals, tests, verdicts) refuses such results by name

A metric may have the name of one of byrote's own measures, such as prefix_matching: it is drawn with it then, and its range is
checked. That it was computed alike is the importer's word.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from byrote.checkpoints.atomic import LOCK, locked, make_folder, remove_leftovers
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.setting import path_of
from byrote.probes.registry import OURS
from byrote.probes.results import Results
from byrote.probes.results.run_json import SCHEMA_VERSION, stored_run_json, write_run_json
from byrote.probes.results.schema import UNIT_SCHEMA
from byrote.probes.results.unit_files import step_folder, write_unit
from byrote.probes.score_tables import Head, Metric, TableSettings, parts, range_of, read_scores
from byrote.probes.spec import Better, Plugin, ProbeInfo
from byrote.probes.stored_probes import to_json
from byrote.probes.sweep.folder import clear_results, shards_at_work
from byrote.probes.sweep.units import unit_name
from byrote.probes.wording import clean

UNIT_KEY = "imported"


def import_scores(
    frame_or_path: pd.DataFrame | str | Path,
    out: str | Path,
    *,
    metric: str = "",
    unit: str = "",
    range: tuple[float, float] | str | None = None,
    better: Better | str | None = None,
    run: str = "",
    source: str = "",
    fresh: bool = False,
) -> Results:
    """Write published scores as a results folder, without intervals.

    Args:
        frame_or_path: a table with the columns step, layer, head and value, or the path of a CSV file that holds it; see
            `byrote.probes.score_tables`.
        out: the results folder, such as ``results/published``; its last part names the run.
        metric: what the values are, where no column says it, such as ``prefix_matching``.
        unit: of the values, where no column says it.
        range: lowest and highest possible value, where no column says it.
        better: "higher" or "lower", whichever is more of what the metric names; None where neither is.
        run: which run, where the table holds several.
        source: where the scores are from; the file's name if left out.
        fresh: replace what the folder holds.

    Returns:
        The results: rows, curves, onsets and figures work; what needs samples raises a ByroteError that says so.

    Raises:
        ByroteError: a row that cannot be used, named by its number; or a folder that holds other results.
    """
    if better not in (None, "higher", "lower"):
        raise ByroteError(f"better={better!r} is not a direction", help="use 'higher', 'lower' or None")
    limits = None if range is None else range_of(range, "the range given")
    settings = TableSettings(
        metric, unit, limits, "lower" if better == "lower" else "higher" if better else None, run
    )
    root = path_of(out, "out")
    if not isinstance(frame_or_path, pd.DataFrame):
        frame_or_path = path_of(frame_or_path, "frame_or_path")
    metrics, ignored = read_scores(frame_or_path, settings)
    in_memory = isinstance(frame_or_path, pd.DataFrame)
    origin = source or ("a data frame" if in_memory else Path(str(frame_or_path)).name)
    notes = tuple(f"the column {clean(name)} was not read" for name in ignored)
    return _write(root, metrics, settings, source=clean(origin), notes=notes, fresh=fresh)


def _write(
    root: Path,
    metrics: Mapping[str, Metric],
    settings: TableSettings,
    *,
    source: str,
    notes: tuple[str, ...],
    fresh: bool,
) -> Results:
    digest = _digest(metrics, settings)
    busy = ByroteError(f"another process is writing to {root}", help="wait for it, or use another -o")

    def unwritable(error: OSError) -> ByroteError:
        return ByroteError(
            f"cannot write results to {root} ({error.strerror})", help="choose another folder with -o"
        )

    try:
        make_folder(root)
    except OSError as error:
        raise unwritable(error) from None
    with locked(root / LOCK, busy=busy, refused=unwritable):
        if shards_at_work(root):
            raise busy
        remove_leftovers(root)
        there = stored_run_json(root)
        if (there.get("imported") or {}).get("digest") == digest and not fresh:
            return Results.open(root)
        if not fresh and (there or any(p.name != LOCK for p in root.iterdir())):
            what = "other imported scores" if there.get("imported") else "other results" if there else "files"
            raise ByroteError(
                f"{root} holds {what}", help="give another folder with -o, or replace them with --fresh"
            )
        clear_results(root)
        name = root.resolve().name
        for step, table in _tables(metrics, name):
            probes = dict.fromkeys(dict.fromkeys(table["probe"].to_pylist()), 0)
            facts = {"fingerprint": digest, "format": UNIT_KEY, "stimulus": UNIT_KEY, "probes": probes}
            write_unit(step_folder(root, step) / unit_name(UNIT_KEY, probes), table, facts)
        write_run_json(
            root, _run_json(metrics, settings, run=name, source=source, digest=digest, notes=notes)
        )
    return Results.open(root, write=True)


def _digest(metrics: Mapping[str, Metric], settings: TableSettings) -> str:
    """Of everything that is stored of the numbers: the same table imported again is recognised."""
    total = hashlib.blake2b(repr(settings.better).encode(), digest_size=16)
    for name in sorted(metrics):
        one = metrics[name]
        total.update(repr((name, one.unit, one.range, sorted(one.values.items(), key=_row_key))).encode())
    return total.hexdigest()


def _row_key(item: tuple[tuple[int, Head], float]) -> Any:
    (step, head), _ = item
    return step, head or (-1, -1)


def _tables(metrics: Mapping[str, Metric], run: str) -> Iterator[tuple[int, pa.Table]]:
    """The rows of each step, in `UNIT_SCHEMA`."""
    by_step: dict[int, list[tuple[str, str, Head, float]]] = defaultdict(list)
    for one in metrics.values():
        probe, metric = parts(one.name)
        for (step, head), value in sorted(one.values.items(), key=_row_key):
            by_step[step].append((probe, metric, head, value))
    for step, rows in sorted(by_step.items()):
        n = len(rows)
        probes, names, heads, values = zip(*rows, strict=True)
        none: dict[Hashable, Any] = dict.fromkeys(
            ("tokens_seen", "src_layer", "src_head", "position"), [None] * n
        )
        none |= dict.fromkeys(("lo", "hi", "chance"), [math.nan] * n)
        columns = none | {
            "run": [run] * n,
            "step": [step] * n,
            "probe": probes,
            "metric": names,
            "layer": [head and head[0] for head in heads],
            "head": [head and head[1] for head in heads],
            "value": values,
            "n": [0] * n,
            "valid": [True] * n,
            "reason": [""] * n,
            "samples": [[]] * n,
        }
        yield step, pa.table({f.name: pa.array(columns[f.name], f.type) for f in UNIT_SCHEMA}, UNIT_SCHEMA)


def _run_json(
    metrics: Mapping[str, Metric],
    settings: TableSettings,
    *,
    run: str,
    source: str,
    digest: str,
    notes: tuple[str, ...],
) -> dict[str, Any]:
    steps = sorted({step for one in metrics.values() for step, _ in one.values})
    probes = dict.fromkeys(parts(name)[0] for name in metrics)
    described = [
        _described(probe, metrics, settings, source, digest) for probe in probes if probe not in OURS
    ]
    return {
        "schema": SCHEMA_VERSION,
        "run": run,
        "status": "complete",
        "imported": {
            "source": source,
            "digest": digest,
            "rows": sum(len(m.values) for m in metrics.values()),
        },
        "series": {"name": run, "format": UNIT_KEY, "n_checkpoints": len(steps), "steps": steps},
        "probes": [{"name": probe, "version": 0} for probe in probes],
        "plugins": [to_json(info) for info in described],
        "stimuli": [],
        "gaps": [],
        "notes": list(notes),
    }


def _described(
    probe: str, metrics: Mapping[str, Metric], settings: TableSettings, source: str, digest: str
) -> ProbeInfo:
    """The description of an imported probe that is none of byrote's own, as a plugin's is stored."""
    mine = {parts(name)[1]: one for name, one in metrics.items() if parts(name)[0] == probe}
    main = "score" if "score" in mine else next(iter(mine))
    first = mine[main]
    return ProbeInfo(
        name=probe,
        kind="model" if next(iter(first.values))[1] is None else "head",
        unit=first.unit or "no unit stated",
        range=first.range,
        better=settings.better,
        source=source,
        summary=f"Imported from {source}: values without samples, so without intervals.",
        chance="not stated",
        metrics=dict.fromkeys(mine, f"as imported from {source}"),
        main_metric=main,
        units={name: one.unit or "no unit stated" for name, one in mine.items() if one.unit != first.unit},
        plugin=Plugin(source, "", digest),
    )
