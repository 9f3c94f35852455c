"""A corpus as a person names it: one file or a folder of files, of text or of token ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from byrote.checkpoints.texts import (
    Chunk,
    Codes,
    NothingToReadError,
    Reading,
    find_files,
    hold_ids,
    text_chunks,
)
from byrote.checkpoints.token_files import id_blocks, n_documents
from byrote.probes.text.perplexity import Excerpts
from byrote.probes.text.settings import TextSettings
from byrote.probes.text.windows import Batch, Windower, encoder

MIN_DOCUMENTS = 8  # with fewer, windows are resampled instead


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
            found = n_documents(self.files)
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
            self.files,
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

        def sampled(batches: Iterator[Batch]) -> Iterator[Batch]:
            for batch in batches:
                if self.is_ids and excerpts is not None:
                    excerpts.add_batch(batch)
                yield batch

        for codes in self._codes(settings, reading, excerpts):
            yield from sampled(windower.feed(*codes))
        yield from sampled(windower.flush())

    def _codes(self, settings: TextSettings, reading: Reading, excerpts: Excerpts | None) -> Iterator[Codes]:
        if self.is_ids:
            yield from id_blocks(self.files, reading.on_bytes)
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
    found = [(path, find_files(path)) for path in dict.fromkeys(Path(path) for path in paths)]
    names = [path.name for path, _ in found]
    corpora = []
    for path, files in found:
        name = path.name if names.count(path.name) == 1 and path.name else str(path)
        corpora.append(Corpus(name, tuple(files), hold_ids(files, name)))
    return corpora
