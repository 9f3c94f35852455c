"""Results of a run: one table for every reader. No torch.

schema.py    the columns; `Measured`, what a probe hands over before it is laid out in rows
units.py     the files of a results folder: written whole or not at all, each with its provenance
derived.py   verdicts that follow from units
source.py    rows by metric, read from a file or in memory
table.py     `Table`: rows (tidy frame), cube (step x layer x head), curve (one number over steps)
rows.py      rows marked, ranked and named; `Cube`
run_facts.py what a run declares: arm, seeds, size, data
curve.py     `Curve`, with what is needed to resample it
run.py       `Results`: a `Table` as a notebook holds it, and `Scores`, one of its metrics
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from byrote.checkpoints.lazy import lazily

if TYPE_CHECKING:
    from byrote.probes.results.curve import Curve as Curve
    from byrote.probes.results.metric import Results as Results
    from byrote.probes.results.metric import Scores as Scores
    from byrote.probes.results.rows import Cube as Cube
    from byrote.probes.results.table import Table as Table

# Loaded on first use: probes import the schema while they are being defined, and must not load the readers.
_LAZY = {
    "Cube": "byrote.probes.results.rows",
    "Curve": "byrote.probes.results.curve",
    "Results": "byrote.probes.results.metric",
    "Scores": "byrote.probes.results.metric",
    "Table": "byrote.probes.results.table",
}
__all__ = [*sorted(_LAZY)]
__getattr__, __dir__ = lazily(__name__, _LAZY)
