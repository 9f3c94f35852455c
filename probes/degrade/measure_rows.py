"""The rows of each measure of degradation, made of a study. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade.counterfactual import SIGNIFICANTLY, Counterfactual, counterfactual
from byrote.probes.degrade.dependence import BEYOND, NEVER, PLANTED, dependence, dependence_word
from byrote.probes.degrade.dependence_matrix import OTHERS
from byrote.probes.degrade.displacement import TOTAL
from byrote.probes.degrade.dose_response import boundary_fit
from byrote.probes.degrade.effective_size import EffectiveSize
from byrote.probes.degrade.member_rows import PROBE, member_rows
from byrote.probes.degrade.near_zero import near_zero
from byrote.probes.degrade.noise_floor import Churn, churn, noise_floor, prediction_churn
from byrote.probes.degrade.runs import run_rows, shared_answers
from byrote.probes.degrade.study import TEST_LOSS, Study, size_of
from byrote.probes.groups import Group
from byrote.probes.rules import smallest_effect
from byrote.probes.seed_statistics import SeedDifference
from byrote.probes.wording import counted

Row = dict[str, Any]


def _dose_rows(work: Study) -> Iterator[Row]:
    for size, found in work.doses.items():
        for one in found.rows.to_dict("records"):
            yield {"dose": one["dose"], "size": size, "metric": "damage", "value": one["damage"], "lo": one["lo"], "hi": one["hi"],
                   "p": one["p"], "seeds": one["seeds"], "unit": found.unit, "how": "paired by seed" if found.paired else "Welch"}  # fmt: skip


def _peak_rows(work: Study) -> Iterator[Row]:
    for size, found in work.doses.items():
        if found.peak is None:
            raise ByroteError("two doses have no peak between them", help="give runs of three doses or more")
        at = {"size": size, "dose": found.peak.dose, "seeds": found.peak.seeds}
        for metric, one in (
            ("over_smallest", found.peak.over_smallest),
            ("over_largest", found.peak.over_largest),
        ):
            yield at | {"metric": metric, "value": one.value, "lo": one.lo, "hi": one.hi, "p": one.p, "unit": found.unit,
                        "how": "chosen on the other seeds"}  # fmt: skip
        yield at | {"metric": "interior", "value": float(found.peak.interior), "p": found.peak.p_umbrella,
                    "unit": "yes (1) or no (0)", "how": "p of the umbrella test: of no difference at all"}  # fmt: skip


def _band_rows(work: Study) -> Iterator[Row]:
    for size, found in work.doses.items():
        for side, edge in (("left", found.left), ("right", found.right)):
            reason = (
                ""
                if np.isfinite(edge.dose)
                else "damage does not fall to half of its largest within the doses"
            )
            yield {"size": size, "metric": side, "value": edge.dose, "lo": edge.lo, "hi": edge.hi, "reason": reason,
                   "seeds": int(found.rows["seeds"].min()), "unit": work.over, "how": "half of the largest damage"}  # fmt: skip


def _boundary_rows(work: Study) -> Iterator[Row]:
    known = {size: one for size, one in work.doses.items() if np.isfinite(size)}
    if len(known) < 2:
        raise ByroteError(
            "a boundary E = k N^a needs runs of two sizes or more", help="give damaged runs of more sizes"
        )
    for one in boundary_fit(known):
        reason = "" if np.isfinite(one.a) else f"{one.sizes} sizes have this end within their doses"
        how = f"k {one.k:.3g}, {one.sizes} sizes" if not reason else ""
        yield {"metric": f"{one.side} exponent", "value": one.a, "lo": one.lo, "hi": one.hi, "unit": "per e-fold of N", "how": how,
               "reason": reason, "seeds": min(int(r.rows["seeds"].min()) for r in known.values())}  # fmt: skip


def _size_rows(found: EffectiveSize, metric: str) -> Iterator[Row]:
    for one in found.rows.to_dict("records"):
        how = f"{found.ladder.how}, {found.ladder.counted_by}" + (
            f", clipped {one['clipped']} the ladder" if one["clipped"] else ""
        )
        how += ", harmonic mean over sizes" if np.isnan(one["size"]) else ""
        yield {"arm": one["arm"], "size": one["size"], "metric": metric, "value": one["multiplier"], "lo": one["lo"], "hi": one["hi"],
               "seeds": one["seeds"], "unit": "times the size", "how": how}  # fmt: skip


def _preferential_rows(work: Study) -> Iterator[Row]:
    for one in work.preferential.to_dict("records"):
        how = f"{work.settings.copy} against {TEST_LOSS}" + (
            f", clipped: {one['clipped']}" if one["clipped"] else ""
        )
        at = {"arm": one["arm"], "size": one["size"], "seeds": one["seeds"], "how": how}
        yield at | {
            "metric": "difference",
            "value": one["difference"],
            "lo": one["lo"],
            "hi": one["hi"],
            "unit": "e-folds of size",
        }
        yield at | {
            "metric": "ratio",
            "value": one["ratio"],
            "lo": one["ratio_lo"],
            "hi": one["ratio_hi"],
            "unit": "times",
        }


def _near_zero_rows(work: Study) -> Iterator[Row]:
    sizes = set(work.rows(work.metric, healthy=False)["parameters"])
    if len(sizes) > 1:
        raise ByroteError("the near-zero diagnostic is of one size", help="give damaged runs of one size")
    work.need_damaged()
    share = run_rows(work.damaged, "mem_gap", "loss_share", step=work.settings.step)
    if not work.over:
        raise ByroteError("no declared setting varies among the damaged runs", help="declare the dose")
    found = near_zero(work.rows(work.metric, healthy=False), share, work.over)
    how = f"{found.holds} of {found.seeds} seeds"
    yield {"metric": "distance", "dose": found.onset, "value": found.distance, "unit": "grid steps to the worst dose", "how": how,
           "seeds": found.seeds, "reason": "" if np.isfinite(found.onset) else "the loss on repeated data nears zero at no dose"}  # fmt: skip
    if found.seeds:
        yield {"metric": "holds", "dose": found.worst, "value": found.holds / found.seeds, "lo": found.lo, "hi": found.hi,
               "unit": "share of seeds", "seeds": found.seeds, "how": "within one grid step"}  # fmt: skip


def _descent_rows(work: Study) -> Iterator[Row]:
    for one, curve in work.descents:
        at = {"arm": one.name, "size": size_of(one), "seeds": len(one)}
        if curve.reason:
            yield at | {"metric": "rise", "reason": curve.reason}
            continue
        found = curve.found
        if found is None:
            yield at | {"metric": "rise", "value": 0.0, "unit": "nats", "how": "no dip and no top"}
            continue
        how = f"{'found' if found.found else 'not sure'}, {found.seeds_with} of {found.seeds} seeds"
        for name in ("fall", "rise", "second_fall"):
            part = getattr(found, name)
            yield at | {
                "metric": name,
                "value": part.value,
                "lo": part.lo,
                "hi": part.hi,
                "p": part.p,
                "unit": "nats",
                "how": how,
            }
        for name, place in (("dip", found.dip), ("top", found.top)):
            yield at | {
                "metric": name,
                "value": place.step,
                "lo": place.lo,
                "hi": place.hi,
                "unit": "steps",
                "how": how,
            }


def _noise_rows(work: Study) -> Iterator[Row]:
    table = pd.concat([work.rows(work.metric, healthy=one) for one in (True, False)], ignore_index=True)
    for (arm, size), mine in table.groupby(["arm", table["parameters"].fillna(-1.0)], sort=False):
        one = noise_floor(mine).iloc[0]
        at = {
            "arm": arm,
            "size": np.nan if size == -1 else size,
            "seeds": int(one["seeds"]),
            "unit": str(mine["unit"].iloc[0]),
        }
        reason = "" if one["seeds"] > 1 else "one seed"
        yield at | {"metric": "sd", "value": one["sd"], "lo": one["lo"], "hi": one["hi"], "reason": reason,
                    "how": f"two runs differ by more than {one['visible']:.3g} in 1 of 20 cases" if not reason else ""}  # fmt: skip


def _churn_rows(work: Study) -> Iterator[Row]:
    rows, reasons = list[Row](), list[str]()
    for one in work.groups:
        for probe, metric, unit, cases, count_of in _ANSWERS:
            if len(one) < 2 or not all(run.has(probe, metric) for run in one.runs):
                continue
            at = {"arm": one.name, "size": size_of(one), "metric": f"{probe}/{metric}"}
            try:
                found = count_of(shared_answers(one, probe, metric, step=work.settings.step))
            except ByroteError as error:
                reasons.append(error.message)
                rows.append(at | {"reason": error.message})
                continue
            rows.append(at | {
                "value": found.churn.value, "lo": found.churn.lo, "hi": found.churn.hi, "seeds": found.seeds, "unit": unit,
                "how": f"{found.cases:,} {cases}; {found.expected:.3g} were answers independent",
            })  # fmt: skip
    if len(rows) == len(reasons):
        raise ByroteError(
            reasons[0] if reasons else "results hold no answers of two seeds to the same cases",
            help="measure predictions on held-out text, or shared members: byrote run ... -p predictions -p extraction",
        )
    yield from rows


_ANSWERS: tuple[tuple[str, str, str, str, Callable[[np.ndarray], Churn]], ...] = (
    ("predictions", "token", "share of places", "places", prediction_churn),
    ("extraction", "score", "share of members", "members", churn),
)
"""Probe, metric, unit of churn, what its cases are, and how it is counted."""


def _extraction_rows(work: Study) -> Iterator[Row]:
    for one, found in work.extractions:
        at = {"arm": one.name, "size": size_of(one), "seeds": found.seeds}
        how = f"{'inside' if found.inside else 'outside'} the planted counts; logistic better than a line by {found.log_linear:.3g} nats"
        yield at | {
            "metric": "threshold",
            "value": found.threshold,
            "lo": found.lo,
            "hi": found.hi,
            "unit": "duplicates",
            "how": how,
        }
        steep = found.steepness
        yield at | {
            "metric": "steepness",
            "value": steep.value,
            "lo": steep.lo,
            "hi": steep.hi,
            "unit": "log odds per e-fold",
        }


def _counterfactual_rows(work: Study) -> Iterator[Row]:
    reasons: list[ByroteError] = []
    judged = 0
    for one in work.groups:
        try:
            found = {name: _counterfactual(one, name, work.settings.step) for name in ("accuracy", "loss")}
        except ByroteError as error:
            reasons.append(error)
            continue
        judged += 1
        for name, memory in found.items():
            at = {"arm": one.name, "size": size_of(one), "seeds": memory.runs}
            mean, unit = memory.mean, one.runs[0].info(PROBE).unit_of(name)
            how = f"{len(memory.rows)} members, {'without less with' if name == 'loss' else 'with less without'}; jackknife over runs"
            yield at | {
                "metric": name,
                "value": mean.value,
                "lo": mean.lo,
                "hi": mean.hi,
                "p": mean.p,
                "unit": unit,
                "how": how,
            }
            yield at | {"metric": f"{name}, {SIGNIFICANTLY}", "value": memory.memorised_frac, "unit": "share of members",
                        "how": "exact permutation of runs, q below 5% over members"}  # fmt: skip
    if not judged:
        raise reasons[0]


def _counterfactual(one: Group, metric: str, step: int | None) -> Counterfactual:
    table = member_rows([one], metric, step=step)
    if table["set"].nunique() > 1:
        raise ByroteError(
            f"every run of {one.name} has members of its own, so that none can be compared with a run without them",
            help="train an arm whose members all seeds share (lab arm: subsets)",
        )
    return counterfactual(table, better="lower" if metric == "loss" else "higher")


def _dependence_rows(work: Study) -> Iterator[Row]:
    info, planted = work.groups[0].runs[0].info(PROBE), work.with_members
    if len(planted) < 2:
        raise ByroteError(
            "fewer than two arms have members that were measured",
            help=f"measure them: byrote run ... -p {PROBE}",
        )
    for metric in ("accuracy", "loss"):
        table = member_rows(planted, metric, step=work.settings.step)
        found = dependence(table, smallest=smallest_effect(info, metric))
        named = [(f"{metric}, {PLANTED}", found.planted)]
        named += [(f"{metric}, {PLANTED} {count} times", one) for count, one in found.by_count.items()]
        others = ((NEVER, found.never), (BEYOND, found.beyond))
        named += [(f"{metric}, {name}", one) for name, one in others if one is not None]
        for name, one in named:
            yield {"arm": f"{found.whole} less {' and '.join(found.halves)}", "metric": name, "value": one.value, "lo": one.lo,
                   "hi": one.hi, "p": one.p, "seeds": one.seeds, "unit": info.unit_of(metric),
                   "how": f"{dependence_word(one)} (smallest effect {one.rule.smallest:g})"}  # fmt: skip


def _matrix_rows(work: Study) -> Iterator[Row]:
    for (arms, metric), found in work.matrices.items():
        unit = work.with_members[0].runs[0].info(PROBE).unit_of(metric)
        at = {"arm": arms, "seeds": found.runs, "unit": unit}
        yield at | _numbers(found.others) | {
            "metric": f"{metric}, {OTHERS}", "how": f"{found.word} (smallest effect {found.smallest:g}, every pair by itself)"
        }  # fmt: skip
        for one in found.effects:
            members = found.members[one.trained]
            how = one.word or f"memory of {counted(len(members), 'member')}"
            yield (
                at
                | _numbers(one.found)
                | {"metric": f"{metric} of {one.measured + 1} by {one.trained + 1}", "how": how}
            )


def _numbers(found: SeedDifference) -> Row:
    return {"value": found.value, "lo": found.lo, "hi": found.hi, "p": found.p}


def _capacity_rows(work: Study) -> Iterator[Row]:
    for size, found in work.capacities.items():
        how = "still rising with the data" if found.rising else "plateau over the largest data sets"
        yield {"size": size, "metric": "bits per parameter", "value": found.plateau, "lo": found.lo, "hi": found.hi,
               "unit": "bits per parameter", "how": how, "seeds": int(found.rows["seeds"].iloc[-1])}  # fmt: skip


def _r_star_rows(work: Study) -> Iterator[Row]:
    found = work.r_star
    how = f"L = {found.floor:.3g} + B / D'^{found.exponent:.3g}, residual {found.error:.2g} nats"
    yield {"metric": "r_star", "value": found.r_star, "lo": found.lo, "hi": found.hi, "unit": "repetitions", "seeds": 0,
           "how": how + (", not bounded by these runs" if found.at_edge else "")}  # fmt: skip


def _displacement_rows(work: Study) -> Iterator[Row]:
    for one, table, words in work.displacements:
        for row in table.to_dict("records"):
            unit = "logits" if row["class"] == TOTAL else "share of the raise"
            yield {"arm": one.name, "size": size_of(one), "metric": row["class"], "value": row["difference"], "lo": row["lo"],
                   "hi": row["hi"], "p": row["p"], "seeds": min(row["seeds_a"], row["seeds_b"]), "unit": unit, "how": words,
                   "reason": "" if np.isfinite(row["difference"]) else "no head raises the copied token"}  # fmt: skip


MEASURES: Mapping[str, Callable[[Study], Iterator[Row]]] = {
    "dose": _dose_rows,
    "peak": _peak_rows,
    "band": _band_rows,
    "boundary": _boundary_rows,
    "effective_size": lambda work: _size_rows(work.sizes, work.metric),
    "preferential": _preferential_rows,
    "compute": lambda work: _size_rows(work.sized(work.metric, work.settings.how, "compute"), work.metric),
    "near_zero": _near_zero_rows,
    "double_descent": _descent_rows,
    "displacement": _displacement_rows,
    "extraction": _extraction_rows,
    "capacity": _capacity_rows,
    "r_star": _r_star_rows,
    "noise_floor": _noise_rows,
    "churn": _churn_rows,
    "counterfactual": _counterfactual_rows,
    "dependence": _dependence_rows,
    "dependence_matrix": _matrix_rows,
}
"""Name -> its rows, in the order in which they are read."""
