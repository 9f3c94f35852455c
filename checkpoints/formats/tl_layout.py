"""State dicts of older HookedTransformers: weights that lie the other way round, no biases, and no config beside them.

TransformerLens multiplies from the right (W_Q is [n_heads, d_model, d_head]). Its forerunners, and the models of their papers,
multiplied from the left: some weights, or all of them, are the transpose, and W_O may be one matrix over all heads.

1. a weight lies the other way round where its shape is the config's with the last two sizes exchanged, in every layer
2. a square one says nothing: among the linear weights of attention and MLP it lies as the others do; where these disagree, and
   for embeddings, a config must say it: `"transposed": ["W_pos"]` (or `[]`), and is asked to
3. a bias that no layer has is zero: that is what a model without it computes

Source: `convert_neel_solu_old_weights` and `right_multiply_matrices` of TransformerLens 1 to 3; the Transformer of Nanda et al.
2023, Progress measures for grokking (arXiv:2301.05217).
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.adapter import TensorInfo
from byrote.checkpoints.formats.tl_config import BUFFER, LegacyConfig, expected_shapes

FIELD = "transposed"  # of the config
_BLOCK = re.compile(r"blocks\.(\d+)\.")
_LINEAR = re.compile(r"attn\._?W_[QKVO]|mlp\.W_(in|out|gate)")
_OPTIONAL_BIAS = re.compile(r"attn\._?b_[QKVO]|mlp\.b_(in|out)")
_OUTPUT = "attn.W_O"


@dataclass(frozen=True)
class Layout:
    """How the weights of a file differ from TransformerLens's.

    Attributes:
        transposed: kinds of weights (`attn.W_Q`, `embed.W_E`) that lie the other way round.
        flat_output: whether W_O is [d_model, n_heads * d_head].
        no_biases: kinds of biases that no layer has.
    """

    transposed: frozenset[str] = frozenset()
    flat_output: bool = False
    no_biases: frozenset[str] = frozenset()

    @property
    def note(self) -> str:
        """What is done about it; "" where nothing is."""
        parts = []
        if self.transposed:
            parts.append(f"weights stored transposed were transposed back: {_names(self.transposed)}")
        if self.no_biases:
            parts.append(f"biases that no layer stores are zero: {_names(self.no_biases)}")
        return "; ".join(parts)


def kind_of(name: str) -> str:
    """A tensor's name without its layer."""
    return _BLOCK.sub("", name, count=1)


