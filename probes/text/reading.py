"""Text files as chunks of documents: .txt, .jsonl, either with .gz; a .txt is never held by more than a few MiB.

A line of .jsonl is held whole, up to its limit of 32 MiB.

Nothing in a file can make this grow: lines have a limit, archives that expand like no text does are refused, bytes
that are not UTF-8 are replaced and counted.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.text.chunk import Chunk, Packer

READ_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 25
_WILD_CHARS = 200
_BOMB_RATIO, _BOMB_BYTES = 200, 1 << 26  # text compresses 3 to 20 times
_REFUSED_FRAC = 0.3


@dataclass
class Reading:
    """What happened while files were read.

    Attributes:
        on_bytes: told how many bytes of a file (as stored) were read.
        replaced: characters put in for bytes that are not UTF-8.
        skipped: lines of the open .jsonl that hold no text; `problem` and `help` are about the first of them.
        files: (name, what was left out) of every file that was not read whole.
    """

    on_bytes: Callable[[int], None] = lambda n: None
    replaced: int = 0
    skipped: int = 0
    problem: str = ""
    help: str = ""
    files: list[tuple[str, str]] = field(default_factory=list)

    def skip(self, problem: str, help: str) -> None:
        """Count a line without text."""
        self.skipped += 1
        if not self.problem:
            self.problem, self.help = problem, help


def separator_pattern(separators: Sequence[str]) -> tuple[re.Pattern[bytes], int]:
    """Separators as one pattern, and the most bytes it can match; `*` is up to 200 bytes of one line."""
    wild = rb"[^\n]{0,%d}?" % _WILD_CHARS
    patterns = [wild.join(re.escape(part.encode()) for part in text.split("*")) for text in separators]
    longest = max(len(text.encode()) + _WILD_CHARS * text.count("*") for text in separators)
    return re.compile(b"|".join(patterns)), longest


def text_chunks(
    files: list[Path], *, separators: Sequence[str], text_field: str, raw: bool, reading: Reading
) -> Iterator[Chunk]:
    """Chunks of all documents of some files; a document never spans two files.

    Args:
        files: .txt or .jsonl, gzipped or not.
        separators: between documents of .txt, as for `separator_pattern`.
        text_field: of .jsonl.
        raw: keep bytes that are not UTF-8, for units of bytes.
        reading: counts what went wrong.

    Raises:
        ByroteError: a file that is not text, is damaged, or a .jsonl without the text field.
    """
    packer = Packer()
    for path in files:
        reading.skipped, before = 0, packer.documents
        if is_jsonl(path):
            pieces = ((text, True) for text in _json_texts(path, text_field, reading))
        else:
            pieces = _split(_blocks(path, reading, raw=raw), separators)
        for text, starts in pieces:
            yield from packer.feed(text, starts_document=starts)
        yield from packer.feed(b"", starts_document=True)
        if reading.skipped and packer.documents == before:
            raise ByroteError(f"{path.name}: {reading.problem}", help=reading.help)
        if reading.skipped:
            lines = "1 line holds" if reading.skipped == 1 else f"{reading.skipped:,} lines hold"
            reading.files.append((path.name, f"{lines} no text: {reading.problem}"))
            reading.problem = ""
    yield from packer.flush()


def is_jsonl(path: Path) -> bool:
    """Whether a path names JSON lines, gzipped or not."""
    return path.name.endswith((".jsonl", ".jsonl.gz"))


def _split(blocks: Iterator[bytes], separators: Sequence[str]) -> Iterator[tuple[bytes, bool]]:
    """(text, whether a document starts with it); where the next block could change what matches, it waits for it."""
    pattern, longest = separator_pattern(separators)
    waiting, starts = b"", True
    for block in chain(blocks, (None,)):
        text, done = waiting + (block or b""), 0
        certain = len(text) if block is None else len(text) - longest + 1
        for found in pattern.finditer(text):
            if found.start() >= certain:
                break
            yield text[done : found.start()], starts
            done, starts = found.end(), True
        keep = max(done, certain)
        yield text[done:keep], starts
        starts, waiting = False, text[keep:]


def _blocks(path: Path, reading: Reading, *, raw: bool) -> Iterator[bytes]:
    """A file's text in blocks: UTF-8 made valid, or as it is."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    first, before = True, b""
    for block in _stored(path, reading):
        if raw:
            yield block
            continue
        if b"\0" in block:
            raise ByroteError(
                f"{path.name} is not text: it holds NUL bytes",
                help="give UTF-8 text (iconv -f utf-16 -t utf-8 converts), or measure bytes",
            )
        text = decoder.decode(block)
        stored = before + block
        bad = text.count("\ufffd") - stored.count("\ufffd".encode())  # what was there is no damage
        before = stored[-2:]
        reading.replaced += max(0, bad)
        if bad > _REFUSED_FRAC * len(text) and len(block) > 64:
            raise ByroteError(f"{path.name} is not UTF-8 text", help="convert it, or measure bytes")
        yield (text.removeprefix("\ufeff") if first else text).encode()
        first = first and not text
    cut_short = decoder.decode(b"", final=True)
    reading.replaced += len(cut_short)
    yield cut_short.encode()


def _stored(path: Path, reading: Reading) -> Iterator[bytes]:
    """A file's bytes, unpacked where it is gzipped."""
    with path.open("rb") as file:
        source: IO[bytes] = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
        at = total = 0
        while True:
            try:
                block = source.read(READ_BYTES)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ByroteError(
                    f"{path.name} cannot be unpacked ({error})", help="copy the file again"
                ) from None
            total += len(block)
            if path.suffix == ".gz" and total > max(_BOMB_BYTES, _BOMB_RATIO * file.tell()):
                raise ByroteError(
                    f"{path.name} expands more than {_BOMB_RATIO} times: that is no text",
                    help="unpack it and look at it first",
                )
            reading.on_bytes(file.tell() - at)
            at = file.tell()
            if not block:
                return
            yield block


def _json_texts(path: Path, text_field: str, reading: Reading) -> Iterator[bytes]:
    for number, line in enumerate(_lines(path, reading), start=1):
        where = f"line {number:,}"
        if line is None:
            reading.skip(f"{where} is longer than {MAX_LINE_BYTES >> 20} MiB", "split it")
            continue
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            reading.skip(f"{where} is not JSON", "one JSON object per line")
            continue
        text = record.get(text_field) if isinstance(record, dict) else None
        if isinstance(text, str):
            yield text.encode("utf-8", "replace")
        elif isinstance(record, dict):
            help = did_you_mean(text_field, record) if record else "name the field that holds it"
            reading.skip(f"{where} has no text in a field {text_field!r}", help)
        else:
            reading.skip(f"{where} is no JSON object", "one JSON object per line")


def _lines(path: Path, reading: Reading) -> Iterator[bytes | None]:
    """The lines of a file; None for one over the limit, which is never held whole."""
    waiting, size = [], 0
    for block in _stored(path, reading):
        *whole, rest = block.split(b"\n")
        for part in whole:
            yield None if size + len(part) > MAX_LINE_BYTES else b"".join([*waiting, part])
            waiting, size = [], 0
        size += len(rest)
        waiting = [] if size > MAX_LINE_BYTES else [*waiting, rest]
    if size:
        yield b"".join(waiting) if size <= MAX_LINE_BYTES else None
