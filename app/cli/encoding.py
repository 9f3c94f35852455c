"""Text for terminals of any encoding: what one cannot show is spelled in ASCII, never an error."""

from __future__ import annotations

import codecs
import unicodedata
from typing import Any

_ASCII = {
    "−": "-",
    "–": "-",
    "—": "-",
    "─": "-",
    "━": "-",
    "·": "*",
    "…": "...",
    "→": "->",
    "±": "+/-",
    "×": "x",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "⏎": "\\n",
}
_NAME = "byrote-ascii"


def in_ascii(text: str) -> str:
    """Text in ASCII: signs as one types them, letters without their accents, ? for the rest."""
    plain = "".join(_ASCII.get(c) or unicodedata.normalize("NFKD", c) for c in text)
    return "".join(c if c.isascii() else "" if unicodedata.combining(c) else "?" for c in plain)


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return in_ascii(error.object[error.start : error.end]), error.end


def _ascii(name: str) -> codecs.CodecInfo | None:
    """ASCII by a name of its own: click writes UTF-8 to streams whose encoding it recognizes as ASCII."""
    if name.replace("_", "-") != _NAME:
        return None
    one = codecs.lookup("ascii")
    return codecs.CodecInfo(
        one.encode,
        one.decode,
        one.streamreader,
        one.streamwriter,
        one.incrementalencoder,
        one.incrementaldecoder,
        name=_NAME,
    )


codecs.register(_ascii)
codecs.register_error(_NAME, _spelled)


def print_anywhere(stream: Any) -> None:
    """Let a text stream spell what its encoding lacks; one that is no text stream of Python's own stays as it is."""
    if hasattr(stream, "reconfigure"):
        plain = codecs.lookup(stream.encoding or "ascii").name == "ascii"
        stream.reconfigure(errors=_NAME, **({"encoding": _NAME} if plain else {}))
