"""Interventions in a line: take heads away, force where they look, or bring them from another step, and see the loss.

    br.ablate(model, "L1H0", how="mean")
    br.clamp(model, "L1H0", to="induction")
    br.graft("runs/a", ["L0H3", "L1H0"], from_step=2400, into_step=600)

The heads named are changed together. Losses are those of the probes `ablation` and `clamp`: on the tokens that can be copied,
of the random tokens that a sweep with the same seed shows; or of sequences of one's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.opening import open_series
from byrote.checkpoints.series import Checkpoint, CheckpointSeries
from byrote.checkpoints.setting import is_whole
from byrote.interp.axes import head_label, parse_heads
from byrote.interp.in_memory import hooked
from byrote.interp.intervene import Edit, Head, clean_run, edit_problem, losses_under
from byrote.interp.model import HookedModel
from byrote.probes.circuits.clamp import perfect_induction, perfect_previous
from byrote.probes.circuits.effects import every_token, later_blocks, repeated_stimulus, series_of_one
from byrote.probes.circuits.graft import graft_steps
from byrote.probes.heads.matching import earlier_copies
from byrote.probes.sequences import Stimulus
from byrote.probes.statistics import bootstrap_mean
from byrote.probes.wording import as_html, interval, visible

Heads = str | Head | Iterable[str | Head]
Model = HookedModel | nn.Module | Checkpoint | str | Path
IDEALS = ("induction", "previous_token")
_LOSS_ON = {True: "loss on repeated tokens", False: "loss"}


@dataclass(frozen=True, eq=False, repr=False)
class Effect:
    """What an intervention does to the loss.

    Attributes:
        what: the heads and what was done to them.
        rows: one row per metric (`clean`, `changed`, `change`, in nats): heads, how, metric, value, lo, hi (95% interval
            over sequences), n.
        samples: the change in nats of every sequence, paired with the run that was left alone.
        loss_on: which loss it is, in words.
    """

    what: str
    rows: pd.DataFrame
    samples: Float[np.ndarray, " n_seq"]
    loss_on: str = "loss"

    @property
    def change(self) -> float:
        """Mean change of the loss, nats; above 0 where the model is worse for it."""
        return self._of("change").value

    @property
    def lo(self) -> float:
        """Lower end of the change's 95% interval, nats."""
        return self._of("change").lo

    @property
    def hi(self) -> float:
        """Upper end of the change's 95% interval, nats."""
        return self._of("change").hi

    def _of(self, metric: str) -> Any:
        return next(row for row in self.rows.itertuples(index=False) if row.metric == metric)

    def __repr__(self) -> str:
        clean, changed, change = (self._of(name) for name in ("clean", "changed", "change"))
        return visible(
            f"{self.what}: {self.loss_on} {clean.value:.3f} → {changed.value:.3f} nats, "
            f"{interval(change.value, change.lo, change.hi, sign=True)}, n={change.n}"
        )

    def _repr_html_(self) -> str:
        """For notebooks; offline, everything escaped."""
        table = self.rows.to_html(index=False, float_format="%.3f", escape=True, border=0)
        return f"<p><b>{as_html(repr(self))}</b></p>{table}"


def ablate(
    model: Model,
    heads: Heads,
    how: str = "mean",
    *,
    stimulus: Stimulus | None = None,
    sequences: int = 32,
    seed: int = 0,
) -> Effect:
    """Ablate heads, all of them together, and measure the loss with and without them.

    Args:
        model: from `br.load`, a checkpoint of a series, the path of one, or a model in memory (which is copied).
        heads: `"L1H0"`, `(1, 0)` or a list of either.
        how: "mean" (their mean over the other sequences), "zero", "resample" (that of another sequence), or
            "pattern_preserving" (zero, with the attention of all later heads kept).
        stimulus: sequences of one's own, see `Stimulus.from_tokens`; the sweep's random repeated tokens if left out.
        sequences: how many of those; `n_seq` of a sweep.
        seed: of tokens, resampling and bootstrap.

    Returns:
        The change with its 95% interval over sequences; of one head the same numbers as the probe `ablation`.

    Raises:
        ByroteError: a head the model does not have, an unknown way, or a model whose edits cannot be relied on.
    """
    loaded, chosen = hooked(model), parse_heads(heads)
    shown = _shown(loaded, chosen, stimulus, n_seq=sequences, seed=seed)
    tokens = torch.from_numpy(shown.tokens)
    _refuse(edit_problem(loaded, tokens, patterns=how == "pattern_preserving"))
    clean = clean_run(loaded, tokens, layers={layer for layer, _ in chosen}, seed=seed)
    return _effect(loaded, chosen, f"ablated ({how})", how, clean.ablation(how, chosen), shown, seed=seed)


def clamp(
    model: Model,
    heads: Heads,
    to: str | Float[np.ndarray, "*n_seq query_pos key_pos"] = "induction",
    *,
    stimulus: Stimulus | None = None,
    sequences: int = 32,
    seed: int = 0,
) -> Effect:
    """Force the attention of heads, all of them together, and measure the loss with and without.

    Args:
        model, heads, stimulus, sequences, seed: as for `ablate`.
        to: "induction" (on what followed earlier copies of the token, evenly), "previous_token", or a pattern of one's
            own, of weights at or before the query; a query whose weights are all 0 keeps its own attention.

    Returns:
        The change with its 95% interval over sequences; of one head the same numbers as the probe `clamp`.

    Raises:
        ByroteError: as for `ablate`; a pattern of another shape, or that looks ahead.
    """
    loaded, chosen = hooked(model), parse_heads(heads)
    shown = _shown(loaded, chosen, stimulus, n_seq=sequences, seed=seed)
    tokens = torch.from_numpy(shown.tokens)
    _refuse(edit_problem(loaded, tokens, patterns=True))
    pattern = _pattern(to, shown)
    name = to if isinstance(to, str) else "a pattern of one's own"
    edit = Edit(patterns=dict.fromkeys(chosen, pattern))
    return _effect(loaded, chosen, f"clamped to {name}", name, edit, shown, seed=seed)


