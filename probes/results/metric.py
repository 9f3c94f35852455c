"""Notebook objects for a run and one of its metrics: printed, sliced, ranked, turned into arrays. No torch.

Everything that is shown is escaped. Heads may be named `"L5H1"`, `(5, 1)` or a list of either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.setting import is_whole
from byrote.checkpoints.steps import span_of
from byrote.interp.axes import parse_heads
from byrote.probes.registry import featured
from byrote.probes.results.curve import Curve
from byrote.probes.results.rows import at_step, one_head, ranked
from byrote.probes.results.table import Table
from byrote.probes.spec import ProbeInfo
from byrote.probes.trajectory.events import EventTable, onsets, peaks
from byrote.probes.trajectory.verdict import onset
from byrote.probes.wording import as_html, counted, visible

HeadName = str | tuple[int, int]
_HEADS_SHOWN = 5


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """One metric of one probe.

    Attributes:
        results: the run it was measured in.
        probe: registered name.
        metric: one of the probe's metrics.
        rows: tidy observations in step order; those of steps that lint leaves out are marked, not valid.
    """

    results: Table
    probe: str
    metric: str
    rows: pd.DataFrame

    @classmethod
    def of(cls, results: Table, probe: str, metric: str | None = None) -> Scores:
        """One metric of a run's results; None is the probe's main one.

        Raises:
            ByroteError: it was not measured there; the help names the nearest that was.
        """
        metric = results.require(probe, metric)
        return cls(results, probe, metric, results.named(results.rows(probe, metric)))

    @property
    def info(self) -> ProbeInfo:
        """What the catalogue says of the probe: source, formula, chance, how to read it."""
        return self.results.info(self.probe)

    @property
    def unit(self) -> str:
        """Of the metric."""
        return self.info.unit_of(self.metric)

    @cached_property
    def steps(self) -> list[int]:
        """Steps with a row, ascending."""
        return sorted(int(step) for step in self.rows["step"].unique())

    def at(self, step: int | str) -> Scores:
        """The same at one step: 512, "1k", "first" or "last".

        Raises:
            ByroteError: that step was not measured; the help names the nearest that were.
        """
        return self._with(at_step(self.rows, step)[0])

    def head(self, heads: HeadName | Iterable[HeadName]) -> Scores:
        """The same of one head or several.

        Raises:
            ByroteError: a head without a row; the help names the nearest.
        """
        wanted = parse_heads(heads)
        for one in wanted:
            one_head(self._of_heads(), one)
        keys = pd.MultiIndex.from_frame(self.rows[["layer", "head"]])
        return self._with(self.rows[keys.isin(wanted)])

    def top(self, k: int = 10) -> pd.DataFrame:
        """The k strongest at the last step, by the probe's own direction.

        Returns:
            Columns head, value, lo, hi, chance, n, rank; rank 1 is the strongest.

        Raises:
            ByroteError: k is no number from 1 on.
        """
        if not is_whole(k) or k < 1:
            raise ByroteError(f"top({k!r}): not a number of heads", help="give 1 or more")
        last = self.rows[self.rows["step"] == self.steps[-1]]
        best = ranked(last, lower=self.info.better_of(self.metric) == "lower").head(k)
        table = best[["label", "value", "lo", "hi", "chance", "n"]].rename(columns={"label": "head"})
        return table.assign(rank=np.arange(1, len(table) + 1))

    def array(self, column: str = "value") -> Float[np.ndarray, "steps n_layers n_heads"]:
        """Values by step, layer and head; NaN where not measured or left out.

        Args:
            column: value, lo, hi, chance or n.

        Raises:
            ByroteError: the metric is not one value per head.
        """
        rows = self._of_heads()
        if rows["position"].notna().any() or rows["src_layer"].notna().any():
            raise ByroteError(
                f"{self.probe} {self.metric} is not one value per head", help="use .rows, the tidy frame"
            )
        shape = (len(self.steps), int(rows["layer"].max()) + 1, int(rows["head"].max()) + 1)
        out = np.full(shape, np.nan)
        valid = rows[rows["valid"]]
        at = np.searchsorted(self.steps, valid["step"].to_numpy(dtype=np.int64))
        out[at, valid["layer"].to_numpy(dtype=np.int64), valid["head"].to_numpy(dtype=np.int64)] = valid[
            column
        ]
        return out

    def onset(self, threshold: float | None = None, *, frac: float = 0.5, seed: int = 0) -> EventTable:
        """When each head, or the model, reached a level and stayed there for another measured step.

        Reported only where the level is significantly passed (t-tests at 5%, corrected over steps and heads). Computed for all heads at
        once the correction is harder than of a few: `scores.head("L1H0").onset(0.4)`.

        Args:
            threshold: the level, in the metric's unit; None takes the step when a share of each one's own rise was reached.
            frac: that share.
            seed: of the resampling.

        Returns:
            `.table` with the measured steps it lies between, the estimate and its 95% interval; `.text` in words.

        Raises:
            ByroteError: fewer than two steps, or several numbers per head and step.
        """
        return onsets(self._curves(), threshold, frac=frac, seed=seed)

    def peak(self, *, seed: int = 0) -> EventTable:
        """The best step of each head, or of the model, and the share of the rise lost since.

        Args:
            seed: of the resampling.

        Returns:
            `.table` with intervals of the step, the value and the loss; `.text` in words.

        Raises:
            ByroteError: fewer than two steps, or several numbers per head and step.
        """
        return peaks(self._curves(), seed=seed)

    def _curves(self) -> dict[tuple[int, int] | None, Curve]:
        """The curves of the heads and steps that are here."""
        mine = self.rows[self.rows["valid"].astype(bool)]
        if mine["step"].nunique() < 2:
            raise ByroteError(
                f"{self.probe} {self.metric} is here for {mine['step'].nunique()} usable steps",
                help="use the scores over all steps, not those at a single step",
            )
        found = self.results.curves(self.probe, self.metric)
        if mine["layer"].isna().all():
            return {None: found[None].at_steps(mine["step"])}
        keys = mine[["layer", "head", "step"]].groupby(["layer", "head"])["step"]
        return {(int(l), int(h)): found[int(l), int(h)].at_steps(steps) for (l, h), steps in keys}

    def _of_heads(self) -> pd.DataFrame:
        rows = self.rows[self.rows["layer"].notna()]
        if rows.empty:
            raise ByroteError(
                f"{self.probe} {self.metric} is about the whole model, not about heads",
                help="use .rows, the tidy frame",
            )
        return rows

    def _with(self, rows: pd.DataFrame) -> Scores:
        return replace(self, rows=rows.reset_index(drop=True))

    def _title(self) -> str:
        name = self.probe if self.metric == "score" else f"{self.probe} {self.metric}"
        steps = span_of(self.steps)
        if self.results.imported:
            return f"{name} of {self.results.run} ({self.unit}), {steps}, imported, no samples: no intervals"
        n = int(self.rows["n"].max())
        found = self.results.sequence_seed
        seed = "not recorded" if found is None else found
        return f"{name} of {self.results.run} ({self.unit}), {steps}, n={n}, sequence seed {seed}"

    def _strongest(self) -> tuple[str, pd.DataFrame]:
        """The strongest heads at the last step with a heading; of a number about the whole model, that one row."""
        table = self.top(_HEADS_SHOWN).drop(columns="rank")
        if len(table) and not table["head"].any():
            return "at the last step:", table.drop(columns="head")
        return "strongest at the last step:", table

    def __repr__(self) -> str:
        heading, table = self._strongest()
        body = "nothing was measured" if table.empty else table.to_string(index=False, float_format="%.3f")
        return f"{visible(self._title())}\n{heading}\n{body}"

    def _repr_html_(self) -> str:
        """For notebooks; offline, everything escaped."""
        table = self._strongest()[1].to_html(index=False, float_format="%.3f", escape=True, border=0)
        return f"<p><b>{as_html(self._title())}</b></p>{table}<p>{as_html(self.info.summary)}</p>"


_PROBES_SHOWN = 3  # of the featured probes


class Results(Table):
    """What one run measured, as saved: `results["prefix_matching"]` is one metric over all steps."""

    def __getitem__(self, probe: str | tuple[str, str]) -> Scores:
        """One metric over all steps: `results["prefix_matching"]`, `results["prefix_matching", "sink_free"]`.

        Raises:
            ByroteError: it was not measured; the help names the nearest that was.
        """
        if not isinstance(probe, str | tuple):
            raise ByroteError(
                f"{probe!r} is not the name of a probe", help="such as results['prefix_matching']"
            )
        name, metric = (probe, None) if isinstance(probe, str) else probe
        return Scores.of(self, name, metric)

    def keys(self) -> list[str]:
        """Names of the probes that were measured, in catalogue order: `results[name]`."""
        return list(dict.fromkeys(probe for probe, _ in self.kinds))

    def __contains__(self, probe: object) -> bool:
        """Whether a probe was measured."""
        return probe in self.keys()

    def __iter__(self) -> Iterator[str]:
        """Over the names of the probes."""
        return iter(self.keys())

    def _ipython_key_completions_(self) -> list[str]:
        return self.keys()

    def to_xarray(self) -> Any:
        """Metrics with one value per head, and those about the whole model, as an xarray Dataset.

        Returns:
            A variable per number, called by its probe, or `probe__metric` where that is not its main one, with axes step, and
            layer and head where it has them; NaN where it was not measured. `NAME__lo`, `NAME__hi` and `NAME__n` beside it.
            Units and chance levels are attributes.

        Raises:
            ByroteError: xarray is not installed.
        """
        from byrote.probes.results.as_xarray import dataset_of

        return dataset_of(self)

    def __repr__(self) -> str:
        flagged = f", {counted(len(self.left_out), 'step')} left out by lint" if self.left_out else ""
        origin = f", imported from {self.imported}, no samples: no intervals" if self.imported else ""
        return (
            f"Results({self.run!r}: {counted(len(self.steps), 'checkpoint')}, {span_of(self.steps)}, "
            f"{counted(self.n_rows, 'observation')}, {counted(len(self.gaps), 'gap')}{flagged}{origin})"
        )

    def _repr_html_(self) -> str:
        """For notebooks: coverage, onset, the strongest heads at the last step, gaps and provenance."""
        parts = [f"<p><b>{as_html(repr(self))}</b></p>"]
        if self.steps:
            parts.append(f"<p>{as_html(onset(self).text)}</p>")
        parts += [self._strongest_html(probe) for probe in featured()[:_PROBES_SHOWN] if self.has(probe)]
        parts += [f"<p>{as_html(line)}</p>" for line in self._remarks()]
        return "".join(parts)

    def _strongest_html(self, probe: str) -> str:
        scores = self[probe]
        title = f"{probe}, {scores.unit}, step {scores.steps[-1]:,}: {scores.info.summary}"
        table = scores.top(3).to_html(index=False, float_format="%.3f", escape=True, border=0)
        return f"<details open><summary>{as_html(title)}</summary>{table}</details>"

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
