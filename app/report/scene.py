"""What a report is about: the runs, which of them is the baseline, and what was compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import pandas as pd

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.comparable import Comparison
from byrote.probes.degradation import compare
from byrote.probes.registry import REGISTRY, featured
from byrote.probes.results import Results
from byrote.probes.results.rows import ranked
from byrote.probes.trajectory import Onset, onset
from byrote.report.model import Estimate

# A report asks for the rows of a metric hundreds of times; splitting each run's frame once makes that a look-up.
_GROUPS: WeakKeyDictionary[Results, dict[tuple[str, str], pd.DataFrame]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Scene:
    """The runs of one report.

    Attributes:
        results: in the order given, unique run names.
        base: name of the baseline run, or None.
        comparisons: each of the baseline against another run.
        refused: why a comparison that was wanted could not be made.
        onsets: run name to the onset of its induction heads.
    """

    results: tuple[Results, ...]
    base: str | None
    comparisons: tuple[Comparison, ...]
    refused: tuple[str, ...]
    onsets: Mapping[str, Onset]

    @property
    def names(self) -> list[str]:
        """Run names."""
        return [r.run for r in self.results]

    @property
    def measured(self) -> list[Results]:
        """Runs with at least one observation."""
        return [r for r in self.results if not r.frame.empty]

    def with_valid(self, probe: str, metric: str = "score") -> list[Results]:
        """Runs in which this metric was measured at least once."""
        return [r for r in self.results if not valid_rows(r, probe, metric).empty]

    @property
    def head_probes(self) -> list[str]:
        """Head probes with a measured score in some run, best known first."""
        found = [name for name in featured() if self.with_valid(name)]
        others = [
            n for n, i in REGISTRY.items() if i.kind == "head" and n not in found and self.with_valid(n)
        ]
        return found + others

    def comparison_with(self, run: str) -> Comparison | None:
        """The comparison in which this run stands against the baseline."""
        return next((c for c in self.comparisons if c.b == run), None)


def scene_of(
    results: Sequence[Results],
    *,
    base: str | None = None,
    comparison: Comparison | Sequence[Comparison] | None = None,
) -> Scene:
    """Check the runs and make the comparisons that are missing.

    Args:
        results: at least one run.
        base: baseline; None takes the comparison's, or none.
        comparison: made before; None compares every other run with the baseline.

    Raises:
        ByroteError: no run, two of one name, or a baseline that is not among them.
    """
    if not results:
        raise ByroteError(
            "a report needs at least one results folder", help="name one: byrote report results/RUN"
        )
    names = [r.run for r in results]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ByroteError(f"two results are both called {twice[0]!r}", help="give each run its own name")
    given = [comparison] if isinstance(comparison, Comparison) else list(comparison or ())
    base = base if base is not None else (given[0].a if given else None)
    if base is not None and base not in names:
        raise ByroteError(
            f"the baseline {base!r} is not among the runs of this report", help=did_you_mean(base, names)
        )
    made, refused = ([], []) if given or base is None else _compare_all(results, base)
    onsets = {r.run: onset(r) for r in results if not r.frame.empty}
    return Scene(tuple(results), base, (*given, *made), tuple(refused), onsets)


def _compare_all(results: Sequence[Results], base: str) -> tuple[list[Comparison], list[str]]:
    baseline = next(r for r in results if r.run == base)
    made, refused = [], []
    for other in results:
        if other.run == base:
            continue
        try:
            made.append(compare(baseline, other))
        except ByroteError as error:
            refused.append(str(error))
    return made, refused


def rows_of(results: Results, probe: str, metric: str) -> pd.DataFrame:
    """All rows of one metric, in the frame's order."""
    groups = _GROUPS.get(results)
    if groups is None:
        groups = dict(iter(results.usable_frame.groupby(["probe", "metric"], sort=False)))
        _GROUPS[results] = groups
    return groups.get((probe, metric), results.usable_frame.head(0))


def valid_rows(results: Results, probe: str, metric: str) -> pd.DataFrame:
    """The measured rows of one metric."""
    rows = rows_of(results, probe, metric)
    return rows[rows["valid"].astype(bool)]


def last_step(results: Results) -> int | None:
    """The last step with any observation."""
    return None if results.frame.empty else int(results.frame["step"].max())


def at_last(results: Results, probe: str, metric: str) -> pd.DataFrame:
    """The rows of one metric at the run's last step."""
    rows = rows_of(results, probe, metric)
    return rows[rows["step"] == last_step(results)]


def seeds_of(results: Sequence[Results]) -> str:
    """`Sequence seed 0; training seeds 0 and 1.`, for captions; what is not recorded is said."""
    sequence = [r.sequence_seed for r in results]
    trained = [r.training_seed for r in results]
    return f"{_said('Sequence', sequence)}; {_said('training', trained)}."


def _said(what: str, seeds: Sequence[object]) -> str:
    known = list(dict.fromkeys("not recorded" if seed is None else str(seed) for seed in seeds))
    return f"{what} seed{'s' if len(known) > 1 else ''} {' and '.join(known)}"


def estimate_of(row: Any, *, where: str = "") -> Estimate:
    """An observation row as an `Estimate`."""
    if not row.valid:
        return Estimate(None, where=where, reason=str(row.reason) or "no reason was recorded")
    chance = None if pd.isna(row.chance) else float(row.chance)
    return Estimate(float(row.value), float(row.lo), float(row.hi), chance, int(row.n), where)


def strongest(rows: pd.DataFrame) -> Any | None:
    """The measured row with the highest value, ties to the earlier head; None where nothing was measured."""
    return next(ranked(rows).itertuples(index=False), None)
