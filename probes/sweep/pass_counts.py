"""How many forward passes a probe that runs the model itself makes, read off what it says of itself. No torch.

`ProbeInfo.passes` is for people and for `byrote run --dry-run`: a sum of products of numbers, `layers` and `heads` (of all
layers), such as "3 x layers + heads + 1", perhaps after "at most", "up to" or "about", and before a colon or a comma with more
words. A test holds it against the passes that probes make.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"\s*(\d[\d,]*|layers|heads|[x+()])")
_BEFORE = re.compile(r"^(?:at most|up to|about)\s+")


def count_passes(words: str, *, layers: int, heads: int) -> int | None:
    """The number that the words say for a model of this size; None where they say none.

    Args:
        words: as in `ProbeInfo.passes`.
        layers: of the model.
        heads: of all layers together.
    """
    if words.startswith("none"):
        return 0
    text, at = _BEFORE.sub("", words), 0
    found: list[str] = []
    while (match := _WORD.match(text, at)) is not None:
        word = match[1]
        at = match.end() - (len(word) - len(word.rstrip(",")))
        found.append(word.replace(",", ""))
    if text[at : at + 1] not in ("", ":", ",", ";"):
        return None
    try:
        value, rest = _sum(found, {"layers": layers, "heads": heads})
    except (IndexError, KeyError):
        return None
    return None if rest else value


def _sum(words: list[str], sizes: dict[str, int]) -> tuple[int, list[str]]:
    value, words = _product(words, sizes)
    while words[:1] == ["+"]:
        more, words = _product(words[1:], sizes)
        value += more
    return value, words


def _product(words: list[str], sizes: dict[str, int]) -> tuple[int, list[str]]:
    value, words = _factor(words, sizes)
    while words[:1] == ["x"]:
        more, words = _factor(words[1:], sizes)
        value *= more
    return value, words


def _factor(words: list[str], sizes: dict[str, int]) -> tuple[int, list[str]]:
    first, rest = words[0], words[1:]
    if first == "(":
        value, rest = _sum(rest, sizes)
        if rest[0] != ")":
            raise KeyError(first)
        return value, rest[1:]
    return (int(first) if first.isdigit() else sizes[first]), rest
