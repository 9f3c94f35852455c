"""State dicts of TransformerLens's `HookedTransformer` (`blocks.0.attn.W_Q`, ...), as training runs saved them.

One file per step (`model_000512.pth`, `step_512/state_dict.pt`, `512.safetensors`, ...), or one model; the
HookedTransformerConfig beside them as `config.json` or `cfg.json`, or in the file itself as "cfg" or "config" beside
"state_dict", "model_state_dict" or "model". TransformerLens 4 can no longer read these files by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.adapter import Format, TensorInfo
from byrote.checkpoints.formats.inert_pickle import CONVERT_LENS
from byrote.checkpoints.formats.safetensors_header import read_header
from byrote.checkpoints.formats.state_dict import state_of
from byrote.checkpoints.formats.tl_config import (
    LegacyConfig,
    differences_from_native,
    looks_like_legacy,
    read_legacy_config,
    refuse_misfit,
)
from byrote.checkpoints.formats.tl_layout import Layout, as_expected, layout_of, missing_config
from byrote.checkpoints.formats.torch_zip import read_torch_file
from byrote.checkpoints.formats.trainer_state import first_count, number_or_none, read_json
from byrote.checkpoints.formats.weight_files import WeightFile, assemble, candidates
from byrote.checkpoints.series import STEP_UNKNOWN, Checkpoint, CheckpointSeries, Gap, Inside
from byrote.checkpoints.step_names import parse_name, step_folders

ENDINGS = (".pth", ".pt", ".safetensors", ".ckpt", ".bin")
CONFIG_NAMES = ("config.json", "cfg.json", "model_config.json")

_HF_NAMES = ("model.safetensors", "pytorch_model.bin")  # people save what they trained under these names too
_SIDE_FILES = ("metadata.json", "state.json", "metrics.json", "trainer_state.json")
_CONFIG_KEYS = ("cfg", "config", "model_cfg", "model_config")
_TOKENS = re.compile(r"(?:^|[^a-z])tokens?[-_=]?(\d{1,15})(?![\d.])", re.IGNORECASE)


@dataclass(frozen=True)
class Contents:
    """What one file holds, tensors by TransformerLens's names; `prefix` is what wrappers put before them, `layout` how they lie."""

    tensors: Mapping[str, TensorInfo]
    prefix: str
    config: Mapping[str, Any] | None
    beside: Mapping[str, Any]
    layout: Layout = field(default_factory=Layout)


def sniff(path: Path) -> bool:
    """True where the first readable weight file has HookedTransformer's names, or none is readable and the config has."""
    _, files, _ = _files(path)
    for file in files[:3]:
        try:
            return embedding_name(_tensors_in(file.path)[0]) is not None
        except (CheckpointError, OSError):
            continue
    for folder in _config_folders(path, files):
        try:
            if (config := _config_at(folder)) is not None and looks_like_legacy(read_json(config)):
                return True
        except CheckpointError:
            continue
    return False


def discover(path: Path) -> CheckpointSeries:
    """List every file as a step, its names and shapes checked against its config; what does not fit is a gap."""
    notes, files, gaps = _files(path)
    configs: dict[Path, LegacyConfig] = {}
    layouts: dict[str, None] = {}

    def read(file: WeightFile) -> Checkpoint:
        checkpoint = _checkpoint(path, file)
        configs[file.path], contents = read_checked(checkpoint)
        layouts[contents.layout.note] = None
        return checkpoint

    series = assemble(path, FORMAT.name, files, gaps, read)
    if len(files) == 1 and files[0].step is None and series.steps == (0,):
        notes.append(STEP_UNKNOWN)
    return replace(series, notes=(*notes, *series.notes, *filter(None, layouts), *_notes(series, configs)))


