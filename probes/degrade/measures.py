"""Everything that groups of runs say about degradation, as one tidy table: what command line, report and pages show. No torch.

Which numbers there are follows from what the runs declare and what was measured of them. A number that cannot be had is a row with the
reason; one that was requested by name and cannot be had is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.degrade.capacity import capacity, extraction_threshold
from byrote.probes.degrade.descent_over_seeds import double_descent
from byrote.probes.degrade.displacement import TOTAL, displacement
from byrote.probes.degrade.dose_response import DoseResponse, boundary_fit, dose_response
from byrote.probes.degrade.effective_data import fit_r_star, with_unique_tokens
from byrote.probes.degrade.effective_size import EffectiveSize, effective_size
from byrote.probes.degrade.near_zero import near_zero
from byrote.probes.degrade.noise_floor import churn_of, noise_floor
from byrote.probes.degrade.preferential_damage import preferential_damage
from byrote.probes.degrade.runs import DOSES, SIZES, run_rows
from byrote.probes.groups import Group, group
from byrote.probes.results import Results
from byrote.probes.wording import clean

COLUMNS = (
    "measure", "arm", "dose", "size", "metric", "value", "lo", "hi", "p", "seeds", "unit", "how", "reason",
)  # fmt: skip
TEST_LOSS, COPY_LOSS = "held_out_loss/loss", "repeat_loss/later_blocks"
_SETTING = ("parameters", "repeat_frac", "epochs", "pool", "synthetic_share", "generation")
Row = dict[str, Any]


@dataclass(frozen=True)
class DegradeSettings:
    """What is held against what.

    Attributes:
        over: the fact that is the dose; "" takes the first of `DOSES` that varies among the damaged runs of one size.
        metric: PROBE/METRIC that is damaged; "" is the test loss, or the loss on repeats where that was not measured.
        copy: PROBE/METRIC held against the test loss in sizes.
        baseline: name of the undamaged arm; "" is the arm called control, else the only one that repeats and synthesises nothing.
        how: how effective size is read off the ladder of `metric`: power, interpolate, linear.
        size: parameters, parameters_without_embeddings, or compute.
        floor: Bayes loss of the test text in nats.
        step: training step; None is the last that all have.
        seed: of resampling and permutations.
    """

    over: str = ""
    metric: str = ""
    copy: str = COPY_LOSS
    baseline: str = ""
    how: str = "power"
    size: str = "parameters"
    floor: float = 0.0
    step: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Degradation:
    """What was found.

    Attributes:
        rows: `COLUMNS`.
        baseline: name of the undamaged arm.
        over: the dose; "" where nothing varies.
        metric: PROBE/METRIC that is damaged.
        doses: size -> dose-response; size NaN where it is not declared.
        sizes: multipliers of `metric`; None where there is no ladder.
        groups: arms as they were taken apart, the baseline's first.
    """

    rows: pd.DataFrame
    baseline: str
    over: str
    metric: str
    doses: Mapping[float, DoseResponse]
    sizes: EffectiveSize | None
    groups: tuple[Group, ...] = field(repr=False, default=())

    def of(self, measure: str) -> pd.DataFrame:
        """The rows of one measure that have a number."""
        return self.rows[(self.rows["measure"] == measure) & (self.rows["reason"] == "")]


def degradation(
    named: Sequence[tuple[str, Sequence[Results]]],
    settings: DegradeSettings | None = None,
    *,
    measures: Sequence[str] = (),
) -> Degradation:
    """Everything about degradation that these runs say.

    Args:
        named: runs under the name of their arm; an arm may have several doses and sizes, which are told apart by what runs declare.
        settings: what is held against what.
        measures: of `MEASURES`; those named must succeed. () tries all, and what cannot be had is a row with its reason.

    Raises:
        ByroteError: no runs, an unknown measure, fact or baseline, or what was requested and cannot be had.
    """
    for name in measures:
        if name not in MEASURES:
            raise ByroteError(
                f"there is no measure {name!r} of degradation", help=did_you_mean(name, MEASURES)
            )
    work = _Work(_taken_apart(named), settings or DegradeSettings())
    rows: list[Row] = []
    for name in measures or MEASURES:
        try:
            rows += [_row(name, one) for one in MEASURES[name](work)]
        except ByroteError as error:
            if measures:
                raise
            rows.append(_row(name, {"reason": error.message}))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return Degradation(
        table, work.baseline, work.over or "", work.metric, _or(lambda: work.doses, {}), _or(lambda: work.sizes, None),
        tuple(work.groups),
    )  # fmt: skip


def _or(make: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return make()
    except ByroteError:
        return otherwise


def _row(measure: str, found: Row) -> Row:
    empty = {"arm": "", "dose": np.nan, "size": np.nan, "metric": "", "value": np.nan, "lo": np.nan, "hi": np.nan, "p": np.nan,
             "seeds": 0, "unit": "", "how": "", "reason": ""}  # fmt: skip
    return empty | {"measure": measure} | found


def _taken_apart(named: Sequence[tuple[str, Sequence[Results]]]) -> list[Group]:
    """One group for each arm, dose and size, under the arm's name."""
    found: dict[tuple[Any, ...], list[Results]] = {}
    for name, runs in named:
        for run in runs:
            found.setdefault((name, *(getattr(run.facts, fact) for fact in _SETTING)), []).append(run)
    if not found:
        raise ByroteError("there is no run", help="name results folders: --group ARM=GLOB")
    return [group(key[0], runs) for key, runs in found.items()]


