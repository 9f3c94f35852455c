"""Series whose steps are single weight files: `step_512.pt`, `epoch=1-step=500.ckpt`, `step_512/ckpt.pt`.

What is common to them: which files are candidates, which step a name says, what is no regular file, where the
config is, and how files become a series.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.advice import advice, first_names
from byrote.checkpoints.formats.inert_pickle import shown
from byrote.checkpoints.formats.model_config import read_config, refuse_implausible
from byrote.checkpoints.formats.torch_zip import read_torch_file
from byrote.checkpoints.listing import children
from byrote.checkpoints.series import STEP_UNKNOWN, Checkpoint, CheckpointSeries, Gap, read_or_gap, series_of
from byrote.checkpoints.step_names import (
    StepName,
    count_parts,
    has_too_many_digits,
    parse_name,
    refuse_mixed_parts,
    step_folders,
)

MAX_PEEKS = 8  # files that are read to find out what a folder is
# A step inside a longer name: model_step512, gpt-small-iter-1000-final.
_STEP_WITHIN = re.compile(
    r"(?:^|[^a-z])(?:global_?)?(?:step|iter)s?[-_=]?(\d{1,15})(?!\d)(?![\d.]*-of-)", re.IGNORECASE
)
_HF_NAMED = re.compile(
    r"(?:model|pytorch_model|adapter_model)(?:-\d+-of-\d+)?\.(?:safetensors|bin)", re.IGNORECASE
)
_SIDECARS = re.compile(r"(?:.*[-_.])?(?:optimi[sz]ers?|optim|scheduler|rng|scaler|sampler|training_args)"
                       r"(?:[-_.].*|states?.*)?\.\w+", re.IGNORECASE)  # fmt: skip


@dataclass(frozen=True)
class WeightFile:
    """A file that may hold one step; step and tokens where a name says them."""

    path: Path
    step: int | None = None
    tokens: int | None = None

    def checkpoint(
        self, format: str, saved: int | None, *, spelling: str, config: Path | None = None
    ) -> Checkpoint:
        """The file as a checkpoint of the step its name says, else of the one it holds.

        Args:
            format: the format's name.
            saved: the step saved in it; None where there is none.
            spelling: a name that would say the step, for the message.
            config: the JSON file that describes the architecture.

        Raises:
            CheckpointError: neither says a step.
        """
        step = self.step if self.step is not None else saved
        if step is None:
            raise CheckpointError(f"the step of {self.path.name} is unknown", help=f"rename it to {spelling}")
        return Checkpoint(
            step, self.path, format, tokens_seen=self.tokens, files=(self.path,), config_path=config
        )


def hf_named(name: str) -> bool:
    """Named as Hugging Face names the weights of a model folder."""
    return _HF_NAMED.fullmatch(name) is not None


def candidates(path: Path, endings: Iterable[str]) -> tuple[list[WeightFile], list[Gap]]:
    """Files that may hold weights: the path itself, those in the folder, else those in its step folders.

    Args:
        path: a file or a folder.
        endings: file endings that count, such as ``.pt``.

    Returns:
        The files by name, and gaps for what is named like one and is no regular file.
    """
    if path.is_file():
        return ([_named(path)], []) if path.suffix.lower() in endings else ([], [])
    here, gaps = _inside(path, endings)
    files = [_named(file) for file in here]
    if files or gaps:
        return files, gaps
    for folder in step_folders(path):
        inside, odd = _inside(folder, endings)
        gaps += odd
        named = parse_name(folder.name)
        assert named is not None, "step_folders gives folders whose names can be parsed"
        if len(inside) == 1:
            files.append(WeightFile(inside[0], named.step, named.tokens))
        elif len(inside) > 1:
            names = ", ".join(file.name for file in inside[:3])
            gaps.append(
                Gap(
                    folder, f"it holds {len(inside)} weight files ({names})", "leave one per step", named.step
                )
            )
    return files, gaps


def first_content(files: Iterable[WeightFile]) -> Any:
    """What the first of at most 8 pickled files that can be read holds; None where none can be."""
    for file in islice(files, MAX_PEEKS):
        try:
            return read_torch_file(file.path).content
        except CheckpointError:
            continue
    return None


def file_step(name: str) -> tuple[int, int | None] | None:
    """Step and tokens a file's name says, None where it says none."""
    named = parse_name(name)
    if named is not None:
        return named.step, named.tokens
    within = _STEP_WITHIN.findall(Path(name).stem)
    return (int(within[0]), None) if len(within) == 1 else None


def assemble(
    path: Path,
    format: str,
    files: Iterable[WeightFile],
    gaps: Iterable[Gap],
    read: Callable[[WeightFile], Checkpoint],
) -> CheckpointSeries:
    """Files as a series: what cannot be read is a gap, copies of a named step are left out with a note.

    Args:
        path: the folder or file that was opened.
        format: the format's name.
        files: candidates.
        gaps: what was found unreadable already.
        read: one file as a checkpoint; raises CheckpointError for what is none.

    Raises:
        CheckpointError: the names belong to different stages, whose steps are no one axis.
    """
    files, gaps = list(files), list(gaps)
    parts = count_parts(
        file.path.name if parse_name(file.path.name) else file.path.parent.name for file in files
    )
    if len(parts) > 1:
        raise CheckpointError(
            f"{path} holds {len(parts)} parts of a training, each with its own count of steps: {', '.join(parts)}",
            help="move the files of each part to a separate folder",
        )
    found = [(file, read_or_gap(file.path, file.step, partial(read, file))) for file in files]
    named = {c.step for file, c in found if file.step is not None and isinstance(c, Checkpoint)}
    copies: list[Checkpoint] = []
    own: list[Checkpoint | Gap] = [*gaps]
    for file, one in found:
        if isinstance(one, Checkpoint) and file.step is None and one.step in named:
            copies.append(one)
        else:
            own.append(one)
    return series_of(
        path,
        format,
        own,
        name=path.resolve().stem if path.is_file() else "",
        notes=(f"{c.path.name} is step {c.step} again and was left out" for c in copies),
    )


