"""Effects of one seed each, from the table of runs: what the rules of claims are applied to. No torch.

Whatever is chosen by its value, such as the worst pool, is chosen on the other seeds and read on this one, so that the choice does
not pass for an effect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from byrote.checkpoints.errors import ByroteError
from byrote.probes.claims.record import Effects, Grid, NotTestable
from byrote.probes.claims.runs_table import Place, Runs
from byrote.probes.degrade.verdicts import onset_effects
from byrote.probes.rules import PREFIX_MATCHING

Seeds = list[tuple[int, int]]
At = Callable[[str], Place]
_MOST = 0.5  # of the seeds: where something is missing in more, its step is not compared
COPIES_FRAC = 0.5
"""Share of the loss of guessing below which the loss on copied tokens says that copying has appeared: half of what there is."""


def difference(runs: Runs, control: Place, arm: Place, metric: str) -> Effects:
    """Final value of the arm minus that of the control, seed by seed."""
    seeds = runs.seeds(control, arm)
    return Effects(runs.final(arm, metric, seeds) - runs.final(control, metric, seeds))


def compared(runs: Runs, control: Place, arm: Place, metric: str) -> Effects:
    """`difference`, and both means."""
    seeds = runs.seeds(control, arm)
    before, after = (runs.final(place, metric, seeds) for place in (control, arm))
    return Effects(after - before, f"{before.mean():.2f} in {control.arm}, {after.mean():.2f} in {arm.arm}")


def in_every_setting(grids: Sequence[Grid], effect: Callable[[At], Effects]) -> Effects:
    """The effect in every setting, so that a claim holds in all of them or not at all.

    Args:
        grids: whose sizes are the settings.
        effect: what gives the place of an arm in a setting -> the effects there.
    """
    found = {size: effect(partial(Place, grid.name, size=size)) for grid in grids for size in grid.sizes}
    first, *others = (one.values for one in found.values())
    return Effects(first, "; ".join(f"{size}: {one.words}" for size, one in found.items()), tuple(others))


def final_values(
    runs: Runs, places: Sequence[Place], metric: str, seeds: Seeds
) -> Float[np.ndarray, "seeds places"]:
    """Final values of several places, one row per seed."""
    return np.stack([runs.final(place, metric, seeds) for place in places], axis=1)


def copying_onset(runs: Runs, place: Place, seeds: Seeds) -> Float[np.ndarray, " seeds"]:
    """Step from which copied tokens cost less than half of what guessing does; inf for never."""
    return runs.onset(place, "copy_loss", seeds, below=COPIES_FRAC * runs.fact(place, "guess_nats"))


def delay(before: Float[np.ndarray, " seeds"], after: Float[np.ndarray, " seeds"], words: str) -> Effects:
    """How many times later something appears in an arm than in its control, as a logarithm; "never" is later than every step.

    Args:
        before, after: the step of each seed in the control and in the arm, inf for never.
        words: what they are, in a clause.

    Raises:
        NotTestable: in most seeds it appears in neither, so that nothing is compared.
    """
    if (np.isinf(before) & np.isinf(after)).mean() > _MOST:
        raise NotTestable(f"in most seeds it appears on neither side: {words}")
    return Effects(onset_effects(before, after), words)


def order(first: Float[np.ndarray, " seeds"], then: Float[np.ndarray, " seeds"], words: str) -> Effects:
    """How many times later the second of two things appears in the same runs than the first, as a logarithm.

    Args:
        first, then: the step of each seed, inf for never.
        words: what they are, in a clause.

    Raises:
        NotTestable: most runs end without one of the two, so that its place in the order is not known.
    """
    if (np.isinf(first) | np.isinf(then)).mean() > _MOST:
        raise NotTestable(f"most runs end without one of the two: {words}")
    return Effects(onset_effects(first, then), words)


def onset_ratio(runs: Runs, control: Place, arm: Place) -> Effects:
    """`delay` of copying in the arm."""
    seeds = runs.seeds(control, arm)
    before, after = (copying_onset(runs, place, seeds) for place in (control, arm))
    words = f"copying appears at {steps_in_words(before)}, in the arm at {steps_in_words(after)}"
    return delay(before, after, words)


def matching_onset(runs: Runs, place: Place, seeds: Seeds) -> Float[np.ndarray, " seeds"]:
    """Step from which some head matches prefixes as strong ones do; inf for never."""
    return runs.onset(place, "prefix_matching", seeds, above=PREFIX_MATCHING)


def worst_inside(values: Float[np.ndarray, "seeds doses"]) -> Int[np.ndarray, " seeds"]:
    """For each seed the dose that is highest on the mean of all others, the two ends left out.

    Args:
        values: one row per seed, doses ascending; at least two seeds and three doses.

    Raises:
        ByroteError: fewer.
    """
    n, k = values.shape
    if n < 2 or k < 3:
        raise ByroteError(
            f"{n} seeds and {k} doses leave no interior dose", help="give at least 2 seeds and 3 doses"
        )
    others = values.sum(0) - values
    return 1 + others[:, 1:-1].argmax(1)


def inner_peak(values: Float[np.ndarray, "seeds doses"]) -> Float[np.ndarray, " seeds"]:
    """By how much a dose inside is above the higher of both ends; the dose is chosen on the other seeds.

    Below 0 on average where doses do not matter: one value stands against the higher of two.

    Args:
        values: one row per seed, doses ascending; at least two seeds and three doses.

    Raises:
        ByroteError: fewer.
    """
    at = worst_inside(values)
    return values[np.arange(len(values)), at] - np.maximum(values[:, 0], values[:, -1])


def worst_dose(runs: Runs, doses: Sequence[Place], metric: str, seeds: Seeds) -> list[Place]:
    """For each seed the place, inside the doses, that is worst on the other seeds."""
    return [doses[at] for at in worst_inside(final_values(runs, doses, metric, seeds))]


def inverted_u(runs: Runs, doses: Sequence[Place], metric: str, *, called: str = "a pool of") -> Effects:
    """`inner_peak` of the final values, and where the peaks are.

    Args:
        runs: the table.
        doses: the places, doses ascending.
        metric: that is damaged; higher is worse.
        called: what the doses are, before their names.
    """
    seeds = runs.seeds(*doses)
    values = final_values(runs, doses, metric, seeds)
    where = values.argmax(1)
    counts = {
        doses[i].arm: int((where == i).sum())
        for i in sorted(set(where.tolist()), key=lambda i: -(where == i).sum())
    }
    text = ", ".join(f"{called} {_last_word(arm)} in {n} of {len(seeds)} seeds" for arm, n in counts.items())
    means = values.mean(0)
    top = int(means.argmax())
    return Effects(
        inner_peak(values),
        f"worst at {text}; means {means[0]:.2f} at the first dose, {means[top]:.2f} at the worst, {means[-1]:.2f} at the last",
    )


def inverted_u_onsets(runs: Runs, doses: Sequence[Place], metric: str) -> Effects:
    """How many times later copying appears at the worst dose (by final values of other seeds) than at the later of both ends."""
    seeds = runs.seeds(*doses)
    at = worst_inside(final_values(runs, doses, metric, seeds))
    onsets = np.stack([copying_onset(runs, place, seeds) for place in doses], axis=1)
    worst, ends = onsets[np.arange(len(seeds)), at], np.maximum(onsets[:, 0], onsets[:, -1])
    words = f"copying appears at {steps_in_words(worst)} at the worst dose, at {steps_in_words(ends)} at the later end"
    return delay(ends, worst, words)


def against_worst(
    runs: Runs, control: Place, doses: Sequence[Place], metric: str, *, by: str = "test_loss"
) -> Effects:
    """Final value at the worst dose minus that of the control; the dose is the one whose `by` is worst on the other seeds."""
    seeds = runs.seeds(control, *doses)
    worst = worst_dose(runs, doses, by, seeds)
    values = np.array(
        [runs.final(place, metric, [seed])[0] for place, seed in zip(worst, seeds, strict=True)]
    )
    base = runs.final(control, metric, seeds)
    return Effects(values - base, f"{base.mean():.2f} without repeats, {values.mean():.2f} at the worst dose")


def rise_and_fall(values: Float[np.ndarray, " steps"]) -> float:
    """The smaller of a curve's rise after its first fall and of the fall after that rise; 0 where there are none.

    Medians of three neighbouring steps are taken first, so that one step alone makes neither.

    Args:
        values: a loss at ascending steps.
    """
    if len(values) < 5:
        return 0.0
    smooth = np.median(np.stack([values[:-2], values[1:-1], values[2:]]), axis=0)
    before = np.minimum.accumulate(smooth)
    after = np.minimum.accumulate(smooth[::-1])[::-1]
    fallen = smooth[0] - before
    return float(np.minimum(np.minimum(smooth - before, smooth - after), fallen).max())


def steps_in_words(onsets: Float[np.ndarray, " seeds"]) -> str:
    """``step 400 (median; 1 of 5 never)``."""
    middle = float(np.sort(onsets)[(len(onsets) - 1) // 2])
    never = int(np.isinf(onsets).sum())
    text = "no step" if np.isinf(middle) else f"step {middle:,.0f}"
    return f"{text} (median; {never} of {len(onsets)} never)" if never else f"{text} (median)"


def _last_word(arm: str) -> str:
    return arm.split()[-1].removeprefix("P")
