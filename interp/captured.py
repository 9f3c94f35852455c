"""Activations of one model on one text: arrays of chosen sites, on the CPU, with the tokens they belong to.

For inspection, not for measurement: probes reduce as they go (`byrote.interp.observe`), this stores everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.tokenizing import TokenizerProcess, open_tokenizer
from byrote.checkpoints.vocabulary import tokenizer_of, usable_ids

if TYPE_CHECKING:
    from torch import Tensor

    from byrote.interp.model import HookedModel

SITES = ("pattern", "z", "v", "token_nll")
MAX_BYTES = 2**31
_VISIBLE = {ord("\u0120"): "·", ord("\u2581"): "·", ord("\u010a"): "⏎", ord(" "): "·", ord("\n"): "⏎"}


@dataclass(frozen=True, eq=False)
class Capture:
    """Arrays of one forward pass.

    Attributes:
        tokens: ids.
        labels: per sequence, what each token is called: its text where the model has a tokenizer, else its id.
        layers: site to one array over all layers: pattern [n_layers batch n_heads query_pos key_pos], z and v
            [n_layers batch pos n_heads d_head].
        token_nll: next-token loss in nats [batch, pos - 1]; None when it was not requested.
        where: the checkpoint, in words.
    """

    tokens: Int[np.ndarray, "batch pos"]
    labels: tuple[tuple[str, ...], ...]
    layers: Mapping[str, np.ndarray]
    token_nll: Float[np.ndarray, "batch next_pos"] | None = None
    where: str = ""

    def __repr__(self) -> str:
        n, pos = self.tokens.shape
        sites = ", ".join(f"{site} {list(array.shape)}" for site, array in self.layers.items())
        loss = f", token_nll {list(self.token_nll.shape)}" if self.token_nll is not None else ""
        where = f"{self.where!r}: " if self.where else ""
        return f"Capture({where}{n} x {pos} tokens, {sites or 'no site'}{loss})"

    @property
    def pattern(self) -> Float[np.ndarray, "n_layers batch n_heads query_pos key_pos"]:
        """Attention after softmax.

        Raises:
            ByroteError: it was not captured.
        """
        if "pattern" not in self.layers:
            raise ByroteError("attention was not captured", help='capture(model, text, hooks="pattern")')
        return self.layers["pattern"]


def capture(
    model: HookedModel | Any,
    text: str | Int[np.ndarray, "*batch pos"],
    *,
    hooks: str | Iterable[str] = "pattern",
) -> Capture:
    """Run a model once and return what the hooks recorded.

    Args:
        model: from `interp.load`, or a step of a `HookedSeries`; a checkpoint, its path, or a model in memory as well.
        text: a text, for models with a tokenizer.json; or token ids. BOS is put before a text, not before ids.
        hooks: names in `SITES`.

    Raises:
        ByroteError: an unknown hook, a text for a model without a tokenizer, ids the model does not have, more tokens
            than its context holds, or arrays of more than 2 GiB.
    """
    import torch

    from byrote.interp.in_memory import hooked
    from byrote.interp.observe import Keeper, observe

    model = hooked(model)

    wanted = (hooks,) if isinstance(hooks, str) else tuple(hooks)
    for name in wanted:
        if name not in SITES:
            raise ByroteError(f"there is no hook {name!r}", help=did_you_mean(name, SITES))
    tokens, labels = _tokens(model, text)
    _refuse_too_much(model, wanted, tokens)
    keeper = Keeper(*wanted)
    observe(model, torch.from_numpy(tokens), [keeper])
    layers = {
        site: np.stack([_array(layer) for _, layer in sorted(keeper.of(site).items())])
        for site in wanted
        if site != "token_nll"
    }
    nll = _array(keeper.token_nll) if "token_nll" in wanted else None
    name, step = model.checkpoint.path.name, model.checkpoint.step
    says_only_step = re.fullmatch(rf"[A-Za-z]+[-_]?0*{step}", name)  # as step_00001000 and checkpoint-1000 do
    where = [None if says_only_step else name, model.config.get("quantised"), f"step {step:,}"]
    return Capture(tokens, labels, layers, nll, ", ".join(filter(None, where)))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def _ids(given: Any) -> np.ndarray:
    try:
        ids = np.atleast_2d(np.asarray(given))
    except ValueError:  # rows of unequal lengths
        ids = np.zeros((1, 1))
    if ids.ndim != 2 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise ByroteError(
            "these are not token ids: whole numbers, rows of one length",
            help="such as [[1, 5, 9], [1, 7, 2]]",
        )
    return ids.astype(np.int64)


def _tokens(model: HookedModel, text: str | np.ndarray) -> tuple[np.ndarray, tuple[tuple[str, ...], ...]]:
    file = tokenizer_of(model.checkpoint)
    if file is None:
        if isinstance(text, str):
            raise ByroteError(
                f"{model.checkpoint.path.name} has no tokenizer.json: a text cannot become tokens",
                help="give token ids instead: np.array([[1, 5, 9]])",
            )
        tokens = _ids(text)
        return tokens, tuple(token_labels(None, row) for row in tokens)
    with open_tokenizer(file) as tokenizer:
        if not isinstance(text, str):
            tokens = _ids(text)
            return tokens, tuple(token_labels(tokenizer, row) for row in tokens)
        _, bos, _ = usable_ids(model.config, model.shape.d_vocab, tokenizer=file)
        (ids,) = tokenizer.encode([text])
        if not len(ids):
            raise ByroteError("the text contains no tokens", help="give a longer text")
        tokens = np.array([[bos, *ids]], dtype=np.int64)
        return tokens, (token_labels(tokenizer, tokens[0]),)


def token_labels(tokenizer: TokenizerProcess | None, tokens: Int[np.ndarray, " pos"]) -> tuple[str, ...]:
    """Each token's text, spaces and line ends made visible; its id where there is no tokenizer."""
    if tokenizer is None:
        return tuple(str(int(token)) for token in tokens)
    return tuple(
        str(int(token)) if text is None else text.translate(_VISIBLE)
        for token, text in zip(tokens, tokenizer.names(tokens), strict=True)
    )


def _refuse_too_much(model: HookedModel, wanted: tuple[str, ...], tokens: np.ndarray) -> None:
    n, pos = tokens.shape
    shape = model.shape
    per_layer = {"pattern": n * shape.n_heads * pos * pos, "z": n * pos * shape.n_heads * shape.d_head}
    size = 4 * shape.n_layers * sum(per_layer.get(site, per_layer["z"]) for site in wanted)
    if size > MAX_BYTES:
        raise ByroteError(
            f"the capture would take {size / 2**30:.1f} GiB",
            help="capture fewer sequences, fewer tokens or fewer hooks",
        )
