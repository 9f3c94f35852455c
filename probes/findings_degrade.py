"""Sentences on degradation: claims judged over seeds, doses, sizes. Command line, report and pages. No torch.

Plain text, like `byrote.probes.findings`. What is said below `MIN_SEEDS` seeds a side is said of the runs.
"""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING

from byrote.probes.comparable import measure_name
from byrote.probes.rules import MIN_SEEDS, UNDECIDED
from byrote.probes.wording import all_of, counted, interval, number, p_value, sentence_case

if TYPE_CHECKING:
    import pandas as pd

    from byrote.probes.degrade.capacity import Capacity, Extraction
    from byrote.probes.degrade.dependence_matrix import DependenceMatrix
    from byrote.probes.degrade.dose_response import DoseResponse, Edge
    from byrote.probes.degrade.effective_data import RStar
    from byrote.probes.degrade.effective_size import Ladder
    from byrote.probes.degrade.measures import Degradation
    from byrote.probes.degrade.verdicts import Claimed, Verdict

DOSE_WORDS = {
    "epochs": "E",
    "repeat_frac": "f",
    "pool": "P",
    "synthetic_share": "synthetic share",
    "generation": "generation",
    "tokens": "T",
}
SIZE_WORDS = {
    "parameters": "parameters N, embeddings included",
    "parameters_without_embeddings": "parameters N without embeddings",
    "compute": "compute 6NT",
}
_EXPECTED = {"rises": "a rise", "falls": "a fall", "stays": "a change"}


def _equal(value: str) -> str:
    return value if value.startswith("<") else f"= {value}"


def verdict_sentence(found: Verdict, unit: str) -> str:
    """``reproduced: +0.42 [+0.30, +0.54] nats over 5 pairs of seeds (expected a rise of more than 0.05, q = 0.001)``.

    Args:
        found: the verdict.
        unit: of the effect.
    """
    value = _effect(found, unit)
    expected = _EXPECTED[found.rule.direction]
    if found.rule.smallest:
        expected += (
            f" of {'less' if found.rule.direction == 'stays' else 'more'} than {found.rule.smallest:.3g}"
        )
    text = f"{found.word}: {value} over {_seeds(found)} (expected {expected}, q {_equal(p_value(found.q))})"
    return f"{text}; {seen_words(found, unit)}" if found.word == UNDECIDED else text


def claim_sentence(claim: Claimed, unit: str, onset_unit: str = "e-folds of steps") -> str:
    """The verdict that decides, and the other one beside it.

    Args:
        claim: judged.
        unit, onset_unit: of the effect on the final value, and on the onset.
    """
    units = {"final": unit, "onset": onset_unit}
    other = "onset" if claim.primary == "final" else "final"
    beside = getattr(claim, other)
    text = (
        f"{claim.name}, by its {claim.primary} value, {verdict_sentence(claim.verdict, units[claim.primary])}"
    )
    if beside is None:
        return f"{text}; {other} value not measured"
    return f"{text}; by its {other} value {verdict_sentence(beside, units[other])}"


def seen_words(found: Verdict, unit: str) -> str:
    """What an undecided verdict could have decided, or why it could decide nothing."""
    if found.seeds < MIN_SEEDS:
        return f"{counted(found.seeds, 'seed')} a side cannot decide; {MIN_SEEDS} are needed"
    if not math.isfinite(found.seen):
        return "so few seeds cannot decide it, whatever they show"
    word = "a margin" if found.rule.direction == "stays" else "an effect"
    return f"{word} of {number(found.seen)} {unit} would have been detected in 80% of repetitions"


def _effect(found: Verdict, unit: str) -> str:
    """The effect with its unit and interval; "never" on one side is no number."""
    if math.isinf(found.value):
        return f"only the {'control' if found.value > 0 else 'arm'} gets there in most seeds"
    ends = [_end(end) for end in (found.lo, found.hi)]
    if all(map(math.isfinite, (found.lo, found.hi))):
        return f"{interval(found.value, found.lo, found.hi, sign=True)} {unit}"
    around = "no interval" if math.isnan(found.lo) else f"[{ends[0]}, {ends[1]}]"
    return f"{number(found.value, sign=True)} {unit}, {around}"


