"""Documents of any length as chunks of bounded size, cut where a tokenizer would cut too.

A long document is cut in front of a single space between two letters or digits: byte-level BPE splits words there
anyway, so that the tokens are those of the whole document. Where there is no such place in 128 KiB the cut may part a
word, and a tokenizer that puts a mark in front of every text puts one more in front of every part. Where a cut falls
does not depend on how the file was read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

PART_BYTES = 1 << 17
CHUNK_BYTES, CHUNK_PARTS = 1 << 20, 1 << 13
_BLANK = b" \t\r\n\v\f"
_TRIES = 64


@dataclass
class Chunk:
    """Parts of documents, in order.

    Attributes:
        parts: text, each part at most `PART_BYTES` long.
        documents: the document of each part, counted over the corpus.
    """

    parts: list[bytes] = field(default_factory=list)
    documents: list[int] = field(default_factory=list)


class Packer:
    """Takes pieces of documents as they are read, gives chunks of about `CHUNK_BYTES`, of `CHUNK_PARTS` at the most.

    Blank space around documents is dropped, and so are blank documents.
    """

    def __init__(self) -> None:
        self.documents = 0
        self._open = b""
        self._new = True
        self._chunk, self._size = Chunk(), 0

    def feed(self, text: bytes, *, starts_document: bool) -> Iterator[Chunk]:
        """Add text to the open document, or to a new one."""
        if starts_document:
            yield from self._close()
        for at in range(0, len(text), PART_BYTES):
            self._open += text[at : at + PART_BYTES]
            if self._new:
                self._open = self._open.lstrip(_BLANK)
            while len(self._open) > PART_BYTES:
                cut = cut_before(self._open[:PART_BYTES])
                yield from self._emit(self._open[:cut])
                self._open = self._open[cut:]

    def flush(self) -> Iterator[Chunk]:
        """End the last document and give what is left."""
        yield from self._close()
        if self._chunk.parts:
            yield self._chunk
        self._chunk, self._size = Chunk(), 0

    def _close(self) -> Iterator[Chunk]:
        rest = self._open.rstrip(_BLANK)
        if rest:
            yield from self._emit(rest)
        self._open, self._new = b"", True

    def _emit(self, text: bytes) -> Iterator[Chunk]:
        self.documents += self._new
        self._new = False
        self._chunk.parts.append(text)
        self._chunk.documents.append(self.documents - 1)
        self._size += len(text)
        if self._size >= CHUNK_BYTES or len(self._chunk.parts) >= CHUNK_PARTS:
            yield self._chunk
            self._chunk, self._size = Chunk(), 0


def cut_before(text: bytes) -> int:
    """Where to end a part: in front of the last single space between two words; else at a character's edge."""
    for blank in (b" ", b"\n"):
        at = len(text) - 1
        for _ in range(_TRIES):
            at = text.rfind(blank, 1, at)
            if at < 0:
                break
            if text[at - 1 : at].isalnum() and text[at + 1 : at + 2].isalnum():
                return at
    end = len(text)
    while end > len(text) - 4 and text[end - 1] & 0xC0 == 0x80:
        end -= 1
    return end - 1 if text[end - 1] >= 0xC0 else len(text)
