"""Which checkpoints of two runs stand against each other, whether they may be compared, and what a comparison holds. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.results.table import Table
from byrote.probes.results.unit_files import step_folder, unit_provenance
from byrote.probes.rules import NOT_TESTED
from byrote.probes.trajectory.verdict import Onset

ALIGNMENTS = ("step", "tokens", "loss")
BEST_HEAD = "score:best_head"
_TOLERANCE = {"tokens": 0.02, "loss": 0.05}  # relative distance within which two checkpoints count as matched
_WEIGHTS_ONLY = frozenset({"fingerprint", "format"})  # what two runs are expected to differ in

# A run's own sequences, as its training data is; natural text is where each lab series carries its own.
OWN_STIMULI = frozenset({"members", "twins", "candidates", "natural"})


@dataclass(frozen=True)
class Comparison:
    """What differs between run A and run B.

    Attributes:
        a, b: run names.
        align: axis the runs were matched on.
        pairs: matched (step of A, step of B).
        rows: one row per number compared: values a and b, difference b - a with its interval, n, p and q, the
            smallest effect in its unit, and `change`: "better", "worse", "higher", "lower", "no clear change", or
            "exact" for weight-only scores, "not tested" for imported ones.
        onset_a, onset_b: of the induction heads in each run.
        sentence: what happened, in words.
        notes: what could not be compared, and why.
    """

    a: str
    b: str
    align: str
    pairs: tuple[tuple[int, int], ...]
    rows: pd.DataFrame
    onset_a: Onset
    onset_b: Onset
    sentence: str
    notes: tuple[str, ...] = ()

    @property
    def untested(self) -> bool:
        """Whether a run's scores were imported: there are no intervals, and nothing was tested."""
        return bool((self.rows["change"] == NOT_TESTED).any())

    def row(self, probe: str, metric: str) -> pd.Series | None:
        """The model-level row of a metric at the last compared pair; None when it was not compared."""
        found = self.rows[
            (self.rows["probe"] == probe) & (self.rows["metric"] == metric) & self.rows["layer"].isna()
        ]
        found = found[found["position"].isna()]
        return None if found.empty else found.iloc[-1]


def matched_steps(a: Table, b: Table, align: str) -> list[tuple[int, int]]:
    """Pairs (step of A, step of B), ascending. Steps that lint leaves out are not matched.

    By step: the steps both have. By tokens or loss: each step of A with the nearest of B, within 2% of the tokens or
    5% of the loss; each step of B is used once.

    Raises:
        ByroteError: an unknown axis, an axis one run does not record, or nothing that matches.
    """
    if align not in ALIGNMENTS:
        raise ByroteError(f"runs cannot be aligned by {align!r}", help=did_you_mean(align, ALIGNMENTS))
    if align == "step":
        pairs = [(step, step) for step in sorted(set(a.usable_steps) & set(b.usable_steps))]
    else:
        pairs = _nearest(_axis(a, align), _axis(b, align), _TOLERANCE[align])
    if not pairs:
        raise ByroteError(
            f"{a.run} (steps {_span(a)}) and {b.run} (steps {_span(b)}) have no checkpoint in common by {align}",
            help="align by another axis: --align step, tokens or loss; or measure more steps",
        )
    return pairs


def _axis(results: Table, align: str) -> dict[int, float]:
    if align == "tokens":
        recorded = {step: float(seen) for step, seen in results.tokens.items() if seen is not None}
    else:
        recorded = results.loss
    values = {step: recorded[step] for step in results.usable_steps if step in recorded}
    if not values:
        raise ByroteError(f"{results.run} records no {align} per checkpoint", help="use --align step")
    return values


def _nearest(a: dict[int, float], b: dict[int, float], tolerance: float) -> list[tuple[int, int]]:
    pairs, free = [], dict(b)
    for step, value in sorted(a.items()):
        if not free:
            break
        other = min(free, key=lambda s: (abs(free[s] - value), s))
        if abs(free[other] - value) <= tolerance * max(abs(value), 1e-9):
            pairs.append((step, other))
            del free[other]
    return sorted(pairs)


def _span(results: Table) -> str:
    steps = results.steps
    return f"{steps[0]}-{steps[-1]}" if steps else "none"


def differing_provenance(a: Table, b: Table, pairs: list[tuple[int, int]]) -> list[str]:
    """What differs besides the weights at the steps compared, in words; empty when the runs are comparable.

    Stimuli and probes that only one run has are no obstacle: they are not compared. Nor are members, twins and natural
    text that are each run's own: see `own_units`.
    """
    found: dict[str, None] = {}
    for step_a, step_b in pairs:
        left, right = _by_stimulus(a, step_a), _by_stimulus(b, step_b)
        for kind in (left.keys() & right.keys()) - own_units(a, b, (step_a, step_b)):
            found.update(dict.fromkeys(_differences(left[kind], right[kind])))
    return list(found)


def own_units(a: Table, b: Table, pair: tuple[int, int]) -> set[str]:
    """Units measured on sequences of each run's own, which cannot be subtracted sequence by sequence.

    Units measured on the same sequences in both runs are not among them; those that neither run could measure are.
    """
    left, right = (_by_stimulus(r, step) for r, step in zip((a, b), pair, strict=True))
    return {
        key
        for key in left.keys() & right.keys()
        if key.split("+")[0] in OWN_STIMULI
        and (left[key]["stimulus"] != right[key]["stimulus"] or left[key]["stimulus"] == key)
    }


def _by_stimulus(results: Table, step: int) -> dict[str, dict[str, Any]]:
    """Stimulus kind -> provenance, probes merged (a kind may be spread over several units)."""
    merged: dict[str, dict[str, Any]] = {}
    for path in sorted(step_folder(results.path, step).glob("*.parquet")):
        facts = unit_provenance(path)
        kind = path.name.split(".")[0]
        probes = {**merged.get(kind, {}).get("probes", {}), **facts.get("probes", {})}
        merged[kind] = {**facts, "probes": probes}
    return merged


def _differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    words = [
        f"{key} {left.get(key)} against {right.get(key)}"
        for key in sorted((left.keys() | right.keys()) - _WEIGHTS_ONLY - {"probes", "versions"})
        if left.get(key) != right.get(key)
    ]
    for group in ("versions", "probes"):
        ours, theirs = left.get(group, {}), right.get(group, {})
        shared = ours.keys() & theirs.keys()
        words += [
            f"{name} version {ours[name]} against {theirs[name]}"
            for name in sorted(shared)
            if ours[name] != theirs[name]
        ]
    return words