def assemble_folders(
    path: Path,
    format: str,
    read: Callable[[Path, StepName | None], Checkpoint],
    *,
    alone: bool,
    unknown: bool,
    notes: Iterable[str] = (),
) -> CheckpointSeries:
    """Step folders as a series, or the one model a folder is; what claims to be a step and is no folder is a gap.

    Args:
        path: the folder that was opened.
        format: the format's name.
        read: one folder, and what its name says, as a checkpoint; raises CheckpointError for what is none.
        alone: whether the folder itself is the model.
        unknown: whether nothing but the folder's name could say the step of a model that is alone.
        notes: to be put before others.

    Raises:
        CheckpointError: the names belong to different stages, whose steps are no one axis.
    """
    odd = odd_steps(path)
    folders = [path] if alone else [f for f in step_folders(path) if all(f != gap.path for gap in odd)]
    refuse_mixed_parts((folder.name for folder in folders), where=str(path))
    if alone and unknown and parse_name(path.name) is None:
        notes = [*notes, STEP_UNKNOWN]
    named = [(folder, parse_name(folder.name)) for folder in folders]
    found = [read_or_gap(f, name.step if name else None, partial(read, f, name)) for f, name in named]
    return series_of(path, format, [*odd, *found], notes=notes)


def config_beside(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path:
    """The config.json beside a weight file or in the folder above, which fits the file's tensors.

    Args:
        file: of weights.
        shapes: of its tensors, by name.

    Raises:
        CheckpointError: there is none, it cannot be used, or it describes another model.
    """
    folder = file.absolute().parent
    config = next((c for c in (folder / "config.json", folder.parent / "config.json") if c.is_file()), None)
    if config is None:
        family, help = advice(shapes, folder=file.parent)
        looks = f" (its names look like those of {family})" if family else ""
        raise CheckpointError(
            f"there is no config.json beside {file.name} or in the folder above, and nothing in it says which "
            f"architecture it is: {first_names(shapes)}{looks}",
            help=f"put the Hugging Face config.json of the model into {file.parent}; or else {help}",
        )
    refuse_implausible(read_config(config), shapes.values(), where=config.name)
    return config


def odd_steps(path: Path) -> list[Gap]:
    """Gaps for what is named like a step and is a link that leads nowhere or back up, a pipe or a device."""
    gaps = []
    for child in children(path):
        named = parse_name(child.name)
        if has_too_many_digits(child.name) and child.is_dir() and not child.name.isdigit():
            gaps.append(Gap(child, "its step number is implausibly large", "rename it", None))
        if named is None or named.bare or child.is_file():
            continue
        if not child.is_dir():
            reason = "it is not a folder (a broken link, a loop, a pipe or a device)"
        elif child.is_symlink() and path.resolve().is_relative_to(child.resolve()):
            reason = "it is a link to a folder that contains it"
        else:
            continue
        gaps.append(Gap(child, reason, "replace it with the folder itself", named.step))
    return gaps


def links_out(series: CheckpointSeries) -> tuple[str, ...]:
    """A note on files that are not in the opened folder but linked into it, as a hub cache does; none without links."""
    home = series.path.resolve()
    home = home if series.path.is_dir() else home.parent
    used = {f for c in series.checkpoints for f in (*c.files, c.config_path) if f is not None and f.exists()}
    folders = {folder: folder.resolve().is_relative_to(home) for folder in {file.parent for file in used}}
    linked = sorted(
        file
        for file in used
        if file.is_relative_to(series.path)
        and not (file.resolve().is_relative_to(home) if file.is_symlink() else folders[file.parent])
    )
    if not linked:
        return ()
    first = f"{linked[0].relative_to(series.path)} -> {linked[0].resolve()}"
    return (f"{len(linked)} files lie outside the folder and are linked into it ({shown(first)}, ...)",)


def _named(file: Path) -> WeightFile:
    return WeightFile(file, *(file_step(file.name) or (None, None)))


def _inside(folder: Path, endings: Iterable[str]) -> tuple[list[Path], list[Gap]]:
    """Weight files of one folder, and gaps for whatever is named like one and cannot be opened as a file."""
    files, gaps = [], []
    for child in children(folder):
        if child.suffix.lower() not in endings or hf_named(child.name) or _SIDECARS.fullmatch(child.name):
            continue
        if child.is_file():
            files.append(child)
        elif not child.is_dir():
            reason = "it is not a regular file (a broken link, a loop, a pipe or a device)"
            gaps.append(
                Gap(child, reason, "replace it with the file itself", (file_step(child.name) or (None,))[0])
            )
    return files, gaps
