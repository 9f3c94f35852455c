"""The stimuli of a sweep: drawn once, from the first model loaded or from what an earlier sweep wrote.

    results/<run>/stimuli/natural.safetensors     the windows of a given text that were shown, as token ids

A finished sweep that is run again draws everything from run.json and loads no model; one that is run again without
the text, for instance to add checkpoints, shows the same windows. No torch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from byrote.checkpoints.array_files import open_arrays, write_arrays
from byrote.checkpoints.errors import ByroteError, CheckpointError, PluginError
from byrote.checkpoints.former_name import stored_under
from byrote.checkpoints.safe_read import FileRefused, own_path
from byrote.checkpoints.series import Checkpoint, CheckpointSeries
from byrote.checkpoints.token_sets import TokenSets, natural_windows, token_sets_from_files, token_sets_of
from byrote.checkpoints.untrained import untrained_in
from byrote.checkpoints.vocabulary import tokenizer_of, usable_ids, variant_pairs
from byrote.probes.contexts import MOST_WINDOWS, RUNGS, contexts_in_order
from byrote.probes.own_blocks import own_blocks
from byrote.probes.results.run_json import RUNNING, stored_run_json
from byrote.probes.stimuli import TOKEN_SET_STIMULI, Stimulus, Vocabulary, make
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.plan import groups

MAX_WINDOW_TOKENS = 1024  # longer contexts would mostly cost time
CONTEXTS = "natural_contexts"  # of which as many are shown as the trained model needs
WINDOWS = Path("stimuli") / "natural.safetensors"
_FACTS = "byrote"


class StimulusSet:
    """The stimuli of a sweep, and the model they were drawn for.

    Attributes:
        shape: of the series' model; empty until the first one is loaded or recalled.
        stimuli: kind -> tokens.
        refused: kind -> why it cannot be drawn for this model.
        vocabulary: what random tokens are drawn from; None as long as `shape` is empty.
        notes: remarks on them for readers of the results.
        unsettled: whether it is still to be found out how many windows of `natural_contexts` are shown, see `settle`.

    Args:
        series: what is measured.
        config: probes, seed and sizes, and the files given.
        root: the results folder; what an earlier sweep of it says of the model is recalled.
        as_drawn: recall it also where that sweep was of a series that training went on with.
    """

    def __init__(
        self, series: CheckpointSeries, config: SweepConfig, root: Path, *, as_drawn: bool = False
    ) -> None:
        self.series, self.config, self.root = series, config, root
        self.shape: dict[str, Any] = {}
        self.stimuli: dict[str, Stimulus] = {}
        self.refused: dict[str, str] = {}
        self.vocabulary: Vocabulary | None = None
        self.notes = list(series.notes)
        self._text: dict[str, Any] | None = None  # what is to be said of the windows once they are written
        self._given = TokenSets()
        self.unsettled = False
        earlier = stored_run_json(root)  # says nothing of a model where none was loaded, or it is damaged
        if earlier.get("status") == RUNNING and not as_drawn:
            earlier = {}  # drawn for a part of the series
        vocabulary = Vocabulary.from_json(earlier.get("vocabulary"))
        model = earlier.get("model") or {}
        known = vocabulary and (vocabulary.trained or not self._draws_ids)
        if vocabulary and known and model.get("n_ctx") and vocabulary.fits(model.get("d_vocab") or 0):
            self._draw(earlier["model"], vocabulary, self._token_sets(earlier["model"], vocabulary.bos))
            self._recall_contexts(earlier.get("stimuli"))

    def fit(self, model: Any, checkpoint: Checkpoint, *, first: bool) -> None:
        """Draw the stimuli for a model that is loaded, where they are not drawn yet.

        Args:
            model: of the checkpoint.
            checkpoint: that is measured.
            first: whether nothing of this sweep has been measured or reused: what is recalled then gives way.

        Raises:
            ByroteError: its vocabulary is empty but for special tokens.
            CheckpointError: it has another shape than the model they were drawn for: a series is one model.
        """
        shape = model.shape.to_json()
        if not self.shape or (first and self.shape != shape):
            tokenizer, d_vocab = tokenizer_of(checkpoint), model.shape.d_vocab
            never = untrained_in(self.series, d_vocab) if self._draws_ids else set()
            ids, bos, note = usable_ids(model.config, d_vocab, tokenizer=tokenizer, untrained=never)
            if not ids:
                raise ByroteError(
                    f"the model's vocabulary has {d_vocab} token, and none to draw a text from",
                    help="byrote measures what a model does with sequences of tokens; it needs at least one beside BOS",
                )
            token_sets = self._token_sets(shape, bos)
            if tokenizer is not None and self.config.text is not None and token_sets.natural is not None:
                counts = Counter(token_sets.natural[:, 1:].ravel().tolist())
                ids, bos, note = usable_ids(
                    model.config, d_vocab, tokenizer=tokenizer, untrained=never, produced=counts
                )
            alike = tuple((one, other) for one, other in variant_pairs(tokenizer, ids))
            usable = np.asarray(ids, dtype=np.int64)
            self._draw(shape, Vocabulary(usable, bos, note, alike, self._draws_ids), token_sets)
        if shape != self.shape:
            differing = ", ".join(
                f"{k} {self.shape[k]} -> {shape[k]}" for k in shape if shape[k] != self.shape[k]
            )
            raise CheckpointError(
                f"step {checkpoint.step} is another model than the first step ({differing})",
                help="a series is one model in training; put the other model in its own folder",
            )
        if not self.unsettled:
            self._write()

    @property
    def _draws_ids(self) -> bool:
        """Whether a number that is measured depends on which ids are usable: only then is the embedding read for them."""
        infos = self.config.infos
        drawn = {kind for info in infos for kind in info.stimuli} - (TOKEN_SET_STIMULI.keys() - {"words"})
        guessed = any(isinstance(level, str) for info in infos for level in info.chance_levels.values())
        return bool(drawn) or guessed or any(info.reads_ids for info in infos)

    def settle(self, n: int, note: str) -> None:
        """Show so many windows of `natural_contexts` from now on.

        Args:
            n: windows.
            note: for readers of the results.
        """
        self.stimuli[CONTEXTS], self.unsettled = self.contexts(n), False
        self.notes += [note] if note not in self.notes else []
        self._write()

    def contexts(self, n: int) -> Stimulus:
        """The first n windows of text that may be shown, or all there are."""
        return self._made(CONTEXTS, n)

    def _made(self, kind: str, n: int) -> Stimulus:
        assert self.vocabulary is not None, "a model is known"
        n_ctx, seed = self.shape["n_ctx"], self.config.seed
        return make(kind, self.vocabulary, n_ctx=n_ctx, seed=seed, n_seq=n, token_sets=self._given)

    def _recall_contexts(self, stored: Any) -> None:
        """Show as many windows as an earlier sweep of this folder did, where they are of the same text."""
        entries = stored if isinstance(stored, list) else []
        earlier = next((e for e in entries if isinstance(e, dict) and e.get("kind") == CONTEXTS), {})
        n = earlier.get("n")
        if self.unsettled and type(n) is int and 0 < n <= MOST_WINDOWS:
            self.stimuli[CONTEXTS] = self.contexts(n)
            self.unsettled = self.stimuli[CONTEXTS].id != earlier.get("id")

    def _write(self) -> None:
        if self._text is None or not {"natural", CONTEXTS} & self.stimuli.keys():
            return
        n_ctx, seed = self.shape["n_ctx"], self.config.seed
        pool, document = contexts_in_order(self._given, n_ctx=n_ctx, seed=seed)
        shown = self.stimuli.get("natural") or self._made("natural", self.config.n_seq)
        _write_windows(self.root, shown, (pool, document), self._text)
        self._text = None

    def ids_of(self, kinds: Sequence[str]) -> str:
        """Ids of some kinds of stimulus; those that were not drawn are left out."""
        return " ".join(self.stimuli[kind].id for kind in kinds if kind in self.stimuli)

    def _draw(self, shape: dict[str, Any], vocabulary: Vocabulary, token_sets: TokenSets) -> None:
        """Every step of the series is shown the same tokens."""
        self.shape, self.vocabulary, self.stimuli, self._given = shape, vocabulary, {}, token_sets
        note, config = vocabulary.note, self.config
        self.notes += [note] if note and note not in self.notes else []
        kinds = dict.fromkeys(kind for group in groups(config.infos) for kind in group.stimuli)
        if "words" in kinds and self._text is not None:
            kinds["natural"] = (
                None  # they are found in the windows shown, which are stored to be found in again
            )
        own = {}
        if config.stimulus is not None:
            sizes = {"n_ctx": shape["n_ctx"], "d_vocab": shape["d_vocab"], "seed": config.seed}
            own = own_blocks(config.stimulus, vocabulary, **sizes)
            self.notes.append(f"repeated tokens are your own: {own['repeated_random'].id}")
        for kind in kinds:
            if kind in self.refused:
                continue
            try:
                self.stimuli[kind] = (
                    own[kind]
                    if kind in own
                    else self._made(kind, RUNGS[0] if kind == CONTEXTS else config.n_seq)
                )
            except (CheckpointError, PluginError):
                raise
            except ByroteError as error:
                self.refused[kind] = error.message
        self.unsettled = CONTEXTS in self.stimuli

    def _token_sets(self, shape: Mapping[str, Any], bos: int) -> TokenSets:
        """Real text, members and twins: what the series carries, and the files given on top, now or before."""
        windows, self.refused = _Windows(self.config.seed, self.config.n_seq, shape["n_ctx"], bos), {}
        files = {"members": self.config.members, "twins": self.config.twins}
        found, tokenizer = token_sets_of(self.series), tokenizer_of(self.series[0])
        notes: list[str] = []
        if any(files.values()):
            found = token_sets_from_files(
                found, tokenizer=tokenizer, bos=windows.bos, n_ctx=windows.n_ctx, **files
            )
        if self.config.text is not None:
            found, notes = windows.cut(found, self.config.text, tokenizer=tokenizer)
            self._text = {"source": found.sources["natural"], "notes": notes, **vars(windows)}
        elif found.natural is None:
            try:
                found, notes = windows.read(found, self.root)
            except ByroteError as error:
                self.refused |= dict.fromkeys(("natural", CONTEXTS), error.message)
        self.notes += [note for note in (*found.notes, *notes) if note not in self.notes]
        return found


@dataclass(frozen=True)
class _Windows:
    """What decides which windows of a text are shown: the draw, the model's context, and what stands before each."""

    seed: int
    n_seq: int
    n_ctx: int
    bos: int

    def cut(self, base: TokenSets, text: Path, *, tokenizer: Path | None) -> tuple[TokenSets, list[str]]:
        """Token sets whose natural text is cut from a file or folder, and what must be said of it.

        Raises:
            ByroteError: see `natural_windows`.
        """
        width = min(self.n_ctx, MAX_WINDOW_TOKENS)
        cut = natural_windows(text, tokenizer=tokenizer, bos=self.bos, width=width, wanted=self.n_seq)
        found = replace(
            base,
            natural=cut.tokens,
            natural_document=cut.document,
            sources={**base.sources, "natural": text.name},
        )
        n, width = min(self.n_seq, len(cut.tokens)), cut.tokens.shape[1]
        notes = (f"{n} windows of {width:,} tokens from {text.name}", *cut.notes)
        return found, [f"natural text: {note}" for note in notes]

    def read(self, base: TokenSets, root: Path) -> tuple[TokenSets, list[str]]:
        """Token sets whose natural text is what an earlier sweep of this folder showed; unchanged where there is none.

        Raises:
            ByroteError: it was drawn otherwise, so that the text itself is needed; or the file is damaged.
        """
        from safetensors import SafetensorError

        file = root / WINDOWS
        if not file.is_file():
            return base, []
        try:
            with open_arrays(file) as stored:
                facts = json.loads(stored_under(stored.metadata(), _FACTS, "null"))
                tokens = stored.get_tensor("tokens").astype(np.int64)
                contexts = tokens[:0], tokens[:0, 0]  # an earlier version stored none
                if {"contexts", "document"} <= set(stored.keys()):
                    pool, document = (
                        stored.get_tensor(name).astype(np.int64) for name in ("contexts", "document")
                    )
                    contexts = pool[: document.size], document.reshape(-1)[: len(pool)]
            source, notes = str(facts["source"]), [str(note) for note in facts["notes"]]
            differing = [
                f"{name} {facts[name]}, now {now}" for name, now in vars(self).items() if facts[name] != now
            ]
        except (OSError, ValueError, KeyError, TypeError, FileRefused, SafetensorError):
            raise ByroteError(
                "the natural text saved by an earlier sweep cannot be read", help="give it again with --text"
            ) from None
        if differing:
            raise ByroteError(
                f"the natural text ({source}) was drawn with {', '.join(differing)}: give it again with --text FILE",
                help="or repeat the earlier command",
            )
        sources = {**base.sources, "natural": source}
        return replace(base, natural=tokens, contexts=contexts, sources=sources), notes


def _write_windows(
    root: Path, shown: Stimulus, contexts: tuple[np.ndarray, np.ndarray], facts: dict[str, Any]
) -> None:
    """Write the windows of a text, whole or not at all, so that the next sweep can do without it."""
    header = {_FACTS: json.dumps({"id": shown.id, **facts}, sort_keys=True)}
    arrays = {"tokens": shown.tokens, "contexts": contexts[0], "document": contexts[1]}
    arrays = {name: array.astype(np.int32) for name, array in arrays.items()}
    write_arrays(own_path(root, *WINDOWS.parts), arrays, header)
