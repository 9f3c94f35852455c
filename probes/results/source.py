"""Rows of observations by metric, from a file that is read column by column or from a table in memory. No torch.

A run of 154 checkpoints of a large model holds millions of numbers, and whoever looks at it looks at a few metrics at a
time. So only where each metric's rows are is cached, with the rows of the short metrics, which are read most.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.seal import Seal
from byrote.checkpoints.stored_bytes import FileStamp, file_stamp
from byrote.probes.results.parquet_files import open_parquet, parquet_seal, refuse_values
from byrote.probes.results.schema import OBSERVATION_SCHEMA

Metric = tuple[str, str]
Where = Callable[[Any], Any]  # a table or record batch -> which of its rows
Kind = Literal["head", "pair", "head curve", "curve", "model", "layer"]
WORDS = ("run", "probe", "metric", "reason")
_NARROW = ("layer", "head", "src_layer", "src_head", "position", "n")
_INDEXED = ("step", "tokens_seen", "probe", "metric", "layer", "head", "src_layer", "position")
_SHORT_ROWS = 8192  # metrics of at most so many rows are cached once one of them was read
_ROWS_AT_ONCE = 16384  # of a column of numbers 128 KiB: room that the allocator has at hand


@dataclass(frozen=True)
class Place:
    """Where the rows of one metric are.

    Attributes:
        spans: (first row, row after the last), ascending; one span where the rows are sorted by metric.
        n_rows: how many rows they hold.
        kind: what the metric is about.
    """

    spans: tuple[tuple[int, int], ...]
    n_rows: int
    kind: Kind


@dataclass(frozen=True)
class Index:
    """What is known of observations without holding them.

    Attributes:
        metrics: (probe, metric) -> where its rows are.
        tokens: step -> training tokens seen, None where unknown; ascending steps.
        n_rows: of all metrics.
    """

    metrics: dict[Metric, Place]
    tokens: dict[int, int | None]
    n_rows: int


class Source:
    """Observations in a parquet file, or in a table.

    Args:
        place: `observations.parquet`, or its content.
    """

    def __init__(self, place: Path | pa.Table) -> None:
        self._place = place if isinstance(place, Path) else encoded(place)
        self._stamp: FileStamp | None = None
        self._index: Index | None = None
        self._short: tuple[dict[Metric, tuple[int, int]], pa.Table] | None = None

    @property
    def index(self) -> Index:
        """Where every metric is; made anew when the file was replaced.

        Raises:
            ByroteError: the file's bytes are not those that were written.
            OSError, pyarrow.ArrowException: it cannot be read.
        """
        stamp = file_stamp(self._place) if isinstance(self._place, Path) else None
        if self._index is None or stamp != self._stamp:
            if isinstance(self._place, Path) and parquet_seal(self._place) is Seal.BROKEN:
                raise ByroteError(
                    f"{self._place} is damaged",
                    help="run the same sweep again: it is rebuilt from the units",
                )
            self._index, self._short, self._stamp = _index(self._batches(_INDEXED, None)), None, stamp
        return self._index

    def read(
        self, metrics: Collection[Metric] | None, columns: Sequence[str], where: Where | None = None
    ) -> pa.Table:
        """The rows of these metrics, or of all, in the order they are stored in; words as dictionaries.

        Args:
            metrics: (probe, metric); those that are not there have no rows.
            columns: of the schema.
            where: which of the rows, from some of them.
        """
        places = self.index.metrics
        if metrics is None:
            return self._read(None, columns, where)
        wanted = [name for name in dict.fromkeys(metrics) if name in places]
        if isinstance(self._place, Path) and wanted and all(places[m].n_rows <= _SHORT_ROWS for m in wanted):
            within, table = self._short_metrics()
            parts = [table.slice(within[m][0], within[m][1] - within[m][0]).select(columns) for m in wanted]
            found = pa.concat_tables(parts)
            return found if where is None else found.filter(where(found))
        return self._read([span for name in wanted for span in places[name].spans], columns, where)

    def _short_metrics(self) -> tuple[dict[Metric, tuple[int, int]], pa.Table]:
        """The rows of every short metric, and where each one's are in them."""
        if self._short is None:
            short = {name: p for name, p in self.index.metrics.items() if p.n_rows <= _SHORT_ROWS}
            spans = [span for place in short.values() for span in place.spans]
            table = encoded(self._read(spans, OBSERVATION_SCHEMA.names))
            codes = _codes(table)
            order = np.argsort(codes, kind="stable")
            table = table.take(pa.array(order)).combine_chunks()
            ends = np.flatnonzero(np.diff(codes[order], append=-1)) + 1
            found, start = {}, 0
            for end in ends.tolist():
                found[table["probe"][start].as_py(), table["metric"][start].as_py()] = (start, end)
                start = end
            self._short = found, table
        return self._short

    def _read(
        self, spans: Sequence[tuple[int, int]] | None, columns: Sequence[str], where: Where | None = None
    ) -> pa.Table:
        schema = pa.schema([OBSERVATION_SCHEMA.field(name) for name in columns])
        if spans is not None and not spans:
            return encoded(schema.empty_table())
        batches = (batch for _, batch in self._batches(columns, spans))
        selected = (batch if where is None else batch.filter(where(batch)) for batch in batches)
        tables = [pa.Table.from_batches([batch]) for batch in selected]
        if isinstance(self._place, Path):
            pa.default_memory_pool().release_unused()  # what was read and left out
        return pa.concat_tables(tables).unify_dictionaries() if tables else encoded(schema.empty_table())

    def _batches(
        self, columns: Sequence[str], spans: Sequence[tuple[int, int]] | None
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(first row, rows) of every stretch within the spans, or of everything, in order."""
        if not isinstance(self._place, Path):
            spans = [(0, self._place.num_rows)] if spans is None else sorted(spans)
            for start, stop in spans:
                for batch in self._place.select(columns).slice(start, stop - start).to_batches():
                    yield start, batch
                    start += batch.num_rows
            return
        words = [name for name in columns if name in WORDS]
        with open_parquet(self._place, OBSERVATION_SCHEMA, words=words) as file:
            first = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                mine = _within(spans, first, first + rows)
                if mine:
                    yield from _slices(self._place, file, group, columns, first, mine)
                first += rows


def _slices(
    path: Path,
    file: pq.ParquetFile,
    group: int,
    columns: Sequence[str],
    first: int,
    spans: list[tuple[int, int]],
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The stretches of one row group, which begins at row `first`, that lie within the spans."""
    batches = file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=list(columns), use_threads=True)
    for batch in batches:
        batch = batch.select(columns)
        refuse_values(path, batch)
        for start, stop in _within(spans, first, first + batch.num_rows):
            yield start, batch.slice(start - first, stop - start)
        first += batch.num_rows


