"""The folder of a lab series: its lock, its manifest, and how a step is added to it.

A step is added in this order: its folder, the manifest that lists it, then the state to resume from. A kill
between any two of them costs the steps since the last complete one and nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from byrote.checkpoints.atomic import (
    LOCK,
    is_leftover,
    leftovers,
    make_folder,
    remove,
    sync,
    write_bytes,
    write_folder,
    write_json,
)
from byrote.checkpoints.errors import ByroteError, PlaceError
from byrote.checkpoints.former_name import same_format
from byrote.checkpoints.lab.as_written import (
    FILES,
    MOMENTS,
    WEIGHTS,
    damage_in,
    hash_in,
    hash_of,
    is_verified,
    read_as_written,
)
from byrote.checkpoints.lab.config import LabConfig
from byrote.checkpoints.lab.corpus_facts import data_facts
from byrote.checkpoints.lab.inputs import make_inputs
from byrote.checkpoints.lab.other_run import INPUTS
from byrote.checkpoints.lab.sequences import Sequences
from byrote.checkpoints.lab.source import ArmStream, draw
from byrote.checkpoints.lab.sources import Source, SourceConfig
from byrote.checkpoints.lab.sources.contract import CODES
from byrote.checkpoints.safe_read import read_json, read_text

FORMAT, VERSION = "byrote-lab", 1
FACTS = "source_facts"  # of the manifest: shares and floor of the source
MADE, DATA_FACTS = "inputs", "data_facts"  # what was made before training; what the first batches are
_PACKAGES = ("torch", "transformer-lens", "numpy", "safetensors")
_CONTENTS = ("config.json", "data", "log.jsonl")
_DERIVED = ("arm.repeats_per_sequence", "model.n_ctx", "model.d_vocab")


def step_folder_name(step: int) -> str:
    """The folder of a step, such as `step_00000512`."""
    return f"step_{step:08d}"


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say the way out where something under a path cannot be written or removed.

    Raises:
        ByroteError: the folder cannot be written to, or the disk is full.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> ByroteError:
    """What a series says of a file that it cannot write."""
    return PlaceError(
        f"cannot write {path}: {error.strerror or error}",
        help="make room or choose another folder; the same command resumes from the last written step",
    )


@dataclass(frozen=True)
class Written:
    """One step, ready to be written.

    Attributes:
        entry: step and losses, as the manifest lists them.
        weights: the model's safetensors file.
        moments: hash of the optimiser's moments.
    """

    entry: dict[str, Any]
    weights: bytes
    moments: str


class SeriesFolder:
    """The folder a configuration trains into.

    Args:
        path: the folder; it need not exist.
        config: what is to be trained there.

    Raises:
        ByroteError: the path is a file, or a folder with something else in it.
    """

    def __init__(self, path: Path, config: LabConfig) -> None:
        self.path, self.config = path, config
        self.manifest: dict[str, Any] | None = _read_manifest(path)
        self._read_inputs: Mapping[str, np.ndarray] | None = None

    @property
    def complete(self) -> bool:
        """Whether the series has all its steps."""
        return self.manifest is not None and self.manifest["status"] == "complete"

    @cached_property
    def stream(self) -> ArmStream:
        """The batches of the run; what was made for them is read from the folder when it is first used."""
        config = self.config
        return ArmStream(
            config.source,
            config.arm,
            seed=config.seed,
            batch=config.batch,
            steps=config.steps,
            inputs=self._inputs,
        )

    def _inputs(self) -> Mapping[str, np.ndarray]:
        if self._read_inputs is None:
            self._read_inputs = load(
                read_as_written(self.path / INPUTS, hash_in(self.manifest or {}, INPUTS))
            )
        return self._read_inputs

    @property
    def resume_file(self) -> Path:
        """Optimiser moments of the last written step, the step in its metadata."""
        return self.path / "resume" / "optimizer.safetensors"

    def require_same(self) -> None:
        """Refuse to go on with a series that another configuration began.

        Raises:
            ByroteError: naming each field that differs, with both values.
        """
        if self.manifest is None:
            return
        there, requested = _flat(self.manifest), _flat(json.loads(json.dumps(self._definition())))
        # what only the one there names is a setting that is not at its default
        named = dict.fromkeys(
            [*requested, *(k for k in there if k.startswith(("model.", "train.", "data.")))]
        )
        differing = [k for k in named if there.get(k) != requested.get(k)]
        if differing:
            listed = ", ".join(
                f"{k} (there {there.get(k)!r}, requested {requested.get(k)!r})" for k in differing
            )
            raise ByroteError(
                f"{self.path} already holds a series trained with another configuration: {listed}",
                help="choose another folder, or pass --fresh to delete that series and train this one",
            )

    def clear(self) -> None:
        """Delete what a series wrote here, leaving a manifest without steps; other files stay.

        The resume state goes first, so that a kill half way can never pair it with another configuration.
        """
        remove(self.path / "resume")
        self._write_manifest({**self._definition(), "status": "running", "checkpoints": []})
        self._remove_temporary()
        for name in _CONTENTS:
            remove(self.path / name)
        self._remove_steps_after(-1)

    def begin(self) -> None:
        """Write everything a series holds before its first step."""
        self.clear()
        config, source = self.config, self.config.source
        fields = {"model_type": config.model_type, **config.model_fields()}
        write_json(self.path / "config.json", {**fields, "bos_token_id": source.bos_token_id})
        for name in ("data", "resume"):
            make_folder(self.path / name)
        held_out = draw(source, seed=0, stream="held_out", index=0, n=config.n_held_out)
        twins = draw(source, seed=config.seed, stream="twins", index=0, n=config.n_twins)
        files = {
            "config.json": hash_of(read_as_written(self.path / "config.json", None)),
            **self._write_data("held_out", **_test_arrays(held_out, source)),
            **self._write_data("twins", tokens=twins.tokens),
        }
        assert self.manifest is not None, "`clear` wrote one"
        arrays, made = make_inputs(config, self.path)
        if arrays:
            files |= self._write_data(Path(INPUTS).stem, **arrays)
        self._read_inputs = arrays
        facts = {
            FACTS: source_facts(source, config.n_held_out),
            DATA_FACTS: data_facts(self.stream, steps=config.steps),
        }
        added = {FILES: files, **facts, **({MADE: made} if made else {})}
        self._write_manifest({**self.manifest, **added})

    def require_as_written(self, step: int) -> None:
        """Refuse to go on from a step where config, data or weights up to it are not what was written.

        Raises:
            ByroteError: naming the file.
        """
        assert self.manifest is not None
        damage = list(damage_in(self.path, {**self.manifest, "checkpoints": self._up_to(step)}))
        if damage:
            raise ByroteError(damage[0], help="pass --fresh to train the series again")

    def _up_to(self, step: int) -> list[dict[str, Any]]:
        assert self.manifest is not None
        return [entry for entry in self.manifest["checkpoints"] if entry["step"] <= step]

    def rewind(self, step: int, stream: ArmStream) -> None:
        """Forget whatever was written after `step`, the step of the resume state.

        Args:
            step: of the resume state.
            stream: the data, to count how often each pool sequence had been used by then.
        """
        assert self.manifest is not None
        manifest = {**self.manifest, "checkpoints": self._up_to(step)}
        members = self._write_members(stream, step)
        if is_verified(manifest):
            manifest[FILES] = {**manifest[FILES], **members}
        if (now := _versions()) != manifest["versions"]:
            manifest["resumed_with"] = now
        self._write_manifest(manifest)
        self._remove_temporary()
        self._remove_steps_after(step)
        self._truncate_log(step)

    def add(self, entry: dict[str, Any], *, weights: bytes, resume: bytes, stream: ArmStream) -> None:
        """Add one step.

        Args:
            entry: step and losses, as the manifest lists them.
            weights: the model's safetensors file.
            resume: the optimiser's safetensors file.
            stream: the data, to count how often each pool sequence has been used.
        """
        self.extend([Written(entry, weights, hash_of(resume))], stream=stream)
        write_bytes(self.resume_file, resume)

    def extend(self, steps: Sequence[Written], *, stream: ArmStream) -> None:
        """Add steps, all but the state to resume from.

        Args:
            steps: in order, later than those that are there.
            stream: the data, to count how often each pool sequence has been used.
        """
        assert self.manifest is not None
        sync(self.path / "log.jsonl")  # whoever goes on from these steps keeps the lines before them
        listed = []
        for one in steps:
            step = one.entry["step"]
            folder = step_folder_name(step)
            write_folder(self.path / folder, {"model.safetensors": one.weights})
            seen = {"folder": folder, "tokens_seen": self.config.tokens_seen(step)}
            hashes = {WEIGHTS: hash_of(one.weights), MOMENTS: one.moments}
            listed.append({"step": step, **seen, **one.entry, **hashes})
        files = {**(self.manifest.get(FILES) or {}), **self._write_members(stream, listed[-1]["step"])}
        manifest = {**self.manifest, "checkpoints": [*self.manifest["checkpoints"], *listed]}
        self._write_manifest({**manifest, FILES: files} if is_verified(manifest) else manifest)

    def finish(self) -> None:
        """Mark the series complete; the state to resume from is deleted."""
        assert self.manifest is not None
        self._write_manifest({**self.manifest, "status": "complete"})
        self.tidy()

    def tidy(self) -> None:
        """Remove what a kill between completion and clean-up leaves behind."""
        remove(self.path / "resume")

    def require_steps(self) -> None:
        """Refuse to call a series complete whose weights have gone.

        Raises:
            ByroteError: naming the steps without weights.
        """
        assert self.manifest is not None
        folders = {c["step"]: self.path / Path(c["folder"]).name for c in self.manifest["checkpoints"]}
        gone = [step for step, folder in folders.items() if not (folder / "model.safetensors").is_file()]
        if gone:
            raise ByroteError(
                f"{self.path} is marked complete, but the weights of {len(gone)} of its {len(folders)} steps "
                f"are missing: {', '.join(str(step) for step in gone[:8])}",
                help="pass --fresh to train the series again; the weights at its end will be the same",
            )
        if damage := list(damage_in(self.path, self.manifest)):
            more = f" (and {len(damage) - 1} more)" if len(damage) > 1 else ""
            raise ByroteError(
                f"{self.path} is marked complete, but {damage[0]}{more}",
                help="pass --fresh to train the series again; the weights at its end will be the same",
            )

    def _definition(self) -> dict[str, Any]:
        known = self.manifest["name"] if self.manifest else self.path.resolve().name
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.config.name or known,
            **self.config.definition(),
            "versions": _versions(),
        }

    def _write_manifest(self, manifest: dict[str, Any]) -> None:
        write_json(self.path / "manifest.json", manifest)
        self.manifest = manifest

    def _write_members(self, stream: ArmStream, step: int) -> dict[str, str]:
        """The pool and how often each of its sequences had been used by a step; nothing without a pool."""
        if stream.pool is None:
            return {}
        counts = stream.repeat_counts(step)
        return self._write_data("members", tokens=stream.pool.tokens, repeat_count=counts)

    def _write_data(self, name: str, **arrays: np.ndarray) -> dict[str, str]:
        data = save({k: np.ascontiguousarray(v) for k, v in arrays.items()})
        write_bytes(self.path / "data" / f"{name}.safetensors", data)
        return {f"data/{name}.safetensors": hash_of(data)}

    def _remove_temporary(self) -> None:
        for path in leftovers(self.path):
            remove(path)

    def _remove_steps_after(self, step: int) -> None:
        for path in self.path.glob("step_" + "[0-9]" * 8):
            if int(path.name[5:]) > step:
                remove(path)

    def _truncate_log(self, step: int) -> None:
        log = self.path / "log.jsonl"
        if not log.exists():
            return
        text = read_text(log)
        whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        kept = [line for line in whole if _step_of(line) < step]
        write_bytes(log, "".join(kept).encode())


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of the series in a folder, or None where the folder is missing or empty."""
    if path.exists() and not path.is_dir():
        raise ByroteError(f"{path} is a file", help="a series needs a folder of its own: choose another name")
    try:
        names = [p.name for p in path.iterdir()] if path.exists() else []
    except OSError as error:
        raise ByroteError(f"cannot read {path}: {error.strerror}", help="choose another folder") from error
    if all(n == LOCK or (is_leftover(n) and "manifest.json" in n) for n in names):
        return None  # a kill during the very first write leaves only these
    refusal = ByroteError(
        f"{path} is not empty and is not a lab series", help="choose another folder; nothing was changed"
    )
    try:
        manifest = read_json(path / "manifest.json")
    except (OSError, ValueError):
        raise refusal from None
    if not same_format(manifest.get("format"), FORMAT):
        raise refusal
    if manifest.get("version") != VERSION:
        raise ByroteError(
            f"{path} holds a lab series of version {manifest.get('version')!r}; this byrote reads version {VERSION}",
            help="choose another folder, or use the release that wrote it",
        )
    if missing := sorted({"name", "status", "versions", "checkpoints"} - manifest.keys()):
        raise ByroteError(
            f"{path / 'manifest.json'} lacks {', '.join(missing)}",
            help="restore it, or choose another folder; nothing was changed",
        )
    listed = manifest["checkpoints"]
    sound = isinstance(listed, list) and all(isinstance(c, dict) for c in listed)
    if not sound or not all(type(c.get("step")) is int and type(c.get("folder")) is str for c in listed):
        raise ByroteError(
            f"{path / 'manifest.json'} lists checkpoints without a step or a folder",
            help="restore it, or choose another folder; nothing was changed",
        )
    return manifest