def _end(end: float) -> str:
    if math.isinf(end):
        return "only the control gets there" if end > 0 else "only the arm gets there"
    return number(end, sign=True)


def _seeds(found: Verdict) -> str:
    if found.how in ("paired by seed", "signed ranks"):
        return counted(found.seeds, "seed")
    return f"{found.seeds_a} and {counted(found.seeds_b, 'seed')}"


def degradation_sentences(found: Degradation) -> list[str]:
    """What the numbers say, most important first: the worst dose, the band, the size that is as good."""
    lines = [
        dose_sentence(one, size, several=len(found.doses) > 1, metric=found.metric)
        for size, one in found.doses.items()
    ]
    if found.sizes is not None:
        lines += size_sentences(found)
    lines += _near_zero(found) + _displaced(found)
    lines += [
        capacity_sentence(one, "" if math.isnan(size) or len(found.capacities) == 1 else f"N = {size:,.0f}")
        for size, one in found.capacities.items()
    ]
    lines += [
        extraction_sentence(one, name if len(found.extractions) > 1 else "")
        for name, one in found.extractions.items()
    ]
    lines += _remembered(found) + _together(found)
    lines += [matrix_sentence(one, metric) for (_, metric), one in found.matrices.items()]
    return lines or [
        "Neither doses nor sizes differ among these runs in what they declare: only seeds are compared."
    ]


def measured_words(metric: str) -> str:
    """``repeat loss: later blocks`` for ``repeat_loss/later_blocks``; any other name as it is."""
    probe, slash, name = metric.partition("/")
    return measure_name(probe, name) if slash else metric


def dose_sentence(found: DoseResponse, size: float, *, several: bool, metric: str) -> str:
    """The worst dose with its damage, whether it lies between milder ones, and the band."""
    worst, doses_of = found.rows.loc[found.rows["damage"].idxmax()], found.rows["dose"]
    at = f" at {number(size)} parameters" if several and not math.isnan(size) else ""
    by = interval(worst["damage"], worst["lo"], worst["hi"], sign=True)
    doses = DOSE_WORDS[found.over]
    what = sentence_case(measured_words(metric))
    text = f"{what} is worst at {doses} {worst['dose']:g}{at}: {by} {found.unit} against the baseline"
    seeds = int(found.rows["seeds"].min())
    if found.peak is None:
        return f"{text}."
    ends = f"({counted(len(found.rows), 'dose')}, {counted(seeds, 'seed')})"
    if found.peak.interior:
        text = f"{text}, significantly worse than both the smallest and the largest dose {ends}"
    elif seeds < MIN_SEEDS:
        text = f"{text}; {counted(seeds, 'seed')} per dose cannot locate the peak; {MIN_SEEDS} are needed"
    elif worst["dose"] in (doses_of.min(), doses_of.max()):
        which = "largest" if worst["dose"] == doses_of.max() else "smallest"
        text = f"{text}; it is the {which} dose, so the worst one may lie beyond those measured {ends}"
    else:
        text = f"{text}; not significantly worse than both the smallest and the largest dose {ends}"
    if math.isnan(found.left.dose) and math.isnan(found.right.dose):
        return f"{text}. At every dose measured it is half of that damage or more."
    band = [_edge_words(found.left), _edge_words(found.right)]
    return f"{text}. Half of that damage or more from {band[0]} to {band[1]}."