def _within(spans: Sequence[tuple[int, int]] | None, first: int, end: int) -> list[tuple[int, int]]:
    """The parts of the spans that lie in [first, end), ascending; None is everything."""
    if spans is None:
        return [(first, end)] if end > first else []
    return sorted((max(a, first), min(b, end)) for a, b in spans if a < end and b > first)


def _index(batches: Iterator[tuple[int, pa.RecordBatch]]) -> Index:
    spans: defaultdict[Metric, list[tuple[int, int]]] = defaultdict(list)
    axes: defaultdict[Metric, set[str]] = defaultdict(set)
    tokens: dict[int, int | None] = {}
    n_rows = 0
    for first, batch in batches:
        if not batch.num_rows:
            continue
        n_rows = first + batch.num_rows
        steps, at = np.unique(batch["step"].to_numpy(), return_index=True)
        seen = batch["tokens_seen"].take(pa.array(at)).to_pylist()
        tokens |= {step: tokens.get(step, t) for step, t in zip(steps.tolist(), seen, strict=True)}
        starts = np.flatnonzero(np.diff(_codes(batch), prepend=-1))
        stops = np.append(starts[1:], batch.num_rows)
        known = {
            name: np.logical_or.reduceat(batch[name].is_valid().to_numpy(zero_copy_only=False), starts)
            for name in ("layer", "head", "src_layer", "position")
        }
        for i, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
            metric = batch["probe"][start].as_py(), batch["metric"][start].as_py()
            own, span = spans[metric], (first + start, first + stop)
            if own and own[-1][1] == span[0]:
                span = own.pop()[0], span[1]
            own.append(span)
            axes[metric] |= {name for name, found in known.items() if found[i]}
    places = {
        metric: Place(tuple(own), sum(b - a for a, b in own), _kind(axes[metric]))
        for metric, own in spans.items()
    }
    return Index(places, dict(sorted(tokens.items())), n_rows)


def _kind(axes: set[str]) -> Kind:
    if "src_layer" in axes:
        return "pair"
    if "layer" in axes and "head" not in axes:
        return "layer"
    if "layer" in axes:
        return "head curve" if "position" in axes else "head"
    return "curve" if "position" in axes else "model"


def _codes(table: pa.Table | pa.RecordBatch) -> np.ndarray:
    """One integer per row that differs between metrics."""
    probe, metric = (
        (c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c)
        for c in (table["probe"], table["metric"])
    )
    return (
        probe.indices.to_numpy().astype(np.int64) * (len(metric.dictionary) + 1) + metric.indices.to_numpy()
    )


def encoded(table: pa.Table) -> pa.Table:
    """Observations as they are cached: words as dictionaries, axes and counts in four bytes."""
    for name in table.column_names:
        kind = pa.dictionary(pa.int32(), pa.string()) if name in WORDS else pa.int32()
        if name in WORDS or name in _NARROW:
            table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind))
    return table.unify_dictionaries().combine_chunks()


def plain(table: pa.Table) -> pa.Table:
    """The same in the types of the schema."""
    return table.cast(pa.schema([OBSERVATION_SCHEMA.field(name) for name in table.column_names]))
