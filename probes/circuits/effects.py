"""What every causal probe shares: what ablating heads does to losses, and random heads as controls for chosen ones."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from byrote.checkpoints.series import Checkpoint, CheckpointSeries
from byrote.checkpoints.untrained import untrained_in
from byrote.checkpoints.vocabulary import tokenizer_of, usable_ids
from byrote.interp.intervene import Edit, Head, clean_run, edit_problem, losses_under
from byrote.interp.model import HookedModel
from byrote.probes.model.repeat_loss import can_be_copied
from byrote.probes.spec import NotMeasuredError
from byrote.probes.stimuli import Stimulus, Vocabulary, make

Measure = Callable[[Float[Tensor, "n_edits n_seq next_pos"]], Float[Tensor, "n_edits n_seq"]]

N_DRAWS = 20


def shown(stimulus: Stimulus) -> Int[Tensor, "n_seq pos"]:
    """The tokens of a stimulus."""
    return torch.from_numpy(stimulus.tokens)


def refuse_if(problem: str) -> None:
    """Give up with a reason, if there is one.

    Raises:
        NotMeasuredError: there is.
    """
    if problem:
        raise NotMeasuredError(problem)


def strongest(
    scores: Float[np.ndarray, "n_layers n_heads"], k: int, *, first_layer: int = 0
) -> tuple[Head, ...]:
    """The k heads with the highest scores, in the model's order; ties go to the earlier head, NaN counts as lowest.

    Args:
        scores: of the heads of some layers.
        k: how many.
        first_layer: which layer the first row is.
    """
    order = np.argsort(-np.nan_to_num(scores, nan=-np.inf).ravel(), kind="stable")[:k]
    return tuple(sorted((first_layer + int(i) // scores.shape[1], int(i) % scores.shape[1]) for i in order))


def later_blocks(stimulus: Stimulus) -> Measure:
    """Mean loss over the tokens of the second and later copies but the first of each, as `repeat_loss` takes it."""
    later = can_be_copied(torch.from_numpy(stimulus.copy_index)).float()
    return lambda nll: (nll * later).sum(-1) / later.sum(-1)


def every_token() -> Measure:
    """Mean loss over all tokens but the first, which nothing predicts."""
    return lambda nll: nll.mean(-1)


def series_of_one(checkpoint: Checkpoint) -> CheckpointSeries:
    """A checkpoint as a series, for what is known of a series alone."""
    return CheckpointSeries(checkpoint.path.name, checkpoint.path, checkpoint.format, (checkpoint,))


def repeated_stimulus(
    model: HookedModel, series: CheckpointSeries, *, seed: int = 0, n_seq: int = 32
) -> Stimulus:
    """The repeated random tokens that a sweep of a series with the same seed shows its models.

    Args:
        model: of the series.
        series: says which ids were never trained.
        seed, n_seq: of the sweep.

    Raises:
        ByroteError: a context or vocabulary too small for a repeated block.
    """
    never = untrained_in(series, model.shape.d_vocab)
    ids, bos, note = usable_ids(
        model.config, model.shape.d_vocab, tokenizer=tokenizer_of(series[0]), untrained=never
    )
    vocabulary = Vocabulary(np.asarray(ids, dtype=np.int64), bos, note)
    return make("repeated_random", vocabulary, n_ctx=model.shape.n_ctx, seed=seed, n_seq=n_seq)


def head_changes(
    model: HookedModel,
    tokens: Int[Tensor, "n_seq pos"],
    *,
    kinds: Sequence[str],
    measures: Mapping[str, Measure],
    seed: int,
) -> dict[tuple[str, str], Float[np.ndarray, "n_seq n_layers n_heads"]]:
    """Ablate every head alone, in every requested way, and measure each loss with and without.

    Args:
        model: a loaded checkpoint; it is left as it was.
        tokens: the sequences.
        kinds: of ablation; see `byrote.interp.intervene`.
        measures: name -> one number per sequence from its losses.
        seed: of the permutation that `resample` takes other sequences by.

    Returns:
        (measure, kind) -> value with the head ablated minus value without, paired by sequence.
    """
    shape = model.shape
    found = {
        (name, kind): np.full((len(tokens), shape.n_layers, shape.n_heads), np.nan)
        for name in measures
        for kind in kinds
    }
    for layer in range(shape.n_layers):  # one layer's clean outputs in memory at a time
        clean = clean_run(model, tokens, layers=[layer], seed=seed)
        singles = [(kind, (layer, head)) for kind in kinds for head in range(shape.n_heads)]
        edits = [Edit(), *(clean.ablation(kind, [head]) for kind, head in singles)]
        nll = losses_under(model, tokens, edits)
        for name, measure in measures.items():
            values = measure(nll).double()
            changes = (values[1:] - values[0]).numpy()
            for (kind, (_, head)), change in zip(singles, changes, strict=True):
                found[name, kind][:, layer, head] = change
    return found


def set_changes(
    model: HookedModel,
    tokens: Int[Tensor, "n_seq pos"],
    sets: Sequence[Sequence[Head]],
    *,
    kind: str,
    measure: Measure,
    seed: int,
) -> Float[np.ndarray, "n_sets n_seq"]:
    """Ablate sets of heads, each set together, and measure the loss with and without.

    Args:
        model: a loaded checkpoint; it is left as it was.
        tokens: the sequences.
        sets: of heads.
        kind: of ablation; see `byrote.interp.intervene`.
        measure: one number per sequence from its losses.
        seed: of the permutation that `resample` takes other sequences by.
    """
    clean = clean_run(model, tokens, layers={layer for heads in sets for layer, _ in heads}, seed=seed)
    edits = [Edit(), *(clean.ablation(kind, heads) for heads in sets)]
    values = measure(losses_under(model, tokens, edits)).double()
    return (values[1:] - values[0]).numpy()


def checked_tokens(model: HookedModel, stimulus: Stimulus) -> Int[Tensor, "n_seq pos"]:
    """The tokens of a stimulus, once edits were seen to work on them.

    Raises:
        NotMeasuredError: edits of this model cannot be relied on, or there is one sequence only.
    """
    tokens = shown(stimulus)
    refuse_if("" if len(tokens) > 1 else "ablation by mean or resampling needs two sequences")
    refuse_if(edit_problem(model, tokens))
    return tokens


@dataclass(frozen=True)
class Draws:
    """Random sets of heads, none of them holding a chosen one.

    Attributes:
        sets: distinct, each with as many heads as the chosen set; sorted heads.
        n_possible: how many distinct sets there are; `sets` are all of them where that is not more than was requested.
            NaN where they are matched by depth, and not counted.
        layers_away: how far from a chosen head's layer its stand-in may be: 0, matched by layer; else matched by depth.
        lacking: why there are no sets; "" where there are.
    """

    sets: tuple[tuple[Head, ...], ...]
    n_possible: float
    layers_away: int = 0
    lacking: str = ""


def matched_draws(
    chosen: Sequence[Head],
    *,
    n_layers: int,
    n_heads: int,
    seed: int,
    n_draws: int = N_DRAWS,
    by_depth: bool = True,
) -> Draws:
    """Distinct random sets beside a chosen set, without its heads: of the same layers, or of layers at nearly the same depth.

    A layer with fewer other heads than were chosen from it draws from the layers around it, as near as suffices and at
    most a third of the model's depth away; the other layers draw from themselves. In a model of two layers that is none:
    there the layer before holds another part of the same circuit.

    Args:
        chosen: the heads the random ones stand beside.
        n_layers, n_heads: of the model; heads per layer.
        seed: of the draws.
        n_draws: how many sets; all of them where there are not more.
        by_depth: whether other layers may stand in at all.
    """
    taken, reach = set(chosen), n_layers // 3 if by_depth else 0
    if not taken:
        return Draws((), 0, lacking="there are no such heads")
    wanted = Counter(layer for layer, _ in taken)
    free = {l: [(l, h) for h in range(n_heads) if (l, h) not in taken] for l in range(n_layers)}
    rng = np.random.default_rng([seed, 12, len(taken)])
    short = {l: n for l, n in sorted(wanted.items()) if len(free[l]) < n}
    if not short:
        return _of_the_same_layers(wanted, free, rng, n_draws)
    for away in range(1, reach + 1):
        if sets := _of_layers_around(wanted, free, rng, n_draws, away=away, short=short):
            return Draws(tuple(sorted(sets)), math.nan, layers_away=away)
    layer, n = next(iter(short.items()))
    near = f", nor have the {reach} layers on either side" if reach else ""
    others = f"layer {layer} has {len(free[layer])} other heads for the {n} chosen from it{near}"
    return Draws((), 0, lacking=f"{others}: nothing to compare with")


def _of_the_same_layers(
    wanted: Mapping[int, int], free: Mapping[int, list[Head]], rng: np.random.Generator, n_draws: int
) -> Draws:
    layers = sorted(wanted)
    n_possible = math.prod(math.comb(len(free[l]), wanted[l]) for l in layers)
    if n_possible <= n_draws:
        per_layer = [itertools.combinations(free[l], wanted[l]) for l in layers]
        return Draws(
            tuple(tuple(itertools.chain(*parts)) for parts in itertools.product(*per_layer)), n_possible
        )
    sets: set[tuple[Head, ...]] = set()
    while len(sets) < n_draws:
        drawn = [free[l][i] for l in layers for i in rng.permutation(len(free[l]))[: wanted[l]]]
        sets.add(tuple(sorted(drawn)))
    return Draws(tuple(sorted(sets)), n_possible)


def _of_layers_around(
    wanted: Mapping[int, int],
    free: Mapping[int, list[Head]],
    rng: np.random.Generator,
    n_draws: int,
    *,
    away: int,
    short: Mapping[int, int],
) -> set[tuple[Head, ...]]:
    """Sets in which layers that are short of heads draw from those around them, after every other has drawn its own."""
    sets: set[tuple[Head, ...]] = set()
    for _ in range(10 * n_draws):
        drawn: list[Head] = []
        for layer in sorted(wanted, key=lambda l: l in short):
            reach = away if layer in short else 0
            pool = [
                head
                for l in range(layer - reach, layer + reach + 1)
                for head in free.get(l, [])
                if head not in drawn
            ]
            drawn += [pool[i] for i in rng.permutation(len(pool))[: wanted[layer]]]
        if len(drawn) == sum(wanted.values()):
            sets.add(tuple(sorted(drawn)))
        if len(sets) == n_draws:
            break
    return sets
