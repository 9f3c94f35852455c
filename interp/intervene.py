"""Interventions on activations during a forward pass, and their effect. Weights are never changed.

Every change is made at z, a head's output before W_O: it is exact on every architecture the bridge supports. Attention
patterns are not edited where they are shown (some architectures ignore that) but applied to the run's own values,
z = pattern @ v, which `edit_problem` checks on the model at hand before anyone relies on it.

Kinds of ablation
    zero                 z = 0
    mean                 z = the mean over the other sequences of the stimulus at the same position (Wang et al. 2022,
                         arXiv:2211.00593, who align a reference distribution by position); what a head does whatever
                         the tokens are stays, what it says about them goes. A sequence is left out of its own mean
    resample             z = that of another sequence of the stimulus (Chan et al. 2022, causal scrubbing); by a seeded
                         permutation without fixed points
    pattern_preserving   z = 0, and every head of a later layer keeps the attention pattern of the clean run (Olsson et
                         al. 2022, arXiv:2209.11895): what the head does other than by moving others' attention

Several edits are made in one pass: the sequences are shown once per edit, one block of rows behind another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.interp.model import HookedModel, ModelShape
from byrote.interp.observe import Keeper, LayerView, Observer, heads_apart, observe

Head = tuple[int, int]
ABLATIONS = ("zero", "mean", "resample", "pattern_preserving")
_BUDGET_BYTES = 256 * 2**20
_MOST_ROWS = 128
_REBUILD_TOLERANCE = 1e-3
_REBUILD_TOLERANCE_HALF = 5e-2
_MOVED_FRAC = 1e-6


@dataclass(frozen=True, eq=False)
class Edit:
    """What is changed in one run. Sequence i of every tensor belongs to sequence i of the tokens.

    Attributes:
        outputs: head -> what is put in place of its z.
        patterns: head -> the pattern that is applied to the run's own values; a query whose row is all zero keeps its
            own z.
        keep_patterns: every layer after the first one edited uses the attention patterns of the clean run.
    """

    outputs: Mapping[Head, Float[Tensor, "n_seq pos d_head"]] = field(default_factory=dict)
    patterns: Mapping[Head, Float[Tensor, "n_seq query_pos key_pos"]] = field(default_factory=dict)
    keep_patterns: bool = False

    @property
    def heads(self) -> frozenset[Head]:
        """The heads whose z is changed."""
        return frozenset(self.outputs) | frozenset(self.patterns)

    def reaches(self, layer: int) -> bool:
        """Whether anything is changed at a layer."""
        layers = {l for l, _ in self.heads}
        return layer in layers or bool(self.keep_patterns and layers and layer > min(layers))

    def reads_values(self, layer: int) -> bool:
        """Whether a pattern is applied to a layer's values."""
        late = self.keep_patterns and bool(self.heads) and layer > min(l for l, _ in self.heads)
        return late or any(l == layer for l, _ in self.patterns)


class CleanRun:
    """Head outputs of a run without edits, and what stands in for them in an ablation.

    Args:
        z: layer -> outputs of its heads; at least the layers to be ablated.
        seed: of the permutation that `resample` takes other sequences by.
    """

    def __init__(self, z: Mapping[int, Float[Tensor, "n_seq pos n_heads d_head"]], *, seed: int = 0) -> None:
        self.z = z
        self.donors = (
            derangement(len(next(iter(z.values()))), seed) if z else torch.zeros(0, dtype=torch.long)
        )
        self._stand_ins: dict[tuple[str, int], Tensor] = {}

    def stand_in(self, kind: str, layer: int) -> Float[Tensor, "n_seq pos n_heads d_head"]:
        """What is put in place of a layer's z under one kind of ablation.

        Raises:
            ByroteError: no such kind, or it needs a second sequence and there is none.
        """
        if kind not in ABLATIONS:
            raise ByroteError(f"unknown ablation {kind!r}", help=did_you_mean(kind, ABLATIONS))
        if kind in ("mean", "resample") and len(self.donors) < 2:
            raise ByroteError(
                f"{kind} ablation needs at least two sequences", help="use more, or zero ablation"
            )
        if (kind, layer) not in self._stand_ins:
            z = self.z[layer]
            if kind == "mean":
                made = (z.sum(0, keepdim=True) - z) / (len(z) - 1)
            else:
                made = z[self.donors] if kind == "resample" else torch.zeros_like(z[:1]).expand_as(z)
            self._stand_ins[kind, layer] = made
        return self._stand_ins[kind, layer]

    def ablation(self, kind: str, heads: Iterable[Head]) -> Edit:
        """The edit that ablates some heads together.

        Raises:
            ByroteError: no such kind, or it needs a second sequence and there is none.
        """
        outputs = {(l, h): self.stand_in(kind, l)[:, :, h] for l, h in heads}
        return Edit(outputs=outputs, keep_patterns=kind == "pattern_preserving")


