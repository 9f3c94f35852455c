"""What a run measured: one table, whoever reads it. No torch.

    schema.py    the columns; `Measured`, what a probe hands over before it is laid out in rows
    units.py     the files of a results folder: written whole or not at all, each with its provenance
    derived.py   verdicts that follow from units
    source.py    rows by metric, read from a file or held in memory
    table.py     `Table`: rows (tidy frame), cube (step x layer x head), curve (one number over steps)
    rows.py      marked where lint asked to leave them out, ranked, named
    cube.py      `Cube`
    curve.py     `Curve`, with what is needed to resample it
    scores.py    `Scores`: one metric as a notebook holds it
    run.py       `Results`: a `Table` with `results["prefix_matching"]` and what a notebook shows

Where the names of version 0.1 went:

    probes.store.Results                        results.Results (`Results.open(path, write=False)` never writes)
    Results.frame["probe"] == p & metric == m   results.rows(p, m), p or m None for all; step=, head= narrow it;
                                                rows of left-out steps are marked, as in `usable_frame`
    Results.select(p, m, step=)                 results.select(...), the same rows unmarked
    probes.observations                         results.schema
    probes.store.write_unit, step_folder ...    results.units
    probes.scores.Scores                        results.scores.Scores
    probes.verdicts.derive                      results.derived.derive
    trajectory.curve.Curve, curves, curve       results.curve.Curve, results.curves(p, m), results.curve(p, m, head=)
    trajectory.told.Told                        trajectory.event_table.EventTable
    trajectory.head_table, best_head            results.by_head(p, m), results.ranked(p, m, step=) (best first)
    report.scene.rows_of, valid_rows, at_last   results.rows(p, m), results.rows(p, m, valid=True),
                                                results.rows(p, m, step=results.last_step)
    report.scene.strongest, figures.top_heads   results.ranked(p, m, step=) or rows.ranked(frame)
    report.scene.label_of, degradation._label   rows.row_label(row)
    figures.rows.observations, has, shape       results.require(p, m); results.rows(p, m), results.has(p, m, valid=),
                                                results.shape
    figures.rows.unit, main_metric              results.info(p).unit_of(m), results.info(p).main_metric
    Keeper, WeakKeyDictionary caches            results.cached(key, make, size): bounded in bytes, gone with the results
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from byrote.probes.results.cube import Cube as Cube
    from byrote.probes.results.curve import Curve as Curve
    from byrote.probes.results.run import Results as Results
    from byrote.probes.results.scores import Scores as Scores
    from byrote.probes.results.table import Table as Table

# Loaded on first use: probes import the schema while they are being defined, and must not load the readers.
_LAZY = {
    "Cube": "byrote.probes.results.cube",
    "Curve": "byrote.probes.results.curve",
    "Results": "byrote.probes.results.run",
    "Scores": "byrote.probes.results.scores",
    "Table": "byrote.probes.results.table",
}
__all__ = [*sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
