"""Text from names, files and models, written so that the page shows it letter by letter."""

from __future__ import annotations

import re

from byrote.probes.figures.words import clean

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-.!|~$:<>&@=^\"'/])")


def literal(text: object, *, limit: int = 200) -> str:
    """Text for Streamlit's Markdown in which nothing is markup: no link, image, formula, colour or HTML.

    Args:
        text: anything; control and direction characters become U+FFFD.
        limit: longest text shown; the middle of a longer one is replaced by an ellipsis.
    """
    return _MARKUP.sub(r"\\\1", clean(text, limit=limit))


def file_stem(*parts: object) -> str:
    """A file name made of words: everything but letters, digits, dots and dashes becomes an underscore."""
    words = (re.sub(r"[^A-Za-z0-9.-]+", "_", str(part)).strip("._") for part in parts)
    return "_".join(word for word in words if word)[:120] or "byrote"


def tokens_words(n: int | None) -> str:
    """Tokens seen in the unit a person would use: ``33.6 B tokens``; "" where unknown."""
    if n is None:
        return ""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.3g} {unit} tokens"
    return f"{n} tokens"