def derangement(n: int, seed: int) -> Int[Tensor, " n"]:
    """A random permutation that leaves nothing in its place: one cycle through all (Sattolo 1986)."""
    rng, order = np.random.default_rng([seed, 11]), np.arange(n)
    for i in range(n - 1, 0, -1):
        j = int(rng.integers(i))
        order[i], order[j] = order[j], order[i]
    return torch.from_numpy(order)


def clean_run(
    model: HookedModel,
    tokens: Int[Tensor, "n_seq pos"],
    *,
    layers: Iterable[int] | None = None,
    seed: int = 0,
) -> CleanRun:
    """Run the model once, unchanged, and keep the head outputs of some layers.

    Args:
        model: a loaded checkpoint.
        tokens: the sequences that will be run with edits.
        layers: which; None means all. They stay in memory: n_seq x pos x d_model numbers each.
        seed: of the permutation that `resample` takes other sequences by.
    """
    keeper = Keeper("z", layers=layers)
    observe(model, tokens, [keeper])
    return CleanRun(keeper.of("z"), seed=seed)


def patterns_of(
    model: HookedModel, tokens: Int[Tensor, "n_seq pos"], *, layers: Iterable[int] | None = None
) -> dict[int, Float[Tensor, "n_seq n_heads query_pos key_pos"]]:
    """Attention patterns of some layers (None: all) of a run without edits. They are large: mind how many."""
    keeper = Keeper("pattern", layers=layers)
    observe(model, tokens, [keeper])
    return keeper.of("pattern")


@contextmanager
def editing(
    model: HookedModel,
    edits: Sequence[Edit],
    *,
    rows: slice = slice(None),
    clean_patterns: Mapping[int, Float[Tensor, "n_rows n_heads query_pos key_pos"]] | None = None,
) -> Iterator[None]:
    """While this is open, every pass of the model is edited; afterwards, and after an error, it is as it was.

    Args:
        model: a loaded checkpoint.
        edits: each is made to one block of rows: passes must show the sequences once per edit, block behind block.
        rows: which sequences of the edits' tensors a block holds.
        clean_patterns: of these rows, by layer; needed by edits with `keep_patterns`.

    Raises:
        ByroteError: a pass whose rows are not one block per edit.
    """
    applied = _Applied(model.shape, list(edits), rows, clean_patterns or {})
    with model.bridge.hooks(fwd_hooks=list(applied.hooks())):
        yield