class _Work:
    """The tables that measures share, each made once."""

    def __init__(self, groups: list[Group], settings: DegradeSettings) -> None:
        self.settings = settings
        self.baseline = clean(settings.baseline or _baseline(groups), limit=80)
        names = list(dict.fromkeys(one.name for one in groups))
        if self.baseline not in names:
            raise ByroteError(
                f"no group is called {self.baseline!r}", help=did_you_mean(self.baseline, names)
            )
        self.healthy = [one for one in groups if one.name == self.baseline]
        self.over = settings.over or _varying([one for one in groups if one.name != self.baseline])
        if self.over and self.over not in DOSES:
            raise ByroteError(f"no dose is called {self.over!r}", help=did_you_mean(self.over, DOSES))
        if settings.size not in SIZES:
            raise ByroteError(f"no size is called {settings.size!r}", help=did_you_mean(settings.size, SIZES))
        self.damaged = self._labelled([one for one in groups if one.name != self.baseline])
        self.groups = [*self.healthy, *self.damaged]
        self._rows: dict[tuple[str, bool], pd.DataFrame] = {}

    def _labelled(self, groups: list[Group]) -> list[Group]:
        """Names with the dose where an arm has several."""
        doses: dict[str, set[Any]] = {}
        for one in groups:
            doses.setdefault(one.name, set()).add(self._dose(one))
        return [
            replace(one, name=f"{one.name} {self.over}={self._dose(one):g}")
            if len(doses[one.name]) > 1 and self._dose(one) is not None
            else one
            for one in groups
        ]

    def _dose(self, one: Group) -> float | None:
        known = self.over and self.over != "tokens"
        value = getattr(one.runs[0].facts, self.over) if known else None
        return None if value is None else float(value)

    def need_damaged(self) -> list[Group]:
        if not self.damaged:
            raise ByroteError(
                f"all runs are of the baseline {self.baseline}",
                help="give a group of damaged runs: --group ARM=GLOB",
            )
        return self.damaged

    @cached_property
    def metric(self) -> str:
        """PROBE/METRIC that is damaged."""
        if self.settings.metric:
            return self.settings.metric
        measured = all(run.has("held_out_loss", "loss") for one in self.groups for run in one.runs)
        return TEST_LOSS if measured else COPY_LOSS

    def rows(self, metric: str, *, healthy: bool) -> pd.DataFrame:
        """The table of a metric, of the baseline's runs or of the damaged ones."""
        if (metric, healthy) not in self._rows:
            probe, slash, name = metric.partition("/")
            if not (probe and slash and name):
                raise ByroteError(f"{metric!r} is no PROBE/METRIC", help=f"such as {TEST_LOSS}")
            both = run_rows([*self.healthy, *self.damaged], probe, name, step=self.settings.step)
            n = sum(map(len, self.healthy))
            self._rows[metric, True] = both.iloc[:n].reset_index(drop=True)
            self._rows[metric, False] = both.iloc[n:].reset_index(drop=True)
        return self._rows[metric, healthy]

    @cached_property
    def doses(self) -> dict[float, DoseResponse]:
        """Dose-response of each size."""
        self.need_damaged()
        if not self.over:
            raise ByroteError(
                "nothing that runs declare varies among the damaged ones, so that there is no dose",
                help=f"declare one of {', '.join(DOSES)} in byrote.toml beside the results",
            )
        damaged, healthy = (self.rows(self.metric, healthy=one) for one in (False, True))
        found = {}
        for size, mine in damaged.groupby(damaged["parameters"].fillna(-1.0)):
            own = healthy[healthy["parameters"].fillna(-1.0) == size]
            base = own if len(own) else None
            found[np.nan if size == -1 else float(size)] = dose_response(
                mine.reset_index(drop=True), self.over, baseline=base, seed=self.settings.seed
            )
        return found

    @cached_property
    def sizes(self) -> EffectiveSize:
        """Multipliers of the metric."""
        return self.sized(self.metric, self.settings.how, self.settings.size)

    def sized(self, metric: str, how: str, size: str) -> EffectiveSize:
        """Multipliers of any metric."""
        self.need_damaged()
        floor = self.settings.floor if metric == TEST_LOSS else 0.0
        tables = (self.rows(metric, healthy=one) for one in (True, False))
        return effective_size(*tables, how=how, counted_by=size, floor=floor, seed=self.settings.seed)


