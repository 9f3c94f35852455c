"""What every model of a series is shown: drawn once, from the first model loaded or from what an earlier sweep wrote.

No torch: a finished sweep that is asked again draws everything from run.json and loads no model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from byrote.checkpoints.errors import ByroteError, CheckpointError, PluginError
from byrote.checkpoints.series import Checkpoint, CheckpointSeries
from byrote.checkpoints.token_sets import TokenSets, token_sets_from_files, token_sets_of
from byrote.checkpoints.vocabulary import from_ranges, tokenizer_of, usable_ids, variant_pairs
from byrote.probes.stimuli import Stimulus, Vocabulary, make
from byrote.probes.sweep.given import Draw, keep, with_kept, with_text
from byrote.probes.sweep.plan import SweepConfig, groups


class Setting:
    """The stimuli of a sweep, and the model they were drawn for.

    Attributes:
        shape: of the series' model; empty until the first one is loaded or recalled.
        stimuli: kind -> tokens.
        refused: kind -> why it cannot be drawn for this model.
        vocabulary: what random tokens are drawn from; None as long as `shape` is empty.
        notes: what the reader of the results should know about them.
    """

    def __init__(self, series: CheckpointSeries, config: SweepConfig, root: Path) -> None:
        self.series, self.config, self.root = series, config, root
        self.shape: dict[str, Any] = {}
        self.stimuli: dict[str, Stimulus] = {}
        self.refused: dict[str, str] = {}
        self.vocabulary: Vocabulary | None = None
        self.notes = list(series.notes)
        self._text: tuple[Draw, str, list[str]] | None = None

    def learn(self, model: Any, checkpoint: Checkpoint) -> None:
        """Draw the stimuli for a model that is loaded."""
        tokenizer = tokenizer_of(checkpoint)
        ids, bos, note = usable_ids(model.config, model.shape.d_vocab, tokenizer=tokenizer)
        self._prepare(model.shape.to_json(), ids, bos, note, variant_pairs(tokenizer, ids))

    def ids_of(self, kinds: Sequence[str]) -> str:
        """Ids of some kinds of stimulus; those that were not drawn are left out."""
        return " ".join(self.stimuli[kind].id for kind in kinds if kind in self.stimuli)

    def refuse_other_shape(self, shape: dict[str, Any], *, step: int) -> None:
        """One series is one model.

        Raises:
            CheckpointError: this step has another shape than the model the stimuli were drawn for.
        """
        if shape != self.shape:
            differing = ", ".join(
                f"{k} {self.shape[k]} -> {shape[k]}" for k in shape if shape[k] != self.shape[k]
            )
            raise CheckpointError(
                f"step {step} is another model than the first step ({differing})",
                help="a series is one model in training; put the other model in its own folder",
            )

    def keep_text(self) -> None:
        """Text that was given is kept as the windows shown, so that the next sweep can do without the file."""
        if self._text is not None and "natural" in self.stimuli:
            draw, source, said = self._text
            keep(self.root, self.stimuli["natural"], draw, source=source, notes=said)
            self._text = None

    def recall(self) -> None:
        """Shape of an earlier sweep of this folder, so that a finished one loads no model at all."""
        file = self.root / "run.json"
        if not file.is_file():
            return
        try:
            earlier = json.loads(file.read_text(encoding="utf-8"))
            shape, vocabulary = earlier["model"], earlier["vocabulary"]
            variants = [(int(first), int(second)) for first, second in vocabulary["variants"]]
            remembered = (
                dict(shape),
                from_ranges(vocabulary["ids"]),
                vocabulary["bos"],
                vocabulary["note"],
                variants,
            )
            n_ctx = shape["n_ctx"]
        except (ValueError, LookupError, TypeError, AttributeError):
            return  # damaged, or of a sweep that loaded nothing: the first model loaded says it again
        if isinstance(n_ctx, int):
            self._prepare(*remembered)

    def _prepare(
        self, shape: dict[str, Any], ids: list[int], bos: int, note: str, variants: Sequence[Sequence[int]]
    ) -> None:
        """Draw the stimuli once, from the first model loaded; every step of the series is shown the same tokens."""
        self.shape, self.stimuli, self.refused = shape, {}, {}
        alike = tuple((first, second) for first, second in variants)
        self.vocabulary = Vocabulary(np.asarray(ids, dtype=np.int64), bos, note, alike)
        self.notes += [note] if note and note not in self.notes else []
        material = self._material(Draw(self.config.seed, self.config.n_seq, shape["n_ctx"], bos))
        for kind in dict.fromkeys(kind for group in groups(self.config.infos) for kind in group.stimuli):
            if kind in self.refused:
                continue
            try:
                self.stimuli[kind] = make(
                    kind,
                    self.vocabulary,
                    n_ctx=shape["n_ctx"],
                    seed=self.config.seed,
                    n_seq=self.config.n_seq,
                    material=material,
                )
            except (CheckpointError, PluginError):
                raise
            except ByroteError as error:
                self.refused[kind] = error.message

    def _material(self, draw: Draw) -> TokenSets:
        """Real text, members and twins: what the series carries, and the files given on top, now or before."""
        files = {"members": self.config.members, "twins": self.config.twins}
        found, tokenizer, said = token_sets_of(self.series), tokenizer_of(self.series[0]), []
        if any(files.values()):
            found = token_sets_from_files(found, tokenizer=tokenizer, bos=draw.bos, n_ctx=draw.n_ctx, **files)
        if self.config.text is not None:
            found, said = with_text(found, self.config.text, draw, tokenizer=tokenizer)
            self._text = (draw, found.sources["natural"], said)
        elif found.natural is None:
            try:
                found, said = with_kept(found, self.root, draw)
            except ByroteError as error:
                self.refused["natural"] = error.message
        self.notes += [note for note in (*found.notes, *said) if note not in self.notes]
        return found
