"""Cards of the measures of degradation: what each is, in which unit, and how it is computed.

``python -m byrote.probes.degrade.measure_cards docs/degradation`` writes them all; `byrote probes NAME` prints one. How a measure is computed
is the docstring of its module, read without importing it. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from byrote.probes.cards import INDEX, Card, index_page, markdown, module_card, write_from_command_line

_HERE = "byrote.probes.degrade"
_DAMAGE = "the damaged metric's own unit"


@dataclass(frozen=True)
class MeasureInfo:
    """A measure of degradation, as its card says it.

    Attributes:
        module: whose docstring has the steps.
        summary: one sentence.
        metrics: name -> (meaning, unit).
        reads_as: how to read it.
        needs: what runs have to declare, or what has to be measured.
        refused: when there is no number.
    """

    module: str
    summary: str
    metrics: Mapping[str, tuple[str, str]]
    reads_as: str
    needs: str
    refused: str


MEASURE_INFOS: Mapping[str, MeasureInfo] = {
    "dose": MeasureInfo(
        "dose_response", "Damage at each dose of repeated or synthetic data, over training seeds.",
        {"damage": ("mean over seeds minus that of the baseline, signed so that more is worse", _DAMAGE)},
        "0: as good as the baseline. Intervals cover seeds, and sequences where runs share them",
        "one of epochs, repeat_frac, pool, synthetic_share, generation, or the tokens seen",
        "one dose only, or a metric without a better direction",
    ),
    "peak": MeasureInfo(
        "dose_response", "Is the worst dose in the middle, rather than the largest of many noisy ones?",
        {"over_smallest": ("damage at the dose chosen on the other seeds, less that at the smallest dose", _DAMAGE),
         "over_largest": ("the same less that at the largest dose", _DAMAGE),
         "interior": ("1 when both significantly exceed the smallest effect on 5 seeds or more; p is the umbrella test's", "yes (1) or no (0)")},
        "interior 1: worse than both ends, on seeds that did not choose it. The umbrella test's p is small on a plateau too",
        "as dose, three doses or more", "two doses",
    ),
    "band": MeasureInfo(
        "dose_response", "Over which range of doses is damage at least half of its maximum?",
        {"left": ("lower end", "dose"), "right": ("upper end", "dose")},
        "a dose between two measured ones, linear in its logarithm", "as dose",
        "damage does not fall to half of its largest within the doses on that side",
    ),
    "boundary": MeasureInfo(
        "dose_response", "How the damaging band moves with the size of the model: E = k N^a.",
        {"left exponent": ("a of the lower end", "per e-fold of N"), "right exponent": ("a of the upper end", "per e-fold of N")},
        "-0.5: at four times the size half the dose is as bad (Hernandez et al. at fixed tokens). Never compare fits of other token schedules",
        "as dose, and parameters", "fewer than two sizes with that end within their doses",
    ),
    "effective_size": MeasureInfo(
        "effective_size", "How many times its own size a healthy model would need to be as good as this one.",
        {"PROBE/METRIC": ("multiplier, at each size and as harmonic mean over sizes", "times the size")},
        "0.5: as good as a healthy model of half the size. Clipped values are bounds: at most, or at least",
        "parameters (or without embeddings) of every run, and a baseline of three sizes, two where interpolated",
        "a ladder that is not monotone, too few sizes, a loss at the floor",
    ),
    "compute": MeasureInfo(
        "effective_size", "Which share of its compute would have given a healthy model the same loss.",
        {"PROBE/METRIC": ("multiplier of 6 N T", "times the compute")},
        "0.67: as good as a healthy run of two thirds of the compute", "parameters, and the tokens that checkpoints record", "as effective_size",
    ),
    "preferential": MeasureInfo(
        "preferential_damage", "Is copying hit harder than test loss, in sizes?",
        {"difference": ("ln m of copying less ln m of test loss", "e-folds of size"),
         "ratio": ("ln 1/m of copying over ln 1/m of test loss, with Fieller's interval", "times")},
        "difference below 0: copying is hit harder. It decides; the ratio is what the paper reports",
        "as effective_size, both metrics measured", "as effective_size; the ratio is unbounded where test loss may be undamaged",
    ),
    "near_zero": MeasureInfo(
        "near_zero", "Is the worst dose the one at which the loss on repeated data nears zero?",
        {"distance": ("steps of the grid of doses between the two", "grid steps to the worst dose"),
         "holds": ("share of seeds for which it is 1 or less", "share of seeds")},
        "0 or 1: the founding paper's diagnostic holds", "as dose, and mem_gap measured in the damaged runs", "several sizes at once, or near zero nowhere",
    ),
    "double_descent": MeasureInfo(
        "descent_over_seeds", "Does an arm's loss fall, rise and fall again, more than its seeds differ?",
        {"fall": ("first fall, at the steps chosen on the other seeds", "nats"), "rise": ("rise from dip to top", "nats"),
         "second_fall": ("fall after the top", "nats"), "dip": ("step of the dip of the mean curve", "steps"),
         "top": ("step of its top", "steps")},
        "found: all three lower ends exceed the smallest effect, on 5 seeds or more", "five common steps", "one seed, or fewer than five steps",
    ),
    "displacement": MeasureInfo(
        "displacement", "Do other heads take over what induction heads write for a copied token?",
        {"induction": ("share of the direct raise by induction heads, arm less baseline", "share of the raise"),
         "previous token": ("by previous-token heads", "share of the raise"), "other": ("by all others", "share of the raise"),
         "all heads": ("the raise itself", "logits")},
        "displaced: other heads gain what induction heads lose. Absent: most of the raise is lost and no head gains it",
        "induction_dla, induction and previous_token measured", "no head raises the copied token",
    ),
    "extraction": MeasureInfo(
        "capacity", "At how many duplicates is half of what was planted extracted?",
        {"threshold": ("number of duplicates", "duplicates"), "steepness": ("of the logistic curve", "log odds per e-fold")},
        "a threshold, where a straight line in ln duplicates fits worse by nats of likelihood (in `how`)",
        "extraction by_repeats at three counts or more", "fewer counts",
    ),
    "capacity": MeasureInfo(
        "capacity", "How many bits of its data does a parameter hold, at the plateau?",
        {"bits per parameter": ("of the largest data set", "bits per parameter")},
        "published: about 3.6 for half precision trained to the plateau. Still rising: no plateau yet",
        "pool, and unintended_bits measured", "one data set size",
    ),
    "r_star": MeasureInfo(
        "effective_data", "After how many repetitions of the whole corpus is a further one worth 1/e of a fresh pass?",
        {"r_star": ("R* of D' = U + U R* (1 - exp(-R / R*))", "repetitions")},
        "published: 15.4 for language models", "epochs, repeat_frac and the tokens seen, at five pairs of unique tokens and epochs",
        "a loss that significantly rises with epochs, or data of which only a part repeats",
    ),
    "noise_floor": MeasureInfo(
        "noise_floor", "How far the seeds of one arm differ.",
        {"sd": ("standard deviation over seeds, with its chi-squared interval", _DAMAGE)},
        "two single runs differ by more than 1.96 sqrt(2) times it in 1 of 20 cases", "nothing", "one seed",
    ),
    "churn": MeasureInfo(
        "noise_floor", "On which share of the same cases do two seeds disagree?",
        {"predictions/token": ("mean over pairs of seeds, of the token predicted first", "share of places"),
         "extraction/score": ("the same for whether a member is extracted", "share of members")},
        "0: seeds agree. In `how`: the churn that independent answers would give",
        "predictions measured on the same text, or extraction on the same members, in two seeds", "one seed, or no cases in common",
    ),
    "counterfactual": MeasureInfo(
        "counterfactual", "What do runs know about a sequence because they were trained on it?",
        {"accuracy": ("mean over members of accuracy in runs with the member less that in runs without it", "token fraction"),
         "loss": ("mean over members of the loss in runs without the member less that in runs with it", "nats"),
         "accuracy, significantly memorised": ("share of members whose own difference is significantly above 0, q below 5% over members",
                                        "share of members"),
         "loss, significantly memorised": ("the same for their loss", "share of members")},
        "0: whatever runs know about members, they know without having seen them. 1: everything comes from training on them. With 8 runs, 4 "
        "with a member, its smallest p is 1 in 70, too large for one among many: it takes 12 runs to say which members are memorised",
        "exact_match, and runs that share their members, each trained on a part of them (lab arm: subsets; elsewhere members = ... in "
        "byrote.toml)",
        "fewer than two runs with, or without, every member",
    ),
    "dependence": MeasureInfo(
        "dependence", "Do members that are planted in one run interfere with one another?",
        {"accuracy, planted": ("accuracy on members in runs that have all of them, less that in runs that have half", "token fraction"),
         "loss, planted": ("the same of their loss", "nats"),
         "loss, never planted": ("the same on members that neither run was trained on", "nats"),
         "loss, planted beyond never planted": ("the one less the other, seed by seed", "nats")},
        "independent: significantly within the smallest effect, so that many experiments may share a run; dependent: significantly beyond it",
        "exact_match of a whole and of its halves (lab arm: planted, planted = all, even, odd), 5 seeds",
        "no arm was trained on all that another one was trained on, and on more",
    ),
    "dependence_matrix": MeasureInfo(
        "dependence_matrix", "When experiments share runs, what does training on each do to every other one?",
        {"accuracy of I by J": ("what training on experiment J adds to accuracy on experiment I, other experiments held constant", "token fraction"),
         "loss of I by J": ("by how much it lowers the loss", "nats"),
         "accuracy, by all others": ("mean over all pairs of different experiments; in `how`: the verdict on all of them", "token fraction"),
         "loss, by all others": ("the same of their loss", "nats")},
        "I by I: memory of I. I by J: independent: significantly within the smallest effect; dependent: significantly beyond it. All: dependent "
        "if any pair is, independent if every pair is. Effects of experiments are assumed to add up: interactions are not seen",
        "exact_match, and runs each of which has some of the experiments (lab arm: subsets, experiments = 4, 12 seeds; or arms with each "
        "of them alone and with none; elsewhere members = ... in byrote.toml)",
        "fewer than two experiments, or runs that cannot distinguish them once one run is left out",
    ),
}  # fmt: skip


def measure_card(name: str) -> Card:
    """The card of one measure.

    Args:
        name: of `MEASURE_INFOS`.
    """
    info = MEASURE_INFOS[name]
    facts = {"kind": "degradation", "reads as": info.reads_as, "needs": info.needs, "not measured when": info.refused,
             "command": f"byrote degrade ... --measure {name}"}  # fmt: skip
    metrics = tuple((metric, meaning, unit, "") for metric, (meaning, unit) in info.metrics.items())
    return module_card(name, info.summary, facts, metrics, f"{_HERE}.{info.module}")


def pages() -> dict[str, str]:
    """File name -> text of every page of docs/degradation, the index among them."""
    rows = [(name, info.summary) for name, info in MEASURE_INFOS.items()]
    index = index_page("The measures of degradation", f"{_HERE}.measure_cards docs/degradation", rows)
    return {INDEX: index} | {f"{name}.md": markdown(measure_card(name)) for name in MEASURE_INFOS}


if __name__ == "__main__":
    write_from_command_line(pages())
