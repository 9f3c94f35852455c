"""One forward pass with many observers that reduce as they go.

Each observer names the sites it needs. The engine hooks their union, hands every observer one layer at a time,
frees the layer's tensors, and stops the pass after the last site that an observer needs: without an observer of
losses the last MLP and the unembedding are never run.

Sites
    pattern      attention after softmax      [batch, n_heads, query_pos, key_pos]
    z            head outputs before W_O      [batch, pos, n_heads, d_head]
    v            values                       [batch, pos, n_heads, d_head]   (shared ones repeated)
    final_scale  1 / the final norm's divisor [batch, pos]                    (ones without a norm)
    logits       raw logits                   [batch, pos, d_vocab]           (reduce them; they are large)
    token_nll    next-token loss in nats      [batch, pos - 1]
    top1         argmax equals next token     [batch, pos - 1]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byrote.checkpoints.errors import ByroteError
from byrote.interp.model import HookedModel, ModelShape

LAYER_SITES = frozenset({"pattern", "z", "v"})
_LOGIT_SITES = frozenset({"logits", "token_nll", "top1"})
END_SITES = frozenset({"final_scale"}) | _LOGIT_SITES
_HOOK = {"pattern": "attn.hook_pattern", "z": "attn.o.hook_in", "v": "attn.v.hook_out"}
_LOGIT_BUDGET_BYTES = 256 * 2**20


@dataclass(frozen=True)
class LayerView:
    """What one layer showed, for one batch: `rows` of all sequences. Valid only during the call it is passed to."""

    layer: int
    tokens: Int[Tensor, "batch pos"]
    rows: slice
    pattern: Float[Tensor, "batch n_heads query_pos key_pos"] | None = None
    z: Float[Tensor, "batch pos n_heads d_head"] | None = None
    v: Float[Tensor, "batch pos n_heads d_head"] | None = None


@dataclass(frozen=True)
class EndView:
    """What the end of the pass showed, for one batch: `rows` of all sequences."""

    tokens: Int[Tensor, "batch pos"]
    rows: slice
    final_scale: Float[Tensor, "batch pos"] | None = None
    token_nll: Float[Tensor, "batch next_pos"] | None = None
    top1: Bool[Tensor, "batch next_pos"] | None = None
    logits: Float[Tensor, "batch pos d_vocab"] | None = None


@runtime_checkable
class Observer(Protocol):
    """Reduces what it sees to something small. A subclass writes the method it needs; the other does nothing."""

    needs: frozenset[str]

    def see_layer(self, view: LayerView) -> None:
        """Called once per layer and batch when a layer site is needed."""
        return

    def see_end(self, view: EndView) -> None:
        """Called once per batch, after the last layer."""
        return


class Keeper(Observer):
    """Stores activations unreduced, for inspection and for interventions; probes reduce instead.

    Args:
        sites: which; of those at the end of a pass, `token_nll` alone.
        layers: which; None means all. They stay in memory.
    """

    def __init__(self, *sites: str, layers: Iterable[int] | None = None) -> None:
        self.needs = frozenset(sites)
        self._layers = None if layers is None else set(layers)
        self._stored: dict[str, dict[int, list[Tensor]]] = {site: {} for site in sites}
        self._nll: list[Tensor] = []

    def see_layer(self, view: LayerView) -> None:
        """Store one layer of one batch."""
        if self._layers is None or view.layer in self._layers:
            for site in self.needs & LAYER_SITES:
                self._stored[site].setdefault(view.layer, []).append(getattr(view, site))

    def see_end(self, view: EndView) -> None:
        """Store the losses of one batch."""
        if view.token_nll is not None:
            self._nll.append(view.token_nll)

    def of(self, site: str) -> dict[int, Float[Tensor, "n_seq _ *rest"]]:
        """Layer -> what it showed, of all sequences."""
        return {layer: torch.cat(parts) for layer, parts in self._stored[site].items()}

    @property
    def token_nll(self) -> Float[Tensor, "n_seq next_pos"]:
        """Next-token losses of all sequences."""
        return torch.cat(self._nll)


@dataclass
class PassReport:
    """What the engine itself noticed.

    Attributes:
        problems: layer -> why its patterns cannot be trusted (design rule 4). Empty when all is well.
        leak: why next-token losses of this model mean nothing: its predictions depend on later tokens. "" when all is
            well, or was not sought; see `leak_of`.
        leak_sought: whether the pass could tell: logits were made, and two sequences began alike.
        n_passes: forward passes made.
        stopped_early: True when the unembedding was not run.
    """

    problems: dict[int, str] = field(default_factory=dict)
    leak: str = ""
    leak_sought: bool = False
    n_passes: int = 0
    stopped_early: bool = False


def observe(
    model: HookedModel,
    tokens: Int[Tensor, "n_seq pos"],
    observers: Iterable[Observer],
    *,
    batch: int | None = None,
) -> PassReport:
    """Run the model over the tokens once and show every observer what it needs.

    Args:
        model: a loaded checkpoint.
        tokens: ids, each below the model's d_vocab, at most n_ctx long.
        observers: any number; each sees the same pass.
        batch: sequences per pass; None picks one from the vocabulary so that logits stay under 256 MiB, at least two;
            a single one left over joins the pass before it.

    Returns:
        Pattern problems by layer, and counts.

    Raises:
        ByroteError: token ids or length the model cannot take.
    """
    _check_tokens(model, tokens)
    watchers = list(observers)
    engine = _Engine(model, watchers)
    size = batch or _batch_size(model, tokens.shape[1])
    report = PassReport(stopped_early=not engine.needs & _LOGIT_SITES)
    starts = list(range(0, len(tokens), size))
    if batch is None and len(starts) > 1 and len(tokens) - starts[-1] == 1:
        del starts[-1]  # probes that exchange sequences need two in every pass
    with torch.inference_mode():
        for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
            rows = slice(start, end)
            engine.run(tokens[rows].to(model.device), rows, report)
            report.n_passes += 1
    return report


class _Engine:
    def __init__(self, model: HookedModel, observers: list[Observer]) -> None:
        self.model = model
        self.needs = frozenset().union(*(o.needs for o in observers)) if observers else frozenset()
        unknown = self.needs - LAYER_SITES - END_SITES
        assert not unknown, f"unknown sites {sorted(unknown)}"
        self.layer_observers = [o for o in observers if o.needs & LAYER_SITES]
        self.end_observers = [o for o in observers if o.needs & END_SITES]
        self.layer_sites = sorted(self.needs & LAYER_SITES)
        self.first: tuple[Tensor, Tensor] | None = None

    def run(self, tokens: Tensor, rows: slice, report: PassReport) -> None:
        self.tokens, self.rows, self.report = tokens, rows, report
        self.current: dict[str, Tensor] = {}
        self.current_layer = -1
        self.fired: dict[str, set[int]] = {site: set() for site in self.layer_sites}
        self.resid: Tensor | None = None
        needs_logits = bool(self.needs & _LOGIT_SITES)
        hooks = list(self._hooks(stop=not needs_logits))
        logits = self.model.bridge.run_with_hooks(tokens, fwd_hooks=hooks)
        self._check_fired()
        if self.end_observers:
            view = self._end_view(logits if needs_logits else None)
            for observer in self.end_observers:
                observer.see_end(view)

    def _hooks(self, *, stop: bool) -> Iterable[tuple[str, Callable[..., Any]]]:
        n_layers = self.model.shape.n_layers
        needs_resid = "final_scale" in self.needs
        for layer in range(n_layers):
            for site in self.layer_sites:
                last = stop and not needs_resid and layer == n_layers - 1
                yield f"blocks.{layer}.{_HOOK[site]}", self._layer_hook(layer, site, stop_after=last)
        if needs_resid:
            yield f"blocks.{n_layers - 1}.hook_out", self._resid_hook(stop_after=stop)

    def _layer_hook(self, layer: int, site: str, *, stop_after: bool) -> Callable[..., None]:
        from transformer_lens.model_bridge.exceptions import StopAtLayerException

        def hook(tensor: Tensor, hook: Any) -> None:
            self.fired[site].add(layer)
            if layer != self.current_layer:
                self.current, self.current_layer = {}, layer
            self.current[site] = tensor if site == "pattern" else heads_apart(tensor, self.model.shape)
            if site == "pattern":
                self._check_pattern(layer, tensor)
            # The order differs: OPT, GPT-J and GPT-Neo show their pattern only after z was computed from it.
            if len(self.current) == len(self.layer_sites):
                view = LayerView(layer, self.tokens, self.rows, **self.current)
                self.current = {}
                for observer in self.layer_observers:
                    observer.see_layer(view)
                if stop_after:
                    raise StopAtLayerException(tensor)

        return hook

    def _resid_hook(self, *, stop_after: bool) -> Callable[..., None]:
        from transformer_lens.model_bridge.exceptions import StopAtLayerException

        def hook(tensor: Tensor, hook: Any) -> None:
            self.resid = tensor
            if stop_after:
                raise StopAtLayerException(tensor)

        return hook

    def _end_view(self, logits: Tensor | None) -> EndView:
        final_scale = None
        if "final_scale" in self.needs:
            assert self.resid is not None, "the last block's output hook did not fire"
            final_scale = final_norm_scale(self.resid, self.model)
        nll = top1 = None
        if logits is not None:
            self._check_causal(logits)
            # A sequence at a time: a copy of a batch's logits and their softmax would be most of the memory of a pass.
            losses, hits = [], []
            for scores, targets in zip(logits[:, :-1], self.tokens[:, 1:], strict=True):
                losses.append(torch.nn.functional.cross_entropy(scores.float(), targets, reduction="none"))
                hits.append(scores.argmax(-1) == targets)
            nll, top1 = torch.stack(losses), torch.stack(hits)
        return EndView(self.tokens, self.rows, final_scale, nll, top1, logits)

    def _check_pattern(self, layer: int, pattern: Tensor) -> None:
        if layer not in self.report.problems and (problem := pattern_problem(pattern)):
            self.report.problems[layer] = problem

    def _check_causal(self, logits: Tensor) -> None:
        """Sequences that begin with the same token must be predicted alike at position 0, whatever follows it."""
        if self.first is None:
            self.first = (self.tokens[0], logits[0, 0].float().clone())  # a view would hold all logits
        sequence, expected = self.first
        same = (self.tokens[:, 0] == sequence[0]) & (self.tokens != sequence).any(1)
        self.report.leak_sought = self.report.leak_sought or bool(same.any())
        self.report.leak = self.report.leak or future_leak(logits[same, 0], expected)

    def _check_fired(self) -> None:
        for site, layers in self.fired.items():
            for layer in set(range(self.model.shape.n_layers)) - layers:
                self.report.problems.setdefault(layer, f"the {site} hook of layer {layer} never fired")


def heads_apart(
    tensor: Float[Tensor, "batch pos *rest"], shape: ModelShape
) -> Float[Tensor, "batch pos n_heads d_head"]:
    """q, k, v or z per query head, whether or not the architecture splits heads or shares them between queries."""
    if tensor.ndim == 3:
        tensor = tensor.unflatten(-1, (-1, shape.d_head))
    return tensor.repeat_interleave(shape.n_heads // tensor.shape[2], dim=2)


def pattern_problem(pattern: Float[Tensor, "batch n_heads query_pos key_pos"]) -> str:
    """Why an attention pattern cannot be scored, or "" when it is finite, causal and its rows sum to 1."""
    sums = pattern.sum(-1, dtype=torch.float32)
    if not torch.isfinite(sums).all():
        return "attention is not finite"
    tolerance = 1e-4 if pattern.dtype == torch.float32 else 2e-2
    off = (sums - 1).abs().max().item()
    if off > tolerance:
        return f"attention rows do not sum to 1 (off by {off:.2g})"
    future = torch.ones(pattern.shape[-2:], dtype=pattern.dtype, device=pattern.device).triu(1)
    leaked = torch.linalg.vecdot(pattern, future).abs().max().item()
    return f"attention is not causal (weight {leaked:.2g} on later tokens)" if leaked > 1e-6 else ""


def leak_of(model: HookedModel, tokens: Int[Tensor, "n_seq pos"], report: PassReport) -> str:
    """Why next-token losses of a pass mean nothing, or "".

    What the pass showed; where no two of its sequences began alike, one of them is run again with another end.
    """
    if report.leak_sought or tokens.shape[1] < 2:
        return report.leak
    pair = tokens[:1].repeat(2, 1)
    pair[1, -1] = (pair[1, -1] + 1) % model.shape.d_vocab
    logits = model.logits(pair)
    return future_leak(logits[1:, 0], logits[0, 0].float())


def future_leak(logits: Float[Tensor, "batch d_vocab"], expected: Float[Tensor, " d_vocab"]) -> str:
    """Why a model is not causal, or "" when its logits after one and the same token agree up to rounding.

    Args:
        logits: at position 0 of sequences that differ only after it.
        expected: of one of them.
    """
    if not len(logits):
        return ""
    off = (logits.float() - expected).abs().max().item()
    rounding = 1e-3 if logits.dtype == torch.float32 else 5e-2
    if not off > max(1e-4, rounding * expected.std().item()):  # what is not finite is said elsewhere
        return ""
    return f"the model is not causal: what follows the first token moves the logits after it (by up to {off:.2g})"


def final_norm_scale(
    resid: Float[Tensor, "batch pos d_model"], model: HookedModel
) -> Float[Tensor, "batch pos"]:
    """1 / the divisor of the final norm at every position; ones for a model without one."""
    x = resid.float()
    if model.shape.final_normalization == "none":
        return torch.ones(x.shape[:2], device=x.device)
    if model.shape.final_normalization == "LN":
        x = x - x.mean(-1, keepdim=True)
    return torch.rsqrt(x.pow(2).mean(-1) + model.bridge.cfg.eps)


def _check_tokens(model: HookedModel, tokens: Tensor) -> None:
    shape = model.shape
    if not tokens.numel():
        raise ByroteError("there are no tokens to run the model on", help="give at least one sequence")
    if tokens.shape[1] > shape.n_ctx:
        raise ByroteError(
            f"sequences of {tokens.shape[1]} tokens do not fit the model's context of {shape.n_ctx}",
            help="make the stimulus shorter",
        )
    lowest, highest = int(tokens.min()), int(tokens.max())
    if highest >= shape.d_vocab or lowest < 0:
        raise ByroteError(
            f"token id {lowest if lowest < 0 else highest} is outside the model's vocabulary of {shape.d_vocab}",
            help="the token ids were made for another tokenizer",
        )


def _batch_size(model: HookedModel, pos: int) -> int:
    return max(2, min(32, _LOGIT_BUDGET_BYTES // (4 * pos * model.shape.d_vocab)))


def read_out_error(model: HookedModel, tokens: Int[Tensor, "batch pos"]) -> float:
    """Largest difference between the model's logits and those rebuilt from the last residual, norm and W_U.

    Relative to the logits' standard deviation. Direct-contribution probes are trusted only where this is small.
    """
    seen: dict[str, Tensor] = {}

    def keep(tensor: Tensor, hook: Any) -> None:
        seen["resid"] = tensor

    with torch.inference_mode():
        last = model.shape.n_layers - 1
        logits = model.bridge.run_with_hooks(
            tokens.to(model.device), fwd_hooks=[(f"blocks.{last}.hook_out", keep)]
        )
        scaled = seen["resid"].float() * final_norm_scale(seen["resid"], model)[..., None]
        rebuilt = model.weights.normed(scaled) @ model.weights.W_U
        # Biases of the norm and the unembedding shift every position alike and belong to no head.
        difference = (logits.float() - rebuilt) - (logits.float() - rebuilt).mean((0, 1), keepdim=True)
        return (difference.abs().max() / logits.float().std().clamp_min(1e-9)).item()
