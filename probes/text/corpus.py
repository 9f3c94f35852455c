"""A corpus as a person names it: one file or a folder of files, of text or of token ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from byrote.checkpoints.errors import ByroteError
from byrote.probes.text import token_files
from byrote.probes.text.chunk import Chunk
from byrote.probes.text.excerpts import Excerpts
from byrote.probes.text.reading import Reading, text_chunks
from byrote.probes.text.settings import TextSettings
from byrote.probes.text.units import encoder
from byrote.probes.text.windows import Batch, Windower

TEXT_SUFFIXES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz")
MIN_DOCUMENTS = 8  # with fewer, windows are resampled instead


class NothingToReadError(ByroteError):
    """The path is fine and holds no text."""


@dataclass(frozen=True)
class Corpus:
    """Files that are measured together.

    Attributes:
        name: the file's or folder's name; the whole path where two corpora would have one name.
        files: in reading order.
        is_ids: token ids, not text.
    """

    name: str
    files: tuple[Path, ...]
    is_ids: bool

    @property
    def size_bytes(self) -> int:
        """Of all files, as stored."""
        return sum(file.stat().st_size for file in self.files)

    def has_documents(self, settings: TextSettings) -> bool:
        """Whether there are enough documents to resample; reads no further than it must.

        Raises:
            NothingToReadError: there is no text at all.
            ByroteError: a file that cannot be read.
        """
        if self.is_ids:
            found = token_files.n_documents(list(self.files))
        else:
            found = 0
            for chunk in self.chunks(settings, Reading()):
                found = chunk.documents[-1] + 1
                if found >= MIN_DOCUMENTS:
                    break
        if not found:
            raise NothingToReadError(f"{self.name} holds no text", help="give a file that is not empty")
        return found >= MIN_DOCUMENTS and settings.windows != "packed"

    def chunks(self, settings: TextSettings, reading: Reading) -> Iterator[Chunk]:
        """The text, if it is text."""
        yield from text_chunks(
            list(self.files),
            separators=settings.separators,
            text_field=settings.text_field,
            raw=settings.units == "bytes",
            reading=reading,
        )

    def batches(
        self,
        settings: TextSettings,
        windower: Windower,
        reading: Reading,
        *,
        excerpts: Excerpts | None = None,
    ) -> Iterator[Batch]:
        """The whole corpus in batches of windows.

        Args:
            settings: units and how documents are told apart.
            windower: a fresh one; afterwards it knows how many tokens, documents and windows there were.
            reading: counts what could not be read.
            excerpts: gets a sample of the text (or windows of ids) for a model.
        """
        for codes in self._codes(settings, reading, excerpts):
            for batch in windower.feed(*codes):
                if self.is_ids and excerpts is not None:
                    excerpts.add_batch(batch)
                yield batch
        for batch in windower.flush():
            if self.is_ids and excerpts is not None:
                excerpts.add_batch(batch)
            yield batch

    def _codes(self, settings: TextSettings, reading: Reading, excerpts: Excerpts | None) -> Iterator[tuple]:
        if self.is_ids:
            yield from token_files.id_blocks(list(self.files), reading.on_bytes)
            return
        encode = encoder(settings.units, settings.tokenizer)
        for chunk in self.chunks(settings, reading):
            if excerpts is not None:
                excerpts.add_chunk(chunk)
            yield encode(chunk)


def open_corpora(paths: Iterable[str | Path]) -> list[Corpus]:
    """Corpora in the order given, each once.

    Raises:
        NothingToReadError: a folder without files that could be read.
        ByroteError: a path that is not there, or of a kind that cannot be read.
    """
    found = [(path, _files(path)) for path in dict.fromkeys(Path(path) for path in paths)]
    names = [path.name for path, _ in found]
    corpora = []
    for path, files in found:
        name = path.name if names.count(path.name) == 1 and path.name else str(path)
        ids = [file.suffix in token_files.SUFFIXES for file in files]
        if any(ids) and not all(ids):
            raise ByroteError(f"{name} mixes text and token ids", help="give them as two corpora")
        corpora.append(Corpus(name, tuple(files), all(ids)))
    return corpora


def _files(path: Path) -> list[Path]:
    endings = (*TEXT_SUFFIXES, *token_files.SUFFIXES)
    if path.is_dir():
        inside = (p for p in sorted(path.rglob("*")) if not _hidden(p.relative_to(path)))
        files = [file for file in inside if file.name.endswith(endings) and file.is_file()]
        if not files:
            raise NothingToReadError(
                f"{path} holds no corpus file", help=f"it may hold {', '.join(endings)} files"
            )
        return files
    if not path.exists():
        raise ByroteError(f"{path} does not exist", help="check the path")
    if not path.is_file() or not path.name.endswith(endings):
        raise ByroteError(
            f"{path} is no corpus file", help=f"the name has to end in one of {', '.join(endings)}"
        )
    return [path]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
