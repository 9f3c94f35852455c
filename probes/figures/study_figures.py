"""Everything that a study of degradation has to show, as figures by name: what a report prints and the dose page adds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from byrote.probes.degrade.measures import Degradation
from byrote.probes.figures.canvas import Figure
from byrote.probes.figures.displaced_heads import displacement
from byrote.probes.figures.doses import dose_response, effective_sizes
from byrote.probes.figures.double_descent import double_descent
from byrote.probes.figures.epochs_worth import effective_data
from byrote.probes.figures.matrix import dependence_matrix
from byrote.probes.figures.memorised import capacity, extraction
from byrote.probes.figures.multipliers import preferential_damage

_MOST_CURVES = 5  # beside the baseline's, so that they can be distinguished
Draw = Callable[..., Figure]


def degradation_figures(found: Degradation) -> dict[str, Draw]:
    """Name -> what draws it for a `look`, of the measures that were to be had.

    Args:
        found: what was found.
    """
    figures: dict[str, Draw] = {}
    if found.doses:
        figures["doses"] = partial(dose_response, found.doses, metric=found.metric)
    if found.sizes is not None:
        figures["sizes"] = partial(effective_sizes, found.sizes, metric=found.metric)
    if found.preferential is not None and len(found.preferential):
        figures["preferential"] = partial(preferential_damage, found.preferential)
    if any(table["difference"].notna().any() for table in found.displaced.values()):
        figures["displacement"] = partial(displacement, found.displaced, baseline=found.baseline)
    if curves := _with_dips(found):
        probe, _, metric = found.metric.partition("/")
        figures["descent"] = partial(double_descent, curves, probe=probe, metric=metric)
    if found.extractions:
        figures["extraction"] = partial(extraction, found.extractions)
    if found.capacities:
        several = {f"N = {size:,.0f}" if size == size else "": one for size, one in found.capacities.items()}
        figures["capacity"] = partial(capacity, several)
    for metric in ("accuracy", "loss"):
        ours = [one for (_, of), one in found.matrices.items() if of == metric]
        for number, one in enumerate(ours):
            name = f"matrix_{metric}_{number + 1}" if number else f"matrix_{metric}"
            figures[name] = partial(dependence_matrix, one, metric=metric)
    if found.r_star is not None:
        figures["effective_data"] = partial(effective_data, found.r_star)
    return figures


def _with_dips(found: Degradation) -> dict[str, object]:
    """The baseline's curve, and those of the arms with the largest rises; {} where none has a dip and a top."""
    rises = {name: one.found.rise.value for name, one in found.descents.items() if one.found is not None}
    chosen = sorted(rises, key=lambda name: -rises[name])[:_MOST_CURVES]
    base = [
        name
        for name in found.descents
        if name == found.baseline or name.startswith(f"{found.baseline}, N = ")
    ]
    if not chosen:
        return {}
    return {
        name: found.descents[name]
        for name in dict.fromkeys([*base[-1:], *sorted(chosen, key=list(found.descents).index)])
    }
