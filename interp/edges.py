"""A model as a graph of edges: how much does a loss owe to what one node reads of what another wrote?

Source: edge attribution patching: Syed et al. 2023, arXiv:2310.10348; with integrated gradients along the inputs
(EAP-IG), and faithfulness: Hanna et al. 2024, arXiv:2403.17806.

Nodes that write: the embedding, every head, every MLP. Inputs that read: queries, keys and values of every head, every
MLP, the final norm before the logits. The residual stream is a sum, so each input is the sum of what earlier nodes
wrote. An edge is ablated by exchanging one term of one such sum for what the node writes in a corrupted run.

    attribute    (corrupted write - clean write) . (gradient of the loss at the input), summed over positions. The
                 gradient is the mean over `n_steps` runs whose embeddings lie between corrupted and clean ones (midpoints)
    losses_of    the loss itself with every edge outside a circuit ablated: exact, norms and softmax included

A head's queries are s(x) (x R) + const, with s the norm's scale and R its folded W_Q: that gives the gradient at each
head's own input, and its queries under another input, from one pass. Gradients are taken here and nowhere else, of
activations alone: parameters, their `.grad`, the mode and torch's generators are not touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byrote.interp.model import HookedModel
from byrote.interp.observe import heads_apart

Node = tuple[str, int, int]  # kind, layer, head; -1 where a kind has none
Loss = Callable[[Float[Tensor, "batch pos d_vocab"], slice], Float[Tensor, " batch"]]

SIDES = ("q", "k", "v")
FINAL = "ln_final.hook_in"
_BUDGET_BYTES = 192 * 2**20
_TOLERANCE, _TOLERANCE_HALF = 1e-3, 5e-2


@dataclass(frozen=True)
class Edges:
    """Which nodes write, which inputs read, and where an edge is.

    Attributes:
        senders: ("input", -1, -1), ("head", layer, head) and ("mlp", layer, -1), in the order of the forward pass.
        receivers: ("q", layer, head), "k", "v", ("mlp", layer, -1) and ("logits", -1, -1), likewise. Shared keys and
            values (grouped queries) are one input, named after the first head that uses them.
        exists: whether the sender comes before the receiver.
    """

    senders: tuple[Node, ...]
    receivers: tuple[Node, ...]
    exists: Bool[Tensor, "senders receivers"]


class EdgeGraph:
    """A loaded checkpoint as a graph; it is left as it was.

    Attributes:
        edges: its nodes and edges.
        problem: why edges of this model cannot be attributed, or "".

    Args:
        model: a loaded checkpoint.
        tokens: a few of the sequences that will be run; two are used to see that the graph is the model's.
    """

    def __init__(self, model: HookedModel, tokens: Int[Tensor, "n_seq pos"]) -> None:
        self.model, self.n_layers = model, model.shape.n_layers
        self.n_heads, self.n_kv = model.shape.n_heads, model.shape.n_key_value_heads
        self.hooks = frozenset(dict(model.bridge.hook_dict))
        self.has_mlp = any(name.endswith(".mlp.hook_out") for name in self.hooks)
        self.problem = self._missing()
        if not self.problem:
            self.parallel = self._is_parallel(tokens[:2])
            self.edges = self._edges()
            self.problem = self._mismatch(tokens[:2])

    def attribute(
        self,
        clean: Int[Tensor, "n_seq pos"],
        corrupted: Int[Tensor, "n_seq pos"],
        loss: Loss,
        *,
        n_steps: int,
    ) -> Float[Tensor, "n_seq senders receivers"]:
        """First-order change of each sequence's loss when an edge is ablated; 0 where there is no edge.

        Args:
            clean, corrupted: sequence i of one stands against sequence i of the other.
            loss: of the rows given by the slice, from their logits.
            n_steps: runs between corrupted and clean embeddings.
        """
        found = torch.zeros(len(clean), *self.edges.exists.shape)
        for rows in self._batches(clean):
            wrote, other = (self._run(tokens[rows]).writes for tokens in (clean, corrupted))
            lost = (other - wrote).transpose(1, 2).flatten(2)  # [batch, senders, pos * d_model]

            def of_these(logits: Tensor, rows: slice = rows) -> Tensor:
                return loss(logits, rows)

            for step in range(n_steps):
                alpha = (step + 0.5) / n_steps
                embedding = other[:, :, 0] + alpha * (wrote[:, :, 0] - other[:, :, 0])
                for receivers, grad in self._gradients(clean[rows], embedding, of_these).at_inputs():
                    n = int(self.edges.exists[:, receivers[0]].sum())  # those that come before
                    score = lost[:, :n] @ grad.transpose(1, 2).flatten(2).transpose(1, 2)
                    found[rows, :n, receivers] += score.cpu() / n_steps
        return found * self.edges.exists

    def losses_of(
        self,
        clean: Int[Tensor, "n_seq pos"],
        corrupted: Int[Tensor, "n_seq pos"],
        loss: Loss,
        circuits: Sequence[Bool[Tensor, "senders receivers"]],
    ) -> Float[Tensor, "n_circuits n_seq"]:
        """Each sequence's loss with every edge outside a circuit ablated.

        Args:
            clean, corrupted: sequence i of one stands against sequence i of the other.
            loss: of the rows given by the slice, from their logits.
            circuits: the edges that are left; all edges give the clean loss, none the corrupted one.
        """
        out = torch.empty(len(circuits), len(clean))
        for rows in self._batches(clean):
            other = self._run(corrupted[rows])
            for i, circuit in enumerate(circuits):
                logits = self._run(clean[rows], circuit=circuit & self.edges.exists, other=other).logits
                out[i, rows] = loss(logits, rows).float().cpu()
        return out

    def _batches(self, tokens: Tensor) -> Iterator[slice]:
        """As many sequences at a time as fit: what every node wrote is in memory."""
        per_sequence = 4 * tokens.shape[1] * self.model.shape.d_model * len(self.edges.senders)
        n = max(1, _BUDGET_BYTES // per_sequence)
        yield from (slice(i, min(i + n, len(tokens))) for i in range(0, len(tokens), n))

    def _missing(self) -> str:
        if not self.model.weights.linear_readout:
            return "a norm after attention makes what a head writes for later heads non-linear"
        if self.model.weights.smeared_keys:
            return "keys are smeared: what a head's keys read is a mixture of two positions"
        if self.has_mlp and "blocks.0.ln2.hook_in" not in self.hooks:
            return "attention and MLP read through one norm: their inputs cannot be distinguished"
        sites = ("hook_in", "attn.o.hook_in", *self._sites())
        needed = [*(f"blocks.{layer}.{site}" for layer in range(self.n_layers) for site in sites), FINAL]
        return next(
            (f"the architecture has no hook for {name}" for name in needed if name not in self.hooks), ""
        )

    def _is_parallel(self, tokens: Tensor) -> bool:
        """Whether the MLP of a layer reads what attention reads, not what attention wrote."""
        if not self.has_mlp:
            return False
        seen = self._run(tokens).inputs
        return torch.equal(seen["blocks.0.ln1.hook_in"], seen["blocks.0.ln2.hook_in"])

    def _edges(self) -> Edges:
        senders: list[Node] = [("input", -1, -1)]
        receivers: list[Node] = []
        after: list[int] = []
        shared = self.n_heads // self.n_kv
        for layer in range(self.n_layers):
            before, heads = len(senders), range(self.n_heads)
            senders += [("head", layer, head) for head in heads]
            receivers += [("q", layer, head) for head in heads]
            receivers += [(side, layer, head) for side in ("k", "v") for head in heads[::shared]]
            after += [before] * (len(receivers) - len(after))
            if self.has_mlp:
                receivers.append(("mlp", layer, -1))
                after.append(before if self.parallel else len(senders))
                senders.append(("mlp", layer, -1))
        receivers.append(("logits", -1, -1))
        after.append(len(senders))
        exists = torch.arange(len(senders))[:, None] < torch.tensor(after)[None]
        return Edges(tuple(senders), tuple(receivers), exists)

    def _mismatch(self, tokens: Tensor) -> str:
        """Whether the writes add up to what is read, and the gradients of inputs to that of the residual stream."""
        half = self.model.dtype in (torch.bfloat16, torch.float16)
        tolerance = _TOLERANCE_HALF if half else _TOLERANCE
        run = self._run(tokens)
        if not torch.isfinite(run.logits).all():
            return "the logits are not finite"
        read = run.inputs[FINAL].float()
        rest = read - run.writes.sum(2)
        rest = rest - rest.mean((0, 1))  # biases are written to every position alike
        if rest.abs().max() > tolerance * read.std():
            return "the outputs of heads and MLPs do not add up to the residual stream: the graph does not describe this model"
        found = self._gradients(
            tokens, run.writes[:, :, 0], lambda logits: logits[:, -1].float().log_softmax(-1)[:, 0]
        )
        off = found.off()
        if not math.isfinite(off):
            return "gradients are not finite"
        if off > tolerance:
            return f"gradients of queries, keys and values do not add up to that of their layer (off by {off:.2g})"
        return ""

    def _run(self, tokens: Tensor, *, circuit: Tensor | None = None, other: _Run | None = None) -> _Run:
        run = _Run(self, tokens, circuit, other)
        with torch.no_grad():
            run.logits = self.model.bridge.run_with_hooks(
                tokens.to(self.model.device), fwd_hooks=list(run.hooks())
            )
        return run

    def _gradients(self, tokens: Tensor, embedding: Tensor, loss: Callable[[Tensor], Tensor]) -> _Gradients:
        """Gradients of the summed loss at every input, of a run with these embeddings."""
        seen: dict[str, Tensor] = {}

        def keep(name: str) -> tuple[str, Callable[..., Tensor]]:
            def hook(tensor: Tensor, hook: Any) -> Tensor:
                seen[name] = tensor.clone()  # what is read from here on, and nothing else
                return seen[name]

            return name, hook

        def start(tensor: Tensor, hook: Any) -> Tensor:
            return embedding.to(tensor).detach().clone().requires_grad_()

        sites = [f"blocks.{layer}.{site}" for layer in range(self.n_layers) for site in self._sites()]
        with torch.inference_mode(False), torch.enable_grad():
            hooks = [("blocks.0.hook_in", start), *map(keep, [*sites, FINAL])]
            logits = self.model.bridge.run_with_hooks(tokens.to(self.model.device), fwd_hooks=hooks)
            grads = torch.autograd.grad(loss(logits).sum(), list(seen.values()))
        values = {name: tensor.detach() for name, tensor in seen.items()}
        return _Gradients(self, values, dict(zip(seen, grads, strict=True)))

    def _sites(self) -> list[str]:
        sites = ["ln1.hook_in", *(f"attn.{side}.hook_out" for side in SIDES)]
        return [*sites, "ln2.hook_in"] if self.has_mlp else sites

    def reads(self, side: str, layer: int) -> Float[Tensor, "n_inputs d_model d_head"]:
        """Folded W_Q, W_K or W_V of a layer; of shared keys and values one each."""
        step = 1 if side == "q" else self.n_heads // self.n_kv
        return self.model.weights.reads_of(f"W_{side.upper()}", layer)[::step]

    def centred(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The input as the norm before attention scales it, and the scale: 1 without a norm."""
        kind = self.model.shape.normalization
        x = x - x.mean(-1, keepdim=True) if kind == "LN" else x
        if kind == "none":
            return x, torch.ones_like(x[..., :1])
        return x, torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.model.bridge.cfg.eps)

    def receivers_of(self, kind: str, layer: int) -> list[int]:
        """Places of the receivers of one kind in one layer."""
        return [i for i, (k, l, _) in enumerate(self.edges.receivers) if (k, l) == (kind, layer)]


