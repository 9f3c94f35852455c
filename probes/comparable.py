"""May two runs be compared? Only when everything but the weights agrees. No torch."""

from __future__ import annotations

from typing import Any

from byrote.probes.results.table import Table
from byrote.probes.results.units import step_folder, unit_provenance

_WEIGHTS_ONLY = frozenset({"fingerprint", "format"})  # what two runs are expected to differ in

# A run's own sequences, as its training data is; natural text is where each lab series carries its own.
OWN_STIMULI = frozenset({"members", "twins", "candidates", "natural"})


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