def _baseline(groups: list[Group]) -> str:
    names = list(dict.fromkeys(one.name for one in groups))
    if len(names) == 1 or "control" in names:
        return "control" if "control" in names else names[0]
    facts = ("repeat_frac", "synthetic_share", "generation")
    plain = [
        name
        for name in names
        if all(
            not getattr(run.facts, fact)
            for one in groups
            if one.name == name
            for run in one.runs
            for fact in facts
        )
        and any(run.facts.repeat_frac is not None for one in groups if one.name == name for run in one.runs)
    ]
    if len(plain) != 1:
        found = (
            f"{len(plain)} of them repeat and synthesise nothing"
            if plain
            else "none declares that it repeats nothing"
        )
        raise ByroteError(
            f"which of the arms {', '.join(names[:6])} is the baseline is not clear: {found}",
            help="name it: --baseline ARM",
        )
    return plain[0]


def _varying(groups: list[Group]) -> str | None:
    for fact in DOSES[:-1]:
        by_size: dict[Any, set[Any]] = {}
        for one in groups:
            facts = one.runs[0].facts
            by_size.setdefault(facts.parameters, set()).add(getattr(facts, fact))
        if any(len(values - {None}) > 1 for values in by_size.values()):
            return fact
    return None


def _dose_rows(work: _Work) -> Iterator[Row]:
    for size, found in work.doses.items():
        for one in found.rows.to_dict("records"):
            yield {"dose": one["dose"], "size": size, "metric": "damage", "value": one["damage"], "lo": one["lo"], "hi": one["hi"],
                   "p": one["p"], "seeds": one["seeds"], "unit": found.unit, "how": "paired by seed" if found.paired else "Welch"}  # fmt: skip


def _peak_rows(work: _Work) -> Iterator[Row]:
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


def _band_rows(work: _Work) -> Iterator[Row]:
    for size, found in work.doses.items():
        for side, edge in (("left", found.left), ("right", found.right)):
            reason = (
                ""
                if np.isfinite(edge.dose)
                else "damage does not fall to half of its largest within the doses"
            )
            yield {"size": size, "metric": side, "value": edge.dose, "lo": edge.lo, "hi": edge.hi, "reason": reason,
                   "seeds": int(found.rows["seeds"].min()), "unit": work.over, "how": "half of the largest damage"}  # fmt: skip


def _boundary_rows(work: _Work) -> Iterator[Row]:
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


def _preferential_rows(work: _Work) -> Iterator[Row]:
    copy = work.sized(work.settings.copy, "interpolate", work.settings.size)
    for one in preferential_damage(copy, work.sized(TEST_LOSS, "power", work.settings.size)).to_dict(
        "records"
    ):
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


def _near_zero_rows(work: _Work) -> Iterator[Row]:
    sizes = set(work.rows(work.metric, healthy=False)["parameters"])
    if len(sizes) > 1:
        raise ByroteError("the near-zero diagnostic is of one size", help="give damaged runs of one size")
    work.need_damaged()
    share = run_rows(work.damaged, "mem_gap", "loss_share", step=work.settings.step)
    if not work.over:
        raise ByroteError("nothing that runs declare varies among the damaged ones", help="declare the dose")
    found = near_zero(work.rows(work.metric, healthy=False), share, work.over)
    how = f"{found.holds} of {found.seeds} seeds"
    yield {"metric": "distance", "dose": found.onset, "value": found.distance, "unit": "grid steps to the worst dose", "how": how,
           "seeds": found.seeds, "reason": "" if np.isfinite(found.onset) else "the loss on repeated data nears zero at no dose"}  # fmt: skip
    if found.seeds:
        yield {"metric": "holds", "dose": found.worst, "value": found.holds / found.seeds, "lo": found.lo, "hi": found.hi,
               "unit": "share of seeds", "seeds": found.seeds, "how": "within one grid step"}  # fmt: skip


