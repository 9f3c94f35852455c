"""What damaged runs are worth as sizes of a model without repeats, for claims that compare two metrics in sizes. No torch.

1. the ladder: runs without repeats at several sizes. Each metric is read off it in its own way (`Scale`), as the founding paper does
2. the damaged runs are of one size inside it. Of several pools each seed's is the one that is worst on test loss in all other seeds
3. ln m of each metric, seed by seed: `EffectiveSize.by_seed`, so that the spread of ladder and arms both counts, less that of runs
   without repeats of the same size: a power law that the ladder bends away from does not give those 1, and it is no damage
4. not testable: a ladder that is not monotone; a size beyond the ladder's end where the bound does not say which is hit harder
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.probes.claims.record import Effects, Grid, NotTestable
from byrote.probes.claims.runs_table import Place, Runs
from byrote.probes.claims.seed_effects import Seeds, final_values
from byrote.probes.degrade.effective_size import EffectiveSize, LadderRefused, effective_size
from byrote.probes.degrade.run_cells import half_width
from byrote.probes.degrade.runs import RUN_COLUMNS
from byrote.probes.findings_degrade import ladder_words
from byrote.probes.seed_statistics import mean_over_seeds
from byrote.probes.wording import interval, number

LADDER = Grid(
    "ladder",
    "1 layer of attention with smeared keys and an MLP, five sizes, on text of a table, facts about two tokens and one private phrase a "
    "document",
    file="ladder",
    sizes=("d12", "d16", "d20", "d24", "d32"),
    seconds=6.0,
)
SIZE = "d16"  # of the runs that are placed on it
SMALLEST = math.log(1.1)  # of interest: a tenth of the size
NONE = LADDER.places("none")
LOW, HIGH = (tuple(Place(LADDER.name, f"{share}-P{pool}", SIZE) for pool in pools) for share, pools in
             (("low", (16, 4)), ("half", (128, 64))))  # fmt: skip
LADDER_REVISED = (
    "the smallest width was 8, until two of its five seeds had not begun to copy when training ended; runs with repeats had been seen by "
    "then. Pools were chosen after two seeds of a trial with 200 steps more and other heads at the smallest widths: of one half, a pool "
    "of 16 was far beyond the ladder on every metric. The size of a run without repeats that a fit misses is taken off, which no run was "
    "needed for"
)
_WORST, _SAME = "worst", "without repeats"


@dataclass(frozen=True)
class Scale:
    """How sizes are read off one metric.

    Attributes:
        metric: of the table of runs.
        how: power, interpolate or linear, see `byrote.probes.degrade.effective_size`.
        called: what it is, in words.
        better: lower or higher.
        floor: metric of the table that is the Bayes loss of the same tokens; "" takes the metric as it is.
    """

    metric: str
    how: str
    called: str
    better: str = "lower"
    floor: str = ""


TEST = Scale("test_loss", "power", "test loss", floor="test_floor")
COPY = Scale("copy_loss", "interpolate", "copying")
RECALL = Scale("copy_start_part_loss", "interpolate", "recall of the document's phrase")


def worst_of_others(values: Float[np.ndarray, "seeds doses"]) -> list[int]:
    """For each seed the dose that is highest on the mean of all others.

    Args:
        values: one row per seed.
    """
    others = values.sum(0) - values if len(values) > 1 else values
    return [int(k) for k in others.argmax(1)]


def worst_places(runs: Runs, doses: Sequence[Place], seeds: Seeds) -> list[Place]:
    """For each seed the place whose test loss is worst on the other seeds."""
    return [doses[k] for k in worst_of_others(final_values(runs, doses, TEST.metric, seeds))]


@dataclass(frozen=True)
class Worth:
    """What the worst runs are worth on one metric.

    Attributes:
        scale: of the metric.
        found: sizes read off the ladder, of the worst runs and of those without repeats of their size.
    """

    scale: Scale
    found: EffectiveSize

    @property
    def clipped(self) -> str:
        """Which end of the ladder the worst runs lie beyond; "" where none."""
        return str(self.found.multiplier(_WORST)["clipped"])

    @property
    def logs(self) -> Float[np.ndarray, " seeds"]:
        """ln m of the worst runs less that of runs without repeats of their size, which a fit need not give as 1; seed by seed."""
        return _difference(self.found.by_seed)

    @property
    def draws(self) -> Float[np.ndarray, " draws"]:
        """The same in each resample of seeds inside sizes."""
        return _difference({key: v for key, v in self.found.draws.items() if key[1] is not None})

    @property
    def words(self) -> str:
        """``copying 0.45 (0.40, 0.51)``: times the size."""
        ends = mean_over_seeds(self.logs)
        bound = {"below": "at most ", "above": "at least "}.get(self.clipped, "")
        return (
            f"{self.scale.called} {bound}{interval(*(math.exp(x) for x in (ends.value, ends.lo, ends.hi)))}"
        )


def worth(runs: Runs, scale: Scale, worst: Sequence[Place], seeds: Seeds) -> Worth:
    """What the runs at the worst places are worth.

    Args:
        runs: the table.
        scale: of the metric.
        worst: place of each seed, all of one size.
        seeds: of the runs, at least two.

    Raises:
        NotTestable: no size can be read off the ladder, or there is one seed.
    """
    if len(seeds) < 2:
        raise NotTestable("one seed cannot show the spread of a ladder")
    same = [place for place in NONE if place.size == worst[0].size]
    ladder = [_row(runs, scale, place, seed, "") for place in NONE for seed in seeds]
    arms = [_row(runs, scale, place, seed, _WORST) for place, seed in zip(worst, seeds, strict=True)]
    arms += [_row(runs, scale, place, seed, _SAME) for place in same for seed in seeds]
    floor = float(runs.final(NONE[0], scale.floor, seeds[:1])[0]) if scale.floor else 0.0
    tables = (pd.DataFrame(rows, columns=list(RUN_COLUMNS)) for rows in (ladder, arms))
    try:
        return Worth(scale, effective_size(*tables, how=scale.how, floor=floor))
    except LadderRefused as error:
        means = final_values(runs, NONE, scale.metric, seeds).mean(0).tolist()
        rungs = ", ".join(f"{number(v)} at {place.size}" for place, v in zip(NONE, means, strict=True))
        raise NotTestable(f"{scale.called} gives no sizes: {error.message} (all: {rungs})") from None


def against_test_loss(runs: Runs, scale: Scale, doses: Sequence[Place]) -> Effects:
    """Size that a metric gives the worst runs over the size that test loss gives them, as a logarithm, seed by seed.

    Args:
        runs: the table.
        scale: of the metric.
        doses: pools of one share.

    Raises:
        NotTestable: a size cannot be read off.
    """
    seeds = runs.seeds(*NONE, *doses)
    worst = worst_places(runs, doses, seeds)
    test, metric = (worth(runs, one, worst, seeds) for one in (TEST, scale))
    require_known(metric, test)
    text = f"worst at {pools_in_words(worst)}; {compared(metric, test)}; test loss by {ladder_words(test.found.ladder)}"
    return Effects(metric.logs - test.logs, text)


def require_known(metric: Worth, reference: Worth) -> None:
    """Refuse sizes beyond the ladder where the bound that is left says nothing of whether the metric is hit harder.

    A reference below the ladder makes the difference a lower bound, which can speak against the claim alone; a metric below it an upper
    one, which can speak for it alone.

    Raises:
        NotTestable: naming which of the two lies beyond which end.
    """
    beyond = [f"{one.scale.called} {one.clipped} it" for one in (metric, reference) if one.clipped]
    value = float((metric.logs - reference.logs).mean())
    tells = value >= 0 if reference.clipped else value <= -SMALLEST
    if beyond and (len(beyond) == 2 or "above" in (metric.clipped, reference.clipped) or not tells):
        raise NotTestable(
            f"the worst runs lie beyond the ladder ({', '.join(beyond)}), and bounds do not say which is hit harder"
        )


def compared(metric: Worth, reference: Worth) -> str:
    """Both multipliers in words, and their difference with seeds resampled inside sizes."""
    value = float(metric.logs.mean() - reference.logs.mean())
    half = half_width(metric.draws - reference.draws, metric.found.seeds)
    return (
        f"as good as runs without repeats of this many times the size: {metric.words}, {reference.words}; with seeds resampled inside "
        f"sizes the logarithm of their ratio is {interval(value, value - half, value + half, sign=True)}"
    )


def pools_in_words(worst: Sequence[Place]) -> str:
    """Which pools were the worst: ``a pool of 16 in 5 of 5 seeds``."""
    pools = [place.arm.rpartition("P")[2] for place in worst]
    return ", ".join(f"a pool of {p} in {pools.count(p)} of {len(pools)} seeds" for p in dict.fromkeys(pools))


def _difference(logs: Mapping[tuple[str, Any], np.ndarray]) -> np.ndarray:
    by_arm = {arm: values for (arm, _), values in logs.items()}
    return by_arm[_WORST] - by_arm[_SAME]


def _row(runs: Runs, scale: Scale, place: Place, seed: tuple[int, int], arm: str) -> dict[str, Any]:
    sizes = {name: runs.fact(place, name) for name in ("parameters", "parameters_without_embeddings")}
    value = float(runs.final(place, scale.metric, [seed])[0])
    return {"run": f"{place.arm}-{place.size}-{seed[0]}", "arm": arm, "init_seed": seed[0], "data_seed": seed[1], **sizes,
            "value": value, "samples": None, "metric": scale.metric, "probe": "claims", "better": scale.better}  # fmt: skip