def losses_under(
    model: HookedModel,
    tokens: Int[Tensor, "n_seq pos"],
    edits: Sequence[Edit],
    *,
    most_rows: int = _MOST_ROWS,
) -> Float[Tensor, "n_edits n_seq next_pos"]:
    """Next-token loss in nats of every sequence under each edit, on the CPU.

    `Edit()` changes nothing: put one first to have the clean losses beside the others.

    Args:
        model: a loaded checkpoint; it is left as it was.
        tokens: the sequences.
        edits: any number; as many as fit are made in one pass.
        most_rows: rows of one pass; fewer where logits or stored patterns would exceed 256 MiB.

    Raises:
        ByroteError: token ids or length the model cannot take.
    """
    n_seq, pos = tokens.shape
    out = torch.empty(len(edits), n_seq, pos - 1)
    keep = any(edit.keep_patterns for edit in edits)
    fit = _rows_that_fit(model.shape, pos, most_rows)
    block = min(n_seq, fit, _patterns_that_fit(model.shape, pos) if keep else n_seq)
    for start in range(0, n_seq, block):
        rows = slice(start, min(start + block, n_seq))
        shown = tokens[rows]
        clean = patterns_of(model, shown) if keep else None
        at_once = max(1, fit // len(shown))
        for first in range(0, len(edits), at_once):
            part = edits[first : first + at_once]
            losses = Keeper("token_nll")
            with editing(model, part, rows=rows, clean_patterns=clean):
                observe(model, shown.repeat(len(part), 1), [losses], batch=len(shown) * len(part))
            out[first : first + len(part), rows] = losses.token_nll.cpu().view(len(part), len(shown), pos - 1)
    return out


def edit_problem(model: HookedModel, tokens: Int[Tensor, "n_seq pos"], *, patterns: bool = False) -> str:
    """Why edits cannot be relied on with this model, or "".

    Args:
        model: a loaded checkpoint.
        tokens: a few of the sequences that will be run; two are used.
        patterns: whether patterns will be set or preserved too: then attention applied to values must be the head outputs.

    Returns:
        A reason, when removing every head's output (or, with `patterns`, giving every head random attention) does not
        move the logits, when z is not pattern @ v, or when the model's losses mean nothing: they are not finite, or its
        predictions depend on later tokens.
    """
    tokens = tokens[:2]
    shape, n, pos = model.shape, *tokens.shape
    if leak := observe(model, tokens, [Keeper("token_nll")]).leak:
        return leak
    heads = [(layer, head) for layer in range(shape.n_layers) for head in range(shape.n_heads)]
    if patterns:
        if problem := _rebuild_problem(model, tokens):
            return problem
        # Random: attention that is even, or all on the first token, may be what an untrained model has.
        weight = torch.rand(pos, pos, generator=torch.Generator().manual_seed(0)).tril()
        pattern = weight / weight.sum(-1, keepdim=True)
        edit = Edit(patterns=dict.fromkeys(heads, pattern.expand(n, pos, pos)))
    else:
        edit = Edit(outputs=dict.fromkeys(heads, torch.zeros(1, 1, 1).expand(n, pos, shape.d_head)))
    clean = model.logits(tokens).float()
    with editing(model, [edit]):
        edited = model.logits(tokens).float()
    if not torch.isfinite(clean).all():
        return "the logits are not finite"
    if (edited - clean).abs().max() > _MOVED_FRAC * clean.std().clamp_min(1e-9):
        return ""
    what = "giving every head random attention" if patterns else "removing the output of every head"
    return f"{what} does not change the logits: the heads write nothing, or the edit does not reach the model"


class _Applied:
    """The hooks of some edits."""

    def __init__(
        self, shape: ModelShape, edits: list[Edit], rows: slice, clean_patterns: Mapping[int, Tensor]
    ) -> None:
        self.shape, self.edits, self.rows, self.clean_patterns = shape, edits, rows, clean_patterns
        self.values: Tensor | None = None

    def hooks(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        for layer in range(self.shape.n_layers):
            if any(edit.reads_values(layer) for edit in self.edits):
                yield f"blocks.{layer}.attn.v.hook_out", self._keep_values
            if any(edit.reaches(layer) for edit in self.edits):
                yield f"blocks.{layer}.attn.o.hook_in", self._z_hook(layer)

    def _keep_values(self, tensor: Tensor, hook: Any) -> None:
        self.values = heads_apart(tensor, self.shape)

    def _z_hook(self, layer: int) -> Callable[..., Tensor]:
        def hook(tensor: Tensor, hook: Any) -> Tensor:
            z = heads_apart(tensor, self.shape).clone()
            if len(z) % len(self.edits):
                raise ByroteError(f"{len(z)} rows are not one block for each of {len(self.edits)} edits")
            values = self.values if self.values is not None else z
            parts = zip(self.edits, z.chunk(len(self.edits)), values.chunk(len(self.edits)), strict=True)
            for edit, part, v in parts:
                self._change(edit, layer, part, v)
            self.values = None
            return z.reshape(tensor.shape)

        return hook

    def _change(self, edit: Edit, layer: int, z: Tensor, v: Tensor) -> None:
        """In place."""
        if edit.keep_patterns and edit.reads_values(layer):
            z.copy_(torch.einsum("bhqk,bkhd->bqhd", self.clean_patterns[layer].to(v.dtype), v))
        for (l, h), pattern in edit.patterns.items():
            if l == layer:
                pattern = pattern[self.rows].to(v)
                forced = pattern.sum(-1, keepdim=True) > 0
                z[:, :, h] = torch.where(forced, pattern @ v[:, :, h], z[:, :, h])
        for (l, h), output in edit.outputs.items():
            if l == layer:
                z[:, :, h] = output[self.rows].to(z)


class _RebuildError(Observer):
    """How far pattern @ v is from z, relative to z's standard deviation, at its worst."""

    needs = frozenset({"pattern", "v", "z"})
    worst = 0.0

    def see_layer(self, view: LayerView) -> None:
        assert view.pattern is not None and view.v is not None and view.z is not None
        z = view.z.float()
        rebuilt = torch.einsum("bhqk,bkhd->bqhd", view.pattern.float(), view.v.float())
        off = ((rebuilt - z).abs().max() / z.std().clamp_min(1e-9)).item()
        self.worst = off if off != off else max(self.worst, off)


def _rebuild_problem(model: HookedModel, tokens: Tensor) -> str:
    watcher = _RebuildError()
    report = observe(model, tokens, [watcher])
    if report.problems:
        return min(report.problems.items())[1]
    half = model.dtype in (torch.bfloat16, torch.float16)
    if watcher.worst <= (_REBUILD_TOLERANCE_HALF if half else _REBUILD_TOLERANCE):
        return ""
    return (
        f"head outputs are not attention times values (off by {watcher.worst:.2g} of their spread): "
        "no pattern can be set"
    )


def _rows_that_fit(shape: ModelShape, pos: int, most: int) -> int:
    return max(1, min(most, _BUDGET_BYTES // (4 * pos * shape.d_vocab)))


def _patterns_that_fit(shape: ModelShape, pos: int) -> int:
    return max(1, _BUDGET_BYTES // (4 * shape.n_layers * shape.n_heads * pos * pos))
