"""Axis names and head labels. The axis names are TransformerLens's own.

batch      sequences of a stimulus
pos        token position; query_pos attends, key_pos is attended to
n_layers   transformer blocks
n_heads    query heads of a block
d_model    residual stream
d_head     one head's width
d_vocab    rows of the embedding
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.setting import is_whole


def head_label(layer: int, head: int | None) -> str:
    """``(5, 1)`` as people and URLs write it: ``L5H1``; a layer's MLP, without a head, ``L5``."""
    return f"L{layer}" if head is None else f"L{layer}H{head}"


def pair_label(source: tuple[int, int | None], head: tuple[int, int | None]) -> str:
    """``(0, 1)`` read by ``(1, 0)``: ``L0H1 → L1H0``."""
    return f"{head_label(*source)} → {head_label(*head)}"


def parse_head(label: str | tuple[int, int]) -> tuple[int, int]:
    """``"L5H1"`` (any case) or ``(5, 1)`` as ``(layer, head)``.

    Raises:
        ByroteError: the text is not a head label.
    """
    if isinstance(label, tuple) and len(label) == 2 and all(map(is_whole, label)):
        return int(label[0]), int(label[1])
    match = re.fullmatch(r"[lL](\d+)[hH](\d+)", label.strip()) if isinstance(label, str) else None
    if match is None:
        raise ByroteError(f"{label!r} is not a head", help="write layer and head as L5H1")
    return int(match[1]), int(match[2])


def parse_heads(heads: str | tuple[int, int] | Iterable[str | tuple[int, int]]) -> list[tuple[int, int]]:
    """One head, `"L5H1"` or `(5, 1)`, or several, as a list of `(layer, head)`, each once.

    Raises:
        ByroteError: a text that is not a head label, or something else that is no head.
    """
    if isinstance(heads, str):
        return [parse_head(heads)]
    match heads:
        case (int(layer), int(head)):
            return [(layer, head)]
    if not isinstance(heads, Iterable):
        raise ByroteError(f"{heads!r} is not a head", help="write layer and head as L5H1 or (5, 1)")
    return list(dict.fromkeys(parse_head(head) for head in heads))
