"""A lab series that another one is made from: which weights, and what it was trained on. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.former_name import same_format
from byrote.checkpoints.lab.as_written import WEIGHTS, hash_in, read_as_written
from byrote.checkpoints.lab.config import LabConfig
from byrote.checkpoints.lab.sources import Source, source_of
from byrote.checkpoints.safe_read import read_json

INPUTS = "data/inputs.safetensors"
_SHAPE = ("n_layers", "d_model", "n_heads", "d_head", "attn_only", "normalization_type", "architecture", "smeared_keys")  # fmt: skip
_TRAIN_IT = "train it first, and name its folder as seen from the folder of this run"


@dataclass(frozen=True)
class OtherRun:
    """One written step of a complete lab series.

    Attributes:
        path: its folder.
        manifest: as written.
        step: of the weights.
        file: of the weights.
        weights: their hash, which the file must have.
        config: shape and source of its model.
    """

    path: Path
    manifest: Mapping[str, Any] = field(compare=False)
    step: int
    file: Path
    weights: str
    config: LabConfig

    @property
    def name(self) -> str:
        """Of the series."""
        return str(self.manifest.get("name", self.path.name))

    @property
    def generation(self) -> int:
        """Which generation its model is; 0 for one trained on real data."""
        arm = self.manifest.get("arm")
        found = arm.get("generation", 0) if isinstance(arm, Mapping) else 0
        return found if type(found) is int and found >= 0 else 0

    def facts(self) -> dict[str, Any]:
        """Which weights something was made with."""
        return {"run": self.name, "step": self.step, "weights": self.weights}

    def stored(self, kind: str, name: str) -> np.ndarray | None:
        """What was made for its own training, for the first of its parts of a kind; None where it has no such part.

        Raises:
            ByroteError: the file is not what was written.
        """
        arm = self.manifest.get("arm")
        parts = arm.get("parts") if isinstance(arm, Mapping) else None
        kinds = [part.get("kind") if isinstance(part, Mapping) else None for part in parts or ()]
        if kind not in kinds:
            return None
        try:
            arrays = load(read_as_written(self.path / INPUTS, hash_in(self.manifest, INPUTS)))
            return np.asarray(arrays[f"{kinds.index(kind)}.{name}"])
        except (OSError, SafetensorError, LookupError, ValueError) as error:
            raise ByroteError(
                f"what {self.name} was trained on cannot be read from {self.path / INPUTS}",
                help="train it again",
            ) from error


def open_run(path: Path, *, step: int = 0, like: Source) -> OtherRun:
    """A step of a series whose model reads the sequences of a source.

    Args:
        path: its folder.
        step: written; 0 for the last.
        like: the source; the model has to have its vocabulary, and a context at least as long.

    Raises:
        ByroteError: no complete lab series is there, it has no such step, or its model reads other sequences.
    """
    manifest, steps = _complete(path)
    wanted = step or max(steps, default=0)
    if wanted not in steps:
        nearest = min(steps, key=lambda found: abs(found - step), default=0)
        raise ByroteError(
            f"{path} has no checkpoint at step {wanted}", help=f"the nearest is {nearest}; 0 means the last"
        )
    entry, source = steps[wanted], _source(manifest, like)
    if source is None or (source.d_vocab, source.bos_token_id) != (like.d_vocab, like.bos_token_id):
        raise ByroteError(f"the model in {path} has another vocabulary", help="name a run on the same source")
    if source.n_ctx < like.n_ctx:
        raise ByroteError(
            f"the model in {path} reads {source.n_ctx} tokens, and sequences here have {like.n_ctx}",
            help="name a run with a context at least as long",
        )
    digest, folder = entry.get(WEIGHTS), Path(str(entry.get("folder"))).name
    if not isinstance(digest, str):
        raise ByroteError(f"the weights in {path} have no hash", help="train that run again")
    file = path / folder / "model.safetensors"
    return OtherRun(path, manifest, wanted, file, digest, _config(manifest, source, path))


def written_weights(path: Path, *, step: int = 0) -> str | None:
    """The hash of the weights of a step of a series as its manifest has it now; None where no complete series is there.

    Args:
        path: its folder.
        step: written; 0 for the last. "" where there is no such step, or it has no hash.
    """
    try:
        _, steps = _complete(path)
    except ByroteError:
        return None
    digest = steps.get(step or max(steps, default=0), {}).get(WEIGHTS)
    return digest if isinstance(digest, str) else ""


def _complete(path: Path) -> tuple[dict[str, Any], dict[int, Mapping[str, Any]]]:
    """The manifest of a complete series, and its entries by step.

    Raises:
        ByroteError: none is there.
    """
    try:
        manifest = read_json(path / "manifest.json", follow_links=True)
    except (OSError, ValueError):
        raise ByroteError(f"there is no lab series in {path}", help=_TRAIN_IT) from None
    if not same_format(manifest.get("format"), "byrote-lab") or manifest.get("status") != "complete":
        raise ByroteError(f"{path} holds no complete lab series", help=_TRAIN_IT)
    listed = manifest.get("checkpoints")
    entries = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    return manifest, {one["step"]: one for one in entries if type(one.get("step")) is int}


def _source(manifest: Mapping[str, Any], like: Source) -> Source | None:
    """The source that it was trained on; one that needs a file is known where it is the same."""
    data = manifest.get("data")
    own = {"source": like.name, **{name: getattr(like, name) for name in like.settings()}}
    if isinstance(data, Mapping) and all(data.get(name) == value for name, value in own.items()):
        return like
    return source_of(manifest)


def _config(manifest: Mapping[str, Any], source: Source, path: Path) -> LabConfig:
    model = manifest.get("model")
    shape = {name: model[name] for name in _SHAPE if name in model} if isinstance(model, Mapping) else {}
    try:
        return LabConfig(**shape, source=source)
    except (ByroteError, TypeError, ValueError) as error:
        raise ByroteError(
            f"the manifest in {path} describes no model of the lab", help="train it again"
        ) from error


def weights_of(run: OtherRun) -> bytes:
    """The file of its weights, which must be what was written.

    Raises:
        ByroteError: it is not, or cannot be read.
    """
    try:
        return read_as_written(run.file, run.weights, help="train that run again")
    except OSError as error:
        raise ByroteError(
            f"cannot read {run.file}: {error.strerror or error}", help="train that run again"
        ) from error