def arms_sentence(rows: pd.DataFrame, *, metric: str, baseline: str, unit: str) -> str:
    """Which arms are significantly worse than the baseline, and which better: 95% intervals over seeds.

    Args:
        rows: see `byrote.probes.degrade.dose_response.damage_by_arm`.
        metric: PROBE/METRIC.
        baseline: name of the undamaged arm.
        unit: of the metric.
    """

    def named(these: pd.DataFrame) -> str:
        arms = [f"{r.arm} ({interval(r.damage, r.lo, r.hi, sign=True)} {unit})" for r in these.itertuples()]
        return all_of(arms, most=4)

    worse, better = rows[rows["lo"] > 0], rows[rows["hi"] < 0].iloc[::-1]
    parts = [
        f"significantly {word} in {named(these)}"
        for word, these in (("worse", worse), ("better", better))
        if len(these)
    ]
    if not parts:
        parts = [f"significantly different in none of {counted(len(rows), 'arm')}"]
    seeds = counted(int(rows["seeds"].min()), "seed")
    return f"{sentence_case(measured_words(metric))} against {baseline} is {', and '.join(parts)}; {seeds} per arm."


def _edge_words(edge: Edge) -> str:
    if math.isnan(edge.dose):
        return "beyond the doses measured"
    if math.isnan(edge.lo):
        return number(edge.dose)
    ends = "all doses" if math.isinf(edge.hi) and edge.lo == 0 else f"{number(edge.lo)} to {_upper(edge.hi)}"
    return f"{number(edge.dose)} ({ends})"


def _upper(end: float) -> str:
    return "any" if math.isinf(end) else number(end)


def size_sentences(found: Degradation) -> list[str]:
    """What size of the baseline is as good as each arm, and how the ladder was read."""
    assert found.sizes is not None
    lines = []
    for row in found.sizes.rows[found.sizes.rows["size"].isna()].to_dict("records"):
        bound = {"below": "at most ", "above": "at least "}.get(row["clipped"], "")
        ends = f" [{number(row['lo'])}, {_upper(row['hi'])}]" if not math.isnan(row["lo"]) else ""
        lines.append(
            f"{row['arm']} is as good as a baseline of {bound}{number(row['multiplier'])}{ends} times its size."
        )
    return [*lines, f"The ladder is {ladder_words(found.sizes.ladder)}."]


def _near_zero(found: Degradation) -> list[str]:
    rows = found.of("near_zero")
    rows = rows[rows["metric"] == "distance"]
    if rows.empty:
        return []
    row = rows.iloc[0]
    steps = int(row["value"])
    where = "the worst dose" if steps == 0 else f"{counted(steps, 'grid step')} from the worst dose"
    return [
        f"The loss on repeated data nears zero from {DOSE_WORDS[found.over]} {row['dose']:g} on: {where}."
    ]


def r_star_words(found: RStar) -> str:
    """What a refitted R* says, in a sentence."""
    bound = ", which these runs do not bound" if found.at_edge else ""
    return (
        f"R* is {interval(found.r_star, found.lo, found.hi)} repetitions{bound}: after so many a further pass over the same tokens is "
        f"worth 1/e of a fresh one. Fitted to {found.points} pairs of unique tokens and epochs, exponent {number(found.exponent)}, "
        f"residual {number(found.error)} nats."
    )


_TAKEN_OVER = {
    "absent, not replaced": "most of the direct raise of a copied token is gone, and no head took it over",
    "displaced": "other heads took over the direct raise of a copied token from induction heads",
    "weaker": "heads raise a copied token less",
}


def _displaced(found: Degradation) -> list[str]:
    rows = found.of("displacement")
    return [
        f"In {arm}, {_TAKEN_OVER[mine['how'].iloc[0]]}."
        for arm, mine in rows[rows["metric"] == "induction"].groupby("arm", sort=False)
        if mine["how"].iloc[0] in _TAKEN_OVER
    ]


def capacity_sentence(found: Capacity, name: str = "") -> str:
    """How many bits a parameter holds, and whether that is a plateau.

    Args:
        found: of one size of model.
        name: of that size, where there are several.
    """
    last = found.rows.iloc[-1]
    whose = f"A parameter of {name}" if name else "A parameter"
    text = f"{whose} holds {interval(found.plateau, found.lo, found.hi)} bits of {last['members']:,.0f} sequences"
    return f"{text}, still rising with the data: no plateau." if found.rising else f"{text}."