def read_checked(checkpoint: Checkpoint) -> tuple[LegacyConfig, Contents]:
    """Config and contents of one step, proved to fit each other. Reads no weights.

    Raises:
        CheckpointError: no config, one that is not supported, or tensors it does not describe.
    """
    contents = read_contents(checkpoint.files[0], checkpoint.inside)
    config = raw_config(checkpoint, contents)
    legacy = read_legacy_config(config)
    layout = layout_of(legacy, contents.tensors, config)
    refuse_misfit(legacy, as_expected(layout, legacy, contents.tensors))
    return legacy, replace(contents, layout=layout)


def read_contents(file: Path, inside: Inside = ()) -> Contents:
    """Names and shapes in a file, or of one of the steps in it, and the plain values beside them.

    Raises:
        CheckpointError: the file is damaged, refers to code, or holds no HookedTransformer.
    """
    tensors, outer = _tensors_in(file, inside)
    embedding = embedding_name(tensors)
    if embedding is None:
        raise CheckpointError(
            f"{file.name} holds no state dict of a HookedTransformer (no embed.W_E)",
            help='save model.state_dict(), alone or as "state_dict" beside "cfg"',
        )
    prefix = embedding.removesuffix("embed.W_E")
    strangers = sorted(name for name in tensors if not name.startswith(prefix))
    if strangers:
        raise CheckpointError(
            f"{file.name}: {len(strangers)} tensors are outside {prefix!r} ({', '.join(strangers[:3])})",
            help="save the HookedTransformer's state_dict() alone",
        )
    config = next((outer[key] for key in _CONFIG_KEYS if isinstance(outer.get(key), dict)), None)
    return Contents({n.removeprefix(prefix): t for n, t in tensors.items()}, prefix, config, outer)


def raw_config(checkpoint: Checkpoint, contents: Contents | None = None) -> Mapping[str, Any]:
    """The config as it was saved: the JSON file, else what the weight file holds."""
    if checkpoint.config_path is not None:
        return read_json(checkpoint.config_path)
    contents = contents or read_contents(checkpoint.files[0], checkpoint.inside)
    if (config := contents.config) is None:
        raise CheckpointError(
            f"there is no config ({' or '.join(CONFIG_NAMES[:2])}) beside {checkpoint.files[0].name}, and none in it",
            help=missing_config(contents.tensors),
        )
    return config


def _tensors_in(file: Path, inside: Inside = ()) -> tuple[dict[str, TensorInfo], Mapping[str, Any]]:
    """Tensors by their names in the file, and what was saved beside them."""
    if file.suffix.lower() == ".safetensors":
        return {
            entry.name: TensorInfo(entry.dtype, entry.shape, file.name) for entry in read_header(file)
        }, {}
    try:
        content = read_torch_file(file).content
    except CheckpointError as error:
        if "transformer_lens" in error.message or "numpy" in error.message:
            raise CheckpointError(error.message, help=CONVERT_LENS) from None
        raise
    state = state_of(content, where=file.name, inside=inside)
    outer = content if isinstance(content, dict) and state is not content else {}
    beside = {k: v for k, v in outer.items() if isinstance(k, str) and v is not state and k not in inside[:1]}
    return {name: TensorInfo(tensor.dtype, tensor.shape, file.name) for name, tensor in state.items()}, beside


def embedding_name(tensors: Mapping[str, Any]) -> str | None:
    """The name of `embed.W_E`, whatever wrappers (`_orig_mod.`, `module.`) put before it."""
    return next((name for name in tensors if re.fullmatch(r"(?:[\w]+\.)*?embed\.W_E", name)), None)


def _files(path: Path) -> tuple[list[str], list[WeightFile], list[Gap]]:
    """Notes on what was left out, weight files with their steps, and gaps."""
    files, gaps = _listed(path)
    left_out: list[WeightFile] = []
    if (path / "checkpoints").is_dir() and all(file.step is None for file in files):
        inner, inner_gaps = _listed(path / "checkpoints")
        if inner:  # the layout of the first public models: the steps in a folder beside the finished model
            left_out, files, gaps = files, inner, gaps + inner_gaps
    notes = []
    for i, file in enumerate(files):
        if file.tokens is None and (counted := _TOKENS.search(file.path.stem)):
            files[i] = replace(file, tokens=int(counted[1]))
    if all(file.step is None for file in files) and any(file.tokens is not None for file in files):
        files = [replace(file, step=file.tokens) for file in files]
        notes.append("the file names count tokens, not steps: tokens are shown as steps")
    named = [file for file in files if file.step is not None]
    if named:
        left_out += [file for file in files if file.step is None]
        files = named
    notes += [f"{file.path.name} has no step in its name and was left out" for file in left_out]
    return notes, files, gaps


