"""A run's results as a notebook holds them. Torch-free, offline, everything that is shown escaped."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

from byrote.probes.registry import featured
from byrote.probes.results.scores import Scores
from byrote.probes.results.table import Table
from byrote.probes.trajectory.verdict import onset

_N_SHOWN = 3  # of the featured probes


class Results(Table):
    """What one run measured, as saved: `results["prefix_matching"]` is one metric over all steps."""

    def __getitem__(self, probe: str | tuple[str, str]) -> Scores:
        """One metric over all steps: `results["prefix_matching"]`, `results["prefix_matching", "sink_free"]`.

        Raises:
            ByroteError: it was not measured; the help names the nearest that was.
        """
        name, metric = (probe, None) if isinstance(probe, str) else probe
        return Scores.of(self, name, metric)

    def __repr__(self) -> str:
        span = f"steps {self.steps[0]:,}-{self.steps[-1]:,}" if self.steps else "no steps"
        flagged = f", {len(self.left_out)} steps left out by lint" if self.left_out else ""
        return (
            f"Results({self.run!r}: {len(self.steps)} checkpoints, {span}, {self.n_rows:,} observations, "
            f"{len(self.gaps)} gaps{flagged})"
        )

    def _repr_html_(self) -> str:
        """For notebooks: coverage, onset, the strongest heads at the last step, gaps and provenance."""
        parts = [f"<p><b>{html.escape(repr(self))}</b></p>"]
        if self.steps:
            parts.append(f"<p>{html.escape(onset(self).text)}</p>")
        parts += [self._strongest_html(probe) for probe in featured()[:_N_SHOWN] if self.has(probe)]
        parts += [f"<p>{html.escape(line)}</p>" for line in self._remarks()]
        return "".join(parts)

    def _strongest_html(self, probe: str) -> str:
        scores = self[probe]
        title = f"{probe}, {scores.unit}, step {scores.steps[-1]:,}: {scores.info.summary}"
        table = scores.top(3).to_html(index=False, float_format="%.3f", escape=True, border=0)
        return f"<details open><summary>{html.escape(title)}</summary>{table}</details>"

    def _remarks(self) -> Iterator[str]:
        def text(value: Any) -> str:
            return "" if value is None else str(value)

        for gap in self.gaps[:5]:
            yield f"gap: {text(gap.get('path'))}: {text(gap.get('reason'))}"
        if len(self.gaps) > 5:
            yield f"and {len(self.gaps) - 5} more gaps"
        provenance = self.meta.get("provenance") or {}
        named = [f"{key} {text(provenance[key])}" for key in ("dtype", "device", "seed") if key in provenance]
        yield f"{', '.join(named)}; folder {self.path}"