def extraction_sentence(found: Extraction, name: str = "") -> str:
    """Where half of what was planted is extracted, and whether a line would say as much.

    Args:
        found: of one arm.
        name: of the arm, where there are several.
    """
    of = f" of {name}" if name else ""
    counts = found.rows["duplicates"]
    planted = f"{counts.min():,.0f} to {counts.max():,.0f} times"
    if not found.inside:
        return f"Half{of} is extracted at no number of duplicates that was planted, {planted}."
    at = interval(found.threshold, found.lo, found.hi)
    text = f"Half{of} is extracted from {at} duplicates on, planted {planted}"
    better = "logistic curve" if found.log_linear > 0 else "line in the logarithm of duplicates"
    return f"{text}; a {better} fits better by {number(abs(found.log_linear))} nats."


def _remembered(found: Degradation) -> list[str]:
    rows = found.of("counterfactual")
    sure = rows[rows["metric"] == "accuracy, significantly memorised"].set_index("arm")["value"]
    return [
        f"{row['arm']}: training on a member raises accuracy on it by {interval(row['value'], row['lo'], row['hi'], sign=True)} over "
        f"{counted(int(row['seeds']), 'run')}; {sure[row['arm']]:.0%} of members are significantly memorised."
        for row in rows[rows["metric"] == "accuracy"].to_dict("records")
    ]


_INTERFERENCE = {
    "independent": "do not interfere",
    "dependent": "interfere",
    "not decided": "may interfere: more seeds would say",
}


_BY = {
    "accuracy, planted": "accuracy",
    "loss, planted": "loss",
    "loss, planted beyond never planted": "loss beyond that of members never planted",
}


def _together(found: Degradation) -> list[str]:
    rows = found.of("dependence")
    rows = rows[rows["metric"].isin(_BY)]
    return [
        f"Members planted together {_INTERFERENCE[row['how'].partition(' (')[0]]} by {_BY[row['metric']]}: "
        f"{interval(row['value'], row['lo'], row['hi'], sign=True)} {row['unit']} over {counted(int(row['seeds']), 'seed')} "
        f"({row['arm']})."
        for row in rows.to_dict("records")
    ]


_ALL_PAIRS = {
    "independent": "None of {n} experiments changes another one",
    "dependent": "Of {n} experiments some change others",
    "not decided": "Whether {n} experiments change one another is not decided",
}


def matrix_sentence(found: DependenceMatrix, metric: str) -> str:
    """Whether experiments that share runs are independent, and which pair is the farthest from it.

    Args:
        found: the matrix.
        metric: "accuracy" or "loss".
    """
    pairs = [one for one in found.effects if one.word]
    far = max(pairs, key=lambda one: abs(one.found.value))
    own = fmean(one.found.value for one in found.effects if not one.word)
    unit = "nats" if metric == "loss" else "of accuracy"
    sure = sum(one.word == "dependent" for one in pairs)
    counts = f" ({sure} of {counted(len(pairs), 'pair')})" if sure else ""
    return (
        f"{_ALL_PAIRS[found.word].format(n=found.n)} by {found.smallest:g} {unit} or more{counts}, over {counted(found.runs, 'run')}; the "
        f"largest effect is that of {far.trained + 1} on {far.measured + 1}, "
        f"{interval(far.found.value, far.found.lo, far.found.hi, sign=True)}, that of an experiment on itself on average "
        f"{number(own, sign=True)}."
    )


def ladder_words(ladder: Ladder) -> str:
    """How the ladder was read, in a phrase."""
    by = SIZE_WORDS[ladder.counted_by]
    span = f"{len(ladder.sizes)} sizes from {ladder.sizes[0]:,.0f} to {ladder.sizes[-1]:,.0f} ({by})"
    if ladder.how == "interpolate":
        return f"interpolated between {span}"
    law = "a power law" if ladder.how == "power" else "a line in ln N"
    floor = f" of the loss above {ladder.floor:g} nats" if ladder.how == "power" and ladder.floor else ""
    return f"{law}{floor} over {span}, exponent {ladder.slope:.3g}, R² {ladder.r2:.3f}"