class _Run:
    """One forward pass: what every node wrote and every input read, or the same with edges ablated."""

    logits: Tensor

    def __init__(self, graph: EdgeGraph, tokens: Tensor, circuit: Tensor | None, other: _Run | None) -> None:
        self.graph, self.circuit, self.other = graph, circuit, other
        shape = graph.model.shape
        n_senders = 1 + shape.n_layers * (shape.n_heads + graph.has_mlp)
        device = graph.model.device
        # Of a run with ablated edges: what it wrote beyond the other run.
        self.writes = torch.zeros(*tokens.shape, n_senders, shape.d_model, device=device)
        self.inputs: dict[str, Tensor] = {}
        self.place = 0

    def hooks(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        yield "blocks.0.hook_in", lambda tensor, hook: self._write(tensor.float()[:, :, None])
        for layer in range(self.graph.n_layers):
            yield f"blocks.{layer}.ln1.hook_in", self._read(f"blocks.{layer}.ln1.hook_in", None)
            if self.circuit is not None:
                for side in SIDES:
                    yield f"blocks.{layer}.attn.{side}.hook_out", self._side(side, layer)
            yield f"blocks.{layer}.attn.o.hook_in", self._heads(layer)
            if self.graph.has_mlp:
                name = f"blocks.{layer}.ln2.hook_in"
                yield name, self._read(name, ("mlp", layer))
                yield f"blocks.{layer}.mlp.hook_out", lambda out, hook: self._write(out.float()[:, :, None])
        yield FINAL, self._read(FINAL, ("logits", -1))

    def _write(self, out: Tensor) -> None:
        places = slice(self.place, self.place + out.shape[2])
        self.place = places.stop
        self.writes[:, :, places] = out if self.other is None else out - self.other.writes[:, :, places]

    def _heads(self, layer: int) -> Callable[..., None]:
        def hook(tensor: Tensor, hook: Any) -> None:
            z = heads_apart(tensor, self.graph.model.shape).float()
            self._write(torch.einsum("bphd,hde->bphe", z, self.graph.model.weights.W_O[layer]))

        return hook

    def _read(self, name: str, receiver: tuple[str, int] | None) -> Callable[..., Tensor | None]:
        """Remember an input; where it is one receiver's own and edges are ablated, put the ablated one in its place."""

        def hook(tensor: Tensor, hook: Any) -> Tensor | None:
            self.inputs[name] = tensor
            if self.circuit is None or receiver is None:
                return None
            return self._ablated(name, *receiver)[:, :, 0].to(tensor.dtype)

        return hook

    def _ablated(self, name: str, kind: str, layer: int) -> Float[Tensor, "batch pos n_inputs d_model"]:
        """Inputs of one kind in one layer: those of the other run, and what the circuit's edges bring."""
        assert self.other is not None and self.circuit is not None
        mask = self.circuit[:, self.graph.receivers_of(kind, layer)].float().to(self.writes.device)
        brought = torch.einsum("bpsd,sr->bprd", self.writes, mask)
        return self.other.inputs[name].float()[:, :, None] + brought

    def _side(self, side: str, layer: int) -> Callable[..., Tensor]:
        def hook(tensor: Tensor, hook: Any) -> Tensor:
            name = f"blocks.{layer}.ln1.hook_in"
            reads = self.graph.reads(side, layer)
            given, scale = self.graph.centred(self.inputs[name].float()[:, :, None])
            ablated, new_scale = self.graph.centred(self._ablated(name, side, layer))
            change = torch.einsum(
                "bprd,rde->bpre", ablated * new_scale - (given * scale).expand_as(ablated), reads
            )
            return (tensor.float() + change.reshape(tensor.shape)).to(tensor.dtype)

        return hook


class _Gradients:
    """Gradients of one run at every input.

    Args:
        values: of the sites, and
        grads: the gradient there.
    """

    def __init__(self, graph: EdgeGraph, values: dict[str, Tensor], grads: dict[str, Tensor]) -> None:
        self.graph, self.values, self.grads = graph, values, grads

    def at_inputs(self) -> Iterator[tuple[list[int], Float[Tensor, "batch pos n_inputs d_model"]]]:
        """Places of receivers that read the same nodes, and the gradient at the input of each."""
        graph = self.graph
        for layer in range(graph.n_layers):
            for side in SIDES:
                yield graph.receivers_of(side, layer), self.of(side, layer)
            if graph.has_mlp:
                mlp = self.grads[f"blocks.{layer}.ln2.hook_in"].float()
                yield graph.receivers_of("mlp", layer), mlp[:, :, None]
        yield graph.receivers_of("logits", -1), self.grads[FINAL].float()[:, :, None]

    def of(self, side: str, layer: int) -> Float[Tensor, "batch pos n_inputs d_model"]:
        """At each head's own queries, keys or values: back through its projection and the norm before it."""
        reads = self.graph.reads(side, layer)
        x, scale = self.graph.centred(self.values[f"blocks.{layer}.ln1.hook_in"].float()[:, :, None])
        grad = self.grads[f"blocks.{layer}.attn.{side}.hook_out"].float()
        grad = grad.reshape(*x.shape[:2], len(reads), -1)
        back = torch.einsum("bpre,rde->bprd", grad, reads)
        if self.graph.model.shape.normalization == "none":
            return back
        along = torch.einsum("bprd,bpkd->bpr", back, x)[..., None]
        return scale * back - scale**3 / x.shape[-1] * x * along

    def off(self) -> float:
        """How far the inputs of heads are from adding up to the gradient of their layer, relative to it, at the worst."""
        worst = 0.0
        for layer in range(self.graph.n_layers):
            whole = self.grads[f"blocks.{layer}.ln1.hook_in"].float()
            parts = sum(self.of(side, layer).sum(2) for side in SIDES)
            off = ((parts - whole).abs().max() / whole.abs().max().clamp_min(1e-20)).item()
            worst = off if off != off else max(worst, off)
        return worst