def _descent_rows(work: _Work) -> Iterator[Row]:
    probe, _, metric = work.metric.partition("/")
    for one in work.groups:
        curves = [run.curve(probe, metric) for run in one.runs]
        steps = sorted(set.intersection(*(set(c.steps.tolist()) for c in curves)))
        values = np.array(
            [[dict(zip(c.steps.tolist(), c.value.tolist(), strict=True))[s] for s in steps] for c in curves]
        )
        at = {"arm": one.name, "size": _size_of(one), "seeds": len(one)}
        try:
            found = double_descent(np.array(steps), values, seed=work.settings.seed)
        except ByroteError as error:
            yield at | {"metric": "rise", "reason": error.message}
            continue
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


def _size_of(one: Group) -> float:
    size = one.runs[0].facts.parameters
    return np.nan if size is None else float(size)


def _noise_rows(work: _Work) -> Iterator[Row]:
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


def _churn_rows(work: _Work) -> Iterator[Row]:
    for one in work.groups:
        if len(one) < 2 or not all(run.has("extraction", "score") for run in one.runs):
            continue
        found = churn_of(run_rows([one], "extraction", "score", step=work.settings.step))
        yield {"arm": one.name, "size": _size_of(one), "metric": "extraction/score", "value": found.churn.value, "lo": found.churn.lo,
               "hi": found.churn.hi, "seeds": found.seeds, "unit": "share of members",
               "how": f"{found.cases} members; {found.expected:.3g} were answers independent"}  # fmt: skip
        return
    raise ByroteError(
        "results hold no yes-or-no answers of two seeds to the same cases; predictions token by token are not stored",
        help="measure members: byrote run ... -p extraction",
    )


def _extraction_rows(work: _Work) -> Iterator[Row]:
    seen = False
    for one in work.groups:
        parts = [
            _extracted(run, work.settings.step) for run in one.runs if run.has("extraction", "by_repeats")
        ]
        if len(parts) < len(one) or sum(map(len, parts)) < 3:
            continue
        found, seen = extraction_threshold(pd.concat(parts)), True
        at = {"arm": one.name, "size": _size_of(one), "seeds": found.seeds}
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
    if not seen:
        raise ByroteError(
            "extraction/by_repeats is measured at three numbers of duplicates in no arm",
            help="measure members planted at several counts: byrote run ... -p extraction",
        )


def _extracted(run: Results, step: int | None) -> pd.DataFrame:
    rows = run.select("extraction", "by_repeats", step=step or run.last_step)
    rows = rows[rows["valid"].astype(bool) & rows["position"].notna()]
    members = rows["n"].to_numpy(np.float64)
    return pd.DataFrame({
        "run": run.run,
        "duplicates": 2.0 ** rows["position"].to_numpy(np.float64),
        "extracted": np.round(rows["value"].to_numpy(np.float64) * members),
        "members": members,
    })  # fmt: skip


def _capacity_rows(work: _Work) -> Iterator[Row]:
    table = run_rows(work.need_damaged(), "unintended_bits", "per_parameter", step=work.settings.step)
    found = capacity(table, seed=work.settings.seed)
    how = "still rising with the data" if found.rising else "plateau over the largest data sets"
    yield {"metric": "bits per parameter", "value": found.plateau, "lo": found.lo, "hi": found.hi, "unit": "bits per parameter",
           "how": how, "seeds": int(found.rows["seeds"].iloc[-1])}  # fmt: skip


def _r_star_rows(work: _Work) -> Iterator[Row]:
    both = pd.concat([work.rows(work.metric, healthy=one) for one in (True, False)], ignore_index=True)
    found = fit_r_star(with_unique_tokens(both), seed=work.settings.seed)
    how = f"L = {found.floor:.3g} + B / D'^{found.exponent:.3g}, residual {found.error:.2g} nats"
    yield {"metric": "r_star", "value": found.r_star, "lo": found.lo, "hi": found.hi, "unit": "repetitions", "seeds": 0,
           "how": how + (", not bounded by these runs" if found.at_edge else "")}  # fmt: skip


def _displacement_rows(work: _Work) -> Iterator[Row]:
    for one in work.need_damaged():
        for base in work.healthy:
            if _size_of(base) != _size_of(one) and not np.isnan(_size_of(base)):
                continue
            table, said = displacement(base, one, step=work.settings.step)
            for row in table.to_dict("records"):
                unit = "logits" if row["class"] == TOTAL else "share of the raise"
                yield {"arm": one.name, "size": _size_of(one), "metric": row["class"], "value": row["difference"], "lo": row["lo"],
                       "hi": row["hi"], "p": row["p"], "seeds": min(row["seeds_a"], row["seeds_b"]), "unit": unit, "how": said,
                       "reason": "" if np.isfinite(row["difference"]) else "no head raises the copied token"}  # fmt: skip


MEASURES: Mapping[str, Callable[[_Work], Iterator[Row]]] = {
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
}
"""Name -> its rows, in the order in which they are read."""
