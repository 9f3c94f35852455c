"""Measure corpora: every corpus is read once (a reference twice) and all measures see the same batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from byrote.checkpoints.errors import ByroteError
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
from byrote.checkpoints.tokenizing import one_tokenizer_process
from byrote.probes.text import perplexity, synthetic_share
from byrote.probes.text.concentration import Concentration
from byrote.probes.text.density import Density
from byrote.probes.text.induction_signal import InductionSignal
from byrote.probes.text.near_duplicates import NearDuplicates
from byrote.probes.text.repetition import Repetition
from byrote.probes.text.report import Number, TextReport, frame_of
from byrote.probes.text.settings import TextSettings
from byrote.probes.text.tail_mass import Rare, RareCounts, TailMass
from byrote.probes.text.windows import Batch, Windower, encoder

MIN_DOCUMENTS = 8  # with fewer, windows are resampled instead
_NEEDS = {
    "tail_mass": ("reference",),
    "perplexity": ("model",),
    "synthetic_share": ("reference", "synthetic"),
}


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
            for chunk in self._chunks(settings, Reading()):
                found = chunk.documents[-1] + 1
                if found >= MIN_DOCUMENTS:
                    break
        if not found:
            raise NothingToReadError(f"{self.name} holds no text", help="give a file that is not empty")
        return found >= MIN_DOCUMENTS and settings.windows != "packed"

    def _chunks(self, settings: TextSettings, reading: Reading) -> Iterator[Chunk]:
        return text_chunks(
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
        excerpts: perplexity.Excerpts | None = None,
    ) -> Iterator[Batch]:
        """The whole corpus in batches of windows.

        Args:
            settings: units and how documents are separated.
            windower: a fresh one; afterwards it has counted tokens, documents and windows.
            reading: counts what could not be read.
            excerpts: gets a sample of the text (or windows of ids) for a model.
        """
        for codes in self._codes(settings, reading, excerpts):
            yield from windower.feed(*codes)
        yield from windower.flush()

    def _codes(
        self, settings: TextSettings, reading: Reading, excerpts: perplexity.Excerpts | None
    ) -> Iterator[Codes]:
        if self.is_ids:
            yield from id_blocks(self.files, reading.on_bytes)
            return
        with encoder(settings.units, settings.tokenizer) as encode:
            for chunk in self._chunks(settings, reading):
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


@dataclass
class _Measured:
    """One corpus and what is stored of it for the corpora after it."""

    corpus: Corpus
    windower: Windower
    reading: Reading
    measures: dict[str, Any] = field(default_factory=dict)
    rare: dict[int, Rare] | None = None
    tail: TailMass | None = None
    losses: np.ndarray | None = None
    counted: Any = None


class _Run:
    def __init__(
        self, settings: TextSettings, reader: perplexity.Reader | None, on_bytes: Callable[[int], None]
    ) -> None:
        self.settings, self.reader, self.on_bytes = settings, reader, on_bytes
        self.reference: _Measured | None = None
        self.synthetic: _Measured | None = None
        self.rows: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.sizes: dict[str, dict[str, int]] = {}
        self.incomplete = False

    def corpus(
        self, corpus: Corpus, *, by_document: bool, is_reference: bool = False, is_synthetic: bool = False
    ) -> None:
        """Measure one corpus; the reference has to come first, the synthetic source of the others second."""
        done = self._read(corpus, by_document=by_document, is_reference=is_reference)
        if is_reference:
            self._hold_out(done, by_document=by_document)
        for number in self._numbers(done, is_reference=is_reference):
            self.rows.append(number.row(corpus.name))
            self.incomplete |= number.missing
        self._note(done)
        if is_reference:
            self.reference = done
        if is_synthetic:
            self.synthetic = done

    def failed(self, corpus: Corpus, error: ByroteError) -> None:
        """A corpus that broke while it was read: one row says so."""
        self.rows.append(Number("corpus", "read", reason=str(error)).row(corpus.name))
        self.incomplete = True

    def _read(self, corpus: Corpus, *, by_document: bool, is_reference: bool) -> _Measured:
        settings = self.settings
        done = _Measured(corpus, self._windower(by_document=by_document), Reading(self.on_bytes))
        seed, resampled = settings.seed, "documents" if by_document else "windows"
        pieces = "documents" if by_document else "pieces"
        made = {
            "inducible": Repetition("inducible", seed=seed, resampled=resampled),
            "induction_signal": InductionSignal(seed=seed, resampled=resampled),
            "repeats": Repetition("repeats", seed=seed, resampled=pieces),
            "rep": Repetition("rep", seed=seed, resampled=resampled),
            "concentration": Concentration(seed=seed, resampled=resampled, by_document=by_document),
            "near_duplicates": NearDuplicates(seed=seed, by_document=by_document),
        }
        if settings.includes("density"):
            made["density"] = Density(seed=seed, by_document=by_document)
        done.counted = made["concentration"]
        done.measures = {name: measure for name, measure in made.items() if settings.includes(name)}
        looking: list[Any] = list(done.measures.values())
        if settings.includes("synthetic_share") and done.counted not in looking:
            looking.append(done.counted)
        counted = RareCounts() if is_reference and settings.includes("tail_mass") else None
        if counted is not None:
            looking.append(counted)
        if self.reference is not None and self.reference.rare is not None:
            done.tail = TailMass(self.reference.rare, seed=seed, resampled=pieces)
            looking.append(done.tail)
        excerpts = None
        if self.reader is not None:
            excerpts = perplexity.Excerpts(settings.sample, context=settings.context, seed=seed)
        for batch in corpus.batches(settings, done.windower, done.reading, excerpts=excerpts):
            if excerpts is not None and corpus.is_ids:
                excerpts.add_batch(batch)
            for measure in looking:
                measure.add(batch)
        if not done.windower.tokens:
            raise NothingToReadError(
                f"{corpus.name} holds no whole window of {settings.context} tokens"
                if settings.windows == "full"
                else f"{corpus.name} holds no {settings.units}",
                help="give a shorter context" if settings.windows == "full" else "give a longer text",
            )
        if counted is not None:
            done.rare = counted.rare()
        if self.reader is not None and excerpts is not None:
            done.losses = self.reader.losses(excerpts.items)
        return done

    def _hold_out(self, done: _Measured, *, by_document: bool) -> None:
        """The second reading of the reference: how much of its own tail its second half holds."""
        if done.rare is None:
            return
        pieces = "documents" if by_document else "pieces"
        done.tail = TailMass(done.rare, seed=self.settings.seed, resampled=pieces, odd_only=True)
        windower = self._windower(by_document=by_document)
        for batch in done.corpus.batches(self.settings, windower, Reading(self.on_bytes)):
            done.tail.add(batch)
        rarest = ", ".join(f"{n}-grams {one.max_count:,}" for n, one in done.rare.items())
        self.notes.append(f"rare n-grams of {done.corpus.name}: seen in its first half at most: {rarest}")

    def _windower(self, *, by_document: bool) -> Windower:
        settings = self.settings
        return Windower(
            settings.context,
            settings.piece,
            mode=settings.windows,
            by_document=by_document,
            seed=settings.seed,
        )

    def _numbers(self, done: _Measured, *, is_reference: bool) -> Iterator[Number]:
        reference = None if is_reference else self.reference
        for name, measure in done.measures.items():
            if name in ("concentration", "density"):
                yield from measure.numbers(reference.measures[name] if reference else None)
            else:
                yield from measure.numbers()
        if done.tail is not None:
            yield from done.tail.numbers(reference.tail if reference else None)
        if (
            reference is not None
            and self.synthetic is not None
            and self.settings.includes(synthetic_share.NAME)
        ):
            sources = reference.counted, self.synthetic.counted
            yield from synthetic_share.numbers(done.counted, *sources, seed=self.settings.seed)
        if done.losses is not None and self.reader is not None:
            if len(done.losses):
                other = reference.losses if reference is not None else None
                other = other if other is not None and len(other) else None
                n_vocab, seed = self.reader.n_vocab, self.settings.seed
                yield from perplexity.numbers(done.losses, other, n_vocab=n_vocab, seed=seed)
            else:
                yield Number(perplexity.NAME, "loss", reason="no stretch has two tokens of the model's")

    def _note(self, done: _Measured) -> None:
        windower, reading, name = done.windower, done.reading, done.corpus.name
        what = "ids" if done.corpus.is_ids else self.settings.units
        sizes = {"documents": windower.documents, "windows": windower.windows}
        if self.settings.windows == "packed":
            sizes["documents"] = windower.joined
        self.sizes[name] = {"units": windower.tokens, **sizes, "pieces": windower.pieces}
        counted = ", ".join(f"{n:,} {noun if n > 1 else noun[:-1]}" for noun, n in sizes.items())
        self.notes.append(f"{name}: {windower.tokens:,} {what}, {counted}")
        if reading.replaced:
            places = "1 place" if reading.replaced == 1 else f"{reading.replaced:,} places"
            self.notes.append(f"{name}: bytes that are not UTF-8 were replaced in {places}")
        self.notes += [
            f"{name}: {lost}" if file == name else f"{name}: {file}: {lost}" for file, lost in reading.files
        ]
        self.incomplete |= bool(reading.files)
        sampled = [
            done.measures[one] for one in ("induction_signal", "near_duplicates") if one in done.measures
        ]
        self.notes += [f"{name}: {measure.note}" for measure in sampled if measure.note]
        if done.tail is not None:
            self.notes += [f"{name}: {line}" for line in done.tail.notes()]


def measure_text(
    paths: Sequence[str | Path],
    settings: TextSettings | None = None,
    *,
    reference: str | Path | None = None,
    synthetic: str | Path | None = None,
    model: str | Path | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> TextReport:
    """Measure what corpora would teach a model, in memory that does not grow with them.

    Args:
        paths: corpora: .txt, .jsonl (either may be .gz), .parquet, .npy or .safetensors of token ids, or folders of them.
        settings: units, windows, which measures; see `TextSettings`.
        reference: a corpus the others are compared with; it is measured too, first.
        synthetic: the synthetic source of the corpora, where they are mixtures of it and the reference; measured second.
        model: a checkpoint for perplexities; torch is imported only then.
        device, dtype: of the model.
        threads: CPU threads of the model; None means one for a small model, else torch's own choice.
        on_progress: called with the bytes read so far and the bytes there are to read.

    Raises:
        NothingToReadError: a corpus that is empty.
        ByroteError: a path, file, tokenizer or setting that cannot be used. A corpus that breaks while it is read, when
            it is not the reference, only loses its own numbers.
    """
    settings = settings or TextSettings()
    _check_needs(settings, reference=reference, model=model, synthetic=synthetic)
    sources = [path for path in (reference, synthetic) if path is not None]
    corpora = _open_with(sources, paths)
    _check_units(corpora, settings, compared=reference is not None)
    by_document = [corpus.has_documents(settings) for corpus in corpora]
    reader = None
    if model is not None and settings.includes("perplexity"):
        reader = perplexity.Reader(
            model,
            tokenizer=settings.tokenizer,
            context=settings.context,
            device=device,
            dtype=dtype,
            threads=threads,
        )
    twice = reference is not None and settings.includes("tail_mass")
    total = sum(corpus.size_bytes for corpus in corpora) + (corpora[0].size_bytes if twice else 0)
    read = 0

    def on_bytes(n: int) -> None:
        nonlocal read
        read += n
        if on_progress is not None:
            on_progress(min(read, total), total)

    run = _Run(settings, reader, on_bytes)
    with one_tokenizer_process():
        for i, corpus in enumerate(corpora):
            is_reference = reference is not None and i == 0
            try:
                is_synthetic = synthetic is not None and i == 1
                run.corpus(
                    corpus, by_document=by_document[i], is_reference=is_reference, is_synthetic=is_synthetic
                )
            except ByroteError as error:
                if is_reference or i < len(sources) or len(corpora) == 1:
                    raise
                run.failed(corpus, error)
    meta = asdict(settings) | {
        "tokenizer": settings.tokenizer.name if settings.tokenizer else None,
        "reference": corpora[0].name if reference is not None else None,
        "synthetic": corpora[1].name if synthetic is not None else None,
        "corpora": run.sizes,
    }
    return TextReport(frame_of(run.rows), run.notes, run.incomplete, meta)


def _open_with(sources: Sequence[str | Path], paths: Sequence[str | Path]) -> list[Corpus]:
    """The corpora, those that the others are held against first."""
    corpora = open_corpora([*sources, *paths])
    if sources and len(corpora) <= len(sources):
        names = " and ".join(dict.fromkeys((corpora[0].name, corpora[-1].name)))
        what = (
            "the reference itself" if len(sources) == 1 else "the sources themselves, and no mixture of them"
        )
        raise ByroteError(
            f"{names} {'is' if len(sources) == 1 else 'are'} {what}", help="give a corpus to compare with it"
        )
    return corpora


def _check_needs(settings: TextSettings, **given: Any) -> None:
    wanted = [*(settings.measures or ()), *(["synthetic_share"] if given["synthetic"] is not None else [])]
    for measure in wanted:
        for needed in _NEEDS.get(measure, ()):
            if given[needed] is None:
                article = "a synthetic corpus" if needed == "synthetic" else f"a {needed}"
                raise ByroteError(f"{measure} needs {article}", help=f"give one: --{needed} PATH")


def _check_units(corpora: Sequence[Corpus], settings: TextSettings, *, compared: bool) -> None:
    """Token ids and text can be compared only where the text becomes tokens too."""
    kinds = {corpus.is_ids for corpus in corpora}
    if compared and len(kinds) == 2 and settings.units != "tokens":
        ids = next(corpus.name for corpus in corpora if corpus.is_ids)
        raise ByroteError(
            f"{ids} holds token ids and other corpora are read as {settings.units}",
            help="give the tokenizer the ids were made with: --tokenizer PATH",
        )