@lru_cache(maxsize=8)  # the runs of a grid have one source
def source_facts(source: Source, n_held_out: int) -> dict[str, Any]:
    """What the manifest says of a source: shares and the exact Bayes floor, on the held-out tokens that are predicted.

    Args:
        source: of the series.
        n_held_out: sequences of its held-out split.

    Returns:
        `inducible_frac` (copies and in-context statistics, of the source); `mechanism_frac`; `floor_nats` and
        `mechanism_floor_nats`, None and {} with `no_floor`, the reason, where the exact floor is not known.
    """
    held_out = draw(source, seed=0, stream="held_out", index=0, n=n_held_out)
    mechanism, floor = held_out.mechanism[:, 1:-1], source.floor_nll(held_out)[:, 1:-1]
    there = {name: mechanism == code for name, code in CODES.items() if (mechanism == code).any()}
    known = not source.no_floor
    return {
        "inducible_frac": source.inducible_frac,
        "mechanism_frac": {name: float(chosen.mean()) for name, chosen in there.items()},
        "floor_nats": float(floor.mean()) if known else None,
        "mechanism_floor_nats": {n: float(floor[chosen].mean()) for n, chosen in there.items() if known},
        **({} if known else {"no_floor": source.no_floor}),
    }


def _test_arrays(held_out: Sequences, source: Source) -> dict[str, np.ndarray]:
    """What is stored of the held-out split: tiled blocks say where they repeat, others which mechanism predicts what."""
    if isinstance(source, SourceConfig):
        return {"tokens": held_out.tokens, "second_block_start": held_out.second_block_start}
    return {"tokens": held_out.tokens, "mechanism": held_out.mechanism[:, :-1]}


def _step_of(line: str) -> float:
    """The step of a line of the log; a damaged line is of none that is written again."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return math.inf
    return step if isinstance(step, int | float) else math.inf


def _flat(manifest: dict[str, Any]) -> dict[str, Any]:
    """Configuration fields by dotted name: without what training adds or other fields already say."""
    flat: dict[str, Any] = {}
    for key in ("name", "seed", "arm", "data", "model", "train"):
        value = manifest.get(key)
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            flat[key] = value
    return {key: value for key, value in flat.items() if key not in _DERIVED}


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in _PACKAGES}