def layout_of(legacy: LegacyConfig, tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> Layout:
    """How the tensors lie, as their shapes say; what they cannot say, the config's `transposed` must.

    Args:
        legacy: the config.
        tensors: by TransformerLens's names.
        config: its fields as they were saved: `transposed` is a list of weights such as ``W_pos``, and
            `right_multiply_matrices` false where all of them lie the other way round.

    Raises:
        CheckpointError: a square weight could lie either way and nothing says how, or the config says what shapes deny.
    """
    wanted = {kind_of(name): shape for name, shape in expected_shapes(legacy)}
    shapes: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    for name, tensor in tensors.items():
        shapes[kind_of(name)].add(tensor.shape)
    flat = shapes.get(_OUTPUT) == {(legacy.d_model, legacy.n_heads * legacy.d_head)}
    left: set[str] = {_OUTPUT} if flat else set()
    right: set[str] = set()
    square: set[str] = set()
    for kind, shape in wanted.items():
        if ".W_" not in kind and "._W_" not in kind:
            continue
        turned = (*shape[:-2], shape[-1], shape[-2])
        if shapes.get(kind) == {shape}:
            (square if turned == shape else right).add(kind)
        elif shapes.get(kind) == {turned}:
            left.add(kind)
    if (stated := config.get(FIELD)) is not None:
        left |= _stated(stated, left, right, square)
    elif config.get("right_multiply_matrices") is False:
        left |= square
    else:
        left |= _inferred(left, right, square)
    lacking = {kind for kind in wanted if kind not in shapes and _OPTIONAL_BIAS.fullmatch(kind)}
    return Layout(frozenset(left), flat, frozenset(lacking))


def _inferred(left: set[str], right: set[str], square: set[str]) -> set[str]:
    """Square weights that lie the other way round because the others of attention and MLP do."""
    if not left:
        return set()
    linear = {kind for kind in square if _LINEAR.fullmatch(kind)}
    sides = [any(map(_LINEAR.fullmatch, kinds)) for kinds in (left, right)]
    undecided = (square - linear) | (linear if sides[0] == sides[1] else set())
    if undecided:
        raise CheckpointError(
            f"{_names(left)} are stored transposed, compared with TransformerLens, and {_names(undecided)} "
            f"{'is' if len(undecided) == 1 else 'are'} square, so that the orientation is unknown",
            help=f'say it in the config: "{FIELD}": {json.dumps(sorted(map(_short, left | undecided)))} where '
            f"{'it is' if len(undecided) == 1 else 'they are'} transposed too, else "
            f'"{FIELD}": {json.dumps(sorted(map(_short, left)))}',
        )
    return linear if sides[0] else set()


def _stated(names: Any, left: set[str], right: set[str], square: set[str]) -> set[str]:
    known = {_short(kind): kind for kind in left | right | square}
    if not isinstance(names, list) or not all(isinstance(one, str) and one in known for one in names):
        raise CheckpointError(
            f"the config's {FIELD} is {json.dumps(names)[:60]}", help=f"a list of {', '.join(sorted(known))}"
        )
    stated = {known[one] for one in names}
    if denied := (stated & right) | (left - stated):
        raise CheckpointError(
            f"the config's {FIELD} contradicts the shapes of {_names(denied)}",
            help=f'"{FIELD}": {json.dumps(sorted(map(_short, left | (stated & square))))}',
        )
    return stated & square


def as_expected(
    layout: Layout, legacy: LegacyConfig, tensors: Mapping[str, TensorInfo]
) -> dict[str, TensorInfo]:
    """The tensors with the shapes that TransformerLens has, biases that are zero added."""
    found = dict(tensors)
    for name, shape in expected_shapes(legacy):
        kind = kind_of(name)
        if name in found and kind in layout.transposed:
            turned = (*shape[:-2], shape[-1], shape[-2])
            flat = layout.flat_output and kind == _OUTPUT
            if flat or found[name].shape == turned:
                found[name] = replace(found[name], shape=shape)
        elif name not in found and kind in layout.no_biases:
            found[name] = TensorInfo("F32", shape, "")
    return found


def missing_config(tensors: Mapping[str, TensorInfo]) -> str:
    """A help line: the config.json that a state dict's shapes give, and what only its owner knows."""
    save = "save HookedTransformer's: json.dump(model.cfg.to_dict(), open('config.json', 'w'), default=str)"
    if (fields := deduced(tensors)) is None:
        return save
    unknown = [name for name, value in fields.items() if value == "?"]
    lacking = f", with {' and '.join(unknown)} of the training code" if unknown else ""
    rest = "everything else is then TransformerLens's default"
    return f"{save}; or write into it what the shapes say{lacking} ({rest}): {json.dumps(fields)}"


def deduced(tensors: Mapping[str, TensorInfo]) -> dict[str, Any] | None:
    """Fields of a HookedTransformerConfig that shapes give, "?" for what they cannot; None where sizes are ambiguous."""
    shapes = {kind_of(name): tensor.shape for name, tensor in tensors.items() if not BUFFER.fullmatch(name)}
    layers = [int(found[1]) for name in tensors if (found := _BLOCK.match(name))]
    queries, embedding = shapes.get("attn.W_Q", ()), shapes.get("embed.W_E", ())
    if not layers or len(queries) != 3 or len(embedding) != 2:
        return None
    d_model = _common(queries[1:], embedding, shapes.get("attn.b_O", ()), shapes.get("pos_embed.W_pos", ()))
    if d_model is None:
        return None
    fields: dict[str, Any] = {"n_layers": max(layers) + 1, "d_model": d_model, "n_heads": queries[0]}
    fields["d_head"] = _other(queries[1:], d_model)
    if (shared := shapes.get("attn._W_K")) is not None:
        fields["n_key_value_heads"] = shared[0]
    fields["d_vocab"] = _other(embedding, d_model)
    positions = shapes.get("pos_embed.W_pos")
    fields["n_ctx"] = "?" if positions is None else _other(positions, d_model)
    if positions is None:
        fields["positional_embedding_type"] = "rotary"
    if "mlp.W_in" in shapes:
        fields |= {"d_mlp": _other(shapes["mlp.W_in"], d_model), "act_fn": "?"}
        fields |= {"gated_mlp": True} if "mlp.W_gate" in shapes else {}
    else:
        fields["attn_only"] = True
    norm = "LN" if "ln1.b" in shapes else "RMS" if "ln1.w" in shapes else "?"
    return fields | {"normalization_type": norm}


def _common(*shapes: Iterable[int]) -> int | None:
    """The one size that all of these have; None where there is none, or several."""
    common = set.intersection(*(set(shape) for shape in shapes if shape))
    return common.pop() if len(common) == 1 else None


def _other(shape: tuple[int, ...], size: int) -> int:
    return next((n for n in shape if n != size), size)


def _short(kind: str) -> str:
    return kind.rpartition(".")[2]


def _names(kinds: Iterable[str]) -> str:
    return ", ".join(sorted(map(_short, kinds)))
