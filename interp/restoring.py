"""Activations of one run put into another: a clean state restored where tokens were exchanged, or a part taken away.

Source: causal tracing: Meng et al. 2022, arXiv:2202.05262.

Sites
    embedding  what the first block reads   [batch, pos, d_model]
    state      what a block leaves behind   [batch, pos, d_model]
    attn       all heads' z, before W_O     [batch, pos, n_heads, d_head] or as the architecture has it
    mlp        what the MLP writes          [batch, pos, d_model]

Several are put in one pass: the sequences are shown once for each, one block of rows behind another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byrote.interp.model import HookedModel
from byrote.interp.observe import Keeper, observe

_HOOK = {"embedding": "hook_in", "state": "hook_out", "attn": "attn.o.hook_in", "mlp": "mlp.hook_out"}
_MOST_ROWS = 128

Site = tuple[str, int]


@dataclass(frozen=True, eq=False)
class Put:
    """What is put where.

    Attributes:
        site: its name and the layer; the embedding is of layer 0.
        values: of every sequence and position; only those of `where` are used.
        where: sequences and positions.
    """

    site: Site
    values: Float[Tensor, "n_seq pos *rest"]
    where: Bool[Tensor, "n_seq pos"]


def recorded(
    model: HookedModel, tokens: Int[Tensor, "n_seq pos"], sites: Iterable[Site]
) -> dict[Site, Float[Tensor, "n_seq pos *rest"]]:
    """What some sites show in one pass of a run that nothing is put into."""
    seen: dict[Site, Tensor] = {}

    def keep(site: Site) -> Callable[..., None]:
        def hook(tensor: Tensor, hook: Any) -> None:
            seen[site] = tensor.clone()

        return hook

    with torch.inference_mode():
        hooks = [(_name(site), keep(site)) for site in sites]
        model.bridge.run_with_hooks(tokens.to(model.device), fwd_hooks=hooks)
    return seen


def losses_with(
    model: HookedModel, tokens: Int[Tensor, "n_seq pos"], puts: Sequence[Put]
) -> Float[Tensor, "n_puts n_seq next_pos"]:
    """Next-token loss in nats of every sequence, with one thing put into the run at a time; on the CPU.

    Args:
        model: a loaded checkpoint; it is left as it was.
        tokens: the sequences.
        puts: any number; as many as fit are put in one pass.

    Raises:
        ByroteError: token ids or length the model cannot take.
    """
    n_seq, pos = tokens.shape
    out = torch.empty(len(puts), n_seq, pos - 1)
    at_once = max(1, _MOST_ROWS // n_seq)
    for first in range(0, len(puts), at_once):
        part = puts[first : first + at_once]
        losses = Keeper("token_nll")
        hooks = [(_name(site), _put(site, part)) for site in dict.fromkeys(put.site for put in part)]
        with model.bridge.hooks(fwd_hooks=hooks):
            observe(model, tokens.repeat(len(part), 1), [losses], batch=n_seq * len(part))
        out[first : first + len(part)] = losses.token_nll.cpu().view(len(part), n_seq, pos - 1)
    return out


def has_mlp(model: HookedModel, tokens: Int[Tensor, "n_seq pos"]) -> str:
    """Why what the MLPs write cannot be exchanged, or "": there are none, or what is shown holds the residual stream."""
    if _name(("mlp", 0)) not in dict(model.bridge.hook_dict):
        return "the model has no MLPs"
    seen = recorded(model, tokens[:1], [("mlp", 0), ("state", 0)])
    if torch.equal(seen["mlp", 0], seen["state", 0]):
        return "the MLP hooks include the residual stream: MLP outputs cannot be patched by themselves"
    return ""


def _name(site: Site) -> str:
    return f"blocks.{site[1]}.{_HOOK[site[0]]}"


def _put(site: Site, puts: Sequence[Put]) -> Callable[..., Tensor]:
    def hook(tensor: Tensor, hook: Any) -> Tensor:
        blocks = tensor.clone().unflatten(0, (len(puts), -1))
        for i, put in enumerate(puts):
            if put.site == site:
                where = put.where.to(tensor.device)
                blocks[i][where] = put.values.to(blocks)[where]
        return blocks.flatten(0, 1)

    return hook
