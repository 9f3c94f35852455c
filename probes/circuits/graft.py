"""Graft: put heads of one step into another, and see what returns.

Source: Singh et al. 2024, arXiv:2404.07129 (sub-circuits taken from another point of training). The controls are byrote's own.

1. into, from: loss on later blocks of repeated random tokens at the two steps, nothing changed
2. weights: the loss at the step `into` with the heads' own weights (W_Q, W_K, W_V, W_O and their biases) from the other
   step; z: with their outputs as they are there on the same tokens; pattern: with their attention as it is there,
   applied to the values of the step `into`
3. change = 2 minus into, paired by sequence; returned = what the graft gives back of the way from into to from: mean
   change over mean (from - into), bootstrapped together; undefined where the two steps do not differ significantly
4. control: the change when as many other heads of the same layers are grafted instead, mean over up to 20 distinct
   draws; where a layer has too few others, or they share keys and values with the rest, there is none
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.series import CheckpointSeries, at_hand
from byrote.interp.axes import head_label
from byrote.interp.bridge import HookedSeries
from byrote.interp.graft import Graft, grafted, take
from byrote.interp.intervene import Edit, Head, clean_run, edit_problem, losses_under, patterns_of
from byrote.interp.model import HookedModel
from byrote.probes.circuits.effects import later_blocks, matched_draws, repeated_stimulus, shown
from byrote.probes.statistics import bootstrap_mean, ratio_of_means
from byrote.probes.stimuli import Stimulus

WAYS = ("weights", "z", "pattern")
METRICS = ("loss", "change", "returned", "control", "n_draws")
Estimate = tuple[float, float, float, int]
COLUMNS = ("from_step", "into_step", "heads", "way", "metric", "value", "lo", "hi", "n", "valid", "reason")


def graft_steps(
    series: CheckpointSeries,
    *,
    from_step: int,
    into_step: int,
    heads: Sequence[Head],
    seed: int = 0,
    n_seq: int = 32,
    device: str = "cpu",
    dtype: str = "float32",
) -> pd.DataFrame:
    """`graft` on the repeated random tokens that a sweep with the same seed would show.

    Args:
        series: holds both steps.
        from_step, into_step: steps of it.
        heads: grafted together.
        seed: of the tokens, draws and bootstraps.
        n_seq: sequences.
        device, dtype: where and how the model runs.

    Raises:
        ByroteError: a step or head there is not, heads that share keys and values with others, or a context or
            vocabulary too small for a repeated block.
        CheckpointError: a step that cannot be loaded.
    """
    hooked = HookedSeries(series, device=device, dtype=getattr(torch, dtype))
    series.at(into_step)
    stimulus = repeated_stimulus(_load(hooked, from_step), series, seed=seed, n_seq=n_seq)
    return graft(hooked, stimulus, from_step=from_step, into_step=into_step, heads=heads, seed=seed)


def _load(hooked: HookedSeries, step: int) -> HookedModel:
    checkpoint = hooked.series.at(step)
    with at_hand(checkpoint):
        return hooked.load(checkpoint)


def graft(
    hooked: HookedSeries,
    stimulus: Stimulus,
    *,
    from_step: int,
    into_step: int,
    heads: Sequence[Head],
    seed: int = 0,
) -> pd.DataFrame:
    """Take heads from one step of a series into another and measure copying.

    Args:
        hooked: the series; afterwards it holds `into_step`, unchanged.
        stimulus: of kind "repeated_random".
        from_step, into_step: steps the series holds.
        heads: grafted together.
        seed: of draws and bootstraps.

    Returns:
        One row per way and metric, in `COLUMNS`: `from` and `into` (nats, way ""), and for each way `loss`, `change`,
        `control` (nats), `returned` (fraction) and `n_draws`. Where valid is False, reason says why.

    Raises:
        ByroteError: a step or head there is not, or heads that share keys and values with others.
        CheckpointError: a step that cannot be loaded.
    """
    measure, tokens = later_blocks(stimulus), shown(stimulus)

    def loss_of(model: HookedModel, edit: Edit | None = None) -> Float[np.ndarray, " n_seq"]:
        return measure(losses_under(model, tokens, [edit or Edit()]))[0].double().numpy()

    donor = _load(hooked, from_step)
    grafts = [
        take(donor, heads)
    ]  # before the donor's weights are gone: the heads, then those of each control
    sizes = {"n_layers": donor.shape.n_layers, "n_heads": donor.shape.n_heads}
    for others in matched_draws(heads, **sizes, seed=seed, by_depth=False).sets:
        with suppress(ByroteError):  # they share keys and values with heads that were not drawn
            grafts.append(take(donor, others))
    layers = {layer for layer, _ in heads}
    z, patterns = clean_run(donor, tokens, layers=layers).z, patterns_of(donor, tokens, layers=layers)
    loss = {"from": loss_of(donor)}
    model = _load(hooked, into_step)
    loss["into"] = loss_of(model)

    def loss_under(way: str, graft: Graft) -> Float[np.ndarray, " n_seq"]:
        if way == "weights":
            with grafted(model, graft):
                return loss_of(model)
        if way == "z":
            return loss_of(model, Edit(outputs={(l, h): z[l][:, :, h] for l, h in graft.heads}))
        return loss_of(model, Edit(patterns={(l, h): patterns[l][:, h] for l, h in graft.heads}))

    rows = [_row("", name, _interval(values, seed)) for name, values in loss.items()]
    problems = {
        "z": edit_problem(model, tokens),
        "pattern": edit_problem(model, tokens, patterns=True),
    }
    for way in WAYS:
        under = [loss_under(way, graft) for graft in grafts]
        rows += _rows(way, loss, under, seed=seed, problem=problems.get(way, ""))
    frame = pd.DataFrame(rows)
    frame["from_step"], frame["into_step"] = from_step, into_step
    frame["heads"] = ",".join(head_label(*head) for head in grafts[0].heads)
    return frame[list(COLUMNS)]


def _rows(
    way: str, loss: Mapping[str, np.ndarray], under: Sequence[np.ndarray], *, seed: int, problem: str
) -> list[dict[str, Any]]:
    if problem:
        return [_row(way, metric, None, problem) for metric in METRICS]
    own, others = under[0], under[1:]
    change = own - loss["into"]  # 3.
    rows = [
        _row(way, "loss", _interval(own, seed)),
        _row(way, "change", _interval(change, seed)),
        _row(way, "returned", *_returned(change, loss["from"] - loss["into"], seed)),
    ]
    none = "no other heads of these layers can be grafted instead"
    control = np.mean([o - loss["into"] for o in others], axis=0) if others else None  # 4.
    rows.append(_row(way, "control", None if control is None else _interval(control, seed), none))
    n_draws = (float(len(others)),) * 3
    return [*rows, _row(way, "n_draws", (*n_draws, len(own)))]


def _interval(samples: Float[np.ndarray, " n_seq"], seed: int) -> Estimate:
    found = bootstrap_mean(samples[:, None], seed=seed)
    return float(found.value[0]), float(found.lo[0]), float(found.hi[0]), int(found.n[0])


def _returned(
    change: Float[np.ndarray, " n_seq"], way_back: Float[np.ndarray, " n_seq"], seed: int
) -> tuple[Estimate | None, str]:
    """Mean change over the mean difference of the two steps, resampled together."""
    _, lo, hi, n = _interval(way_back, seed)
    if not (lo > 0 or hi < 0):
        return None, "the two steps do not clearly differ"
    return (*ratio_of_means(change, way_back, seed=seed), n), ""


def _row(way: str, metric: str, estimate: Estimate | None, reason: str = "") -> dict[str, Any]:
    value, lo, hi, n = estimate or (np.nan, np.nan, np.nan, 0)
    valid = bool(np.isfinite(value))
    reason = "" if valid else reason or "the loss is not finite"
    names = ("way", "metric", "value", "lo", "hi", "n", "valid", "reason")
    return dict(zip(names, (way, metric, value, lo, hi, n, valid, reason), strict=True))