def graft(
    series: CheckpointSeries | str | Path,
    heads: Heads,
    *,
    from_step: int,
    into_step: int,
    sequences: int = 32,
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
) -> pd.DataFrame:
    """Put heads of one step into another, all of them together, in three ways, and measure how much of the loss difference they restore.

    Args:
        series: holds both steps; or its path.
        heads: as for `ablate`.
        from_step, into_step: steps of it.
        sequences, seed: how many sequences of random repeated tokens, and the seed of all draws.
        device, dtype: where and how the model runs.

    Returns:
        One row per way (weights, z, pattern) and metric (loss, change, control in nats; returned, a fraction), with 95%
        intervals; see `byrote.probes.circuits.graft.graft`.

    Raises:
        ByroteError: a step or head there is not, or heads that share keys and values with others.
    """
    opened = series if isinstance(series, CheckpointSeries) else open_series(series)
    sizes: Mapping[str, Any] = {"seed": seed, "n_seq": sequences, "device": device, "dtype": dtype}
    return graft_steps(opened, from_step=from_step, into_step=into_step, heads=parse_heads(heads), **sizes)


def _refuse(problem: str) -> None:
    if problem:
        raise ByroteError(
            f"this model cannot be intervened on: {problem}", help="choose another model or step"
        )


def _shown(
    model: HookedModel, heads: Sequence[Head], stimulus: Stimulus | None, *, n_seq: int, seed: int
) -> Stimulus:
    if not heads:
        raise ByroteError("no head is named", help="write layer and head as L5H1 or (5, 1)")
    shape = model.shape
    for layer, head in heads:
        if not (0 <= layer < shape.n_layers and 0 <= head < shape.n_heads):
            raise ByroteError(
                f"there is no {head_label(layer, head)}: the model has {shape.n_layers} layers of {shape.n_heads} heads",
                help=f"the last one is {head_label(shape.n_layers - 1, shape.n_heads - 1)}",
            )
    if stimulus is not None and not isinstance(stimulus, Stimulus):
        raise ByroteError(
            f"stimulus={stimulus!r:.80} is not a Stimulus",
            help="make one: br.Stimulus.from_tokens(np.load('blocks.npy'), bos=0, copies=2)",
        )
    if stimulus is None and not (is_whole(n_seq) and n_seq > 0):
        raise ByroteError(f"sequences={n_seq!r} is not a number of sequences", help="give 8 or more")
    if stimulus is None:
        return repeated_stimulus(model, series_of_one(model.checkpoint), n_seq=n_seq, seed=seed)
    if stimulus.tokens.shape[1] > shape.n_ctx or stimulus.tokens.max() >= shape.d_vocab:
        raise ByroteError(
            f"the sequences have {stimulus.tokens.shape[1]} tokens, the highest id {stimulus.tokens.max()}",
            help=f"the model takes {shape.n_ctx} tokens, ids below {shape.d_vocab}",
        )
    return stimulus


def _pattern(to: Any, shown: Stimulus) -> Float[Tensor, "n_seq query_pos key_pos"]:
    n_seq, pos = shown.tokens.shape
    if isinstance(to, str):
        if to not in IDEALS:
            raise ByroteError(f"there is no ideal pattern {to!r}", help=did_you_mean(to, IDEALS))
        if to == "induction":
            return perfect_induction(earlier_copies(torch.from_numpy(shown.match_tokens)))
        return perfect_previous(pos).expand(n_seq, -1, -1)
    if to is None:
        raise ByroteError("no pattern to clamp to is named", help=did_you_mean("", IDEALS))
    weights = torch.as_tensor(np.asarray(to, dtype=np.float32))
    pattern = weights.expand(n_seq, pos, pos) if weights.shape in ((pos, pos), (n_seq, pos, pos)) else None
    if pattern is None or pattern.triu(1).any() or (pattern < 0).any() or not pattern.isfinite().all():
        raise ByroteError(
            f"the pattern has shape {list(np.shape(to))}, looks ahead, or is negative somewhere",
            help=f"weights [{pos}, {pos}] or [{n_seq}, {pos}, {pos}], 0 above the diagonal",
        )
    return pattern


def _effect(
    model: HookedModel, heads: list[Head], done: str, how: str, edit: Edit, shown: Stimulus, *, seed: int
) -> Effect:
    copied = bool((shown.copy_index > 1).any())
    measure = later_blocks(shown) if copied else every_token()
    clean, changed = (
        measure(losses_under(model, torch.from_numpy(shown.tokens), [Edit(), edit])).double().numpy()
    )
    label = ",".join(head_label(*head) for head in heads)
    rows = []
    for metric, samples in (("clean", clean), ("changed", changed), ("change", changed - clean)):
        found = bootstrap_mean(samples[:, None], seed=seed)
        ends = {name: float(getattr(found, name)[0]) for name in ("value", "lo", "hi")}
        rows.append({"heads": label, "how": how, "metric": metric, **ends, "n": int(found.n[0])})
    return Effect(f"{label} {done}", pd.DataFrame(rows), changed - clean, _LOSS_ON[copied])