def _listed(path: Path) -> tuple[list[WeightFile], list[Gap]]:
    """Candidates, or the one file of each folder that is named as Hugging Face names its weights."""
    files, gaps = candidates(path, ENDINGS)
    if files or gaps or path.is_file():
        return files, gaps
    for folder in (path, *step_folders(path)):
        named = parse_name(folder.name)
        found = next((folder / name for name in _HF_NAMES if (folder / name).is_file()), None)
        if found is not None:
            files.append(WeightFile(found, named.step, named.tokens) if named else WeightFile(found))
    return files, gaps


def _checkpoint(path: Path, file: WeightFile) -> Checkpoint:
    beside = {**read_contents(file.path).beside, **_side_json(file.path)}
    step = file.step if file.step is not None else first_count(beside, "step", "global_step", "iteration")
    tokens = first_count(beside, "tokens_seen", "tokens", "num_tokens", "num_input_tokens_seen")
    losses = (number_or_none(beside.get(name)) for name in ("loss", "train_loss"))
    configs = (_config_at(folder) for folder in _config_folders(path, [file]))
    return Checkpoint(
        step=step or 0,
        path=file.path,
        format=FORMAT.name,
        tokens_seen=tokens if file.tokens is None else file.tokens,
        loss_nats=next((loss for loss in losses if loss is not None), None),
        files=(file.path,),
        config_path=next(filter(None, configs), None),
    )


def _side_json(file: Path) -> dict[str, Any]:
    """What a small JSON file beside the weights says: of this file by name, or of its step folder."""
    of_folder = _SIDE_FILES if parse_name(file.parent.name) else ()
    for side in (file.with_suffix(".json"), *(file.parent / name for name in of_folder)):
        if side.is_file() and side.name not in CONFIG_NAMES:
            return read_json(side)
    return {}


def _config_folders(path: Path, files: list[WeightFile]) -> list[Path]:
    """Where a config may be: beside the weights first, then at the top of the series."""
    top = path if path.is_dir() else path.parent
    above = [top.parent] if top.name == "checkpoints" else []
    return list(dict.fromkeys([*(file.path.parent for file in files[:1]), top, *above]))


def config_near(file: Path) -> Path | None:
    """The config beside a file or in the folder above; None where there is none."""
    folders = (file.absolute().parent, file.absolute().parent.parent)
    return next(filter(None, map(_config_at, folders)), None)


def _config_at(folder: Path) -> Path | None:
    return next((folder / name for name in CONFIG_NAMES if (folder / name).is_file()), None)


def _notes(series: CheckpointSeries, configs: Mapping[Path, LegacyConfig]) -> Iterator[str]:
    read = [configs[checkpoint.files[0]] for checkpoint in series]
    if any(legacy.folded for legacy in read):
        yield (
            "the norms have no gains of their own: TransformerLens folds them into the weights when it processes a "
            "model, and probes of weights read the weights as they are stored"
        )
    settled = [
        legacy for legacy in read if legacy.positions != "rotary" or legacy.rotary_adjacent is not None
    ]
    others = dict.fromkeys(name for legacy in settled for name in differences_from_native(legacy))
    if others:
        yield f"TransformerLens 4 computes these differently, so byrote's reference model runs them: {', '.join(others)}"


FORMAT = Format(
    "tl_legacy",
    sniff,
    discover,
    builder="tl_legacy",
    reads="TransformerLens state dicts",
    single_files=True,
    config_inside=raw_config,
)
